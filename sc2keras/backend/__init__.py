"""What differs between TensorFlow, JAX and PyTorch: a module for each.

All of them have the names below; `backend.compile_function` is that of the backend that
Keras runs on, whose module is imported when it is first asked for.

- `compile_function(model, function, jit_compile)`: a function of a tensor, with the
  weights of a model, from NumPy to NumPy.
- `batches_of_arrays(model, arrays, batch_size, shuffle, dtype, repeat)`: for a
  training; it returns None where the batches of Keras serve.
- `group_steps(step, n_steps)`: a `train_function` of Keras that takes so many steps at
  once; None where that of Keras does.
- `take_rows(x, rows)`: of a matrix, with a gradient that Keras's optimizers can use.
- `recomputed(branch)`: a branch of `ops.cond` that costs nothing where not taken.
- `has_accelerator()`: whether a device with memory of its own computes.
- `to_numpy(tensor)`: its values, which may share its memory.
- `full_precision()`: a context in which products of float32 are not rounded to less.
- `is_recorded()`: whether a loop would be recorded as the steps of one run.
- `is_traced(x)`: whether a tensor stands for the values of runs to come.
- `make_deterministic()`: equal results at every call, for the whole process.
- `MAY_CHOOSE_XLA`: whether Keras leaves it open that XLA compiles.
- `HAS_STEPS_PER_EXECUTION`: whether Keras runs several steps of a training at once.
- `MAY_LOSE_WEIGHTS`: whether a step that fails may leave weights without values.
- `EXPORTS`: of each format that `export` writes, the packages that it takes.
- `LOOPS_IN`: the formats that hold a loop of as many steps as an input takes.
- `export_arguments(format, has_loop)`: those of Keras, for batches of any size.
- `FLOAT64_REMEDY`: the head of a sentence, where float64 is not computed in.

`layout_map(devices)` is for all of them, and says where it does not apply.
"""

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sc2keras.backend.sharding import check_divisible as check_divisible
from sc2keras.backend.sharding import layout_map as layout_map

_MODULES = ("tensorflow", "jax", "torch")
ALIGNMENT = 64

# Of a tensor, and from NumPy to NumPy, with a row for each row of the input.
TensorFunction = Callable[..., tuple[Any, ...]]
ArrayFunction = Callable[..., tuple[NDArray, ...]]


def aligned_empty(shape: tuple[int, ...], dtype: str) -> NDArray:
    """`numpy.empty` that starts at a multiple of 64 bytes, as the backends' do."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + ALIGNMENT, dtype="uint8")
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


@contextlib.contextmanager
def in_full_precision() -> Iterator[None]:
    """The running backend's `full_precision`; also a decorator, which imports nothing.

    For solvers and objectives: products in TF32, which JAX makes of float32 on a GPU
    by default, leave a duality gap of several percent, however many steps there are.
    """
    with __getattr__("full_precision")():
        yield


def exporting(format: str) -> list[str]:
    """The backends on which a format can be written."""
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in _MODULES}
    return [name for name, module in modules.items() if format in module.EXPORTS]


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    running = keras.backend.backend()
    if running not in _MODULES:
        raise ValueError(
            f"sc2keras runs on the backends {', '.join(_MODULES)}; received {running!r}"
            ". Set KERAS_BACKEND before Keras is imported."
        )
    return getattr(importlib.import_module(f"{__name__}.{running}"), name)
