import keras
import numpy as np
import pytest
from helpers import objective, signals, to_numpy, unit_atoms

from sc2keras.metrics import DualityGap, L1Norm, NonzeroFraction, ReconstructionError
from sc2keras.objective import relative_duality_gap


@pytest.fixture
def data():
    x, codes = signals(7, 6), signals(7, 5) - 0.5
    codes[np.abs(codes) < 0.2] = 0
    return x, codes, unit_atoms(5, 6).astype("float32")


def result_over_batches(metric, arrays, weights=None, **kwargs):
    for rows in (slice(0, 4), slice(4, 7)):
        weight = None if weights is None else weights[rows]
        batch = (a if a is None else a[rows] for a in arrays)
        metric.update_state(*batch, sample_weight=weight, **kwargs)
    return float(metric.result())


def per_sample(data):
    x, codes, dictionary = data
    gap = to_numpy(relative_duality_gap(x, codes, dictionary, 0.1))
    return [
        (
            ReconstructionError(),
            (x, codes @ dictionary),
            {},
            objective(x, codes, dictionary, 0),
        ),
        (L1Norm(), (None, codes), {}, np.abs(codes).sum(axis=1)),
        (NonzeroFraction(), (None, codes), {}, (codes != 0).mean(axis=1)),
        (DualityGap(0.1), (x, codes), {"dictionary": dictionary}, gap),
    ]


@pytest.mark.parametrize("i", range(4))
@pytest.mark.parametrize("weights", [None, np.arange(7, dtype="float32")])
def test_result_is_the_mean_over_the_samples_of_ragged_batches(data, i, weights):
    metric, arrays, kwargs, values = per_sample(data)[i]
    result = result_over_batches(metric, arrays, weights, **kwargs)
    assert result == pytest.approx(np.average(values, weights=weights), rel=1e-5)
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.parametrize("weights", [None, np.arange(7, dtype="float32")])
def test_reconstruction_error_of_images_is_that_of_flat_signals(data, weights):
    x, codes, dictionary = data
    images = x.reshape(7, 2, 3), (codes @ dictionary).reshape(7, 2, 3)
    result = result_over_batches(ReconstructionError(), images, weights)
    values = objective(x, codes, dictionary, 0)
    assert result == pytest.approx(np.average(values, weights=weights), rel=1e-5)


def test_nonzero_counts_magnitudes_above_its_threshold():
    metric = NonzeroFraction(threshold=0.5)
    metric.update_state(None, np.array([[-0.6, 0.4, 0.6, 0.0]], "float32"))
    assert float(metric.result()) == 0.5


@pytest.mark.parametrize(
    "metric",
    [
        ReconstructionError("mine"),
        L1Norm("mine"),
        NonzeroFraction(0.5, "mine"),
        DualityGap(0.3, "mine"),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_a_serialized_metric_is_the_same_metric(metric):
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(copy) is type(metric)
    assert copy.get_config() == metric.get_config()
    assert copy.name == "mine"
