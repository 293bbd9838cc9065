"""Analytic weights: the matrix that a dictionary alone decides, in float64."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from sc2keras.signals import as_array
from sc2keras.validation import at_least_float32, check_non_negative

_SMALLEST_NORM = 1e-8
# Beside the largest of its kind.
_TINY = 1e-12
_HALF = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
# Of the eigenvalues of a Gram matrix, the smallest over the largest.
_WELL_CONDITIONED = 1e-6


def analytic_weights(
    dictionary: ArrayLike,
    ridge: float = 0.0,
    symmetric: bool = False,
    dtype: str | None = None,
) -> NDArray[np.float64]:
    """The analytic weights W of a dictionary, as ALISTA takes them, in closed form.

    Of all W whose rows have w_i · d_i = 1 those that see the least of other atoms:

        min ‖W Dᵀ‖² + ridge · ‖W‖²

    The solution is P = D (DᵀD + ridge·I)⁺ with each row over p_i · d_i. Without a ridge
    these are the columns of the pseudo-inverse of D, rescaled. A ridge makes the
    rows shorter, which multiply noise: about 1 suits 40 dB, 3 suits 20 dB (250
    features, 500 Gaussian atoms). A very large one gives D, its rows over ‖d_i‖².

    A dictionary of any rank has them, by the pseudo-inverse. Its rank is that of its
    numbers' precision: those of centred atoms in float32 see a constant by rounding
    alone. Atoms that are equal up to their sign have equal rows: nothing tells them
    apart.

    Args:
        dictionary: Array `(n_atoms, n_features)`, D, its atoms of any norm that does
            not vanish beside the others'.
        ridge: Float >= 0.
        symmetric: Boolean. If True, the best W = D M with a symmetric positive
            semidefinite M, so that a step descends in the norm of M: the form that
            HyperLISTA's analysis takes. The ridge then adds 2·ridge·‖W‖² +
            ridge²·‖M‖². Atoms of one norm always have it; where the closed form is no
            M >= 0, which may be with fewer features than a dozen, it is searched.
        dtype: String, what the numbers were rounded to; None: the array's dtype.

    Returns:
        Float64 array `(n_atoms, n_features)`.

    Raises:
        ValueError: If the dictionary is not finite or holds an atom of zeros, or one
            that vanishes beside the others, or if it has no symmetric form.

    Example:

    >>> weights = analytic_weights([[1.0, 0.0], [0.6, 0.8]])
    >>> weights.round(3).tolist()
    [[1.0, -0.75], [0.0, 1.25]]

    References:
        Liu, Chen, Wang and Yin, ALISTA: Analytic Weights Are As Good As Learned Weights
        in LISTA, 2019, who iterate to it. Chen, Liu, Wang and Yin, Hyperparameter
        Tuning is All You Need for LISTA, 2021, of the symmetric form.
    """
    given = as_array("dictionary", dictionary)
    atoms, dtype = given.astype("float64"), dtype or given.dtype.name
    # Integers are exact in float64.
    dtype = dtype if "float" in dtype else "float64"
    ridge = check_non_negative("ridge", ridge)
    _check_atoms(atoms)
    if symmetric:
        return _symmetric(atoms, ridge, dtype)
    projected = _filtered(atoms, ridge, dtype)
    scales = np.sum(projected * atoms, axis=1, keepdims=True)
    if scales.min() < _TINY * scales.max():
        least = int(scales.argmin())
        raise ValueError(
            "dictionary must have no atom that vanishes beside the others; received "
            f"norm {np.linalg.norm(atoms[least]):.1e} in atom {least}. Divide each "
            "atom by its norm, or leave it out."
        )
    return projected / scales


def pseudo_inverse(atoms: NDArray, dtype: str) -> NDArray:
    """D⁺, `(n_features, n_atoms)`, of numbers that were rounded to a dtype."""
    return _filtered(atoms, 0.0, dtype).T


def _symmetric(atoms: NDArray, ridge: float, dtype: str) -> NDArray:
    """D M, of the M >= 0 that is smallest in the norm of DᵀD + ridge·I."""
    # With K the root of that, of N = K M K: min ‖N‖², q_i N q_i = 1, and N >= 0.
    values, vectors = _spectrum(atoms, dtype)
    root = vectors / np.sqrt(values + ridge)
    rows = atoms @ root
    # N = Qᵀ diag(ν) Q, of as many equations as atoms, where that is no negative one.
    squared = np.square(rows @ rows.T)
    # Of atoms that are equal the equations are, too: a little on the diagonal shares.
    squared[np.diag_indices(len(atoms))] += _TINY * squared.max()
    scales = np.linalg.solve(squared, np.ones(len(atoms)))
    if not _is_semidefinite(_weighted(rows, scales)):
        scales = _dual(rows, scales)
    metric = _positive_part(_weighted(rows, scales))
    error = np.abs(np.sum((rows @ metric) * rows, axis=1) - 1).max()
    if error > 1e-6:
        raise ValueError(
            "dictionary must have weights of the symmetric form; received one of which "
            f"w_i · d_i = 1 is missed by {error:.1e}. Use symmetric=False, or atoms of "
            "one norm, which always have them."
        )
    return rows @ metric @ root.T


def _weighted(rows: NDArray, scales: NDArray) -> NDArray:
    return rows.T @ (scales[:, None] * rows)


def _is_semidefinite(matrix: NDArray) -> bool:
    return bool(np.linalg.eigvalsh(matrix)[0] >= -1e-8 * np.abs(matrix).max())


def _positive_part(matrix: NDArray) -> NDArray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def _dual(rows: NDArray, scales: NDArray) -> NDArray:
    """The ν of the N >= 0 that is smallest: N is the positive part of Qᵀ diag(ν) Q."""

    def negative_dual(scales: NDArray) -> tuple[float, NDArray]:
        part = _positive_part(_weighted(rows, scales))
        gradient = np.sum((rows @ part) * rows, axis=1) - 1
        return 0.5 * float(np.sum(np.square(part))) - scales.sum(), gradient

    options = {"maxiter": 5000, "maxfun": 10000, "ftol": 0, "gtol": 1e-9, "maxcor": 50}
    how = {"jac": True, "method": "L-BFGS-B", "options": options}
    return np.asarray(minimize(negative_dual, scales, **how).x)


def _check_atoms(atoms: NDArray) -> None:
    if atoms.ndim != 2 or 0 in atoms.shape:
        raise ValueError(
            "dictionary must have shape (n_atoms, n_features); received "
            f"dictionary.shape={atoms.shape}. Its atoms are its rows."
        )
    norms = np.linalg.norm(atoms, axis=1)
    if not np.isfinite(norms).all():
        raise ValueError(
            "dictionary must be finite; received a NaN or an infinity in atom "
            f"{int(np.argmax(~np.isfinite(norms)))}. Replace that atom."
        )
    if norms.min() < _SMALLEST_NORM:
        raise ValueError(
            "dictionary must have no zero atom, or w_i · d_i is never 1; received "
            f"norm {norms.min():.1e} in atom {int(norms.argmin())}. Replace it, or "
            "leave it out."
        )


def _filtered(atoms: NDArray, ridge: float, dtype: str) -> NDArray:
    """D (DᵀD + ridge·I)⁺."""
    values, vectors = _spectrum(atoms, dtype)
    return (atoms @ (vectors / (values + ridge))) @ vectors.T


def _spectrum(atoms: NDArray, dtype: str) -> tuple[NDArray, NDArray]:
    """The eigenvalues of DᵀD that are not zero, and its eigenvectors as columns."""
    n_atoms, n_features = atoms.shape
    if n_atoms >= n_features:
        values, vectors = np.linalg.eigh(atoms.T @ atoms)
        line = np.square(_noise(atoms, np.sqrt(max(values[-1], 0.0)), dtype))
        if values[0] > max(_WELL_CONDITIONED * values[-1], line):
            return values, vectors
    # A Gram matrix has the square of the condition, and half of the digits.
    _, singular, rows = np.linalg.svd(atoms, full_matrices=False)
    is_kept = singular > _noise(atoms, singular[0], dtype)
    return np.square(singular[is_kept]), rows[is_kept].T


def _noise(atoms: NDArray, largest: float, dtype: str) -> float:
    """The singular values that rounding alone may make, of numbers of a dtype."""
    # What entries were rounded by has no larger norm than ε‖D‖; what was computed of
    # them, in float32 at least, errs as NumPy's `matrix_rank` takes it to.
    computed = max(atoms.shape) * largest * epsilon(at_least_float32(dtype))
    return float(max(computed, np.linalg.norm(atoms) * epsilon(dtype)))


def coarser(dtype: str, other: str) -> str:
    """Of two dtypes of floats the one with fewer digits."""
    return max(dtype, other, key=epsilon)


def epsilon(dtype: str) -> float:
    """ε of a dtype of floats, one of Keras's."""
    return _HALF.get(dtype) or float(np.finfo(dtype).eps)
