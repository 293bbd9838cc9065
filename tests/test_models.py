import os
import warnings

import keras
import numpy as np
import pytest
from helpers import max_norm, objective, shrink, signals, to_numpy, unit_atoms
from sklearn.exceptions import ConvergenceWarning

from sc2keras import SparseCoder
from sc2keras.layers import FISTA, SLSTM, LISTABlock
from sc2keras.losses import ReconstructionLoss
from sc2keras.objective import relative_duality_gap

SHAPE = (2, 4)
L1 = 0.05


def images(n_samples, seed=1):
    return signals(n_samples, 8, seed).reshape(-1, *SHAPE)


def build(encoder=None, classes=None, **options):
    options = {"n_atoms": 6, "n_steps": 3, "l1": L1, **options}
    encoder = encoder or LISTABlock
    x = keras.Input(SHAPE)
    outputs = encoder(**options)(keras.layers.Flatten()(x))
    if classes:
        outputs = [outputs, keras.layers.Dense(classes, activation="softmax")(outputs)]
    return SparseCoder(x, outputs)


def compiled(model=None, learning_rate=0.1, **options):
    model = model or build()
    # Eager: nothing is traced, which would take longer than the few batches here.
    model.compile(keras.optimizers.SGD(learning_rate), run_eagerly=True, **options)
    return model


def per_sample(model, x):
    """The objective of each sample, its two terms and the codes, in NumPy."""
    codes = to_numpy(model.encoder(x.reshape(len(x), -1)))
    x = x.reshape(len(x), -1)
    reconstruction = objective(x, codes, model.dictionary, 0)
    return (
        objective(x, codes, model.dictionary, model.encoder.l1),
        reconstruction,
        np.abs(codes).sum(axis=1),
        codes,
    )


def changed(before, after):
    return [(a != b).any() for a, b in zip(before, after, strict=True)]


@pytest.fixture
def tf():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.data is for the TensorFlow backend")
    return pytest.importorskip("tensorflow")


@pytest.fixture
def batches_with_nan(tf):
    x = images(16)
    x[9, 0, 0] = np.nan
    return tf.data.Dataset.from_tensor_slices(x).batch(4)


# Training


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


def test_validation_data_and_callbacks():
    x, held_out = images(16), images(10, seed=3)
    model = compiled()
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((epoch, logs["val_loss"]))
    )
    history = model.fit(
        x, validation_data=(held_out,), epochs=2, callbacks=[callback], verbose=0
    ).history
    assert seen == list(enumerate(history["val_loss"]))
    final = per_sample(model, held_out)[0].mean()
    assert history["val_loss"][-1] == pytest.approx(final, rel=1e-5)
    assert "val_reconstruction" in history
    split = model.fit(x, validation_split=0.25, verbose=0).history
    final = per_sample(model, x[12:])[0].mean()
    assert split["val_loss"][0] == pytest.approx(final, rel=1e-5)


def test_early_stopping_restores_the_best_weights():
    model, x = compiled(learning_rate=0.0), images(8)
    stop = keras.callbacks.EarlyStopping(
        "loss", patience=1, restore_best_weights=True, min_delta=1e-3
    )
    history = model.fit(x, epochs=10, callbacks=[stop], verbose=0).history
    assert len(history["loss"]) == 2


