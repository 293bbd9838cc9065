"""Which weights of an encoder the devices of `keras.distribution` divide."""

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

# Of the layers of Keras beside an encoder, or within one: a head has no atoms.
_OTHERS = r"(?!(?:.*/)?(?:\w*dense|conv\w*|lstm\w*|hidden|numbers|predictions)\w*/\w+$)"
_MODEL = "model"
_BY_ROWS = ("dictionary",)
_BY_COLUMNS = (
    *(r"kernel(?:_\d+)?", "gate_kernel", "first_kernel"),
    *(r"recurrent_kernel\w*", "preconditioner", "gain_scale"),
)
_VECTORS = (
    *("threshold", "scale", "input_gate", "forget_gate", "gate_bias"),
    *("bias", "magnitude_bias", "jump_threshold", "log_scale", "silent"),
)


def layout_map(devices: Any = None) -> keras.distribution.LayoutMap:
    """A `keras.distribution.LayoutMap` that divides every encoder by its atoms.

    For `keras.distribution.ModelParallel`: each device holds its part of the rows of D,
    of the columns of all matrices that make codes, of what there is for each atom, and
    of their state in the optimizer. n_atoms must be a multiple of the devices that
    share the atoms, or `build` raises a ValueError. Other weights are whole on every
    device, a step size or a threshold a step too.

    The patterns are those of the weights' names; for an own layer beside an encoder,
    whose weight has such a name, add its path: `layout["head/kernel"] = (None, None)`.

    Args:
        devices: List of devices, as `keras.distribution.list_devices()` names them,
            which share the atoms; or a list of equally long lists: each of them has a
            part of a batch, and its devices share the atoms. None: all devices.

    Raises:
        ValueError: If the backend is not JAX, on which alone Keras divides weights, or
            if the lists differ in length.

    Example:

    >>> if keras.backend.backend() == "jax":
    ...     layout = layout_map(["cpu:0"])
    ...     assert layout["lista_block/dictionary"].axes == ("model", None)
    ...     parallel = keras.distribution.ModelParallel(layout_map=layout)
    """
    running = keras.backend.backend()
    if running != "jax":
        raise ValueError(
            "Keras divides weights among devices on JAX alone; the running backend is "
            f"{running!r}. Set KERAS_BACKEND=jax before Keras is imported."
        )
    if devices is None:
        devices = keras.distribution.list_devices()
    lengths = {len(row) for row in devices if not isinstance(row, str)}
    grid = np.atleast_2d(np.array(devices if len(lengths) < 2 else [], dtype=object))
    if grid.ndim != 2 or not grid.size:
        raise ValueError(
            "devices must be names of devices, or equally long lists of them; received "
            f"devices={devices!r}. keras.distribution.list_devices() has the names."
        )
    mesh = keras.distribution.DeviceMesh(grid.shape, ["batch", _MODEL], grid)
    layout = keras.distribution.LayoutMap(mesh)
    for names, axes in (
        (_BY_ROWS, (_MODEL, None)),
        (_BY_COLUMNS, (None, _MODEL)),
        (_VECTORS, (_MODEL,)),
    ):
        layout[rf"{_OTHERS}(?:.*/)?(?:{'|'.join(names)})"] = axes
    return layout


def check_divisible(path: str, n_atoms: int) -> None:
    """Raises a ValueError unless devices can divide the rows of D, a weight's path."""
    distribution = keras.distribution.distribution()
    if not isinstance(distribution, keras.distribution.ModelParallel):
        return
    dictionary: Any = SimpleNamespace(path=path, shape=(n_atoms, 1))
    layout = distribution.get_variable_layout(dictionary)
    mesh, axis = layout.device_mesh, layout.axes[0]
    n_devices = mesh.shape[mesh.axis_names.index(axis)] if axis else 1
    if n_atoms % n_devices:
        raise ValueError(
            f"n_atoms must be a multiple of the {n_devices} devices that divide the "
            f"atoms; received {n_atoms=}. Take {-(-n_atoms // n_devices) * n_devices} "
            "atoms, or a layout map of fewer devices."
        )
