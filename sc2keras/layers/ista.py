"""ISTA and FISTA: exact solvers of the LASSO for a given dictionary, as layers."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from numpy.typing import ArrayLike

from sc2keras.layers.shrinkage import soft_threshold
from sc2keras.layers.unfolded import UnfoldedEncoder
from sc2keras.objective import duality_gap_and_correlation
from sc2keras.validation import Shape, Tensor, check_non_negative

_MIN_STEPS_PER_CHECK = 10
_MAX_HALVINGS = 4
_MIN_ROWS = 64


class _ProximalGradient(UnfoldedEncoder):
    """What ISTA and FISTA share: the iteration around their extrapolation."""

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 300,
        l1: float = 0.1,
        dictionary: ArrayLike | None = None,
        tol: float | None = None,
        return_sequences: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            n_atoms,
            n_steps,
            l1=l1,
            dictionary=dictionary,
            return_sequences=return_sequences,
            trainable_dictionary=False,
            **kwargs,
        )
        self.tol = None if tol is None else check_non_negative("tol", tol)
        if self.tol is not None and self.return_sequences:
            raise ValueError(
                "return_sequences=True needs a fixed number of steps; received "
                f"tol={tol!r}. Use tol=None."
            )

    def build(self, input_shape: Shape) -> None:
        self.build_dictionary(input_shape[-1])

    def extrapolate(
        self, codes: Tensor, previous: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`(y, next_t)`: the point where the gradient step starts; ISTA's."""
        return codes, t

    def restart(self, t: Tensor, overshoot: Tensor) -> Tensor:
        """t after a step to a tolerance; `overshoot` is (y − s_t)·(s_t − s_{t−1})."""
        return t

    def call(self, inputs: Tensor, reverse: bool = False) -> Tensor:
        self.check_call(inputs, reverse)
        if reverse:
            return self.decode(inputs)
        # bfloat16 has 8 bits: no gap under 1 % would ever be seen.
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        x = ops.cast(inputs, dtype)
        dictionary = ops.cast(self.dictionary, dtype)
        step_size = ops.cast(self.step_size, dtype)
        n_atoms, n_features = dictionary.shape
        # With many atoms two products with D take fewer operations than one with D Dᵀ.
        factored = n_atoms > 2 * n_features
        gram = None
        if not factored:
            gram = ops.matmul(dictionary, ops.transpose(dictionary))
        threshold = step_size * self.l1

        def step(state, x, center, correlation):
            # `correlation` is (x − center D)Dᵀ. Far from zero the differences to the
            # center are small, and so is what float32 loses in the product.
            codes, previous, t = state
            y, t = self.extrapolate(codes, previous, t)
            if factored:
                residual = x - ops.matmul(y, dictionary)
                gradient = -ops.matmul(residual, ops.transpose(dictionary))
            else:
                gradient = ops.matmul(y - center, gram) - correlation
            new = soft_threshold(y - step_size * gradient, threshold)
            if self.tol is not None:
                overshoot = ops.sum((y - new) * (new - codes), axis=-1, keepdims=True)
                t = self.restart(t, overshoot)
            return new, codes, t

        if self.tol is not None:
            codes = self._solve_to_tolerance(step, x, dictionary)
            return ops.cast(codes, self.compute_dtype)
        correlation = ops.matmul(x, ops.transpose(dictionary))
        zeros = ops.zeros_like(correlation)
        state = (zeros, zeros, zeros[..., :1])
        if self.return_sequences:

            def advance(state, _):
                state = step(state, x, zeros, correlation)
                return state, state  # Keras wants both alike on TensorFlow.

            _, (codes, _, _) = ops.scan(advance, state, length=self.n_steps)
            codes = ops.moveaxis(codes, 0, -2)
        else:
            codes = ops.fori_loop(
                0, self.n_steps, lambda _, s: step(s, x, zeros, correlation), state
            )[0]
        return ops.cast(codes, self.compute_dtype)

    def _solve_to_tolerance(
        self, step: Callable[..., tuple], x: Tensor, dictionary: Tensor
    ) -> Tensor:
        """Steps until every gap is small, with a new center at every check.

        When half of the samples are done, the others go on in arrays of half the size.
        """
        n_atoms, n_features = dictionary.shape
        # A check costs two products with the dictionary, a step one with k × k.
        n_between = max(_MIN_STEPS_PER_CHECK, 2 * n_features // n_atoms)

        def advance(n_done, _, x, correlation, *state):
            n_next = ops.minimum(n_done + n_between, self.n_steps)
            center = state[0]
            state = ops.fori_loop(
                0, n_next - n_done, lambda _, s: step(s, x, center, correlation), state
            )
            gaps, correlation = duality_gap_and_correlation(
                x, state[0], dictionary, self.l1
            )
            return n_next, gaps, x, correlation, *state

        def solve(n_halvings, n_done, *samples):
            n_half = ops.shape(samples[0])[0] // 2

            def unfinished(n_done, gaps, *_):
                n_open = ops.sum(ops.cast(gaps > self.tol, "int32"))
                n_may_stay_open = n_half if n_halvings else 0
                return ops.logical_and(n_done < self.n_steps, n_open > n_may_stay_open)

            n_done, *samples = ops.while_loop(unfinished, advance, (n_done, *samples))
            gaps, codes = samples[0], samples[3]
            if not n_halvings:
                return codes
            order = ops.argsort(-gaps)
            still_open = [ops.take(part, order[:n_half], axis=0) for part in samples]
            codes = ops.concatenate(
                [
                    solve(n_halvings - 1, n_done, *still_open),
                    ops.take(codes, order[n_half:], axis=0),
                ]
            )
            return ops.take(codes, ops.argsort(order), axis=0)

        shape = ops.shape(x)
        x = ops.reshape(x, (-1, n_features))
        correlation = ops.matmul(x, ops.transpose(dictionary))
        zeros = ops.zeros_like(correlation)
        codes = solve(
            self._n_halvings(x.shape[0]),
            ops.zeros((), dtype="int32"),
            ops.ones_like(x[:, 0]),
            x,
            correlation,
            zeros,
            zeros,
            zeros[:, :1],
        )
        return ops.reshape(codes, (*shape[:-1], n_atoms))

    @staticmethod
    def _n_halvings(n_samples: int | None) -> int:
        """How often halving a batch pays: products of few rows are slow."""
        if n_samples is None:
            return _MAX_HALVINGS
        n_halvings = math.floor(math.log2(max(1, n_samples / _MIN_ROWS)))
        return min(_MAX_HALVINGS, n_halvings)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "tol": self.tol}
        for name in ("trainable_dictionary", "tied", "trainable_step_size"):
            del config[name]
        return config


