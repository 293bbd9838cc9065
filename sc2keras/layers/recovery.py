"""What the encoders of sparse recovery share, whose dictionary is known."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from sc2keras.analytic import analytic_weights, coarser
from sc2keras.backend import in_full_precision
from sc2keras.layers.lasso import LassoEncoder
from sc2keras.layers.penalised import NO_ELASTIC_NET
from sc2keras.layers.rebuilding import Given
from sc2keras.layers.support_selection import SelectsSupport, support_selection
from sc2keras.training import Recipe
from sc2keras.validation import Shape, Tensor, check_non_negative


class RecoveryEncoder(LassoEncoder):
    """Base of encoders whose steps correct codes by what is left of the signal."""

    recipe = Recipe("adam", learning_rate=1e-2, clipnorm=1.0)
    refuses: ClassVar[Mapping[str, str]] = NO_ELASTIC_NET
    kernel: keras.Variable

    def initial_state(self, prepared: Tensor) -> Any:
        # Of zeros nothing needs to be computed.
        return (None,)

    @in_full_precision()
    def residual(self, inputs: Tensor, codes: Tensor | None) -> Tensor:
        """x − s D."""
        return inputs if codes is None else inputs - self.synthesis(codes)

    @in_full_precision()
    def correct(self, residual: Tensor) -> Tensor:
        """r Wᵀ, what is left of a signal as codes."""
        return ops.matmul(residual, self.kernel)

    def threshold_of(self, scale: Tensor) -> Tensor:
        """scale · λτ, in the layer's unit."""
        # The product of tensors first: a float and a variable make float32 on PyTorch.
        return self.l1_in_unit() * (scale * self.step_size)


class LearnedEncoder(RecoveryEncoder):
    """Base of those whose matrix W is trained, from τD on.

    Args:
        n_atoms, n_steps, l1, dictionary, unit, return_sequences, **kwargs: See
            `UnfoldedEncoder` and `DictionaryLayer`.
        trainable_dictionary: Boolean. If False, D stays as it is given, as it does in
            the papers.
    """

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        trainable_dictionary: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.trainable_dictionary = bool(trainable_dictionary)

    def build(self, input_shape: Shape) -> None:
        _, dictionary = self.build_dictionary(input_shape[-1])
        # W over τ, as an optimizer's first steps are as large as D's entries.
        self.kernel = self.add_weight_from("kernel", dictionary.T)

    def correct(self, residual: Tensor) -> Tensor:
        return self.step_size * super().correct(residual)

    def get_config(self) -> dict[str, Any]:
        config = {"trainable_dictionary": self.trainable_dictionary}
        return {**super().get_config(), **config}


