import warnings

import keras
import numpy as np
import pytest
from helpers import signals

import sc2keras
from sc2keras import applications
from sc2keras.backend import HAS_STEPS_PER_EXECUTION
from sc2keras.models.activity import Activity

DEAD = "12 of 20 atoms dead"


def fit(model, x, **kwargs):
    """The messages of the package's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, verbose=0, **kwargs)
    own = [w for w in caught if str(w.message).startswith("Training ended")]
    # Attributed to the line of the user.
    assert all(w.filename == __file__ for w in own)
    return [str(w.message) for w in own]


def coder(l1=0.05, n_dead=0, **kwargs):
    """Some atoms of it have nothing to do with signals of 16 features."""
    dictionary = np.eye(20, 32, dtype="float32")
    dictionary[: 20 - n_dead, :16] = signals(20 - n_dead, 16)
    dictionary[20 - n_dead :] = np.eye(20, 32, 12)[20 - n_dead :]
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    return applications.LISTA(20, (32,), l1=l1, dictionary=dictionary, **kwargs)


@pytest.fixture
def x():
    return np.pad(signals(64, 16), [(0, 0), (0, 16)])


def test_a_training_that_works_does_not_warn(x):
    model = coder()
    model.compile()
    assert fit(model, x, epochs=2) == []


def test_codes_of_zeros_are_warned_of_once(x):
    model = coder(l1=100.0)
    model.compile(**({"steps_per_execution": 2} if HAS_STEPS_PER_EXECUTION else {}))
    (message,) = fit(model, x, epochs=3, validation_data=x[:8])
    assert "codes that are all zero" in message and "l1 than 100" in message
    assert len(fit(model, x)) == 1


def test_dead_atoms_are_counted_over_the_training_samples_alone(x):
    model = coder(n_dead=12)
    model.compile(keras.optimizers.SGD(0.0))
    # That of the validation would call them alive, and the others dead.
    held_out = np.roll(x, 16, axis=1)
    (message,) = fit(model, x, epochs=2, validation_data=held_out)
    assert DEAD in message and "sample_dictionary(x, 20)" in message


def test_at_most_half_of_the_atoms_dead_is_not_worth_a_warning(x):
    model = coder(n_dead=10)
    model.compile(keras.optimizers.SGD(0.0))
    assert fit(model, x) == []


def test_codes_of_another_unit_are_no_zeros(x):
    model = coder(l1=0.05e-6)
    model.compile(keras.optimizers.SGD(0.0))
    assert fit(model, 1e-6 * x) == []


def test_atoms_that_die_within_an_epoch_are_found():
    activity = Activity(3)
    activity.update_state(None, np.ones((4, 3), "float32"))
    for _ in range(140):
        activity.update_state(None, np.eye(3, dtype="float32")[:1])
    activity.keep()
    encoder = coder().encoder
    with pytest.warns(UserWarning, match="2 of 3 atoms dead"):
        activity.warn(encoder)


def test_an_interrupted_training_says_nothing(x):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model = coder(l1=100.0)
    model.compile()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, verbose=0, callbacks=[Interrupt()])


def test_a_dataset_and_a_classifier_are_looked_at_too(x):
    model = coder(l1=100.0, classes=3)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    batches = [(x[i : i + 16], np.arange(16) % 3) for i in range(0, 64, 16)]
    (message,) = fit(model, iter(batches), steps_per_epoch=4)
    assert "all zero" in message


def with_a_mean(shift):
    x = np.random.default_rng(0).standard_normal((256, 12))
    return (x + shift).astype("float32")


def autoencoder(**options):
    """Most of its atoms are never used."""
    model = applications.SparseAutoencoder(60, (12,), k=1, **options)
    model.encoder.kernel.assign(np.eye(12, 60) - np.eye(12, 60, 12))
    model.compile(keras.optimizers.SGD(0.0))
    return model


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize(
    ("shift", "offset", "is_named"),
    [(9.0, None, True), (9.0, 9.0, False), (0, 9, True)],
)
def test_of_a_mean_that_is_left_an_offset_is_the_remedy(
    shift, offset, is_named, batch_size
):
    x, model = with_a_mean(shift), autoencoder(offset=offset)
    (message,) = fit(model, x, batch_size=batch_size)
    found = " ".join(sc2keras.diagnose(model, x).findings)
    words = "offset=np.median(x, axis=0)", "sample_dictionary(x - offset, 60)"
    # Of batches of one sample nothing is known of a mean.
    is_known = batch_size > 1
    for text, expected in ((message, is_named and is_known), (found, is_named)):
        assert all((word in text) == expected for word in words), text


def test_an_offset_is_not_named_where_none_is_trained():
    model = autoencoder(trainable_offset=False)
    (message,) = fit(model, with_a_mean(9.0))
    assert "sample_dictionary(x, 60)" in message and "offset" not in message