@keras.saving.register_keras_serializable(package="sc2keras")
class ISTA(_ProximalGradient):
    """The iterative shrinkage-thresholding algorithm, for a given dictionary.

    Solves min_s ½‖x − sD‖² + l1·‖s‖₁ for every sample by

        s_t = sh_(l1·τ)(s_{t−1} W_e + τ x Dᵀ),  W_e = I − τ D Dᵀ,  s_0 = 0

    with τ = 1/L, L = λ_max(D Dᵀ). The objective falls at a rate of 1/t. Nothing in the
    layer is trained; in float32 also where the layer's dtype is a narrower one.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, the number of steps, or their cap where `tol` is given.
        l1: Float >= 0, λ, the weight of the ℓ1 term.
        dictionary: Array `(n_atoms, n_features)`, its atoms of norm at most 1; for
            instance of `sc2keras.learn_dictionary`. None: random atoms, which is of
            use only before weights are loaded.
        tol: Float or None. If given, the steps end when the relative duality gap of
            every sample of the batch is at most `tol`. In float32 1e-4 can be
            reached, and 1e-5 where the codes are not much larger than 1.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`. Needs `tol=None`.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `dtype`.

    Call arguments:
        inputs: Tensor `(batch, n_features)`, or codes `(batch, n_atoms)` in reverse.
        reverse: Boolean. If True, decode: x̂ = s D.

    Returns:
        Tensor `(batch, n_atoms)`, the codes; in reverse `(batch, n_features)`.

    Raises:
        ValueError: If an argument or the dictionary is unusable.

    Example:

    >>> import numpy as np
    >>> ista = ISTA(2, n_steps=10, l1=0.5, dictionary=np.eye(2))
    >>> [float(s) for s in ista(np.array([[2.0, 0.1]]))[0]]
    [1.5, 0.0]

    References:
        Zhou et al., An End-to-End Sparse Coding, eq. 4 to 6. Daubechies, Defrise and
        De Mol, An iterative thresholding algorithm for linear inverse problems with a
        sparsity constraint, 2004.
    """


@keras.saving.register_keras_serializable(package="sc2keras")
class FISTA(_ProximalGradient):
    """The fast iterative shrinkage-thresholding algorithm, for a given dictionary.

    Solves min_s ½‖x − sD‖² + l1·‖s‖₁ for every sample by ISTA's step at an
    extrapolated point,

        y_t = s_{t−1} + m_t·(s_{t−1} − s_{t−2}),   s_t = sh_(l1·τ)(y_t W_e + τ x Dᵀ)

    where m_t = (q_{t−1} − 1)/q_t, q_t = (1 + √(1 + 4q²_{t−1}))/2 and q_1 = 1, so that
    the first two steps are ISTA's. The objective falls at a rate of 1/t².

    With `tol` the momentum of a sample starts anew (q = 1, so that m = 0) whenever its
    last step went against the extrapolation, (y_t − s_t)·(s_t − s_{t−1}) > 0: the
    objective then falls linearly, and a gap of 1e-4 takes a third of the steps. Without
    `tol` the algorithm is the plain one.

    The arguments, the call and the errors are those of `ISTA`.

    Example:

    >>> import numpy as np
    >>> fista = FISTA(2, tol=1e-6, l1=0.5, dictionary=np.eye(2))
    >>> codes = fista(np.array([[2.0, 0.1]]))
    >>> [float(x) for x in fista(codes, reverse=True)[0]]
    [1.5, 0.0]

    References:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear
        Inverse Problems, 2009, section 4. O'Donoghue and Candès, Adaptive Restart for
        Accelerated Gradient Schemes, 2015, section 3.2, the gradient scheme.
    """

    def extrapolate(
        self, codes: Tensor, previous: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        # t starts at 0, so that q_1 = 1. With s_0 = s_{-1} = 0 the first extrapolation
        # has no effect, whatever m_1 is.
        t_next = next_momentum_term(t)
        return codes + ((t - 1.0) / t_next) * (codes - previous), t_next

    def restart(self, t: Tensor, overshoot: Tensor) -> Tensor:
        return ops.where(overshoot > 0.0, 1.0, t)


def next_momentum_term(t: Tensor) -> Tensor:
    """q_t = (1 + √(1 + 4q²_{t−1}))/2 of FISTA, for a tensor or a float."""
    return 0.5 * (1.0 + (1.0 + 4.0 * t * t) ** 0.5)