class FixedKernelEncoder(RecoveryEncoder):
    """Base of those whose matrix is made of D, and follows it where that is assigned.

    A subclass gives `kernel_of(dictionary, dtype)`.
    """

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        dictionary: ArrayLike | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, dictionary=dictionary, **kwargs)
        given = str(getattr(dictionary, "dtype", ""))
        narrow = (name for name in ("bfloat16", "float16", "float32") if name in given)
        self._given_dtype = next(narrow, "float64")

    def build(self, input_shape: Shape) -> None:
        _, dictionary = self.build_dictionary(input_shape[-1])
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.n_features, self.n_atoms),
            initializer=Given(self._kernel(dictionary, self._given_dtype)),
            trainable=False,
        )
        self.follow_dictionary(self._follow)

    def kernel_of(self, dictionary: NDArray, dtype: str) -> NDArray:
        """The matrix `(n_features, n_atoms)` of a finite dictionary.

        Its numbers are in float64, but are no more precise than those of `dtype`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no matrix. Define kernel_of(dictionary, dtype)."
        )

    def _kernel(self, dictionary: NDArray, dtype: str) -> NDArray:
        # Of a dictionary that is to be loaded, NaN, it is to be loaded, too.
        if not np.isfinite(dictionary).all():
            return np.nan * dictionary.T
        # Weights in float64 may hold what was rounded before: what is built of numbers,
        # and what follows them, is the same.
        if np.array_equal(dictionary, dictionary.astype("float32")):
            dtype = coarser(dtype, "float32")
        return self.kernel_of(dictionary, coarser(dtype, self.variable_dtype))

    def _follow(self, dictionary: NDArray) -> None:
        self.assign_step_size(dictionary)
        self.kernel.assign(self._kernel(dictionary, self.variable_dtype))


class AnalyticEncoder(FixedKernelEncoder):
    """Base of those with analytic weights.

    Args:
        n_atoms, n_steps, l1, dictionary, unit, return_sequences, **kwargs: See
            `UnfoldedEncoder` and `DictionaryLayer`.
        ridge: Float >= 0, of `sc2keras.analytic_weights`: more for more noise.
    """

    def __init__(
        self, n_atoms: int, n_steps: int = 10, *, ridge: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.ridge = check_non_negative("ridge", ridge)

    def kernel_of(self, dictionary: NDArray, dtype: str) -> NDArray:
        kernel = np.zeros(dictionary.T.shape)
        # An atom of zeros has no weights, and needs none.
        used = np.linalg.norm(dictionary, axis=1) > 1e-8
        if used.any():
            weights = analytic_weights(dictionary[used], self.ridge, dtype=dtype)
            kernel[:, used] = weights.T
        return kernel

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ridge": self.ridge}


class ScalarSteps(SelectsSupport, RecoveryEncoder):
    """The rule of steps with two numbers each, a size and a threshold.

    Args:
        n_atoms, n_steps, **kwargs: See `RecoveryEncoder` and `SelectsSupport`.
        error_based: Boolean. If True, thresholds are ρ_t times the mean magnitude of
            the correction, of each sample its own.
    """

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        error_based: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.error_based = bool(error_based)
        self.has_thresholds_of_l1 = not self.error_based
        if self.error_based:
            reason = "error_based=True takes thresholds of the error. Use False."
            self.refuse({"l1": reason})

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        start = np.zeros(self.n_steps)
        self.log_step = self.add_weight_from("log_step", start)
        if self.error_based:
            start = np.log(self.error_scales())
        self.log_threshold = self.add_weight_from("log_threshold", start)

    def error_scales(self) -> NDArray:
        """About where ρ ends on Gaussian dictionaries, one a step."""
        return log_size(self.n_atoms) * np.linspace(0.24, 0.8, self.n_steps)

    def step(self, prepared: Tensor, state: Any, t: int) -> tuple[Tensor]:
        correction = self.correct(self.residual(prepared, state[0]))
        size, scale = ops.exp(self.log_step[t]), ops.exp(self.log_threshold[t])
        count = self.support_count(t)
        return (self.advance(state[0], correction, size, scale, count),)

    def advance(
        self,
        codes: Tensor | None,
        correction: Tensor,
        size: Tensor,
        scale: Tensor,
        count: Tensor,
    ) -> Tensor:
        """The codes after a step, from their correction and the step's numbers."""
        total = size * correction
        if codes is not None:
            total = codes + total
        shrunk = self.shrink(total, self.threshold(correction, scale))
        return support_selection(total, shrunk, count, nonnegative=self.nonnegative)

    def threshold(self, correction: Tensor, scale: Tensor) -> Tensor:
        """θ: scale · λτ, or scale times the mean magnitude of the correction."""
        if self.error_based:
            return scale * mean_magnitude(correction)
        return self.threshold_of(scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "error_based": self.error_based}


def mean_magnitude(x: Tensor) -> Tensor:
    """The mean of |x_j| over the last axis, which is kept."""
    return ops.mean(ops.abs(x), axis=-1, keepdims=True)


def log_size(n_atoms: int) -> float:
    """ln k, which scales over mean errors grow with; of one atom as of two."""
    return math.log(max(n_atoms, 2))
