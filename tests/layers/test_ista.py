import itertools

import celer
import keras
import numpy as np
import pytest
from helpers import (
    EXHAUSTIVE,
    FEW_SOLVERS,
    ONE_SOLVER,
    active_set,
    fista,
    ista,
    objective,
    signals,
    to_numpy,
    unit_atoms,
    with_slow,
)
from keras.src import testing
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning

from sc2keras import SparseCoder
from sc2keras.layers import FISTA, ISTA, ActiveSet
from sc2keras.objective import relative_duality_gap

REFERENCES = {ISTA: ista, FISTA: fista, ActiveSet: active_set}
MAY_STOP_EARLY = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning"
)


@pytest.mark.parametrize("cls", FEW_SOLVERS)
@pytest.mark.parametrize("n_atoms", [5, 12, 20])
def test_every_step_equals_that_of_the_algorithm(cls, n_atoms):
    x, dictionary = signals(4, 8), unit_atoms(n_atoms, 8)
    layer = cls(n_atoms, 20, l1=0.1, dictionary=dictionary, return_sequences=True)
    expected, steps = REFERENCES[cls](x, dictionary, 0.1, n_steps=20), layer(x)
    if cls is ActiveSet and n_atoms > 8:
        # Which entry is at zero first may hang on a rounding: the codes of a support of
        # more atoms than features have many of the same objective.
        expected, steps = (
            objective(x[:, None], np.asarray(each), dictionary, 0.1)
            for each in (expected, to_numpy(steps))
        )
    np.testing.assert_allclose(to_numpy(steps), expected, atol=2e-5)


@MAY_STOP_EARLY
@pytest.mark.parametrize("cls", FEW_SOLVERS)
@pytest.mark.parametrize("n_steps", [1, 11])
@pytest.mark.parametrize("options", [{}, {"return_sequences": True}, {"tol": 1e-9}])
def test_any_number_of_steps_is_that_many(cls, n_steps, options):
    x, dictionary = signals(4, 8), unit_atoms(12, 8)
    layer = cls(12, n_steps, l1=0.1, dictionary=dictionary, **options)
    kwargs = {"restart": True} if cls is FISTA and layer.tol else {}
    expected = REFERENCES[cls](x, dictionary, 0.1, n_steps, **kwargs)
    if not layer.return_sequences:
        expected = expected[:, -1]
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)


@pytest.mark.parametrize("cls", FEW_SOLVERS)
@pytest.mark.parametrize(
    "l1, shape",
    with_slow(
        [(0.1, (30, 12)), (0.5, (12, 20))],
        itertools.product((0.1, 0.5), [(15, 12), (12, 20), (30, 12)]),
        EXHAUSTIVE,
    ),
)
def test_converges_to_the_objective_of_scikit_learn_and_celer(cls, l1, shape):
    x, dictionary = signals(6, shape[1]), unit_atoms(*shape, seed=5)
    layer = cls(len(dictionary), 20_000, l1=l1, dictionary=dictionary, tol=5e-6)
    inputs = keras.Input((shape[1],))
    # Compiled, because thousands of eager steps take half a minute.
    codes = keras.Model(inputs, layer(inputs)).predict(x, verbose=0)
    value = objective(x, codes, dictionary, l1)

    x64 = x.astype("float64")
    theirs = sparse_encode(
        x64, dictionary, algorithm="lasso_cd", alpha=l1, max_iter=10_000
    )
    # scikit-learn stops at a tolerance of 1e-4 of its own, and may be above ours.
    assert (value <= objective(x, theirs, dictionary, l1) * (1 + 1e-5)).all()
    total = objective(x, theirs, dictionary, l1).sum()
    assert value.sum() == pytest.approx(total, rel=1e-4)

    # celer minimises ‖y − Xw‖²/(2n) + alpha·‖w‖₁.
    lasso = celer.Lasso(l1 / shape[1], fit_intercept=False, tol=1e-12)
    best = np.stack([lasso.fit(dictionary.T, row).coef_ for row in x64])
    np.testing.assert_allclose(value, objective(x, best, dictionary, l1), rtol=1e-5)

    gap = relative_duality_gap(x, codes, dictionary.astype("float32"), l1)
    assert (to_numpy(gap) <= 1e-5).all()


@pytest.mark.parametrize("cls", [ISTA, FISTA])
def test_tol_stops_every_sample_at_the_first_check_below_its_gap(cls):
    x, dictionary = signals(6, 12), unit_atoms(8, 12)

    def gaps(codes):
        return to_numpy(
            relative_duality_gap(x, codes, dictionary.astype("float32"), 0.1)
        )

    layer = cls(8, n_steps=100, l1=0.1, dictionary=dictionary, tol=1e-2)
    codes = to_numpy(layer(x))
    assert gaps(codes).max() <= 1e-2
    kwargs = {"restart": True} if cls is FISTA else {}
    steps = REFERENCES[cls](x, dictionary, 0.1, 100, **kwargs).astype("float32")
    steps = steps[:, 9::10]
    is_done = np.stack([gaps(steps[:, t]) for t in range(10)], axis=1) <= 1e-2
    first = is_done.argmax(axis=1)
    # Some go on for longer than others, which stay as they are.
    assert len(set(first)) > 1
    np.testing.assert_allclose(codes, steps[np.arange(6), first], atol=1e-5)


