"""Checks of arguments, with errors that name the argument and its value."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Keras gives the tensors of its backends no common class.
Tensor = Any
# Of integers, or None where a size is known only at run time, such as the batch's.
Shape = tuple[Any, ...]
# Packages whose frames a warning does not point at.
_INNER = ("sc2keras.", "keras.", "torch.", "contextlib")
# What stands in JSON as it is in Python.
JSON_TYPES = (str, int, float, bool, dict, list, type(None))


def check_positive_integer(name: str, value: int) -> int:
    """`value` as an int, or a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1; received {name}={value!r}.")
    return int(value)


def check_non_negative_integer(name: str, value: int) -> int:
    """`value` as an int, or a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"{name} must be an integer >= 0; received {name}={value!r}.")
    return int(value)


def check_finite(name: str, value: float) -> float:
    """`value` as a float, or a ValueError that names it."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number; received {name}={value!r}.")
    return float(value)


def check_non_negative(name: str, value: float) -> float:
    """`value` as a float, or a ValueError that names it."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= value < np.inf:
        raise ValueError(
            f"{name} must be a finite number >= 0; received {name}={value!r}."
        )
    return float(value)


def check_weights(
    name: str, value: Any, axis: str, n: int | None = None
) -> float | NDArray:
    """`value` as a float, or n of them as an array, or a ValueError that names it."""
    if np.ndim(value) == 0:
        return check_non_negative(name, value)
    array = np.array(value, dtype="float64")
    if array.ndim != 1 or array.shape != (n or len(array),):
        raise ValueError(
            f"{name} must be a number, or an array of shape ({axis},), here "
            f"({axis if n is None else n},); received {name} of shape {array.shape}."
        )
    bad = np.flatnonzero(~((array >= 0) & (array < np.inf)))
    if len(bad):
        raise ValueError(
            f"{name} must be finite numbers >= 0; received "
            f"{name}[{bad[0]}]={array[bad[0]]:g}."
        )
    array.flags.writeable = False
    return array


def in_words(weights: Any) -> str:
    """A weight, or the range of many, in three digits."""
    low, high = np.min(weights), np.max(weights)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def check_positive(name: str, value: float) -> float:
    """`value` as a float, or a ValueError that names it."""
    if check_non_negative(name, value) == 0.0:
        raise ValueError(f"{name} must be a finite number > 0; received {name}=0.")
    return float(value)


def at_least_float32(dtype: str) -> str:
    """float64 for float64, and float32 for what is narrower."""
    # `keras.backend.result_type` gives float32 for float64, too, on some backends.
    return "float64" if dtype == "float64" else "float32"


def is_finite(value: NDArray) -> bool:
    """Whether an array of any dtype holds neither a NaN nor an infinity."""
    # The name, since those of bfloat16 and the like are no floats to NumPy.
    return "float" not in value.dtype.name or bool(np.isfinite(value).all())


def depth_of_caller() -> int:
    """The `stacklevel` of the first frame outside of this package and Keras."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_INNER):
        frame, depth = frame.f_back, depth + 1
    return depth
