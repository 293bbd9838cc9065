import keras
import numpy as np
import pytest
from coders import build, images
from helpers import to_numpy

from sc2keras.models.variables import (
    all_or_nothing,
    build_optimizer,
    check_finite_weights,
    first_not_finite,
    is_usable,
    kept,
)


@pytest.fixture
def model():
    model = build()
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    build_optimizer(model)
    return model


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(to_numpy(variable)) for variable in variables]


def spoil(model):
    for variable in (model.encoder.dictionary, model.optimizer.variables[-1]):
        variable.assign(np.full(variable.shape, np.nan))


def test_an_optimizer_is_built_once(model):
    before = model.optimizer.variables
    build_optimizer(model)
    assert len(before) > len(model.trainable_weights)
    assert all(a is b for a, b in zip(before, model.optimizer.variables, strict=True))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_model_and_optimizer(model, error):
    model.fit(images(4), verbose=0)
    before = state(model)
    with pytest.raises(error), all_or_nothing(model):
        spoil(model)
        raise error
    for a, b in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_block_that_succeeds_changes_them(model):
    with all_or_nothing(model) as variables:
        spoil(model)
    assert len(variables) == len(state(model))
    assert first_not_finite(variables) is model.encoder.dictionary
    assert not is_usable(model.encoder.dictionary)
    with pytest.raises(ValueError, match=r"dictionary' holds a NaN.*nothing was done"):
        check_finite_weights(model, "nothing was done")


def test_a_model_without_an_optimizer_is_taken_back_too():
    model = build()
    before = model.dictionary
    with pytest.raises(ValueError, match="here"), all_or_nothing(model):
        model.encoder.dictionary.assign(np.zeros(before.shape))
        raise ValueError("here")
    np.testing.assert_array_equal(model.dictionary, before)


def test_weights_that_a_backend_lost_are_brought_back(model, monkeypatch):
    monkeypatch.setattr("sc2keras.backend.MAY_LOSE_WEIGHTS", True, raising=False)
    before = model.dictionary
    with pytest.raises(ValueError, match="here"), kept(model):
        spoil(model)
        raise ValueError("here")
    np.testing.assert_array_equal(model.dictionary, before)
    with pytest.raises(ValueError, match="here"), kept(model):
        model.encoder.dictionary.assign(before / 2)
        raise ValueError("here")
    np.testing.assert_allclose(model.dictionary, before / 2)
