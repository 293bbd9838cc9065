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

__all__ = [
    "FISTA",
    "ISTA",
    "LFISTA",
    "LISTA",
    "AdaptiveISTA",
    "SC2Net",
    "preprocess_input",
]
