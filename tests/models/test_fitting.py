import keras
import numpy as np
import pytest
from coders import build, cascade, changed, compiled, images, per_sample
from helpers import EXHAUSTIVE, max_norm, to_numpy, with_slow

from sc2keras.layers import FISTA, SLSTM, LISTABlock


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_fit_refuses_data_that_is_not_finite_and_changes_nothing(value):
    model, x = compiled(), images(16)
    x[9, 0, 0] = value
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"x must be finite.*in x\[9\]. Drop or fill"):
        model.fit(x, verbose=0)
    assert not any(changed(before, model.get_weights()))


@pytest.mark.parametrize(
    "method", ["fit", "evaluate", "predict", "encode", "reconstruct", "train_on_batch"]
)
def test_integer_images_warn_and_name_preprocess_input(method):
    model = compiled()
    x = (255 * images(4)).astype("uint8")
    options = {"verbose": 0} if method in ("fit", "evaluate", "predict") else {}
    match = "x has dtype uint8.*preprocess_input"
    with pytest.warns(UserWarning, match=match) as caught:
        getattr(model, method)(x, **options)
    assert [w.filename for w in caught if "uint8" in str(w.message)] == [__file__]


def test_integer_images_in_tf_data_warn(tf):
    x = (255 * images(4)).astype("uint8")
    for data in (x, (x, np.zeros(4))):
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(2)
        with pytest.warns(UserWarning, match="dtype uint8.*preprocess_input"):
            compiled().encode(dataset)


def test_a_solver_has_nothing_to_fit_and_says_what_to_do():
    model = build(FISTA)
    model.compile()
    with pytest.raises(ValueError, match=r"no trainable weights.*learn_dictionary"):
        model.fit(images(4), verbose=0)


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
@pytest.mark.parametrize("encoder", with_slow([SLSTM], [LISTABlock], EXHAUSTIVE))
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


@pytest.mark.parametrize("epochs", [-1, 2.5, "3", None])
def test_epochs_that_are_no_number_of_epochs_are_named(epochs):
    with pytest.raises(ValueError, match="epochs must be an integer >= 0; received"):
        compiled().fit(images(4), epochs=epochs, verbose=0)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,), lambda x: {"inputs": x}])
def test_held_out_data_are_looked_at_however_they_come(wrap):
    bad = images(8)
    bad[3, 1, 1] = np.nan
    model = compiled(cascade())
    with pytest.raises(ValueError, match=r"validation_data must be finite.*\[3\]"):
        model.fit(images(8), validation_data=wrap(bad), verbose=0)


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


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_a_number_of_steps_that_is_none_is_refused(method, steps):
    with pytest.raises(ValueError, match="steps must be an integer >= 1"):
        getattr(compiled(build()), method)(images(4), steps=steps, verbose=0)
