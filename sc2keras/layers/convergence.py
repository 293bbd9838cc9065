"""The warning of solvers whose steps ended before their tolerance."""

import contextlib
import importlib
import warnings
from collections.abc import Iterator

from numpy.typing import NDArray

from sc2keras.validation import depth_of_caller


def warn_if_open(gaps: NDArray, tol: float, n_steps: int) -> None:
    """Warns of rows that a solver left above its tolerance.

    Args:
        gaps: Array of the relative duality gaps that `solve` returns; NaN, which stands
            for a row that holds a NaN or an infinity, does not count.
        tol: Float, the tolerance.
        n_steps: Integer, the cap of steps that the rows ran into.

    Example:

    >>> import numpy as np
    >>> warn_if_open(np.array([1e-5, np.nan]), tol=1e-4, n_steps=300)
    """
    left = gaps[gaps > tol]
    if not left.size:
        return
    # Imported here, as no other use of a layer needs scikit-learn.
    category = importlib.import_module("sklearn.exceptions").ConvergenceWarning
    warnings.warn(
        f"{left.size} of {gaps.size} rows have not reached tol={tol:g} after n_steps="
        f"{n_steps} steps; their largest relative duality gap is {left.max():.2g}. "
        "Raise n_steps, or tol.",
        category,
        stacklevel=depth_of_caller(),
    )


@contextlib.contextmanager
def quiet_solvers() -> Iterator[None]:
    """Keeps back the warnings of `warn_if_open`, where one is given for all rows."""
    category = importlib.import_module("sklearn.exceptions").ConvergenceWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