def test_fit_and_evaluate_on_tf_data_equal_those_on_the_array(tf):
    x = images(12)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(5)
    array_model, data_model = compiled(), compiled()
    data_model.set_weights(array_model.get_weights())
    result = data_model.evaluate(dataset, verbose=0)
    np.testing.assert_allclose(
        result, array_model.evaluate(x, batch_size=5, verbose=0), rtol=1e-6
    )
    array_model.fit(x, batch_size=5, shuffle=False, verbose=0)
    data_model.fit(dataset, verbose=0)
    for a, b in zip(array_model.get_weights(), data_model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_fit_on_a_py_dataset():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return (images(4, seed=index),)

    model = compiled()
    result = model.evaluate(Batches(), verbose=0, return_dict=True)
    x = np.concatenate([images(4, seed=i) for i in range(3)])
    assert result["loss"] == pytest.approx(per_sample(model, x)[0].mean(), rel=1e-5)
    before = model.get_weights()
    model.fit(Batches(), verbose=0)
    assert any(changed(before, model.get_weights()))


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


# Tasks beside the objective


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
    exact = build(FISTA, dictionary=dictionary, n_steps=200).encode(x)
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


# Encoding


def test_encode_decode_and_reconstruct_equal_the_layers_calls():
    model, x = build(), images(10)
    expected = per_sample(model, x)[3]
    for batch_size in (3, 10, 100):
        codes = model.encode(x, batch_size=batch_size)
        np.testing.assert_allclose(codes, expected, atol=1e-6)
        decoded = model.decode(codes, batch_size=batch_size)
        assert decoded.shape == (10, *SHAPE)
        np.testing.assert_allclose(
            decoded.reshape(10, 8), expected @ model.dictionary, atol=1e-6
        )
        reconstructed = model.reconstruct(x, batch_size=batch_size)
        np.testing.assert_allclose(reconstructed, decoded, atol=1e-6)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)


def count_rows_of_encode(monkeypatch):
    """A list that grows by the number of rows of each call of the compiled model."""
    sizes, forward = [], SparseCoder._forward

    def counting(self, use_xla):
        return lambda rows: sizes.append(len(rows)) or forward(self, use_xla)(rows)

    monkeypatch.setattr(SparseCoder, "_forward", counting)
    return sizes


def test_memory_maps_are_read_and_written_a_batch_at_a_time(tmp_path, monkeypatch):
    model, x = build(), images(10)
    expected = model.encode(x)

    def memory_map(name, shape):
        return np.lib.format.open_memmap(
            tmp_path / name, mode="w+", dtype="float32", shape=shape
        )

    source = memory_map("x.npy", x.shape)
    source[:] = x
    sizes = count_rows_of_encode(monkeypatch)
    codes = memory_map("codes.npy", (10, 6))
    assert model.encode(source, batch_size=4, out=codes) is codes
    # The rest is filled up, so that nothing is compiled for its size.
    assert sizes == [4, 4, 4]
    codes.flush()
    np.testing.assert_allclose(np.load(tmp_path / "codes.npy"), expected, atol=1e-6)
    signals_out = memory_map("decoded.npy", x.shape)
    assert model.decode(codes, batch_size=4, out=signals_out) is signals_out
    np.testing.assert_allclose(signals_out, model.decode(expected), atol=1e-6)
    signals_out[:] = 0
    assert model.reconstruct(source, batch_size=4, out=signals_out) is signals_out
    np.testing.assert_allclose(signals_out, model.decode(expected), atol=1e-6)


def test_small_batches_of_an_iterable_are_gathered(monkeypatch):
    model, x = build(), images(10)
    expected = model.encode(x)
    sizes = count_rows_of_encode(monkeypatch)
    parts = [x[:1], x[1:3], x[3:3], x[3:8], x[8:]]
    codes = model.encode(iter(parts), batch_size=4)
    np.testing.assert_allclose(codes, expected, atol=1e-6)
    assert sizes == [4, 4, 4]
    assert model.encode(iter(parts[:2]), batch_size=4).shape == (3, 6)
    # Fewer rows than a batch are not worth a compilation.
    assert sizes[3:] == [3]


@pytest.mark.parametrize("n_rows", [0, 2, 9])
def test_samples_of_another_shape_are_named(n_rows):
    with pytest.raises(
        ValueError, match=r"\(n_samples, 2, 4\), the input .*received .*\(8,\)"
    ):
        build().encode([np.zeros((n_rows, 8), "float32")], batch_size=4)


