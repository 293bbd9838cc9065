import itertools
import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from helpers import to_numpy
from mishaps import KILLS, full_disk, killed_again_and_again

from sc2keras.applications import LISTA, SC2Net
from sc2keras.callbacks import Checkpoint
from sc2keras.models.divergence import DivergenceError

X = np.random.default_rng(0).random((40, 6), dtype="float32")
STEPS = 3  # Of 16 samples.


def build(n_atoms=4, optimizer=None, **kwargs):
    model = LISTA(n_atoms, input_shape=(6,), n_steps=2, **kwargs)
    model.compile(optimizer, run_eagerly=True)
    return model


def fit(model, path, epochs, *callbacks, every=1, **kwargs):
    return model.fit(
        X,
        batch_size=16,
        epochs=epochs,
        callbacks=[*callbacks, Checkpoint(path, every=every)],
        verbose=0,
        **kwargs,
    )


def updates(model):
    return int(to_numpy(model.optimizer.iterations))


def training(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("training.json"))


class Interrupt(keras.callbacks.Callback):
    """Raises in the second batch of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.at and batch >= 1:
            raise KeyboardInterrupt


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training.keras"


def check_same(model, other):
    for a, b in zip(
        [*model.weights, *model.optimizer.variables],
        [*other.weights, *other.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b), err_msg=a.path)


@pytest.mark.parametrize("policy", ["float64", "mixed_float16"])
def test_an_interrupted_training_ends_as_if_it_had_not_been(path, policy):
    if policy == "float64" and keras.backend.backend() != "tensorflow":
        pytest.skip("JAX has float64 only where it is switched on, PyTorch never.")
    keras.utils.set_random_seed(1)
    model = build(dtype=policy)
    start = model.get_weights()
    fit(model, path.with_name("other.keras"), 5, shuffle=False)

    broken = build(dtype=policy)
    broken.set_weights(start)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, path, 5, Interrupt(3), shuffle=False)
    assert training(path)["finished_epochs"] == 3

    again = build(dtype=policy)
    history = fit(again, path, 5, shuffle=False)
    assert history.epoch == [3, 4]
    assert updates(again) == 5 * STEPS
    check_same(again, model)


def test_it_works_beside_all_that_fit_has(path, tmp_path):
    def callbacks():
        return [
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras"),
            keras.callbacks.EarlyStopping("val_loss", patience=100),
            keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=100.0),
        ]

    kwargs = {"validation_data": X[:8], "every": 2}
    steps = 1 if keras.backend.backend() == "torch" else 2
    model = build()
    model.compile(keras.optimizers.Adam(0.01), steps_per_execution=steps)
    with pytest.raises(KeyboardInterrupt):
        fit(model, path, 6, *callbacks(), Interrupt(3), **kwargs)
    assert training(path)["finished_epochs"] == 2
    model = build()
    model.compile(keras.optimizers.Adam(0.01), steps_per_execution=steps)
    history = fit(model, path, 6, *callbacks(), **kwargs)
    assert history.epoch == [2, 3, 4, 5] and "val_loss" in history.history
    assert updates(model) == 6 * STEPS
    # Lowered by a tenth once before the interruption, and after it three times.
    np.testing.assert_allclose(float(model.optimizer.learning_rate.value), 1e-6, 1e-3)


def test_a_training_that_has_ended_is_not_trained_but_restored(path):
    model = build()
    fit(model, path, 2)
    content = path.read_bytes()
    again = build()
    assert fit(again, path, 2).epoch == []
    check_same(again, model)
    assert fit(again, path, 1).epoch == []
    assert path.read_bytes() == content
    # The epoch of the file is none of a fit without it.
    assert again._initial_epoch is None
    assert again.fit(X, epochs=2, verbose=0).epoch == [0, 1]
    # With more epochs it goes on.
    assert fit(again, path, 3).epoch == [2]
    assert again.fit(X, epochs=1, verbose=0).epoch == [0]


def test_a_training_that_another_callback_ended_has_ended(path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    fit(build(), path, 5, Stop())
    again = build()
    with pytest.warns(UserWarning, match="after epoch 2.*more than 5"):
        fit(again, path, 5)
    assert updates(again) == 2 * STEPS
    assert fit(again, path, 6).epoch == [2, 3, 4, 5]


def test_a_training_that_is_stopped_within_an_epoch_goes_on_after_the_last(path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = updates(self.model) == 2 * STEPS + 1

    fit(build(), path, 4, Stop())
    assert training(path)["finished_epochs"] == 2
    again = build()
    assert fit(again, path, 4).epoch == [2, 3]
    assert updates(again) == 4 * STEPS


def test_the_last_state_is_saved_whatever_every_is(path):
    model = build(optimizer=keras.optimizers.SGD(0.01, use_ema=True))
    fit(model, path, 3, every=2)
    assert training(path)["finished_epochs"] == 3
    # The averages have taken the place of the weights by then.
    loaded = keras.saving.load_model(path)
    check_same(loaded, model)


def test_a_file_of_another_model_is_refused_and_stays(path):
    fit(build(), path, 1)
    content = path.read_bytes()
    classified = SC2Net(4, input_shape=(6,), n_steps=2)
    classified.compile(run_eagerly=True)
    sgd = keras.optimizers.SGD()
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    plain.compile("sgd", loss="mse", run_eagerly=True)
    for model, difference in [
        (build(n_atoms=5), "n_atoms is 4, .* 5"),
        (build(l1=0.3), r"l1 is 0\.1, .* 0\.3"),
        (build(tied=False), "tied"),
        (classified, "encoder is 'sc2keras>LISTABlock'"),
        (build(optimizer=sgd), "optimizer is 'Adadelta', .* 'SGD'"),
        (plain, "class is 'SparseCoder', .* 'Sequential'"),
    ]:
        weights = model.get_weights()
        with pytest.raises(ValueError, match=difference):
            model.fit(X, X, epochs=2, callbacks=[Checkpoint(path)], verbose=0)
        for a, b in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert model._initial_epoch is None
    assert path.read_bytes() == content


def test_momentum_or_none_is_a_difference(path):
    fit(build(optimizer=keras.optimizers.SGD(0.1, momentum=0.9)), path, 1)
    with pytest.raises(ValueError, match="number of variables of the optimizer"):
        fit(build(optimizer=keras.optimizers.SGD(0.1)), path, 2)


def test_a_file_without_a_training_and_a_damaged_one_are_refused(path):
    model = build()
    model.save(path)
    with pytest.raises(ValueError, match="load_model, or name another file"):
        fit(model, path, 1)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"no whole \.keras file"):
        fit(model, path, 1)


def test_what_cannot_be_written_is_refused_before_the_first_epoch(tmp_path):
    with pytest.raises(ValueError, match=r"\.keras; received 'a\.weights\.h5'"):
        Checkpoint("a.weights.h5")
    with pytest.raises(ValueError, match="every=0"):
        Checkpoint("a.keras", every=0)
    model = build()
    with pytest.raises(FileNotFoundError, match="missing"):
        fit(model, tmp_path / "missing" / "a.keras", 1)
    assert updates(model) == 0


def test_a_state_that_is_not_finite_does_not_replace_the_file(path):
    class Poison(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                variable = self.model.optimizer.variables[-1]
                variable.assign(np.full(variable.shape, np.nan))

    with pytest.raises(DivergenceError, match="after epoch 2"):
        fit(build(), path, 3, Poison())
    assert training(path)["finished_epochs"] == 1
    assert fit(build(), path, 3).epoch == [1, 2]


def test_any_built_model_can_be_checkpointed(path):
    def train(epochs, *callbacks):
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
        model.compile("adam", loss="mse", run_eagerly=True)
        model.fit(
            X,
            X,
            batch_size=16,
            epochs=epochs,
            callbacks=[*callbacks, Checkpoint(path)],
            verbose=0,
        )
        return model

    with pytest.raises(KeyboardInterrupt):
        train(4, Interrupt(2))
    model = train(4)
    assert updates(model) == 4 * STEPS
    check_same(keras.saving.load_model(path), model)


TRAIN = """
import sys
path = sys.argv[1]


