"""A model's forward pass as a compiled function from NumPy to NumPy."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

_ALIGNMENT = 64


def compile_forward(
    model: keras.Model, jit_compile: bool = True
) -> Callable[[NDArray], NDArray]:
    """`model(x, training=False)` without the overhead of `predict`, in NumPy.

    The weights are read at every call: training between two calls shows. Every number
    of rows is compiled once (on TensorFlow without XLA, all of them together). The
    result of a call may share memory with the backend; copy it to keep it.

    Args:
        model: A built `keras.Model`; the first of its outputs is returned.
        jit_compile: Boolean, whether TensorFlow compiles with XLA, which takes a second
            for every number of rows. JAX always does, PyTorch never.

    Returns:
        A function of one array, the model's input, in its dtype; `aligned_empty` makes
        one that TensorFlow and JAX read without a copy.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Flatten()])
    >>> compile_forward(model)(np.ones((1, 2), dtype="float32")).tolist()
    [[1.0, 1.0]]
    """
    compilers = {"tensorflow": _compile_tensorflow, "jax": _compile_jax}
    compiler = compilers.get(keras.backend.backend())
    if compiler is not None:
        return compiler(model, jit_compile)
    return _without_compilation(model)


def aligned_empty(shape: tuple[int, ...], dtype: str) -> NDArray:
    """`numpy.empty` that starts at a multiple of 64 bytes, as the backends' do."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + _ALIGNMENT, dtype="uint8")
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def tensorflow_tensor(array: NDArray) -> Any:
    """A TensorFlow tensor of an array, without a copy if it is an `aligned_empty`."""
    import tensorflow as tf

    if array.ctypes.data % _ALIGNMENT or not array.flags.carray:
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _compile_tensorflow(
    model: keras.Model, jit_compile: bool
) -> Callable[[NDArray], NDArray]:
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile, autograph=False)
    def forward(x):
        return _first_output(model(x, training=False))

    # `forward` itself takes as long to find the trace of a shape as a vector to encode.
    traces: dict[tuple, Callable] = {}

    def call(array: NDArray) -> NDArray:
        n_rows = len(array) if jit_compile else None
        shape = (n_rows, *array.shape[1:])
        if shape not in traces:
            spec = tf.TensorSpec(shape, array.dtype)
            traces[shape] = forward.get_concrete_function(spec)
        return traces[shape](tensorflow_tensor(array)).numpy()

    return call


def _compile_jax(model: keras.Model, jit_compile: bool) -> Callable[[NDArray], NDArray]:
    import jax

    @jax.jit
    def forward(trainable, non_trainable, x):
        outputs, _ = model.stateless_call(trainable, non_trainable, x, training=False)
        return _first_output(outputs)

    def call(array: NDArray) -> NDArray:
        # Within `fit` the current weights are held elsewhere.
        model.jax_state_sync()
        trainable = [v.value for v in model.trainable_variables]
        non_trainable = [v.value for v in model.non_trainable_variables]
        return np.asarray(forward(trainable, non_trainable, array))

    return call


def _without_compilation(model: keras.Model) -> Callable[[NDArray], NDArray]:
    import torch

    def call(array: NDArray) -> NDArray:
        with torch.no_grad():
            outputs = model(ops.convert_to_tensor(array), training=False)
        return ops.convert_to_numpy(_first_output(outputs))

    return call


def _first_output(outputs: Any) -> Any:
    return keras.tree.flatten(outputs)[0]