def test_iterables_of_batches_are_encoded_in_order():
    model, x = build(), images(10)
    codes = model.encode(x)
    generator = (x[i : i + 4] for i in range(0, 10, 4))
    np.testing.assert_allclose(model.encode(generator), codes, atol=1e-6)
    with_labels = [(x[:4], np.zeros(4)), (x[4:], np.zeros(6))]
    np.testing.assert_allclose(model.encode(with_labels), codes, atol=1e-6)
    decoded = model.decode(codes)
    np.testing.assert_allclose(model.decode([codes[:7], codes[7:]]), decoded, atol=1e-6)
    np.testing.assert_allclose(model.reconstruct(with_labels), decoded, atol=1e-6)
    out = np.zeros((10, 6), "float32")
    assert model.encode([x[:4], x[4:]], out=out) is out
    np.testing.assert_allclose(out, codes, atol=1e-6)
    assert model.encode(iter(())).shape == (0, 6)
    assert model.encode(x[:0]).shape == (0, 6)
    assert model.decode(iter(())).shape == (0, *SHAPE)


def test_tf_data_is_encoded(tf):
    model, x = build(), images(10)
    codes = model.encode(x)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(4)
    np.testing.assert_allclose(model.encode(dataset), codes, atol=1e-6)
    labelled = tf.data.Dataset.from_tensor_slices((x, np.zeros(10))).batch(4)
    np.testing.assert_allclose(model.encode(labelled), codes, atol=1e-6)
    reconstructed = model.reconstruct(dataset)
    np.testing.assert_allclose(reconstructed, model.decode(codes), atol=1e-6)


@pytest.mark.parametrize("shape", [(10, 5), (9, 6), (10, 6, 1)])
def test_an_out_of_the_wrong_shape_is_named(shape):
    model, x = build(), images(10)
    with pytest.raises(ValueError, match=r"out must have shape \(.*, 6\), .*received"):
        model.encode(x, out=np.zeros(shape, "float32"))


@pytest.mark.parametrize("n_rows", [9, 11])
def test_an_out_that_an_iterable_does_not_fill_exactly_is_named(n_rows):
    model, x = build(), images(10)
    batches = [x[:9], x[9:]]
    with pytest.raises(ValueError, match=r"out must have .*a row for each sample"):
        model.encode(batches, out=np.zeros((n_rows, 6), "float32"))


def test_an_unusable_batch_size_is_named():
    with pytest.raises(ValueError, match=r"batch_size must be .*received batch_size=0"):
        build().encode(images(2), batch_size=0)


# Saving


@pytest.mark.parametrize("classes", [None, 3])
def test_a_compiled_model_is_loaded_with_all_that_training_needs(tmp_path, classes):
    x = images(8)
    y = np.arange(8) % 3 if classes else None
    loss = "sparse_categorical_crossentropy" if classes else None
    model = build(SLSTM, classes=classes, activation="shrinkage")
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=loss,
        objective_weight=0.5,
        duality_gap=True,
        jit_compile=False,
    )
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is SparseCoder
    np.testing.assert_array_equal(loaded.encode(x), model.encode(x))
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    for m in (model, loaded):
        m.fit(x, y, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


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


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_weights_that_are_not_finite_are_not_saved_over_a_good_file(tmp_path, name):
    model, path = build(), tmp_path / name
    save = model.save if name.endswith(".keras") else model.save_weights
    save(path)
    good = path.read_bytes()
    recurrent = model.encoder.recurrent_kernels[0]
    recurrent.assign(to_numpy(recurrent) * np.nan)
    with pytest.raises(
        ValueError, match=r"'.*recurrent_kernel' holds a NaN.*good file"
    ):
        save(path)
    assert path.read_bytes() == good


# Data that is not finite, or not scaled


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_fit_refuses_data_that_is_not_finite_and_changes_nothing(value):
    model, x = compiled(), images(16)
    x[9, 0, 0] = value
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"x must be finite.*in x\[9\]. Drop or fill"):
        model.fit(x, verbose=0)
    assert not any(changed(before, model.get_weights()))


@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_nan_in_tf_data_stops_training_and_keeps_the_good_file(
    batches_with_nan, tmp_path, save_freq
):
    path = tmp_path / "model.keras"
    model = compiled()
    model.save(path)
    good = path.read_bytes()
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_freq=save_freq)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(batches_with_nan, callbacks=[checkpoint], epochs=2, verbose=0)
    if save_freq == "epoch":
        assert path.read_bytes() == good
    saved = keras.saving.load_model(path)
    assert all(np.isfinite(w).all() for w in saved.get_weights())
    # The model itself is what it was, too.
    for a, b in zip(saved.get_weights(), model.get_weights(), strict=True):
        assert save_freq == 1 or (a == b).all()
    model.save(path)


