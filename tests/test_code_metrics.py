"""Which atoms codes use, and what they explain: beside NumPy, alone and in `fit`."""

import keras
import numpy as np
import pytest
from helpers import eagerly as without_graphs
from helpers import signals, to_numpy, with_slow

from sc2keras import applications
from sc2keras.metrics import L0, DeadFraction, ExplainedVariance, FiringFrequency


def codes_of(n_samples, n_atoms, share=0.2, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.standard_normal((n_samples, n_atoms))
    return (codes * (rng.random(codes.shape) < share)).astype("float32")


def updated(metric, codes, batch_size=10):
    for start in range(0, len(codes), batch_size):
        metric.update_state(None, codes[start : start + batch_size])
    return float(to_numpy(metric.result()))


def test_l0_and_frequencies_are_those_of_numpy():
    codes = codes_of(40, 7)
    used = codes != 0
    assert updated(L0(), codes) == pytest.approx(used.sum(axis=1).mean())
    assert updated(L0(1.0), codes) == pytest.approx((abs(codes) > 1).sum(axis=1).mean())
    for quantile in (0.0, 0.5, 1.0):
        metric = FiringFrequency(quantile)
        expected = np.quantile(used.mean(axis=0), quantile)
        assert updated(metric, codes) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(metric.frequencies(), used.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("window, dead", [(None, 1), (20, 2), (30, 1), (1000, 1)])
def test_an_atom_is_dead_that_the_last_samples_do_not_use(window, dead):
    codes = np.ones((40, 5), "float32")
    codes[:, 1] = 0  # Never used,
    codes[20:, 3] = 0  # or not any more.
    metric = DeadFraction(window)
    assert updated(metric, codes) == pytest.approx(dead / 5)
    metric.reset_state()
    assert float(to_numpy(metric.result())) == 0


def test_explained_variance_of_parts_is_that_of_the_whole():
    rng = np.random.default_rng(0)
    x = (1e3 + rng.standard_normal((50, 6))).astype("float32")
    y = (x + 0.3 * rng.standard_normal(x.shape)).astype("float32")
    weight = rng.random(50).astype("float32")
    for w in (None, weight):
        metric = ExplainedVariance()
        for part in (slice(0, 7), slice(7, 30), slice(30, 50)):
            of_part = None if w is None else w[part]
            metric.update_state(x[part], y[part], sample_weight=of_part)
        full = np.ones(50) if w is None else w.astype(float)
        z = x.astype(float)
        mean = np.average(z, axis=0, weights=full)
        error, total = (
            full @ np.sum(a**2, axis=1) for a in (z - y.astype(float), z - mean)
        )
        found = float(to_numpy(metric.result()))
        assert found == pytest.approx(1 - error / total, abs=1e-3)


@pytest.mark.parametrize("eagerly", with_slow([True], [False]))
def test_they_stand_in_the_progress_bar_where_they_are_asked_for(eagerly):
    x = signals(60, 8)
    model = applications.SparseAutoencoder(12, (8,), k=2)
    names = ["l0", "dead", "firing", "explained_variance"]
    model.compile(keras.optimizers.SGD(0.0), metrics=names, run_eagerly=eagerly)
    history = model.fit(x, epochs=2, batch_size=20, verbose=0).history
    codes = model.encode(x)
    expected = {
        "l0": np.count_nonzero(codes, axis=1).mean(),
        "dead": np.mean(~codes.any(axis=0)),
        "firing": np.median((codes != 0).mean(axis=0)),
        "explained_variance": 1
        - np.sum((x - model.reconstruct(x)) ** 2) / np.sum((x - x.mean(axis=0)) ** 2),
    }
    found = model.evaluate(x, verbose=0, return_dict=True)
    for name, value in expected.items():
        assert history[name] == pytest.approx([value] * 2, abs=1e-4), name
        assert found[name] == pytest.approx(value, abs=1e-4), name


def test_a_saved_model_asks_for_them_again(tmp_path):
    model = applications.LISTA(6, (8,))
    metrics = [DeadFraction(50, 1e-3), FiringFrequency(0.1), ExplainedVariance(), L0()]
    model.compile(metrics=metrics)
    x = signals(30, 8)
    with without_graphs():
        model.fit(x, verbose=0)
        expected = model.evaluate(x, verbose=0, return_dict=True)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        found = loaded.evaluate(x, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    assert {"dead", "firing", "explained_variance", "l0"} <= set(found)


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: DeadFraction(0), "window must be an integer >= 1"),
        (lambda: FiringFrequency(1.5), "quantile must be at most 1"),
        (lambda: L0(-1.0), "threshold must be .*>= 0"),
    ],
)
def test_bad_arguments_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()
