"""Signals whose sparse codes are known: the benchmark of sparse recovery."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sc2keras.signals import check_atoms
from sc2keras.validation import (
    check_finite,
    check_non_negative,
    check_non_negative_integer,
    check_positive,
    check_positive_integer,
)

Amplitudes = Literal["normal", "signs", "uniform"]
Noise = Literal["sample", "fixed"]


class SparseRecovery(NamedTuple):
    """Signals with the codes that they were made of: x = s D + noise.

    Attributes:
        dictionary: Float64 array `(n_atoms, n_features)`.
        codes: Float32 array `(n_samples, n_atoms)`, the true s.
        x: Float32 array `(n_samples, n_features)`.
        noise: Float64 array `(n_samples,)`, the standard deviation of the noise.
    """

    dictionary: NDArray[np.float64]
    codes: NDArray[np.float32]
    x: NDArray[np.float32]
    noise: NDArray[np.float64]


def sparse_recovery(
    n_features: int = 250,
    n_atoms: int = 500,
    n_samples: int = 1000,
    *,
    density: float = 0.1,
    support_size: int | None = None,
    amplitudes: Amplitudes = "normal",
    scale: float = 1.0,
    nonnegative: bool = False,
    snr: float | None = None,
    noise: Noise = "sample",
    dictionary: ArrayLike | None = None,
    condition: float | None = None,
    normalize: bool = True,
    seed: int = 0,
) -> SparseRecovery:
    """Draws the sparse-recovery problem that the LISTA family is measured on.

    The defaults are the setting of Chen et al. (2018) and of most since: a Gaussian
    dictionary of 500 atoms of unit norm and 250 features, codes with a tenth of their
    entries from a normal distribution. NumPy draws: equal arguments give equal arrays
    on every backend.

    Args:
        n_features, n_atoms: Integers, m and n of the literature, whose A is Dᵀ.
        n_samples: Integer.
        density: Float in [0, 1], the probability of each entry to be nonzero.
        support_size: Integer, exactly so many nonzero entries a code, in place of
            `density`.
        amplitudes: The distribution of nonzero entries, of variance one: `"normal"`,
            `"signs"` (−1 and 1), `"uniform"` (from −√3 to √3).
        scale: Float > 0, what all entries are multiplied with.
        nonnegative: Boolean. If True, the magnitudes of such entries.
        snr: Float, the ratio of signal to noise in dB; None: no noise.
        noise: `"sample"`: to the standard deviation of each signal's own entries.
            `"fixed"`: of one variance, density · scale² · n_atoms / n_features over the
            ratio, as Borgerding et al. (2017) have it, with `normalize=False`.
        dictionary: Array `(n_atoms, n_features)`, for further samples of the same; its
            sizes take the place of `n_features` and `n_atoms`. None: entries drawn from
            N(0, 1/n_features).
        condition: Float >= 1. If given, the dictionary that is drawn gets singular
            values from 1 down to 1/condition, evenly on a logarithmic scale.
        normalize: Boolean, whether its atoms are then made of unit norm (which changes
            the condition a little), as encoders want them. For others there are
            `norms = np.linalg.norm(dictionary, axis=1)`, `dictionary / norms[:, None]`
            for the encoder, and its codes over `norms`.
        seed: Integer, of samples and dictionary, which do not depend on each other's
            sizes.

    Raises:
        ValueError: If an argument is unusable.

    Example:

    >>> train = sparse_recovery(20, 40, 100, snr=40.0)
    >>> test = sparse_recovery(dictionary=train.dictionary, snr=40.0, seed=1)
    >>> train.x.shape, test.codes.shape
    ((100, 20), (1000, 40))

    References:
        Chen, Liu, Wang and Yin, Theoretical Linear Convergence of Unfolded ISTA and its
        Practical Weights and Thresholds, 2018, section 4. Borgerding, Schniter and
        Rangan, AMP-Inspired Deep Networks for Sparse Linear Inverse Problems, 2017.
    """
    seed = check_non_negative_integer("seed", seed)
    if dictionary is None:
        atoms = _dictionary(
            check_positive_integer("n_features", n_features),
            check_positive_integer("n_atoms", n_atoms),
            condition,
            normalize,
            np.random.default_rng((seed, 0)),
        )
    else:
        atoms = check_atoms("dictionary", dictionary)
    n_atoms, n_features = atoms.shape
    scale = check_positive("scale", scale)
    if snr is not None:
        snr = check_finite("snr", snr)
    n_samples = check_positive_integer("n_samples", n_samples)
    rng = np.random.default_rng((seed, 1))
    support = _supports(n_samples, n_atoms, density, support_size, rng)
    codes = scale * support * _entries(amplitudes, support.shape, rng)
    if nonnegative:
        codes = np.abs(codes)
    x = codes @ atoms
    if noise not in get_args(Noise):
        raise ValueError(
            f"noise must be one of {get_args(Noise)}; received {noise=!r}."
        )
    deviation = np.zeros(n_samples)
    if snr is not None:
        deviation = x.std(axis=1)
        if noise == "fixed":
            share = density if support_size is None else support_size / n_atoms
            variance = share * scale**2 * n_atoms / n_features
            deviation = np.full(n_samples, np.sqrt(variance))
        deviation = deviation * 10 ** (-snr / 20)
        x += deviation[:, None] * rng.standard_normal(x.shape)
    return SparseRecovery(
        atoms, codes.astype("float32"), x.astype("float32"), deviation
    )


def _dictionary(
    n_features: int,
    n_atoms: int,
    condition: float | None,
    normalize: bool,
    rng: np.random.Generator,
) -> NDArray:
    atoms = rng.standard_normal((n_atoms, n_features)) / np.sqrt(n_features)
    if condition is not None:
        if check_finite("condition", condition) < 1:
            raise ValueError(f"condition must be >= 1; received {condition=!r}.")
        left, values, right = np.linalg.svd(atoms, full_matrices=False)
        values = np.logspace(0, -np.log10(condition), len(values))
        # Of the energy that atoms of unit norm have.
        values *= np.sqrt(n_atoms) / np.linalg.norm(values)
        atoms = (left * values) @ right
    if normalize:
        atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    return atoms


def _supports(
    n_samples: int,
    n_atoms: int,
    density: float,
    support_size: int | None,
    rng: np.random.Generator,
) -> NDArray:
    places = rng.random((n_samples, n_atoms))
    if support_size is None:
        if not 0 <= check_non_negative("density", density) <= 1:
            raise ValueError(f"density must be at most 1; received {density=!r}.")
        return places < density
    if check_positive_integer("support_size", support_size) > n_atoms:
        raise ValueError(
            f"support_size must be at most n_atoms={n_atoms}; received "
            f"{support_size=!r}."
        )
    return places.argsort(axis=1).argsort(axis=1) < support_size


def _entries(
    amplitudes: Amplitudes, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray:
    if amplitudes == "normal":
        return rng.standard_normal(shape)
    if amplitudes == "signs":
        return rng.choice([-1.0, 1.0], shape)
    if amplitudes == "uniform":
        return rng.uniform(-np.sqrt(3), np.sqrt(3), shape)
    raise ValueError(
        f"amplitudes must be one of {get_args(Amplitudes)}; received {amplitudes=!r}."
    )
