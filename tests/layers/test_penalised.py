"""Codes as they are wanted: of one sign, with a weight an atom, of the elastic net."""

import celer
import keras
import numpy as np
import pytest
from helpers import (
    ENTRIES,
    EXHAUSTIVE,
    SOLVERS,
    TRAINABLE,
    signals,
    to_numpy,
    unit_atoms,
    with_slow,
)
from sklearn.linear_model import ElasticNet, Lasso

import sc2keras
from sc2keras import applications, layers
from sc2keras.feature_sign import feature_sign_search, relative_gaps
from sc2keras.layers import FISTA, ISTA, ActiveSet
from sc2keras.objective import relative_duality_gap
from sc2keras.testing import check_encoder

N_ATOMS, N_FEATURES = 12, 8


def refused_by(cls):
    return getattr(cls, "cell_class", cls).refuses


WEIGHTS = np.linspace(0.02, 0.3, N_ATOMS)
# Each alone, and all of them together.
OPTIONS = {
    "nonnegative": {"nonnegative": True},
    "weights": {"l1": WEIGHTS},
    "elastic": {"l2": 0.5},
    "all": {"nonnegative": True, "l1": WEIGHTS, "l2": 0.5},
}
ALL = {"all": OPTIONS["all"]}
STEP_LISTA = [entry for entry in ENTRIES if entry.name == "StepLISTA"]
ONE_SIDED = [c for c in TRAINABLE if "nonnegative_dictionary" not in refused_by(c)]


def takes(cls, options):
    """Whether a class takes all of the options, and codes follow them."""
    return not any(name in refused_by(cls) for name in options)


def cases(classes, options=OPTIONS):
    return [
        pytest.param(cls, given, id=f"{cls.__name__}-{name}")
        for cls in classes
        for name, given in options.items()
        if takes(cls, given)
    ]


def problem(given):
    """`(l1, l2, nonnegative)` of options."""
    return given.get("l1", 0.1), given.get("l2", 0.0), given.get("nonnegative", False)


def cost(x, codes, dictionary, given):
    """The objective of each sample, in float64."""
    l1, l2, nonnegative = problem(given)
    assert not nonnegative or codes.min() >= 0
    codes = np.asarray(codes, "float64")
    error = 0.5 * ((x - codes @ dictionary) ** 2).sum(axis=1)
    return (
        error
        + np.abs(codes) @ np.broadcast_to(l1, N_ATOMS)
        + l2 / 2 * (codes**2).sum(axis=1)
    )


def shrink(z, step_size, given):
    """The proximal operator of the penalty, by cases."""
    l1, l2, nonnegative = problem(given)
    above = np.maximum(z - step_size * l1, 0)
    below = 0 if nonnegative else np.maximum(-z - step_size * l1, 0)
    return (above - below) / (1 + step_size * l2)


def iterated(x, dictionary, given, n_steps, momentum=False):
    """ISTA or FISTA, as printed, with that operator; the codes after every step."""
    step_size = 1 / np.linalg.norm(dictionary, 2) ** 2
    y = codes = np.zeros((len(x), len(dictionary)))
    history, t = [], 1.0
    for _ in range(n_steps):
        gradient = (y @ dictionary - x) @ dictionary.T
        new = shrink(y - step_size * gradient, step_size, given)
        t_next = (1 + np.sqrt(1 + 4 * t**2)) / 2 if momentum else 1.0
        y = new + (t - 1) / t_next * (new - codes)
        codes, t = new, t_next
        history.append(codes)
    return np.stack(history, axis=1)


def of_longer_signals(x, dictionary, l2):
    """x and D of the LASSO that the elastic net is."""
    n_atoms = len(dictionary)
    dictionary = np.hstack([dictionary, np.sqrt(l2) * np.eye(n_atoms)])
    return np.hstack([x, np.zeros((len(x), n_atoms))]), dictionary


