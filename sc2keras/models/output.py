"""Arrays that results are written to, batch by batch."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras import signals
from sc2keras.validation import Shape

# Of finding out whether two arrays overlap: NumPy's problem is a hard one.
_MAX_WORK: Any = 1_000_000


def apart(out: Any, x: Any) -> Any:
    """`x` of `signals.open_samples`, or a ValueError if it shares memory with `out`."""
    if out is None:
        return x
    if hasattr(x, "shape"):
        _check_apart(out, x)
        return x
    return _apart_batches(out, x)


def _apart_batches(out: Any, x: Iterable[Any]) -> Iterator[Any]:
    for element in x:
        _check_apart(out, signals.first_of("x", element))
        yield element


def collect(
    parts: Iterable[NDArray], n_samples: int | None, shape: Shape, dtype: str, out: Any
) -> NDArray:
    """Writes the parts, `(n, *shape)`, one after the other to `out`, or a new array."""
    if out is None:
        if n_samples is None:
            copies = [np.array(part, dtype=dtype) for part in parts]
            return np.concatenate([np.zeros((0, *shape), dtype), *copies])
        out = np.empty((n_samples, *shape), dtype=dtype)
    else:
        _check_out(out, shape, n_samples)
    start = 0
    for part in parts:
        if start + len(part) > len(out):
            raise _bad_shape(out, shape, f"at least {start + len(part)}")
        _write(out, start, part)
        start += len(part)
    if start != len(out):
        raise _bad_shape(out, shape, start)
    return out


def _write(out: NDArray, start: int, part: NDArray) -> None:
    stop = start + len(part)
    with np.errstate(over="ignore"):
        out[start:stop] = part
    if out.dtype.itemsize < part.dtype.itemsize:
        row = signals.first_not_finite(np.asarray(out[start:stop]))
        if row is not None:
            raise ValueError(
                f"out has dtype {out.dtype}, which cannot hold row {start + row} of the"
                f" result. Pass one of dtype {part.dtype}."
            )


def _check_out(out: Any, shape: Shape, n_samples: int | None) -> None:
    dtype = np.dtype(getattr(out, "dtype", None) or "V")
    if dtype.kind != "f" or np.ma.isMaskedArray(out):
        raise ValueError(
            "out must be an array of floats to write to, such as float32; received a "
            f"{type(out).__name__} of dtype {getattr(out, 'dtype', None)}."
        )
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError(
            "out must be writeable; received a read-only array. Open a memory map with "
            "mode='r+', or pass a copy."
        )
    if tuple(out.shape[1:]) != tuple(shape):
        raise _bad_shape(out, shape, "n_samples")
    if n_samples is not None and len(out) != n_samples:
        raise _bad_shape(out, shape, n_samples)


def _bad_shape(out: NDArray, shape: Shape, n_samples: int | str) -> ValueError:
    return ValueError(
        f"out must have shape ({n_samples}, {', '.join(map(str, shape))}), with a row "
        f"for each sample; received out.shape={out.shape}."
    )


def _check_apart(out: Any, x: Any) -> None:
    is_in_memory = hasattr(x, "__array_interface__") or hasattr(x, "detach")
    if not isinstance(out, np.ndarray) or not is_in_memory:
        return  # A file, or a tensor that nobody can write to.
    x = signals.as_array("x", x)
    try:
        shared = np.shares_memory(out, x, max_work=_MAX_WORK)
    except np.exceptions.TooHardError:
        shared = True
    if shared or _map_same_bytes(out, x):
        raise ValueError(
            "out must not share memory with the input: rows would be overwritten before"
            " they are read. Pass another array, or a copy of the input."
        )


def _map_same_bytes(a: NDArray, b: NDArray) -> bool:
    """Whether two arrays are memory maps of overlapping parts of one file."""
    ranges = []
    for array in (a, b):
        mapped: Any = array
        while mapped is not None and not isinstance(mapped, np.memmap):
            mapped = mapped.base if isinstance(mapped, np.ndarray) else None
        if mapped is None or mapped.filename is None:
            return False
        low, high = np.lib.array_utils.byte_bounds(array)
        # `offset` is that of the map's own first byte.
        start = mapped.offset + low - mapped.ctypes.data
        ranges.append((mapped.filename, start, start + high - low))
    (name, start, stop), (other, other_start, other_stop) = ranges
    same = os.path.exists(name) and os.path.samefile(name, other)
    return same and start < other_stop and other_start < stop
