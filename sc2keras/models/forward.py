"""A model's forward pass as a compiled function from NumPy to NumPy."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras import backend
from sc2keras.backend import ArrayFunction
from sc2keras.layers.convergence import warn_if_open
from sc2keras.signals import as_array
from sc2keras.validation import Tensor


def compile_forward(
    model: keras.Model, jit_compile: bool = True
) -> Callable[[NDArray], NDArray]:
    """`model(x, training=False)` without the overhead of `predict`, in NumPy.

    The weights are read at every call: training between two calls shows. Every number
    of rows is compiled once (on TensorFlow without XLA, all of them together). The
    result of a call may share memory with the backend; copy it to keep it. On JAX under
    `keras.distribution` the rows are divided among the devices, as `fit` does it. Every
    call of a `SparseCoder` warns as `encode` does; of a solver in another model a
    compiled function cannot.

    Args:
        model: A built `keras.Model` of one input; the first of its outputs is returned.
        jit_compile: Boolean, whether TensorFlow compiles with XLA, which takes a second
            for every number of rows. JAX always does, PyTorch never.

    Returns:
        A function of one array, which `sc2keras.backend.aligned_empty` spares a copy.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Flatten()])
    >>> compile_forward(model)(np.ones((1, 2), dtype="float32")).tolist()
    [[1.0, 1.0]]
    """
    dtype = np.dtype(model.inputs[0].dtype)

    run = compile_codes(model, jit_compile)

    def call(array: NDArray) -> NDArray:
        if getattr(array, "dtype", None) != dtype or not isinstance(array, np.ndarray):
            array = as_array("array", array)
            if not np.can_cast(array.dtype, dtype, "same_kind"):
                raise ValueError(
                    f"array must have dtype {dtype}, that of the model's input; "
                    f"received dtype {array.dtype}."
                )
            array = array.astype(dtype)
        codes, *found = run(array)
        for gaps in found:
            warn_if_open(gaps, model.encoder)
        return codes

    return call


def compile_codes(model: Any, jit_compile: bool) -> ArrayFunction:
    """A function that returns codes; of a solver to a tolerance, also their gaps."""
    encoder: Any = getattr(model, "encoder", None)
    dtype = getattr(model, "_result_dtype", model.outputs[0].dtype)

    def codes(x: Tensor) -> tuple[Tensor, ...]:
        if getattr(encoder, "tol", None) is None:
            # NumPy is slow at what is narrower than float32.
            return (ops.cast(keras.tree.flatten(model(x, training=False))[0], dtype),)
        return encoder.solve(ops.reshape(x, (-1, encoder.n_features)))

    return backend.compile_function(model, codes, jit_compile)


def compile_synthesis(model: Any) -> ArrayFunction:
    """A function from codes to the signals, flat, that they stand for."""
    encoder = model.encoder
    return backend.compile_function(model, lambda s: (encoder.decode(s),), False)
