"""The rows of the book's page on other libraries that say that two things are equal."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import signals, to_numpy, unit_atoms
from sklearn.decomposition import DictionaryLearning, MiniBatchDictionaryLearning
from sklearn.linear_model import Lasso

import sc2keras
from sc2keras import applications, pursuit
from sc2keras.evaluation import mean_objective
from sc2keras.sklearn import SparseCodeTransformer

PAGE = (Path(__file__).parents[1] / "docs/how_to/coming_from.md").read_text()
L1 = 0.1
needs_float64 = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has float64 only where it is configured, PyTorch not at all",
)


@pytest.fixture(scope="module")
def x():
    return (signals(60, 12) - 0.4).astype("float64")


@pytest.fixture(scope="module")
def atoms():
    return unit_atoms(9, 12)


def solver_of(atoms, **options):
    options = {"dtype": "float64", "tol": 1e-12, "n_steps": 1000, "l1": L1} | options
    return applications.ActiveSet(*atoms.shape[:1], atoms.shape[1:], **options)


def columns(*arrays):
    return [np.asfortranarray(array.T, dtype="float64") for array in arrays]


# scikit-learn


def test_the_page_names_every_parameter():
    ours = set(SparseCodeTransformer().get_params())
    theirs = set(DictionaryLearning().get_params())
    theirs |= set(MiniBatchDictionaryLearning().get_params())
    section = PAGE.partition("## scikit-learn")[2].partition("## SPAMS")[0]
    same = {"random_state", "verbose"}
    for name in theirs - same:
        assert f"`{name}" in section, name
    # What has another name there, or is there alone, is listed as well.
    assert theirs & ours >= {"tol", "callback", "positive_code", "positive_dict"}
    for name in ("n_atoms", "l1", "start", "epochs", "warm_start", "center"):
        assert name in ours and f"`{name}" in section


@needs_float64
def test_alpha_of_lasso_is_divided_by_the_features(x, atoms):
    lasso = Lasso(L1 / 12, fit_intercept=False, tol=1e-12, max_iter=100_000)
    theirs = np.stack([lasso.fit(atoms.T, row).coef_ for row in x])
    ours = solver_of(atoms, dictionary=atoms).encode(x)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@needs_float64
def test_errors_are_sums_there(x, atoms):
    how = {"alpha": L1, "max_iter": 1, "fit_algorithm": "cd"}
    init = {"dict_init": atoms.copy(), "code_init": np.zeros((60, 9))}
    peer = DictionaryLearning(9, **how, **init, transform_algorithm="lasso_cd").fit(x)
    codes = solver_of(atoms, dictionary=atoms).encode(x)
    mean = mean_objective(x, codes, peer.components_, L1)
    assert peer.error_[-1] == pytest.approx(60 * mean, rel=1e-5)


def test_a_split_by_sign(x, atoms):
    s = SparseCodeTransformer(start=atoms).fit_transform(x)
    split = np.hstack([np.maximum(s, 0), np.maximum(-s, 0)])
    np.testing.assert_array_equal(split[:, :9] - split[:, 9:], s)
    assert "`np.hstack([np.maximum(s, 0), np.maximum(-s, 0)])`" in PAGE


# SPAMS


@needs_float64
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {}),
        ({"lambda2": 0.3}, {"l2": 0.3}),
        ({"pos": True}, {"nonnegative": True}),
    ],
)
def test_the_lasso_of_spams(theirs, ours, x, atoms):
    spams = pytest.importorskip("spams")
    found = spams.lasso(*columns(x, atoms), lambda1=L1, mode=2, **theirs)
    codes = solver_of(atoms, dictionary=atoms, **ours).encode(x, sparse=True)
    # Transposed, its CSC is CSR.
    assert found.T.format == codes.format == "csr"
    np.testing.assert_allclose(found.T.toarray(), codes.toarray(), atol=1e-5)


@needs_float64
def test_the_elastic_net_of_spams_ends_at_as_many_entries_as_features():
    spams = pytest.importorskip("spams")
    rng = np.random.default_rng(0)
    x, atoms = rng.standard_normal((40, 12)), rng.standard_normal((20, 12))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    weights = {"lambda1": 0.3, "lambda2": 0.3}
    found = spams.lasso(*columns(x, atoms), mode=2, **weights).T.toarray()
    codes = solver_of(atoms, dictionary=atoms, l1=0.3, l2=0.3).encode(x)
    n_entries = np.count_nonzero(codes, axis=1)
    is_same = np.abs(found - codes).max(axis=1) < 1e-5
    np.testing.assert_array_equal(is_same, n_entries <= 12)
    assert 0 < is_same.mean() < 1 and np.count_nonzero(found, axis=1).max() == 12


def best_fits(x, atoms, n_nonzero):
    """Codes by the atom, step after step, with which least squares leave least."""
    codes = np.zeros((len(x), len(atoms)))
    for signal, code in zip(x, codes, strict=True):
        chosen = []
        for _ in range(n_nonzero):
            tried = [[*chosen, j] for j in range(len(atoms)) if j not in chosen]
            fits = [np.linalg.lstsq(atoms[t].T, signal)[:2] for t in tried]
            best = int(np.argmin([left.sum() for _, left in fits]))
            chosen, entries = tried[best], fits[best][0]
        code[chosen] = entries
    return codes


def test_the_pursuit_of_spams_takes_the_atom_that_fits_best(x, atoms):
    spams = pytest.importorskip("spams")
    for n_nonzero in (1, 2, 3):
        theirs = spams.omp(*columns(x, atoms), L=n_nonzero).T.toarray()
        expected = best_fits(x, atoms, n_nonzero)
        np.testing.assert_allclose(theirs, expected, atol=1e-6)
        ours = pursuit.orthogonal_matching_pursuit(x, atoms, n_nonzero)
        same = np.isclose(ours, theirs, atol=1e-6).all(axis=1)
        # Of one entry both are the same; then their choices part in places.
        assert same.all() if n_nonzero == 1 else 0.5 < same.mean() < 1


@pytest.mark.parametrize("positive", [False, True])
def test_the_objective_of_train_dl_is_that_of_learn_dictionary(positive):
    spams = pytest.importorskip("spams")
    x = sc2keras.datasets.load("digits").x_train[:400].reshape(-1, 64)
    signs = {"posAlpha": positive, "posD": positive}
    how = {"K": 16, "lambda1": L1, "iter": 300, "batchsize": 64, "numThreads": 1}
    theirs = spams.trainDL(*columns(x), **how, **signs, verbose=False).T
    names = ("nonnegative", "nonnegative_dictionary")
    signs = dict.fromkeys(names, positive)
    ours = sc2keras.learn_dictionary(x, 16, L1, max_iter=300, verbose=0, **signs)
    found = []
    for atoms in (theirs, ours):
        assert np.linalg.norm(atoms, axis=1).max() < 1 + 1e-6
        options = {"dictionary": atoms, "l1": L1, "nonnegative": positive}
        codes = applications.ActiveSet(16, (64,), **options).encode(x)
        found.append(mean_objective(x, codes, atoms, L1))
    assert found[1] == pytest.approx(found[0], rel=0.05)


# Sparse autoencoders


def test_the_loss_of_saelens_is_twice_ours():
    x, coefficient = signals(40, 12), 0.3
    model = applications.SparseAutoencoder(
        20, (12,), activation="relu", l1=coefficient / 2, offset=x.mean(axis=0)
    )
    w_enc, b_enc, w_dec, b_dec = (
        to_numpy(getattr(model.encoder, name))
        for name in ("kernel", "bias", "dictionary", "offset")
    )
    s = np.maximum((x - b_dec) @ w_enc + b_enc, 0)
    errors = np.sum((x - s @ w_dec - b_dec) ** 2, axis=1)
    theirs = np.mean(errors + coefficient * np.abs(s).sum(axis=1))
    model.compile(metrics=["l0", "explained_variance"])
    ours = model.evaluate(x, verbose=0, return_dict=True)
    assert theirs == pytest.approx(2 * ours["loss"], rel=1e-5)
    assert ours["l0"] == pytest.approx(np.count_nonzero(s, axis=1).mean())
    fvu = errors.sum() / np.sum((x - x.mean(axis=0)) ** 2)
    assert ours["explained_variance"] == pytest.approx(1 - fvu, rel=1e-4)
