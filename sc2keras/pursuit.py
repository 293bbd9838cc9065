"""Codes with a given number of entries: matching pursuit, OMP, and least squares.

They are what encoders that keep k entries are to be compared with, in float64 and in
NumPy. Signals are `(n_samples, n_features)`, or of any shape with as many numbers a
sample; they and codes may be SciPy's sparse. A dictionary is an array, of shape
`(n_atoms, n_features)`, or a `SparseCoder`, whose dictionary and offset are then meant.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from sc2keras.models import SparseCoder
from sc2keras.signals import as_array, check_atoms
from sc2keras.validation import check_positive_integer

_ROWS_AT_A_TIME = 1024
# Of the norm of an atom and of a signal: what rounding leaves of them.
_DEPENDENT, _EXPLAINED = 1e-7, 1e-12


def matching_pursuit(
    x: ArrayLike,
    dictionary: ArrayLike | SparseCoder,
    n_nonzero: int,
    nonnegative: bool = False,
) -> NDArray:
    """Codes by `n_nonzero` steps of matching pursuit, float64 `(n_samples, n_atoms)`.

    Each step adds ⟨r, d_j⟩/‖d_j‖² to the entry j for which |⟨r, d_j⟩|/‖d_j‖ is largest,
    r = x − s D. An atom may be chosen again: a code has at most as many entries.

    Args:
        x: Array of signals.
        dictionary: Array, or a `SparseCoder`.
        n_nonzero: Integer, the number of steps.
        nonnegative: Boolean. If True, steps are along positive products alone; a row
            that has none is done.

    Raises:
        ValueError: If an argument is unusable.

    Example:

    >>> matching_pursuit([[3.0, 1.0]], np.eye(2), 1).tolist()
    [[3.0, 0.0]]

    Reference:
        Mallat and Zhang, Matching Pursuits with Time-Frequency Dictionaries, 1993.
    """

    def codes_of(x: NDArray, atoms: NDArray) -> NDArray:
        # An atom of zeros, as a dead latent has, has a code of zero.
        squared = np.maximum(np.sum(atoms**2, axis=1), 1e-60)
        codes, rows = np.zeros((len(x), len(atoms))), np.arange(len(x))
        residual = x.copy()
        for _ in range(n_nonzero):
            products = residual @ atoms.T / np.sqrt(squared)
            chosen = np.argmax(products if nonnegative else np.abs(products), axis=1)
            step = products[rows, chosen] / np.sqrt(squared[chosen])
            step = np.maximum(step, 0) if nonnegative else step
            codes[rows, chosen] += step
            residual -= step[:, None] * atoms[chosen]
        return codes

    return _by_parts(codes_of, x, dictionary, n_nonzero)


def orthogonal_matching_pursuit(
    x: ArrayLike,
    dictionary: ArrayLike | SparseCoder,
    n_nonzero: int,
    nonnegative: bool = False,
) -> NDArray:
    """Codes by orthogonal matching pursuit, float64 `(n_samples, n_atoms)`.

    Each step adds the atom whose product with what is left of the signal is largest,
    and fits all entries anew, by least squares. A row is done early where nothing is
    left of it, or where the next atom is a combination of those that it has.

    Args:
        x: Array of signals.
        dictionary: Array, or a `SparseCoder`. Atoms of unit norm are usual.
        n_nonzero: Integer, the number of entries of a code.
        nonnegative: Boolean. If True, products are positive, and the fit is that of
            non-negative least squares: entries may fall back to zero.

    Raises:
        ValueError: If an argument is unusable.

    Example:

    >>> x = np.array([[3.0, 2.0, 1.0]])
    >>> orthogonal_matching_pursuit(x, np.eye(3), 2).tolist()
    [[3.0, 2.0, 0.0]]

    Reference:
        Pati, Rezaiifar and Krishnaprasad, Orthogonal Matching Pursuit, 1993.
    """

    def codes_of(x: NDArray, atoms: NDArray) -> NDArray:
        if nonnegative:
            return np.array([_nonnegative_pursuit(row, atoms, n_nonzero) for row in x])
        return _refit_rows(x, _supports(x, atoms, n_nonzero), atoms)

    return _by_parts(codes_of, x, dictionary, n_nonzero)


def refit(
    x: ArrayLike,
    codes: ArrayLike,
    dictionary: ArrayLike | SparseCoder,
    nonnegative: bool = False,
) -> NDArray:
    """The best codes with the entries of given ones: least squares on their support.

    Args:
        x: Array of signals.
        codes: Array `(n_samples, n_atoms)`; what matters is which entries are not zero.
        dictionary: Array, or a `SparseCoder`.
        nonnegative: Boolean, for the best codes without negative entries.

    Returns:
        Float64 array `(n_samples, n_atoms)`. Where atoms of a support depend on each
        other, the shortest of the best codes.

    Example:

    >>> refit([[3.0, 2.0]], [[1.0, 0.0]], np.eye(2)).tolist()
    [[3.0, 0.0]]
    """
    signals, atoms = _problem(x, dictionary)
    support = as_array("codes", codes) != 0
    if support.shape != (len(signals), len(atoms)):
        raise ValueError(
            f"codes must have shape {(len(signals), len(atoms))}, one row a signal and "
            f"one column an atom; received codes.shape={support.shape}."
        )
    fit = _refit_nonnegative if nonnegative else _refit_rows
    parts = [fit(signals[part], support[part], atoms) for part in _parts(len(signals))]
    return np.concatenate([np.zeros((0, len(atoms))), *parts])


def _by_parts(
    codes_of: Callable[[NDArray, NDArray], NDArray],
    x: ArrayLike,
    dictionary: ArrayLike | SparseCoder,
    n_nonzero: int,
) -> NDArray:
    check_positive_integer("n_nonzero", n_nonzero)
    signals, atoms = _problem(x, dictionary)
    if n_nonzero > min(atoms.shape):
        raise ValueError(
            f"n_nonzero must be at most {min(atoms.shape)}, the smaller of the numbers "
            f"of atoms and features; received n_nonzero={n_nonzero}."
        )
    parts = [codes_of(signals[part], atoms) for part in _parts(len(signals))]
    return np.concatenate([np.zeros((0, len(atoms))), *parts])


def _parts(n_rows: int) -> Iterator[slice]:
    for start in range(0, n_rows, _ROWS_AT_A_TIME):
        yield slice(start, start + _ROWS_AT_A_TIME)


def _problem(x: ArrayLike, dictionary: Any) -> tuple[NDArray, NDArray]:
    """Signals and atoms in float64; signals without a model's offset."""
    signals = as_array("x", x).astype("float64")
    offset: Any = 0.0
    if isinstance(dictionary, SparseCoder):
        nothing = np.zeros((1, dictionary.encoder.n_atoms), "float32")
        offset = dictionary.decode(nothing).reshape(-1)
        dictionary = dictionary.dictionary
    atoms = check_atoms("dictionary", dictionary)
    if signals.ndim < 2 or signals[0:1].size != atoms.shape[1] * len(signals[0:1]):
        raise ValueError(
            f"x must hold {atoms.shape[1]} numbers a sample, as the atoms do; received "
            f"x.shape={signals.shape}."
        )
    if not np.isfinite(signals).all():
        raise ValueError("x must be finite; received a NaN or an infinity.")
    return signals.reshape(len(signals), atoms.shape[1]) - offset, atoms


