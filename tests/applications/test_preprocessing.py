import keras
import numpy as np
import pytest
from helpers import to_numpy

from sc2keras.applications import preprocess_input


def test_preprocess_input_scales_integers_to_the_unit_interval():
    x = np.array([[0, 51, 255]], "uint8")
    for integers in (x, x.astype("int64"), keras.ops.convert_to_tensor(x)):
        scaled = preprocess_input(integers)
        assert keras.backend.standardize_dtype(scaled.dtype) == "float32"
        np.testing.assert_allclose(to_numpy(scaled), [[0, 0.2, 1]], atol=1e-7)
    assert isinstance(preprocess_input(x), np.ndarray)


def test_preprocess_input_refuses_floats_of_unknown_scale():
    with pytest.raises(
        TypeError, match=r"integer images, 0 to 255; received .*float32"
    ):
        preprocess_input(np.ones((2, 3), "float32"))


@pytest.mark.parametrize("dtype", ["uint16", "int8", "int64"])
def test_images_beyond_a_byte_are_refused(dtype):
    largest = np.iinfo(dtype).max
    for value in (-1, 256, min(largest, 2**31 - 1)):  # JAX has no more bits.
        if not np.iinfo(dtype).min <= value <= largest or 0 <= value <= 255:
            continue
        image = np.full((2, 2), value, dtype)
        for x in (image, keras.ops.convert_to_tensor(image)):
            with pytest.raises(ValueError, match=f"received .* from {value}"):
                preprocess_input(x)


def test_images_of_a_byte_in_a_wider_dtype_are_scaled():
    image = np.array([0, 51, 255])
    for dtype in ("uint8", "uint16", "int32", "int64"):
        np.testing.assert_allclose(preprocess_input(image.astype(dtype)), image / 255)


def test_wide_integers_without_values_are_refused():
    with pytest.raises(TypeError, match="symbolic tensor of dtype int32"):
        preprocess_input(keras.Input((2,), dtype="int32"))
    assert preprocess_input(keras.Input((2,), dtype="uint8")).dtype == "float32"
