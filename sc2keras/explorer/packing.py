"""Arrays as text that the script of a page reads: base64 of what zlib makes of them."""

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack(array: NDArray, dtype: str) -> dict[str, Any]:
    """An array as plain JSON; its values are `offset + scale · data`.

    Args:
        array: Array of finite numbers.
        dtype: String: `"int32"` or `"float32"`, kept as they are; `"float16"`, of the
            values over their largest magnitude; `"uint8"`, 255 steps from the smallest
            to the largest value.

    Example:

    >>> packed = pack(np.array([[0.0, 0.5], [1.0, 2.0]]), "float16")
    >>> packed["dtype"], packed["shape"], packed["scale"], packed["offset"]
    ('float16', [2, 2], 2.0, 0.0)
    >>> unpack(packed).tolist()
    [[0.0, 0.5], [1.0, 2.0]]
    """
    scale, offset = 1.0, 0.0
    if array.size and dtype == "float16":
        scale = float(np.abs(array).max()) or 1.0
    elif array.size and dtype == "uint8":
        offset = float(array.min())
        scale = (float(array.max()) - offset) / 255 or 1.0
    data = (array - offset) / scale if dtype in ("float16", "uint8") else array
    if dtype == "uint8":
        data = np.rint(data)
    content = np.ascontiguousarray(data).astype(np.dtype(dtype).newbyteorder("<"))
    return {
        "dtype": dtype,
        "shape": list(array.shape),
        "scale": scale,
        "offset": offset,
        "data": base64.b64encode(zlib.compress(content.tobytes(), 9)).decode(),
    }


def unpack(packed: dict[str, Any]) -> NDArray:
    """The array that `pack` made text of, up to its rounding."""
    content = zlib.decompress(base64.b64decode(packed["data"]))
    dtype = np.dtype(packed["dtype"]).newbyteorder("<")
    data = np.frombuffer(content, dtype).reshape(packed["shape"])
    if packed["dtype"] in ("int32", "float32"):
        return data
    return packed["offset"] + packed["scale"] * data.astype("float64")
