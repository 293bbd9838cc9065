"""Codes of any number of samples, in bounded memory."""

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras import backend, signals
from sc2keras.backend import ArrayFunction, aligned_empty
from sc2keras.layers.convergence import quiet_solvers, warn_if_open
from sc2keras.models import proven
from sc2keras.models.output import apart, collect
from sc2keras.sparse_rows import collect_sparse
from sc2keras.threads import on_one_thread
from sc2keras.validation import Shape, check_positive_integer

# What is held of the signals and codes of a chunk of rows, and its most rows: large
# enough for the matrix products to run at full rate, on a CPU small enough for a step's
# tensors to stay in cache.
_CHUNK_BYTES, _MAX_ROWS = 2**22, 2**12
_CHUNK_BYTES_OF_ACCELERATORS, _MAX_ROWS_OF_ACCELERATORS = 2**29, 2**16
_N_BATCHES_AT_A_TIME = 3

_Forward = Callable[[bool], ArrayFunction]


class NonFiniteCodeError(ValueError):
    """Weights, or the size of a finite sample, made a code that is not finite."""


def usual_batch_size(encoder: Any) -> int:
    """The rows that are encoded at a time, from the sizes of an encoder."""
    n_bytes, most = _CHUNK_BYTES, _MAX_ROWS
    if backend.has_accelerator():
        n_bytes, most = _CHUNK_BYTES_OF_ACCELERATORS, _MAX_ROWS_OF_ACCELERATORS
    n_values = encoder.n_features + 3 * encoder.n_atoms
    return max(64, min(most, 2 ** round(math.log2(n_bytes / 4 / n_values))))


def encode(
    model: Any,
    x: Any,
    batch_size: int | None,
    out: NDArray | None,
    tol: float | None = None,
    sparse: bool = False,
) -> Any:
    """`SparseCoder.encode`."""
    if sparse and out is not None:
        raise ValueError(
            "sparse=True makes a new matrix, and has no part in out; received out of "
            f"type {type(out).__name__}. Leave one of them out."
        )
    dtype = str(getattr(out, "dtype", model._result_dtype))
    forward = model._forward if tol is None else _proven(model, tol, dtype)
    n_samples, parts = _codes(model, x, batch_size, out, forward)
    n_atoms = model.encoder.n_atoms

    def collected() -> Any:
        if sparse:
            return collect_sparse(parts, n_atoms, model._result_dtype)
        return collect(parts, n_samples, (n_atoms,), model._result_dtype, out)

    # Proofs are NumPy's, of several batches side by side.
    return collected() if tol is None else on_one_thread(collected)()


def reconstruct(
    model: Any, x: Any, batch_size: int | None, out: NDArray | None
) -> NDArray:
    """`SparseCoder.reconstruct`."""
    n_samples, parts = _codes(model, x, batch_size, out, model._forward)
    return _decoded(model, parts, n_samples, out)


def decode(model: Any, codes: Any, batch_size: int, out: NDArray | None) -> NDArray:
    """`SparseCoder.decode`."""
    check_positive_integer("batch_size", batch_size)
    shape = (model.encoder.n_atoms,)
    codes = apart(out, signals.open_samples("codes", codes, shape))
    n_samples = codes.shape[0] if hasattr(codes, "shape") else None
    parts = _finite_batches("codes", codes, shape, model._result_dtype, batch_size)
    return _decoded(model, parts, n_samples, out)


def _proven(model: Any, tol: float, dtype: str) -> _Forward:
    """A forward pass that goes on to codes whose duality gap is at most `tol`."""
    proven.check_provable(model.encoder, tol)
    key = "proven", float(tol), dtype
    if key not in model._forwards:
        model._forwards[key] = proven.Solver(model.encoder, tol, dtype)
    solver = model._forwards[key]
    solver.follow()

    def forward(use_xla: bool) -> ArrayFunction:
        compiled = model._forward(use_xla)
        return lambda rows: (solver(rows, compiled(rows)[0], use_xla),)

    return forward


