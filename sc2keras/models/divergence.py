"""A training that diverges is stopped, and what it ruined is taken back."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import keras
from numpy.typing import NDArray

from sc2keras.models.variables import assign, is_usable, values
from sc2keras.validation import is_finite

# The share of a training's time that copies of its last good state may take.
_SHARE_OF_COPIES = 0.005


class DivergenceError(ValueError):
    """A training was stopped because its loss or its weights were not finite."""


@contextlib.contextmanager
def guarded(model: keras.Model, callbacks: Any) -> Iterator[Any]:
    """Watches a training, and takes it back if it diverges or leaves nothing usable.

    Yields:
        The callbacks for `keras.Model.fit`.
    """
    guard = LastGoodState()
    guard.set_model(model)
    is_list = isinstance(callbacks, keras.callbacks.CallbackList)
    if is_list:
        callbacks.callbacks.insert(0, guard)
    try:
        yield callbacks if is_list else [guard, *keras.tree.flatten(callbacks or [])]
        guard.check()
    except BaseException as error:
        guard.restore(diverged=isinstance(error, DivergenceError))
        raise
    finally:
        if is_list:
            callbacks.callbacks.remove(guard)


def check_batch(logs: Any) -> Any:
    """What `train_on_batch` gives, or a DivergenceError if its loss is not finite."""
    loss = logs["loss"] if isinstance(logs, dict) else keras.tree.flatten(logs)[0]
    if not math.isfinite(loss):
        raise DivergenceError(
            f"The loss became {float(loss)}, and the weights may be ruined: load the "
            "last good file. Look for a NaN in the targets, or lower the learning rate;"
            " fit() would have taken the weights back."
        )
    return logs


class LastGoodState(keras.callbacks.Callback):
    """Stops a training whose loss or weights are not finite, and takes it back.

    The last good state is copied when the training begins, and at the ends of epochs.
    """

    # A mean loss that is not finite stays so: a look now and then is enough, and does
    # not make an accelerator wait after every batch.
    _PERIOD = 50
    # Keras then need not wait for a batch's logs before it begins the next.
    async_safe = True

    def __init__(self) -> None:
        super().__init__()
        self._values: list[Any] = []

    @property
    def _variables(self) -> list[keras.Variable]:
        return [*self.model.weights, *self.model.optimizer.variables]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._next_look = 0
        self.model._objective.activity.forget()
        if not self._values:  # Other callbacks may have loaded weights by now.
            self._keep("before this fit")

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # With steps_per_execution the numbers of the batches have gaps.
        if batch >= self._next_look:
            self._next_look = batch + self._PERIOD
            self._check_loss(logs)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.model._objective.activity.keep()  # Validation begins it anew.
        _project_averages(self.model)  # Another callback may swap them in.

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check_loss(logs)
        self.model._objective.activity.keep()
        _project_averages(self.model)
        is_last = epoch + 1 == self.params.get("epochs")  # `guarded` looks as well.
        due = self._kept_at + self._cost / _SHARE_OF_COPIES
        if not is_last and time.monotonic() > due:
            self._keep(f"at the end of epoch {epoch + 1}")

    def restore(self, diverged: bool) -> None:
        """Takes the last good state back, after a divergence or if another is no use.

        On JAX nothing is left of the weights where a step was interrupted.
        """
        if self._values and (diverged or not all(map(is_usable, self._variables))):
            assign(self._variables, self._values)

    def _keep(self, where: str) -> None:
        start = time.monotonic()
        current = self.check()
        self._values, self._where, self._kept_at = current, where, time.monotonic()
        self._cost = self._kept_at - start

    def check(self) -> list[NDArray]:
        """The values of weights and optimizer, once all of them are finite."""
        current = values(self._variables)
        for variable, value in zip(self._variables, current, strict=True):
            if is_finite(value):
                continue
            what = f"{variable.path!r} holds a NaN or an infinity"
            if self._values:
                raise self._error(what)
            raise ValueError(
                f"{what}, so nothing was trained. Load the last good file; if it is a "
                "variable of the optimizer, call compile() again."
            )
        return current

    def _check_loss(self, logs: dict[str, Any] | None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise self._error(f"The loss became {float(loss)}")

    def _error(self, what: str) -> DivergenceError:
        return DivergenceError(
            f"{what}, and training was stopped. The weights and the optimizer are again"
            f" what they were {self._where}. Look for a NaN in the data or the targets,"
            " or lower the learning rate."
        )


def _project_averages(model: keras.Model) -> None:
    """Brings the weights that an optimizer averages to where the constraints hold.

    Keras averages what an update gives before the constraints are applied, so that the
    averages leave the unit ball.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not optimizer.use_ema:
        return
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        if variable.constraint is not None:
            average.assign(variable.constraint(average.value))
