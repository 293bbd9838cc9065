"""What holds of a solver with `tol`, whatever the rows of its batch are."""

import contextlib
import functools
import warnings

import keras
import numpy as np
import pytest
from helpers import (
    EXHAUSTIVE,
    FEW_SOLVERS,
    ONE_SOLVER,
    signals,
    to_numpy,
    unit_atoms,
    with_slow,
)
from sklearn.exceptions import ConvergenceWarning

from sc2keras.layers import FISTA, ISTA, ActiveSet
from sc2keras.layers.convergence import warn_if_open
from sc2keras.objective import relative_duality_gap

N_ATOMS, N_FEATURES, L1 = 10, 12, 0.1
# What rows can hold beside those that are compared, each in some of their entries.
POISONS = [np.nan, np.inf, -np.inf, 0.0, 1e-38, 1e-30, 1e-19, 1e19, 1e30, 3e38]


def solver(cls, l1=L1, tol=1e-3, n_steps=2000, **kwargs):
    dictionary = unit_atoms(kwargs.pop("n_atoms", N_ATOMS), N_FEATURES, seed=4)
    layer = cls(
        len(dictionary), n_steps, l1=l1, tol=tol, dictionary=dictionary, **kwargs
    )
    layer.build((None, N_FEATURES))
    return layer


@functools.cache
def compiled(cls, xla=True, **options):
    """`solve` of a solver from NumPy to NumPy, compiled as it is for `encode`."""
    solve = solver(cls, **options).solve
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # XLA takes seconds for every number of rows.
        spec = tf.TensorSpec((None, N_FEATURES), "float32")
        solve = tf.function(
            solve, jit_compile=xla, input_signature=None if xla else [spec]
        )
    elif keras.backend.backend() == "jax":
        import jax

        solve = jax.jit(solve)
    return lambda x: tuple(map(to_numpy, solve(np.asarray(x, "float32"))))


def rows_beside(poison, n_rows):
    """Rows with the poison in half of their entries, or of its magnitude."""
    rows = signals(n_rows, N_FEATURES, seed=7)
    if not np.isfinite(poison):
        rows[:, ::2] = poison
        return rows
    return (poison * rows).astype("float32")


def assert_same(actual, expected):
    """That codes and gaps are the same to rounding.

    Where a row's gap is `tol` to rounding, or its overshoot zero, it may stop or start
    anew a little earlier or later, and end elsewhere within the tolerance.
    """
    differences = [np.abs(a - b) for a, b in zip(actual, expected, strict=True)]
    differs = (differences[0] > 2e-5).any(axis=1) | (differences[1] > 2e-5)
    assert differs.sum() <= 1 + len(differs) // 10
    assert differences[0].max() < 0.02
    assert (actual[1] <= 1e-3).all()