def by_scikit_learn(x, dictionary, given):
    l1, l2, nonnegative = problem(given)
    how = {"fit_intercept": False, "positive": nonnegative, "tol": 1e-10}
    how["max_iter"] = 100_000
    if np.ndim(l1) == 0:
        alpha, share = (l1 + l2) / x.shape[1], l1 / (l1 + l2)
        model, scale = ElasticNet(alpha, l1_ratio=share, **how), 1.0
    else:
        # It has one weight for all atoms, which those of s_j·l1_j have.
        x, dictionary = of_longer_signals(x, dictionary, l2)
        model, scale = Lasso(1 / x.shape[1], **how), l1
        dictionary = dictionary / l1[:, None]
    return np.stack([model.fit(dictionary.T, row).coef_ for row in x]) / scale


def by_celer(x, dictionary, given):
    l1, l2, nonnegative = problem(given)
    how = {"fit_intercept": False, "positive": nonnegative, "tol": 1e-13}
    if l2 and np.ndim(l1) == 0:
        alpha, share = (l1 + l2) / x.shape[1], l1 / (l1 + l2)
        model = celer.ElasticNet(alpha, l1_ratio=share, **how)
    else:
        x, dictionary = of_longer_signals(x, dictionary, l2)
        weights = np.broadcast_to(l1, len(dictionary)) * 1.0
        model = celer.Lasso(1 / x.shape[1], weights=weights, **how)
    return np.stack([model.fit(dictionary.T, row).coef_ for row in x])


def by_spams(x, dictionary, given):
    spams = pytest.importorskip("spams")
    l1, l2, nonnegative = problem(given)
    # Of a signal it takes no more entries than it has features: zeros are some.
    x, dictionary = of_longer_signals(x, dictionary, 0.0)
    arrays = (np.asfortranarray(a.T, dtype="float64") for a in (x, dictionary))
    how = {"lambda1": l1, "lambda2": l2, "pos": nonnegative, "mode": 2}
    return np.asarray(spams.lasso(*arrays, **how).todense()).T


PEERS = {"scikit-learn": by_scikit_learn, "celer": by_celer, "spams": by_spams}


@pytest.fixture
def data():
    # Of both signs, so that codes of one sign are others than those of two.
    x = (signals(30, N_FEATURES) - 0.3).astype("float32")
    return x, unit_atoms(N_ATOMS, N_FEATURES, seed=4)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", OPTIONS)
def test_peers_agree_with_feature_sign_search(peer, name, data):
    x, dictionary = data
    given = OPTIONS[name]
    if peer == "spams" and "l1" in given:
        pytest.skip("SPAMS has one weight for all atoms")
    l1, *options = problem(given)
    found = feature_sign_search(x, dictionary, l1, np.zeros((30, N_ATOMS)), *options)
    best = cost(x, found, dictionary, given)
    theirs = PEERS[peer](x.astype("float64"), dictionary, given)
    theirs = cost(x, theirs, dictionary, given)
    np.testing.assert_allclose(theirs, best, rtol=1e-5)
    assert (best <= theirs * (1 + 1e-9)).all()
    assert relative_gaps(x, found, dictionary, l1, *options).max() < 1e-9


@pytest.mark.parametrize(
    ("cls", "given"), with_slow(cases([ActiveSet], ALL), cases(SOLVERS))
)
@pytest.mark.parametrize("tol", [None, 2e-6])
def test_solvers_reach_the_optimum_of_scikit_learn(cls, given, tol, data):
    x, dictionary = data
    best = cost(x, by_scikit_learn(x, dictionary, given), dictionary, given)
    n_steps = 30 if cls is ActiveSet else 2000
    options = {"dictionary": dictionary, "tol": tol, "n_steps": n_steps, **given}
    codes = applications.build(cls.__name__, N_ATOMS, (8,), **options).encode(x)
    found = cost(x, codes, dictionary, given)
    np.testing.assert_allclose(found, best, rtol=1e-5)
    l1, *options = problem(given)
    gaps = relative_duality_gap(x, codes, dictionary.astype("float32"), l1, *options)
    # What float32 rounds may end below zero.
    assert (np.abs(to_numpy(gaps)) < 1e-5).all()


