"""Signals and codes as they come in: of any kind, or refused by name."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras.validation import Shape, depth_of_caller

# Rows that are looked at together.
_CHUNK = 4096


def open_samples(name: str, x: Any, shape: Shape) -> Any:
    """What `x` holds, as something with a `shape` that can be sliced, or as a stream.

    Arrays, memory maps, HDF5 datasets and tensors are returned as they are: they may be
    larger than the memory. Frames, lists of samples and nested lists become arrays.

    Args:
        name: String, the name of `x` in errors.
        x: Array of any kind `(n_samples, *shape)`; a list of samples, or of batches; a
            dictionary or list that holds one of these; or an iterable of batches, such
            as a `tf.data.Dataset`.
        shape: Tuple of integers, the shape of a sample.

    Returns:
        An array-like, or, if it has no `shape`, an iterable of batches.

    Raises:
        ValueError: If `x` is None, a string, a single number, or a dictionary of
            several arrays.

    Example:

    >>> open_samples("x", [[1.0, 2.0], [3.0, 4.0]], (2,)).shape
    (2, 2)
    """
    if isinstance(x, dict):
        x = _only_value(name, x)
    if _is_sparse(x):
        return x.tocsr()
    if hasattr(x, "to_numpy"):
        return as_array(name, x)
    if isinstance(x, (list, tuple)):
        return (
            x
            if len(x) and _is_batch(first_of(name, x[0]), shape)
            else as_array(name, x)
        )
    if hasattr(x, "shape"):
        if x.shape is None or len(x.shape) == 0:
            raise _wrong_shape(name, tuple(x.shape or ()), shape)
        return x
    if x is None or isinstance(x, (str, bytes)) or not hasattr(x, "__iter__"):
        raise ValueError(
            f"{name} must be an array (n_samples, {_sizes(shape)}) or an iterable of "
            f"such batches; received {name}={x!r}."
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
    """Whether two shapes differ in a last axis of size 1 at most."""
    return tuple(shape) in (found, (*found, 1)) or found == (*shape, 1)


def batches(name: str, x: Any, shape: Shape, batch_size: int) -> Iterator[NDArray]:
    """The rows of what `open_samples` returned, in arrays `(n, *shape)`.

    They are numbers, but may not be finite. The elements of an iterable are batches,
    dictionaries of one, or tuples that begin with one of these.
    """
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
        elif isinstance(element, tuple) or _holds_arrays(element):
            element = element[0]
        else:
            break  # Nested lists of numbers, a batch by themselves.
    return element


def _holds_arrays(x: list) -> bool:
    return hasattr(x[0], "shape") or isinstance(x[0], (dict, tuple))


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
    """`x` as an array `(n, *shape)`, of `dtype` if that is given.

    A last axis of size 1 that is missing or too many is put right, as Keras does.
    """
    array = as_array(name, x)
    if array.ndim == 0 or not _is_shape(array.shape[1:], shape):
        raise _wrong_shape(name, array.shape, shape)
    array = array.reshape(len(array), *shape)
    if dtype is None:
        return array
    with np.errstate(over="ignore"):  # It makes an infinity, which is found.
        return array.astype(dtype, copy=False)


def as_array(name: str, x: Any) -> NDArray:
    """`x` as a NumPy array of numbers, or a ValueError that says what it is instead."""
    if np.ma.isMaskedArray(x):
        if np.ma.is_masked(x):
            raise ValueError(
                f"{name} has masked entries, {np.ma.count_masked(x)} of them. Fill "
                f"them, for instance with {name}.filled(0.0), or drop their samples."
            )
        x = np.ma.getdata(x)
    if _is_sparse(x):
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
    is_number = array.dtype.kind in "biuf" or "float" in array.dtype.name
    if not is_number:
        remedy = {
            "c": "Take its real part, or stack real and imaginary part as features.",
            "O": "Convert it with astype(float), once no entry is missing.",
        }.get(array.dtype.kind, "Convert it to floats.")
        raise ValueError(
            f"{name} must hold real numbers; received {name} of type "
            f"{type(x).__name__} and dtype {array.dtype}. {remedy}"
        )
    return array


def check_finite(name: str, x: NDArray, dtype: str) -> None:
    """Raises a ValueError that names the first row with a NaN or an infinity."""
    for start in range(0, len(x), _CHUNK):
        rows = x[start : start + _CHUNK]
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
    """The first row that holds a NaN or an infinity, or None."""
    if rows.dtype.kind in "biu" or not rows.size:
        return None
    # A sum is several times as fast as numpy.isfinite; it may overflow by itself.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.add.reduce(rows, axis=None)):
            return None
    finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    return None if finite.all() else int(finite.argmin())


def warn_of_integers(x: Any, name: str = "x") -> None:
    """Warns of images that are not scaled, in an array or a `tf.data.Dataset`."""
    dtype = getattr(x, "dtype", None)
    if getattr(dtype, "kind", None) == "f":
        return
    if hasattr(x, "element_spec"):
        dtype = getattr(first_of(name, x.element_spec), "dtype", None)
    dtype = str(getattr(dtype, "name", dtype))
    if "int" in dtype:
        warnings.warn(
            f"{name} has dtype {dtype}, but the models expect floats in [0, 1]. Scale "
            "images with sc2keras.applications.preprocess_input.",
            stacklevel=depth_of_caller(),
        )


def _is_sparse(x: Any) -> bool:
    return hasattr(x, "tocsr") and hasattr(x, "toarray")


def _wrong_shape(name: str, found: Shape, shape: Shape) -> ValueError:
    role = "the codes" if name == "codes" else "the input"
    return ValueError(
        f"{name} must have shape (n_samples, {_sizes(shape)}), {role} of the model; "
        f"received samples of shape {tuple(found[1:])} in {name} of shape "
        f"{tuple(found)}."
    )


def _sizes(shape: Shape) -> str:
    return ", ".join(map(str, shape))
