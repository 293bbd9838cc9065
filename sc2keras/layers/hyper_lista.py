"""HyperLISTA: three numbers in all."""

from typing import Any

import keras
import numpy as np
from keras import ops

from sc2keras.layers.fista import extrapolated
from sc2keras.layers.penalised import NO_ELASTIC_NET
from sc2keras.layers.recovery import AnalyticEncoder, log_size, mean_magnitude
from sc2keras.layers.support_selection import support_selection
from sc2keras.registry import register_encoder
from sc2keras.validation import Shape, Tensor, at_least_float32, check_positive

_TINY = 1e-30


@register_encoder("HyperLISTA", reference="Chen, Liu, Wang and Yin 2021")
@keras.saving.register_keras_serializable(package="sc2keras")
class HyperLISTABlock(AnalyticEncoder):
    """HyperLISTA: analytic weights, and all else from three constants.

        c = (x − s_{t−1} D) Wᵀ,  e = mean_j |c_j|
        s_t = sh^p_θ(s_{t−1} + c + β (s_{t−1} − s_{t−2}))
        θ = c₁·e,  β = c₂·‖s_{t−1}‖₀/k,  p = clip(c₃·ln(e₀/e), 0, 1)

    each sample with its own threshold θ, momentum β, and p, the fraction of its entries
    that pass unshrunk; e₀ is the e of the first step, which selects none. Convergence
    is superlinear. Codes are homogeneous, s(c·x) = c·s(x), and `l1` is of no effect on
    them.

    The constants are those of the paper up to a factor: it has ‖D†r‖₁, with columns of
    the pseudo-inverse that W's rows are, rescaled, and ‖s‖₀, where means here make
    constants of one size for all numbers of atoms. Its step size of one is taken, and
    not the 0.05 of its code. Fit them by `sc2keras.fit_recovery`: the count that c₃
    decides has no gradient.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term of the objective.
        dictionary: Array `(n_atoms, n_features)`, D; its atoms have a norm of at most
            1. None: random atoms of unit norm.
        constants: Three floats > 0, where c₁, c₂, c₃ start; None: 0.6·ln k, 1.7 and
            0.2, which suit a Gaussian dictionary twice as large as its signals, and
            a tenth of the entries nonzero.
        ridge: See `ALISTABlock`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: `unit`, and those of `keras.layers.Layer`, such as `name`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = HyperLISTABlock(20, n_steps=3)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 20)

    Reference:
        Chen, Liu, Wang and Yin, Hyperparameter Tuning is All You Need for LISTA, 2021.
    """

    has_thresholds_of_l1 = False
    refuses = NO_ELASTIC_NET | {
        "l1": "l1 is of no effect on its codes. Use ALISTA, or TiLISTA.",
    }

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        constants: tuple[float, float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        if constants is None:
            constants = (0.6 * log_size(n_atoms), 1.7, 0.2)
        if np.shape(constants) != (3,):
            raise ValueError(
                f"constants must be three numbers > 0; received {constants=!r}."
            )
        self.constants = tuple(check_positive("constants", c) for c in constants)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        start = np.log(self.constants)
        self.log_constants = self.add_weight_from("log_constants", start)

    def initial_state(self, prepared: Tensor) -> tuple[None, None, None]:
        return None, None, None

    def step(self, prepared: Tensor, state: Any, t: int) -> tuple[Tensor, Any, Tensor]:
        codes, previous, first_error = state
        threshold, momentum, growth = ops.split(ops.exp(self.log_constants), 3)
        correction = self.correct(self.residual(prepared, codes))
        # Half precision has no room for the ratio of a large to a small one.
        wide = at_least_float32(self.compute_dtype)
        error = mean_magnitude(ops.cast(correction, wide))
        if codes is None:
            return self._shrink(correction, threshold, error), None, error
        active = ops.cast(ops.not_equal(codes, 0.0), codes.dtype)
        weight = momentum * ops.mean(active, axis=-1, keepdims=True)
        y = extrapolated(codes, 0.0 if previous is None else previous, weight)
        fall = ops.log((first_error + _TINY) / (error + _TINY))
        growth = ops.cast(growth, fall.dtype)
        count = self.n_atoms * ops.clip(growth * fall, 0.0, 1.0)
        total = y + correction
        shrunk = self._shrink(total, threshold, error)
        count = ops.stop_gradient(count)
        selected = support_selection(total, shrunk, count, nonnegative=self.nonnegative)
        return selected, codes, first_error

    def _shrink(self, codes: Tensor, threshold: Tensor, error: Tensor) -> Tensor:
        limit = ops.cast(threshold, error.dtype) * error
        return self.shrink(codes, ops.cast(limit, codes.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "constants": self.constants}
