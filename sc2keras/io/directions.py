"""The two ways through a model: from signals to codes, and back."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sc2keras import signals
from sc2keras.applications import preprocess_input
from sc2keras.io.errors import InputError, one_line
from sc2keras.io.sources import Source
from sc2keras.models import SparseCoder
from sc2keras.validation import Shape

# What the signals and codes of a chunk take by default, in bytes of float32.
CHUNK_BYTES = 2**24


class Direction(NamedTuple):
    """What a model makes of rows: in what shape it takes and gives them."""

    task: str
    apply: Callable[[NDArray, int], NDArray]
    takes: Shape
    gives: Shape
    takes_pixels: bool
    remedy: str

    def default_batch_rows(self, batch_size: int) -> int:
        """As many batches as `CHUNK_BYTES` hold, one at least."""
        n_values = math.prod(self.takes) + math.prod(self.gives)
        return batch_size * max(1, CHUNK_BYTES // (4 * n_values * batch_size))

    def check(self, name: str, source: Source) -> None:
        """Only whole rows, flattened rows and missing axes of size 1 are reshaped."""
        is_pixels = self.takes_pixels and source.dtype == np.uint8
        if not is_pixels and source.dtype.kind != "f":
            raise InputError(
                f"the input {name} has dtype {source.dtype}. {self.remedy}"
            )
        same_size = math.prod(source.shape) == math.prod(self.takes)
        one_is_flat = min(len(source.shape), len(self.takes)) == 1
        long_axes = [[n for n in s if n != 1] for s in (source.shape, self.takes)]
        if not (same_size and one_is_flat) and long_axes[0] != long_axes[1]:
            raise InputError(
                f"the input {name} has rows of shape {source.shape}, but the model "
                f"takes {self.takes} or vectors of {math.prod(self.takes)} values here."
                " Reshape them, or give the model that was trained on such samples."
            )

    def __call__(self, rows: NDArray, start: int, batch_size: int, n: int) -> NDArray:
        """What becomes of rows, the first of which is row `start` of `n`."""
        n_held = len(rows)
        if rows.dtype == np.uint8:
            rows = preprocess_input(rows)
        rows = rows.reshape(n_held, *self.takes)
        if n_held < batch_size <= n:
            # So few would be encoded without XLA, whose last bits are others.
            rows = np.concatenate([rows, rows[-1:].repeat(batch_size - n_held, axis=0)])

        def of_input(found: re.Match) -> str:
            return f"row {start + int(found[1])} of the input"

        try:
            with np.errstate(over="ignore", invalid="ignore"):  # It is found below.
                made = self.apply(rows, batch_size)[:n_held]
                made = made.astype("float32", copy=False)
        except ValueError as error:
            named = re.sub(r"\b(?:x|codes)\[(\d+)\]", of_input, one_line(error))
            raise InputError(
                f"{self.task} rows {start} to {start + n_held - 1} fails ({named}). "
                f"{self.remedy}"
            ) from error
        row = signals.first_not_finite(made)
        if row is not None:
            raise InputError(
                f"{self.task} row {start + row} of the input gives what is beyond "
                f"float32. {self.remedy}"
            )
        return made


def encoding(model: SparseCoder) -> Direction:
    remedy = (
        "Give uint8, which is scaled by 1/255, or floats, scaled as those that the "
        "model was trained on."
    )
    takes, gives = model.input_shape[1:], (model.encoder.n_atoms,)
    return Direction("encoding", model.encode, takes, gives, True, remedy)


def decoding(model: SparseCoder) -> Direction:
    takes, gives = (model.encoder.n_atoms,), model.input_shape[1:]
    remedy = "Give codes as floats, those that this model made."
    return Direction("decoding", model.decode, takes, gives, False, remedy)