def test_nan_in_an_iterable_or_in_the_targets_stops_training():
    def batches():
        for seed in range(4):
            x = images(4, seed)
            x[0, 0, 0] = np.nan if seed == 2 else 0
            yield (x,)

    match = r"loss became nan, and training was stopped. .*data or the targets"
    with pytest.raises(ValueError, match=match):
        compiled().fit(batches(), steps_per_epoch=4, verbose=0)
    targets = np.zeros((8, 6), "float32")
    targets[3, 2] = np.nan
    with pytest.raises(ValueError, match=match):
        compiled(loss="mse").fit(images(8), targets, verbose=0)


@pytest.mark.parametrize("steps_per_execution", [1, 20])
def test_nan_stops_training_long_before_the_end_of_a_long_epoch(steps_per_execution):
    if steps_per_execution > 1 and keras.backend.backend() == "torch":
        pytest.skip("Keras has no steps_per_execution on PyTorch")

    def batches():
        for i in range(400):
            x = images(1)
            x[0, 0, 0] = np.nan if i > 30 else 0
            yield (x,)

    seen = []
    model = build(n_steps=1)
    model.compile(jit_compile=False, steps_per_execution=steps_per_execution)
    recorder = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    with pytest.raises(ValueError, match="loss became nan"):
        model.fit(batches(), steps_per_epoch=400, callbacks=[recorder], verbose=0)
    assert max(seen) < 120


def test_a_loss_that_overflows_stops_training():
    match = r"loss became inf, .*lower the learning rate"
    with pytest.raises(ValueError, match=match):
        compiled().fit(1e25 * images(8), verbose=0)


@pytest.mark.parametrize("method", ["fit", "encode", "reconstruct"])
def test_integer_images_warn_and_name_preprocess_input(method):
    model = compiled()
    x = (255 * images(4)).astype("uint8")
    options = {"verbose": 0} if method == "fit" else {}
    with pytest.warns(UserWarning, match="x has dtype uint8.*preprocess_input"):
        getattr(model, method)(x, **options)


def test_integer_images_in_tf_data_warn(tf):
    x = (255 * images(4)).astype("uint8")
    for data in (x, (x, np.zeros(4))):
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(2)
        with pytest.warns(UserWarning, match="dtype uint8.*preprocess_input"):
            compiled().encode(dataset)


# Bad arguments


def test_a_solver_has_nothing_to_fit_and_says_what_to_do():
    model = build(FISTA)
    model.compile()
    with pytest.raises(ValueError, match=r"no trainable weights.*learn_dictionary"):
        model.fit(images(4), verbose=0)


def test_adadelta_by_name_warns_of_its_learning_rate():
    with pytest.warns(UserWarning, match=r"learning rate of 0.001.*Adadelta\(learning"):
        build().compile("adadelta")


@pytest.mark.parametrize("value", [-1.0, float("nan"), "1"])
def test_an_unusable_objective_weight_is_named(value):
    match = f"objective_weight must be .*received objective_weight={value!r}"
    with pytest.raises(ValueError, match=match):
        build().compile(objective_weight=value)


def test_models_of_the_wrong_form_are_refused():
    x = keras.Input((8,))
    encoder = LISTABlock(6, n_steps=2)
    codes = encoder(x)
    head = keras.layers.Dense(3)
    with pytest.raises(ValueError, match=r"received 1 inputs and 3 outputs"):
        SparseCoder(x, [codes, head(codes), head(codes)])
    with pytest.raises(ValueError, match=r"received 2 inputs and 1 outputs"):
        other = keras.Input((6,))
        SparseCoder([x, other], encoder(x))
    with pytest.raises(ValueError, match=r"output of an encoder of sc2keras.layers"):
        SparseCoder(x, keras.layers.Dense(6)(x))
    with pytest.raises(ValueError, match=r"output of an encoder of sc2keras.layers"):
        SparseCoder(x, [head(codes), codes])
    with pytest.raises(ValueError, match=r"only Flatten and Reshape .*Dense"):
        SparseCoder(x, LISTABlock(6)(keras.layers.Dense(8)(x)))
    with pytest.raises(ValueError, match=r"return_sequences=False"):
        SparseCoder(x, LISTABlock(6, return_sequences=True)(x))
    image = keras.Input((4, 2))
    with pytest.raises(ValueError, match=r"shape \(batch, n_atoms\).*flatten the"):
        SparseCoder(image, LISTABlock(6)(image))