@pytest.mark.parametrize("cls", FEW_SOLVERS)
def test_n_steps_caps_tol(cls):
    x, dictionary = signals(3, 8), unit_atoms(12, 8)
    layer = cls(12, n_steps=33, l1=0.1, tol=0.0, dictionary=dictionary)
    with pytest.warns(ConvergenceWarning):
        capped = layer(x)
    kwargs = {"restart": True} if cls is FISTA else {}
    fixed = REFERENCES[cls](x, dictionary, 0.1, 33, **kwargs)[:, -1]
    np.testing.assert_allclose(to_numpy(capped), fixed, atol=2e-5)


def test_restart_takes_fista_to_a_tolerance_in_fewer_steps():
    x, dictionary = signals(8, 64), unit_atoms(100, 64, seed=3)
    plain = FISTA(100, 300, dictionary=dictionary)(x)
    with pytest.warns(ConvergenceWarning):
        restarted = FISTA(100, 300, dictionary=dictionary, tol=0.0)(x)
    gaps = [
        to_numpy(relative_duality_gap(x, codes, dictionary.astype("float32"), 0.1))
        for codes in (plain, restarted)
    ]
    assert (gaps[1] < gaps[0] / 10).all()


def test_fista_is_closer_to_the_optimum_than_ista_after_as_many_steps():
    x, dictionary = signals(8, 12), unit_atoms(20, 12)
    values = [
        objective(
            x, to_numpy(cls(20, 60, dictionary=dictionary)(x)), dictionary, 0.1
        ).mean()
        for cls in (ISTA, FISTA)
    ]
    assert values[1] < values[0]


@pytest.mark.parametrize("cls", FEW_SOLVERS)
def test_the_objective_never_rises_but_of_fista_and_codes_are_sparse(cls):
    x, dictionary = signals(8, 12), unit_atoms(20, 12)
    layer = cls(20, 50, l1=0.2, dictionary=dictionary, return_sequences=True)
    steps = to_numpy(layer(x))
    values = [objective(x, steps[:, t], dictionary, 0.2).mean() for t in range(50)]
    if cls is not FISTA:
        assert (np.diff(values) <= 1e-6).all()
    assert values[-1] < values[0]
    assert 0.1 < (steps[:, -1] == 0).mean() < 0.9


@MAY_STOP_EARLY
@pytest.mark.parametrize("cls", FEW_SOLVERS)
@pytest.mark.parametrize("tol", [None, 1e-3])
def test_solves_in_float32_under_mixed_precision(cls, tol):
    x, options = signals(4, 8), {"n_steps": 40, "dictionary": unit_atoms(6, 8)}
    codes = cls(6, dtype="mixed_bfloat16", tol=tol, **options)(x)
    assert keras.backend.standardize_dtype(codes.dtype) == "bfloat16"
    exact = to_numpy(cls(6, tol=tol, **options)(x.astype("float32")))
    # One rounding of the input and one of the result, none in between.
    rounded = to_numpy(keras.ops.cast(codes, "float32"))
    np.testing.assert_allclose(rounded, exact, atol=0.02)


@MAY_STOP_EARLY
@pytest.mark.parametrize("cls", ONE_SOLVER)
@pytest.mark.parametrize("tol", [None, 1e-3])
def test_the_step_size_follows_a_dictionary_that_is_assigned(cls, tol):
    x, first = signals(9, 8), unit_atoms(6, 8)
    second = first[0] + 0.3 * first[::-1]  # Of a larger L.
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    options = {"n_steps": 30, "l1": 0.1, "tol": tol}
    layer, other = cls(6, dictionary=first, **options), cls(6, **options)
    layer.build((None, 8))
    other.build((None, 8))
    other.set_weights(layer.get_weights())
    # A model whose functions are compiled by then.
    model = SparseCoder(inputs := keras.Input((8,)), layer(inputs))
    model.encode(x)
    for dictionary in (second, np.zeros((6, 8)), first):
        for solver in (layer, other):
            solver.dictionary.assign(dictionary)
        if dictionary.any():
            new = cls(6, dictionary=dictionary, **options)
            np.testing.assert_allclose(model.encode(x), to_numpy(new(x)), atol=1e-4)
        else:
            assert not model.encode(x).any()
        np.testing.assert_allclose(to_numpy(other(x)), model.encode(x), atol=1e-4)


@pytest.mark.parametrize("cls", FEW_SOLVERS)
def test_nothing_is_trainable(cls):
    layer = cls(5)
    layer.build((None, 4))
    assert layer.trainable_weights == []
    assert {w.name for w in layer.weights} == {"dictionary", "step_size"}


@MAY_STOP_EARLY
@pytest.mark.parametrize("cls", FEW_SOLVERS)
@pytest.mark.parametrize("tol", [None, 1e-3])
def test_passes_the_layer_test_of_keras(cls, tol):
    testing.TestCase().run_layer_test(
        cls,
        init_kwargs={"n_atoms": 5, "n_steps": 4, "tol": tol},
        input_shape=(3, 4),
        expected_output_shape=(3, 5),
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=2,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=False,
        # There is nothing to train.
        run_training_check=False,
    )


@pytest.mark.parametrize("cls", FEW_SOLVERS)
def test_unusable_tolerances_are_named(cls):
    with pytest.raises(ValueError, match=r"tol must be .*>= 0; received tol=-1"):
        cls(5, tol=-1)
    with pytest.raises(ValueError, match=r"received tol=0\.1\. Use tol=None"):
        cls(5, tol=0.1, return_sequences=True)
