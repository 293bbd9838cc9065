"""The measures of sparse recovery beside their formulas in NumPy."""

import keras
import numpy as np
import pytest
from helpers import unit_atoms

from sc2keras import applications
from sc2keras.datasets import sparse_recovery
from sc2keras.evaluation import recovery_quality
from sc2keras.metrics import NMSE, FailureRate, MeanNMSE


@pytest.fixture
def codes():
    truth = sparse_recovery(6, 12, 30, density=0.5).codes
    errors = 10 ** np.random.default_rng(1).uniform(-4, 1, (30, 1))
    found = truth + errors * np.random.default_rng(2).standard_normal(truth.shape)
    found[3] = truth[3]
    truth[5] = 0
    return found.astype("float32"), truth


def by_hand(found, truth, weights=None):
    found, truth = found.astype("float64"), truth.astype("float64")
    weights = np.ones(len(truth)) if weights is None else weights
    error, power = np.sum((found - truth) ** 2, axis=1), np.sum(truth**2, axis=1)
    floored = 10 * np.log10((error / 12 + 1e-10) / (power / 12 + 1e-10))
    return {
        "nmse": 10 * np.log10(weights @ error / (weights @ power)),
        "mean_nmse": np.average(floored, weights=weights),
        "failures": np.average(error > 0.01 * power, weights=weights),
    }


@pytest.mark.parametrize("metric", [NMSE, MeanNMSE, FailureRate])
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_are_their_formulas_over_batches(metric, weighted, codes):
    found, truth = codes
    weights = np.random.default_rng(0).random(30) if weighted else None
    metric = type(metric := metric()).from_config(metric.get_config())
    for rows in (slice(0, 11), slice(11, 30)):
        of_rows = None if weights is None else weights[rows]
        metric.update_state(truth[rows], found[rows], sample_weight=of_rows)
    expected = by_hand(found, truth, weights)[metric.name]
    assert float(metric.result()) == pytest.approx(expected, rel=1e-4)


def test_quality_holds_all_of_them(codes):
    quality, expected = recovery_quality(*codes), by_hand(*codes)
    assert quality.ratio == pytest.approx(expected["nmse"], rel=1e-4)
    assert quality.mean == pytest.approx(expected["mean_nmse"], rel=1e-4)
    assert quality.failures == pytest.approx(expected["failures"])
    found, truth = (a.astype("float64") for a in codes)
    error, power = np.sum((found - truth) ** 2, axis=1), np.sum(truth**2, axis=1)
    keep = (power > 0) & (error > 0)
    middle = np.median(10 * np.log10(error[keep] / power[keep]))
    # Of the two that are left out one is exact, and one wrong without a limit.
    assert quality.median == pytest.approx(middle, abs=1e-3)


def test_the_definitions_disagree_as_they_do_in_papers():
    truth = np.ones((100, 4), "float32")
    found = truth * (1 + 1e-4)
    found[0] = 0
    quality = recovery_quality(found, truth)
    assert quality.ratio == pytest.approx(-20, abs=0.1)
    assert quality.mean == pytest.approx(-79.2, abs=0.1)
    assert quality.failures == pytest.approx(0.01)


def test_codes_that_are_no_numbers_have_failed():
    truth = np.ones((2, 3), "float32")
    found = np.array([[1, 1, 1], [np.nan, 1, 1]], "float32")
    assert recovery_quality(found, truth).failures == 0.5


def test_a_code_of_zeros_can_be_exact():
    zeros = np.zeros((2, 3), "float32")
    quality = recovery_quality(zeros, zeros)
    assert quality == (0.0, 0.0, 0.0, 0.0)


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"received \(2, 3\) and \(3,\)\."):
        recovery_quality(np.zeros((2, 3)), np.zeros(3))


def test_they_work_in_compile():
    data = sparse_recovery(n_samples=20, dictionary=unit_atoms(12, 8))
    model = applications.LISTA(12, (8,), dictionary=data.dictionary, n_steps=2)
    metrics = [NMSE(), MeanNMSE(), FailureRate()]
    model.compile(
        keras.optimizers.SGD(0.0), loss="mse", metrics=metrics, run_eagerly=True
    )
    history = model.fit(data.x, data.codes, batch_size=7, verbose=0).history
    quality = recovery_quality(model.encode(data.x), data.codes)
    assert history["nmse"][0] == pytest.approx(quality.ratio, abs=1e-3)
    assert history["mean_nmse"][0] == pytest.approx(quality.mean, abs=1e-3)
    assert history["failures"][0] == pytest.approx(quality.failures)
