"""Builders of ready models: SC2Net and every method it is compared with."""

from sc2keras.applications.builders import (
    FISTA,
    ISTA,
    LFISTA,
    LISTA,
    AdaptiveISTA,
    SC2Net,
    preprocess_input,
)
from sc2keras.applications.pretrained import list_weights, weights_card, weights_path

__all__ = [
    "FISTA",
    "ISTA",
    "LFISTA",
    "LISTA",
    "AdaptiveISTA",
    "SC2Net",
    "list_weights",
    "preprocess_input",
    "weights_card",
    "weights_path",
]
