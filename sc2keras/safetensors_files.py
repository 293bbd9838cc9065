"""Arrays of `.safetensors` files, without the package of that name."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_MAX_HEADER = 100_000_000

Tensors = dict[str, NDArray]


def read_safetensors(path: str | os.PathLike[str]) -> Tensors:
    """The arrays of a `.safetensors` file by their names; bfloat16 as float32.

    Raises:
        OSError: If the file is truncated or altered, or no such file.

    Example:

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "one.safetensors")
    >>> entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    >>> header = json.dumps({"w": entry}).encode()
    >>> data = np.array([1.0, 2.0], "<f4").tobytes()
    >>> _ = path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    >>> read_safetensors(path)["w"].tolist()
    [1.0, 2.0]
    """
    content = memoryview(Path(path).read_bytes())
    size = int.from_bytes(content[:8], "little")
    try:
        if not 0 < size <= min(_MAX_HEADER, len(content) - 8):
            raise ValueError(f"a header of {size} bytes")
        header = json.loads(bytes(content[8 : 8 + size]))
        header.pop("__metadata__", None)
        data = content[8 + size :]
        return {name: _tensor(entry, data) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(
            f"{path} is no whole safetensors file: it is truncated or altered "
            f"({error}). Save or download it again."
        ) from error


def _tensor(entry: dict[str, Any], data: memoryview) -> NDArray:
    start, stop = entry["data_offsets"]
    kind, shape = entry["dtype"], entry["shape"]
    dtype = np.dtype("<u2" if kind == "BF16" else _DTYPES[kind])
    n_bytes = math.prod(shape) * dtype.itemsize
    if not 0 <= start <= stop <= len(data) or stop - start != n_bytes:
        raise ValueError(f"bytes {start} to {stop} for {kind} of shape {shape}")
    array = np.frombuffer(data[start:stop], dtype).reshape(shape)
    if kind == "BF16":
        # The upper half of a float32.
        array = (array.astype("<u4") << 16).view("<f4")
    return array.copy()


class Found:
    """The tensors of a file, of which each is taken once, in the shape it must have.

    Letters in a shape, such as `"n"` of atoms, are bound by the first tensor that has
    them, the decoder.
    """

    def __init__(self, file: Path, tensors: Tensors) -> None:
        self.file, self._left = file, dict(tensors)
        self._sizes: dict[str, int] = {}
        self._beside = ""

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, *shape: str) -> NDArray:
        expected = tuple(self._sizes.get(letter, letter) for letter in shape)
        words = f"({', '.join(map(str, expected))}{',' * (len(shape) == 1)})"
        if name not in self._left:
            raise ValueError(
                f"{self.file} has no {name}, which must be of shape {words}"
                f"{self._beside}; it also holds {sorted(self._left)}. Save it again."
            )
        array = self._left.pop(name)
        if not shape and array.size == 1:
            array = array.reshape(())
        fits = array.ndim == len(shape) and all(
            isinstance(size, str) or size == length
            for size, length in zip(expected, array.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{self.file} holds {name} of shape {array.shape}, which must be of "
                f"shape {words}{self._beside}. Save it again, whole, not transposed."
            )
        if not np.isfinite(array).all():
            raise ValueError(
                f"{self.file} holds a NaN or an infinity in {name}. Save it again."
            )
        self._sizes = dict(zip(shape, array.shape, strict=True)) | self._sizes
        self._beside = self._beside or f" beside {name} of shape {array.shape}"
        return array

    def check_all_taken(self) -> None:
        if self._left:
            raise ValueError(
                f"{self.file} also holds {sorted(self._left)}, of which it is not known"
                " what they do. Nothing was read."
            )
