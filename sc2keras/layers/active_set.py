"""Codes taken on to a tolerance: conjugate gradients on the support, in batches."""

from typing import Any

from keras import ops

from sc2keras.backend import in_full_precision
from sc2keras.layers.dictionary import gram_product
from sc2keras.layers.halving import until_done
from sc2keras.layers.shrinkage import soft_threshold
from sc2keras.objective import gap_of_residual
from sc2keras.validation import Tensor

# Of conjugate gradients between two steps that may change the support.
_N_INNER = 12


@in_full_precision()
def improve(
    codes: Tensor,
    correlation: Tensor,
    squared: Tensor,
    l1: Tensor,
    dictionary: Tensor,
    step_size: Tensor,
    tol: float,
    n_cycles: int,
) -> tuple[Tensor, Tensor]:
    """`(codes, gaps)` of the LASSO, from codes nearby, to a relative duality gap `tol`.

    A cycle is a step of ISTA, which may change support and signs, and then conjugate
    gradients for the objective with those fixed, which is quadratic. Where an entry
    would change its sign, the step ends at its zero, and it leaves the support: no step
    raises the objective. From the codes of a network two or three cycles suffice, with
    a tenth of FISTA's products.

    Args:
        codes: Tensor `(n_rows, n_atoms)`.
        correlation: Tensor `(n_rows, n_atoms)`, (x − sD)Dᵀ.
        squared: Tensor `(n_rows, 1)`, ‖x − sD‖².
        l1: Tensor `(n_rows, 1)`, λ of each row, such as of rows in units of their own.
        dictionary: Tensor `(n_atoms, n_features)`.
        step_size: Tensor, τ <= 1/‖D‖².
        tol: Float.
        n_cycles: Integer.

    Reference:
        Wen, Yin, Goldfarb and Zhang, A Fast Algorithm for Sparse Reconstruction Based
        on Shrinkage, Subspace Optimization and Continuation, 2010. Dostál, Box
        Constrained Quadratic Programming with Proportioning and Projections, 1997, for
        the steps that end at a zero.
    """
    product = gram_product(dictionary)
    # Its reciprocal is a number, too.
    tiny = 1e-37

    def inner_step(_: Any, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        s, correlation, squared, direction, length, signs, l1 = state
        moved = product(direction)
        curvature = _dot(direction, moved)
        step = length / ops.maximum(curvature, tiny)
        crosses = s * direction < 0.0
        until_zero = ops.where(
            crosses, -s / ops.where(crosses, direction, 1.0), float("inf")
        )
        first_zero = ops.min(until_zero, axis=-1, keepdims=True)
        is_cut = first_zero <= step
        step = ops.minimum(step, first_zero)
        leaves = ops.logical_and(is_cut, until_zero <= first_zero)
        s = ops.where(leaves, 0.0, s + step * direction)
        squared += step * (step * curvature - 2.0 * _dot(direction, correlation))
        correlation = correlation - step * moved
        rest = ops.where(s == 0.0, 0.0, correlation - l1 * signs)
        new_length = _dot(rest, rest)
        # A new face has directions of its own.
        kept = ops.where(is_cut, 0.0, new_length / ops.maximum(length, tiny))
        direction = rest + ops.where(s == 0.0, 0.0, kept * direction)
        return s, correlation, squared, direction, new_length, signs, l1

    def advance(n_done, gaps, codes, correlation, squared, l1):
        new = soft_threshold(codes + step_size * correlation, step_size * l1)
        difference = new - codes
        moved = product(difference)
        new_squared = squared + _dot(difference, moved - 2.0 * correlation)
        new_correlation = correlation - moved
        signs = ops.sign(new)
        rest = ops.where(signs == 0.0, 0.0, new_correlation - l1 * signs)
        state = (new, new_correlation, new_squared, rest, _dot(rest, rest), signs, l1)
        new, new_correlation, new_squared, *_ = ops.fori_loop(
            0, _N_INNER, inner_step, state
        )
        is_open = gaps > tol
        new_gaps = gap_of_residual(new, new_correlation, new_squared, l1)
        gaps = ops.where(is_open, new_gaps, gaps)
        is_open = is_open[:, None]
        codes = ops.where(is_open, new, codes)
        correlation = ops.where(is_open, new_correlation, correlation)
        squared = ops.where(is_open, new_squared, squared)
        return n_done + 1, gaps, codes, correlation, squared, l1

    gaps = gap_of_residual(codes, correlation, squared, l1)
    rows = (gaps, codes, correlation, squared, l1)
    return until_done(advance, *rows, tol=tol, n_done=0, n_steps=n_cycles)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return ops.sum(a * b, axis=-1, keepdims=True)
