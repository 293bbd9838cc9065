"""What comes in as signals, without a model."""

import warnings

import numpy as np
import pytest
from helpers import signals
from ways import OF_VECTORS, UNUSABLE

from sc2keras.signals import (
    as_array,
    as_samples,
    batches,
    check_finite,
    first_not_finite,
    first_of,
    open_samples,
    warn_of_integers,
)

SHAPE = (4,)


@pytest.mark.parametrize("way", OF_VECTORS)
@pytest.mark.parametrize("batch_size", [2, 100])
def test_every_way_gives_the_same_rows(way, batch_size):
    x = signals(7, 4)
    opened = open_samples("x", OF_VECTORS[way](x), SHAPE)
    parts = list(batches("x", opened, SHAPE, batch_size))
    assert all(isinstance(part, np.ndarray) for part in parts)
    np.testing.assert_allclose(np.concatenate(parts), x)
    if hasattr(opened, "shape"):
        assert max(map(len, parts)) <= batch_size


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_nobody_can_use_is_refused_by_name(kind):
    make, says = UNUSABLE[kind]
    with pytest.raises(ValueError, match=rf"^x (?s:.*){says}"):
        opened = open_samples("x", make(signals(4, 4)), SHAPE)
        for part in batches("x", opened, SHAPE, 2):
            check_finite("x", part, "float32")


@pytest.mark.parametrize(
    "element",
    [
        lambda x: x,
        lambda x: (x, None),
        lambda x: {"inputs": x},
        lambda x: ((x,),),
        lambda x: [x],
        lambda x: ({"other": None, "inputs": x}, None),
    ],
)
def test_the_signals_of_an_element_are_found(element):
    x = signals(2, 4)
    assert first_of("x", element(x), "inputs") is x


def test_nested_lists_of_numbers_are_a_batch_by_themselves():
    assert first_of("x", [[1.0, 2.0]]) == [[1.0, 2.0]]


def test_a_last_axis_of_one_is_put_right():
    x = signals(3, 4)
    for found in (
        as_samples("x", x[..., None], SHAPE),
        as_samples("x", x, (4, 1))[..., 0],
        as_samples("x", x.astype("float64"), SHAPE, "float32"),
    ):
        np.testing.assert_array_equal(found, x)
    with pytest.raises(ValueError, match=r"\(n_samples, 5\).*received .*\(4,\)"):
        as_samples("x", x, (5,))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 4095, 4096, 9999])
def test_the_first_row_that_is_not_finite_is_named(value, row):
    x = np.zeros((10_000, 3), "float32")
    x[row, 1] = x[-1, 2] = value
    assert first_not_finite(x) == row
    with pytest.raises(ValueError, match=rf"in y\[{row}\]. Drop or fill"):
        check_finite("y", x, "float32")


def test_large_values_whose_sum_overflows_are_finite():
    x = np.full((3, 4), 3e38, "float32")
    assert first_not_finite(x) is None
    check_finite("x", x, "float32")
    with pytest.raises(ValueError, match=r"beyond its dtype in x\[0\]"):
        check_finite("x", 10 * x.astype("float64"), "float32")


def test_integers_are_warned_of_and_floats_are_not():
    with pytest.warns(UserWarning, match=r"y has dtype int64.*preprocess_input"):
        warn_of_integers(np.arange(3), "y")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_integers(np.ones(3, "float32"))


@pytest.mark.slow
def test_a_tensor_in_bfloat16_is_read():
    torch = pytest.importorskip("torch")
    x = torch.ones((2, 3), dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_array_equal(as_array("x", x), np.ones((2, 3)))
