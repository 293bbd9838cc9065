import keras
import numpy as np
import pytest
from helpers import signals, to_numpy

from sc2keras.applications import SC2Net

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras's own pipeline serves there"
)


def batches(*args, **kwargs):
    from sc2keras.backend.tensorflow import batches_of_arrays

    dataset = batches_of_arrays(keras.Sequential(), *args, **kwargs)
    return dataset, [keras.tree.map_structure(np.asarray, batch) for batch in dataset]


def test_every_row_comes_once_an_epoch_in_a_new_order():
    x, y = np.arange(22.0).reshape(11, 2), np.arange(11)
    dataset, first = batches([x, y], 4)
    second = [keras.tree.map_structure(np.asarray, batch) for batch in dataset]
    assert len(dataset) == len(first) == 3
    assert [len(rows) for rows, _ in first] == [4, 4, 3]
    orders = []
    for epoch in (first, second):
        rows = np.concatenate([part for part, _ in epoch])
        targets = np.concatenate([part for _, part in epoch])
        np.testing.assert_array_equal(rows, x[targets])
        assert sorted(targets) == list(range(11))
        orders.append(targets.tolist())
    assert orders[0] != orders[1]
    assert (rows.dtype, targets.dtype) == ("float32", y.dtype)


def test_the_seed_of_keras_decides_the_order():
    orders = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        orders.append(np.concatenate(batches([np.arange(50)], 7)[1]))
    np.testing.assert_array_equal(*orders)


def test_without_an_end_the_epochs_are_those_of_iterations():
    from sc2keras.backend.tensorflow import batches_of_arrays

    x = np.arange(11)
    keras.utils.set_random_seed(3)
    dataset = batches_of_arrays(keras.Sequential(), [x], 4)
    expected = [np.asarray(batch) for _ in range(3) for batch in dataset]
    keras.utils.set_random_seed(3)
    endless = batches_of_arrays(keras.Sequential(), [x], 4, repeat=True).take(9)
    for found, batch in zip(endless, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(found), batch)


@pytest.mark.parametrize("steps_per_execution", [1, 2, 3])
def test_fit_takes_every_row_once_an_epoch(steps_per_execution):
    x = signals(11, 6)
    model = SC2Net(4, (6,), n_steps=2)
    nothing = keras.optimizers.SGD(0.0)
    model.compile(nothing, jit_compile=False, steps_per_execution=steps_per_execution)
    expected = model.evaluate(x, verbose=0, return_dict=True)["loss"]
    history = model.fit(x, batch_size=4, epochs=3, verbose=0)
    assert history.history["loss"] == pytest.approx([expected] * 3, rel=1e-5)


@pytest.mark.parametrize("targets", [False, True])
def test_fit_gives_what_it_gives_with_the_pipeline_of_keras(targets):
    import tensorflow as tf

    x = signals(37, 6).astype("float32")
    arguments = {"sample_weight": np.linspace(0, 2, 37, dtype="float32")}
    losses, weights = [], []
    for convert in (np.asarray, tf.constant):
        keras.utils.set_random_seed(0)
        model = SC2Net(4, (6,), n_steps=2)
        model.compile(loss="mse" if targets else None, run_eagerly=True)
        y = convert(np.ones((37, 4), dtype="float32")) if targets else None
        history = model.fit(
            convert(x), y, 8, epochs=2, verbose=0, shuffle=False, **arguments
        )
        losses.append(history.history["loss"])
        weights.append(to_numpy(model.encoder.dictionary.value))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"validation_split": 0.25},
        {"steps_per_epoch": 2},
        {"shuffle": "batch"},
        {"validation_data": (np.ones((4, 6), dtype="float32"),)},
    ],
)
def test_other_arguments_of_fit_work_as_in_keras(arguments):
    model = SC2Net(4, (6,), n_steps=2)
    model.compile(run_eagerly=True)
    x = signals(40, 6).astype("float32")
    history = model.fit(x, batch_size=8, epochs=2, verbose=0, **arguments).history
    assert len(history["loss"]) == 2
    assert ("val_loss" in history) == any("validation" in name for name in arguments)


def test_fit_works_within_the_scope_of_a_strategy():
    import tensorflow as tf

    x = signals(32, 8)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = SC2Net(6, (8,), n_steps=2)
        model.compile()
        losses = model.fit(x, batch_size=16, epochs=2, verbose=0).history["loss"]
        assert model.dictionary.shape == (6, 8)
    assert losses[1] < losses[0]
