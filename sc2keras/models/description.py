"""What makes the weights of a model mean something: its encoder and its outputs."""

from typing import Any

import keras

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
