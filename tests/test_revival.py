"""Dead atoms made anew: in every encoder, and what the optimizer knows of them."""

import contextlib

import keras
import numpy as np
import pytest
from helpers import TRAINABLE, perturb, signals, takes, to_numpy, unit_atoms, with_slow

from sc2keras import SparseCoder, applications, layers
from sc2keras.callbacks import ReviveAtoms
from sc2keras.revival import start_again

N_ATOMS, N_FEATURES = 8, 8  # As many, so that sizes do not tell axes apart.
DEAD = np.array([1, 6])
CLASSES = [cls for cls in TRAINABLE if takes(cls, "trainable_dictionary")]


def model_of(cls):
    inputs = keras.Input((N_FEATURES,))
    layer = cls(N_ATOMS, n_steps=2, trainable_dictionary=True)
    model = SparseCoder(inputs, layer(inputs))
    perturb(model.encoder)
    model.encoder.dictionary.assign(unit_atoms(N_ATOMS, N_FEATURES, seed=4))
    return model


@pytest.mark.parametrize(
    "cls", with_slow([layers.SLSTM, layers.SparseAutoencoderBlock], CLASSES)
)
def test_an_atom_that_is_made_anew_has_the_start_of_a_new_encoder(cls):
    model = model_of(cls)
    before = {w.path: np.array(to_numpy(w)) for w in model.encoder.weights}
    dictionary = np.array(model.dictionary, "float64")
    dictionary[DEAD] = unit_atoms(2, N_FEATURES, seed=8)
    start_again(model, dictionary, DEAD)
    config = model.encoder.get_config()
    config.pop("initial_dictionary", None)
    fresh = cls.from_config({**config, "dictionary": dictionary})
    fresh.build((None, N_FEATURES))
    np.testing.assert_allclose(model.dictionary, dictionary, atol=1e-6)
    n_changed = 0
    for weight, start in zip(model.encoder.weights, fresh.weights, strict=True):
        found, start = to_numpy(weight), to_numpy(start)
        # Each entry is that of the old encoder or that of the new one.
        is_old = found == before[weight.path]
        is_new = np.isclose(found, start, atol=1e-6)
        if cls is layers.SparseAutoencoderBlock and weight.name == "kernel":
            is_new[:, DEAD] = True  # Moderated: see below.
        assert (is_old | is_new).all(), weight.path
        n_changed += np.sum(~is_old)
    assert n_changed >= 2 * N_FEATURES
    assert np.isfinite(model.encode(signals(5, N_FEATURES))).all()


def test_a_new_atom_of_an_autoencoder_is_as_modest_as_half_of_the_others():
    model = model_of(layers.SparseAutoencoderBlock)
    dictionary = np.array(model.dictionary, "float64")
    dictionary[DEAD] = unit_atoms(2, N_FEATURES, seed=8)
    model.encoder.kernel.assign(0.8 * dictionary.T)
    start_again(model, dictionary, DEAD)
    kernel = to_numpy(model.encoder.kernel)
    expected = 0.8 * dictionary
    expected[DEAD] = 0.4 * dictionary[DEAD]
    np.testing.assert_allclose(kernel, expected.T, atol=1e-6)


def test_of_matrices_rows_and_columns_are_those_of_the_atoms():
    model = model_of(layers.LISTABlock)
    inputs = keras.Input((N_FEATURES,))
    layer = layers.LISTABlock(N_ATOMS, n_steps=2, tied=False)
    model = SparseCoder(inputs, layer(inputs))
    perturb(layer)
    layer.dictionary.assign(unit_atoms(N_ATOMS, N_FEATURES, seed=5))
    before = {w.name: np.array(to_numpy(w)) for w in layer.weights}
    dictionary = unit_atoms(N_ATOMS, N_FEATURES, seed=4)
    dictionary[[0, 2, 3, 4, 5, 7]] = before["dictionary"][[0, 2, 3, 4, 5, 7]]
    start_again(model, dictionary, DEAD)
    after = {w.name: np.array(to_numpy(w)) for w in layer.weights}
    alive = [0, 2, 3, 4, 5, 7]
    np.testing.assert_allclose(after["kernel"][:, DEAD], dictionary[DEAD].T, atol=1e-6)
    assert (after["kernel"][:, alive] == before["kernel"][:, alive]).all()
    changed = after["recurrent_kernel"] != before["recurrent_kernel"]
    assert changed[DEAD].all() and changed[:, DEAD].all()
    assert not changed[np.ix_(alive, alive)].any()


def test_numbers_an_atom_are_started_again_for_those_atoms():
    thresholds, l1 = np.linspace(0.1, 0.8, N_ATOMS), np.linspace(0.2, 0.9, N_ATOMS)
    inputs = keras.Input((N_FEATURES,))
    activation = layers.Shrinkage(thresholds)
    for options in ({"activation": activation}, {"l1": l1}):
        layer = layers.LISTABlock(N_ATOMS, n_steps=2, offset=l1, **options)
        model = SparseCoder(inputs, layer(inputs))
        start = to_numpy(layer.activations[0].threshold).copy()
        layer.activations[0].threshold.assign(np.full(N_ATOMS, 5.0))
        # The step size stays, and so the start.
        start_again(model, np.array(model.dictionary, "float64"), DEAD)
        found = to_numpy(layer.activations[0].threshold)
        np.testing.assert_allclose(found[DEAD], start[DEAD], rtol=1e-5)
        assert (np.delete(found, DEAD) == 5.0).all()