def _codes(
    model: Any, x: Any, batch_size: int | None, out: NDArray | None, forward: _Forward
) -> tuple[int | None, Iterator[NDArray]]:
    """The number of samples, if known, and the codes of a batch after the other."""
    signals.warn_of_integers(x)
    if batch_size is None:
        batch_size = model.batch_size_of_encode()
    check_positive_integer("batch_size", batch_size)
    x = apart(out, signals.open_samples("x", x, model.inputs[0].shape[1:]))
    n_samples = x.shape[0] if hasattr(x, "shape") else None
    parts = _encoded(model, x, batch_size, forward)
    return n_samples, _warning_of_open(model.encoder, parts)


def _decoded(
    model: Any, parts: Iterable[NDArray], n_samples: int | None, out: NDArray | None
) -> NDArray:
    shape, dtype = model.inputs[0].shape[1:], model._result_dtype
    synthesis = model._synthesis()
    flat = (synthesis(part.astype(dtype, copy=False))[0] for part in parts)
    decoded = (np.reshape(part, (-1, *shape)) for part in flat)
    return collect(decoded, n_samples, shape, dtype, out)


def _warning_of_open(
    encoder: Any, parts: Iterator[tuple[NDArray, ...]]
) -> Iterator[NDArray]:
    """The codes; at the end a warning, if a solver's tolerance was not reached."""
    found = []
    for codes, *gaps in parts:
        found += [gap.copy() for gap in gaps]
        yield codes
    if found:
        warn_if_open(np.concatenate(found), encoder)


@contextlib.contextmanager
def warns_once(model: Any) -> Iterator[None]:
    """Warns of all rows that Keras takes, and not of those of each batch."""
    if getattr(model.encoder, "tol", None) is None:
        yield
        return
    with quiet_solvers():
        yield
    model._objective.activity.warn_of_open(model.encoder)


def predicted(
    model: Any, predict: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """What a method of Keras predicts, after the one warning for all of it."""
    if getattr(model.encoder, "tol", None) is None:
        return predict(*args, **kwargs)
    model._returns_gaps = True
    try:
        with quiet_solvers():
            found = predict(*args, **kwargs)
    finally:
        model._returns_gaps = False
    warn_if_open(found["gaps"], model.encoder)
    return found["outputs"]


def _encoded(
    model: Any, x: Any, batch_size: int, forward: _Forward
) -> Iterator[tuple[NDArray, ...]]:
    """What the forward pass gives for a batch after the other, until the next."""
    # Where codes show it, the signals, which are many times as long, need no look.
    codes_show = model.encoder.shows_non_finite
    n_before = 0
    batches = _run(model, x, batch_size, forward)
    while True:
        try:
            results, rows, n_held = next(batches)
        except StopIteration:
            return
        except proven.UnprovableError as error:
            raise ValueError(error.message(n_before)) from None
        if not codes_show:
            _check_rows("x", rows[:n_held], n_before)
        results = tuple(result[:n_held] for result in results)
        row = signals.first_not_finite(results[0])
        if row is not None:
            _check_rows("x", rows[:n_held], n_before)
            raise NonFiniteCodeError(
                f"The code of x[{n_before + row}] holds a NaN or an infinity: the "
                "sample is too large, or the weights are not finite. Scale x as the "
                "data that the model was trained on, or load the last good file."
            )
        n_before += n_held
        yield results


def _run(
    model: Any, x: Any, batch_size: int, forward: _Forward
) -> Iterator[tuple[tuple[NDArray, ...], NDArray, int]]:
    """The results of a batch after the other, its rows, and how many of them count."""
    staged = _staged(model, x, batch_size)
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


def _staged(model: Any, x: Any, batch_size: int) -> Iterator[tuple[NDArray, int]]:
    """Batches in aligned memory, and how many of their rows hold samples.

    The memory is used again when as many batches as run side by side have followed.
    """
    shape, dtype = model.inputs[0].shape[1:], model.inputs[0].dtype
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


def _finite_batches(
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