def test_reshape_may_stand_before_the_encoder():
    x = keras.Input((8,))
    reshaped = keras.layers.Flatten()(keras.layers.Reshape((2, 4))(x))
    model = SparseCoder(x, LISTABlock(6, n_steps=2, l1=L1)(reshaped))
    data = signals(4, 8)
    result = compiled(model).evaluate(data, verbose=0, return_dict=True)
    assert result["loss"] == pytest.approx(per_sample(model, data)[0].mean(), rel=1e-5)


def test_progress_bar_shows_the_objective_and_its_terms(capsys):
    compiled().fit(images(4), verbose=2)
    printed = capsys.readouterr().out
    for name in ("loss:", "reconstruction:", "l1:", "nonzero:"):
        assert name in printed


# A training that diverges


def optimizer_values(model):
    return [to_numpy(v).copy() for v in model.optimizer.variables]


def diverging_data():
    """Good batches, and then one that no learning rate survives."""
    for i in range(8):
        yield ((1e30 if i == 5 else 1.0) * images(4, seed=i),)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_weights_and_optimizer_are_taken_back(run_eagerly):
    model = build()
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=run_eagerly)
    model.fit(images(16), verbose=0)
    weights, state = model.get_weights(), optimizer_values(model)
    weights = [w.copy() for w in weights]
    with pytest.raises(ValueError, match="again what they were before this fit"):
        model.fit(diverging_data(), steps_per_epoch=8, verbose=0)
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(state, optimizer_values(model), strict=True):
        np.testing.assert_array_equal(a, b)
    losses = model.fit(images(16), epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and np.isfinite(model.encode(images(4))).all()


def test_an_update_that_ruins_the_weights_after_the_last_loss_is_noticed():
    model = build()
    model.compile(keras.optimizers.SGD(3e38), run_eagerly=True)
    weights = [w.copy() for w in model.get_weights()]
    with pytest.raises(ValueError, match="holds a NaN or an infinity, and training"):
        model.fit(100 * images(4), batch_size=4, verbose=0)
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_last_good_epoch_is_what_is_left_of_a_long_training(monkeypatch):
    from sc2keras.models import divergence

    monkeypatch.setattr(divergence, "_SHARE_OF_COPIES", 1e9)
    model, kept = compiled(), {}
    recorder = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: kept.update(
            {epoch: [w.copy() for w in model.get_weights()]}
        )
    )
    with pytest.raises(ValueError, match="what they were at the end of epoch 2"):
        model.fit(
            (batch for batch in [*good_batches(4), (np.full((4, *SHAPE), 1e30),)]),
            steps_per_epoch=2,
            epochs=3,
            callbacks=[recorder],
            verbose=0,
        )
    for a, b in zip(kept[1], model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def good_batches(n):
    return [(images(4, seed=i),) for i in range(n)]


@pytest.mark.parametrize("where", ["weights", "optimizer"])
def test_a_fit_does_not_begin_on_what_is_not_finite(where):
    model = compiled()
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    model.fit(images(4), verbose=0)
    variables = model.weights if where == "weights" else model.optimizer.variables
    largest = max(variables, key=lambda v: np.prod(v.shape))
    largest.assign(np.full(largest.shape, np.nan))
    match = "holds a NaN or an infinity, so nothing was trained.*compile"
    with pytest.raises(ValueError, match=match):
        model.fit(images(4), verbose=0)
    if where == "weights":
        with pytest.raises(ValueError, match="nothing was predicted"):
            model.predict(images(4), verbose=0)
        with pytest.raises(ValueError, match="nothing was evaluated"):
            model.evaluate(images(4), verbose=0)
        with pytest.raises(ValueError, match="holds a NaN"):
            model.encode(images(4))


def test_a_list_of_callbacks_of_keras_is_watched_too():
    model = compiled()
    callbacks = keras.callbacks.CallbackList([], model=model, add_history=True)
    with pytest.raises(ValueError, match="what they were before this fit"):
        model.fit(diverging_data(), steps_per_epoch=8, callbacks=callbacks, verbose=0)
    assert len(callbacks.callbacks) == 1
    assert np.isfinite(model.dictionary).all()


# Constraints, whatever the optimizer does


@pytest.mark.parametrize(
    "options",
    [
        {"use_ema": True, "ema_momentum": 0.5},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
        {"gradient_accumulation_steps": 2},
        {"weight_decay": 0.5},
        {"global_clipnorm": 0.1},
        {"loss_scale_factor": 8.0},
    ],
    ids=lambda options: next(iter(options)) + str(len(options)),
)
@pytest.mark.parametrize("encoder", [LISTABlock, SLSTM])
def test_atoms_stay_in_the_ball_and_thresholds_non_negative(encoder, options):
    model = build(encoder, activation="shrinkage", n_steps=2)
    model.compile(keras.optimizers.SGD(5.0, **options), run_eagerly=True)
    model.fit(5 * images(16), batch_size=4, epochs=2, verbose=0)
    assert max_norm(model.dictionary) <= 1 + 1e-5
    thresholds = [w for w in model.weights if w.name == "threshold"]
    assert thresholds and all(to_numpy(t).min() >= 0 for t in thresholds)


def test_averages_that_another_callback_swaps_in_are_in_the_ball():
    model, norms = build(activation="shrinkage"), []
    optimizer = keras.optimizers.SGD(5.0, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, run_eagerly=True)
    x = 5 * images(16)
    if keras.backend.backend() == "jax":
        pytest.skip("Keras on JAX swaps where it holds no weights")

    def look_at_norms(*_, **__):
        norms.append(max_norm(model.dictionary))

    look = keras.callbacks.LambdaCallback(on_epoch_end=look_at_norms)
    look.on_test_end = look_at_norms
    callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True), look]
    model.fit(
        x, batch_size=4, epochs=2, validation_data=(x,), callbacks=callbacks, verbose=0
    )
    assert norms and max(norms) <= 1 + 1e-5


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
    narrow = build(encoder, **options).encode(data.reshape(-1, *SHAPE))
    rounding = np.abs(narrow - codes).max()
    assert 0 < rounding < 1e-4
    ways = {
        "call": to_numpy(model(data)),
        "small batch": model.encode(data[:5]),
        "list": model.encode(data.tolist()),
        "generator": model.encode(part for part in (data[:30], data[30:])),
        "predict": model.predict(data, verbose=0),
        "predict_on_batch": model.predict_on_batch(data),
    }
    for way, found in ways.items():
        assert found.dtype == "float64", way
        np.testing.assert_allclose(found, codes[: len(found)], atol=1e-12, err_msg=way)
    assert model.decode(codes).dtype == model.reconstruct(data).dtype == "float64"
    np.testing.assert_allclose(model.decode(codes), codes @ dictionary, atol=1e-14)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.encode(data, batch_size=64), codes)
    if encoder is not FISTA:
        model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
        loss = model.evaluate(data, verbose=0)[0]
        expected = objective(data, codes, dictionary, L1).mean()
        assert loss == pytest.approx(expected, rel=1e-6)
        model.fit(data, verbose=0)
        assert all(w.dtype == "float64" for w in model.weights)


