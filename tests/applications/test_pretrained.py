import json
import re
import shutil

import keras
import numpy as np
import pytest
from helpers import unit_atoms, with_slow

from sc2keras import applications, evaluation
from sc2keras.applications import list_weights, pretrained, weights_card, weights_path

SHIPPED = [(b, name) for b, names in list_weights().items() for name in names]


def build(builder, **arguments):
    return getattr(applications, builder)(**arguments)


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """A folder with copies of the weights, which a test may spoil."""
    folder = tmp_path / "weights"
    shutil.copytree(pretrained._FOLDER, folder)
    monkeypatch.setattr(pretrained, "_FOLDER", folder)
    return folder


def test_networks_of_the_paper_and_step_lfista_have_weights_for_each_dataset():
    assert list_weights() == {
        builder: ["cifar10", "digits", "mnist"]
        for builder in ("LFISTA", "LISTA", "SC2Net", "StepLFISTA")
    }


@pytest.mark.parametrize(("builder", "name"), SHIPPED)
def test_the_model_of_a_name_is_the_one_that_its_card_describes(builder, name):
    card = weights_card(builder, name)
    model = build(builder, weights=name)
    settings, config = card["settings"], model.encoder.get_config()
    for key in ("n_atoms", "n_steps", "l1"):
        assert config[key] == settings[key]
    for key, value in settings["kwargs"].items():
        assert config[key] == value
    for key in ("data", "seed", "environment", "command", "licence"):
        assert card[key] not in ("", {}, None)
    assert card["data"]["licence"] and re.fullmatch("[0-9a-f]{64}", card["sha256"])
    # The file alone, as anybody loads it, is the same model.
    alone = keras.saving.load_model(weights_path(builder, name))
    x = np.random.default_rng(0).random((5, *model.input_shape[1:]), dtype="float32")
    np.testing.assert_array_equal(model.encode(x), alone.encode(x))


@pytest.mark.parametrize(
    ("builder", "name"), with_slow([s for s in SHIPPED if "digits" in s], SHIPPED)
)
def test_a_shipped_model_reaches_the_figures_of_its_card(
    builder, name, require_dataset
):
    data = require_dataset(name)
    expected = weights_card(builder, name)["test"]
    model = build(builder, weights=name)
    codes = model.encode(data.x_test)
    objective = evaluation.mean_objective(
        data.x_test, codes, model.dictionary, model.encoder.l1
    )
    assert objective == pytest.approx(expected["objective"], rel=1e-4)
    nonzero = np.mean(np.abs(codes) > 1e-3)
    assert nonzero == pytest.approx(expected["nonzero"], abs=1e-3)
    draws = evaluation.make_draws(len(data.x_train), len(data.x_test))
    for (fit, score), accuracy in zip(draws[:2], expected["paper"], strict=False):
        codes_fit, y_fit = model.encode(data.x_train[fit]), data.y_train[fit]
        draw = [(np.arange(len(fit)), score)]
        (found,) = evaluation.paper_accuracy(codes_fit, y_fit, codes, data.y_test, draw)
        # Rounding moves a sample or two that lie on a border.
        assert found == pytest.approx(accuracy, abs=2.5 / len(score))
    if name == "digits":
        codes_train = model.encode(data.x_train)
        full = evaluation.full_accuracy(codes_train, data.y_train, codes, data.y_test)
        assert full.accuracy == pytest.approx(
            expected["full"], abs=2.5 / len(data.x_test)
        )


def test_what_is_left_open_follows_the_weights_and_the_rest_is_free():
    model = applications.SC2Net(weights="digits", classes=3, name="mine")
    assert model.output_shape == [(None, 100), (None, 3)] and model.name == "mine"
    plain = applications.SC2Net(100, (8, 8, 1), weights="digits")
    flat = applications.SC2Net(100, (64,), weights="digits")
    x = np.random.default_rng(0).random((5, 8, 8, 1), dtype="float32")
    codes = plain.encode(x)
    np.testing.assert_allclose(flat.encode(x.reshape(5, 64)), codes, atol=1e-6)
    np.testing.assert_allclose(model.predict(x, verbose=0)[0], codes, atol=1e-5)
    half = applications.SC2Net(weights="digits", dtype="mixed_bfloat16")
    assert half.output.dtype == "bfloat16"
    assert np.corrcoef(half.encode(x).ravel(), codes.ravel())[0, 1] > 0.99


def test_named_weights_are_a_start_for_more_training():
    x = np.random.default_rng(0).random((64, 8, 8, 1), dtype="float32")
    model = applications.LISTA(weights="digits")
    before = model.encode(x)
    model.compile(jit_compile=False)
    losses = model.fit(x, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and (model.encode(x) != before).any()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n_atoms": 64}, "n_atoms=100; received n_atoms=64"),
        ({"n_steps": 7}, "n_steps=5; received n_steps=7"),
        ({"l1": 0.3}, r"l1=0\.1; received l1=0\.3"),
        ({"activation": "double_tanh"}, "activation='shrinkage'; received activation"),
        ({"tied": True}, "tied=False; received tied=True"),
        ({"input_shape": (28, 28, 1)}, r"input_shape=\(8, 8, 1\); received .*28, 28"),
        ({"input_shape": (1, 8, 8)}, r"input_shape=\(8, 8, 1\); received .*1, 8, 8"),
        ({"dictionary": unit_atoms(100, 64)}, "dictionary=None; received dictionary="),
    ],
)
def test_arguments_that_contradict_named_weights_are_named(arguments, match):
    with pytest.raises(ValueError, match=f"'digits' were made with {match}"):
        applications.SC2Net(weights="digits", **arguments)


@pytest.mark.parametrize("builder", ["SC2Net", "AdaptiveISTA", "FISTA"])
def test_a_name_that_does_not_exist_is_an_error_with_those_that_do(builder):
    match = f"weights='imagenet', but {builder} has no .*SC2Net: 'cifar10', 'digits'"
    with pytest.raises(ValueError, match=match):
        build(builder, weights="imagenet")
    with pytest.raises(ValueError, match=match):
        weights_card(builder, "imagenet")


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_file_is_an_error_with_the_remedy(copies, damage):
    path = copies / "sc2net-digits.keras"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "altered" else content[:-100])
    match = r"sc2net-digits.keras is truncated or altered.*Install sc2keras again"
    with pytest.raises(OSError, match=match):
        applications.SC2Net(weights="digits")


def test_a_file_that_is_missing_is_an_error(copies):
    (copies / "lista-digits.keras").unlink()
    with pytest.raises(FileNotFoundError, match=r"is missing\. Install sc2keras again"):
        applications.LISTA(weights="digits")


def test_the_shipped_files_are_small_and_hold_no_optimizer():
    files = list(pretrained._FOLDER.glob("*.keras"))
    assert sum(path.stat().st_size for path in files) < 20e6
    for path in files:
        json.loads(path.with_suffix(".json").read_text())
        model = keras.saving.load_model(path)
        assert getattr(model, "optimizer", None) is None
        assert all(weight.dtype == "float32" for weight in model.weights)
