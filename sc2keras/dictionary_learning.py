"""Dictionaries, learned online with scikit-learn or through an unrolled solver."""

import itertools
import math
import warnings
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from sc2keras.dictionary_learners import (
    SWEEPS,
    Beginning,
    Learner,
    OnlineLearner,
    UnrolledLearner,
    shuffled_batches,
)
from sc2keras.signals import as_array, check_finite, chunks, is_sparse
from sc2keras.sparse_rows import SparseRows
from sc2keras.stopping import Monitor
from sc2keras.threads import keeps_random_state, on_one_thread
from sc2keras.validation import check_positive, check_positive_integer

AnyLearner = TypeVar("AnyLearner", bound=Learner)
_LEARNERS: dict[str, type[Learner]] = {
    "online": OnlineLearner,
    "unrolled": UnrolledLearner,
}
_PROBE_SIZE = 512
_N_PROBES = 5
_SAME_DIRECTION = 1 - 1e-6


def learn_dictionary(
    x: ArrayLike,
    n_atoms: int,
    l1: float = 0.1,
    *,
    method: Literal["online", "unrolled"] = "online",
    nonnegative: bool = False,
    nonnegative_dictionary: bool = False,
    batch_size: int | None = None,
    max_iter: int | None = None,
    seed: int = 0,
    verbose: int = 1,
) -> NDArray[np.float32]:
    """Learns a dictionary for sparse coding.

    Minimises, over the dictionary D and the codes S,

        mean_i ½‖x_i − s_i D‖² + l1·‖s_i‖₁   with ‖d_j‖ ≤ 1 for every atom

    The start is random samples. Atoms that no sample uses, and copies of others, are
    replaced by the samples that the dictionary codes worst. Every atom returned has
    unit norm.

    Args:
        x: Float array `(n_samples, ...)`, flattened to `(n_samples, n_features)`.
        n_atoms: Integer, at most the number of samples that are not all zero.
        l1: Float > 0, λ, the weight of the ℓ1 term; scikit-learn's `alpha`.
        method: `"online"`: surrogates of the mean are minimised one after the other,
            as by `sklearn.decomposition.MiniBatchDictionaryLearning`. `"unrolled"`: the
            codes are those of ten steps of `StepLFISTA`, which are trained together
            with D by the gradient through them. It comes lower sooner where there are
            thousands of samples, unless each uses few of many atoms, and needs a second
            to begin.
        nonnegative: Boolean. If True, of codes >= 0; scikit-learn's `positive_code`.
        nonnegative_dictionary: Boolean. If True, of atoms with entries >= 0;
            scikit-learn's `positive_dict`. With both, and `x` >= 0, it is sparse
            non-negative matrix factorisation.
        batch_size: Integer, samples an update; None: 64 online, and 256 unrolled. The
            online update forgets old codes after about `batch_size` updates, so that a
            larger batch is slower to leave its start.
        max_iter: Integer, the number of updates; None: three passes over `x`, but at
            least 300 updates, online; 1,500 updates unrolled.
        seed: Integer. Equal seeds give equal dictionaries, bit for bit, on the same
            machine.
        verbose: Integer, 1 for a progress bar, 0 for none.

    Returns:
        Float32 array `(n_atoms, n_features)`, atoms of unit norm as rows.

    Raises:
        ValueError: If an argument is out of its range, or `x` is not made of finite
            floats, or has too few samples.

    Example:

    >>> from sc2keras.datasets import load
    >>> x = load("digits").x_train
    >>> learn_dictionary(x, n_atoms=16, max_iter=50, verbose=0).shape
    (16, 64)

    References:
        Mairal, Bach, Ponce and Sapiro, Online Dictionary Learning for Sparse Coding,
        2009. Tolooshams, Dey and Ba, Deep Residual Autoencoders for Expectation
        Maximization-inspired Dictionary Learning, 2020, for the unrolled kind.
    """
    if method not in _LEARNERS:
        raise ValueError(
            f"method must be one of {', '.join(map(repr, _LEARNERS))}; received "
            f"method={method!r}."
        )
    learner = trained_learner(
        _LEARNERS[method],
        x,
        n_atoms,
        l1,
        batch_size=batch_size,
        max_iter=max_iter,
        seed=seed,
        verbose=verbose,
        nonnegative=bool(nonnegative),
        nonnegative_dictionary=bool(nonnegative_dictionary),
    )
    return unit_rows(learner.dictionary).astype("float32")


