import keras
import numpy as np
import pytest
from transfers import dense, encode, floats, interrupt_after, save_npy, small_model

from sc2keras import io
from sc2keras.applications import weights_path


def test_weights_that_ship_have_a_name():
    assert io.model_path("LISTA/digits") == weights_path("LISTA", "digits")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "LISTA/x.keras",
            r"LISTA/x\.keras is not .* one of LISTA/cifar10, LISTA/digits",
        ),
        ("no/such", "the model no/such is not a file.*SC2Net/mnist"),
    ],
)
def test_a_model_that_is_not_there_is_an_error(name, message):
    with pytest.raises(io.ModelError, match=message):
        io.model_path(name)


def test_a_model_in_memory_goes_on_with_its_own_work(saved, tmp_path, monkeypatch):
    model = keras.saving.load_model(saved[1])
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            encode(model, x, output)
    other = small_model(tmp_path / "other.keras", l1=0.2)
    with pytest.raises(io.UnfinishedError, match="model_sha256 was"):
        encode(other, x, output)
    encode(keras.saving.load_model(saved[1]), x, output)
    np.testing.assert_array_equal(dense(output), saved[0].encode(floats(), 8))
