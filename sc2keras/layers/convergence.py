"""The warning of solvers whose steps ended before their tolerance."""

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras.layers.notes import note, noted
from sc2keras.validation import Tensor, depth_of_caller

_IN_FLOAT32 = (
    " Where l1 is small beside the signals, float32 ends it and more steps do nothing: "
    "dtype='float64' goes on."
)
_WITHOUT_L1 = (
    "Where l1 is 0, as it is here of an atom at least, the gap measures nothing: give "
    "l1 > 0, or tol=None for n_steps steps."
)


def warn_if_open(gaps: NDArray, solver: Any) -> None:
    """Warns of rows that a solver left above its tolerance; a gap of NaN is none."""
    left = gaps[gaps > solver.tol]
    warn_of(left.size, gaps.size, left.max(initial=0), solver)


def warn_of(n_open: int, n_rows: int, largest: float, solver: Any) -> None:
    """The warning of `warn_if_open`, from the numbers of rows and the largest gap."""
    if n_open:
        # What float32 rounds of a residual weighs against l1, whatever steps follow.
        in_float64 = solver.compute_dtype == "float64"
        remedy = f"Raise n_steps, or tol.{'' if in_float64 else _IN_FLOAT32}"
        if np.min(solver.l1) == 0:
            remedy = _WITHOUT_L1
        warnings.warn(
            f"{n_open} of {n_rows} rows have not reached tol={solver.tol:g} after "
            f"n_steps={solver.n_steps} steps; their largest relative duality gap is "
            f"{largest:.2g}. {remedy} "
            "The gap is an upper bound: the objective may be far nearer to the least.",
            _category(),
            stacklevel=depth_of_caller(),
        )


def note_gaps(codes: Tensor, gaps: Tensor) -> None:
    """Notes the gaps of codes, for who runs a compiled solver."""
    note(codes, "relative_gaps", gaps)


def gaps_of(codes: Tensor) -> Tensor | None:
    return noted(codes, "relative_gaps")


@contextlib.contextmanager
def quiet_solvers() -> Iterator[None]:
    """Keeps back the warnings of `warn_if_open`, where one is given for all rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _category())
        yield


def _category() -> type[Warning]:
    # No other use of a layer needs scikit-learn.
    return importlib.import_module("sklearn.exceptions").ConvergenceWarning
