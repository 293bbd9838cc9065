import numpy as np
import pytest

from sc2keras.validation import check_non_negative, check_positive_integer


@pytest.mark.parametrize("value", [1, 7, np.int64(7)])
def test_a_positive_integer_comes_back_as_an_int(value):
    result = check_positive_integer("n_atoms", value)
    assert type(result) is int and result == value


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", None, True])
def test_anything_else_is_an_error_that_names_argument_and_value(value):
    with pytest.raises(ValueError) as error:
        check_positive_integer("n_atoms", value)
    assert "n_atoms must be an integer >= 1" in str(error.value)
    assert f"n_atoms={value!r}" in str(error.value)


@pytest.mark.parametrize("value", [0, 0.1, 3, np.float32(0.5)])
def test_a_non_negative_number_comes_back_as_a_float(value):
    result = check_non_negative("l1", value)
    assert type(result) is float and result == value


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), "1", None, False])
def test_a_number_that_is_negative_or_not_finite_is_an_error(value):
    with pytest.raises(ValueError) as error:
        check_non_negative("l1", value)
    assert "l1 must be a finite number >= 0" in str(error.value)
    assert f"l1={value!r}" in str(error.value)
