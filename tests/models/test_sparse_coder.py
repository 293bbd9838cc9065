import os

import keras
import numpy as np
import pytest
from coders import (
    L1,
    SHAPE,
    build,
    changed,
    compiled,
    images,
    per_sample,
)
from helpers import max_norm, objective, shrink, signals, to_numpy, unit_atoms

from sc2keras import SparseCoder
from sc2keras.layers import FISTA, SLSTM, LISTABlock
from sc2keras.losses import ReconstructionLoss
from sc2keras.objective import relative_duality_gap


@pytest.mark.parametrize("encoder", [LISTABlock, SLSTM])
def test_fit_on_signals_alone_lowers_the_objective(encoder):
    model = build(encoder, activation="shrinkage")
    model.compile(keras.optimizers.SGD(0.1))
    x = images(40)
    before = per_sample(model, x)[0].mean()
    history = model.fit(x, batch_size=8, epochs=3, verbose=0).history
    assert sorted(history) == ["l1", "loss", "nonzero", "reconstruction"]
    assert np.diff(history["loss"]).max() < 0
    assert per_sample(model, x)[0].mean() < 0.9 * before
    assert max_norm(model.dictionary) <= 1 + 1e-6


def test_default_optimizer_is_the_adadelta_of_the_paper():
    model = build()
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.Adadelta)
    assert float(model.optimizer.learning_rate) == 1.0
    assert model.optimizer.epsilon == 1e-6


def test_gradient_flows_through_both_uses_of_the_dictionary():
    """One step of SGD against finite differences of the objective in NumPy."""
    dictionary = 0.8 * unit_atoms(6, 8)
    model = compiled(build(n_steps=2, dictionary=dictionary), learning_rate=0.01)
    x = images(5)
    weights = {w.name: to_numpy(w).astype("float64") for w in model.encoder.weights}

    def value(dictionary):
        flat = x.reshape(5, 8).astype("float64")
        codes = np.zeros((5, 6))
        for _ in range(2):
            codes = codes @ weights["recurrent_kernel"]
            codes = codes + weights["step_size"] * flat @ dictionary.T
            codes = shrink(codes, weights["threshold"])
        return objective(flat, codes, dictionary, L1).mean()

    gradient = np.zeros((6, 8))
    for index in np.ndindex(6, 8):
        step = np.zeros((6, 8))
        step[index] = 1e-6
        gradient[index] = (
            value(weights["dictionary"] + step) - value(weights["dictionary"] - step)
        ) / 2e-6
    model.fit(x, verbose=0)
    moved = (model.dictionary - weights["dictionary"]) / -0.01
    np.testing.assert_allclose(moved, gradient, atol=2e-4)
    assert np.abs(gradient).max() > 0.01


def test_evaluate_is_the_objective_of_all_samples_with_a_ragged_last_batch():
    model, x = compiled(), images(10)
    result = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    loss, reconstruction, l1, codes = per_sample(model, x)
    assert result["loss"] == pytest.approx(loss.mean(), rel=1e-5)
    assert result["reconstruction"] == pytest.approx(reconstruction.mean(), rel=1e-5)
    assert result["l1"] == pytest.approx(l1.mean(), rel=1e-5)
    assert result["nonzero"] == pytest.approx((np.abs(codes) > 1e-3).mean(), rel=1e-5)
    assert 0 < result["nonzero"] < 1


def test_sample_weights_weigh_the_objective_and_the_metrics():
    model, x = compiled(), images(10)
    weight = np.arange(10, dtype="float32")
    result = model.evaluate(
        x, sample_weight=weight, batch_size=4, verbose=0, return_dict=True
    )
    loss, reconstruction, l1, _ = per_sample(model, x)
    assert result["loss"] == pytest.approx((weight * loss).mean(), rel=1e-5)
    for name, values in {"reconstruction": reconstruction, "l1": l1}.items():
        expected = np.average(values, weights=weight)
        assert result[name] == pytest.approx(expected, rel=1e-5)


