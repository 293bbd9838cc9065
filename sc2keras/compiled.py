"""A model's forward pass as a compiled function from NumPy to NumPy."""

import math
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.signals import as_array

_ALIGNMENT = 64


def compile_forward(
    model: keras.Model, jit_compile: bool = True
) -> Callable[[NDArray], NDArray]:
    """`model(x, training=False)` without the overhead of `predict`, in NumPy.

    The weights are read at every call: training between two calls shows. Every number
    of rows is compiled once (on TensorFlow without XLA, all of them together). The
    result of a call may share memory with the backend; copy it to keep it. On JAX under
    `keras.distribution` the rows are divided among the devices, as `fit` does it.

    Args:
        model: A built `keras.Model` of one input; the first of its outputs is returned.
        jit_compile: Boolean, whether TensorFlow compiles with XLA, which takes a second
            for every number of rows. JAX always does, PyTorch never.

    Returns:
        A function of one array, the model's input. One of another dtype is converted;
        `aligned_empty` makes one that TensorFlow and JAX read without a copy.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Flatten()])
    >>> compile_forward(model)(np.ones((1, 2), dtype="float32")).tolist()
    [[1.0, 1.0]]
    """
    dtype = np.dtype(model.inputs[0].dtype)
    run = compile_function(
        model, lambda x: (_first_output(model(x, training=False)),), jit_compile
    )

    def call(array: NDArray) -> NDArray:
        if getattr(array, "dtype", None) != dtype or not isinstance(array, np.ndarray):
            array = as_array("array", array)
            if not np.can_cast(array.dtype, dtype, "same_kind"):
                raise ValueError(
                    f"array must have dtype {dtype}, that of the model's input; "
                    f"received dtype {array.dtype}."
                )
            array = array.astype(dtype)
        return run(array)[0]

    return call


def compile_function(
    model: keras.Model,
    function: Callable[[Any], tuple[Any, ...]],
    jit_compile: bool = True,
) -> Callable[[NDArray], tuple[NDArray, ...]]:
    """A function of a tensor, with the weights of a model, from NumPy to NumPy.

    Args:
        model: A built `keras.Model`, whose weights `function` reads.
        function: Function of one tensor that returns a tuple of tensors, with a row for
            each of its rows.
        jit_compile: As for `compile_forward`.

    Returns:
        A function of one array of the dtype of the model's input.
    """
    compilers = {"tensorflow": _compile_tensorflow, "jax": _compile_jax}
    compiler = compilers.get(keras.backend.backend())
    if compiler is not None:
        return compiler(model, function, jit_compile)
    return _without_compilation(function)


def make_deterministic() -> None:
    """Switches TensorFlow's deterministic operations on where it computes on a GPU.

    For the whole process: TensorFlow has no other way. On its CPU what this package
    computes is the same at every call without them.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def aligned_empty(shape: tuple[int, ...], dtype: str) -> NDArray:
    """`numpy.empty` that starts at a multiple of 64 bytes, as the backends' do."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
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
    model: keras.Model, function: Callable[[Any], tuple[Any, ...]], jit_compile: bool
) -> Callable[[NDArray], tuple[NDArray, ...]]:
    import tensorflow as tf

    forward = tf.function(function, jit_compile=jit_compile, autograph=False)
    # `forward` itself takes as long to find the trace of a shape as a vector to encode.
    traces: dict[tuple, Callable] = {}

    def call(array: NDArray) -> tuple[NDArray, ...]:
        n_rows = len(array) if jit_compile else None
        key = (n_rows, *array.shape[1:], array.dtype)
        if key not in traces:
            spec = tf.TensorSpec(key[:-1], array.dtype)
            traces[key] = forward.get_concrete_function(spec)
        return tuple(out.numpy() for out in traces[key](tensorflow_tensor(array)))

    return call


def _compile_jax(
    model: keras.Model, function: Callable[[Any], tuple[Any, ...]], jit_compile: bool
) -> Callable[[NDArray], tuple[NDArray, ...]]:
    import jax

    variables = [*model.trainable_variables, *model.non_trainable_variables]

    def forward(values, x):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(x)

    jitted: dict[Any, Callable] = {}
    lock = threading.Lock()

    def call(array: NDArray) -> tuple[NDArray, ...]:
        # Within `fit` the current weights are held elsewhere.
        model.jax_state_sync()
        values = [v.value for v in variables]
        distribution = keras.distribution.distribution()
        if distribution is None:
            if None not in jitted:
                jitted[None] = jax.jit(forward)
            return tuple(map(np.asarray, jitted[None](values, array)))
        n_rows, n_missing = len(array), -len(array) % distribution.num_model_replicas
        array = np.pad(array, [(0, n_missing)] + [(0, 0)] * (array.ndim - 1))
        layout = distribution.get_data_layout(array.shape).backend_layout
        if layout not in jitted:
            # Unless the result is divided too, every device computes all of it.
            rows = jax.sharding.PartitionSpec(distribution.batch_dim_name)
            sharding = jax.sharding.NamedSharding(layout.mesh, rows)
            jitted[layout] = jax.jit(forward, out_shardings=sharding)
        with lock:  # Devices that exchange values must all run the same batch.
            results = jitted[layout](values, jax.device_put(array, layout))
            return tuple(np.asarray(result)[:n_rows] for result in results)

    return call


def _without_compilation(
    function: Callable[[Any], tuple[Any, ...]],
) -> Callable[[NDArray], tuple[NDArray, ...]]:
    import torch

    def call(array: NDArray) -> tuple[NDArray, ...]:
        with torch.no_grad():
            results = function(ops.convert_to_tensor(array))
        return tuple(ops.convert_to_numpy(result) for result in results)

    return call


def _first_output(outputs: Any) -> Any:
    return keras.tree.flatten(outputs)[0]
