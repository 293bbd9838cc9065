"""The ways in which data come into a model, and data that nobody can use."""

import keras
import numpy as np
import pytest
import scipy.sparse


def fortran(x):
    return np.asfortranarray(x)


def every_second(x):
    """A view whose rows are not next to one another."""
    return np.repeat(x, 2, axis=0)[::2]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def memory_map(x, folder):
    path = folder / "x.npy"
    np.save(path, x)
    return np.load(path, mmap_mode="r")


def frame(x):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(x, index=np.arange(len(x))[::-1] + 0.5)


def halves(x):
    return [x[: len(x) // 2], x[len(x) // 2 :]]


def dataset(x, with_targets=False, named=False):
    """A `tf.data.Dataset`, or on other backends a generator of what it would give."""
    size = 3
    x_of = (lambda part: {"inputs": part}) if named else (lambda part: part)
    parts = [x[start : start + size] for start in range(0, len(x), size)]
    elements = [
        (x_of(part), np.zeros(len(part))) if with_targets else x_of(part)
        for part in parts
    ]
    if keras.backend.backend() != "tensorflow" or not len(x):
        return iter(elements)
    import tensorflow as tf

    slices = (x_of(x), np.zeros(len(x))) if with_targets else x_of(x)
    return tf.data.Dataset.from_tensor_slices(slices).batch(size)


# Every way in that holds float32 vectors, from the array of them.
OF_VECTORS = {
    "array": lambda x: x,
    "float64": lambda x: x.astype("float64"),
    "fortran": fortran,
    "every second": every_second,
    "read-only": read_only,
    "nested list": lambda x: x.tolist(),
    "list of rows": list,
    "tuple of rows": tuple,
    "list of batches": halves,
    "generator": lambda x: (part for part in halves(x)),
    "one row at a time": lambda x: (x[i : i + 1] for i in range(len(x))),
    "dictionary": lambda x: {"inputs": x},
    "list of one": lambda x: [x],
    "tuples with targets": lambda x: [(part, None) for part in halves(x)],
    "nested tuples": lambda x: [((part,),) for part in halves(x)],
    "named batches": lambda x: [{"inputs": part} for part in halves(x)],
    "dataset": dataset,
    "dataset with targets": lambda x: dataset(x, with_targets=True),
    "dataset by name": lambda x: dataset(x, with_targets=True, named=True),
    "tensor": keras.ops.convert_to_tensor,
    "nothing masked": np.ma.masked_array,
    "sparse": scipy.sparse.csr_array,
    "coo": scipy.sparse.coo_array,
    "dok": scipy.sparse.dok_array,
    "longdouble": lambda x: x.astype("longdouble"),
    "frame": frame,
}


def with_one(x, value):
    x = x.copy()
    x[len(x) // 2, 0] = value
    return x


# From an array of at least two vectors; what a ValueError says beside the name.
UNUSABLE = {
    "None": (lambda x: None, "array"),
    "string": (lambda x: "x.npy", "array"),
    "number": (lambda x: 3.0, "array"),
    "complex": (lambda x: x.astype("complex64"), "complex64"),
    "datetime": (lambda x: x.astype("datetime64[s]"), "datetime64"),
    "timedelta": (lambda x: x.astype("timedelta64[s]"), "timedelta64"),
    "object": (lambda x: x.astype(object), "object"),
    "strings": (lambda x: x.astype(str), "<U"),
    "missing": (lambda x: [[None, *row[1:]] for row in x.tolist()], "object"),
    "ragged": (lambda x: [*x.tolist(), [1.0]], "read"),
    "masked": (lambda x: np.ma.masked_array(x, x == x[0, 0]), "masked"),
    "scalar array": (lambda x: np.array(1.0), "shape"),
    "too wide": (lambda x: np.pad(x, [(0, 0), (0, 1)]), "shape"),
    "two axes more": (lambda x: x[:, :, None, None], "shape"),
    "two inputs": (lambda x: {"a": x, "b": x}, "one array"),
    "NaN": (lambda x: with_one(x, np.nan), "finite"),
    "infinity": (lambda x: with_one(x, -np.inf), "finite"),
    "beyond float32": (lambda x: with_one(x.astype("float64"), 1e39), "finite"),
    "NaN in a frame": (lambda x: frame(with_one(x, np.nan)), "finite"),
    "NaN in a tensor": (
        lambda x: keras.ops.convert_to_tensor(with_one(x, np.nan)),
        "finite",
    ),
    "NaN in a list": (lambda x: with_one(x, np.nan).tolist(), "finite"),
    "NaN in sparse": (lambda x: scipy.sparse.csr_array(with_one(x, np.nan)), "finite"),
}
