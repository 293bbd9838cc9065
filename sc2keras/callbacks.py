"""Callbacks of a training."""

import functools
import json
import os
import warnings
from pathlib import Path
from typing import Any

import keras

from sc2keras.files import check_target
from sc2keras.models import SparseCoder, saving
from sc2keras.models.description import describe
from sc2keras.models.divergence import DivergenceError
from sc2keras.models.variables import build_optimizer, first_not_finite
from sc2keras.revival import ReviveAtoms as ReviveAtoms
from sc2keras.validation import check_positive_integer


class Checkpoint(keras.callbacks.Callback):
    """Saves the whole training at the ends of epochs, and goes on with it.

    The file is a `.keras` file of the model with its optimizer, whole after a kill at
    any moment. When `fit` begins and the file is there, weights, optimizer and epoch
    are taken from it: the same command, run again after a kill, ends after as many
    updates as if it had not been disturbed. If the training in the file has ended, no
    epoch is trained; with a larger `epochs` it goes on.

    Not restored are what other callbacks keep to themselves (the patience of
    `EarlyStopping`), and the order in which `fit` shuffles. A training that another
    callback ends with an epoch has ended; one that it ends within an epoch goes on
    after the last whole one.

    Put it last in the list of callbacks, so that the file has what the others changed,
    but before `keras.callbacks.SwapEMAWeights`.

    Args:
        filepath: String or `os.PathLike`, the path of the file, which ends in `.keras`.
            The folder exists.
        every: Integer, the number of epochs from one save to the next. The end of the
            training is always saved.

    Raises:
        ValueError: If `filepath` ends in something else; when `fit` begins, if the file
            is of another model or was not written by this callback.
        OSError: If the file cannot be written. The one that is there stays as it is.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from sc2keras.applications import LISTA
    >>> path = Path(tempfile.mkdtemp(), "lista.keras")
    >>> x = np.random.default_rng(0).random((64, 8), dtype="float32")
    >>> def train(epochs):
    ...     model = LISTA(4, input_shape=(8,))
    ...     model.compile()
    ...     history = model.fit(
    ...         x, epochs=epochs, callbacks=[Checkpoint(path)], verbose=0
    ...     )
    ...     return history.epoch, int(model.optimizer.iterations.value)
    >>> train(epochs=2)
    ([0, 1], 4)
    >>> train(epochs=5)
    ([2, 3, 4], 10)
    >>> keras.saving.load_model(path).encode(x).shape
    (64, 4)
    """

    # Only numbers of batches are kept while an epoch runs.
    async_safe = True

    def __init__(self, filepath: str | os.PathLike[str], every: int = 1) -> None:
        super().__init__()
        self.filepath = Path(filepath)
        saving.check_suffix(
            self.filepath, ".keras", "The file holds the model and its optimizer."
        )
        self.every = check_positive_integer("every", every)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Not after the first epoch, which may take hours.
        check_target(self.filepath)
        if not self.model.built:
            raise ValueError(
                f"Checkpoint needs a model that is built; received {self.model!r}. "
                "Call it on a batch first."
            )
        build_optimizer(self.model)
        self._finished, self._has_ended, self._is_cut = 0, False, False
        if self.filepath.exists():
            self._resume()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Keras has read it, and would again in a later fit.
        self.model._initial_epoch = None
        self._batches = 0

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._batches = max(self._batches, batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        steps = self.params.get("steps")
        if self.model.stop_training and steps is not None and self._batches < steps:
            self._is_cut = True
            return
        self._finished, self._has_ended = epoch + 1, False
        if self._finished % self.every == 0:
            self._save()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model._initial_epoch = None
        if not self._is_cut and not self._has_ended:
            self._save(ended_of=self.params["epochs"])

    def _save(self, ended_of: int | None = None) -> None:
        model = self.model
        damaged = first_not_finite([*model.weights, *model.optimizer.variables])
        if damaged is not None:
            raise DivergenceError(
                f"{damaged.path!r} holds a NaN or an infinity after epoch "
                f"{self._finished}, so it was not saved: {self.filepath} is of an "
                "earlier epoch. Look for a NaN in the data or the targets, or lower "
                "the learning rate."
            )
        training = {
            "finished_epochs": self._finished,
            "ended_of_epochs": ended_of,
            "model": _identity(model),
        }
        saving.save_training(model, self.filepath, training)

    def _resume(self) -> None:
        training = saving.read_training(self.filepath)
        if training is None:
            raise ValueError(
                f"{self.filepath} is a model without the state of its training. Load "
                "it with keras.saving.load_model, or name another file."
            )
        found, own = training["model"], _identity(self.model)
        differences = [
            f"its {name} is {found.get(name)!r}, and that of the model in fit "
            f"{own.get(name)!r}"
            for name in {**found, **own}
            if found.get(name) != own.get(name)
        ]
        if differences:
            # The first explain the others.
            raise ValueError(
                f"{self.filepath} is the checkpoint of another model: "
                f"{'; '.join(differences[:3])}. Name another file, or delete it."
            )
        load = functools.partial(keras.saving.load_weights, self.model)
        saving.load_weights(self.model, load, self.filepath)
        self._finished, epochs = training["finished_epochs"], self.params["epochs"]
        ended_of = training["ended_of_epochs"]
        self._has_ended = ended_of is not None and epochs <= ended_of
        if self._has_ended and self._finished < epochs:
            warnings.warn(
                f"The training in {self.filepath} was ended by another callback after "
                f"epoch {self._finished}, so no epoch is trained. To go on, ask fit "
                f"for more than {ended_of} epochs.",
                stacklevel=2,
            )
        # What keras.callbacks.BackupAndRestore sets as well.
        self.model._initial_epoch = epochs if self._has_ended else self._finished


def _identity(model: keras.Model) -> dict[str, Any]:
    """What two models have in common that one file can be loaded into, in JSON."""
    own: dict[str, Any] = {"class": type(model).__name__}
    if isinstance(model, SparseCoder):
        own |= describe(model)
        # Where weights start, and what they are computed in, does not matter to them.
        own |= {
            name: value
            for name, value in own.pop("config").items()
            if name != "dtype" and not name.endswith("initializer")
        }
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    wrapper = None if inner is optimizer else type(optimizer).__name__
    own |= {
        "shapes of weights": [tuple(weight.shape) for weight in model.weights],
        "optimizer": type(inner).__name__,
        "wrapper of the optimizer": wrapper,
        "number of variables of the optimizer": len(optimizer.variables),
    }
    return json.loads(json.dumps(own))
