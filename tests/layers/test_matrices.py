"""The matrices W_d and W_e, their factored form, and when it is taken."""

import numpy as np
import pytest
from helpers import (
    FEW_WITH_MATRICES,
    layer_weight,
    perturb,
    signals,
    takes,
    tied_model,
    to_numpy,
    train,
    unit_atoms,
)

from sc2keras.layers import SLSTM, lista, matrices, recurrent


def shared(cls):
    """Of matrices for each step, none are shared."""
    return {"shared": True} if takes(cls, "shared") else {}


@pytest.mark.parametrize("cls", FEW_WITH_MATRICES)
@pytest.mark.parametrize("options", [{}, {"tied": False}])
def test_the_factored_form_is_the_same_with_the_product_of_its_matrices(
    cls, options, monkeypatch
):
    layer = cls(6, n_steps=3, recurrent="factored", **options, **shared(cls))
    layer.build((None, 8))
    perturb(layer)
    x, found = signals(20, 8), []
    asked = []
    for is_cheaper in (False, True):

        def rule(*sizes, answer=is_cheaper):
            asked.append(sizes)
            return answer

        for module in (recurrent, lista):
            monkeypatch.setattr(module, "is_product_cheaper", rule)
        model = tied_model(layer)
        start = model.get_weights()
        train(model, x)
        found.append([to_numpy(model(x)[0]), *model.get_weights()])
        model.set_weights(start)
    assert np.abs(found[0][1] - start[0]).max() > 1e-3
    for products, product in zip(*found, strict=True):
        np.testing.assert_allclose(products, product, atol=1e-4)
    n_products = 3 if cls is SLSTM else 1
    assert {sizes[:3] for sizes in asked} == {(n_products, 6, 8)}
    assert {sizes[4] for sizes in asked} == {3}


@pytest.mark.parametrize(
    "n_atoms, n_features, n_samples, expected",
    [
        (100, 784, None, True),
        (100, 3072, 256, True),
        (100, 784, 1, False),
        (2048, 784, None, False),
    ],
)
def test_the_product_is_taken_where_it_takes_fewer_operations(
    n_atoms, n_features, n_samples, expected
):
    found = matrices.is_product_cheaper(3, n_atoms, n_features, n_samples, 5)
    rows = 5 * (n_samples or 256)
    with_product = 3 * n_atoms**2 * n_features + rows * 3 * n_atoms**2
    assert found is (with_product < rows * 4 * n_features * n_atoms) is expected


@pytest.mark.parametrize("cls", FEW_WITH_MATRICES)
@pytest.mark.parametrize("trained", [False, True])
def test_the_step_size_is_trained_just_where_it_is_trainable(cls, trained):
    layer = cls(6, n_steps=2, trainable_step_size=trained)
    model = tied_model(layer)
    before = float(layer_weight(layer, "step_size"))
    train(model, signals(20, 8))
    after = float(layer_weight(layer, "step_size"))
    assert (after != before) is trained and after > 0
    copied = cls.from_config(layer.get_config())
    copied.build((None, 8))
    assert len(copied.trainable_weights) == len(layer.trainable_weights)


@pytest.mark.parametrize("cls", FEW_WITH_MATRICES)
def test_auto_factors_many_atoms_where_it_is_cheaper(cls, monkeypatch):
    assert matrices._MIN_ATOMS_TO_FACTOR == 2048
    monkeypatch.setattr(matrices, "_MIN_ATOMS_TO_FACTOR", 64)
    for n_atoms, n_features, factored in [
        (64, 8, True),
        (64, 60, False),
        (63, 8, False),
    ]:
        dictionary = unit_atoms(n_atoms, n_features)
        layer = cls(n_atoms, n_steps=2, dictionary=dictionary, **shared(cls))
        layer.build((None, n_features))
        assert getattr(layer, "cell", layer).factored is factored
        names = {weight.name for weight in layer.weights}
        assert ("recurrent_kernel" in names) is not factored
    with pytest.raises(ValueError, match=r"one of .*received recurrent='low'"):
        cls(5, recurrent="low")
