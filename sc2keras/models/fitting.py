"""What surrounds `keras.Model.fit`: data, targets, and weights that stay finite."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras import signals
from sc2keras.validation import Shape, check_positive_integer, is_finite

# The share of a training's time that copies of its last good state may take.
_SHARE_OF_COPIES = 0.01


def training_data(name: str, x: Any, shape: Shape, dtype: str) -> Any:
    """`x` as one finite array `(n_samples, *shape)`, or as it is if it is a stream.

    Raises:
        ValueError: If `x` is no data, holds none, or is not finite.
    """
    x = signals.open_samples(name, x, shape)
    if isinstance(x, (list, tuple)):
        x = np.concatenate(list(signals.batches(name, x, shape, len(x))))
    if isinstance(x, Iterator):
        return (part if isinstance(part, tuple) else (part,) for part in x)
    if not hasattr(x, "shape"):
        return x
    x = signals.as_samples(name, x[:] if not hasattr(x, "toarray") else x, shape)
    if not len(x):
        raise ValueError(
            f"{name} holds no samples; received {name} of shape {x.shape}."
        )
    signals.check_finite(name, x, dtype)
    return x


@contextlib.contextmanager
def floats_of(dtype: str) -> Iterator[None]:
    """Lets Keras keep arrays in the dtype of a model's input.

    It brings all arrays of floats to `keras.config.floatx()`, which may be narrower.
    """
    before = keras.config.floatx()
    if "float" in dtype:
        keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def check_sizes(**sizes: Any) -> None:
    """Raises a ValueError for a size that is neither None nor a positive integer."""
    for name, size in sizes.items():
        if size is not None:
            check_positive_integer(name, size)


class TaskOutput:
    """The structure of what a task is about, in a model of one or two outputs.

    Losses, metrics, targets and weights may be given as Keras takes them for a model of
    several outputs: a list with an entry an output, or a dictionary by their names. The
    first output is the codes, the last what the task is about.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def split(self, what: str, value: Any) -> tuple[Any, Any]:
        """`(of the codes, of the task)` of a loss, a target, or a weight."""
        n_outputs = len(self.names)
        if isinstance(value, dict):
            unknown = sorted(set(value) - set(self.names))
            if unknown:
                raise ValueError(
                    f"{what} must be named after the outputs {self.names}; received "
                    f"{what} for {unknown}."
                )
            parts = [value.get(name) for name in self.names]
        elif (what == "loss_weights" or is_per_output(value)) and (
            isinstance(value, (list, tuple)) and len(value) in (1, n_outputs)
        ):
            parts = [None] * (n_outputs - len(value)) + list(value)
        else:
            parts = [None] * (n_outputs - 1) + [value]
        return (parts[0] if n_outputs > 1 else None), parts[-1]

    def split_metrics(self, metrics: Any) -> tuple[Any, Any]:
        """`(of the codes, of the task)`; a plain list is all of the task."""
        is_nested = isinstance(metrics, dict) or (
            isinstance(metrics, (list, tuple))
            and len(metrics) == len(self.names) > 1
            and all(part is None or isinstance(part, (list, tuple)) for part in metrics)
        )
        return self.split("metrics", metrics) if is_nested else (None, metrics)

    def join(self, of_codes: Any, of_task: Any) -> Any:
        """The task's part alone, or both in a list, where the codes have one too."""
        return of_task if of_codes is None else [of_codes, of_task]


class LastGoodState(keras.callbacks.Callback):
    """Stops a training whose loss or weights are not finite, and takes it back.

    The last good state is a copy of weights and optimizer, made when the training
    begins, and at the ends of epochs as often as costs no more than a hundredth of the
    time.
    """

    # A mean loss that is not finite stays so: a look now and then is enough, and does
    # not make an accelerator wait after every batch.
    _PERIOD = 50

    def __init__(self) -> None:
        super().__init__()
        self._values: list[Any] = []

    @property
    def _variables(self) -> list[keras.Variable]:
        return [*self.model.weights, *self.model.optimizer.variables]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._next_look = 0
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
        _project_averages(self.model)  # Another callback may swap them in.

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check_loss(logs)
        _project_averages(self.model)
        if time.monotonic() > self._kept_at + self._cost / _SHARE_OF_COPIES:
            self._keep(f"at the end of epoch {epoch + 1}")

    def check_end(self) -> None:
        """Raises a `DivergenceError` if the last update made a weight not finite."""
        self._check(_values(self._variables))

    def restore(self, diverged: bool) -> None:
        """Takes the last good state back, after a divergence or if another is no use.

        On JAX nothing is left of the weights where a step was interrupted.
        """
        if self._values and (diverged or not all(map(_is_usable, self._variables))):
            _assign(self._variables, self._values)

    def _keep(self, where: str) -> None:
        start = time.monotonic()
        values = _values(self._variables)
        self._check(values)
        self._values, self._where, self._kept_at = values, where, time.monotonic()
        self._cost = self._kept_at - start

    def _check(self, values: list[NDArray]) -> None:
        for variable, value in zip(self._variables, values, strict=True):
            if is_finite(value):
                continue
            what = f"{variable.path!r} holds a NaN or an infinity"
            if self._values:
                raise self._error(what)
            raise ValueError(
                f"{what}, so nothing was trained. Load the last good file; if it is a "
                "variable of the optimizer, call compile() again."
            )

    def _check_loss(self, logs: dict[str, Any] | None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise self._error(f"The loss became {float(loss)}")

    def _error(self, what: str) -> "DivergenceError":
        return DivergenceError(
            f"{what}, and training was stopped. The weights and the optimizer are again"
            f" what they were {self._where}. Look for a NaN in the data or the targets,"
            " or lower the learning rate."
        )


@contextlib.contextmanager
def watched_by(guard: LastGoodState, callbacks: Any) -> Iterator[Any]:
    """The callbacks of a training, with the guard in front of them."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        yield [guard, *keras.tree.flatten(callbacks or [])]
        return
    callbacks.callbacks.insert(0, guard)
    try:
        yield callbacks
    finally:
        callbacks.callbacks.remove(guard)


@contextlib.contextmanager
def all_or_nothing(model: keras.Model) -> Iterator[None]:
    """Takes weights and optimizer back to what they were, if the block fails."""
    variables = [*model.weights, *model.optimizer.variables]
    values = _values(variables)
    try:
        yield
    except BaseException:
        _assign(variables, values)
        raise


def is_per_output(value: Any) -> bool:
    """Whether a list has a part for each output, and no numbers or rows of numbers."""
    return isinstance(value, (list, tuple)) and not all(
        (np.isscalar(part) and not isinstance(part, str))
        or isinstance(part, (list, tuple))
        for part in value
    )


class DivergenceError(ValueError):
    """A training was stopped because its loss or its weights were not finite."""


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


@contextlib.contextmanager
def kept(model: keras.Model) -> Iterator[None]:
    """Brings weights back that Keras on JAX lost in a block that failed."""
    if keras.backend.backend() != "jax":
        yield
        return
    values = _values(model.weights)
    try:
        yield
    except BaseException:
        if not all(map(_is_usable, model.weights)):
            _assign(model.weights, values)
        raise


def _is_usable(variable: keras.Variable) -> bool:
    try:
        return is_finite(ops.convert_to_numpy(variable.value))
    # Of a buffer that is given away already, or that there is none.
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return False


def _assign(variables: list[keras.Variable], values: list[NDArray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _values(variables: list[keras.Variable]) -> list[NDArray]:
    return [np.array(ops.convert_to_numpy(v.value)) for v in variables]
