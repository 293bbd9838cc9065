"""The two ways through a model: from signals to codes, and back."""

import math
import re
from typing import ClassVar

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


class Direction:
    """What a model makes of rows of one shape."""

    task: ClassVar[str]
    remedy: ClassVar[str]

    def __init__(self, model: SparseCoder, takes: Shape, gives: Shape) -> None:
        self.model, self.takes, self.gives = model, takes, gives

    def default_batch_rows(self) -> int:
        """As many batches of `encode` as `CHUNK_BYTES` hold, one at least."""
        n_values = math.prod(self.takes) + math.prod(self.gives)
        batch_size = self.model.batch_size_of_encode()
        return batch_size * max(1, CHUNK_BYTES // (4 * n_values * batch_size))

    def check(self, name: str, source: Source) -> None:
        """Only whole rows, flattened rows and missing axes of size 1 are reshaped."""
        is_pixels = source.dtype == np.uint8 and isinstance(self, Encoding)
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
        raise NotImplementedError

    def _prepared(self, rows: NDArray, start: int) -> NDArray:
        """Rows as finite float32 in the shape that the model takes."""
        if rows.dtype == np.uint8:
            return preprocess_input(rows).reshape(-1, *self.takes)
        with np.errstate(over="ignore"):  # It makes an infinity, which is found.
            rows = rows.astype("float32").reshape(-1, *self.takes)
        row = signals.first_not_finite(rows)
        if row is not None:
            raise InputError(
                f"row {start + row} of the input holds a NaN, an infinity or a value "
                "beyond float32. Drop or fill such rows, for instance with "
                "numpy.nan_to_num."
            )
        return rows


class Encoding(Direction):
    task = "encoding"
    remedy = (
        "Give uint8, which is scaled by 1/255, or floats, scaled as those that the "
        "model was trained on."
    )

    def __init__(self, model: SparseCoder) -> None:
        super().__init__(model, model.input_shape[1:], (model.encoder.n_atoms,))

    def __call__(self, rows: NDArray, start: int, batch_size: int, n: int) -> NDArray:
        """The codes, which do not depend on where a run began."""
        n_held, rows = len(rows), self._prepared(rows, start)
        if n_held < batch_size <= n:
            # So few would be encoded without XLA, whose last bits are others.
            rows = np.concatenate([rows, rows[-1:].repeat(batch_size - n_held, axis=0)])
        try:
            codes = self.model.encode(rows, batch_size)[:n_held]
            row = signals.first_not_finite(codes)
        except ValueError as error:
            named = re.search(r"\b(?:row |x\[)(\d+)", str(error))
            if named is None:
                raise InputError(
                    f"rows {start} to {start + n_held - 1} cannot be encoded "
                    f"({one_line(error)})."
                ) from error
            row = int(named[1])
        if row is not None:
            raise InputError(
                f"the code of row {start + row} holds a NaN or an infinity. Scale the "
                "input as the model was trained, about [0, 1]."
            )
        return codes


class Decoding(Direction):
    task = "decoding"
    remedy = "Give codes as floats."

    def __init__(self, model: SparseCoder) -> None:
        super().__init__(model, (model.encoder.n_atoms,), model.input_shape[1:])

    def __call__(self, rows: NDArray, start: int, batch_size: int, n: int) -> NDArray:
        with np.errstate(over="ignore", invalid="ignore"):  # It is found below.
            decoded = self.model.decode(self._prepared(rows, start), batch_size)
        row = signals.first_not_finite(decoded)
        if row is not None:
            raise InputError(
                f"what row {start + row} decodes to is beyond float32. Give codes that "
                "this model made."
            )
        return decoded
