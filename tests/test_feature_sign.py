import numpy as np
import pytest
from helpers import signals, unit_atoms
from sklearn.linear_model import Lasso

from sc2keras.feature_sign import feature_sign_search, relative_gaps
from sc2keras.objective import relative_duality_gap


@pytest.mark.parametrize("n_atoms", [6, 20])
def test_the_codes_are_those_of_scikit_learn(n_atoms):
    x, dictionary = signals(30, 12), unit_atoms(n_atoms, 12).astype("float64")
    found = feature_sign_search(x, dictionary, 0.3, np.zeros((30, n_atoms)))
    # Its objective is divided by the number of features.
    lasso = Lasso(alpha=0.3 / 12, fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = [lasso.fit(dictionary.T, row.astype("float64")).coef_ for row in x]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert relative_gaps(x, found, dictionary, 0.3).max() < 1e-10


def test_the_gap_is_that_of_any_backend():
    x, dictionary = signals(30, 12), unit_atoms(20, 12).astype("float32")
    codes = signals(30, 20, seed=4) * (signals(30, 20, seed=5) > 0.5)
    found = relative_gaps(x, codes, dictionary, 0.2)
    expected = relative_duality_gap(x, codes.astype("float32"), dictionary, 0.2)
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("l1", [1e-1, 1e-4, 1e-6])
@pytest.mark.parametrize("shape", [(20, 40), (40, 20)])
def test_the_optimum_is_exact_however_small_the_weight(shape, l1):
    n_features, n_atoms = shape
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((n_atoms, n_features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    x = 10 * rng.standard_normal((20, n_features))
    codes = feature_sign_search(x, atoms, l1, np.zeros((20, n_atoms)))
    assert relative_gaps(x, codes, atoms, l1).max() < 1e-6
    weights = l1 * rng.uniform(1, 2, n_atoms)
    codes = feature_sign_search(x, atoms, weights, np.zeros((20, n_atoms)))
    assert relative_gaps(x, codes, atoms, weights).max() < 1e-6
