"""Analytic weights: the matrix that a dictionary alone decides, in float64."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sc2keras.signals import as_array
from sc2keras.validation import check_non_negative

_SMALLEST_NORM = 1e-8
_TINY = 1e-12


def analytic_weights(
    dictionary: ArrayLike, ridge: float = 0.0, symmetric: bool = False
) -> NDArray[np.float64]:
    """The analytic weights W of a dictionary, as ALISTA takes them, in closed form.

    Of all W whose rows have w_i · d_i = 1 those that see the least of other atoms:

        min ‖W Dᵀ‖² + ridge · ‖W‖²

    The solution is P = D (DᵀD + ridge·I)⁺ with each row over p_i · d_i. Without a ridge
    these are the columns of the pseudo-inverse of D, rescaled. A ridge makes the
    rows shorter, which multiply noise: about 0.3 suits 40 dB, 3 suits 20 dB (250
    features, 500 Gaussian atoms). A very large one gives D, its rows over ‖d_i‖².

    A dictionary of any rank has them, by the pseudo-inverse. Atoms that are equal up to
    their sign have equal rows: nothing tells them apart.

    Args:
        dictionary: Array `(n_atoms, n_features)`, D, its atoms of any norm.
        ridge: Float >= 0.
        symmetric: Boolean. If True, the best W = D M with a symmetric positive
            semidefinite M, so that a step descends in the norm of M: the form that
            HyperLISTA's analysis takes. The ridge then adds 2·ridge·‖W‖² +
            ridge²·‖M‖².

    Returns:
        Float64 array `(n_atoms, n_features)`.

    Raises:
        ValueError: If the dictionary is not finite or holds an atom of zeros, or if it
            has no symmetric form.

    Example:

    >>> weights = analytic_weights([[1.0, 0.0], [0.6, 0.8]])
    >>> weights.round(3).tolist()
    [[1.0, -0.75], [0.0, 1.25]]

    References:
        Liu, Chen, Wang and Yin, ALISTA: Analytic Weights Are As Good As Learned Weights
        in LISTA, 2019, who iterate to it. Chen, Liu, Wang and Yin, Hyperparameter
        Tuning is All You Need for LISTA, 2021, of the symmetric form.
    """
    atoms = as_array("dictionary", dictionary).astype("float64")
    ridge = check_non_negative("ridge", ridge)
    _check_atoms(atoms)
    projected = _filtered(atoms, ridge)
    if not symmetric:
        return projected / np.sum(projected * atoms, axis=1, keepdims=True)
    # M = Pᵀ diag(ν) P: of d_i M d_i = 1 remain as many equations as atoms.
    squared = np.square(projected @ atoms.T)
    # Of atoms that are equal the equations are, too: a little on the diagonal shares.
    squared[np.diag_indices(len(atoms))] += _TINY
    scales = np.linalg.solve(squared, np.ones(len(atoms)))
    metric = projected.T @ (scales[:, None] * projected)
    weights = atoms @ metric
    smallest = np.linalg.eigvalsh(metric)[0] / np.abs(metric).max()
    error = np.abs(np.sum(weights * atoms, axis=1) - 1).max()
    if smallest < -1e-8 or error > 1e-6:
        raise ValueError(
            "dictionary must have weights of the symmetric form; received one of which "
            f"w_i · d_i = 1 is missed by {error:.1e}, with an eigenvalue of "
            f"{smallest:.1e} of M. Use symmetric=False."
        )
    return weights


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


def _filtered(atoms: NDArray, ridge: float) -> NDArray:
    """D (DᵀD + ridge·I)⁺, from the smaller of the two Gram matrices."""
    n_atoms, n_features = atoms.shape
    is_wide = n_atoms > n_features
    gram = atoms.T @ atoms if is_wide else atoms @ atoms.T
    values, vectors = np.linalg.eigh(gram)
    is_kept = values > len(gram) * np.finfo(float).eps * values[-1]
    values, vectors = values[is_kept], vectors[:, is_kept]
    scaled = vectors / (values + ridge)
    if is_wide:
        return (atoms @ scaled) @ vectors.T
    return scaled @ (vectors.T @ atoms)