@pytest.mark.parametrize(("cls", "given"), cases([ISTA, FISTA]))
def test_steps_are_proximal_steps(cls, given, data):
    x, dictionary = data
    solver = cls(N_ATOMS, 8, dictionary=dictionary, return_sequences=True, **given)
    expected = iterated(x, dictionary, given, 8, momentum=cls is FISTA)
    np.testing.assert_allclose(to_numpy(solver(x)), expected, atol=1e-5)


# What a network equals before it is trained, with the options that make it so.
UNTRAINED = {
    layers.LISTABlock: (False, {}),
    layers.LFISTABlock: (True, {}),
    layers.LISTACPBlock: (False, {}),
    layers.LISTASSBlock: (False, {"max_support": 0.0}),
    layers.LISTACPSSBlock: (False, {"max_support": 0.0}),
    layers.StepLISTABlock: (False, {}),
    layers.StepLFISTABlock: (True, {}),
    layers.SLISTABlock: (False, {}),
    layers.AdaptiveISTA: (False, {}),
    layers.TiLISTABlock: (False, {"max_support": 0.0}),
    layers.GLISTABlock: (False, {"max_support": 0.0}),
}


@pytest.mark.parametrize(
    ("cls", "given"),
    with_slow(
        cases([layers.LISTABlock, layers.StepLFISTABlock, layers.TiLISTABlock]),
        cases(UNTRAINED),
        EXHAUSTIVE,
    ),
)
def test_untrained_networks_equal_their_solver(cls, given, data):
    x, dictionary = data
    momentum, options = UNTRAINED[cls]
    network = cls(
        N_ATOMS, 5, dictionary=dictionary, return_sequences=True, **given, **options
    )
    expected = iterated(x, dictionary, given, 5, momentum)
    np.testing.assert_allclose(to_numpy(network(x)), expected, atol=1e-5)


EVERY = cases([entry.layer for entry in ENTRIES])
FEW = cases([layers.ActiveSet, layers.SLSTM], ALL)


