"""From a method's name to a model: the encoder, its input and its classifier."""

import os
from collections.abc import Callable
from typing import Any

import keras
from numpy.typing import ArrayLike

from sc2keras.applications.saved_weights import check_input_shape, open_weights
from sc2keras.layers.encoder import Encoder
from sc2keras.models import SparseCoder
from sc2keras.registry import get_entry
from sc2keras.validation import Tensor, at_least_float32, check_positive_integer

_DEFAULTS = {"n_atoms": 100, "l1": 0.1, "n_steps": 5}
# What may be None, and is then left open.
_OPEN = ("n_atoms", "l1", "n_steps", "activation")


def build(
    builder: str,
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "auto",
    name: str | None = None,
    **kwargs: Any,
) -> SparseCoder:
    """A model of any method by its name.

    Args:
        builder: String, the name of a method: of this module, or one that
            `sc2keras.register_encoder` added.
        n_atoms: Integer, k, the number of atoms and the size of a code, 100 by default.
        input_shape: Tuple, the shape of one sample, (28, 28, 1) by default. It is
            flattened inside.
        weights: None; or the path of a `.keras` or `.weights.h5` file of such a model;
            or of a folder of `sc2keras.hub.save_to_preset`; or its address on the
            Hugging Face Hub, `"hf://owner/model"`; or a name of `list_weights()`, such
            as `"mnist"`: weights that ship with the package, with a card
            (`weights_card`). Arguments that are left open follow the weights; one that
            contradicts them is an error. (A `.weights.h5` file of before version 0.2
            tells nothing but its shapes.)
        classes: Integer or None. If given, a dense layer of that many classes stands on
            the codes, and the model's outputs are `[codes, predictions]`. Train it with
            `compile(loss=...)` and `fit(x, y)`.
        classifier_activation: Of that layer; None for logits; `"auto"` for softmax, or
            that of the weights.
        name: String, the name of the model; None: that of the builder, in lower case.
        **kwargs: Of the encoder: `n_steps` (5 by default, 300 of a solver), `l1`
            (0.1), `dictionary` (where it starts, `(n_atoms, n_features)`; random by
            default), what codes are wanted (`nonnegative`, an array `l1`, `l2`,
            `nonnegative_dictionary`, `offset`, `trainable_offset`), and what its layer
            takes besides, such as `activation` or `dtype`.

    Returns:
        A `sc2keras.SparseCoder`, not compiled.

    Raises:
        ValueError: If an argument is unusable, is none of the encoder's, or contradicts
            the weights.
        OSError: If the file of the weights is truncated or altered, or the Hub cannot
            be reached.
        ImportError: If the weights are on the Hub, and huggingface_hub is missing.

    Example:

    >>> import numpy as np
    >>> model = build("LISTA", n_atoms=20, input_shape=(8, 8, 1), n_steps=3)
    >>> model.encode(np.zeros((3, 8, 8, 1), "float32")).shape
    (3, 20)
    """
    layer = get_entry(builder).layer
    dictionary: ArrayLike | None = kwargs.pop("dictionary", None)
    given = _given(n_atoms, kwargs)
    saved = None if weights is None else open_weights(builder, layer, weights)
    if saved is None or saved.config is None:
        encoder = build_encoder(builder, **given, dictionary=dictionary)
    else:
        # From its config, which of weights holds more than arguments.
        config = {**saved.config, **given, "dictionary": dictionary}
        encoder = layer.from_config(config)
    name = builder.lower() if name is None else name
    if saved is not None:
        with saved.named_misfit(name, encoder, input_shape):
            input_shape = saved.check_shape(input_shape)
            saved.check_arguments(encoder, given, dictionary)
            classes, classifier_activation = saved.check_classifier(
                classes, classifier_activation
            )
    model = _around(encoder, input_shape, classes, classifier_activation, name)
    if saved is not None:
        saved.put_into(model)
    return model


def build_encoder(builder: str, n_atoms: int | None = None, **kwargs: Any) -> Encoder:
    """The encoder alone of a model that `build` makes with these arguments.

    Example:

    >>> build_encoder("LISTA", l1=0.2).n_steps
    5
    """
    entry = get_entry(builder)
    given = _given(n_atoms, kwargs)
    return entry.layer.from_config({**_DEFAULTS, **entry.defaults, **given})


def _given(n_atoms: int | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = {"n_atoms": n_atoms, **kwargs}
    return {k: v for k, v in given.items() if v is not None or k not in _OPEN}


def _around(
    encoder: Encoder,
    input_shape: tuple[int, ...] | None,
    classes: int | None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None,
    name: str,
) -> SparseCoder:
    inputs = keras.Input(
        check_input_shape((28, 28, 1) if input_shape is None else input_shape),
        name="inputs",
        dtype=at_least_float32(encoder.compute_dtype),
    )
    outputs = inputs
    if len(inputs.shape) > 2:
        # By default the order would depend on a global setting.
        outputs = keras.layers.Flatten(
            data_format="channels_last", name="flatten", dtype=encoder.dtype_policy
        )(inputs)
    outputs = encoder(outputs)
    if classes is not None:
        is_open = classifier_activation == "auto"
        head = keras.layers.Dense(
            check_positive_integer("classes", classes),
            activation="softmax" if is_open else classifier_activation,
            name="predictions",
            dtype=encoder.dtype_policy,
        )
        outputs = [outputs, head(outputs)]
    return SparseCoder(inputs, outputs, name=name)
