"""What a dictionary is learned by, update by update."""

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from sc2keras.applications import build
from sc2keras.layers.dictionary import check_offset
from sc2keras.layers.step_lista import VARIANTS
from sc2keras.signals import chunks
from sc2keras.sparse_rows import SparseRows
from sc2keras.threads import keeps_random_state, on_one_thread
from sc2keras.training import USUAL_NORM

# Of coordinate descent for each code: scikit-learn's own 1,000 are spent on digits that
# the update does not notice. The dictionary is reached four times sooner with 50.
SWEEPS = 50
# Of an atom, in the learner's unit, the mean square of its entries in codes.
_UNUSED = 1e-6


class Beginning(NamedTuple):
    """Where a learner begins.

    Args:
        start: Float array `(n_atoms, n_features)`, atoms of unit norm.
        l1: Float > 0, λ in the unit of the data.
        unit: Float > 0, such as the learner's `unit_of(x)`, in which it computes.
        batch_size, n_updates: Integers, what to expect.
        seed: Integer.
        nonnegative, nonnegative_dictionary: Booleans, whether codes and atoms are >= 0.
    """

    start: NDArray
    l1: float
    unit: float
    batch_size: int
    n_updates: int
    seed: int
    nonnegative: bool = False
    nonnegative_dictionary: bool = False

    @staticmethod
    def signs_of(options: Mapping[str, Any] | None) -> dict[str, bool]:
        """Those of an encoder's options that a dictionary is learned with, too."""
        names = ("nonnegative", "nonnegative_dictionary")
        return {name: bool((options or {}).get(name)) for name in names}


class Learner(Protocol):
    """A dictionary `(n_atoms, n_features)` that every `update` makes better."""

    batch_size: int
    beginning: Beginning
    dictionary: NDArray

    def __init__(self, beginning: Beginning) -> None: ...

    @staticmethod
    def unit_of(x: Any) -> float: ...

    @staticmethod
    def n_updates(n_samples: int, batch_size: int) -> int: ...

    def update(self, x: NDArray, weight: NDArray | None = None) -> float: ...


class OnlineLearner:
    """Surrogates of the mean objective, minimised one after the other.

    With the codes S of a batch X, and weights W of its samples that sum to w, in place
    of which stand ones,

        A ← β A + Sᵀ W S / w,   B ← β B + Sᵀ W X / w
        d_j ← Π(d_j + (B_j − A_j D) / A_jj)   for one atom after the other

    where Π is the projection on the unit ball (of an atom >= 0, on its part that is),
    and β → 1, as in `sklearn.decomposition.MiniBatchDictionaryLearning.partial_fit`,
    which has no weights.

    Reference:
        Mairal, Bach, Ponce and Sapiro, Online Learning for Matrix Factorization and
        Sparse Coding, 2010, algorithm 1.
    """

    batch_size = 64

    @staticmethod
    def unit_of(x: Any) -> float:
        # Atoms whose entries are below a fixed size count as unused.
        return power_of_two(typical_norm(x))

    @staticmethod
    def n_updates(n_samples: int, batch_size: int) -> int:
        return max(300, math.ceil(3 * n_samples / batch_size))

    def __init__(self, beginning: Beginning) -> None:
        self.beginning = beginning
        self._atoms = np.array(beginning.start, dtype="float64", order="C")
        n_atoms, n_features = self._atoms.shape
        self._gram = np.zeros((n_atoms, n_atoms))
        self._products = np.zeros((n_atoms, n_features))
        self._n_done = 0
        self._random_state = check_random_state(beginning.seed)

    @on_one_thread
    @keeps_random_state
    def update(self, x: NDArray, weight: NDArray | None = None) -> float:
        """Learns from a batch, and returns its mean objective before."""
        unit = self.beginning.unit
        x = np.ascontiguousarray(x, dtype="float64") / unit
        weight = np.ones(len(x)) if weight is None else weight
        total, codes = weight.sum(), self._codes(x)
        costs = np.sum((x - codes @ self._atoms) ** 2, axis=1) / 2
        costs += self.beginning.l1 / unit * np.abs(codes).sum(axis=1)
        kept = self._kept(total)
        weighted = codes.T * (weight / total)
        self._gram = kept * self._gram + weighted @ codes
        self._products = kept * self._products + weighted @ x
        self._improve_atoms(x)
        self._n_done += 1
        return unit**2 * float(weight @ costs / total)

    def _codes(self, x: NDArray) -> NDArray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return sparse_encode(
                x,
                self._atoms,
                algorithm="lasso_cd",
                alpha=self.beginning.l1 / self.beginning.unit,
                max_iter=SWEEPS,
                positive=self.beginning.nonnegative,
                check_input=False,
            )

    def _kept(self, size: float) -> float:
        """β, the share of what earlier batches have told that is kept."""
        n_done = self._n_done
        seen = (n_done + 1) * size
        if n_done >= size - 1:
            seen = size**2 + n_done + 1 - size
        return (seen + 1 - size) / (seen + 1)

    def _improve_atoms(self, x: NDArray) -> None:
        atoms, gram = self._atoms, self._gram
        for j, products in enumerate(self._products):
            if gram[j, j] > _UNUSED:
                atoms[j] += (products - gram[j] @ atoms) / gram[j, j]
            else:
                sample = x[self._random_state.choice(len(x))]
                noise = 0.01 * (sample.std() or 1.0)
                atoms[j] = sample + self._random_state.normal(0, noise, sample.size)
            if self.beginning.nonnegative_dictionary:
                np.maximum(atoms[j], 0.0, out=atoms[j])
            atoms[j] /= max(np.linalg.norm(atoms[j]), 1.0)

    @property
    def dictionary(self) -> NDArray:
        return self._atoms

    @dictionary.setter
    def dictionary(self, atoms: NDArray) -> None:
        self._atoms[:] = atoms