# Losses and targets as Keras takes them for several outputs

CROSSENTROPY = "sparse_categorical_crossentropy"
CODES = np.zeros((10, 6), "float32")
LABELS = np.arange(10) % 3


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
    assert np.isfinite(loaded.evaluate(x, targets, verbose=0)[0])


def cascade():
    x = keras.Input(SHAPE, name="inputs")
    codes = LISTABlock(6, n_steps=2, l1=L1)(keras.layers.Flatten()(x))
    head = keras.layers.Dense(3, activation="softmax", name="predictions")
    return SparseCoder(x, [codes, head(codes)])


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


# A solver that its cap stops


@pytest.mark.parametrize("method", ["encode", "reconstruct", "predict", "__call__"])
def test_a_solver_that_its_cap_stops_warns_once_on_every_way(method):
    model = build(FISTA, n_steps=10, tol=1e-7, dictionary=unit_atoms(6, 8))
    x = images(150)
    call = getattr(model, method)
    options = {"verbose": 0} if method == "predict" else {}
    if method != "__call__":
        options["batch_size"] = 64
    match = r"^\d+ of 150 rows have not reached tol=1e-07 after n_steps=10 steps; .*gap"
    with pytest.warns(ConvergenceWarning, match=match) as caught:
        call(x, **options)
    ours = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    assert len(ours) == 1 and ours[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        other = build(FISTA, n_steps=2000, tol=1e-3, dictionary=unit_atoms(6, 8))
        getattr(other, method)(x, **options)


@pytest.mark.parametrize("epochs", [-1, 2.5, "3", None])
def test_epochs_that_are_no_number_of_epochs_are_named(epochs):
    with pytest.raises(ValueError, match="epochs must be an integer >= 0; received"):
        compiled().fit(images(4), epochs=epochs, verbose=0)


def test_as_many_labels_as_outputs_are_labels():
    model, x = compiled(cascade(), loss=CROSSENTROPY), images(2)
    expected = model.evaluate(x, np.array([0, 1]), verbose=0)
    assert model.evaluate(x, [0, 1], verbose=0) == pytest.approx(expected)
    model.fit(x, [0, 1], sample_weight=[1.0, 2.0], verbose=0)


def test_a_loss_that_overflows_takes_finite_weights_back_too():
    model = compiled(loss="mse")
    model.compile(keras.optimizers.SGD(0.1, clipvalue=1.0), "mse", run_eagerly=True)
    before = [w.copy() for w in model.get_weights()]
    targets = np.zeros((40, 6))
    targets[39, 0] = 1e25
    with pytest.raises(ValueError, match="before this fit"):
        model.fit(images(40), targets, batch_size=4, shuffle=False, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.iterations.value) == 0


def test_an_interrupt_leaves_a_model_that_works():
    model, x = build(), images(64)
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False)

    def stop(*_, **__):
        raise KeyboardInterrupt

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, batch_size=8, callbacks=[callback], verbose=0)
    assert np.isfinite(model.encode(x)).all()
    model.fit(x, batch_size=8, verbose=0)


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


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,), lambda x: {"inputs": x}])
def test_held_out_data_are_looked_at_however_they_come(wrap):
    bad = images(8)
    bad[3, 1, 1] = np.nan
    model = compiled(cascade())
    with pytest.raises(ValueError, match=r"validation_data must be finite.*\[3\]"):
        model.fit(images(8), validation_data=wrap(bad), verbose=0)


