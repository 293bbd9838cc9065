"""JAX."""

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.backend import ArrayFunction, TensorFunction

# Of a device's memory, for the data of a training; the rest is for its steps.
_SHARE_OF_MEMORY = 0.25

MAY_CHOOSE_XLA = False
HAS_STEPS_PER_EXECUTION = True
# A step gives the memory of the old weights away before it has the new ones.
MAY_LOSE_WEIGHTS = True
EXPORTS: dict[str, tuple[str, ...]] = {"tf_saved_model": ("tensorflow",)}
LOOPS_IN = tuple(EXPORTS)
FLOAT64_REMEDY = "Call jax.config.update('jax_enable_x64', True) first, or use"


def compile_function(
    model: keras.Model, function: TensorFunction, jit_compile: bool = True
) -> ArrayFunction:
    """As on TensorFlow, always with XLA.

    Under `keras.distribution` the rows are divided among the devices.
    """
    import jax

    variables = [*model.trainable_variables, *model.non_trainable_variables]

    def forward(values, *arrays):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*arrays)

    plain, jitted = jax.jit(forward), {}
    lock = threading.Lock()

    def call(*arrays: NDArray) -> tuple[NDArray, ...]:
        # Within `fit` the current weights are held elsewhere.
        model.jax_state_sync()
        values = [v.value for v in variables]
        distribution = keras.distribution.distribution()
        if distribution is None:
            return tuple(map(to_numpy, plain(values, *arrays)))
        n_rows = len(arrays[0])
        n_missing = -n_rows % distribution.num_model_replicas
        padded = [np.pad(a, [(0, n_missing)] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
        layout = distribution.get_data_layout(padded[0].shape).backend_layout
        if layout not in jitted:
            # Unless the result is divided too, every device computes all of it.
            rows = jax.sharding.PartitionSpec(distribution.batch_dim_name)
            sharding = jax.sharding.NamedSharding(layout.mesh, rows)
            jitted[layout] = jax.jit(forward, out_shardings=sharding)
        with lock:  # Devices that exchange values must all run the same batch.
            on_devices = [jax.device_put(array, layout) for array in padded]
            results = jitted[layout](values, *on_devices)
            return tuple(np.asarray(result)[:n_rows] for result in results)

    return call


def take_rows(x: Any, rows: Any) -> Any:
    """The rows of a matrix, `(..., n_columns)`; its gradient adds those up."""
    return ops.take(x, rows, axis=0)


def recomputed(branch: Any) -> Any:
    """A branch of a condition that its gradient computes again.

    What it would keep for its gradient is else filled with zeros where it is not taken.
    """
    import jax

    return jax.checkpoint(branch)


def has_accelerator() -> bool:
    """Whether the first device has memory of its own."""
    import jax

    return jax.default_backend() != "cpu"


def to_numpy(tensor: Any) -> NDArray:
    """A tensor's values, which may share its memory.

    From an accelerator by way of memory that it writes to directly: what NumPy is given
    otherwise is copied at a fortieth of that rate.
    """
    import jax

    if has_accelerator() and len(tensor.devices()) == 1:
        (device,) = tensor.devices()
        pinned = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
        tensor = jax.device_put(tensor, pinned)
    return np.asarray(tensor)


def full_precision() -> contextlib.AbstractContextManager[Any]:
    """Of every product that is traced in it."""
    import jax

    if not has_accelerator():
        return contextlib.nullcontext()
    return jax.default_matmul_precision("float32")


def batches_of_arrays(
    model: keras.Model,
    arrays: Sequence[NDArray],
    batch_size: int,
    shuffle: bool = True,
    dtype: str | None = None,
    repeat: bool = False,
) -> Any:
    """Batches of equally long arrays, gathered on the accelerator in Keras's order.

    Keras gathers them on the host and copies each to the device, which takes longer
    than a step there. None where Keras's serve: on a CPU, where it gathers beside the
    step that runs; for arrays that a quarter of the device's memory does not hold; and
    under `keras.distribution`.

    The arguments are those on TensorFlow; an iteration begins as fast as it goes on,
    so that `repeat` changes nothing.
    """
    import jax

    if (
        not has_accelerator()
        or keras.distribution.distribution() is not None
        or not _fit_in_memory(arrays)
    ):
        return None
    floats = dtype or keras.config.floatx()
    dtypes = [floats if a.dtype.kind == "f" else a.dtype.name for a in arrays]
    take = jax.jit(lambda arrays, rows: [array[rows] for array in arrays])
    typed = [a.astype(d, copy=False) for a, d in zip(arrays, dtypes, strict=True)]
    on_device = jax.device_put(typed)

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return -(-len(arrays[0]) // batch_size)

        def __getitem__(self, index: int) -> tuple[Any, ...]:
            if index == 0:
                n_samples = len(arrays[0])
                draw = np.random.permutation if shuffle else np.arange
                self.rows = draw(n_samples).astype("int32")
            start = index * batch_size
            return tuple(take(on_device, self.rows[start : start + batch_size]))

    return Batches()


def group_steps(step: Any, n_steps: int) -> Any:
    """A `train_function` of Keras, which takes `n_steps` steps as one program.

    Keras calls a compiled step for each batch: what it does in between takes as long as
    a small step. Here it only collects the batches; those at the end of an epoch, too
    few or of another size, are taken one by one. None under `keras.distribution`.
    """
    import jax

    if keras.distribution.distribution() is not None:
        return None
    single = jax.jit(step, donate_argnums=0)

    def loop(state, batches):
        stacked = jax.tree.map(lambda *arrays: jax.numpy.stack(arrays), *batches)
        state, logs = jax.lax.scan(lambda *args: step(*args)[::-1], state, stacked)
        return jax.tree.map(lambda log: log[-1], logs), state

    loop = jax.jit(loop, donate_argnums=0)

    def train(state, iterator):
        batches = [next(iterator)]  # Which ends an epoch that is over.
        with contextlib.suppress(StopIteration):
            while len(batches) < n_steps:
                batches.append(next(iterator))
        shapes = [jax.tree.map(np.shape, batch) for batch in batches]
        if len(batches) == n_steps and all(each == shapes[0] for each in shapes):
            return loop(state, batches)
        for batch in batches:
            logs, state = single(state, batch)
        return logs, state

    return train


def _fit_in_memory(arrays: Sequence[NDArray]) -> bool:
    import jax

    statistics = jax.devices()[0].memory_stats() or {}
    limit = statistics.get("bytes_limit", np.inf)
    return sum(array.nbytes for array in arrays) <= _SHARE_OF_MEMORY * limit


def is_recorded() -> bool:
    """Never: loops are traced as loops."""
    return False


def is_traced(x: Any) -> bool:
    """Whether a tensor has no values yet."""
    import jax

    return isinstance(x, jax.core.Tracer)


def export_arguments(format: str, has_loop: bool) -> dict[str, Any]:
    """There is no gradient of a loop whose number of steps is not known."""
    return {"jax2tf_kwargs": {"with_gradient": False}} if has_loop else {}


def make_deterministic() -> None:
    """Nothing: what this package computes is the same at every call."""
