"""What a dictionary is learned by, update by update."""

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning

from sc2keras.applications import build
from sc2keras.layers.dictionary import check_offset
from sc2keras.layers.step_lista import VARIANTS
from sc2keras.threads import keeps_random_state, on_one_thread
from sc2keras.training import USUAL_NORM

# Of coordinate descent for each code: scikit-learn's own 1,000 are spent on digits that
# the update does not notice. The dictionary is reached four times sooner with 50.
SWEEPS = 50


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
    dictionary: NDArray

    def __init__(self, beginning: Beginning) -> None: ...

    @staticmethod
    def unit_of(x: NDArray) -> float: ...

    @staticmethod
    def n_updates(n_samples: int, batch_size: int) -> int: ...

    def update(self, x: NDArray) -> None: ...


class OnlineLearner:
    """Surrogates of the mean objective, minimised one after the other."""

    batch_size = 64

    @staticmethod
    def unit_of(x: NDArray) -> float:
        # scikit-learn takes codes below a fixed size for unused.
        return power_of_two(typical_norm(x))

    @staticmethod
    def n_updates(n_samples: int, batch_size: int) -> int:
        return max(300, math.ceil(3 * n_samples / batch_size))

    def __init__(self, beginning: Beginning) -> None:
        self._unit = beginning.unit
        self._learner = MiniBatchDictionaryLearning(
            len(beginning.start),
            alpha=beginning.l1 / beginning.unit,
            batch_size=beginning.batch_size,
            dict_init=beginning.start.astype("float64"),
            fit_algorithm="cd",
            transform_max_iter=SWEEPS,
            random_state=beginning.seed,
            positive_code=beginning.nonnegative,
            positive_dict=beginning.nonnegative_dictionary,
        )

    @on_one_thread
    @keeps_random_state
    def update(self, x: NDArray) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._learner.partial_fit(x.astype("float64") / self._unit)

    @property
    def dictionary(self) -> NDArray:
        return self._learner.components_

    @dictionary.setter
    def dictionary(self, atoms: NDArray) -> None:
        self._learner.components_[:] = atoms


class UnrolledLearner:
    """The gradient through ten steps of a solver whose own parameters are learned."""

    batch_size = 256

    @staticmethod
    def unit_of(x: NDArray) -> float:
        return typical_norm(x) / USUAL_NORM

    @staticmethod
    def n_updates(n_samples: int, batch_size: int) -> int:
        return 1500

    def __init__(self, beginning: Beginning) -> None:
        start, l1, unit, batch_size, n_updates, _, *signs = beginning
        self._unit = unit
        options: dict[str, Any] = {"n_steps": 10, **VARIANTS["scalars"]}
        options |= {"l1": l1 / unit, "dictionary": start, "dtype": "float32"}
        options |= zip(("nonnegative", "nonnegative_dictionary"), signs, strict=True)
        self._model = build("StepLFISTA", len(start), start.shape[1:], **options)
        recipe = self._model.encoder.recipe.replace(
            learning_rate=0.03, epochs=1, batch_size=batch_size
        )
        recipe.compile(self._model, n_updates * batch_size)

    def update(self, x: NDArray) -> None:
        # In float64, as the unit may be out of float32's range.
        self._model.train_on_batch((x.astype("float64") / self._unit).astype("float32"))

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


def centred(x: NDArray, options: Mapping[str, Any] | None) -> NDArray:
    """x − b with an encoder's options, which is what its dictionary is learned from.

    An offset that does not fit is left to the encoder, which refuses it.

    Example:

    >>> centred(np.array([[3.0, 4.0]]), {"offset": 1}).tolist()
    [[2.0, 3.0]]
    """
    offset = (options or {}).get("offset")
    start = check_offset(0.0 if offset is None else offset)
    if not start.any() or start.size not in (1, x.shape[1]):
        return x
    return (x - start).astype(x.dtype)


def typical_norm(x: NDArray) -> float:
    """√(mean ‖x_i‖²) over the samples that are not all zero; 1 if all are.

    Samples may have any shape.

    Example:

    >>> typical_norm(np.array([[3.0, 4.0], [0.0, 0.0]]))
    5.0
    """
    largest = float(np.abs(x).max(initial=0.0))
    if largest == 0.0:
        return 1.0
    # In units of the largest entry, whose square may be no number.
    chunks = np.array_split(x, math.ceil(len(x) / 4096))
    norms = np.concatenate(
        [
            np.square(rows.astype("float64") / largest).reshape(len(rows), -1).sum(1)
            for rows in chunks
        ]
    )
    return largest * math.sqrt(norms.sum() / np.count_nonzero(norms))


def power_of_two(x: float) -> float:
    """The power of two nearest to x: in its units, nothing is rounded."""
    return 2.0 ** round(math.log2(x))
