"""Builders of ready models: SC2Net, every method it is compared with, and others.

Every method of the registry has a builder here by its name, whoever registered it.
"""

import functools
from typing import Any

from sc2keras import layers as layers
from sc2keras import registry as _registry
from sc2keras.applications.builders import (
    FISTA,
    ISTA,
    LFISTA,
    LISTA,
    AdaptiveISTA,
    SC2Net,
)
from sc2keras.applications.building import build
from sc2keras.applications.preprocessing import preprocess_input
from sc2keras.applications.pretrained import list_weights, weights_card, weights_path

__all__ = [
    "FISTA",
    "ISTA",
    "LFISTA",
    "LISTA",
    "AdaptiveISTA",
    "SC2Net",
    "build",
    "list_weights",
    "preprocess_input",
    "weights_card",
    "weights_path",
]


def __getattr__(name: str) -> Any:
    try:
        entry = _registry.get_entry(name)
    except ValueError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    builder = functools.partial(build, name)
    layer = f"{entry.layer.__module__}.{entry.layer.__name__}"
    builder.__doc__ = f"{entry.summary}\n\nSee `build`, and `{layer}` for `kwargs`."
    return builder


def __dir__() -> list[str]:
    return sorted({*__all__, *(entry.name for entry in _registry.entries())})