def test_the_optimizer_forgets_about_them():
    model, x = model_of(layers.SparseAutoencoderBlock), signals(64, N_FEATURES)
    model.compile(keras.optimizers.Adam(1e-3, use_ema=True))
    model.fit(x, epochs=3, verbose=0)
    before = {v.path: np.array(to_numpy(v)) for v in model.optimizer.variables}
    dictionary = np.array(model.dictionary, "float64")
    dictionary[DEAD] = unit_atoms(2, N_FEATURES, seed=8)
    start_again(model, dictionary, DEAD)
    n_slots = 0
    for variable in model.optimizer.variables:
        if "_dictionary_" not in variable.path:
            continue
        n_slots += 1
        found, old = to_numpy(variable), before[variable.path]
        is_average = variable.path.endswith("average")
        expected = dictionary[DEAD] if is_average else 0 * dictionary[DEAD]
        np.testing.assert_allclose(found[DEAD], expected, atol=1e-6)
        alive = np.setdiff1d(np.arange(N_ATOMS), DEAD)
        np.testing.assert_array_equal(found[alive], old[alive])
        assert old[alive].any()
    assert n_slots == 3


def test_new_atoms_are_what_is_left_of_samples_that_are_reconstructed_worst():
    x = np.zeros((50, N_FEATURES), "float32")
    x[:, 0] = 1.0
    x[7, :3] = [0.0, 30.0, 40.0]
    inputs = keras.Input((N_FEATURES,))
    atoms = np.eye(N_FEATURES)[[0, 5]]
    layer = layers.LISTABlock(2, n_steps=3, l1=0.01, dictionary=atoms)
    model = SparseCoder(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.0))
    revive = ReviveAtoms(x, until=0.5)
    model.fit(x, epochs=2, callbacks=[revive], verbose=0)
    assert revive.revived == {0: 1}
    np.testing.assert_allclose(model.dictionary[0], atoms[0], atol=1e-6)
    expected = np.zeros(N_FEATURES)
    expected[1:3] = [0.6, 0.8]
    np.testing.assert_allclose(model.dictionary[1], expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Training ended with")
def test_it_revives_what_is_dead_and_then_leaves_the_training_in_peace():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 40))
    x = (x + 0.3 * rng.standard_normal((500, 40))).astype("float32")

    def dead(callbacks):
        keras.utils.set_random_seed(0)
        model = applications.LISTA(64, (40,), l1=3.0)
        model.compile()
        model.fit(x, epochs=12, batch_size=50, callbacks=callbacks, verbose=0)
        return np.mean(~model.encode(x).any(axis=0))

    revive = ReviveAtoms(x, every=2, until=0.7)
    assert dead([]) > 0.2
    assert dead([revive]) <= 0.02
    assert list(revive.revived) == [1, 3, 5, 7]
    assert revive.revived[1] > 0


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda x: ReviveAtoms(x, every=0), "every must be an integer >= 1"),
        (lambda x: ReviveAtoms(x, until=1.5), "until must be at most 1"),
        (lambda x: ReviveAtoms(x, n_samples=0), "n_samples must be an integer >= 1"),
    ],
)
def test_bad_arguments_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make(signals(4, 8))


def test_a_model_that_trains_no_dictionary_is_refused_before_it_trains():
    x = signals(20, N_FEATURES)
    model = applications.LISTA(4, (N_FEATURES,), trainable_dictionary=False)
    model.compile()
    with pytest.raises(ValueError, match=r"trains its dictionary.*Leave it out"):
        model.fit(x, callbacks=[ReviveAtoms(x)], verbose=0)
    model = applications.LISTA(4, (N_FEATURES,))
    model.compile()
    with pytest.raises(ValueError, match="x"):
        model.fit(x, callbacks=[ReviveAtoms(signals(5, 3))], verbose=0)


@pytest.mark.filterwarnings("error:No atom is revived")
@pytest.mark.parametrize(
    ("options", "epochs", "revived"),
    [
        ({}, 1, None),
        ({"every": 4}, 5, None),
        ({"every": 2}, 1, None),
        ({"until": 0.0}, 3, None),
        ({}, 2, [0]),
        ({"until": 1.0}, 1, [0]),
        ({"every": 3}, 4, [2]),
    ],
)
def test_a_training_too_short_for_a_revival_is_told(options, epochs, revived):
    x = signals(20, N_FEATURES)
    model = applications.LISTA(4, (N_FEATURES,), l1=0.01)
    model.compile(run_eagerly=True, jit_compile=False)
    revive = ReviveAtoms(x, **options)
    told = contextlib.nullcontext()
    if revived is None:
        match = rf"No atom is revived in epochs={epochs} with every=.*until=1\.0"
        told = pytest.warns(UserWarning, match=match)
    with told:
        model.fit(x, epochs=epochs, callbacks=[revive], verbose=0)
    assert sorted(revive.revived) == (revived or [])
