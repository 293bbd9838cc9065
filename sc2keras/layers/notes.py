"""What an encoder notes about the codes that it returns, as Keras notes masks."""

import weakref
from typing import Any

from sc2keras.validation import Tensor

_NOTES: dict[tuple[int, str], Any] = {}


def note(codes: Tensor, name: str, value: Any) -> None:
    """Notes a value about codes, for who gets this very tensor."""
    try:
        setattr(codes, f"_sc2keras_{name}", value)
    except AttributeError:  # Of a tracer of JAX.
        key = (id(codes), name)
        _NOTES[key] = value
        weakref.finalize(codes, _NOTES.pop, key, None)


def noted(codes: Tensor, name: str) -> Any:
    """What was noted about codes, or None."""
    return getattr(codes, f"_sc2keras_{name}", _NOTES.get((id(codes), name)))
