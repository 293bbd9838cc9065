"""Functions of codes, signals and atoms take what this package makes, or name it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.sparse
from helpers import unit_atoms

import sc2keras
from sc2keras import applications, datasets, diagnosis, evaluation, plotting, pursuit
from sc2keras.feature_sign import feature_sign_search, relative_gaps

D, LABELS = unit_atoms(6, 16), np.arange(40) % 2
MODEL = applications.FISTA(6, (16,), dictionary=D, n_steps=20)
DRAWS = evaluation.make_draws(40, 40, n_draws=2)

# Of signals and codes.
TAKE_CODES = {
    "refit": lambda x, s: pursuit.refit(x, s, D),
    "refit nonnegative": lambda x, s: pursuit.refit(x, s, D, nonnegative=True),
    "matching pursuit": lambda x, s: pursuit.matching_pursuit(x, D, 2),
    "omp": lambda x, s: pursuit.orthogonal_matching_pursuit(x, MODEL, 2),
    "decode": lambda x, s: MODEL.decode(s),
    "encode": lambda x, s: MODEL.encode(x),
    "mean objective": lambda x, s: evaluation.mean_objective(x, s, D, 0.1, 7, l2=0.1),
    "code quality": lambda x, s: evaluation.code_quality(MODEL, x, s),
    "recovery quality": lambda x, s: evaluation.recovery_quality(s, s),
    "steps": lambda x, s: evaluation.step_codes(MODEL, x),
    "paper": lambda x, s: evaluation.paper_accuracy(s, LABELS, s, LABELS, DRAWS),
    "full": lambda x, s: evaluation.full_accuracy(s, LABELS, s, LABELS),
    "search": lambda x, s: feature_sign_search(x, D, 0.1, s),
    "gaps": lambda x, s: relative_gaps(x, s, D, 0.1),
    "diagnose": lambda x, s: diagnosis.diagnose(MODEL, x).as_dict(),
    "l1 from": lambda x, s: diagnosis.l1_from(x, D),
    "nonzeros": lambda x, s: drawn(plotting.plot_nonzeros({"s": s, "m": MODEL}, x)),
    "images": lambda x, s: drawn(
        plotting.plot_reconstructions(x, {"x": x, "m": MODEL}, (4, 4))
    ),
    "convergence": lambda x, s: drawn(plotting.plot_convergence({"m": MODEL}, x=x)),
}


def drawn(ax):
    figures = [image.get_array() for image in ax.images]
    figures += [line.get_xydata() for line in ax.lines]
    figures += [[patch.get_height() for patch in ax.patches]]
    plt.close(ax.figure)
    return np.concatenate([np.ravel(figure) for figure in figures])


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    x = np.where(rng.random((40, 16)) < 0.5, rng.random((40, 16)), 0.0)
    return x.astype("float32"), MODEL.encode(x.astype("float32"))


@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.coo_array])
@pytest.mark.parametrize("name", TAKE_CODES)
def test_sparse_signals_and_codes_are_taken_as_dense_ones(name, make, given):
    dense = TAKE_CODES[name](*given)
    found = TAKE_CODES[name](*map(make, given))
    if isinstance(dense, dict):
        assert found == dense
    else:
        np.testing.assert_array_equal(found, dense)


def test_sparse_codes_of_a_model_are_refit(given):
    codes = MODEL.encode(given[0], sparse=True)
    found = pursuit.refit(given[0], codes, MODEL)
    assert ((found != 0) == (codes.toarray() != 0)).all()


TAKE_ATOMS = {
    "matching pursuit": lambda x, d: pursuit.matching_pursuit(x, d, 1),
    "omp": lambda x, d: pursuit.orthogonal_matching_pursuit(x, d, 1),
    "refit": lambda x, d: pursuit.refit(x, np.zeros((len(x), len(d))), d),
    "recovery": lambda x, d: datasets.sparse_recovery(5, dictionary=d),
    "analytic": lambda x, d: sc2keras.analytic_weights(d),
    "layer": lambda x, d: applications.FISTA(len(d), (16,), dictionary=d),
    "l1 from": lambda x, d: diagnosis.l1_from(x, d),
    "atoms": lambda x, d: plotting.plot_atoms(d, (4, 4)),
}


@pytest.mark.parametrize("name", TAKE_ATOMS)
def test_a_dictionary_without_atoms_is_named(name, given):
    message = r"(dictionary|atoms) (must|of shape)|n_atoms must"
    with pytest.raises(ValueError, match=rf"({message}).*[=( ]\(?0"):
        TAKE_ATOMS[name](given[0], np.zeros((0, 16)))
