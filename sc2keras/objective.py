"""The objective of sparse coding, per sample, in `keras.ops`.

For a signal x, a code s and a dictionary D with atoms in its rows,

    F(s) = ½‖x − sD‖² + l1·‖s‖₁

where `l1` may be an array with a weight an atom, Σ_j l1_j·|s_j|, and further terms are
options: `l2` adds ½·l2·‖s‖², and `nonnegative` allows codes s >= 0 alone.

Every function takes signals `(..., n_features)`, codes `(..., n_atoms)` and a
dictionary `(n_atoms, n_features)`, and returns one figure a sample, shape `(...)`.
"""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.backend import in_full_precision
from sc2keras.validation import Tensor

_TINY = 1e-30
_MAX_L1 = 1e15


def reconstruction_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Half the squared error of each sample, ½‖x − x̂‖².

    Example:

    >>> float(reconstruction_error(ops.ones((1, 4)), ops.zeros((1, 4)))[0])
    2.0
    """
    return 0.5 * ops.sum(ops.square(ops.subtract(x, reconstruction)), axis=-1)


def l1_norm(codes: Tensor) -> Tensor:
    """The ℓ1 norm of each code, ‖s‖₁, shape `(...)`."""
    return ops.sum(ops.abs(codes), axis=-1)


def l1_in_dtype(l1: float | NDArray, dtype: Any) -> float | Tensor:
    """λ beside tensors of a dtype: a float as it is, an array as a tensor."""
    if np.ndim(l1) == 0:
        return l1
    return ops.convert_to_tensor(l1, dtype=keras.backend.standardize_dtype(dtype))


def elastic_net(codes: Tensor, l1: float | NDArray, l2: float = 0.0) -> Tensor:
    """What each code costs, Σ_j l1_j·|s_j| + ½·l2·‖s‖², shape `(...)`.

    Example:

    >>> float(elastic_net(ops.array([[-1.0, 2.0]]), np.array([0.5, 1.0]), l2=2.0)[0])
    7.5
    """
    if np.ndim(l1):
        cost = ops.sum(l1_in_dtype(l1, codes.dtype) * ops.abs(codes), axis=-1)
    else:
        cost = l1 * l1_norm(codes)
    return cost + 0.5 * l2 * ops.sum(ops.square(codes), axis=-1) if l2 else cost


@in_full_precision()
def lasso_objective(
    x: Tensor,
    codes: Tensor,
    dictionary: Tensor,
    l1: float | NDArray,
    l2: float = 0.0,
) -> Tensor:
    """The objective of each sample, ½‖x − sD‖² + l1·‖s‖₁ + ½·l2·‖s‖².

    Example:

    >>> x, codes = ops.ones((1, 2)), ops.ones((1, 2))
    >>> round(float(lasso_objective(x, codes, ops.eye(2), l1=0.1)[0]), 6)
    0.2

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 8 (there without the ½).
    """
    reconstruction = ops.matmul(codes, dictionary)
    return reconstruction_error(x, reconstruction) + elastic_net(codes, l1, l2)


def relative_duality_gap(
    x: Tensor,
    codes: Tensor,
    dictionary: Tensor,
    l1: float | NDArray,
    l2: float = 0.0,
    nonnegative: bool = False,
) -> Tensor:
    """How far each code is from the LASSO optimum, at most: (F(s) − G) / F(s).

    G is the value of the dual problem max ½‖x‖² − ½‖x − v‖² subject to
    ‖Dv‖∞ ≤ l1, at the residual r = x − sD scaled to the best feasible multiple
    v = a·r. By duality G ≤ F*, so a gap of 0.01 proves that F(s) is within 1 % of
    the optimum F*. In terms of a and r,

        F(s) − G = ½(1 − a)²‖r‖² + Σ_j (l1·|s_j| − a·s_j·(Dr)_j)

    where no term is negative, so that nothing cancels in float32. Each row is taken in
    units of its own magnitude: signals, codes and l1 times any factor from 1e-30 to
    1e30 have the same gap, in [0, 1]. Where a row is not finite it is NaN. At l1 = 0
    nothing but v = 0 is sure to be feasible, and the gap proves nothing.

    With a weight an atom v is feasible where |(Dv)_j| ≤ l1_j, with `nonnegative` where
    (Dv)_j ≤ l1_j, and a code with an entry below zero has a gap of 1. With l2 > 0 the
    same holds of the LASSO that the elastic net is, of (x, 0) and [D, √l2·I].

    Example: the optimum of an orthonormal dictionary is known, soft thresholding.

    >>> x = ops.convert_to_tensor([[3.0, 0.05]])
    >>> float(relative_duality_gap(x, ops.convert_to_tensor([[2.9, 0.0]]),
    ...                            ops.eye(2), l1=0.1)[0]) < 1e-6
    True

    Reference:
        Kim et al., An Interior-Point Method for Large-Scale ℓ1-Regularized Least
        Squares, 2007, section III.A.
    """
    codes = ops.convert_to_tensor(codes)
    unit = row_unit(x, codes)
    x, codes = ops.divide(x, unit), ops.divide(codes, unit)
    l1 = l1_in_units(l1, unit)
    return gap_and_residual_in_units(x, codes, dictionary, l1, l2, nonnegative)[0]


def row_unit(*arrays: Tensor) -> Tensor:
    """The unit α of each row, its largest magnitude in any of the arrays, `(..., 1)`.

    In such units, x/α, s/α and l1/α, rows of every magnitude pose the same problem, and
    no square leaves the range of float32. Rows of zeros keep the unit 1.
    """
    unit = functools.reduce(ops.maximum, map(_largest_magnitude, arrays))
    # XLA divides by multiplying with 1/α, which must neither under- nor overflow.
    return ops.where(unit > 1e-37, ops.minimum(unit, 1e37), ops.ones_like(unit))


def l1_in_units(l1: float | NDArray, unit: Tensor) -> Tensor:
    """l1/α of each row, bounded: from ‖Dx‖∞ on the optimum is zero.

    `(..., 1)`, or `(..., n_atoms)` with a weight an atom.
    """
    l1 = ops.convert_to_tensor(l1, dtype=unit.dtype)
    return ops.minimum(l1, _MAX_L1 * unit) / unit


@in_full_precision()
def gap_and_residual_in_units(
    x: Tensor,
    codes: Tensor,
    dictionary: Tensor,
    l1: Tensor,
    l2: float = 0.0,
    nonnegative: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gap of rows in their units, and Dr and ‖r‖² of their residuals.

    With l2 > 0 the residuals are those of (x, 0) and [D, √l2·I]: Dr − l2·s, and
    ‖r‖² + l2·‖s‖².
    """
    residual = ops.subtract(x, ops.matmul(codes, dictionary))
    correlation = ops.matmul(residual, ops.transpose(dictionary))
    squared = ops.sum(ops.square(residual), axis=-1, keepdims=True)
    if l2:
        correlation = correlation - l2 * codes
        energy = ops.sum(ops.square(codes), axis=-1, keepdims=True)
        squared = squared + l2 * energy
    gap = gap_of_residual(codes, correlation, squared, l1, nonnegative)
    return gap, correlation, squared


