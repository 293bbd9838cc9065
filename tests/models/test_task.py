import keras
import numpy as np
import pytest
from coders import (
    CODES,
    CROSSENTROPY,
    LABELS,
    build,
    cascade,
    changed,
    compiled,
    images,
    per_sample,
)
from helpers import unit_atoms

from sc2keras.layers import FISTA


def test_supervised_cascade_adds_the_loss_of_the_task():
    model = build(classes=3)
    compiled(model, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = images(10), np.arange(10) % 3
    result = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    codes, probabilities = model.predict(x, verbose=0)
    task = -np.log(probabilities[np.arange(10), y]).mean()
    expected = per_sample(model, x)[0].mean() + task
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    accuracy = (probabilities.argmax(axis=1) == y).mean()
    assert result["accuracy"] == pytest.approx(accuracy)
    np.testing.assert_allclose(model.encode(x), codes, atol=1e-6)
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    assert all(
        moved
        for moved, weight in zip(
            changed(before, model.get_weights()), model.weights, strict=True
        )
        if weight.trainable
    )


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_objective_weight_scales_the_objective_beside_the_task(weight):
    model = build(classes=3)
    options = {"loss": "sparse_categorical_crossentropy", "objective_weight": weight}
    compiled(model, **options)
    x, y = images(10), np.arange(10) % 3
    task = -np.log(model.predict(x, verbose=0)[1][np.arange(10), y]).mean()
    result = model.evaluate(x, y, verbose=0, return_dict=True)
    expected = weight * per_sample(model, x)[0].mean() + task
    assert result["loss"] == pytest.approx(expected, rel=1e-5)


def test_regression_on_codes_trains_an_encoder_for_a_given_dictionary():
    dictionary, x = unit_atoms(6, 8), images(32)
    exact = build(FISTA, dictionary=dictionary, n_steps=50).encode(x)
    model = build(dictionary=dictionary, trainable_dictionary=False, n_steps=2)
    before = model.dictionary
    model.compile(
        keras.optimizers.SGD(0.5), loss="mse", objective_weight=0.0, jit_compile=False
    )
    error = ((model.encode(x) - exact) ** 2).mean()
    start = model.evaluate(x, exact, verbose=0, return_dict=True)["loss"]
    assert start == pytest.approx(error, rel=1e-4)
    model.fit(x, exact, epochs=20, batch_size=8, verbose=0)
    assert ((model.encode(x) - exact) ** 2).mean() < 0.8 * error
    np.testing.assert_array_equal(model.dictionary, before)


def test_compile_without_a_loss_after_one_with_a_loss_forgets_the_task():
    model = build(classes=3)
    compiled(model, loss="sparse_categorical_crossentropy")
    x, y = images(10), np.arange(10) % 3
    model.fit(x, y, verbose=0)
    compiled(model)
    result = model.evaluate(x, verbose=0, return_dict=True)
    expected = per_sample(model, x)[0].mean()
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    assert sorted(result) == ["l1", "loss", "nonzero", "reconstruction"]
    compiled(model, loss="sparse_categorical_crossentropy")
    with_task = model.evaluate(x, y, verbose=0, return_dict=True)
    assert with_task["loss"] > result["loss"] + 0.1


def test_a_loss_without_targets_is_an_error_that_says_so():
    model = compiled(build(classes=3), loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"needs targets; received y=None. Use fit\(x"):
        model.fit(images(4), verbose=0)


@pytest.mark.parametrize(
    "loss",
    [
        CROSSENTROPY,
        [None, CROSSENTROPY],
        {"predictions": CROSSENTROPY},
    ],
)
@pytest.mark.parametrize(
    "targets",
    [
        {"predictions": LABELS},
        [CODES, LABELS],
        pytest.param([None, LABELS], marks=pytest.mark.slow),
        pytest.param((LABELS,), marks=pytest.mark.slow),
    ],
)
def test_losses_and_targets_may_be_named(loss, targets, tmp_path):
    model = cascade()
    x = images(10)
    plain = compiled(model, loss=CROSSENTROPY).evaluate(x, LABELS, verbose=0)
    compiled(model, loss=loss, metrics={"predictions": ["accuracy"]})
    result = model.evaluate(x, targets, verbose=0, return_dict=True)
    assert result["loss"] == pytest.approx(plain[0], rel=1e-5)
    probabilities = model.predict(x, verbose=0)[1]
    accuracy = (probabilities.argmax(axis=1) == LABELS).mean()
    assert result["accuracy"] == pytest.approx(accuracy)
    held_out = (x, targets)
    history = model.fit(x, targets, validation_data=held_out, verbose=0).history
    assert "val_accuracy" in history
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.evaluate(x, targets, verbose=0, return_dict=True)
    assert again == model.evaluate(x, targets, verbose=0, return_dict=True)


def test_codes_may_have_a_loss_of_their_own_beside_the_predictions():
    model, x = cascade(), images(10)
    names = model.output_names
    codes, probabilities = model.predict(x, verbose=0)
    task = -np.log(probabilities[np.arange(10), LABELS]).mean()
    expected = per_sample(model, x)[0].mean() + 0.5 * (codes**2).mean() + 2 * task
    for loss, weights, targets in [
        (["mse", CROSSENTROPY], [0.5, 2.0], [CODES, LABELS]),
        (
            dict(zip(names, ["mse", CROSSENTROPY], strict=True)),
            dict(zip(names, [0.5, 2.0], strict=True)),
            dict(zip(names, [CODES, LABELS], strict=True)),
        ),
    ]:
        compiled(model, loss=loss, loss_weights=weights)
        result = model.evaluate(x, targets, verbose=0, return_dict=True)
        assert result["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_name_that_is_no_output_is_named():
    with pytest.raises(ValueError, match=r"loss must be named.*received loss for .*no"):
        compiled(cascade(), loss={"no": CROSSENTROPY})
    model = compiled(cascade(), loss=CROSSENTROPY)
    with pytest.raises(ValueError, match=r"y must be named after the outputs"):
        model.fit(images(10), {"no": LABELS}, verbose=0)


def test_as_many_labels_as_outputs_are_labels():
    model, x = compiled(cascade(), loss=CROSSENTROPY), images(2)
    expected = model.evaluate(x, np.array([0, 1]), verbose=0)
    assert model.evaluate(x, [0, 1], verbose=0) == pytest.approx(expected)
    model.fit(x, [0, 1], sample_weight=[1.0, 2.0], verbose=0)


@pytest.mark.parametrize("name", ["y", "sample_weight"])
@pytest.mark.parametrize("kind", ["masked", "complex", "object", "strings"])
@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch"])
def test_targets_and_weights_that_are_no_numbers_are_named(name, kind, method):
    model, x = compiled(cascade(), loss=CROSSENTROPY), images(10)
    make = {
        "masked": lambda a: np.ma.masked_array(a, a == a[0]),
        "complex": lambda a: a.astype(complex),
        "object": lambda a: a.astype(object),
        "strings": lambda a: a.astype(str),
    }[kind]
    data = {"y": LABELS, "sample_weight": np.arange(10.0)}
    data[name] = make(data[name])
    options = {} if method == "train_on_batch" else {"verbose": 0}
    with pytest.raises(ValueError, match=rf"^{name} "):
        getattr(model, method)(x, **data, **options)
    assert np.isfinite(model.encode(x)).all()


@pytest.mark.parametrize("metric", ["mse", "accuracy"])
def test_metrics_without_targets_are_named(metric):
    model = build()
    model.compile(metrics=[metric])
    with pytest.raises(ValueError, match=r"need targets; received y=None. Use fit\(x"):
        model.fit(images(4), verbose=0)
    with pytest.raises(ValueError, match="need targets; received y=None"):
        model.evaluate(images(4), verbose=0)


def test_a_metric_that_needs_no_targets_has_none():
    model = build()
    model.compile(metrics=[keras.metrics.MeanMetricWrapper(lambda y, p: p, "mean")])
    assert "mean" in model.evaluate(images(4), verbose=0, return_dict=True)


def test_weights_in_a_list_are_weights_of_samples():
    model, x, y = compiled(cascade(), loss=CROSSENTROPY), images(2), [0, 1]
    for weight in ([1.0, 0.0], [0.25, 0.75]):
        expected = model.test_on_batch(x, np.array(y), np.array(weight))
        np.testing.assert_allclose(model.test_on_batch(x, y, weight), expected)


@pytest.mark.parametrize(
    "metrics",
    [
        {"predictions": "accuracy"},
        [None, "accuracy"],
        [None, ["accuracy"]],
        [[], "accuracy"],
    ],
)
def test_metrics_of_one_output_may_stand_alone(metrics):
    model, x = cascade(), images(10)
    y = model.predict(x, verbose=0)[1].argmax(axis=1)
    compiled(model, loss=CROSSENTROPY, metrics=metrics)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] == 1.0


def test_metrics_may_be_a_list_of_lists_with_one_an_output():
    model, x = build(classes=3), images(10)
    codes, y = model.encode(x), np.arange(10) % 3
    metrics = [[keras.metrics.MeanAbsoluteError(name="mae")], ["accuracy"]]
    compiled(model, loss=[None, "sparse_categorical_crossentropy"], metrics=metrics)
    result = model.evaluate(x, [codes + 1, y], verbose=0, return_dict=True)
    found = {key.split("_")[-1]: value for key, value in result.items()}
    assert found["mae"] == pytest.approx(1, rel=1e-5)
    probabilities = model.predict(x, verbose=0)[1]
    accuracy = (probabilities.argmax(axis=1) == y).mean()
    assert found["accuracy"] == pytest.approx(accuracy)
