"""A loop over rows in which those that are done stop to cost."""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from sc2keras.validation import Tensor

# Each adds the whole loop to the graph, which takes a second to compile.
_MAX_QUARTERINGS = 2
_QUARTERINGS_OF_UNKNOWN = 1
_MIN_ROWS = 64


def until_done(
    advance: Callable[..., tuple[Tensor, ...]],
    gaps: Tensor,
    codes: Tensor,
    *others: Tensor,
    tol: float,
    n_done: int,
    n_steps: int | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """`(codes, gaps, n_done)` once every gap is at most `tol`, or `n_steps` are done.

    When three quarters of the rows are done, the others go on in arrays of a quarter of
    the size.

    Args:
        advance: `(n_done, gaps, codes, *others)` to their next values. It leaves a row
            as it is whose gap is at most `tol` or not a number.
        gaps, codes, *others: Tensors with as many rows.
    """

    def solve(n_quarterings, n_done, *rows):
        n_quarter = ops.shape(rows[0])[0] // 4

        def unfinished(n_done, gaps, *_):
            n_open = ops.sum(ops.cast(gaps > tol, "int32"))
            n_may_stay_open = n_quarter if n_quarterings else 0
            return ops.logical_and(n_done < n_steps, n_open > n_may_stay_open)

        n_done, *rows = ops.while_loop(unfinished, advance, (n_done, *rows))
        gaps, codes = rows[:2]
        if not n_quarterings:
            return codes, gaps, n_done
        # Open rows first. Not `gaps <= tol`, which is wrong of a gap that is no
        # number, nor `not gaps > tol`, which TensorFlow turns into it.
        order = ops.argsort(-ops.cast(gaps > tol, "int32"))
        first, rest = order[:n_quarter], order[n_quarter:]
        still_open = [ops.take(part, first, axis=0) for part in rows]
        solved = solve(n_quarterings - 1, n_done, *still_open)
        inverse = ops.argsort(order)

        def merged(part, whole):
            together = ops.concatenate([part, ops.take(whole, rest, axis=0)])
            return ops.take(together, inverse, axis=0)

        return merged(solved[0], codes), merged(solved[1], gaps), solved[2]

    start = ops.convert_to_tensor(n_done, dtype="int32")
    return solve(_n_quarterings(codes.shape[0]), start, gaps, codes, *others)


def _n_quarterings(n_samples: Any) -> int:
    """How often a quarter of a batch pays: products of few rows are slow."""
    if n_samples is None:
        return _QUARTERINGS_OF_UNKNOWN
    if not isinstance(n_samples, int):
        return 0  # A symbol, of which JAX cannot tell that its quarter is a size.
    n_quarterings = math.floor(math.log(max(1, n_samples / _MIN_ROWS), 4))
    return min(_MAX_QUARTERINGS, n_quarterings)