def gap_of_residual(
    codes: Tensor,
    correlation: Tensor,
    squared: Tensor,
    l1: Tensor,
    nonnegative: bool = False,
) -> Tensor:
    """The gap of rows in their units, from Dr and ‖r‖² of their residuals r."""
    bound = _feasible_multiple(correlation, l1, nonnegative)
    # With one side alone, all multiples below zero may be out of bounds.
    lowest = ops.zeros_like(bound) if nonnegative else -bound
    # r·x = ‖r‖² + s·Dr, without another pass over the features.
    along = squared + ops.sum(codes * correlation, axis=-1, keepdims=True)
    scale = ops.clip(along / ops.maximum(squared, _TINY), lowest, bound)
    penalty = l1 * ops.abs(codes)
    gap = 0.5 * ops.square(1.0 - scale) * squared + ops.sum(
        penalty - scale * codes * correlation, axis=-1, keepdims=True
    )
    primal = 0.5 * squared + ops.sum(penalty, axis=-1, keepdims=True)
    if nonnegative:
        gap = ops.where(ops.any(codes < 0.0, axis=-1, keepdims=True), primal, gap)
    return ops.squeeze(gap / ops.maximum(primal, _TINY), axis=-1)


def _feasible_multiple(correlation: Tensor, l1: Tensor, nonnegative: bool) -> Tensor:
    """The largest a with a·Dr within ±l1, or below it, `(..., 1)`."""
    per_atom = len(getattr(l1, "shape", ())) and l1.shape[-1] != 1
    if per_atom:
        correlation = correlation / ops.maximum(l1, _TINY)
    if nonnegative:
        largest = ops.max(correlation, axis=-1, keepdims=True, initial=0)
    else:
        largest = _largest_magnitude(correlation)
    return (1.0 if per_atom else l1) / ops.maximum(largest, _TINY)


def _largest_magnitude(x: Tensor) -> Tensor:
    # With `initial`, Keras takes batches without rows, too.
    return ops.max(ops.abs(x), axis=-1, keepdims=True, initial=0)


def code_difference(truth: Tensor, codes: Tensor) -> Tensor:
    """s − s*, in the dtype of the codes s.

    Raises:
        ValueError: If they are of different numbers of atoms, which would be broadcast.

    Example:

    >>> difference = code_difference(ops.ones((1, 4)), 0.5 * ops.ones((1, 4)))
    >>> ops.convert_to_numpy(difference).tolist()
    [[-0.5, -0.5, -0.5, -0.5]]
    """
    codes = ops.convert_to_tensor(codes)
    if np.shape(truth)[-1] != codes.shape[-1]:
        raise ValueError(
            "The true codes must have as many atoms as the codes; received shapes "
            f"{tuple(np.shape(truth))} and {tuple(codes.shape)}."
        )
    return codes - ops.cast(truth, codes.dtype)


def recovery_error(truth: Tensor, codes: Tensor, floor: float = 0.0) -> Tensor:
    """The normalised squared error of each code in dB, 10·log₁₀(‖s − s*‖²/‖s*‖²).

    Args:
        truth: Tensor `(..., n_atoms)`, the codes s* that signals were made of.
        codes: Tensor `(..., n_atoms)`.
        floor: Float >= 0, added to the means of both squares over the atoms.

    Example:

    >>> round(float(recovery_error(ops.ones((1, 4)), 0.9 * ops.ones((1, 4)))[0]), 3)
    -20.0
    """
    error = ops.mean(ops.square(code_difference(truth, codes)), axis=-1) + floor
    power = ops.mean(ops.square(ops.cast(truth, error.dtype)), axis=-1) + floor
    return 10.0 * ops.log10((error + _TINY) / (power + _TINY))
