"""Batches of arrays for training on TensorFlow."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def batches_of_arrays(
    arrays: Sequence[NDArray], batch_size: int, shuffle: bool = True
) -> Any:
    """A `tf.data.Dataset` of batches of equally long arrays, in a new order each epoch.

    As Keras's own for arrays, it gathers the rows of a batch from the whole array. It
    differs in two ways. Its threads are few: where a step takes milliseconds on the
    same processor, those of Keras's take a fifth of it away from the matrix products.
    And after `keras.utils.set_random_seed` every epoch still has an order of its own,
    where Keras's has the same one in all.

    Args:
        arrays: Arrays `(n_samples, ...)`; floats become `keras.config.floatx()`.
        batch_size: Integer, the rows of a batch; the last one may have fewer.
        shuffle: Boolean, whether the order changes. It follows
            `keras.utils.set_random_seed`.

    Returns:
        A `tf.data.Dataset` of tensors, or of tuples of them where there are several
        arrays.

    Example:

    >>> x = np.arange(5.0)
    >>> [batch.numpy().tolist() for batch in batches_of_arrays((x,), 2, shuffle=False)]
    [[0.0, 1.0], [2.0, 3.0], [4.0]]
    """
    import tensorflow as tf

    with tf.device("CPU"):
        tensors = [tf.convert_to_tensor(_as_floatx(array)) for array in arrays]
    n_samples = len(arrays[0])

    def order(seed):
        rows = tf.range(n_samples, dtype="int64")
        if not shuffle:
            return rows
        return tf.random.experimental.stateless_shuffle(rows, seed=[seed, seed])

    def epoch(rows):
        starts = tf.data.Dataset.range(0, n_samples, batch_size)
        return starts.map(lambda start: gather(rows[start : start + batch_size]))

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
    dataset = seed.map(order).flat_map(epoch).apply(n_batches)
    return dataset.prefetch(2).with_options(options)


def _as_floatx(array: NDArray) -> NDArray:
    if array.dtype.kind == "f":
        return np.asarray(array, dtype=keras.config.floatx())
    return array
