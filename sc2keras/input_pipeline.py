"""Batches of arrays for training on TensorFlow."""

import os
from collections.abc import Sequence
from typing import Any

import keras
from numpy.typing import NDArray

from sc2keras.compiled import aligned_empty, tensorflow_tensor

# Batches that lie ready: as many as an execution of twenty steps takes at once, unless
# they are large.
_MAX_PREFETCHED = 20
_PREFETCHED_BYTES = 2**25


def batches_of_arrays(
    arrays: Sequence[NDArray],
    batch_size: int,
    shuffle: bool = True,
    dtype: str | None = None,
) -> Any:
    """A `tf.data.Dataset` of batches of equally long arrays, in a new order each epoch.

    As Keras's own for arrays, it gathers the rows of a batch from the whole array. It
    differs in two ways. Its threads are few: where a step takes milliseconds on the
    same processor, those of Keras's take a fifth of it away from the matrix products.
    And after `keras.utils.set_random_seed` every epoch still has an order of its own,
    where Keras's has the same one in all.

    Args:
        arrays: Arrays `(n_samples, ...)`.
        batch_size: Integer, the rows of a batch; the last one may have fewer.
        shuffle: Boolean, whether the order changes. It follows
            `keras.utils.set_random_seed`.
        dtype: String, what floats become, `keras.config.floatx()` by default.

    Returns:
        A `tf.data.Dataset` of tensors, or of tuples of them where there are several
        arrays.

    Example:

    >>> import numpy as np
    >>> x = np.arange(5.0)
    >>> [batch.numpy().tolist() for batch in batches_of_arrays((x,), 2, shuffle=False)]
    [[0.0, 1.0], [2.0, 3.0], [4.0]]
    """
    import tensorflow as tf

    aligned = [_aligned(array, dtype) for array in arrays]
    with tf.device("CPU"):
        tensors = [tensorflow_tensor(array) for array in aligned]
    n_samples = len(arrays[0])
    n_full = n_samples // batch_size * batch_size

    def epoch(seed):
        rows = tf.range(n_samples, dtype="int64")
        if shuffle:
            rows = tf.random.experimental.stateless_shuffle(rows, seed=[seed, seed])
        full = tf.reshape(rows[:n_full], (-1, batch_size))
        batches = tf.data.Dataset.from_tensor_slices(full)
        if n_full < n_samples:
            batches = batches.concatenate(tf.data.Dataset.from_tensors(rows[n_full:]))
        return batches

    def gather(rows):
        batch = tuple(tf.gather(tensor, rows) for tensor in tensors)
        return batch if len(batch) > 1 else batch[0]

    options = tf.data.Options()
    options.threading.private_threadpool_size = max(1, (os.cpu_count() or 1) // 4)
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    n_batches = tf.data.experimental.assert_cardinality(-(-n_samples // batch_size))
    # A random operation with a seed would repeat itself at every iteration.
    seed = tf.data.Dataset.random(rerandomize_each_iteration=True).take(1)
    dataset = seed.flat_map(epoch).map(gather).apply(n_batches)
    batch_bytes = sum(array.nbytes for array in aligned) / n_samples * batch_size
    n_ready = min(max(2, int(_PREFETCHED_BYTES / batch_bytes)), _MAX_PREFETCHED)
    return dataset.prefetch(n_ready).with_options(options)


def _aligned(array: NDArray, dtype: str | None) -> NDArray:
    # TensorFlow's own copy is slower by far: its memory is not in huge pages.
    is_float = array.dtype.kind == "f"
    of_floats = dtype or keras.config.floatx()
    copy = aligned_empty(array.shape, of_floats if is_float else array.dtype.name)
    copy[...] = array
    return copy
