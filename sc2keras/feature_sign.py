"""Exact codes of the LASSO, and how far codes are from them, in float64."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras.signals import as_array

# Of the search, per atom: a bound that nothing but cycling meets.
_MAX_ROUNDS = 10
# Of its linear systems that are held at a time, 32 MB.
_SYSTEM_ENTRIES = 4_000_000


def feature_sign_search(
    x: NDArray,
    dictionary: NDArray,
    l1: float | NDArray,
    codes: NDArray,
    l2: float = 0.0,
    nonnegative: bool = False,
) -> NDArray:
    """The exact codes of the LASSO, in float64, from codes nearby.

    With the signs of a code given, its entries solve a linear system. Each round goes
    there, or to the first entry that becomes zero on the way and leaves the support; at
    the solution the atom that most violates optimality enters it.

    Args:
        x, dictionary, codes: Arrays `(n_samples, n_features)`, `(n_atoms, n_features)`
            and `(n_samples, n_atoms)`.
        l1: Float >= 0, or an array `(n_atoms,)` with a weight an atom.
        l2: Float >= 0, of the elastic net.
        nonnegative: Boolean. If True, codes are >= 0.

    Example:

    >>> x = np.array([[3.0, 0.05]])
    >>> feature_sign_search(x, np.eye(2), 0.1, np.zeros((1, 2))).round(6).tolist()
    [[2.9, 0.0]]

    Reference:
        Lee, Battle, Raina and Ng, Efficient Sparse Coding Algorithms, 2007, algorithm
        1.
    """
    given = {"x": x, "dictionary": dictionary, "codes": codes}
    x, dictionary, codes = _in_float64(given)
    n_atoms = len(dictionary)
    gram, correlation = dictionary @ dictionary.T, x @ dictionary.T
    gram[np.diag_indices(n_atoms)] += l2
    if not np.any(l1) and not nonnegative:  # Then signs mean nothing.
        if l2:
            return np.linalg.solve(gram, correlation.T).T
        return x @ np.linalg.pinv(dictionary)
    if nonnegative:
        codes = np.maximum(codes, 0.0)
    signs = np.sign(codes)
    # Of a singular system this leaves the direction in which the ℓ1 norm falls.
    norms = np.diagonal(gram)
    regular = gram + np.diag(np.where(norms > 0.0, 1e-11 * norms, 1.0))
    smallest = np.min(l1, where=np.asarray(l1) > 0, initial=np.inf)
    unsolved = np.arange(len(x))
    for _ in range(_MAX_ROUNDS * n_atoms):
        if not len(unsolved):
            break
        s, sign = codes[unsolved], signs[unsolved]
        right = np.where(sign != 0, correlation[unsolved] - l1 * sign, 0.0)
        goal = _solve_on_supports(regular, right, sign != 0)
        # What `regular` has in excess is taken back, where it is small.
        left = np.where(sign != 0, right - goal @ gram, 0.0)
        goal = goal + _solve_on_supports(regular, left, sign != 0)
        crosses = goal * sign < 0
        steps = np.divide(s, s - goal, out=np.ones_like(s), where=crosses)
        step = steps.min(axis=1, keepdims=True)
        s += step * (goal - s)
        leaves = crosses & (steps <= step)
        s[leaves] = sign[leaves] = 0.0

        gradient = correlation[unsolved] - s @ gram
        size = gradient if nonnegative else np.abs(gradient)
        violation = np.where(sign != 0, 0.0, size - l1)
        worst = violation.argmax(axis=1)[:, None]
        arrived = ~crosses.any(axis=1)
        # Of λ, which a gap is relative to, as far as rounding lets it be known.
        largest = np.abs(correlation[unsolved]).max(axis=1)
        within = np.clip(1e-7 * smallest, 1e-14 * largest, 1e-9 * largest)
        optimal = arrived & (np.take_along_axis(violation, worst, 1)[:, 0] <= within)
        enters = np.flatnonzero(arrived & ~optimal)
        worst = worst[enters, 0]
        sign[enters, worst] = np.sign(gradient[enters, worst])

        codes[unsolved], signs[unsolved] = s, sign
        unsolved = unsolved[~optimal]
    return codes


def _solve_on_supports(gram: NDArray, right: NDArray, supports: NDArray) -> NDArray:
    """The rows s, zero off their supports, with (s gram)_j = right_j on them."""
    size = max(1, int(supports.sum(axis=1).max()))
    inside = np.argsort(~supports, axis=1, kind="stable")[:, :size]
    solution = np.zeros_like(right)
    n_rows = max(1, _SYSTEM_ENTRIES // size**2)
    for start in range(0, len(right), n_rows):
        rows = slice(start, start + n_rows)
        index = inside[rows]
        valid = np.take_along_axis(supports[rows], index, 1)
        # Beyond a smaller support stands the identity, with zeros to the right.
        systems = np.where(
            valid[:, :, None] & valid[:, None, :],
            gram[index[:, :, None], index[:, None, :]],
            np.eye(size),
        )
        values = np.take_along_axis(right[rows], index, 1)
        solved = np.linalg.solve(systems, values[..., None])[..., 0]
        np.put_along_axis(solution[rows], index, solved, 1)
    return solution


def _in_float64(given: Mapping[str, Any]) -> Iterator[NDArray]:
    return (as_array(name, value).astype("float64") for name, value in given.items())


def relative_gaps(
    x: NDArray,
    codes: NDArray,
    dictionary: NDArray,
    l1: float | NDArray,
    l2: float = 0.0,
    nonnegative: bool = False,
) -> NDArray:
    """`sc2keras.objective.relative_duality_gap` in NumPy and float64, at any backend.

    Example:

    >>> x, codes = np.array([[3.0, 0.05]]), np.array([[2.9, 0.0]])
    >>> bool(relative_gaps(x, codes, np.eye(2), 0.1)[0] < 1e-12)
    True
    """
    given = {"x": x, "codes": codes, "dictionary": dictionary}
    x, codes, dictionary = _in_float64(given)
    return gaps_and_residuals(x, codes, dictionary, l1, l2, nonnegative)[0]


def gaps_and_residuals(
    x: NDArray,
    codes: NDArray,
    dictionary: NDArray,
    l1: float | NDArray,
    l2: float = 0.0,
    nonnegative: bool = False,
) -> tuple[NDArray, NDArray, NDArray]:
    """`sc2keras.objective.gap_and_residual_in_units` in the dtype of its arguments.

    λ may be one a row, `(n, 1)`, one an atom, `(n_atoms,)`, or one for each entry.
    """
    tiny = np.finfo(x.dtype).tiny
    residual = x - codes @ dictionary
    correlation = residual @ dictionary.T
    squared = np.einsum("ij,ij->i", residual, residual)[:, None]
    if l2:
        correlation -= l2 * codes
        squared += l2 * np.einsum("ij,ij->i", codes, codes)[:, None]
    per_atom = np.ndim(l1) > 0 and np.shape(l1)[-1] > 1
    # Overflows where a weight is next to zero: then no multiple is feasible.
    with np.errstate(over="ignore"):
        size = correlation / np.maximum(l1, tiny) if per_atom else correlation
    size = size if nonnegative else np.abs(size)
    largest = size.max(axis=1, keepdims=True)
    bound = (1.0 if per_atom else l1) / np.maximum(largest, tiny)
    products = np.einsum("ij,ij->i", codes, correlation)[:, None]
    scale = (squared + products) / np.maximum(squared, tiny)
    scale = np.clip(scale, 0.0 if nonnegative else -bound, bound)
    if per_atom:
        penalty = (l1 * np.abs(codes)).sum(axis=1, keepdims=True)
    else:
        penalty = l1 * np.abs(codes).sum(axis=1, keepdims=True)
    gap = 0.5 * (1 - scale) ** 2 * squared + penalty - scale * products
    primal = 0.5 * squared + penalty
    if nonnegative:
        gap = np.where((codes < 0.0).any(axis=1, keepdims=True), primal, gap)
    gap = gap / np.maximum(primal, tiny)
    return gap[:, 0], correlation, squared
