"""Integer images as the models take them."""

import keras
import numpy as np
from keras import ops

from sc2keras.validation import Tensor


def preprocess_input(x: Tensor) -> Tensor:
    """Scales integer images of any shape, 0 to 255, to float32 in [0, 1].

    Raises:
        TypeError: If `x` has a float dtype, of which the scale is not known; or a wider
            integer dtype than uint8 in a tensor that has no values yet.
        ValueError: If a value is below 0 or above 255.

    Example:

    >>> float(preprocess_input(np.array([255], dtype="uint8"))[0])
    1.0
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    if "int" not in dtype:
        raise TypeError(
            f"preprocess_input takes integer images, 0 to 255; received dtype {dtype}. "
            "Scale floats to [0, 1] by the range that they have."
        )
    if dtype != "uint8":
        _check_range(x, dtype)
    if isinstance(x, np.ndarray):
        return x.astype("float32") / np.float32(255)
    return ops.cast(x, "float32") / 255.0


def _check_range(x: Tensor, dtype: str) -> None:
    try:
        values = x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x)
    # What a tensor without values raises differs from backend to backend.
    except Exception as error:
        raise TypeError(
            f"preprocess_input cannot look at the values of a symbolic tensor of dtype "
            f"{dtype}. Cast it to uint8 if they are 0 to 255, or scale it by its range."
        ) from error
    if values.size and not 0 <= values.min() <= values.max() <= 255:
        raise ValueError(
            f"preprocess_input takes integer images, 0 to 255; received {dtype} from "
            f"{values.min()} to {values.max()}. Scale x by its own range, for instance "
            f"x.astype('float32') / {np.iinfo(dtype).max}."
        )