def test_samples_of_weight_zero_train_nothing():
    model, x = compiled(), images(8)
    before = model.get_weights()
    zeros = np.zeros(8, "float32")
    history = model.fit(
        x, sample_weight=zeros, validation_data=(x, None, 2 + zeros), verbose=0
    ).history
    for a, b in zip(before, model.get_weights(), strict=True):
        # The constraint rounds.
        np.testing.assert_allclose(a, b, atol=1e-6)
    expected = 2 * per_sample(model, x)[0].mean()
    assert history["val_loss"][0] == pytest.approx(expected, rel=1e-5)


def test_duality_gap_is_that_of_the_codes_for_the_dictionary_of_the_model():
    model, x = compiled(duality_gap=True), images(10)
    result = model.evaluate(x, batch_size=4, verbose=0, return_dict=True)
    codes = model.encode(x)
    gap = relative_duality_gap(x.reshape(10, 8), codes, model.dictionary, L1)
    assert result["duality_gap"] == pytest.approx(to_numpy(gap).mean(), rel=1e-4)
    history = model.fit(x, verbose=0).history
    assert "duality_gap" in history


def test_mixed_precision_trains_on_the_objective_in_float32():
    model = compiled(build(dtype="mixed_bfloat16"))
    x = images(16)
    exact = build()
    exact.set_weights(model.get_weights())
    expected = per_sample(exact, x)[0].mean()
    result = model.evaluate(x, verbose=0, return_dict=True)
    assert result["loss"] == pytest.approx(expected, rel=0.02)
    losses = model.fit(x, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    codes = model.encode(x)
    assert codes.dtype == "float32"
    assert model.encode([x[:4], x[4:]]).dtype == "float32"
    assert model.reconstruct(x).dtype == "float32"


@pytest.mark.parametrize("encoder", [LISTABlock, SLSTM])
def test_a_frozen_dictionary_stays_bit_identical(encoder):
    model = build(encoder, trainable_dictionary=False, activation="shrinkage")
    compiled(model)
    before, weights = model.dictionary, model.get_weights()
    model.fit(images(16), epochs=2, verbose=0)
    np.testing.assert_array_equal(model.dictionary, before)
    assert any(changed(weights, model.get_weights()))


def test_a_functional_model_with_the_same_weights_has_the_same_loss():
    coder, x = compiled(), images(10)
    flat = x.reshape(10, 8)
    inputs = keras.Input((8,))
    encoder = LISTABlock(6, n_steps=3, l1=L1)
    codes = keras.layers.ActivityRegularization(l1=L1)(encoder(inputs))
    model = keras.Model(inputs, encoder(codes, reverse=True))
    model.compile(keras.optimizers.SGD(0.1), ReconstructionLoss(), run_eagerly=True)
    model.set_weights(coder.get_weights())
    options = {"batch_size": 5, "verbose": 0}
    expected = coder.evaluate(x, return_dict=True, **options)["loss"]
    assert model.evaluate(flat, flat, **options) == pytest.approx(expected, rel=1e-5)
    coder.fit(x, shuffle=False, **options)
    model.fit(flat, flat, shuffle=False, **options)
    for a, b in zip(coder.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("loss", [None, "mse"])
def test_the_activity_regularizer_of_the_encoder_penalises_the_codes(loss):
    x = keras.Input((8,))
    options = {"n_atoms": 6, "n_steps": 3, "l1": L1}
    penalised = LISTABlock(activity_regularizer=keras.regularizers.L2(0.5), **options)
    plain = LISTABlock(**options)
    model, reference = SparseCoder(x, penalised(x)), SparseCoder(x, plain(x))
    reference.set_weights(model.get_weights())
    data, targets = signals(10, 8), signals(10, 6) if loss else None
    penalty = 0.5 * (model.encode(data) ** 2).sum() / 10
    losses = [
        compiled(m, loss=loss).evaluate(data, targets, verbose=0, return_dict=True)
        for m in (model, reference)
    ]
    expected = losses[1]["loss"] + penalty
    assert losses[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_clone_is_a_sparse_coder_that_trains():
    model, x = build(), images(8)
    clone = keras.models.clone_model(model)
    assert type(clone) is SparseCoder
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone.encode(x), model.encode(x))
    dictionary = model.dictionary
    compiled(clone).fit(x, verbose=0)
    assert (clone.dictionary != dictionary).any()
    np.testing.assert_array_equal(model.dictionary, dictionary)


def test_adadelta_by_name_warns_of_its_learning_rate():
    with pytest.warns(UserWarning, match=r"learning rate of 0.001.*Adadelta\(learning"):
        build().compile("adadelta")


@pytest.mark.parametrize("value", [-1.0, float("nan"), "1"])
def test_an_unusable_objective_weight_is_named(value):
    match = f"objective_weight must be .*received objective_weight={value!r}"
    with pytest.raises(ValueError, match=match):
        build().compile(objective_weight=value)


def test_progress_bar_shows_the_objective_and_its_terms(capsys):
    compiled().fit(images(4), verbose=2)
    printed = capsys.readouterr().out
    for name in ("loss:", "reconstruction:", "l1:", "nonzero:"):
        assert name in printed


# float64
def computes_in_float64():
    backend = keras.backend.backend()
    return backend == "tensorflow" or (
        backend == "jax" and os.environ.get("JAX_ENABLE_X64")
    )


@pytest.mark.parametrize("encoder", [LISTABlock, SLSTM, FISTA])
def test_float64_is_computed_stored_and_returned_on_every_way(encoder, tmp_path):
    if not computes_in_float64():
        with pytest.raises(ValueError, match=r"jax_enable_x64|to float32 there"):
            encoder(6, dtype="float64")
        return
    dictionary = unit_atoms(6, 8)
    options = {"n_atoms": 6, "n_steps": 3, "l1": L1, "dictionary": dictionary}
    if encoder is not FISTA:
        options["activation"] = "shrinkage"
    x = keras.Input((8,), dtype="float64")
    model = SparseCoder(x, encoder(dtype="float64", **options)(x))
    np.testing.assert_array_equal(model.dictionary, dictionary)
    data = np.random.default_rng(0).random((70, 8))
    codes = model.encode(data, batch_size=64)
    # As few rows as no compilation by XLA is worth.
    exact = model.encode(data)
    np.testing.assert_allclose(exact, codes, atol=1e-12)
    narrow = build(encoder, **options).encode(data.reshape(-1, *SHAPE))
    rounding = np.abs(narrow - codes).max()
    assert 0 < rounding < 1e-4
    ways = {
        "call": to_numpy(model(data)),
        "small batch": model.encode(data[:5]),
        "list": model.encode(data.tolist()),
        "generator": model.encode(part for part in (data[:30], data[30:])),
        "predict": compiled(model).predict(data, verbose=0),
        "predict_on_batch": model.predict_on_batch(data),
    }
    for way, found in ways.items():
        assert found.dtype == "float64", way
        np.testing.assert_allclose(found, codes[: len(found)], atol=1e-12, err_msg=way)
    assert model.decode(codes).dtype == model.reconstruct(data).dtype == "float64"
    np.testing.assert_allclose(model.decode(codes), codes @ dictionary, atol=1e-14)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.encode(data), exact)
    if encoder is not FISTA:
        model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
        loss = model.evaluate(data, verbose=0)[0]
        expected = objective(data, codes, dictionary, L1).mean()
        assert loss == pytest.approx(expected, rel=1e-6)
        model.fit(data, verbose=0)
        assert all(w.dtype == "float64" for w in model.weights)


def test_the_dictionary_is_a_copy_that_no_training_changes():
    model, copy = compiled(), compiled()
    dictionary = model.dictionary
    before = dictionary.copy()
    held = copy.dictionary
    kept = held.copy()
    copy.fit(images(8), verbose=0)
    np.testing.assert_array_equal(held, kept)
    dictionary[:] = 0
    np.testing.assert_array_equal(model.dictionary, before)