@pytest.mark.parametrize(("cls", "given"), with_slow(FEW, EVERY, EXHAUSTIVE))
def test_options_hold_and_come_back(cls, given, data, tmp_path):
    x, dictionary = data
    name = next(entry.name for entry in ENTRIES if entry.layer is cls)
    model = applications.build(
        name, N_ATOMS, (N_FEATURES,), n_steps=3, dictionary=dictionary, **given
    )
    if model.trainable_weights:
        model.compile(keras.optimizers.Adam(0.01))
        model.fit(x, epochs=3, verbose=0)
    codes = model.encode(x)
    assert np.isfinite(codes).all() and codes.any()
    l1, l2, nonnegative = problem(given)
    assert not nonnegative or codes.min() >= 0
    if model.encoder.solves == "lasso":
        expected = np.abs(codes) @ np.broadcast_to(l1, N_ATOMS)
        expected = expected + l2 / 2 * (codes**2).sum(axis=1)
        np.testing.assert_allclose(
            to_numpy(model.encoder.penalty(codes)), expected, rtol=1e-5
        )
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    built = applications.build(name, weights=tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (loaded, built, clone):
        np.testing.assert_allclose(other.encode(x), codes, atol=1e-6)
        assert other.encoder.nonnegative == nonnegative
        assert other.encoder.l2 == l2
        np.testing.assert_array_equal(other.encoder.l1, l1)


@pytest.mark.parametrize("name", with_slow(["SC2Net"], ["FISTA"]))
@pytest.mark.parametrize("option", with_slow(["all"], OPTIONS))
def test_codes_are_proven(name, option, data):
    x, dictionary = data
    given = OPTIONS[option]
    model = applications.build(
        name, N_ATOMS, (N_FEATURES,), n_steps=3, dictionary=dictionary, **given
    )
    codes = model.encode(x, tol=1e-5)
    l1, *options = problem(given)
    # Of the dictionary as the model holds it.
    dictionary = model.dictionary.astype("float64")
    assert relative_gaps(x, codes, dictionary, l1, *options).max() <= 1e-5
    best = cost(x, by_scikit_learn(x, dictionary, given), dictionary, given)
    np.testing.assert_allclose(cost(x, codes, dictionary, given), best, rtol=1e-5)


def test_the_gap_of_codes_that_are_not_allowed_is_one(data):
    x, dictionary = (np.asarray(a, "float32") for a in data)
    codes = to_numpy(FISTA(N_ATOMS, dictionary=dictionary)(x))
    negative = (codes < 0).any(axis=1)
    assert negative.any()
    for gaps in (
        to_numpy(relative_duality_gap(x, codes, dictionary, 0.1, nonnegative=True)),
        relative_gaps(x, codes, dictionary, 0.1, nonnegative=True),
    ):
        np.testing.assert_array_equal(gaps[negative], 1)
        assert (gaps <= 1).all()


@pytest.mark.parametrize("option", OPTIONS)
def test_the_gap_is_that_of_numpy_and_bounds_the_distance(option, data):
    x, dictionary = data
    given = OPTIONS[option]
    l1, *options = problem(given)
    best = by_scikit_learn(x, dictionary, given)
    optimum = cost(x, best, dictionary, given)
    for size in (0.0, 0.01, 0.3):
        codes = best + size * np.abs(signals(*best.shape, seed=3)) * (best != 0)
        value = cost(x, codes, dictionary, given)
        expected = relative_gaps(x, codes, dictionary, l1, *options)
        assert (expected >= (value - optimum) / value - 1e-6).all()
        arrays = (np.asarray(a, "float32") for a in (x, codes, dictionary))
        found = to_numpy(relative_duality_gap(*arrays, l1, *options))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (-0.1, r"l1 must be a finite number >= 0; received l1=-0\.1"),
        (np.full(3, 0.1), r"shape \(n_atoms,\), here \(12,\); received l1 of shape"),
        (np.full((12, 1), 0.1), "received l1 of shape"),
        ([0.1] * 11 + [-1.0], r"received l1\[11\]=-1"),
        ([0.1, np.nan, *[0.1] * 10], r"received l1\[1\]=nan"),
        ([np.inf, *[0.1] * 11], r"received l1\[0\]=inf"),
        ("large", "l1 must be a finite number"),
    ],
)
def test_weights_are_checked_at_construction(value, match):
    for cls in (ActiveSet, layers.LISTABlock, layers.SLSTM):
        with pytest.raises(ValueError, match=match):
            cls(N_ATOMS, l1=value)


@pytest.mark.parametrize("l2", [-1.0, np.nan, np.inf, "small"])
def test_the_weight_of_squares_is_checked_at_construction(l2):
    with pytest.raises(ValueError, match="l2 must be a finite number >= 0"):
        layers.LISTABlock(N_ATOMS, l2=l2)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_what_means_nothing_for_an_encoder_is_refused_by_name(entry):
    for name, reason in refused_by(entry.layer).items():
        value = {"l1": WEIGHTS, "l2": 0.5, "offset": 1.0}.get(name, True)
        with pytest.raises(ValueError, match=rf"{name}.* is not for .*Use "):
            entry.layer(N_ATOMS, **{name: value})
        assert reason


def test_thresholds_of_the_error_take_no_weights():
    with pytest.raises(ValueError, match="error_based=True takes thresholds of the"):
        layers.ALISTABlock(N_ATOMS, error_based=True, l1=WEIGHTS)


def test_an_activation_that_has_not_what_is_wanted_is_refused():
    for options in ({"nonnegative": True}, {"l2": 0.1}):
        with pytest.raises(ValueError, match="needs an activation that has it"):
            layers.LISTABlock(N_ATOMS, activation="double_tanh", **options)
        with pytest.raises(ValueError, match="needs an activation that has it"):
            layers.SLSTM(N_ATOMS, activation=layers.Shrinkage(0.1), **options)
    with pytest.raises(ValueError, match="needs an activation that has it"):
        layers.LISTABlock(N_ATOMS, activation="top_k", l2=0.1)