def _supports(x: NDArray, atoms: NDArray, n_nonzero: int) -> NDArray:
    """Which atoms OMP chooses for each row, Boolean `(n_rows, n_atoms)`."""
    rows, residual = np.arange(len(x)), x.copy()
    chosen = np.zeros((len(x), len(atoms)), bool)
    basis = np.zeros((len(x), n_nonzero, x.shape[1]))
    left_of = _EXPLAINED * np.linalg.norm(x, axis=1)
    is_open = np.ones(len(x), bool)
    for t in range(n_nonzero):
        products = np.abs(residual @ atoms.T)
        products[chosen] = -1
        best = np.argmax(products, axis=1)
        direction = atoms[best]
        # Twice: once leaves of nearly dependent atoms what rounding makes of them.
        for _ in range(2):
            along = np.einsum("btf,bf->bt", basis[:, :t], direction)
            direction = direction - np.einsum("bt,btf->bf", along, basis[:, :t])
        norm = np.linalg.norm(direction, axis=1)
        is_open &= norm > _DEPENDENT * np.linalg.norm(atoms[best], axis=1)
        is_open &= np.linalg.norm(residual, axis=1) > left_of
        if not is_open.any():
            break
        scale = np.where(is_open, 1 / np.maximum(norm, 1e-30), 0.0)
        unit = basis[:, t] = direction * scale[:, None]
        residual -= np.sum(residual * unit, axis=1, keepdims=True) * unit
        chosen[rows[is_open], best[is_open]] = True
    return chosen


def _refit_rows(x: NDArray, support: NDArray, atoms: NDArray) -> NDArray:
    codes = np.zeros(support.shape)
    sizes = support.sum(axis=1)
    # Rows of as many entries are solved together.
    for size in np.unique(sizes[sizes > 0]):
        rows = np.flatnonzero(sizes == size)
        columns = np.nonzero(support[rows])[1].reshape(len(rows), size)
        chosen = atoms[columns]
        gram = np.einsum("bif,bjf->bij", chosen, chosen)
        projected = np.einsum("bif,bf->bi", chosen, x[rows])
        codes[rows[:, None], columns] = _solve(gram, projected)
    return codes


def _solve(gram: NDArray, projected: NDArray) -> NDArray:
    """The solutions of normal equations, the shortest where there are many."""
    largest = np.linalg.eigvalsh(gram)
    if (largest[:, 0] > 1e-10 * largest[:, -1]).all():
        return np.linalg.solve(gram, projected[..., None])[..., 0]
    inverse = np.linalg.pinv(gram, rcond=1e-12, hermitian=True)
    return np.einsum("bij,bj->bi", inverse, projected)


def _refit_nonnegative(x: NDArray, support: NDArray, atoms: NDArray) -> NDArray:
    codes = np.zeros(support.shape)
    for signal, used, code in zip(x, support, codes, strict=True):
        if used.any():
            code[used] = nnls(atoms[used].T, signal)[0]
    return codes


def _nonnegative_pursuit(x: NDArray, atoms: NDArray, n_nonzero: int) -> NDArray:
    chosen: list[int] = []
    residual, code = x, np.zeros(len(atoms))
    for _ in range(n_nonzero):
        products = atoms @ residual
        products[chosen] = 0
        best = int(np.argmax(products))
        if products[best] <= _EXPLAINED * np.linalg.norm(x):
            break
        chosen.append(best)
        entries = nnls(atoms[chosen].T, x)[0]
        residual = x - entries @ atoms[chosen]
        code[:] = 0
        code[chosen] = entries
    return code
