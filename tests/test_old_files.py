"""Files that version 0.1 wrote: they load for ever, with the same codes."""

from pathlib import Path

import keras
import numpy as np
import pytest

from sc2keras import applications

FOLDER = Path(__file__).parent / "data" / "version_0_1"
CODES = dict(np.load(FOLDER / "codes.npz"))
X = CODES.pop("x")
SETTINGS = {"n_atoms": 6, "input_shape": (4, 3, 1), "n_steps": 3, "l1": 0.05}


@pytest.mark.parametrize("name", CODES)
def test_a_model_gives_the_codes_that_it_gave(name):
    model = keras.saving.load_model(FOLDER / f"{name}.keras")
    np.testing.assert_allclose(model.encode(X), CODES[name], atol=1e-6)
    assert np.abs(CODES[name]).max() > 0.1
    reconstruction = model.reconstruct(X).reshape(len(X), -1)
    expected = CODES[name] @ model.dictionary
    np.testing.assert_allclose(reconstruction, expected, atol=1e-5)


def test_it_is_trained_further():
    model = keras.saving.load_model(FOLDER / "sc2net.keras")
    before = model.evaluate(X, verbose=0, return_dict=True)["loss"]
    assert model.fit(X, epochs=3, verbose=0).history["loss"][-1] < before


def test_a_builder_takes_what_is_left_open_from_the_file():
    model = applications.SC2Net(weights=FOLDER / "sc2net-shrinkage.keras")
    assert model.encoder.n_steps == 3
    assert model.output_shape[1] == (None, 3)
    np.testing.assert_allclose(model.encode(X), CODES["sc2net-shrinkage"], atol=1e-6)


@pytest.mark.parametrize(
    "builder, name, options",
    [("SC2Net", "sc2net", {"activation": "double_tanh"}), ("LISTA", "lista", {})],
)
def test_weights_alone_load_into_the_model_that_they_are_of(builder, name, options):
    model = applications.build(
        builder, weights=FOLDER / f"{name}.weights.h5", **SETTINGS, **options
    )
    np.testing.assert_allclose(model.encode(X), CODES[name], atol=1e-6)


def test_weights_of_another_activation_are_refused():
    with pytest.raises(ValueError, match=r"do not fit this sc2net.*arguments"):
        applications.SC2Net(weights=FOLDER / "sc2net.weights.h5", **SETTINGS)
