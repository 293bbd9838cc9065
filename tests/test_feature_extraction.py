import functools

import keras
import numpy as np
import pytest
from helpers import load_program

from sc2keras import applications, datasets, evaluation


@pytest.fixture(scope="module")
def application():
    return load_program("applications/feature_extraction.py")


def saved_model(path, input_shape):
    applications.SC2Net(16, input_shape, activation="shrinkage").save(path)
    return str(path)


def test_shipped_codes_are_compared_at_several_numbers_of_labels(
    application, tmp_path, capsys, monkeypatch
):
    few_draws = functools.partial(evaluation.make_draws, n_draws=2)
    monkeypatch.setattr(evaluation, "make_draws", few_draws)
    options = ["--labels", "50", "4000", "--output", str(tmp_path)]
    results = application.main(options)
    assert list(results) == ["raw pixels (64)", "PCA (32)", "sparse codes (100)"]
    printed = capsys.readouterr().out
    for accuracies in results.values():
        # The digits have 1,437 labels, of which a draw takes four fifths at most.
        few, many = accuracies.values()
        assert list(accuracies) == [50, 1149]
        assert 0.5 < few.mean() < many.mean() < 1
        assert f"50 labels {100 * few.mean():6.2f} ±" in printed
    assert (tmp_path / "feature_extraction.png").stat().st_size > 10_000


def test_a_saved_model_is_measured_in_place_of_the_shipped_one(application, tmp_path):
    model = saved_model(tmp_path / "model.keras", (8, 8, 1))
    options = ["--model", model, "--labels", "50", "--output", str(tmp_path / "out")]
    results = application.main(options)
    assert list(results)[-1] == "sparse codes (16)"


def test_the_codes_are_those_of_the_model_that_was_saved(application, tmp_path):
    path = tmp_path / "model.keras"
    saved_model(path, (8, 8, 1))
    data = datasets.load("digits")
    expected = keras.saving.load_model(path).encode(data.x_test)
    loaded = application.load(path, data)
    np.testing.assert_array_equal(loaded.encode(data.x_test), expected)


def test_a_model_for_other_images_is_an_error(application, tmp_path):
    model = saved_model(tmp_path / "model.keras", (4, 4, 1))
    with pytest.raises(SystemExit, match=r"\(4, 4, 1\).*digits have \(8, 8, 1\)"):
        application.main(["--model", model])


def test_a_model_that_is_not_there_is_an_error(application, tmp_path):
    with pytest.raises(SystemExit, match=r"absent\.keras is not a file"):
        application.main(["--model", str(tmp_path / "absent.keras")])


def test_too_few_labels_are_an_error(application, capsys):
    with pytest.raises(SystemExit):
        application.main(["--labels", "5"])
    assert "--labels 5 is not an integer >= 10" in capsys.readouterr().err
