"""TopK: the entries of the largest magnitude, as the ℓ0 constraint projects on them."""

from typing import Any

import keras
import numpy as np
from keras import ops

from sc2keras import backend
from sc2keras.layers.activation import Activation, register_activation
from sc2keras.validation import Tensor, at_least_float32, check_positive_integer

# After so many halvings an interval holds no two numbers that the dtype tells apart.
_N_HALVINGS = {"float32": 33, "float64": 66}


@register_activation("top_k")
@keras.saving.register_keras_serializable(package="sc2keras")
class TopK(Activation):
    """Keeps the k entries of the largest magnitude of each sample, and no others.

    T_k(x)_j = x_j where |x_j| is among the k largest, 0 elsewhere: the projection on
    codes of at most k entries, so that a step of an encoder with it is one of iterative
    hard thresholding. It has no weights and no penalty: k says how sparse codes are,
    and `l1` nothing. The choice of entries has no gradient. Of equal entries the first
    are kept.

    Args:
        k: Integer, the number of entries that are kept; None: a tenth of the atoms,
            and at least one.
        nonnegative: Boolean. If True, negative entries count as zeros: the codes of a
            TopK autoencoder.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `dtype`.

    Raises:
        ValueError: If `k` is no integer from 1 to n_atoms.

    Example:

    >>> import numpy as np
    >>> y = TopK(2)(np.array([[-3.0, 0.5, 2.0, 1.0]]))
    >>> [float(v) for v in y[0]]
    [-3.0, 0.0, 2.0, 0.0]

    References:
        Blumensath and Davies, Iterative Thresholding for Sparse Approximations, 2008.
        Makhzani and Frey, k-Sparse Autoencoders, 2014. Gao et al., Scaling and
        Evaluating Sparse Autoencoders, 2024.
    """

    takes = frozenset({"nonnegative"})

    def __init__(
        self, k: int | None = None, nonnegative: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.k = None if k is None else check_positive_integer("k", k)
        self.nonnegative = bool(nonnegative)
        self.shows_non_finite = not self.nonnegative  # −∞ is a zero there.

    def build(self, input_shape: tuple[Any, ...]) -> None:
        if self.k is not None and self.k > input_shape[-1]:
            raise ValueError(
                f"k must be at most n_atoms={input_shape[-1]}; received k={self.k}."
            )

    def count(self, n_atoms: int) -> int:
        """k, of codes of so many entries."""
        return max(1, n_atoms // 10) if self.k is None else self.k

    def call(self, inputs: Tensor) -> Tensor:
        if self.nonnegative:
            inputs = ops.relu(inputs)
        count = self.count(inputs.shape[-1])
        mask = top_k_mask(ops.stop_gradient(ops.abs(inputs)), count)
        # x − x is zero, but for a NaN or an infinity, which show.
        return ops.where(mask, inputs, inputs - inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "nonnegative": self.nonnegative}


def top_k_mask(x: Tensor, count: Tensor) -> Tensor:
    """Which entries of the last axis are the `count` largest that are above zero.

    Equal entries, and such as are too small to be normal, are taken in order.

    Args:
        x: Tensor `(..., n)`, >= 0.
        count: Integer, or integers `(..., 1)`, one a row.

    Example:

    >>> ops.convert_to_numpy(top_k_mask(ops.array([[3.0, 1.0, 2.0, 0.0]]), 2)).tolist()
    [[True, False, True, False]]
    """
    dtype = at_least_float32(keras.backend.standardize_dtype(x.dtype))
    x = ops.cast(x, dtype)
    # On a CPU XLA sorts ten times slower than it halves; without it a sort is as fast.
    bounds = _bounds_by_halving if backend.is_traced(x) else _bounds_by_sorting
    low, high = bounds(x, count)
    missing = ops.minimum(count, _n_above(x, 0.0)) - _n_above(x, high)

    def with_ties() -> Tensor:
        is_tied = ops.logical_and(x > low, x <= high)
        rank = ops.cumsum(ops.cast(is_tied, "int32"), axis=-1)
        is_first = ops.logical_and(is_tied, rank <= missing)
        return ops.logical_or(x > high, is_first)

    # A cumulative sum takes XLA longer than all the rest.
    return ops.cond(ops.any(missing > 0), with_ties, lambda: x > high)


def _n_above(x: Tensor, threshold: Tensor) -> Tensor:
    return ops.sum(ops.cast(x > threshold, "int32"), axis=-1, keepdims=True)


def _bounds_by_sorting(x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The entry of rank `count` of each row, and the next one below it."""
    n = x.shape[-1]
    index = ops.zeros_like(x[..., :1], "int32") + (n - count)
    index = ops.clip(index, 0, n - 1)
    high = ops.take_along_axis(ops.sort(x, axis=-1), index, axis=-1)
    low = ops.max(ops.where(x < high, x, 0.0), axis=-1, keepdims=True)
    return low, high


def _bounds_by_halving(x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds that part the `count` largest entries of each row from the others.

    Or such that hold nothing but equal entries, as near as the dtype has numbers.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    tiny = float(np.finfo(dtype).tiny)
    wanted = ops.minimum(count, _n_above(x, 0.0))
    # An accelerator would wait for the answer after each of the halvings.
    is_fixed = backend.has_accelerator()

    def narrowed(low, high, n_high, middle):
        n_middle = _n_above(x, middle)
        is_low = n_middle > wanted
        return (
            ops.where(is_low, middle, low),
            ops.where(is_low, high, middle),
            ops.where(is_low, n_high, n_middle),
        )

    def is_open(step, low, high, n_high):
        if is_fixed:
            return step < _N_HALVINGS[dtype]
        is_undecided = ops.any(ops.not_equal(n_high, wanted))
        return ops.logical_and(step < _N_HALVINGS[dtype], is_undecided)

    def halve(step, low, high, n_high):
        # By magnitudes first: those of a row may differ by any number of decades.
        between = ops.sqrt(ops.maximum(low, tiny)) * ops.sqrt(high)
        middle = ops.where(4.0 * low < high, between, low + 0.5 * (high - low))
        return (step + 1, *narrowed(low, high, n_high, middle))

    high = ops.max(x, axis=-1, keepdims=True)
    nothing = ops.zeros_like(high)
    start = nothing, high, ops.zeros_like(wanted)
    # The mean is of the size of the larger entries, mostly.
    start = narrowed(*start, ops.mean(x, axis=-1, keepdims=True))
    _, low, high, _ = ops.while_loop(is_open, halve, (0, *start))
    return low, high