def trained_learner(
    cls: type[AnyLearner],
    x: Any,
    n_atoms: int,
    l1: float,
    *,
    batch_size: int | None = None,
    max_iter: int | None = None,
    seed: int = 0,
    verbose: int = 1,
    nonnegative: bool = False,
    nonnegative_dictionary: bool = False,
    sample_weight: NDArray | None = None,
    monitor: Monitor | None = None,
) -> AnyLearner:
    """What has learned the dictionary of `learn_dictionary`, and can go on."""
    if batch_size is None:
        batch_size = cls.batch_size
    check_positive_integer("batch_size", batch_size)
    if max_iter is not None:
        check_positive_integer("max_iter", max_iter)
    check_positive("l1", l1)
    x = _check_signals(x, n_atoms, seed, nonnegative_dictionary)
    batch_size = min(batch_size, len(x))
    if max_iter is None:
        max_iter = cls.n_updates(len(x), batch_size)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    start = _fill(x[:0], x, order, n_atoms, rng, nonnegative_dictionary)
    how = (batch_size, max_iter, seed, nonnegative, nonnegative_dictionary)
    learner = cls(Beginning(start, l1, cls.unit_of(x), *how))
    train(learner, x, batch_size, max_iter, rng, verbose, sample_weight, monitor)
    return learner


def train(
    learner: Learner,
    x: Any,
    batch_size: int,
    max_iter: int,
    rng: np.random.Generator,
    verbose: int = 0,
    sample_weight: NDArray | None = None,
    monitor: Monitor | None = None,
) -> None:
    """At most so many updates on shuffled batches, and new atoms for unused ones."""
    batches = shuffled_batches(len(x), batch_size, rng)
    if monitor is not None:
        monitor.begin(len(x), batch_size)
    probe_every = math.ceil(max_iter / _N_PROBES)
    bar = tqdm(range(1, max_iter + 1), "Dictionary", disable=not verbose)
    for step, batch in zip(bar, batches, strict=False):
        weight = None if sample_weight is None else sample_weight[batch]
        objective = learner.update(x[batch], weight)
        is_enough = monitor is not None and monitor(objective, learner.dictionary)
        if is_enough or step % probe_every == 0 or step == max_iter:
            learner.dictionary = _replaced(learner, x, rng)
        if is_enough:
            break


def sample_dictionary(x: ArrayLike, n_atoms: int, seed: int = 0) -> NDArray[np.float32]:
    """Takes random samples, divided by their norms, as a dictionary.

    A network can learn end to end from it where random atoms lead nowhere. Arguments,
    result and errors are those of `learn_dictionary`. Samples of the same direction are
    taken once.

    Example:

    >>> from sc2keras.datasets import load
    >>> sample_dictionary(load("digits").x_train, n_atoms=16).shape
    (16, 64)
    """
    return sampled_atoms(x, n_atoms, seed).astype("float32")


def sampled_atoms(
    x: Any, n_atoms: int, seed: int, nonnegative: bool = False
) -> NDArray:
    """Samples as atoms; of atoms >= 0, what is above zero of them."""
    x = _check_signals(x, n_atoms, seed, nonnegative)
    rng = np.random.default_rng(seed)
    return _fill(x[:0], x, rng.permutation(len(x)), n_atoms, rng, nonnegative)


def n_usable(x: Any, nonnegative: bool = False) -> int:
    """How many samples an atom can be made of."""
    # Of a sample, an atom >= 0 is made of what is above zero.
    return sum(
        int((rows > 0 if nonnegative else rows).any(axis=1).sum())
        for _, rows in chunks(x)
    )


