"""The values of variables: looked at, kept, and taken back."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras import backend
from sc2keras.validation import at_least_float32, is_finite


def centered(encoder: Any, x: NDArray) -> NDArray:
    """Signals as rows `(n_samples, n_features)`, less the encoder's offset."""
    x = x.reshape(len(x), -1)
    if encoder.offset is None:
        return x
    return x.astype("float64") - offset_of(encoder)


def offset_of(encoder: Any) -> NDArray:
    """b, `(n_features,)`, in the unit of the signals; zeros without an offset."""
    dtype = at_least_float32(encoder.variable_dtype)
    if encoder.offset is None:
        return np.zeros(encoder.n_features, dtype)
    # An encoder may hold its offset in another unit.
    zeros = ops.zeros(encoder.n_features, encoder.variable_dtype)
    return 0.0 - value(ops.cast(encoder.center(zeros), dtype))


def check_finite_weights(model: keras.Model, consequence: str) -> None:
    """Raises a ValueError that names the first weight with a NaN or an infinity."""
    weight = first_not_finite(model.weights)
    if weight is not None:
        raise ValueError(
            f"Weight {weight.path!r} holds a NaN or an infinity, so {consequence}. "
            "Load the last good file, and check the data and the learning rate."
        )


def first_not_finite(variables: list[keras.Variable]) -> keras.Variable | None:
    """The first of the variables that holds a NaN or an infinity."""
    for variable in variables:
        if not is_finite(value(variable)):
            return variable
    return None


def build_optimizer(model: Any) -> None:
    """Makes the variables of a model's optimizer, if they are not there yet."""
    if not model.optimizer.built:
        strategy = getattr(model, "distribute_strategy", None)
        with strategy.scope() if strategy else contextlib.nullcontext():
            model.optimizer.build(model.trainable_variables)


@contextlib.contextmanager
def all_or_nothing(model: Any) -> Iterator[list[keras.Variable]]:
    """Takes the variables that it yields back, of model and optimizer, on an error."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    before = values(variables)
    try:
        yield variables
    except BaseException:
        assign(variables, before)
        raise


@contextlib.contextmanager
def kept(model: keras.Model) -> Iterator[None]:
    """Brings weights back that Keras lost in a block that failed, where it may."""
    if not backend.MAY_LOSE_WEIGHTS:
        yield
        return
    before = values(model.weights)
    try:
        yield
    except BaseException:
        if not all(map(is_usable, model.weights)):
            assign(model.weights, before)
        raise


def is_usable(variable: keras.Variable) -> bool:
    """Whether a variable has values, and finite ones."""
    try:
        return is_finite(value(variable))
    # Of a buffer that is given away already, or that there is none.
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return False


def assign(variables: list[keras.Variable], new: list[NDArray]) -> None:
    for variable, value in zip(variables, new, strict=True):
        variable.assign(value)


def values(variables: list[keras.Variable]) -> list[NDArray]:
    return [np.array(value(variable)) for variable in variables]


def value(variable: keras.Variable) -> NDArray:
    # First a tensor: what a strategy of TensorFlow mirrors is no array.
    return backend.to_numpy(ops.convert_to_tensor(variable))


@contextlib.contextmanager
def old_state_unless_done(instance: Any) -> Iterator[None]:
    """Gives an object the attributes back that it had, if the block fails."""
    before = dict(vars(instance))
    try:
        yield
    except BaseException:
        vars(instance).clear()
        vars(instance).update(before)
        raise
