"""Codes of any number of samples, in bounded memory."""

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras import signals
from sc2keras.compiled import aligned_empty
from sc2keras.validation import Shape

# What is held of the signals and codes of a chunk of rows: large enough for the matrix
# products to run at full rate, small enough for a step's tensors to stay in cache.
_CHUNK_BYTES = 2**22
_N_BATCHES_AT_A_TIME = 3
# Of finding out whether two arrays overlap: NumPy's problem is a hard one.
_MAX_WORK: Any = 1_000_000

# A forward pass from rows to what it returns for each of them, codes first.
Forward = Callable[[NDArray], tuple[NDArray, ...]]


def usual_batch_size(n_features: int, n_atoms: int) -> int:
    """The rows that are encoded at a time, from the sizes of a model."""
    n_values = n_features + 3 * n_atoms
    return max(64, min(4096, 2 ** round(math.log2(_CHUNK_BYTES / 4 / n_values))))


def encoded(
    x: Any,
    shape: Shape,
    dtype: str,
    batch_size: int,
    forward: Callable[[bool], Forward],
    codes_show: bool,
) -> Iterator[tuple[NDArray, ...]]:
    """What `forward` returns for a batch after the other, codes first.

    Args:
        x: What `signals.open_samples` returned.
        shape, dtype: Of the model's input.
        batch_size: Integer, the rows of a batch.
        forward: Function that returns the compiled forward pass, with or without XLA.
        codes_show: Boolean, whether the code of a signal that is not finite is not
            finite either. Then the signals, which are many times as long, need no look.

    Yields:
        Tuples of arrays of as many rows, which may be lost at the next.

    Raises:
        ValueError: If a signal or a code is not finite, with the number of its row.
    """
    n_before = 0
    for results, rows, n_held in _run(x, shape, dtype, batch_size, forward):
        if not codes_show:
            _check_rows("x", rows[:n_held], n_before)
        results = tuple(result[:n_held] for result in results)
        row = signals.first_not_finite(results[0])
        if row is not None:
            _check_rows("x", rows[:n_held], n_before)
            raise ValueError(
                f"The code of x[{n_before + row}] holds a NaN or an infinity: the "
                "sample is too large, or the weights are not finite. Scale x as the "
                "data that the model was trained on, or load the last good file."
            )
        n_before += n_held
        yield results


def _run(
    x: Any,
    shape: Shape,
    dtype: str,
    batch_size: int,
    forward: Callable[[bool], Forward],
) -> Iterator[tuple[tuple[NDArray, ...], NDArray, int]]:
    """The results of a batch after the other, its rows, and how many of them count."""
    staged = _staged(x, shape, dtype, batch_size)
    rows, n_held = next(staged, (None, 0))
    if rows is None:
        return
    if n_held < batch_size:
        # So few rows do not earn back the second that XLA takes to compile.
        yield forward(False)(rows[:n_held]), rows, n_held
        return
    compiled = forward(True)
    yield compiled(rows), rows, n_held  # Compiles, before there are threads.
    # Batches side by side fill the gaps that one leaves on some of the cores.
    with ThreadPoolExecutor(_N_BATCHES_AT_A_TIME) as pool:
        running: deque = deque()
        for rows, n_held in staged:
            running.append((pool.submit(compiled, rows), rows, n_held))
            if len(running) > _N_BATCHES_AT_A_TIME:
                done, rows, n_held = running.popleft()
                yield done.result(), rows, n_held
        for done, rows, n_held in running:
            yield done.result(), rows, n_held


def _staged(
    x: Any, shape: Shape, dtype: str, batch_size: int
) -> Iterator[tuple[NDArray, int]]:
    """Batches in aligned memory, and how many of their rows hold samples.

    The memory is used again when as many batches as run side by side have followed.
    """
    n_rows = min(batch_size, x.shape[0]) if hasattr(x, "shape") else batch_size
    buffers = itertools.cycle(
        aligned_empty((n_rows, *shape), dtype) for _ in range(_N_BATCHES_AT_A_TIME + 1)
    )
    rows, n_held = next(buffers), 0
    for part in signals.batches("x", x, shape, batch_size):
        n_read = 0
        while n_read < len(part):
            n_next = min(n_rows - n_held, len(part) - n_read)
            with np.errstate(over="ignore"):  # It makes an infinity, which is found.
                rows[n_held : n_held + n_next] = part[n_read : n_read + n_next]
            n_held, n_read = n_held + n_next, n_read + n_next
            if n_held == batch_size:
                yield rows, n_held
                rows, n_held = next(buffers), 0
    if n_held:
        rows[n_held:] = 0
        yield rows, n_held


def finite_batches(
    name: str, x: Any, shape: Shape, dtype: str, batch_size: int
) -> Iterator[NDArray]:
    """`signals.batches` in a dtype, or a ValueError that names a row not finite."""
    n_before = 0
    for part in signals.batches(name, x, shape, batch_size):
        with np.errstate(over="ignore"):  # It makes an infinity, which is found.
            rows = part.astype(dtype, copy=False)
        _check_rows(name, rows, n_before)
        n_before += len(rows)
        yield rows


def _check_rows(name: str, rows: NDArray, n_before: int) -> None:
    row = signals.first_not_finite(rows)
    if row is not None:
        raise signals.not_finite(name, n_before + row)


def apart(out: Any, x: Any) -> Any:
    """`x` of `signals.open_samples`, once it is sure not to share memory with `out`.

    Raises:
        ValueError: If it does, for an iterable once that batch is read.
    """
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
    parts: Iterable[NDArray],
    n_samples: int | None,
    shape: Shape,
    dtype: str,
    out: NDArray | None,
) -> NDArray:
    """Writes the parts one after the other to `out`, or to a new array.

    Args:
        parts: Arrays `(n, *shape)`.
        n_samples: Integer, the rows of all parts; None if nobody knows.
        shape, dtype: Of a row of the result.
        out: Array of floats to write to, or None.

    Returns:
        `out`, or a new array.

    Raises:
        ValueError: If `out` cannot hold the result.
    """
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
    if not isinstance(out, np.ndarray) or not _is_in_memory(x):
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


def _is_in_memory(x: Any) -> bool:
    return hasattr(x, "__array_interface__") or hasattr(x, "detach")


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
