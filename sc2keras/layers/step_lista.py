"""Step-LISTA: ISTA with the exact gradient, and what surrounds it learned."""

from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from sc2keras.layers.dictionary import leading_direction
from sc2keras.layers.encoder import minus_shared
from sc2keras.layers.lasso import LassoEncoder
from sc2keras.layers.matrices import is_product_cheaper
from sc2keras.layers.rebuilding import Given
from sc2keras.registry import register_encoder
from sc2keras.training import Recipe
from sc2keras.validation import Shape, Tensor, at_least_float32

_POWER_ITERATIONS = 2
VARIANTS = {
    "scalars": {"per_atom": False, "warm_start": False, "preconditioned": False},
}


class _Shared(NamedTuple):
    """What all steps on x share."""

    inputs: Tensor
    kernel: Tensor  # K = Dᵀ P
    product: Tensor | None  # D K, where it saves operations,
    correlation: Tensor | None  # and x K beside it.
    step_size: Tensor


@register_encoder(
    "StepLISTA",
    reference="Ablin, Moreau, Massias and Gramfort 2019",
    variants=VARIANTS,
)
@keras.saving.register_keras_serializable(package="sc2keras")
class StepLISTABlock(LassoEncoder):
    """Step-LISTA: `n_steps` steps of ISTA, with trained steps and thresholds.

        s_t = sh_(λτ·exp(a_t + b_t))(s_{t−1} − τ·exp(a_t)·[(s_{t−1} D − x) Dᵀ] P)

    where the gradient is that of the dictionary itself. a_t and b_t start at 0 and
    P = I, so that the block starts as ISTA, with τ = 1/L. Being relative to τ, they
    stay of one size whatever λ and L are. With b_t = 0 and P = I the optimum of the
    LASSO is the only code that a step leaves as it is.

    While D is trained, τ follows it: L is estimated by two power iterations an update,
    and the gradient is taken through it.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term, or an array, one weight an atom.
        l2, nonnegative, nonnegative_dictionary, offset, trainable_offset: What codes
            are wanted; see `DictionaryLayer`.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        per_atom: Boolean. If True, a_t and b_t are vectors, with an entry an atom; if
            False, numbers.
        warm_start: Boolean. If True, the first step has a matrix of its own,
            s_1 = sh_(λτ·exp(b_1))(τ x W_1), which starts at Dᵀ.
        preconditioned: Boolean. If True, P, k × k and shared by all steps, is trained.
            Few steps then come much closer; from about 20 on numbers alone do as well.
        trainable_dictionary: Boolean. If False, D stays as it is given.
        unit: See `DictionaryLayer`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = StepLISTABlock(20, n_steps=3)
    >>> codes = layer(np.ones((4, 8)))
    >>> tuple(codes.shape), tuple(layer(codes, reverse=True).shape)
    ((4, 20), (4, 8))

    References:
        Ablin, Moreau, Massias and Gramfort, Learning step sizes for unfolded sparse
        coding, 2019, section 4, whose steps share one number between size and
        threshold, b_t = 0.
    """

    updated_weights = frozenset({"direction"})
    recipe = Recipe("adam", learning_rate=1e-2, clipnorm=1.0)
    trains_thresholds: ClassVar[bool] = True

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        per_atom: bool = True,
        warm_start: bool = True,
        preconditioned: bool = True,
        trainable_dictionary: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.per_atom = bool(per_atom)
        self.warm_start = bool(warm_start)
        self.preconditioned = bool(preconditioned)
        self.trainable_dictionary = bool(trainable_dictionary)

    def build(self, input_shape: Shape) -> None:
        self.first_kernel = self.preconditioner = None
        self.direction: keras.Variable = None
        if self.trainable_dictionary:
            dictionary = self.add_dictionary(input_shape[-1])
            self.add_offset()
            self.direction = self.add_weight(
                name="direction",
                shape=(self.n_features,),
                initializer=Given(leading_direction(dictionary)),
                trainable=False,
            )
        else:
            _, dictionary = self.build_dictionary(input_shape[-1])
        if self.warm_start:
            self.first_kernel = self.add_weight_from("first_kernel", dictionary.T)
        n_gradients = self.n_steps - self.warm_start
        each = (self.n_atoms,) if self.per_atom else ()
        if n_gradients:
            self.log_step = self.add_weight_from(
                "log_step", np.zeros((n_gradients, *each))
            )
            if self.preconditioned:
                self.preconditioner = self.add_weight_from(
                    "preconditioner", np.eye(self.n_atoms)
                )
        if not self.trains_thresholds:
            return
        self.log_threshold = self.add_weight_from(
            "log_threshold", np.zeros((self.n_steps, *each))
        )

    def call(
        self, inputs: Tensor, reverse: bool = False, training: bool = False
    ) -> Tensor:
        follows = self.direction is not None and self.dictionary.trainable
        if training and follows and not reverse:
            self._follow_dictionary()
        return super().call(inputs, reverse)

    def compute_output_spec(
        self, inputs: Tensor, reverse: bool = False, training: bool = False
    ) -> keras.KerasTensor:
        return super().compute_output_spec(inputs, reverse)

    def extrapolate(self, codes: Tensor, previous: Tensor, t: int) -> Tensor:
        """The point where step `t` starts, from 1 on: step 0 starts at zero."""
        return codes

    def prepare(self, inputs: Tensor) -> _Shared:
        kernel = ops.transpose(self.dictionary)
        if self.preconditioner is not None:
            kernel = ops.matmul(kernel, self.preconditioner)
        product = correlation = None
        sizes = (*self.dictionary.shape, inputs.shape[0], self.n_steps)
        if is_product_cheaper(1, *sizes):
            product = ops.matmul(self.dictionary, kernel)
            correlation = ops.matmul(inputs, kernel)
        step_size = self._current_step_size()
        return _Shared(inputs, kernel, product, correlation, step_size)

    def initial_state(self, prepared: _Shared) -> tuple[None, None]:
        # Of zeros nothing needs to be computed.
        return None, None

    def step(
        self, prepared: _Shared, state: tuple[Any, Any], t: int
    ) -> tuple[Tensor, Any]:
        codes, previous = state
        size = prepared.step_size
        if t >= self.warm_start:
            size = size * ops.exp(self.log_step[t - self.warm_start])
        if codes is not None:
            y = self.extrapolate(codes, 0.0 if previous is None else previous, t)
            total = y - size * self._gradient(y, prepared)
        elif self.first_kernel is not None:
            total = size * ops.matmul(prepared.inputs, self.first_kernel)
        elif prepared.correlation is not None:
            total = size * prepared.correlation
        else:
            total = size * ops.matmul(prepared.inputs, prepared.kernel)
        threshold = self.l1_in_unit() * size
        if self.trains_thresholds:
            threshold = threshold * ops.exp(self.log_threshold[t])
        return self.shrink(total, threshold, size), codes

    def _gradient(self, y: Tensor, prepared: _Shared) -> Tensor:
        """(y D − x) Dᵀ P."""
        if prepared.product is not None:
            return minus_shared(ops.matmul(y, prepared.product), prepared.correlation)
        residual = minus_shared(self.synthesis(y), prepared.inputs)
        return ops.matmul(residual, prepared.kernel)

    def _current_step_size(self) -> Tensor:
        """τ = 1/L, where D is trained with L = ‖v Dᵀ‖² of the direction v."""
        if self.direction is None:
            return ops.convert_to_tensor(self.step_size)
        direction, dictionary = self._direction_and_dictionary()
        lipschitz = ops.sum(ops.square(ops.matmul(dictionary, direction)))
        return ops.cast(1.0 / lipschitz, self.compute_dtype)

    def _follow_dictionary(self) -> None:
        """Moves v to where D has its largest singular value now."""
        direction, dictionary = map(ops.stop_gradient, self._direction_and_dictionary())
        for _ in range(_POWER_ITERATIONS):
            direction = ops.matmul(ops.matmul(dictionary, direction), dictionary)
            direction /= ops.norm(direction)
        self.direction.assign(direction)

    def _direction_and_dictionary(self) -> tuple[Tensor, Tensor]:
        # In bfloat16 L would be off by a percent.
        dtype = at_least_float32(self.compute_dtype)
        return ops.cast(self.direction, dtype), ops.cast(self.dictionary, dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "per_atom": self.per_atom,
            "warm_start": self.warm_start,
            "preconditioned": self.preconditioned,
            "trainable_dictionary": self.trainable_dictionary,
        }