def test_weights_in_a_list_are_weights_of_samples():
    model, x, y = compiled(cascade(), loss=CROSSENTROPY), images(2), [0, 1]
    for weight in ([1.0, 0.0], [0.25, 0.75]):
        expected = model.test_on_batch(x, np.array(y), np.array(weight))
        np.testing.assert_allclose(model.test_on_batch(x, y, weight), expected)


@pytest.mark.parametrize("floatx", ["float16", "float64"])
def test_a_global_float_has_no_part_in_a_model_that_is_built(floatx):
    model, x = compiled(), 1e5 * images(8)
    expected = model.predict(x, verbose=0)
    loss = model.evaluate(x, verbose=0)
    keras.config.set_floatx(floatx)
    try:
        np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
        np.testing.assert_allclose(model.evaluate(x, verbose=0), loss, rtol=1e-6)
    finally:
        keras.config.set_floatx("float32")


def test_a_solver_in_a_narrow_dtype_predicts():
    for policy in ("mixed_bfloat16", "mixed_float16"):
        x = keras.Input((8,))
        model = SparseCoder(x, FISTA(6, tol=1e-3, dtype=policy)(x))
        data = signals(5, 8)
        predicted = model.predict(data, verbose=0).astype("float32")
        np.testing.assert_allclose(predicted, model.encode(data), atol=1e-2)