class UnrolledLearner:
    """The gradient through ten steps of a solver whose own parameters are learned."""

    batch_size = 256

    @staticmethod
    def unit_of(x: Any) -> float:
        return typical_norm(x) / USUAL_NORM

    @staticmethod
    def n_updates(n_samples: int, batch_size: int) -> int:
        return 1500

    def __init__(self, beginning: Beginning) -> None:
        self.beginning = beginning
        start, l1, unit, batch_size, n_updates, _, *signs = beginning
        options: dict[str, Any] = {"n_steps": 10, **VARIANTS["scalars"]}
        options |= {"l1": l1 / unit, "dictionary": start, "dtype": "float32"}
        options |= zip(("nonnegative", "nonnegative_dictionary"), signs, strict=True)
        self._model = build("StepLFISTA", len(start), start.shape[1:], **options)
        recipe = self._model.encoder.recipe.replace(
            learning_rate=0.03, epochs=1, batch_size=batch_size
        )
        recipe.compile(self._model, n_updates * batch_size)

    def update(self, x: NDArray, weight: NDArray | None = None) -> float:
        """Learns from a batch, and returns the mean objective of all so far."""
        unit = self.beginning.unit
        # In float64, as the unit may be out of float32's range.
        x = (x.astype("float64") / unit).astype("float32")
        # Keras takes weights beside targets alone.
        of_samples = () if weight is None else (np.zeros(len(x)), weight)
        logs = self._model.train_on_batch(x, *of_samples, return_dict=True)
        return unit**2 * float(logs["loss"])

    @property
    def dictionary(self) -> NDArray:
        return self._model.dictionary

    @dictionary.setter
    def dictionary(self, atoms: NDArray) -> None:
        self._model.encoder.dictionary.assign(atoms)


def shuffled_batches(
    n_samples: int, batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray]:
    """Indices of the samples of one update after the other, without an end."""
    while True:
        order = rng.permutation(n_samples)
        for start in range(0, n_samples - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def centred(x: Any, offset: ArrayLike | None) -> Any:
    """x − b with the offset of an encoder: what its dictionary is learned from.

    An offset that does not fit is left to the encoder, which refuses it.

    Example:

    >>> centred(np.array([[3.0, 4.0]]), 1).tolist()
    [[2.0, 3.0]]
    """
    start = check_offset(0.0 if offset is None else offset)
    if not start.any() or start.size not in (1, x.shape[1]):
        return x
    if isinstance(x, SparseRows):
        return x.minus(start)
    return (x - start).astype(x.dtype)


def mean_of(x: Any, weight: NDArray | None = None) -> NDArray:
    """Σ w_i x_i / Σ w_i over samples `(n_samples, n_features)`, in float64.

    Example:

    >>> mean_of(np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([2.0, 1.0])).tolist()
    [2.0, 3.0]
    """
    weight = np.ones(len(x)) if weight is None else weight / weight.max()
    # Of the same parts where x is sparse: the sum is the same to the last bit.
    parts = (
        weight[start : start + len(rows)] @ rows.astype("float64")
        for start, rows in chunks(x)
    )
    return sum(parts, np.zeros(x.shape[1])) / weight.sum()


def typical_norm(x: Any) -> float:
    """√(mean ‖x_i‖²) over the samples that are not all zero; 1 if all are.

    Samples may have any shape.

    Example:

    >>> typical_norm(np.array([[3.0, 4.0], [0.0, 0.0]]))
    5.0
    """
    largest = max((float(np.abs(rows).max()) for _, rows in chunks(x)), default=0.0)
    if largest == 0.0:
        return 1.0
    # In units of the largest entry, whose square may be no number.
    norms = np.concatenate(
        [
            np.square(rows.astype("float64") / largest).reshape(len(rows), -1).sum(1)
            for _, rows in chunks(x)
        ]
    )
    return largest * math.sqrt(norms.sum() / np.count_nonzero(norms))


def power_of_two(x: float) -> float:
    """The power of two nearest to x: in its units, nothing is rounded."""
    return 2.0 ** round(math.log2(x))
