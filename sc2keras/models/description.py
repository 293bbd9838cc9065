"""What makes the weights of a model mean something: its encoder and its outputs."""

from typing import Any

import keras
import numpy as np

from sc2keras.registry import entries
from sc2keras.validation import JSON_TYPES

# Of the layer as it stands in one model.
_NOT_OF_THE_WEIGHTS = ("name", "trainable", "initial_dictionary")


def describe(model: Any) -> dict[str, Any]:
    """The encoder, the input and the classifier of a `SparseCoder`, as plain JSON.

    `head` is the `units` and the `activation` of the layer on the codes, or None.

    Example:

    >>> from sc2keras.applications import LISTA
    >>> found = describe(LISTA(4, input_shape=(8,)))
    >>> found["encoder"], found["config"]["n_steps"], found["input_shape"]
    ('sc2keras>LISTABlock', 5, [8])
    """
    head = None
    if len(model.outputs) > 1:
        layer = model.outputs[1]._keras_history.operation
        head = layer.get_config()
        head = {name: head.get(name) for name in ("units", "activation")}
    return {
        "encoder": keras.saving.get_registered_name(type(model.encoder)),
        "config": encoder_config(model.encoder),
        "input_shape": list(model.input_shape[1:]),
        "head": head,
    }


def encoder_config(encoder: keras.layers.Layer) -> dict[str, Any]:
    """The arguments of an encoder as plain JSON, without its dictionary."""
    config = keras.saving.serialize_keras_object(encoder)["config"]
    return {
        name: value
        for name, value in config.items()
        if name not in _NOT_OF_THE_WEIGHTS and isinstance(value, JSON_TYPES)
    }


def differences(held: Any, asked: Any) -> dict[str, tuple[Any, Any]]:
    """`{name: (asked, held)}` of the arguments in which two encoders differ.

    They are as the layers understand them, so that a default is the same as its value.
    Of encoders of two builders `builder` is all that is named.

    Example:

    >>> from sc2keras.layers import ISTA
    >>> differences(ISTA(4, n_steps=300, l1=0.1), ISTA(4, l1=0.5, tol=1e-3))
    {'l1': (0.5, 0.1), 'tol': (0.001, None)}
    """
    if type(asked) is not type(held):
        builders = {entry.layer: entry.name for entry in entries()}
        return {"builder": (builders.get(type(asked)), builders.get(type(held)))}
    new, old = encoder_config(asked), encoder_config(held)
    found = {key: (new[key], old.get(key)) for key in new if new[key] != old.get(key)}
    if None not in found.get("offset", (None,)):
        # A training moves it, and a layer holds one number as one of each feature.
        is_trained = new["trainable_offset"] and old["trainable_offset"]
        numbers = (np.asarray(each, "float32") for each in found["offset"])
        if is_trained or np.all(np.equal(*np.broadcast_arrays(*numbers))):
            del found["offset"]
    return found
