"""What surrounds `keras.Model.fit` and its like: data as Keras takes them, and XLA."""

import contextlib
import operator
import sys
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from sc2keras import backend, signals
from sc2keras.models.task import numbers
from sc2keras.models.variables import build_optimizer
from sc2keras.validation import check_positive_integer

# XLA takes two seconds to compile a step of training, and saves a few milliseconds.
_MIN_BATCHES_FOR_XLA = 1000


class QuickSteps(keras.Model):
    """A model with less between the steps of a training on JAX.

    Keras looks for layers in the state after every step, which takes as long as a small
    step itself; and `steps_per_execution` spares it only the callbacks.
    """

    train_function: Any

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_jax_state":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def make_train_function(self, force: bool = False) -> Any:
        is_made = self.train_function is not None and not force
        function = super().make_train_function(force)
        is_compiled = self.jit_compile and not self.run_eagerly
        if is_compiled and self.steps_per_execution > 1 and not is_made:
            grouped = backend.group_steps(self.train_step, self.steps_per_execution)
            self.train_function = grouped or self.train_function
        return function


def data_of_fit(
    model: Any, x: Any, y: Any, batch_size: Any, epochs: Any, kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    """`x` and `y` for `keras.Model.fit`; the data in `kwargs` are changed there."""
    if not model.trainable_weights:
        raise ValueError(
            f"{model.encoder.name!r} has no trainable weights: it solves for the "
            "dictionary that it is given. Learn one with "
            "sc2keras.learn_dictionary(x, n_atoms) and pass dictionary=..., or "
            "train LISTA or SC2Net."
        )
    model.encoder.check_trainable()
    sizes = ("steps_per_epoch", "validation_batch_size")
    check_sizes(batch_size=batch_size, **{name: kwargs.get(name) for name in sizes})
    if not isinstance(epochs, (int, np.integer)) or epochs < 0:
        raise ValueError(f"epochs must be an integer >= 0; received {epochs!r}.")
    x, y, weight = data(model, x, y, kwargs.get("sample_weight"))
    if weight is not None:
        kwargs["sample_weight"] = weight
    held_out = kwargs.get("validation_data")
    if held_out is not None:
        kwargs["validation_data"] = _held_out_data(model, held_out)
    y = model._task.targets_beside(x, y, weight)
    _choose_xla(model, x, batch_size, epochs)
    if model.compiled:
        # A step that creates the optimizer's variables is traced a second time.
        build_optimizer(model)
    return _gathered(model, x, y, batch_size, kwargs)


def check_batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises a ValueError for sizes that are none in the arguments after the data."""
    size = args[0] if args else kwargs.get("batch_size")
    check_sizes(batch_size=size, steps=kwargs.get("steps"))


def check_sizes(**sizes: Any) -> None:
    """Raises a ValueError for a size that is neither None nor a positive integer."""
    for name, size in sizes.items():
        if size is not None:
            check_positive_integer(name, size)


def samples(model: Any, x: Any, name: str = "x") -> Any:
    """`x` as one finite array of samples, or as it is if it is a stream."""
    signals.warn_of_integers(x, name)
    shape, dtype = model.inputs[0].shape[1:], model.inputs[0].dtype
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


def _held_out_data(model: Any, held_out: Any) -> Any:
    """`validation_data` as Keras takes them."""
    if not isinstance(held_out, (tuple, list)) or not 1 <= len(held_out) <= 3:
        return samples(model, held_out, "validation_data")
    x, y, weight = (*held_out, None, None)[:3]
    x, y, weight = data(model, x, y, weight, "validation_data")
    y = model._task.targets_beside(x, y, weight)
    return (x, y) if weight is None else (x, y, weight)


def data(
    model: Any, x: Any, y: Any, sample_weight: Any, name: str = "x"
) -> tuple[Any, Any, Any]:
    """Samples as `samples` gives them, and targets and weights as arrays of numbers."""
    x = samples(model, x, name)
    y = model._task.arrays(y) if model.compiled else y
    if sample_weight is not None:
        sample_weight = numbers("sample_weight", sample_weight)
    return x, y, sample_weight


@contextlib.contextmanager
def floats_of(model: Any) -> Iterator[None]:
    """Lets Keras, which brings floats to its `floatx`, keep a model's input dtype."""
    before, dtype = keras.config.floatx(), model.inputs[0].dtype
    if "float" in dtype:
        keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def may_choose_xla(model: Any) -> bool:
    """Whether `compile` left it open that XLA compiles, and the backend has a choice.

    Keras's own "auto" never takes it on a CPU.
    """
    return (
        backend.MAY_CHOOSE_XLA
        and model._compile_arguments.get("jit_compile", "auto") == "auto"
        and all(layer.supports_jit for layer in model._flatten_layers())
    )


def _choose_xla(model: Any, x: Any, batch_size: Any, epochs: Any) -> None:
    """Takes XLA for a training that is long enough, before its first step is traced."""
    if not may_choose_xla(model) or model.train_function is not None:
        return
    n_batches: float = operator.length_hint(x, sys.maxsize)
    if hasattr(x, "shape"):
        n_batches /= batch_size or 32
    model.jit_compile = n_batches * epochs >= _MIN_BATCHES_FOR_XLA


def _gathered(
    model: Any, x: Any, y: Any, batch_size: int | None, kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    """`x` and `y` for `keras.Model.fit`: where all are arrays, batches that it gathers.

    The arguments that are settled by them are changed in `kwargs`.
    """
    given = (x, y, kwargs.get("sample_weight"))
    arrays = [array for array in given if array is not None]
    shuffle = kwargs.get("shuffle", True)
    of_keras = ("validation_split", "class_weight", "steps_per_epoch")
    may_gather = (
        all(isinstance(array, np.ndarray) for array in arrays)
        and all(len(array) == len(x) > 0 for array in arrays)
        and isinstance(shuffle, bool)
        and not any(kwargs.get(name) for name in of_keras)
    )
    if not may_gather:
        return x, y
    dtype, batch_size = model.inputs[0].dtype, batch_size or 32
    n_batches = -(-len(x) // batch_size)
    # Of steps that Keras executes together, the last would go on to the next epoch.
    repeat = n_batches % model.steps_per_execution == 0
    settings = (batch_size, shuffle, dtype, repeat)
    batches = backend.batches_of_arrays(model, arrays, *settings)
    if batches is None:
        return x, y
    if repeat:
        kwargs["steps_per_epoch"] = n_batches
    kwargs.pop("sample_weight", None)
    kwargs["shuffle"] = False  # It is; Keras would warn that it cannot.
    return batches, None
