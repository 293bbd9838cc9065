import keras
import numpy as np
import pytest
from helpers import objective, signals, to_numpy, unit_atoms, with_slow

from sc2keras import applications
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


def digits_model(**kwargs):
    return applications.LISTA(6, (8,), n_steps=2, l1=0.3, **kwargs)


def evaluated(model, *data, **kwargs):
    return model.evaluate(*data, verbose=0, return_dict=True, **kwargs)


@pytest.mark.parametrize(
    "metrics",
    [
        [NonzeroFraction(0.5, "big"), L1Norm("sum"), DualityGap(name="gap")],
        [NonzeroFraction(0.5, "big"), L1Norm("sum"), DualityGap(0.3, "gap")],
        {"codes": [NonzeroFraction(0.5, "big"), L1Norm("sum"), DualityGap()]},
    ],
)
@pytest.mark.parametrize("classes", with_slow([3], [None]))
def test_metrics_of_compile_are_those_of_the_codes(metrics, classes, tmp_path):
    model = digits_model(classes=classes)
    if isinstance(metrics, dict):
        metrics = {model.output_names[0]: next(iter(metrics.values()))}
    loss = "sparse_categorical_crossentropy" if classes else None
    model.compile(loss=loss, metrics=metrics)
    data = (signals(10, 8), np.arange(10) % 3)[: 2 if classes else 1]
    found = evaluated(model, *data)
    codes = model.encode(data[0])
    gap = relative_duality_gap(data[0], codes, model.dictionary, 0.3)
    assert found["big"] == pytest.approx(np.mean(np.abs(codes) > 0.5))
    assert found["sum"] == pytest.approx(found["l1"], rel=1e-5)
    name = "gap" if "gap" in found else "duality_gap"
    assert found[name] == pytest.approx(float(np.mean(to_numpy(gap))), rel=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert evaluated(loaded, *data) == pytest.approx(found, rel=1e-5)
    assert set(found) <= set(model.fit(*data, verbose=0).history)


@pytest.mark.parametrize("classes", [None, 3])
def test_metrics_of_compile_may_be_names_and_classes(classes, tmp_path):
    x = signals(10, 8)
    data = (x, np.arange(10) % 3) if classes else (x,)
    loss = "sparse_categorical_crossentropy" if classes else None
    model, more = digits_model(classes=classes), ["accuracy"] if classes else []
    given = [ReconstructionError("of_x"), L1Norm, "nonzero", "sc2keras>DualityGap"]
    model.compile(loss=loss, metrics=[*given, *more])
    found = evaluated(model, *data)
    assert {"of_x", "l1", "nonzero", "duality_gap", *more} <= set(found)
    error = objective(x, model.encode(x), model.dictionary, 0)
    assert found["of_x"] == pytest.approx(np.mean(error), rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert evaluated(loaded, *data) == pytest.approx(found, rel=1e-5)


def test_weighted_metrics_of_compile_weigh_and_metrics_do_not():
    model = digits_model()
    model.compile(metrics=[L1Norm("plain")], weighted_metrics=[L1Norm("weighted")])
    x, weights = signals(10, 8), np.arange(10, dtype="float32")
    found = evaluated(model, x, sample_weight=weights)
    norms = np.abs(model.encode(x)).sum(axis=1)
    assert found["plain"] == pytest.approx(norms.mean(), rel=1e-5)
    assert found["weighted"] == pytest.approx(np.average(norms, weights=weights), 1e-5)


def test_a_gap_without_a_problem_or_a_dictionary_is_refused_by_name():
    model = digits_model(activation="top_k")
    with pytest.raises(ValueError, match=r"to solve the LASSO.*Leave it out"):
        model.compile(metrics=["duality_gap"])
    x = keras.Input((8,))
    plain = keras.Model(x, keras.layers.Dense(8)(x))
    plain.compile(loss="mse", metrics=[DualityGap()])
    with pytest.raises(ValueError, match="'duality_gap' needs the dictionary"):
        plain.evaluate(signals(4, 8), signals(4, 8), verbose=0)
