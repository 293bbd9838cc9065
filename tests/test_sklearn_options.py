"""What users of scikit-learn expect of `SparseCodeTransformer`, option by option."""

import pickle
import tracemalloc

import keras
import numpy as np
import pytest
import scipy.sparse
import sklearn
from helpers import EXHAUSTIVE, eagerly, signals, unit_atoms, with_slow
from sklearn.base import clone
from sklearn.decomposition import SparseCoder as SolvingCoder
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import sc2keras
from sc2keras import applications
from sc2keras.datasets import load
from sc2keras.evaluation import mean_objective
from sc2keras.sklearn import SparseCodeTransformer
from sc2keras.sparse_rows import SparseRows
from sc2keras.transform_algorithms import encode_by

needs_float64 = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has float64 only where it is configured, PyTorch not at all",
)
EXACT = {"tol": 1e-12, "dtype": "float64", "n_steps": 1000}


@pytest.fixture(autouse=True)
def untraced():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    return data.x_train[:300].reshape(-1, 64), data.y_train[:300]


@pytest.fixture(scope="module")
def atoms(digits):
    return sc2keras.sample_dictionary(digits[0], 20)


@pytest.fixture(scope="module")
def sparse_data():
    """Data that are mostly zero, dense and in CSR."""
    rng = np.random.default_rng(0)
    x = rng.random((150, 30), dtype="float32")
    x[rng.random(x.shape) < 0.8] = 0
    return x, scipy.sparse.csr_matrix(x)


def objective(transformer, x):
    codes = transformer.transform(x)
    return mean_objective(x, codes, transformer.components_, transformer.l1)


# Signs


@pytest.mark.parametrize(
    ("parameter", "option"),
    [("positive_code", "nonnegative"), ("positive_dict", "nonnegative_dictionary")],
)
@pytest.mark.parametrize("builder", with_slow(["LISTA"], ["ActiveSet"]))
def test_signs_are_the_options_of_the_builder(parameter, option, builder, digits):
    x = digits[0][:50] - 0.2
    how = {"n_atoms": 6, "builder": builder, "epochs": 1, "random_state": 0}
    how["start"] = "classical" if builder == "ActiveSet" else "samples"
    named = SparseCodeTransformer(**how, **{parameter: True}).fit(x)
    plain = SparseCodeTransformer(**how, builder_kwargs={option: True}).fit(x)
    np.testing.assert_array_equal(named.components_, plain.components_)
    np.testing.assert_array_equal(named.transform(x), plain.transform(x))
    signed = named.transform(x) if option == "nonnegative" else named.components_
    assert signed.min() >= 0 and signed.any()
    with pytest.raises(ValueError, match=rf"{parameter}=True and .*contradict"):
        named.set_params(builder_kwargs={option: False}).fit(x)


@pytest.mark.parametrize("start", ["samples", "random", "classical"])
def test_atoms_of_one_sign_start_anywhere(start):
    x = signals(40, 8) - 0.5
    coder = SparseCodeTransformer(5, start=start, positive_dict=True, random_state=0)
    assert coder.fit(x).components_.min() >= 0
    # Of signals without anything above zero no atom can be made.
    assert coder.fit(-np.abs(x)).components_.min() >= 0


# The algorithm of `transform`


def reference(x, atoms, **options):
    x, atoms = x.astype("float64"), atoms.astype("float64")
    return sparse_encode(x, atoms, **options)


@needs_float64
@pytest.mark.parametrize(
    "positive, alpha",
    with_slow([(True, 0.3)], [(False, None), (False, 0.3), (True, None)], EXHAUSTIVE),
)
def test_lasso_is_that_of_scikit_learn(positive, alpha, digits, atoms):
    x = digits[0][:60] - 0.2
    how = {"positive_code": positive, "transform_alpha": alpha, "l1": 0.15}
    solver = SparseCodeTransformer(start=atoms, builder_kwargs=EXACT, **how).fit(x)
    # With signs, its lasso_lars ends above the least, and differs by up to 0.1.
    options = {"alpha": alpha or 0.15, "positive": positive, "max_iter": 100_000}
    expected = reference(x, atoms, algorithm="lasso_cd", **options)
    # Coordinate descent of scikit-learn 1.6 stops at a few thousandths.
    atol = 5e-3 if sklearn.__version__.startswith("1.6.") else 1e-5
    np.testing.assert_allclose(solver.transform(x), expected, atol=atol)
    solver.set_params(transform_algorithm="lasso")
    np.testing.assert_allclose(solver.transform(x), expected, atol=atol)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("alpha", [None, 0.3])