@pytest.mark.parametrize("cls", ONE_SOLVER)
@pytest.mark.parametrize("n_rows", with_slow([300], [7, 64], EXHAUSTIVE))
def test_a_row_has_the_code_it_has_alone(cls, n_rows):
    x = signals(n_rows, N_FEATURES)
    solve = compiled(cls, xla=n_rows == 300)
    alone = [solve(x[i : i + 1]) for i in range(0, n_rows, n_rows // 7)]
    alone = tuple(np.concatenate(parts) for parts in zip(*alone, strict=True))
    assert_same([part[:: n_rows // 7] for part in solve(x)], alone)


@pytest.mark.parametrize("cls", ONE_SOLVER)
@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("xla", [True, False])
def test_a_row_has_the_code_it_has_beside_other_rows(cls, poison, xla):
    x, beside = signals(60, N_FEATURES), rows_beside(poison, 140)
    place = np.random.default_rng(0).permutation(200)
    together = np.concatenate([x, beside])[place]
    solve = compiled(cls, xla, n_steps=500)
    codes, gaps = (part[np.argsort(place)] for part in solve(together))
    assert_same((codes[:60], gaps[:60]), solve(x))
    if not np.isfinite(poison):
        # Never codes that look like codes.
        assert np.isnan(codes[60:]).all()


@pytest.mark.parametrize("cls", FEW_SOLVERS)
def test_a_row_that_is_not_finite_has_no_code_and_no_gap(cls):
    x = signals(6, N_FEATURES)
    x[1, 0], x[3, 5], x[4] = np.nan, np.inf, -np.inf
    codes, gaps = map(to_numpy, solver(cls).solve(x))
    for i in range(6):
        bad = i in (1, 3, 4)
        assert np.isnan(codes[i]).all() if bad else np.isfinite(codes[i]).all()
        assert np.isnan(gaps[i]) == bad


def test_rows_that_take_longer_leave_the_others_as_they_are():
    # With n_steps=10 every row stops at its first check.
    x = signals(40, N_FEATURES)
    x[::2] *= 0.1
    first, gaps = compiled(FISTA, xla=False, n_steps=10)(x)
    last, _ = compiled(FISTA, xla=False)(x)
    is_done = gaps <= 1e-3
    assert 0 < is_done.sum() < 40
    np.testing.assert_array_equal(last[is_done], first[is_done])


@pytest.mark.parametrize("cls", ONE_SOLVER)
@pytest.mark.parametrize("scale", with_slow([1e-30, 1e19], [1e-19, 1e30], EXHAUSTIVE))
def test_codes_have_the_scale_of_signals_and_l1(cls, scale):
    x = signals(20, N_FEATURES)
    codes, gaps = compiled(cls, xla=False, l1=L1 * scale)(x * np.float32(scale))
    assert_same((codes / np.float32(scale), gaps), compiled(cls, xla=False)(x))


@pytest.mark.parametrize("cls", ONE_SOLVER)
@pytest.mark.parametrize("power", [-99, 99])
def test_a_power_of_two_changes_no_bit_but_the_scale(cls, power):
    x, scale = signals(20, N_FEATURES), np.float32(2.0**power)
    expected, gaps = compiled(cls, xla=False)(x)
    codes, scaled_gaps = compiled(cls, xla=False, l1=L1 * 2.0**power)(x * scale)
    np.testing.assert_array_equal(codes, expected * scale)
    np.testing.assert_array_equal(scaled_gaps, gaps)


@pytest.mark.parametrize("cls", ONE_SOLVER)
def test_rows_of_every_magnitude_are_solved_beside_each_other(cls):
    # One l1 for all: the smallest rows have no code, the largest hardly a penalty.
    scale = 10.0 ** np.arange(-36, 4)[:, None]
    x = (signals(40, N_FEATURES) * scale).astype("float32")
    codes, gaps = compiled(cls, xla=False, n_steps=5000)(x)
    assert (gaps <= 1e-3).all()
    correlation = np.abs(x.astype("float64") @ unit_atoms(N_ATOMS, N_FEATURES, 4).T)
    is_zero = correlation.max(axis=1) < L1
    assert 0 < is_zero.sum() < 40
    np.testing.assert_array_equal((codes == 0).all(axis=1), is_zero)


@pytest.mark.parametrize("cls", ONE_SOLVER)
@pytest.mark.parametrize(
    "shape", with_slow([(), (2, 3)], [(1,), (5,), (0,)], EXHAUSTIVE)
)
def test_solve_gives_the_codes_of_a_call_and_a_gap_for_each(cls, shape):
    x = signals(6, N_FEATURES)[: int(np.prod(shape))].reshape(*shape, N_FEATURES)
    layer = solver(cls)
    codes, gaps = map(to_numpy, layer.solve(x))
    assert codes.shape == (*shape, N_ATOMS)
    assert gaps.shape == shape
    np.testing.assert_array_equal(codes, to_numpy(layer(x)))
    dictionary = to_numpy(layer.dictionary)
    expected = to_numpy(relative_duality_gap(x, codes, dictionary, L1))
    np.testing.assert_allclose(gaps, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_solve_rounds_as_a_call_of_the_layer_does(dtype):
    layer, x = solver(FISTA, dtype=dtype), signals(5, N_FEATURES)
    codes, gaps = layer.solve(x)
    assert keras.backend.standardize_dtype(codes.dtype) == layer.compute_dtype
    assert keras.backend.standardize_dtype(gaps.dtype) == "float32"
    called = to_numpy(keras.ops.cast(layer(x), "float32"))
    np.testing.assert_array_equal(to_numpy(keras.ops.cast(codes, "float32")), called)


def test_a_layer_in_float64_reaches_a_gap_that_float32_does_not():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX has it only if switched on, and Keras on PyTorch never")
    layer = solver(FISTA, tol=1e-12, dtype="float64", n_steps=5000)
    _, gaps = layer.solve(signals(5, N_FEATURES).astype("float64"))
    assert keras.backend.standardize_dtype(gaps.dtype) == "float64"
    assert (to_numpy(gaps) <= 1e-12).all()


def test_solve_without_a_tolerance_says_so():
    with pytest.raises(ValueError, match="received tol=None"):
        solver(ISTA, tol=None).solve(signals(2, N_FEATURES))


@pytest.mark.parametrize("cls", FEW_SOLVERS)
@pytest.mark.parametrize("n_steps", [1, 2, 13])
def test_an_eager_call_warns_once_of_the_rows_that_did_not_get_there(cls, n_steps):
    x = signals(90, N_FEATURES)
    x[0] = np.nan  # Bad input, which no number of steps would help.
    layer = solver(cls, n_steps=n_steps, tol=1e-5)
    gaps = to_numpy(layer.solve(x)[1])
    n_open, largest = (gaps > 1e-5).sum(), np.nanmax(gaps)
    if cls is ActiveSet and n_steps == 13:
        assert n_open == 0
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        layer(x)
    caught = [w for w in caught if w.category is ConvergenceWarning]
    assert len(caught) == 1
    message = str(caught[0].message)
    assert f"{n_open} of 90 rows" in message
    assert f"n_steps={n_steps} " in message
    assert f"gap is {largest:.2g}" in message
    assert "Raise n_steps, or tol" in message and "The gap is an upper bound" in message
    assert ("dtype='float64' goes on" in message) == (layer.compute_dtype == "float32")
    # It points here, not into Keras.
    assert caught[0].filename == __file__


@pytest.mark.parametrize("cls", FEW_SOLVERS)
def test_nothing_is_warned_of_where_every_row_got_there_or_none_can(cls):
    x = signals(9, N_FEATURES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        solver(cls)(x)
        solver(cls)(np.full_like(x, np.nan))
        solver(cls, tol=None, n_steps=1)(x)
        solver(cls, n_steps=1).solve(x)
        warn_if_open(np.array(np.nan), solver(cls))


def test_a_call_within_a_compiled_function_is_traced_without_a_warning():
    layer, x = solver(FISTA, n_steps=3), signals(5, N_FEATURES)
    inputs = keras.Input((N_FEATURES,))
    model = keras.Model(inputs, layer(inputs))
    expected = to_numpy(layer.solve(x)[0])
    eager = keras.backend.backend() == "torch"
    with pytest.warns(ConvergenceWarning) if eager else contextlib.nullcontext():
        codes = model.predict(x, verbose=0)
    np.testing.assert_allclose(codes, expected, atol=1e-6)
    np.testing.assert_allclose(compiled(FISTA, n_steps=3)(x)[0], expected, atol=1e-6)


def test_a_call_is_traced_by_the_transformations_of_the_backend():
    layer, x = solver(FISTA, n_steps=3), signals(5, N_FEATURES)
    expected = to_numpy(layer.solve(x)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            spec = tf.TensorSpec((None, N_FEATURES), "float32")
            call = tf.function(layer, input_signature=[spec])
            np.testing.assert_allclose(call(x).numpy(), expected, atol=1e-6)
            rows = tf.data.Dataset.from_tensor_slices(x).batch(5).map(layer)
            np.testing.assert_allclose(next(iter(rows)), expected, atol=1e-6)
        elif keras.backend.backend() == "jax":
            import jax

            np.testing.assert_allclose(jax.jit(layer)(x), expected, atol=1e-6)
            np.testing.assert_allclose(jax.vmap(layer)(x), expected, atol=1e-6)
            assert jax.eval_shape(layer, x).shape == (5, N_ATOMS)
        else:
            pytest.skip("PyTorch runs a loop to a tolerance in Python")


@pytest.mark.parametrize("cls", FEW_SOLVERS)
@pytest.mark.parametrize("l1", [0.0, np.where(np.arange(N_ATOMS) < 2, 0.0, L1)])
def test_without_l1_more_steps_are_no_remedy(cls, l1):
    layer = solver(cls, l1=l1, n_steps=50)
    with pytest.warns(ConvergenceWarning, match=r"l1 is 0.*l1 > 0, or tol=None") as w:
        layer(signals(5, N_FEATURES))
    assert "Raise n_steps" not in str(w[0].message)
