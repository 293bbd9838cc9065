"""TensorFlow."""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops
from numpy.typing import NDArray

from sc2keras.backend import ALIGNMENT, ArrayFunction, TensorFunction, aligned_empty

# Batches that lie ready: as many as an execution of twenty steps takes at once, unless
# they are large.
_MAX_PREFETCHED = 20
_PREFETCHED_BYTES = 2**25

MAY_CHOOSE_XLA = True
HAS_STEPS_PER_EXECUTION = True
MAY_LOSE_WEIGHTS = False
EXPORTS: dict[str, tuple[str, ...]] = {
    "tf_saved_model": (),
    "litert": (),
    "onnx": ("tf2onnx",),
    "openvino": ("openvino",),
}
LOOPS_IN = tuple(EXPORTS)
FLOAT64_REMEDY = "Use"


def compile_function(
    model: keras.Model, function: TensorFunction, jit_compile: bool = True
) -> ArrayFunction:
    """A function of tensors, with the weights of a model, from NumPy to NumPy.

    The arrays are equally long. With `jit_compile` XLA compiles it once for every
    number of rows.
    """
    import tensorflow as tf

    forward = tf.function(function, jit_compile=jit_compile, autograph=False)
    # `forward` itself takes as long to find the trace of a shape as a vector to encode.
    traces: dict[tuple, Callable] = {}

    def call(*arrays: NDArray) -> tuple[NDArray, ...]:
        n_rows = len(arrays[0]) if jit_compile else None
        key = (n_rows, *[(array.shape[1:], array.dtype) for array in arrays])
        if key not in traces:
            specs = [tf.TensorSpec((n_rows, *a.shape[1:]), a.dtype) for a in arrays]
            traces[key] = forward.get_concrete_function(*specs)
        return tuple(out.numpy() for out in traces[key](*map(_tensor, arrays)))

    return call


def take_rows(x: Any, rows: Any) -> Any:
    """The rows of a matrix, `(..., n_columns)`; its gradient adds those up.

    TensorFlow's own holds a row as often as it was taken: of such, Keras's optimizers
    square and clip each by itself.
    """
    import tensorflow as tf

    x = tf.convert_to_tensor(ops.convert_to_tensor(x))  # No variable.

    @tf.custom_gradient
    def take(x):
        def gradient(by_taken):
            parts = tf.reshape(by_taken, (-1, x.shape[1]))
            indices = tf.reshape(rows, (-1,))
            return tf.math.unsorted_segment_sum(parts, indices, x.shape[0])

        return tf.gather(x, rows), gradient

    return take(x)


def recomputed(branch: Any) -> Any:
    """The branch itself: what it keeps for its gradient is there if it is taken."""
    return branch


def has_accelerator() -> bool:
    """Whether a device has memory of its own."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def to_numpy(tensor: Any) -> NDArray:
    """A tensor's values, which may share its memory."""
    return ops.convert_to_numpy(tensor)


def full_precision() -> contextlib.AbstractContextManager[None]:
    """Nothing: TensorFlow has one switch for the whole process.

    On a GPU, `tf.config.experimental.enable_tensor_float_32_execution(False)`.
    """
    return contextlib.nullcontext()