def test_an_activation_of_one_sign_makes_the_encoder_so():
    one_sided = layers.Shrinkage(0.1, nonnegative=True)
    assert layers.LISTABlock(N_ATOMS, activation=one_sided).nonnegative
    assert layers.LISTABlock(N_ATOMS, activation="top_k", nonnegative=True).nonnegative
    x = signals(4, N_FEATURES) - 0.5
    codes = layers.LISTABlock(N_ATOMS, activation="top_k", nonnegative=True)(x)
    assert to_numpy(codes).min() >= 0


@pytest.mark.parametrize("cls", with_slow([layers.StepLISTABlock], ONE_SIDED))
def test_a_dictionary_of_one_sign_stays_so(cls, data):
    name = next(entry.name for entry in ENTRIES if entry.layer is cls)
    options = {"nonnegative_dictionary": True, "n_steps": 2}
    model = applications.build(name, N_ATOMS, (N_FEATURES,), **options)
    assert model.dictionary.min() >= 0
    model.compile(keras.optimizers.Adam(0.3))
    model.fit(data[0], epochs=3, verbose=0)
    assert model.dictionary.min() >= 0
    assert np.linalg.norm(model.dictionary, axis=1).max() <= 1 + 1e-6
    with pytest.raises(ValueError, match="must be >= 0 with nonnegative_dictionary"):
        cls(N_ATOMS, nonnegative_dictionary=True, dictionary=data[1])


@pytest.mark.parametrize("entry", with_slow(STEP_LISTA, ENTRIES, EXHAUSTIVE))
def test_the_laws_of_encoders_hold_with_options(entry):
    wanted = {
        "l1": np.linspace(0.05, 0.2, 6),
        "l2": 0.2,
        "nonnegative": True,
        "offset": 0.25,
    }
    refused = refused_by(entry.layer)
    options = {name: v for name, v in wanted.items() if name not in refused}
    check_encoder(entry.name, **options)


def test_atoms_that_are_revived_are_as_the_others(data):
    options = {"l1": np.full(N_ATOMS, 0.5), "nonnegative": True, "offset": 0.1}
    atoms = np.vstack([np.eye(8), np.full((4, 8), 1e-3)])
    model = applications.build(
        *("LISTA", N_ATOMS, (N_FEATURES,)),
        **{"nonnegative_dictionary": True, "dictionary": atoms, **options},
    )
    model.compile(keras.optimizers.SGD(0.0))
    callback = sc2keras.callbacks.ReviveAtoms(2 * data[0])
    model.fit(2 * data[0], epochs=4, verbose=0, callbacks=[callback])
    assert callback.revived[0] >= 4
    assert model.dictionary.min() >= 0
    np.testing.assert_allclose(np.linalg.norm(model.dictionary, axis=1), 1, atol=1e-5)


def test_many_weights_fit_into_a_file_of_weights(tmp_path):
    # In HDF5 an attribute holds 64 KiB.
    weights = np.random.default_rng(0).random(5000)
    model = applications.build("ActiveSet", 5000, (4,), l1=weights, n_steps=1)
    model.save_weights(tmp_path / "model.weights.h5")
    built = applications.build("ActiveSet", weights=tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(built.encoder.l1, weights)


def test_weights_of_a_file_are_not_taken_for_others(tmp_path):
    model = applications.build("LISTA", 12, (8,), n_steps=2, l1=WEIGHTS)
    model.save_weights(tmp_path / "model.weights.h5")
    for options in ({"l1": 2 * WEIGHTS}, {"nonnegative": True}, {"l2": 0.1}):
        with pytest.raises(ValueError, match=f"were made with {next(iter(options))}"):
            applications.build(
                "LISTA", weights=tmp_path / "model.weights.h5", **options
            )


def test_activations_agree_with_their_operator():
    z = 2 * signals(5, N_ATOMS) - 1
    for given in OPTIONS.values():
        l1, l2, nonnegative = problem(given)
        options = {"nonnegative": nonnegative} | ({"l2": l2} if l2 else {})
        found = layers.Shrinkage(l1, **options)(z)
        np.testing.assert_allclose(to_numpy(found), shrink(z, 1.0, given), atol=1e-6)
    with pytest.raises(ValueError, match=r"threshold must be .* here \(3,\)"):
        layers.Shrinkage(WEIGHTS)(np.ones((1, 3)))
