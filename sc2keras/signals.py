"""Signals and codes as they come in: of any kind, or refused by name."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras.validation import Shape, depth_of_caller

# Rows, and numbers, that are looked at together.
_CHUNK, _CHUNK_SIZE = 4096, 2**24
# Entries of so few rows that what surrounds a sum takes longer than to look at each.
_FEW = 4096


def open_samples(name: str, x: Any, shape: Shape) -> Any:
    """What `x` holds, as something with a `shape` that can be sliced, or as a stream.

    Arrays and memory maps `(n_samples, *shape)` stay as they are, larger than memory
    perhaps; frames and nested lists become arrays; a stream is an iterable of batches.
    """
    if isinstance(x, dict) and not is_sparse(x):  # As SciPy's dok_array is.
        x = _only_value(name, x)
    if is_sparse(x):
        return x.tocsr()
    if isinstance(x, (list, tuple)):
        is_stream = len(x) and _is_batch(first_of(name, x[0]), shape)
        return x if is_stream else as_array(name, x)
    if hasattr(x, "to_numpy"):
        return as_array(name, x)
    if hasattr(x, "shape"):
        if x.shape is None or len(x.shape) == 0:
            raise _wrong_shape(name, tuple(x.shape or ()), shape)
    elif isinstance(x, (str, bytes)) or not hasattr(x, "__iter__"):
        wanted = ", ".join(map(str, ("n_samples", *shape)))
        raise ValueError(
            f"{name} must be an array ({wanted}) or an iterable of such batches; "
            f"received {name}={x!r}."
        )
    return x


def _is_batch(x: Any, shape: Shape) -> bool:
    """Whether what stands in a list is a batch of samples, and not a sample."""
    if hasattr(x, "shape"):
        return len(x.shape) > 0 and not _is_shape(tuple(x.shape), shape)
    try:
        return np.ndim(x) == len(shape) + 1
    except ValueError:  # Lists of different lengths.
        return False


def _is_shape(found: Shape, shape: Shape) -> bool:
    return tuple(shape) in (found, (*found, 1)) or found == (*shape, 1)


def batches(name: str, x: Any, shape: Shape, batch_size: int) -> Iterator[NDArray]:
    """The rows of what `open_samples` returned, in arrays `(n, *shape)` of numbers."""
    if hasattr(x, "shape"):
        for start in range(0, x.shape[0], batch_size):
            yield as_samples(name, x[start : start + batch_size], shape)
    else:
        for element in x:
            yield as_samples(name, first_of(name, element), shape)


def first_of(name: str, element: Any, key: str | None = None) -> Any:
    """The signals in an element of a dataset: x of x, (x, y), {"inputs": x}, ((x,),)"""
    while isinstance(element, (tuple, list, dict)) and len(element):
        if isinstance(element, dict):
            element = _only_value(name, element, key)
            continue
        first = element[0]
        holds_arrays = hasattr(first, "shape") or isinstance(first, (dict, tuple))
        if isinstance(element, list) and not holds_arrays:
            break  # Nested lists of numbers, a batch by themselves.
        element = first
    return element


def _only_value(name: str, x: dict, key: str | None = None) -> Any:
    if key in x:
        return x[key]
    if len(x) != 1:
        raise ValueError(
            f"{name} must hold one array, the input of the model; received a dictionary"
            f" with {sorted(map(str, x))}."
        )
    return next(iter(x.values()))


def as_samples(name: str, x: Any, shape: Shape, dtype: str | None = None) -> NDArray:
    """`x` as an array `(n, *shape)`; Keras too adds or drops a last axis of size 1."""
    array = as_array(name, x)
    if array.ndim == 0 or not _is_shape(array.shape[1:], shape):
        raise _wrong_shape(name, array.shape, shape)
    array = array.reshape(len(array), *shape)
    if dtype is None:
        return array
    with np.errstate(over="ignore"):  # It makes an infinity, which is found.
        return array.astype(dtype, copy=False)


def check_numbers(name: str, x: Any) -> None:
    """Raises a ValueError for dates, texts and masks: scikit-learn makes numbers."""
    dtype = x.dtype if hasattr(x, "tocsr") else np.asarray(x).dtype
    if np.ma.isMaskedArray(x) or dtype.kind in "mMSU":
        as_array(name, x)


def as_array(name: str, x: Any) -> NDArray:
    """`x` as a NumPy array of numbers, or a ValueError that says what it is instead."""
    if np.ma.isMaskedArray(x):
        if np.ma.is_masked(x):
            raise ValueError(
                f"{name} has masked entries, {np.ma.count_masked(x)} of them. Fill "
                f"them, for instance with {name}.filled(0.0), or drop their samples."
            )
        x = np.ma.getdata(x)
    if is_sparse(x):
        x = x.toarray()
    elif hasattr(x, "detach"):  # A PyTorch tensor, which NumPy may not read as it is.
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x
    elif hasattr(x, "to_numpy"):
        x = x.to_numpy()
    try:
        array = np.asarray(x)
    # Tensors of other libraries and ragged lists fail in many ways.
    except Exception as error:
        raise ValueError(
            f"{name} cannot be read as an array of numbers "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})."
        ) from error
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # No backend has such floats.
            return array.astype("float64")
    if array.dtype.kind in "biuf" or "float" in array.dtype.name:
        return array
    remedy = {
        "c": "Take its real part, or stack real and imaginary part as features.",
        "O": "Convert it with astype(float), once no entry is missing.",
    }.get(array.dtype.kind, "Convert it to floats.")
    raise ValueError(
        f"{name} must hold real numbers; received {name} of type "
        f"{type(x).__name__} and dtype {array.dtype}. {remedy}"
    )


def chunks(x: Any) -> Iterator[tuple[int, NDArray]]:
    """Where they start, and rows that are looked at together, of all of `x`."""
    size = max(1, math.prod(x.shape[1:]))
    n_rows = max(1, min(_CHUNK, _CHUNK_SIZE // size))
    for start in range(0, len(x), n_rows):
        yield start, x[start : start + n_rows]


def check_finite(name: str, x: Any, dtype: str) -> None:
    for start, rows in chunks(x):
        with np.errstate(over="ignore"):
            rows = rows.astype(dtype, copy=False) if rows.dtype.kind == "f" else rows
        row = first_not_finite(rows)
        if row is not None:
            raise not_finite(name, start + row)


def not_finite(name: str, row: int) -> ValueError:
    return ValueError(
        f"{name} must be finite; received a NaN, an infinity, or a value beyond its "
        f"dtype in {name}[{row}]. Drop or fill such samples, for instance with "
        "numpy.nan_to_num."
    )


def first_not_finite(rows: NDArray) -> int | None:
    if rows.dtype.kind in "biu" or not rows.size:
        return None
    if rows.size < _FEW and np.isfinite(rows).all():
        return None
    # A sum is several times as fast as numpy.isfinite; it may overflow by itself.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.add.reduce(rows, axis=None)):
            return None
    finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    return None if finite.all() else int(finite.argmin())


def warn_of_integers(x: Any, name: str = "x") -> None:
    """Warns of images that are not scaled, in an array or a `tf.data.Dataset`."""
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        return  # The name of a dtype takes NumPy longer than all else here.
    if hasattr(x, "element_spec"):
        x = first_of(name, x.element_spec)
    dtype = getattr(x, "dtype", None)
    dtype = str(getattr(dtype, "name", dtype))
    if "int" in dtype:
        warnings.warn(
            f"{name} has dtype {dtype}, but the models expect floats in [0, 1]. Scale "
            "images with sc2keras.applications.preprocess_input.",
            stacklevel=depth_of_caller(),
        )


def check_atoms(name: str, atoms: Any) -> NDArray:
    """`atoms` in float64, `(n_atoms, n_features)` of one each at least, finite."""
    array = as_array(name, atoms).astype("float64")
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be a finite array (n_atoms, n_features), of one atom at "
            f"least; received {name}.shape={array.shape}. Its atoms are its rows."
        )
    return array


def in_rows(name: str, x: Any) -> Any:
    """What rows are taken of: SciPy's sparse as CSR, all else as an array."""
    return x.tocsr() if is_sparse(x) else as_array(name, x)


def is_sparse(x: Any) -> bool:
    return hasattr(x, "tocsr") and hasattr(x, "toarray")


def _wrong_shape(name: str, found: Shape, shape: Shape) -> ValueError:
    role = "the codes" if name == "codes" else "the input"
    wanted = ", ".join(map(str, ("n_samples", *shape)))
    return ValueError(
        f"{name} must have shape ({wanted}), {role} of the model; received samples of "
        f"shape {tuple(found[1:])} in {name} of shape {tuple(found)}."
    )