def batches_of_arrays(
    model: keras.Model,
    arrays: Sequence[NDArray],
    batch_size: int,
    shuffle: bool = True,
    dtype: str | None = None,
    repeat: bool = False,
) -> Any:
    """A `tf.data.Dataset` of batches of equally long arrays, in a new order each epoch.

    It differs from Keras's own in two ways. Its threads are few: where a step takes
    milliseconds on the same processor, those of Keras's take a fifth of it away from
    the matrix products. And after `keras.utils.set_random_seed` every epoch still has
    an order of its own, where Keras's has the same one in all. Under a strategy of
    several replicas Keras's serve.

    Args:
        model: The `keras.Model` that is trained.
        arrays: Arrays `(n_samples, ...)`.
        batch_size: Integer, the rows of a batch; the last one may have fewer.
        shuffle: Boolean, whether the order changes.
        dtype: String, what floats become, `keras.config.floatx()` by default.
        repeat: Boolean. If True, epochs follow one another without an end: to begin an
            iteration takes as long as several steps.

    Returns:
        A `tf.data.Dataset` of tensors, of several arrays of tuples of them; or None,
        where Keras's batches serve.

    Example:

    >>> import numpy as np
    >>> model, x = keras.Sequential(), np.arange(5.0)
    >>> batches = batches_of_arrays(model, (x,), 2, shuffle=False)
    >>> [batch.numpy().tolist() for batch in batches]
    [[0.0, 1.0], [2.0, 3.0], [4.0]]
    """
    import tensorflow as tf

    if model.distribute_strategy.num_replicas_in_sync > 1:
        return None
    aligned = [_aligned(array, dtype) for array in arrays]
    with tf.device("CPU"):
        tensors = [_tensor(array) for array in aligned]
    n_samples = len(arrays[0])
    n_full = n_samples // batch_size * batch_size

    # Neither function branches: to convert them would take as long as ten steps.
    @tf.autograph.experimental.do_not_convert
    def epoch(seed):
        rows = tf.range(n_samples, dtype="int64")
        if shuffle:
            rows = tf.random.experimental.stateless_shuffle(rows, seed=[seed, seed])
        full = tf.reshape(rows[:n_full], (-1, batch_size))
        batches = tf.data.Dataset.from_tensor_slices(full)
        if n_full < n_samples:
            batches = batches.concatenate(tf.data.Dataset.from_tensors(rows[n_full:]))
        return batches

    @tf.autograph.experimental.do_not_convert
    def gather(rows):
        batch = tuple(tf.gather(tensor, rows) for tensor in tensors)
        return batch if len(batch) > 1 else batch[0]

    options = tf.data.Options()
    options.threading.private_threadpool_size = max(1, (os.cpu_count() or 1) // 4)
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    # A random operation with a seed would repeat itself at every iteration.
    seed = tf.data.Dataset.random(rerandomize_each_iteration=True).take(1)
    dataset = seed.flat_map(epoch).map(gather)
    if repeat:
        dataset = dataset.repeat()
    else:
        n_batches = -(-n_samples // batch_size)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(n_batches))
    batch_bytes = sum(array.nbytes for array in aligned) / n_samples * batch_size
    n_ready = min(max(2, int(_PREFETCHED_BYTES / batch_bytes)), _MAX_PREFETCHED)
    return dataset.prefetch(n_ready).with_options(options)


def group_steps(step: Any, n_steps: int) -> None:
    """None: Keras makes one program of them itself."""


def is_recorded() -> bool:
    """Never: loops are traced as loops."""
    return False


def is_traced(x: Any) -> bool:
    """Whether a function is traced, where no tensor has values."""
    import tensorflow as tf

    return not tf.executing_eagerly()


def export_arguments(format: str, has_loop: bool) -> dict[str, Any]:
    """None: batches are of any size as it is."""
    return {}


def make_deterministic() -> None:
    """Switches deterministic operations on, on a GPU; a CPU's are without that."""
    import tensorflow as tf

    if has_accelerator():
        tf.config.experimental.enable_op_determinism()


def _tensor(array: NDArray) -> Any:
    """A tensor of an array, without a copy if it is an `aligned_empty`."""
    import tensorflow as tf

    if array.ctypes.data % ALIGNMENT or not array.flags.carray:
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _aligned(array: NDArray, dtype: str | None) -> NDArray:
    # TensorFlow's own copy is slower by far: its memory is not in huge pages.
    of_floats = dtype or keras.config.floatx()
    name = of_floats if array.dtype.kind == "f" else array.dtype.name
    copy = aligned_empty(array.shape, name)
    copy[...] = array
    return copy
