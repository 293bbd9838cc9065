"""JAX."""

import threading
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sc2keras.backend import ArrayFunction, TensorFunction

batches_of_arrays = None
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
            return tuple(map(np.asarray, plain(values, *arrays)))
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


def is_recorded() -> bool:
    """Never: loops are traced as loops."""
    return False


def export_arguments(format: str, has_loop: bool) -> dict[str, Any]:
    """There is no gradient of a loop whose number of steps is not known."""
    return {"jax2tf_kwargs": {"with_gradient": False}} if has_loop else {}


def make_deterministic() -> None:
    """Nothing: what this package computes is the same at every call."""
