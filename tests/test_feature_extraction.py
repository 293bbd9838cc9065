import keras
import numpy as np
import pytest
from helpers import load_program

from sc2keras import applications, datasets


@pytest.fixture(scope="module")
def application():
    return load_program("applications/feature_extraction.py")


def saved_model(path, input_shape):
    applications.SC2Net(16, input_shape, activation="shrinkage").save(path)
    return str(path)


def test_codes_of_a_saved_model_are_compared_and_its_atoms_drawn(
    application, tmp_path, capsys
):
    model = saved_model(tmp_path / "model.keras", (8, 8, 1))
    accuracies = application.main(["--model", model, "--output", str(tmp_path / "out")])
    assert list(accuracies) == ["raw pixels (64)", "PCA (16)", "sparse codes (16)"]
    printed = capsys.readouterr().out
    for values in accuracies.values():
        # Even random atoms tell digits apart; ten classes by chance give 0.1.
        assert 0.5 < values.mean() < 1
        assert f"{100 * values.mean():6.2f} ±" in printed
    assert (tmp_path / "out" / "atoms.png").stat().st_size > 1000


def test_the_codes_are_those_of_the_model_that_was_saved(application, tmp_path):
    path = tmp_path / "model.keras"
    saved_model(path, (8, 8, 1))
    data = datasets.load("digits")
    expected = keras.saving.load_model(path).encode(data.x_test)
    loaded = application.load(path, data)
    np.testing.assert_array_equal(loaded.encode(data.x_test), expected)


def test_training_lowers_the_objective_and_makes_exact_zeros(application):
    x = datasets.load("digits").x_train
    keras.utils.set_random_seed(0)
    model = application.train(x[:300], epochs=2)
    model_losses = model.history.history["loss"]
    assert model_losses[1] < model_losses[0]
    assert (model.encode(x[:50]) == 0).any()


def test_a_model_for_other_images_is_an_error(application, tmp_path):
    model = saved_model(tmp_path / "model.keras", (4, 4, 1))
    with pytest.raises(SystemExit, match=r"\(4, 4, 1\).*digits have \(8, 8, 1\)"):
        application.main(["--model", model])


def test_a_model_that_is_not_there_is_an_error(application, tmp_path):
    with pytest.raises(SystemExit, match=r"absent\.keras is not a file"):
        application.main(["--model", str(tmp_path / "absent.keras")])
