"""Pursuits beside scikit-learn's, and least squares beside NumPy's."""

import numpy as np
import pytest
from helpers import perturb, to_numpy, unit_atoms
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp

from sc2keras import applications, pursuit

ATOMS = unit_atoms(60, 24, seed=3)


def signals(n_samples=300, seed=0):
    return np.random.default_rng(seed).standard_normal((n_samples, ATOMS.shape[1]))


def errors(x, codes):
    return np.sum((x - codes @ ATOMS) ** 2, axis=1)


@pytest.mark.parametrize("n_nonzero", [1, 4, 12])
def test_omp_is_that_of_scikit_learn(n_nonzero):
    x = signals()
    codes = pursuit.orthogonal_matching_pursuit(x, ATOMS, n_nonzero)
    expected = orthogonal_mp(ATOMS.T, x.T, n_nonzero_coefs=n_nonzero).T
    np.testing.assert_allclose(codes, expected, atol=1e-10)
    assert (np.count_nonzero(codes, axis=1) == n_nonzero).all()


def test_rows_of_many_parts_do_not_depend_on_each_other(monkeypatch):
    x = signals(50)
    whole = pursuit.orthogonal_matching_pursuit(x, ATOMS, 5)
    monkeypatch.setattr(pursuit, "_ROWS_AT_A_TIME", 7)
    parts = pursuit.orthogonal_matching_pursuit(x, ATOMS, 5)
    np.testing.assert_allclose(parts, whole, atol=1e-12)
    assert pursuit.orthogonal_matching_pursuit(x[:0], ATOMS, 5).shape == (0, 60)


def test_omp_ends_where_nothing_is_left_or_an_atom_adds_nothing():
    truth = np.zeros((2, 60))
    truth[0, [3, 9]] = [2.0, -1.0]
    codes = pursuit.orthogonal_matching_pursuit(truth @ ATOMS, ATOMS, 6)
    np.testing.assert_allclose(codes, truth, atol=1e-10)
    twins = np.concatenate([ATOMS[:3], ATOMS[:3]])
    x = signals(20)
    codes = pursuit.orthogonal_matching_pursuit(x, twins, 6)
    assert (np.count_nonzero(codes, axis=1) == 3).all()
    best = np.linalg.lstsq(twins.T, x.T, rcond=None)[0].T
    np.testing.assert_allclose(codes @ twins, best @ twins, atol=1e-10)


def test_matching_pursuit_takes_the_largest_product_at_every_step():
    x, scaled = signals(40), ATOMS * np.linspace(0.5, 2, 60)[:, None]
    codes = pursuit.matching_pursuit(x, scaled, 6)
    for signal, found in zip(x, codes, strict=True):
        code, left = np.zeros(60), signal
        for _ in range(6):
            products = ATOMS @ left
            j = np.argmax(np.abs(products))
            code[j] += products[j] / np.linalg.norm(scaled[j])
            left = left - products[j] * ATOMS[j]
        np.testing.assert_allclose(found, code, atol=1e-10)


def test_nonnegative_pursuits_have_no_negative_entries():
    x = signals(60)
    mp = pursuit.matching_pursuit(x, ATOMS, 5, nonnegative=True)
    omp = pursuit.orthogonal_matching_pursuit(x, ATOMS, 5, nonnegative=True)
    for codes in (mp, omp):
        assert codes.min() >= 0 and 0 < np.count_nonzero(codes, axis=1).max() <= 5
    assert errors(x, omp).mean() < errors(x, mp).mean() < errors(x, 0 * mp).mean()
    for signal, code in zip(x, omp, strict=True):
        used = np.flatnonzero(code)
        best, _ = nnls(ATOMS[used].T, signal)
        np.testing.assert_allclose(code[used], best, atol=1e-10)
    nothing = pursuit.orthogonal_matching_pursuit(-ATOMS[:1], np.eye(24)[:3], 2)
    assert nothing.shape == (1, 3)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_refit_is_least_squares_on_the_support(nonnegative):
    x, rng = signals(30), np.random.default_rng(1)
    codes = rng.standard_normal((30, 60)) * (rng.random((30, 60)) < 0.1)
    codes[0] = 0
    found = pursuit.refit(x, codes, ATOMS, nonnegative)
    for signal, code, best in zip(x, codes, found, strict=True):
        used = np.flatnonzero(code)
        assert set(np.flatnonzero(best)) <= set(used)
        if len(used):
            solve = nnls if nonnegative else np.linalg.lstsq
            expected = solve(ATOMS[used].T, signal)[0]
            np.testing.assert_allclose(best[used], expected, atol=1e-9)


def test_refit_of_atoms_that_coincide_is_the_shortest():
    twins = np.concatenate([ATOMS[:2], ATOMS[:1]])
    found = pursuit.refit(ATOMS[:1], [[1.0, 0.0, 1.0]], twins)
    np.testing.assert_allclose(found, [[0.5, 0.0, 0.5]], atol=1e-9)


def test_a_model_stands_for_its_dictionary_and_its_offset():
    model = applications.SparseAutoencoder(60, (4, 6), k=5)
    perturb(model.encoder)
    x = signals(20).reshape(20, 4, 6)
    codes = pursuit.orthogonal_matching_pursuit(x, model, 5)
    offset = np.array(to_numpy(model.encoder.offset), "float64")
    assert np.abs(offset).max() > 0.1
    flat = x.reshape(20, -1) - offset
    expected = pursuit.orthogonal_matching_pursuit(flat, model.dictionary, 5)
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    own = model.encode(x.astype("float32"))
    refitted = pursuit.refit(x, own, model)
    error, before = (
        np.sum((model.decode(s.astype("float32")) - x) ** 2) for s in (refitted, own)
    )
    assert error < before


@pytest.mark.parametrize(
    "x, atoms, count, match",
    [
        (np.ones((2, 24)), ATOMS, 0, "n_nonzero must be an integer >= 1"),
        (np.ones((2, 24)), ATOMS, 25, "n_nonzero must be at most 24"),
        (np.ones((2, 23)), ATOMS, 3, r"24 numbers a sample.*x.shape=\(2, 23\)"),
        (np.ones(24), ATOMS, 3, r"24 numbers a sample.*x.shape=\(24,\)"),
        (np.full((2, 24), np.nan), ATOMS, 3, "x must be finite"),
        (np.ones((2, 24)), ATOMS * np.nan, 3, "dictionary must be"),
    ],
)
def test_bad_arguments_are_named(x, atoms, count, match):
    for function in (pursuit.matching_pursuit, pursuit.orthogonal_matching_pursuit):
        with pytest.raises(ValueError, match=match):
            function(x, atoms, count)


def test_codes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 60\).*codes.shape=\(3, 60\)"):
        pursuit.refit(np.ones((2, 24)), np.ones((3, 60)), ATOMS)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_atoms_of_zeros_have_codes_of_zero(nonnegative):
    x = np.random.default_rng(3).standard_normal((20, ATOMS.shape[1]))
    x[0] = 0
    with_zeros = np.insert(ATOMS, 3, 0, axis=0)
    for pursue in (pursuit.matching_pursuit, pursuit.orthogonal_matching_pursuit):
        codes = pursue(x, with_zeros, 4, nonnegative)
        assert not codes[:, 3].any()
        expected = pursue(x, ATOMS, 4, nonnegative)
        np.testing.assert_allclose(np.delete(codes, 3, axis=1), expected, atol=1e-12)
    codes = pursuit.refit(x, np.ones((20, len(with_zeros))), with_zeros, nonnegative)
    np.testing.assert_allclose(codes[:, 3], 0, atol=1e-12)
