import keras
import numpy as np
import pytest
from coders import SHAPE, build, compiled, images
from helpers import FEW_TRAINED, to_numpy

from sc2keras.models.divergence import DivergenceError


@pytest.fixture
def batches_with_nan(tf):
    x = images(16)
    x[9, 0, 0] = np.nan
    return tf.data.Dataset.from_tensor_slices(x).batch(4)


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
    # On JAX a compiled step gives the memory of the weights away.
    is_eager = keras.backend.backend() != "jax"
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False, run_eagerly=is_eager)

    def stop(*_, **__):
        raise KeyboardInterrupt

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, batch_size=8, callbacks=[callback], verbose=0)
    assert np.isfinite(model.encode(x)).all()
    model.fit(x, batch_size=8, verbose=0)


@pytest.mark.parametrize("return_dict", [False, True])
@pytest.mark.parametrize("options", [{}, {"metrics": ["mae"]}])
def test_a_batch_that_diverges_is_told_of(return_dict, options):
    model, targets = compiled(loss="mse", **options), np.zeros((8, 6), "float32")
    model.train_on_batch(images(8), targets, return_dict=return_dict)
    targets[3, 2] = np.nan
    match = r"loss became nan, .*load the last good file.*learning rate.*fit\(\)"
    with pytest.raises(DivergenceError, match=match):
        model.train_on_batch(images(8), targets, return_dict=return_dict)


@pytest.mark.parametrize("cls", FEW_TRAINED)
def test_a_batch_with_a_bad_row_leaves_every_network_as_it_is(cls):
    model = compiled(build(cls))
    before, x = model.get_weights(), images(8)
    for value in (np.nan, np.inf):
        x[5, 0, 1] = value
        with pytest.raises(ValueError, match=r"x\[5\]"):
            model.train_on_batch(x)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
