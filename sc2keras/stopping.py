"""What follows a learning, of a dictionary or of a network, and when it ends."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

# Of the first updates, and of the first pass, the objectives are too high to compare.
_MAX_FIRST = 100


class StoppingRule:
    """When updates no longer improve a dictionary.

    The rule of `sklearn.decomposition.MiniBatchDictionaryLearning`, from the first pass
    over the data, or the first 100 updates, on: the dictionary has moved by little,

        ‖D − D_before‖_F / n_atoms ≤ tol

    or the moving average of the objective, e ← (1 − α) e + α·objective with
    α = batch_size / (n_samples + 1), has not been below its least value so far for
    `max_no_improvement` updates. An epoch counts as an update of one batch of all
    samples.

    Args:
        tol: Float >= 0; 0: the dictionary's moves never end it.
        max_no_improvement: Integer >= 0, or None: the objective never ends it.
        n_samples, batch_size: Integers, those of the data and of an update.

    Example: the objective stays as it is after the first update.

    >>> rule = StoppingRule(0.0, 2, n_samples=10, batch_size=10)
    >>> [rule(1.0, np.eye(2)) for _ in range(4)]
    [False, False, False, True]
    """

    def __init__(
        self,
        tol: float,
        max_no_improvement: int | None,
        n_samples: int,
        batch_size: int,
    ) -> None:
        self._tol, self._patience = tol, max_no_improvement
        self._n_first = min(_MAX_FIRST, n_samples / batch_size)
        self._share = min(1.0, batch_size / (n_samples + 1))
        self._n_seen = self._n_worse = 0
        self._average = self._least = np.inf
        self._atoms: NDArray = np.zeros(0)

    def __call__(self, objective: float, atoms: NDArray) -> bool:
        """Whether to stop, after an update: of what it made, and its objective."""
        before, self._atoms = self._atoms, np.array(atoms)
        self._n_seen += 1
        if self._n_seen <= self._n_first:
            return False
        if np.isinf(self._average):
            self._average = objective
        self._average += self._share * (objective - self._average)
        moved = float(np.linalg.norm(atoms - before)) / len(atoms)
        if 0.0 < self._tol >= moved:
            return True
        self._n_worse = 0 if self._average < self._least else self._n_worse + 1
        self._least = min(self._least, self._average)
        return self._patience is not None and self._n_worse >= self._patience


class Monitor:
    """Counts the updates of a learning, keeps its objectives, and tells of them.

    Args:
        callback: Function of one dictionary, called after every update or epoch with
            `"n_iter"`, the updates so far; `"error"`, the mean objective of the samples
            of the update or epoch; and `"components"`, a copy of the dictionary.
        tol, max_no_improvement: Of `StoppingRule`, once `begin` is called.
        n_iter: Integer, the updates of before.
    """

    def __init__(
        self,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        tol: float = 0.0,
        max_no_improvement: int | None = None,
        n_iter: int = 0,
    ) -> None:
        self._callback, self.n_iter = callback, n_iter
        self._tol, self._patience = tol, max_no_improvement
        self._rule: StoppingRule | None = None
        self.errors: list[float] = []

    def begin(self, n_samples: int, batch_size: int, is_fixed: bool = False) -> None:
        """What follows may end early; of a fixed dictionary, by its objective alone."""
        tol = 0.0 if is_fixed else self._tol
        if tol > 0.0 or self._patience is not None:
            self._rule = StoppingRule(tol, self._patience, n_samples, batch_size)

    def __call__(self, objective: float, atoms: NDArray, n_updates: int = 1) -> bool:
        """Takes note of an update or epoch; whether it is to be the last."""
        self.n_iter += n_updates
        self.errors.append(objective)
        if self._callback is not None:
            components = np.array(atoms, dtype="float32")
            told = {"n_iter": self.n_iter, "error": objective, "components": components}
            self._callback(told)
        return self._rule is not None and self._rule(objective, atoms)


class MonitoredEpochs(keras.callbacks.Callback):
    """Tells a `Monitor` of the epochs of a `SparseCoder`, which it may end.

    Args:
        monitor: `Monitor`.
        n_updates: Integer, those of an epoch.
        scale: Float, the objective where the loss is 1.
    """

    def __init__(self, monitor: Monitor, n_updates: int, scale: float) -> None:
        super().__init__()
        self._monitor, self._n_updates, self._scale = monitor, n_updates, scale

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        objective = self._scale * float((logs or {})["loss"])
        atoms = self.model.dictionary
        if self._monitor(objective, atoms, self._n_updates):
            self.model.stop_training = True
