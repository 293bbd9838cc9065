"""The warning of solvers whose steps ended before their tolerance."""

import contextlib
import importlib
import warnings
from collections.abc import Iterator

from numpy.typing import NDArray

from sc2keras.validation import depth_of_caller


def warn_if_open(gaps: NDArray, tol: float, n_steps: int) -> None:
    """Warns of rows that a solver left above its tolerance; a gap of NaN is none."""
    left = gaps[gaps > tol]
    if not left.size:
        return
    warnings.warn(
        f"{left.size} of {gaps.size} rows have not reached tol={tol:g} after n_steps="
        f"{n_steps} steps; their largest relative duality gap is {left.max():.2g}. "
        "Raise n_steps, or tol.",
        _category(),
        stacklevel=depth_of_caller(),
    )


@contextlib.contextmanager
def quiet_solvers() -> Iterator[None]:
    """Keeps back the warnings of `warn_if_open`, where one is given for all rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _category())
        yield


def _category() -> type[Warning]:
    # No other use of a layer needs scikit-learn.
    return importlib.import_module("sklearn.exceptions").ConvergenceWarning
