"""Analytic weights beside a general solver, and the laws of their closed forms."""

import numpy as np
import pytest
from helpers import unit_atoms
from scipy.optimize import minimize

from sc2keras import analytic_weights
from sc2keras.datasets import sparse_recovery

WIDE, TALL = unit_atoms(20, 12), unit_atoms(6, 12)
OPTIONS = [{}, {"ridge": 0.3}, {"symmetric": True}]


def objective(weights, atoms, ridge=0.0):
    return np.sum((weights @ atoms.T) ** 2) + ridge * np.sum(weights**2)


def minimum(atoms, ridge, metric_of):
    """The weights that SciPy finds, of parameters that `metric_of` makes weights of."""
    size = metric_of.size(atoms)
    found = minimize(
        lambda p: objective(metric_of(p, atoms), atoms, ridge),
        np.random.default_rng(0).standard_normal(size),
        constraints={
            "type": "eq",
            "fun": lambda p: np.sum(metric_of(p, atoms) * atoms, axis=1) - 1,
        },
        options={"maxiter": 2000, "ftol": 1e-14},
    )
    return metric_of(found.x, atoms)


def free(parameters, atoms):
    return parameters.reshape(atoms.shape)


def semidefinite(parameters, atoms):
    factor = parameters.reshape(atoms.shape[1], -1)
    return atoms @ factor @ factor.T


free.size = lambda atoms: atoms.size
semidefinite.size = lambda atoms: atoms.shape[1] ** 2


@pytest.mark.parametrize("ridge", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(6, 4), (3, 5)])
def test_they_are_the_minimum_that_a_general_solver_finds(shape, ridge):
    atoms = unit_atoms(*shape)
    expected = minimum(atoms, ridge, free)
    weights = analytic_weights(atoms, ridge)
    # Of few atoms and no ridge there are others outside of their span.
    inside = np.linalg.pinv(atoms) @ atoms
    np.testing.assert_allclose(weights, expected @ inside, atol=1e-4)
    assert objective(weights, atoms, ridge) <= objective(expected, atoms, ridge) + 1e-9


def test_the_symmetric_form_is_the_minimum_that_a_general_solver_finds():
    atoms = unit_atoms(6, 4)
    expected = minimum(atoms, 0.0, semidefinite)
    weights = analytic_weights(atoms, symmetric=True)
    np.testing.assert_allclose(weights, expected, atol=1e-3)
    assert objective(weights, atoms) <= objective(expected, atoms) + 1e-8


