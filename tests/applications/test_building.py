"""`build`: any method by its name."""

import inspect

import numpy as np
import pytest
from helpers import ENTRIES, signals, to_numpy

from sc2keras import applications
from sc2keras.applications import build

NAMES = [entry.name for entry in ENTRIES]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_name_gives_the_model_of_its_encoder(entry):
    model = build(entry.name, input_shape=(2, 4), n_atoms=5)
    assert type(model.encoder) is entry.layer
    assert model.name == entry.name.lower()
    expected = {"n_atoms": 5, "l1": 0.1, "n_steps": 5, **entry.defaults}
    config = model.encoder.get_config()
    assert {name: config[name] for name in expected} == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_a_builder_of_the_module(name):
    builder = getattr(applications, name)
    arguments = list(inspect.signature(builder).parameters)
    assert arguments == [
        "n_atoms",
        "input_shape",
        "weights",
        "classes",
        "classifier_activation",
        "name",
        "kwargs",
    ]
    assert name in dir(applications)
    assert type(builder(5, (8,)).encoder) is type(build(name, 5, (8,)).encoder)


def test_a_name_that_is_none_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"one of .*SC2Net.*; received builder='OMP'"):
        build("OMP")
    with pytest.raises(AttributeError, match="no attribute 'OMP'"):
        applications.OMP  # noqa: B018


def test_what_is_none_is_left_open(tmp_path):
    model = build("LISTA", 6, (8,), n_steps=2, l1=0.3, tied=False)
    model.save(tmp_path / "model.keras")
    again = build(
        "LISTA",
        weights=tmp_path / "model.keras",
        n_steps=None,
        l1=None,
        activation=None,
    )
    x = signals(3, 8)
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(model(x)))
    assert again.encoder.n_steps == 2


@pytest.mark.parametrize("weights", [3, 0.5, ["digits"]])
def test_weights_that_are_no_path_and_no_name_are_named(weights):
    with pytest.raises(ValueError, match="weights must be None, the path"):
        build("LISTA", weights=weights)
