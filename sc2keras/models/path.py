"""The way from the input of a model to the encoder, and what may stand on it."""

import math
from typing import Any

import keras

from sc2keras.layers.encoder import Encoder


def check_path(model: Any) -> None:
    """Raises a ValueError if a functional model is not as `SparseCoder` must be."""
    if len(model.inputs) != 1 or len(model.outputs) not in (1, 2):
        raise ValueError(
            "SparseCoder takes one input, and as outputs the codes or "
            f"[codes, predictions]; received {len(model.inputs)} inputs and "
            f"{len(model.outputs)} outputs."
        )
    encoder, codes = model.encoder, model.outputs[0]
    if not isinstance(encoder, Encoder):
        raise ValueError(
            "The codes of a SparseCoder must be the output of an encoder of "
            f"sc2keras.layers; received the output of {encoder!r}."
        )
    if len(codes.shape) != 2 or encoder.return_sequences:
        raise ValueError(
            "The codes of a SparseCoder must have shape (batch, n_atoms); received "
            f"{codes.shape}. Use return_sequences=False and flatten the input."
        )
    _check_order(model)
    shape = model.inputs[0].shape[1:]
    if encoder.n_features != math.prod(shape):
        raise ValueError(
            "The encoder of a SparseCoder must take a whole sample; received "
            f"{encoder.n_features} features of inputs of shape {shape}. Flatten them, "
            "or train the encoder of a sequence in a keras.Model."
        )


def _check_order(model: Any) -> None:
    tensor = model.outputs[0]
    while tensor is not model.inputs[0]:
        operation, node_index = tensor._keras_history[:2]
        source = operation._inbound_nodes[node_index].input_tensors[0]
        if tensor is not model.outputs[0] and not _keeps_order(operation, source):
            raise ValueError(
                "Between the input of a SparseCoder and its encoder only Flatten "
                "and Reshape of keras.layers may stand, with data_format="
                f"'channels_last'; received {operation!r}. The objective compares "
                "the input with its reconstruction: transform the data before the "
                "model."
            )
        tensor = source


def _keeps_order(operation: Any, source: keras.KerasTensor) -> bool:
    """Whether a layer changes the shape of samples and nothing else."""
    if type(operation) is keras.layers.Flatten:
        # In the other order it transposes.
        return operation.data_format == "channels_last" or len(source.shape) < 3
    return type(operation) is keras.layers.Reshape