@pytest.mark.parametrize("atoms", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 3.0])
def test_they_are_stationary(atoms, ridge):
    # Of the Lagrangian: w_i (DᵀD + ridge·I) is a multiple of d_i.
    weights = analytic_weights(atoms, ridge)
    gradient = weights @ (atoms.T @ atoms + ridge * np.eye(12))
    multipliers = np.sum(gradient * atoms, axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, multipliers * atoms, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("atoms", [WIDE, TALL], ids=["wide", "tall"])
def test_each_row_sees_its_own_atom_as_one(atoms, options):
    weights = analytic_weights(atoms, **options)
    assert weights.dtype == np.float64
    np.testing.assert_allclose(np.sum(weights * atoms, axis=1), 1, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_order_rotation_and_norms_carry_over(options):
    rng, weights = np.random.default_rng(3), analytic_weights(WIDE, **options)
    order = rng.permutation(20)
    np.testing.assert_allclose(
        analytic_weights(WIDE[order], **options), weights[order], atol=1e-9
    )
    rotation = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    np.testing.assert_allclose(
        analytic_weights(WIDE @ rotation, **options), weights @ rotation, atol=1e-9
    )
    twice = {**options, "ridge": 4 * options.get("ridge", 0.0)}
    np.testing.assert_allclose(
        analytic_weights(2 * WIDE, **twice), weights / 2, atol=1e-9
    )


def test_the_symmetric_form_is_semidefinite():
    weights = analytic_weights(WIDE, symmetric=True)
    metric = np.linalg.pinv(WIDE) @ weights
    np.testing.assert_allclose(metric, metric.T, atol=1e-9)
    assert np.linalg.eigvalsh(metric)[0] > 0
    plain = objective(analytic_weights(WIDE), WIDE)
    assert plain < objective(weights, WIDE) < 1.1 * plain


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_the_symmetric_form_is_stationary(ridge):
    # Of the Lagrangian: (S + ridge·I) M (S + ridge·I) is a sum of multiples of d_iᵀd_i.
    weights = analytic_weights(WIDE, ridge, symmetric=True)
    gram = WIDE.T @ WIDE + ridge * np.eye(12)
    gradient = (gram @ np.linalg.pinv(WIDE) @ weights @ gram).ravel()
    outer = np.einsum("ij,ik->jki", WIDE, WIDE).reshape(144, 20)
    multipliers = np.linalg.lstsq(outer, gradient, rcond=None)[0]
    np.testing.assert_allclose(outer @ multipliers, gradient, atol=1e-8)


def test_a_ridge_goes_from_the_pseudo_inverse_to_the_dictionary():
    columns = np.linalg.pinv(WIDE).T
    columns /= np.sum(columns * WIDE, axis=1, keepdims=True)
    np.testing.assert_allclose(analytic_weights(WIDE), columns, atol=1e-9)
    np.testing.assert_allclose(analytic_weights(WIDE, 1e9), WIDE, atol=1e-6)
    norms = [np.linalg.norm(analytic_weights(WIDE, r)) for r in (0, 0.1, 1, 10)]
    assert (np.diff(norms) < 0).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_dictionary_of_lower_rank_has_weights_in_its_span(options):
    span = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 5)))[0].T
    atoms = unit_atoms(20, 5) @ span
    weights = analytic_weights(atoms, **options)
    inside = analytic_weights(unit_atoms(20, 5), **options) @ span
    np.testing.assert_allclose(weights, inside, atol=1e-8)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equal_atoms_have_equal_rows(options):
    atoms = np.concatenate([WIDE, WIDE[:1], -WIDE[1:2]])
    weights = analytic_weights(atoms, **options)
    np.testing.assert_allclose(weights[20], weights[0], atol=1e-8)
    np.testing.assert_allclose(weights[21], -weights[1], atol=1e-8)
    np.testing.assert_allclose(np.sum(weights * atoms, axis=1), 1, atol=1e-8)


def test_what_has_no_weights_is_named_with_the_remedy():
    zero, missing = WIDE.copy(), WIDE.copy()
    zero[3], missing[2, 1] = 0, np.inf
    for bad, match in [
        (zero, r"no zero atom.*received norm 0\.0e\+00 in atom 3\. Replace it"),
        (missing, r"must be finite; received a NaN or an infinity in atom 2\. Replace"),
        (WIDE[0], r"shape \(n_atoms, n_features\); received .*\(12,\).*its rows"),
        (np.zeros((0, 4)), r"received dictionary\.shape=\(0, 4\)"),
    ]:
        with pytest.raises(ValueError, match=match):
            analytic_weights(bad)
    with pytest.raises(ValueError, match=r"ridge must be .*>= 0; received ridge=-1"):
        analytic_weights(WIDE, ridge=-1)


def test_a_dictionary_without_a_symmetric_form_is_refused():
    # More lengths than a symmetric matrix of the plane can all make one.
    atoms = np.linspace(0.5, 1, 9)[:, None] * unit_atoms(9, 2)
    with pytest.raises(ValueError, match=r"received one of which.*symmetric=False"):
        analytic_weights(atoms, symmetric=True)
    assert np.isfinite(analytic_weights(atoms)).all()