def work(ready):
    import keras
    import numpy as np
    from sc2keras.applications import LISTA
    from sc2keras.callbacks import Checkpoint

    class Ready(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ready()

    model = LISTA(4, input_shape=(6,), n_steps=2)
    model.compile(run_eagerly=True)
    model.fit(
        np.ones((40, 6), "float32"),
        batch_size=16,
        epochs=10**6,
        callbacks=[Checkpoint(path), Ready()],
        verbose=0,
    )
"""


@pytest.mark.parametrize("times", KILLS)
def test_after_a_kill_the_file_is_whole_and_the_training_goes_on(path, times):
    finished = 0
    for _ in killed_again_and_again(TRAIN, path, times=times):
        model = keras.saving.load_model(path)
        now = training(path)["finished_epochs"]
        assert updates(model) == now * STEPS
        assert now > finished
        finished = now
    # Some kills were within a save.
    assert any(name.startswith("unfinished-") for name in os.listdir(path.parent))


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_command_that_is_killed_and_run_again_ends_as_it_would_have(path):
    command = """
import os, signal, sys
import keras, numpy as np
from sc2keras.applications import LISTA
from sc2keras.callbacks import Checkpoint

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.value) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

model = LISTA(4, input_shape=(6,), n_steps=2)
model.compile(run_eagerly=True)
model.fit(np.ones((40, 6), "float32"), batch_size=16, epochs=4,
    callbacks=[Kill(), Checkpoint(sys.argv[1])], verbose=0)
print(int(model.optimizer.iterations.value))
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", command, path, at],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
        ).stdout
        for at in ("2", "7", "11", "0")
    ]
    assert outputs == ["", "", "", f"{4 * STEPS}\n"]


@pytest.mark.slow
def test_on_a_full_disk_the_old_file_stays(tmp_path):
    model = build(n_atoms=40)
    epochs = itertools.count(2)
    with full_disk(tmp_path) as tries:
        path = tmp_path / "training.keras"
        fit(model, path, 1)
        outcomes = tries(path, lambda: fit(model, path, next(epochs)), times=50)
    assert outcomes["failed"] > 10 < outcomes["written"]
