import keras
import numpy as np
import pytest
from helpers import objective, signals, to_numpy, unit_atoms

from sc2keras.losses import ReconstructionLoss, SparseCodingLoss


@pytest.fixture
def data():
    x, codes = signals(4, 6), signals(4, 5) - 0.5
    return x, codes, unit_atoms(5, 6).astype("float32")


def test_reconstruction_loss_sums_over_features_and_averages_over_the_batch(data):
    x, codes, dictionary = data
    expected = objective(x, codes, dictionary, l1=0).mean()
    loss = ReconstructionLoss()(x, codes @ dictionary)
    np.testing.assert_allclose(to_numpy(loss), expected, 1e-6)


def test_reconstruction_loss_of_images_is_that_of_flat_signals(data):
    x, codes, dictionary = data
    flat = ReconstructionLoss()(x, codes @ dictionary)
    images = ReconstructionLoss()(
        x.reshape(4, 2, 3), (codes @ dictionary).reshape(4, 2, 3)
    )
    assert float(flat) == float(images)


def test_sparse_coding_loss_is_the_objective(data):
    x, codes, dictionary = data
    loss = SparseCodingLoss(l1=0.3)(x, (codes @ dictionary, codes))
    expected = objective(x, codes, dictionary, l1=0.3).mean()
    np.testing.assert_allclose(to_numpy(loss), expected, 1e-6)


def test_losses_take_sample_weights_and_reductions(data):
    x, codes, dictionary = data
    weight = np.array([0, 1, 2, 5], "float32")
    values = objective(x, codes, dictionary, l1=0.3)
    prediction = (codes @ dictionary, codes)
    weighted = SparseCodingLoss(0.3)(x, prediction, sample_weight=weight)
    np.testing.assert_allclose(to_numpy(weighted), (weight * values).mean(), 1e-6)
    single = SparseCodingLoss(0.3, reduction="none")(x, prediction)
    np.testing.assert_allclose(to_numpy(single), values, 1e-5)
    total = ReconstructionLoss(reduction="sum")(x, prediction[0])
    expected = objective(x, codes, dictionary, l1=0).sum()
    np.testing.assert_allclose(to_numpy(total), expected, 1e-6)


@pytest.mark.parametrize(
    "loss",
    [ReconstructionLoss("sum", "mine"), SparseCodingLoss(0.25, "sum", "mine")],
    ids=lambda loss: type(loss).__name__,
)
def test_a_serialized_loss_is_the_same_loss(loss):
    config = keras.losses.serialize(loss)
    copy = keras.losses.deserialize(config)
    assert type(copy) is type(loss)
    assert copy.get_config() == loss.get_config()
    assert copy.name == "mine"
    assert copy.reduction == "sum"


@pytest.mark.parametrize("l1", [-0.1, float("nan")])
def test_an_unusable_l1_is_named(l1):
    with pytest.raises(ValueError, match=f"l1 must be .*>= 0; received l1={l1}"):
        SparseCodingLoss(l1)