@pytest.mark.parametrize(("shape", "seed"), [((8, 4), 0), ((10, 5), 1), ((12, 6), 3)])
def test_atoms_of_one_norm_always_have_the_symmetric_form(shape, seed):
    # A common mean makes the closed form of a few features an indefinite one.
    atoms = np.random.default_rng(seed).standard_normal(shape) + 2
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    weights = analytic_weights(atoms, symmetric=True)
    np.testing.assert_allclose(np.sum(weights * atoms, axis=1), 1, atol=1e-6)
    metric = np.linalg.pinv(atoms) @ weights
    np.testing.assert_allclose(metric, metric.T, atol=1e-6)
    assert np.linalg.eigvalsh(metric)[0] > -1e-6
    # The problem is convex: towards another such matrix it grows.
    size = np.sum(np.square(weights @ atoms.T))
    for share in (0.1, 0.5):
        mixed = (1 - share) * metric + share * np.eye(shape[1])
        assert np.sum(np.square(atoms @ mixed @ atoms.T)) > size


@pytest.mark.parametrize("condition", [1e6, 1e8])
def test_a_square_dictionary_is_inverted_to_float64(condition):
    atoms = sparse_recovery(20, 20, 1, condition=condition).dictionary
    others = analytic_weights(atoms) @ atoms.T
    np.testing.assert_allclose(others, np.eye(20), atol=1e-16 * condition)


def test_an_atom_that_is_small_beside_the_others_has_weights():
    atoms = np.eye(60)
    atoms[3] *= 5e-8
    weights = analytic_weights(atoms)
    np.testing.assert_allclose(np.sum(weights * atoms, axis=1), 1)


SPAN = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 5)))[0].T
DEFICIENT = {
    "centred": WIDE - WIDE.mean(axis=1, keepdims=True),
    "of rank 5": unit_atoms(20, 5) @ SPAN,
    "fewer atoms": unit_atoms(4, 3) @ SPAN[:3],
}


def rounded(atoms, dtype):
    """The numbers of a dtype, in float32 or more."""
    if dtype != "bfloat16":
        return atoms.astype(dtype)
    bits = (atoms.astype("float32").view("uint32") + 2**15) & np.uint32(2**32 - 2**16)
    return bits.view("float32")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", DEFICIENT)
def test_the_rank_is_that_of_the_precision_of_the_numbers(name, dtype, options):
    if options.get("symmetric") and "16" in dtype:
        pytest.skip("the norms are no longer one")
    atoms = DEFICIENT[name]
    expected = analytic_weights(atoms, **options)
    given = rounded(atoms, dtype)
    digits = {"bfloat16": 0.3, "float16": 0.05, "float32": 1e-5, "float64": 1e-12}
    # As a weight's value is given, in float64.
    found = analytic_weights(given.astype(float), dtype=dtype, **options)
    np.testing.assert_allclose(found, expected, atol=digits[dtype])
    if dtype != "bfloat16":
        np.testing.assert_array_equal(analytic_weights(given, **options), found)


@pytest.mark.parametrize("size", [(20, 12), (128, 64), (300, 250)])
def test_what_was_centred_in_float32_has_no_weights_for_a_constant(size):
    atoms = np.random.default_rng(0).standard_normal(size).astype("float32") + 10
    atoms -= atoms.mean(axis=1, keepdims=True)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    weights = analytic_weights(atoms)
    exact = atoms - atoms.astype(float).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, analytic_weights(exact), atol=1e-3)


def test_integers_are_exact():
    atoms = np.array([[1, 0], [10**6, 1]])
    np.testing.assert_allclose(analytic_weights(atoms) @ atoms.T, np.eye(2), atol=1e-8)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("ridge", [1e9, 1e13, 1e30])
def test_a_ridge_may_be_as_large_as_it_likes(ridge, symmetric):
    weights = analytic_weights(WIDE, ridge, symmetric)
    assert symmetric or np.abs(weights - WIDE).max() < 1e-6
    np.testing.assert_allclose(np.sum(weights * WIDE, axis=1), 1, atol=1e-6)
    # In any unit: a ridge is in that of the squared norms.
    small = analytic_weights(1e-6 * WIDE, 1e-12 * ridge, symmetric)
    np.testing.assert_allclose(1e-6 * small, weights, atol=1e-6)