def _check_signals(x: Any, n_atoms: int, seed: int, nonnegative: bool = False) -> Any:
    """`x` as rows, of which so many atoms can be made with that seed."""
    check_positive_integer("n_atoms", n_atoms)
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed!r} must be an integer from 0 to 2**32 - 1.")
    if is_sparse(x):
        x = SparseRows(x.tocsr())
    elif not isinstance(x, SparseRows):
        x = as_array("x", x)
    if x.dtype.kind != "f":
        raise ValueError(
            f"x has dtype {x.dtype}, but must be made of floats. Scale 8-bit images to "
            "[0, 1] with sc2keras.applications.preprocess_input."
        )
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(
            f"x has shape {x.shape}, but must be (n_samples, ...), at least "
            f"n_atoms={n_atoms} samples. Reshape a single one with x[None]."
        )
    x = x.reshape(len(x), math.prod(x.shape[1:]))
    check_finite("x", x, x.dtype.name)
    found = n_usable(x, nonnegative)
    if found < n_atoms:
        above = "all zero, or below it" if nonnegative else "all zero"
        raise ValueError(
            f"n_atoms={n_atoms} is more than the {found} samples of x that are not "
            f"{above}. Ask for fewer atoms, or give more samples."
        )
    if x.shape[1] == 1 and n_atoms > 1:
        raise ValueError(
            f"n_atoms={n_atoms}, but x has a single feature, which has room for one "
            "atom. Use n_atoms=1."
        )
    return x


def unit_rows(rows: NDArray) -> NDArray:
    """Rows of unit norm; those that are all zero stay so."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, np.finfo(rows.dtype).tiny)


def _fill(
    atoms: NDArray,
    x: Any,
    order: NDArray,
    n_atoms: int,
    rng: np.random.Generator,
    nonnegative: bool = False,
) -> NDArray:
    """Appends rows of x[order] of new directions, then random ones, as unit rows."""
    filled = np.zeros((n_atoms, x.shape[1]))
    filled[: len(atoms)] = atoms
    count = len(atoms)
    candidates = itertools.chain(
        (x[i].astype("float64") for i in order),
        (rng.standard_normal(x.shape[1]) for _ in itertools.count()),
    )
    while count < n_atoms:
        candidate = next(candidates)
        if nonnegative:
            candidate = np.maximum(candidate, 0.0)
        norm = np.linalg.norm(candidate)
        if not 1e-150 < norm < 1e150 and candidate.any():
            # Its square is no number any more, or none yet.
            candidate = candidate / np.abs(candidate).max()
            norm = np.linalg.norm(candidate)
        if norm > 0:
            candidate /= norm
            if not (np.abs(filled[:count] @ candidate) > _SAME_DIRECTION).any():
                filled[count] = candidate
                count += 1
    return filled


@on_one_thread
@keeps_random_state
def _replaced(learner: Learner, x: Any, rng: np.random.Generator) -> NDArray:
    """A dictionary with other atoms for those that no sample uses and for copies."""
    problem, dictionary = learner.beginning, learner.dictionary
    rows = rng.choice(len(x), min(_PROBE_SIZE, len(x)), replace=False)
    sample = x[rows].astype("float64") / problem.unit
    atoms = unit_rows(dictionary.astype("float64"))
    l1, positive = problem.l1 / problem.unit, problem.nonnegative
    how = {"algorithm": "lasso_cd", "alpha": l1, "max_iter": SWEEPS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        codes = sparse_encode(sample, atoms, positive=positive, **how)
    same = np.abs(atoms @ atoms.T) > _SAME_DIRECTION
    keep = codes.any(axis=0) & ~np.triu(same, 1).any(axis=0)
    if keep.all():
        return dictionary
    costs = ((sample - codes @ atoms) ** 2).sum(axis=1) / 2
    costs += l1 * np.abs(codes).sum(axis=1)
    size, order = len(dictionary), np.argsort(-costs)
    signs = problem.nonnegative_dictionary
    atoms = _fill(atoms[keep], sample, order, size, rng, signs)
    replaced = np.empty_like(atoms)
    replaced[keep], replaced[~keep] = atoms[: keep.sum()], atoms[keep.sum() :]
    return replaced
