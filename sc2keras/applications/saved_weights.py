"""Weights that a builder starts from, with what they were made with."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from sc2keras.applications.pretrained import weights_path
from sc2keras.models import SparseCoder, saving
from sc2keras.models.description import describe, encoder_config

# Arguments that weights leave open.
_FREE = ("name", "dtype", "trainable")


@dataclasses.dataclass
class SavedWeights:
    """Weights by a name or in a file, and what they were made with."""

    weights: str
    is_file: bool
    # As `describe` gives them; None where nobody knows.
    config: dict[str, Any] | None = None
    input_shape: tuple[int, ...] | None = None
    head: dict[str, Any] | None = None
    model: SparseCoder | None = None

    @contextlib.contextmanager
    def named_misfit(self, name: str, layer: Any, input_shape: Any) -> Iterator[None]:
        """Says of a file whose weights do not fit what they do not fit to."""
        try:
            yield
        except ValueError as error:
            if not self.is_file:
                raise
            raise ValueError(
                f"The weights in {self.weights!r} do not fit this {name} with n_atoms="
                f"{layer.n_atoms} and input_shape={input_shape}. Build it with the "
                f"arguments of the saved model. ({error})"
            ) from error

    def check(self, key: str, value: Any, given: Any) -> None:
        if given is not None and given != value:
            raise ValueError(
                f"weights={self.weights!r} were made with {key}={value!r}; received "
                f"{key}={given!r}. Leave {key} out, or train a model of your own, "
                "with weights=None."
            )

    def check_shape(self, input_shape: Any) -> tuple[int, ...] | None:
        """The shape of the input, if it is that of the weights, or flat."""
        if input_shape is None or self.config is None:
            return input_shape or self.input_shape
        input_shape = check_input_shape(input_shape)
        # The same numbers in another order would be other signals.
        if input_shape != (math.prod(self.input_shape or ()),):
            self.check("input_shape", self.input_shape, input_shape)
        return input_shape

    def check_arguments(
        self, layer: Any, given: dict[str, Any], dictionary: Any
    ) -> None:
        if self.config is None:
            return
        self.check("dictionary", None, None if dictionary is None else "an array")
        config = encoder_config(layer)
        # With what an earlier version did not write.
        saved = encoder_config(type(layer).from_config(self.config))
        for key in given.keys() & saved.keys() - set(_FREE):
            # As the layer understands them: "zeros" is an initializer.
            if config[key] != saved[key]:
                self.check(key, saved[key], config[key])

    def check_classifier(
        self, classes: int | None, activation: Any
    ) -> tuple[int | None, Any]:
        """`(classes, classifier_activation)`, of the weights if these have any."""
        if self.head is None:
            return classes, activation
        own = keras.activations.get(self.head["activation"])
        self.check("classes", self.head["units"], classes)
        if activation != "auto" and keras.activations.get(activation) != own:
            name = "classifier_activation"
            self.check(name, self.head["activation"], str(activation))
        return self.head["units"], own

    def put_into(self, model: SparseCoder) -> None:
        if self.model is not None:
            model.encoder.set_weights(self.model.encoder.get_weights())
            if self.head is not None:
                head = self.model.outputs[1]._keras_history.operation
                model.get_layer("predictions").set_weights(head.get_weights())
            return
        if self.config is not None and self.head is None:
            model = SparseCoder(model.inputs, model.outputs[0], name=model.name)
        with (
            self.named_misfit(model.name, model.encoder, model.input_shape[1:]),
            _damage_named(self.weights, may_misfit=True),
        ):
            model.load_weights(self.weights)


def open_weights(
    builder: str, layer_class: type, weights: str | os.PathLike[str]
) -> SavedWeights:
    """The weights of a builder by their name or their path."""
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(
            "weights must be None, the path of a .keras or .weights.h5 file, an address"
            " hf://owner/model, or a name of list_weights(); received "
            f"weights={weights!r}."
        )
    path, model = os.fspath(weights), None
    is_preset = saving.is_preset(path)
    is_file = not is_preset and path.endswith((".keras", ".weights.h5"))
    if is_file and not os.path.isfile(path):
        raise ValueError(
            "weights must be None, the path of an existing .keras or .weights.h5 "
            f"file, or a name; received weights={path!r}, which is no file."
        )
    if is_file and path.endswith(".weights.h5"):
        with _damage_named(path):
            found = saving.read_weights_config(path)
        if found is None:
            return SavedWeights(path, is_file)
    else:
        model = _load_model(builder, path, is_file)
        found = describe(model)
    if found["encoder"] != keras.saving.get_registered_name(layer_class):
        raise ValueError(
            f"weights={path!r} were made with the encoder {found['encoder']}, and not "
            f"with that of {builder}. Use its builder, or keras.saving.load_model."
        )
    shape = tuple(found["input_shape"])
    named = is_file or is_preset
    return SavedWeights(path, named, found["config"], shape, found["head"], model)


def _load_model(builder: str, path: str, is_file: bool) -> SparseCoder:
    if saving.is_preset(path):
        model = saving.load_preset(path)
    else:
        file = path if is_file else weights_path(builder, path)
        with _damage_named(path) if is_file else contextlib.nullcontext():
            model = keras.saving.load_model(file, compile=False)
    if not isinstance(model, SparseCoder):
        raise ValueError(
            f"weights={path!r} holds a {type(model).__name__}, and no SparseCoder. "
            "Open it with keras.saving.load_model."
        )
    return model


@contextlib.contextmanager
def _damage_named(path: str, may_misfit: bool = False) -> Iterator[None]:
    """A damaged file fails in many ways, all of them with the same remedy."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and (may_misfit or "NaN" in str(error)):
            raise
        raise OSError(
            f"The weights in {path!r} cannot be read: the file is truncated or altered "
            f"({type(error).__name__}: {error}). Save the model again."
        ) from error


def check_input_shape(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """`input_shape` as a tuple, or a ValueError that says what it must be."""
    shape = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else None
    if not shape or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(
            "input_shape must be a tuple of positive integers, the shape of one sample "
            f"without the batch; received input_shape={input_shape!r}."
        )
    return shape