def test_threshold_is_that_of_scikit_learn(positive, alpha, digits, atoms):
    x = digits[0][:60] - 0.2
    coder = SparseCodeTransformer(
        start=atoms,
        l1=0.15,
        positive_code=positive,
        transform_algorithm="threshold",
        transform_alpha=alpha,
    )
    expected = reference(
        x, atoms, algorithm="threshold", alpha=alpha or 0.15, positive=positive
    )
    np.testing.assert_allclose(coder.fit_transform(x), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Orthogonal matching pursuit ended")
@pytest.mark.parametrize("n_nonzero", [None, 1, 4])
def test_omp_is_that_of_scikit_learn(n_nonzero, digits, atoms):
    x = digits[0][:60]
    how = {"transform_algorithm": "omp", "transform_n_nonzero_coefs": n_nonzero}
    peer = SolvingCoder(atoms.astype("float64"), **how)
    expected = peer.fit_transform(x.astype("float64"))
    found = SparseCodeTransformer(start=atoms, **how).fit_transform(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.count_nonzero(found, axis=1).max() == (n_nonzero or 6)


def test_codes_of_a_network_by_every_algorithm(digits, atoms):
    x = digits[0][:60]
    how = {"start": atoms, "builder": "LISTA", "epochs": 1, "random_state": 0}
    coder = SparseCodeTransformer(**how).fit(x)
    own, learned = coder.transform(x), coder.components_
    found = {
        name: coder.set_params(transform_algorithm=name).transform(x)
        for name in ("network", "lasso", "omp", "threshold")
    }
    np.testing.assert_array_equal(found["network"], own)
    best = reference(x, learned, algorithm="lasso_lars", alpha=0.1)
    costs = (mean_objective(x, s, learned, 0.1) for s in (found["lasso"], best, own))
    lasso, least, network = costs
    assert lasso <= 1.0002 * least < network
    for name, options in (("omp", {}), ("threshold", {"alpha": 0.1})):
        expected = reference(x, learned, algorithm=name, **options)
        np.testing.assert_allclose(found[name], expected, atol=1e-5)


def test_lasso_follows_a_dictionary_that_learns_on(digits):
    x = digits[0][:100]
    how = {"n_atoms": 8, "builder": "LISTA", "start": "samples", "random_state": 0}
    coder = SparseCodeTransformer(**how, transform_algorithm="lasso").partial_fit(x)
    coder.transform(x)
    codes = coder.partial_fit(x).transform(x)
    fresh = pickle.loads(pickle.dumps(coder))
    np.testing.assert_allclose(fresh.transform(x), codes, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["lasso", "omp", "threshold"])
def test_an_offset_is_taken_out_of_what_is_encoded(algorithm, digits, atoms):
    x = digits[0][:40]
    how = {"start": atoms, "builder": "LISTA", "transform_algorithm": algorithm}
    how |= {"epochs": 1, "learning_rate": 0.0}
    plain = SparseCodeTransformer(**how).fit(x)
    moved = SparseCodeTransformer(**how, builder_kwargs={"offset": 0.5}).fit(x + 0.5)
    codes = plain.transform(x)
    assert codes.any()
    np.testing.assert_allclose(moved.transform(x + 0.5), codes, atol=1e-3)


def test_codes_of_a_given_model_by_another_algorithm(digits, atoms):
    x = digits[0][:20]
    model = applications.LISTA(20, (8, 8, 1), dictionary=atoms)
    coder = SparseCodeTransformer(model=model, transform_algorithm="threshold")
    expected = reference(x, atoms, algorithm="threshold", alpha=0.1)
    np.testing.assert_allclose(coder.fit_transform(x), expected, atol=1e-5)
    np.testing.assert_allclose(
        coder.set_params(transform_algorithm=None).transform(x),
        model.encode(x.reshape(-1, 8, 8, 1)),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"transform_algorithm": "lasso_cd"}, r"received transform_alg.*are 'lasso'"),
        ({"transform_algorithm": "network"}, "needs a network; received a solver"),
        ({"transform_alpha": -1.0}, r"received transform_alpha=-1\.0"),
        ({"transform_n_nonzero_coefs": 0}, "received transform_n_nonzero_coefs=0"),
        (
            {"transform_algorithm": "omp", "transform_n_nonzero_coefs": 5},
            "at most 4, .*received transform_n_nonzero_coefs=5",
        ),
        ({"tol": -1.0}, r"received tol=-1\.0"),
        ({"max_no_improvement": 2.5}, r"received max_no_improvement=2\.5"),
        ({"callback": "print"}, "received callback='print'"),
        ({"n_atoms": 3, "start": np.eye(5)}, r"dictionary.shape=\(5, 5\)"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_wrong_values_are_named_before_anything_is_learned(
    method, parameters, message, monkeypatch
):
    monkeypatch.setattr("sc2keras.sklearn_learning.trained_learner", None)
    coder = SparseCodeTransformer(**{"n_atoms": 4} | parameters)
    with pytest.raises(ValueError, match=message):
        getattr(coder, method)(np.ones((10, 5)))
    assert not hasattr(coder, "model_")


# Sparse signals, and sparse codes


@pytest.mark.parametrize("algorithm", [None, "omp", "threshold"])
def test_sparse_codes_are_the_codes(algorithm, digits, atoms):
    x = digits[0]
    how = {"transform_algorithm": algorithm, "transform_alpha": 2.0}
    coder = SparseCodeTransformer(start=atoms, **how)
    dense = coder.fit_transform(x)
    found = coder.set_params(sparse_output=True).transform(x)
    assert scipy.sparse.isspmatrix_csr(found) and found.dtype == "float32"
    assert found.nnz == np.count_nonzero(dense) < dense.size
    assert found.indices.dtype == found.indptr.dtype == np.int32
    # Whoever asks looks at what is there.
    again = scipy.sparse.csr_matrix((found.data, found.indices, found.indptr))
    assert again.has_canonical_format and found.has_canonical_format
    np.testing.assert_allclose(found.toarray(), dense, atol=1e-6)
    back = coder.inverse_transform(found)
    np.testing.assert_allclose(back, coder.inverse_transform(dense), atol=1e-5)


def test_frames_hold_no_sparse_codes(digits, atoms):
    pytest.importorskip("pandas")
    coder = SparseCodeTransformer(start=atoms, sparse_output=True).fit(digits[0])
    coder.set_output(transform="pandas")
    with pytest.raises(ValueError, match="sparse"):
        coder.transform(digits[0])


def test_sparse_codes_go_through_a_pipeline(digits):
    x, y = digits
    coder = SparseCodeTransformer(20, sparse_output=True, random_state=0)
    classifier = make_pipeline(coder, LogisticRegression(C=100, max_iter=1000))
    assert classifier.fit(x, y).score(x, y) > 0.9


@pytest.mark.parametrize("algorithm", [None, "omp", "threshold"])
@pytest.mark.parametrize("make", [scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_sparse_signals_are_encoded_as_dense_ones(algorithm, make, sparse_data):
    x = sparse_data[0]
    how = {"n_atoms": 6, "start": "samples", "random_state": 0}
    coder = SparseCodeTransformer(**how, transform_algorithm=algorithm).fit(x)
    expected = coder.transform(x)
    assert expected.any()
    np.testing.assert_allclose(coder.transform(make(x)), expected, atol=1e-6)


@pytest.mark.parametrize("kwargs", [None, {"offset": 0.25}])
@pytest.mark.parametrize(
    ("builder", "start"),
    with_slow(
        [("ActiveSet", "classical"), ("LISTA", "samples")],
        [("ActiveSet", "samples"), ("LISTA", "classical")],
    ),
)
def test_sparse_signals_are_learned_from_as_dense_ones(
    builder, start, kwargs, sparse_data
):
    coders = [
        SparseCodeTransformer(
            6,
            builder=builder,
            start=start,
            epochs=2,
            batch_size=40,
            random_state=0,
            builder_kwargs=kwargs,
        )
        for _ in sparse_data
    ]
    weight = np.arange(150) % 3
    for method in ("fit", "partial_fit"):
        for coder, x in zip(coders, sparse_data, strict=True):
            getattr(coder, method)(x, sample_weight=weight)
        np.testing.assert_array_equal(*(each.components_ for each in coders))


def test_a_model_of_images_takes_sparse_rows(digits):
    x = digits[0][:20]
    model = applications.LISTA(8, (8, 8, 1))
    coder = SparseCodeTransformer(model=model).fit(x)
    found = coder.transform(scipy.sparse.csr_array(x))
    np.testing.assert_allclose(found, coder.transform(x), atol=1e-6)


def test_neither_signals_nor_codes_are_ever_dense_as_a_whole():
    rng = np.random.default_rng(0)
    x = scipy.sparse.random_array((40_000, 100), density=0.01, rng=rng, format="csr")
    rows = SparseRows(x.astype("float32"))
    model = applications.LISTA(60, (100,), dictionary=unit_atoms(60, 100))
    tracemalloc.start()
    codes = encode_by(model, rows, "threshold", alpha=0.5, sparse=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert codes.shape == (40_000, 60) and codes.nnz
    # Dense, the signals are 16 MB and the codes 9.6 MB.
    assert peak < 4e6


@pytest.mark.parametrize("offset", [None, 0.5])
def test_sparse_rows_are_indexed_as_arrays(offset, sparse_data):
    x, matrix = sparse_data
    rows = SparseRows(matrix).minus(offset) if offset else SparseRows(matrix)
    expected = x - (offset or 0.0)
    assert (rows.shape, rows.ndim, len(rows)) == ((150, 30), 2, 150)
    for index in (0, np.int64(7), slice(3, 9), slice(0, 0), [4, 2, 2], x[:, 0] > 0):
        np.testing.assert_array_equal(rows[index], expected[index])
    images = rows.reshape(150, 5, 6)
    np.testing.assert_array_equal(images[2:5], expected[2:5].reshape(3, 5, 6))


def test_dictionaries_are_learned_from_sparse_signals(sparse_data):
    x, matrix = sparse_data
    how = {"n_atoms": 5, "max_iter": 10, "verbose": 0}
    expected = sc2keras.learn_dictionary(x, **how)
    np.testing.assert_array_equal(sc2keras.learn_dictionary(matrix, **how), expected)


# When `fit` ends, and what it tells


def test_a_dictionary_is_done_when_it_no_longer_improves(digits):
    x = digits[0]
    how = {"n_atoms": 10, "batch_size": 50, "random_state": 0}
    full = SparseCodeTransformer(**how).fit(x)
    assert full.n_iter_ == len(full.error_) == 300
    for limit in ({"max_no_improvement": 3}, {"tol": 0.05}):
        coder = SparseCodeTransformer(**how, **limit).fit(x)
        # The first pass, of six updates, does not count.
        assert 6 < coder.n_iter_ == len(coder.error_) < 300
        np.testing.assert_array_equal(coder.error_, full.error_[: coder.n_iter_])
    assert full.error_[-6:].mean() == pytest.approx(objective(full, x), rel=0.02)


def test_a_network_is_done_when_its_epochs_no_longer_improve(digits):
    x = digits[0]
    how = {"n_atoms": 8, "builder": "LISTA", "start": "samples", "random_state": 0}
    how |= {"batch_size": 100, "epochs": 30, "learning_rate": 0.0}
    coder = SparseCodeTransformer(**how, max_no_improvement=2).fit(x)
    # The second epoch is the first that counts; two are then no better.
    assert 9 <= coder.n_iter_ == 3 * len(coder.error_) < 90
    np.testing.assert_allclose(coder.error_, objective(coder, x), rtol=1e-4)
    assert coder.set_params(max_no_improvement=None, tol=1e-3).fit(x).n_iter_ == 6


def test_a_frozen_dictionary_does_not_end_a_training(digits, atoms):
    frozen = {"trainable_dictionary": False}
    how = {"start": atoms, "builder": "LISTA", "epochs": 4, "builder_kwargs": frozen}
    coder = SparseCodeTransformer(**how, tol=1.0).fit(digits[0])
    assert len(coder.error_) == 4


@pytest.mark.parametrize("builder", ["ActiveSet", "LISTA"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_callback_is_told_of_updates_and_epochs(method, builder, digits):
    told = []
    coder = SparseCodeTransformer(
        5, builder=builder, epochs=2, batch_size=100, callback=told.append
    )
    getattr(coder, method)(digits[0])
    per_call = 3 if builder == "LISTA" else 1
    assert [t["n_iter"] for t in told] == list(
        range(per_call, coder.n_iter_ + 1, per_call)
    )
    np.testing.assert_array_equal([t["error"] for t in told], coder.error_)
    assert told[-1]["components"].shape == coder.components_.shape
    if builder == "LISTA":
        np.testing.assert_array_equal(told[-1]["components"], coder.components_)
    if method == "partial_fit":
        n_before = coder.n_iter_
        assert coder.partial_fit(digits[0]).n_iter_ == 2 * n_before


@pytest.mark.parametrize("builder", ["ActiveSet", "LISTA"])
@pytest.mark.parametrize("warm_start", [False, True])
def test_a_callback_that_fails_leaves_the_old_estimator(builder, warm_start, digits):
    def interrupt(told):
        raise KeyboardInterrupt

    x = digits[0]
    how = {"builder": builder, "epochs": 1, "random_state": 0}
    coder = SparseCodeTransformer(5, **how, warm_start=warm_start).fit(x)
    before, codes = dict(vars(coder)), coder.transform(x)
    with pytest.raises(KeyboardInterrupt):
        coder.set_params(callback=interrupt).fit(x[:200])
    assert vars(coder.set_params(callback=None)) == before
    np.testing.assert_array_equal(coder.transform(x), codes)


def test_what_learns_nothing_makes_no_updates(digits, atoms):
    for how in ({"start": atoms}, {"model": applications.LISTA(8, (64,))}):
        coder = SparseCodeTransformer(**how).fit(digits[0])
        assert (coder.n_iter_, coder.error_.size) == (0, 0)


# Weights of samples


@pytest.mark.parametrize("builder", ["ActiveSet", "StepLFISTA"])
def test_a_weight_of_two_is_the_sample_twice(builder, digits, atoms):
    x, weight = digits[0][:60], np.arange(60) % 3 + 1
    options = {"unit": 1.0} if builder == "StepLFISTA" else None
    how = {"start": atoms, "builder": builder, "batch_size": 200, "random_state": 0}
    weighted, repeated = (
        SparseCodeTransformer(**how, builder_kwargs=options) for _ in range(2)
    )
    for _ in range(3):
        weighted.partial_fit(x, sample_weight=weight)
        repeated.partial_fit(np.repeat(x, weight, axis=0))
        np.testing.assert_allclose(weighted.error_, repeated.error_, rtol=1e-5)
    moved = np.abs(weighted.components_ - atoms).max()
    found = np.abs(weighted.components_ - repeated.components_).max()
    assert moved > 1e-3 and found < 1e-2 * moved


@pytest.mark.parametrize("builder", ["ActiveSet", "LISTA"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_weight_of_zero_leaves_a_sample_out(method, builder, digits):
    x = digits[0]
    how = {"n_atoms": 6, "builder": builder, "epochs": 2, "random_state": 0}
    weighted, without = (SparseCodeTransformer(**how) for _ in range(2))
    weight = (np.arange(len(x)) % 3 > 0).astype(float)
    getattr(weighted, method)(x, sample_weight=weight)
    getattr(without, method)(x[weight > 0])
    np.testing.assert_allclose(weighted.components_, without.components_, atol=1e-5)


@pytest.mark.parametrize("builder", with_slow(["ActiveSet"], ["LISTA"]))
def test_fit_takes_weights_of_any_scale(builder, digits):
    x = digits[0]
    weight = 1.0 + (np.arange(len(x)) % 4)
    how = {"n_atoms": 6, "builder": builder, "epochs": 2, "random_state": 0}
    found = [
        SparseCodeTransformer(**how).fit(x, sample_weight=scale * weight).components_
        for scale in (1.0, 1e-6, 4096.0)
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    np.testing.assert_allclose(found[2], found[0], atol=1e-4)


def test_samples_that_count_more_are_coded_better(digits):
    x, y = digits
    is_one = y == 1
    plain, heavy = (
        SparseCodeTransformer(6, random_state=0).fit(
            x, sample_weight=np.where(is_one, weight, 1.0)
        )
        for weight in (1.0, 50.0)
    )
    assert objective(heavy, x[is_one]) < 0.9 * objective(plain, x[is_one])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(299), r"shape \(n_samples,\), here \(300,\); received .*\(299,\)"),
        (np.ones((300, 1)), r"sample_weight of shape \(300, 1\)"),
        (-np.ones(300), r"received sample_weight\[0\]=-1"),
        (np.full(300, np.nan), r"received sample_weight\[0\]=nan"),
        (np.zeros(300), "all of them zero"),
        (["heavy"] * 300, "sample_weight must hold real numbers"),
    ],
)
def test_weights_that_are_none_are_named(weight, message, digits):
    coder = SparseCodeTransformer(5)
    for method in (coder.fit, coder.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(digits[0], sample_weight=weight)
    assert not hasattr(coder, "model_")


# Atoms of a start, and a fit that goes on


def test_there_are_as_many_atoms_as_start_has(digits, atoms):
    coder = SparseCodeTransformer(start=atoms[:7].tolist()).fit(digits[0])
    assert coder.components_.shape == (7, 64)
    assert coder.n_atoms is None and clone(coder).n_atoms is None
    learner = SparseCodeTransformer(start="random").fit(digits[0])
    assert learner.components_.shape == (100, 64)


def test_a_warm_dictionary_goes_on_from_the_last(digits):
    x = digits[0]
    limits = {"max_no_improvement": 0, "batch_size": 50}
    coder = SparseCodeTransformer(12, warm_start=True, random_state=0, **limits)
    objectives = [objective(coder.fit(x), x)]
    before = coder.components_
    # Two passes: the first, and the update that ends it.
    assert coder.n_iter_ == 7
    objectives += [objective(coder.fit(x), x) for _ in range(4)]
    assert objectives[-1] < 0.98 * objectives[0]
    assert np.abs(coder.components_ - before).max() < 0.9
    cold = clone(coder).set_params(warm_start=False)
    assert objective(cold.fit(x).fit(x), x) == objectives[0]


def test_a_warm_network_goes_on_from_the_last(digits):
    x = digits[0]
    how = {"builder": "LISTA", "epochs": 3, "batch_size": 50, "start": "samples"}
    coder = SparseCodeTransformer(12, **how, warm_start=True, random_state=0).fit(x)
    weights, first = coder.model_.get_weights(), objective(coder, x)
    coder.set_params(learning_rate=0.0).fit(x)
    for a, b in zip(coder.model_.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # The constraint rounds.
    assert objective(coder.set_params(learning_rate=None).fit(x), x) < first
    assert coder.partial_fit(x).n_iter_ == 3 * 6 + 6


def test_a_warm_fit_goes_on_from_partial_fit_with_the_given_atoms(digits, atoms):
    x = digits[0]
    coder = SparseCodeTransformer(start=atoms, warm_start=True).partial_fit(x)
    learned = coder.components_
    # Of a solver a dictionary that is given is not learned by `fit`.
    np.testing.assert_array_equal(coder.fit(x).components_, learned)


def test_a_warm_fit_on_few_samples(digits):
    x = digits[0]
    coder = SparseCodeTransformer(8, warm_start=True, random_state=0).fit(x)
    assert np.isfinite(coder.fit(x[:5]).transform(x)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"l1": 0.7}, r"l1=0\.7 differs.*has l1=0\.1.*warm_start=False"),
        ({"n_atoms": 9}, r"n_atoms=9 differs"),
        ({"builder": "FISTA"}, r"builder='FISTA' differs"),
        ({"positive_code": True}, r"positive_code=True differs"),
    ],
)
def test_a_warm_fit_goes_on_with_the_same_problem_or_says_so(change, message, digits):
    x = digits[0]
    coder = SparseCodeTransformer(5, warm_start=True, random_state=0).fit(x)
    before = coder.components_
    with pytest.raises(ValueError, match=message):
        coder.set_params(**change).fit(x)
    np.testing.assert_array_equal(coder.components_, before)
    with pytest.raises(ValueError, match="9 features"):
        coder.fit(signals(20, 9))
