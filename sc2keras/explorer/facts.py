"""What is known of a model before it sees a sample: its encoder, and its card."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sc2keras import applications
from sc2keras.models import SparseCoder
from sc2keras.validation import at_least_float32, in_words

# What Keras adds to the configuration of every layer.
_OF_KERAS = {
    *("name", "trainable", "dtype", "return_sequences", "return_state"),
    *("go_backwards", "stateful", "unroll", "zero_output_for_mask"),
}

_MOST_SHOWN = 4


def sparse_coder(model: Any) -> SparseCoder:
    """The model itself, or what encodes as a `SparseCodeTransformer` transforms.

    Example:

    >>> sparse_coder(applications.LISTA(4, input_shape=(8,))).encoder.n_atoms
    4
    """
    if hasattr(model, "model_"):
        model = model._coder()
    if not isinstance(model, SparseCoder):
        raise ValueError(
            "model must be a SparseCoder, or a SparseCodeTransformer that was fitted; "
            f"received a {type(model).__name__}. Build one with sc2keras.applications, "
            "or around a layer of your own."
        )
    return model


def model_facts(model: SparseCoder) -> dict[str, str]:
    """A model's encoder and sizes, in words.

    Example:

    >>> model_facts(applications.LISTA(4, input_shape=(8,)))["n_atoms"]
    '4'
    """
    encoder: Any = model.encoder
    shown = [
        f"{key}={_in_words(value)}"
        for key, value in encoder.get_config().items()
        if key not in _OF_KERAS
    ]
    return {
        "encoder": f"{type(encoder).__name__}({', '.join(shown)})",
        "input shape": str(model.input_shape[1:]),
        "n_atoms": str(encoder.n_atoms),
        "weights": f"{model.count_params():,} numbers",
        "codes": at_least_float32(model.outputs[0].dtype),
    }


def _in_words(value: Any) -> Any:
    if isinstance(value, dict):  # A configured object by its class.
        return value.get("class_name")
    if isinstance(value, list) and len(value) > _MOST_SHOWN:
        return f"{len(value):,} numbers, {in_words(np.array(value))}"
    return value


def card_facts(card: Mapping[str, Any]) -> dict[str, str]:
    """The card of trained weights, `sc2keras.applications.weights_card`, in words.

    Example:

    >>> card_facts(applications.weights_card("SC2Net", "digits"))["licence"]
    'Apache-2.0; data: CC BY 4.0 (UCI Machine Learning Repository)'
    """
    data, test = card["data"], card["test"]
    accuracy = f"{test['full']:.1%} (full), {np.mean(test['paper']):.1%} (paper)"
    return {
        "data": f"{data['name']}: {data['split']}",
        "licence": f"{card['licence']}; data: {data['licence']}",
        "objective": f"{test['objective']:.4f} on test, optimum {test['optimum']:.4f}",
        "gap": f"{test['gap']:.2%}",
        "nonzero": f"{test['nonzero']:.1%} of the entries",
        "accuracy": accuracy,
        "made by": card["command"],
    }


def card_of(sha256: str) -> dict[str, Any] | None:
    """The card of the weights with that SHA-256, if they ship."""
    return next((card for card in _cards() if card["sha256"] == sha256), None)


def _cards() -> Iterator[dict[str, Any]]:
    for builder, names in applications.list_weights().items():
        for name in names:
            yield applications.weights_card(builder, name)
