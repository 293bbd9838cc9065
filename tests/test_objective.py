import celer
import numpy as np
import pytest
from helpers import objective, signals, to_numpy, unit_atoms
from keras import ops

from sc2keras.objective import (
    gap_and_residual_in_units,
    l1_norm,
    lasso_objective,
    reconstruction_error,
    relative_duality_gap,
)


def optimum(x, dictionary, l1):
    model = celer.Lasso(l1 / x.shape[1], fit_intercept=False, tol=1e-12)
    return np.stack([model.fit(dictionary.T, row).coef_ for row in x.astype("float64")])


@pytest.fixture
def problem():
    dictionary = unit_atoms(12, 8)
    return signals(5, 8), dictionary, optimum(signals(5, 8), dictionary, 0.1)


def gap(x, codes, dictionary, l1):
    arrays = (np.asarray(a, "float32") for a in (x, codes, dictionary))
    return to_numpy(relative_duality_gap(*arrays, l1))


def test_terms_equal_their_formulas():
    x, codes, dictionary = signals(4, 8), signals(4, 5) - 0.5, unit_atoms(5, 8)
    dictionary = dictionary.astype("float32")
    error = [
        0.5 * sum((a - b) ** 2 for a, b in zip(x[i], x[0], strict=True))
        for i in range(4)
    ]
    np.testing.assert_allclose(to_numpy(reconstruction_error(x, x[:1])), error, 1e-5)
    norm = [sum(abs(s) for s in code) for code in codes]
    np.testing.assert_allclose(to_numpy(l1_norm(codes)), norm, 1e-6)
    np.testing.assert_allclose(
        to_numpy(lasso_objective(x, codes, dictionary, 0.3)),
        objective(x, codes, dictionary, 0.3),
        1e-5,
    )


def test_codes_may_have_further_axes():
    x, codes = signals(6, 8), signals(6, 5)
    dictionary = unit_atoms(5, 8).astype("float32")
    for function in (lasso_objective, relative_duality_gap):
        flat = to_numpy(function(x, codes, dictionary, 0.1))
        folded = function(
            x.reshape(2, 3, 8), codes.reshape(2, 3, 5), dictionary, l1=0.1
        )
        np.testing.assert_allclose(to_numpy(folded), flat.reshape(2, 3), 1e-5)


@pytest.mark.parametrize("l1", [0.05, 0.1, 0.5])
def test_gap_vanishes_at_the_optimum_of_celer(l1):
    x, dictionary = signals(5, 8), unit_atoms(12, 8)
    gaps = gap(x, optimum(x, dictionary, l1), dictionary, l1)
    assert (gaps >= -1e-7).all()
    assert (gaps < 2e-6).all()


def test_gap_bounds_the_distance_from_the_optimum(problem):
    x, dictionary, best = problem
    rng = np.random.default_rng(3)
    for size in (1e-3, 1e-2, 0.1, 1.0, 10.0):
        codes = best + size * rng.standard_normal(best.shape)
        value = objective(x, codes, dictionary, 0.1)
        suboptimality = (value - objective(x, best, dictionary, 0.1)) / value
        gaps = gap(x, codes, dictionary, 0.1)
        assert (gaps >= suboptimality - 1e-6).all()
        assert (gaps <= 1 + 1e-6).all()


def test_gap_uses_the_best_feasible_multiple_of_the_residual(problem):
    x, dictionary, best = problem
    for codes in (best + 0.01, np.zeros_like(best), -best):
        residual = x - codes @ dictionary
        bound = 0.1 / np.abs(residual @ dictionary.T).max(axis=1)
        scales = bound[:, None] * np.linspace(-1, 1, 20001)
        dual_points = scales[..., None] * residual[:, None]
        dual = 0.5 * (x**2).sum(1, keepdims=True) - 0.5 * (
            (x[:, None] - dual_points) ** 2
        ).sum(-1)
        primal = objective(x, codes, dictionary, 0.1)
        expected = (primal - dual.max(axis=1)) / primal
        np.testing.assert_allclose(
            gap(x, codes, dictionary, 0.1), expected, rtol=1e-3, atol=1e-6
        )


def test_gap_of_zero_codes_vanishes_just_where_zero_is_optimal():
    x, dictionary = signals(1, 8), unit_atoms(12, 8)
    zero = np.zeros((1, 12))
    limit = np.abs(x @ dictionary.T).max()
    assert gap(x, zero, dictionary, 1.001 * limit)[0] < 1e-6
    assert gap(x, zero, dictionary, 0.9 * limit)[0] > 1e-3


def test_gap_is_finite_where_there_is_nothing_to_explain():
    dictionary = unit_atoms(12, 8)
    zero = np.zeros((1, 12))
    assert gap(np.zeros((1, 8)), zero, dictionary, 0.1)[0] == 0
    # The residual vanishes but the codes do not: no dual point but 0 is known.
    codes = np.ones((1, 8))
    np.testing.assert_allclose(gap(codes @ np.eye(8), codes, np.eye(8), 0.1), 1, 1e-6)


@pytest.mark.parametrize("scale", [1e-30, 2.0**-99, 1e-19, 1e19, 2.0**99, 1e30])
def test_gap_has_no_scale(problem, scale):
    x, dictionary, best = problem
    for codes in (best + 0.01, np.zeros_like(best), best):
        expected = gap(x, codes, dictionary, 0.1)
        actual = gap(x * scale, codes * scale, dictionary, 0.1 * scale)
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-6)


def test_the_correlation_of_the_residual_comes_with_the_gap(problem):
    x, dictionary, best = (np.asarray(a, "float32") for a in problem)
    tensors = map(ops.convert_to_tensor, (x, best, dictionary))
    _, correlation, _ = gap_and_residual_in_units(*tensors, 0.1)
    expected = (x - best @ dictionary) @ dictionary.T
    np.testing.assert_allclose(to_numpy(correlation), expected, atol=1e-5)


def test_gap_of_a_row_does_not_depend_on_the_magnitude_of_others(problem):
    x, dictionary, best = problem
    scale = np.array([[1e-30], [1.0], [1e-9], [1e30], [1e9]])
    # l1 is one for all rows: beside it some are nothing, and it is nothing beside some.
    together = gap(x * scale, best * scale, dictionary, 0.1)
    alone = [
        gap(x[i : i + 1] * scale[i], best[i : i + 1] * scale[i], dictionary, 0.1)[0]
        for i in range(5)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-6)
    # For the first row l1 is so large that nothing but zero would do.
    assert together[0] == pytest.approx(1.0)
    assert gap(x * scale, np.zeros_like(best), dictionary, 0.1)[0] < 1e-6


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_gap_of_what_is_not_finite_is_no_number(problem, poison):
    x, dictionary, best = problem
    spoilt = x.copy()
    spoilt[1, 3] = poison
    expected = gap(x, best, dictionary, 0.1)
    actual = gap(spoilt, best, dictionary, 0.1)
    assert np.isnan(actual[1])
    np.testing.assert_array_equal(np.delete(actual, 1), np.delete(expected, 1))
    spoilt = best.copy()
    spoilt[1, 3] = poison
    assert np.isnan(gap(x, spoilt, dictionary, 0.1)[1])
