"""PyTorch."""

import contextlib
from typing import Any

import keras
from keras import ops
from numpy.typing import NDArray

from sc2keras.backend import ArrayFunction, TensorFunction

MAY_CHOOSE_XLA = False
HAS_STEPS_PER_EXECUTION = False
MAY_LOSE_WEIGHTS = False
EXPORTS: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx",),
    "openvino": ("openvino",),
    "torch": (),
}
# It would record as many steps as one input takes, for all others as well.
LOOPS_IN: tuple[str, ...] = ()
FLOAT64_REMEDY = "Keras brings it to float32 there. Use TensorFlow or JAX, or"


def compile_function(
    model: keras.Model, function: TensorFunction, jit_compile: bool = True
) -> ArrayFunction:
    """As on TensorFlow, but nothing is compiled."""
    import torch

    def call(*arrays: NDArray) -> tuple[NDArray, ...]:
        with torch.no_grad():
            results = function(*map(ops.convert_to_tensor, arrays))
        return tuple(ops.convert_to_numpy(result) for result in results)

    return call


def take_rows(x: Any, rows: Any) -> Any:
    """The rows of a matrix, `(..., n_columns)`; its gradient adds those up."""
    return ops.take(x, rows, axis=0)


def recomputed(branch: Any) -> Any:
    """The branch itself: what it keeps for its gradient is there if it is taken."""
    return branch


def has_accelerator() -> bool:
    """Whether Keras puts tensors on a device with memory of its own."""
    return ops.zeros(()).device.type != "cpu"


def to_numpy(tensor: Any) -> NDArray:
    """A tensor's values, which may share its memory."""
    return ops.convert_to_numpy(tensor)


def full_precision() -> contextlib.AbstractContextManager[None]:
    """Nothing: unless it is told otherwise, PyTorch rounds no products."""
    return contextlib.nullcontext()


def batches_of_arrays(model: keras.Model, arrays: Any, *args: Any, **kw: Any) -> None:
    """None: the batches of Keras serve."""


def group_steps(step: Any, n_steps: int) -> None:
    """None: Keras has no `steps_per_execution` here."""


def is_recorded() -> bool:
    """Whether the operations of one run are recorded, without their loops."""
    import torch

    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def is_traced(x: Any) -> bool:
    """Only where a run is recorded; all others have their values."""
    return is_recorded()


def export_arguments(format: str, has_loop: bool) -> dict[str, Any]:
    """PyTorch's own format has batches of the size of the example, unless told."""
    if format != "torch":
        return {}
    import torch

    return {"dynamic_shapes": {0: torch.export.Dim("batch")}}


def make_deterministic() -> None:
    """Nothing: what this package computes is the same at every call."""
