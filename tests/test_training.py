"""Tests of recipes: optimizer, learning rate, epochs."""

import keras
import numpy as np
import pytest

import sc2keras
from sc2keras import Recipe, applications


def rates(recipe, n_samples):
    schedule = recipe.make_optimizer(n_samples)._learning_rate
    return np.array([float(schedule(i)) for i in range(recipe.n_updates(n_samples))])


def test_the_rate_falls_to_zero_over_the_training():
    found = rates(Recipe(learning_rate=0.5, epochs=3, batch_size=10), 35)
    assert len(found) == 12
    expected = 0.25 * (1 + np.cos(np.pi * np.arange(12) / 12))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_rate_rises_first_if_asked_to():
    recipe = Recipe(learning_rate=0.5, epochs=4, warmup_epochs=1, batch_size=10)
    found = rates(recipe, 40)
    np.testing.assert_allclose(found[:5], [0.0, 0.125, 0.25, 0.375, 0.5], rtol=1e-5)
    assert found[-1] < 0.02


def test_default_is_the_adadelta_of_its_paper_at_a_constant_rate():
    optimizer = Recipe().make_optimizer()
    assert isinstance(optimizer, keras.optimizers.Adadelta)
    assert float(optimizer.learning_rate) == 1.0
    assert optimizer.epsilon == 1e-6
    assert Recipe(options={"epsilon": 1e-7}).make_optimizer().epsilon == 1e-7


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "adamw"])
def test_other_optimizers_by_name_train(name):
    model = applications.LISTA(6, (8,))
    recipe = Recipe(name, 1e-3, epochs=2, batch_size=8, clipnorm=1.0)
    before = model.dictionary
    x = np.random.default_rng(0).random((32, 8), dtype="float32")
    recipe.fit(model, x, verbose=0)
    assert np.abs(model.dictionary - before).max() > 1e-4
    assert type(model.optimizer) is type(keras.optimizers.get(name))
    assert model.optimizer.global_clipnorm == 1.0


def test_fit_keeps_what_is_compiled():
    model = applications.LISTA(6, (8,))
    model.compile(keras.optimizers.SGD(1e-3))
    optimizer = model.optimizer
    Recipe(epochs=1).fit(model, np.ones((4, 8), "float32"), verbose=0)
    assert model.optimizer is optimizer


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"epochs": 2, "warmup_epochs": 2}, "warmup_epochs=2"),
        ({"epochs": 2, "warmup_epochs": -1}, "warmup_epochs=-1"),
    ],
)
def test_unusable_values_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**arguments)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match=r"'adadelte'.*'adadelta'"):
        sc2keras.Recipe("adadelte").make_optimizer()
