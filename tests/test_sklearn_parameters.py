"""Parameters that are set after `fit`, the mean that it learns, and its attributes."""

import pickle

import keras
import numpy as np
import pytest
import scipy.sparse
from helpers import EXHAUSTIVE, eagerly, signals, unit_atoms, with_slow
from sklearn.base import clone
from sklearn.decomposition import PCA, DictionaryLearning, sparse_encode
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import sc2keras
from sc2keras import applications
from sc2keras.registry import entries
from sc2keras.sklearn import SparseCodeTransformer

needs_float64 = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has float64 only where it is configured, PyTorch not at all",
)
EXACT = {"tol": 1e-12, "dtype": "float64", "n_steps": 1000}
FAST = ["ActiveSet", "LISTA"]
REST = [each.name for each in entries() if each.name not in FAST]


@pytest.fixture(autouse=True)
def untraced():
    with eagerly():
        yield


@pytest.fixture(scope="module")
def x():
    return signals(40, 8) + np.arange(8, dtype="float32")


@pytest.fixture(scope="module")
def atoms():
    return unit_atoms(6, 8)


def coder_of(atoms, builder="ActiveSet", **how):
    how = {"start": atoms, "epochs": 1, "random_state": 0} | how
    return SparseCodeTransformer(builder=builder, **how)


# What learning goes on with

OPTIONS = [
    {"nonnegative": True},
    {"nonnegative_dictionary": True},
    {"offset": 2.0},
    {"trainable_offset": True},
    {"l2": 0.1},
    {"n_steps": 2},
    {"tol": 1e-2},
    {"unit": 3.0},
    {"activation": "double_tanh"},
    {"trainable_dictionary": False},
]
NAMES = {
    "nonnegative": "positive_code",
    "nonnegative_dictionary": "positive_dict",
    "trainable_offset": "offset",  # The first that is another.
}


@pytest.mark.parametrize("builder", with_slow(FAST, REST, EXHAUSTIVE))
def test_learning_goes_on_with_the_same_model_or_says_so(builder, x, atoms):
    """Whatever the builder takes: from its default, and back to it."""
    atoms = np.abs(atoms)
    plain = coder_of(atoms, builder, warm_start=True).fit(x)
    taken = 0
    for options in OPTIONS:
        try:
            other = coder_of(atoms, builder, warm_start=True, builder_kwargs=options)
            other.fit(x[:4])
        except ValueError:
            continue  # The builder has no such option.
        taken += 1
        (name,) = options
        name = NAMES.get(name, name)
        if (builder, name) == ("SparseAutoencoder", "positive_code"):
            continue  # Its codes are >= 0 in any case.
        for coder, kwargs in ((clone_of(plain), options), (other, None)):
            for method in ("fit", "partial_fit"):
                with pytest.raises(ValueError, match=f"{name}=.* differs from the mod"):
                    getattr(coder.set_params(builder_kwargs=kwargs), method)(x)
    assert taken >= 3
    plain.fit(x).partial_fit(x)


def clone_of(fitted):
    return pickle.loads(pickle.dumps(fitted))


def test_a_default_is_the_same_as_its_value(x, atoms):
    coder = coder_of(atoms, warm_start=True, builder_kwargs={"offset": 2.0}).fit(x)
    same = {"offset": np.full(8, 2.0), "tol": 1e-4, "l2": 0.0, "nonnegative": False}
    coder.set_params(builder_kwargs=same, n_atoms=6, n_steps=None).fit(x)


def test_a_trained_offset_goes_on_from_where_it_is(x, atoms):
    how = {"builder_kwargs": {"trainable_offset": True}, "learning_rate": 0.1}
    coder = coder_of(atoms, "LISTA", warm_start=True, center=True, **how).fit(x)
    moved = coder.offset_
    assert np.abs(moved - x.mean(axis=0)).max() > 1e-4
    assert np.abs(coder.set_params(learning_rate=0.0).fit(x).offset_ - moved).max() == 0


# What `transform` reads, as in scikit-learn


@pytest.mark.parametrize(
    "algorithm", with_slow([None], ["lasso", "threshold"], EXHAUSTIVE)
)
@pytest.mark.parametrize("change", [{"l1": 0.4}, {"positive_code": True}, {}])
def test_transform_reads_what_it_reads_in_scikit_learn(algorithm, change, x, atoms):
    x = (x - x.mean(axis=0)).astype("float64")
    coder = coder_of(atoms, transform_algorithm=algorithm).fit(x)
    coder.transform(x)
    name = "threshold" if algorithm == "threshold" else "lasso_cd"
    peer = DictionaryLearning(6, alpha=0.1, transform_algorithm=name, max_iter=1)
    peer.fit(x).components_ = atoms.astype("float64")
    ours = {"l1": "alpha"}
    peer.set_params(**{ours.get(key, key): value for key, value in change.items()})
    peer.set_params(transform_max_iter=10_000)
    found = coder.set_params(**change).transform(x)
    np.testing.assert_allclose(found, peer.transform(x), atol=2e-3)
    # `transform_alpha` comes before, and what is set back is as before.
    coder.set_params(transform_alpha=0.2)
    signs = change.get("positive_code", False)
    best = sparse_encode(x, peer.components_, algorithm=name, alpha=0.2, positive=signs)
    np.testing.assert_allclose(coder.transform(x), best, atol=2e-3)


def test_omp_reads_the_sign(x, atoms):
    coder = coder_of(atoms, transform_algorithm="omp", transform_n_nonzero_coefs=2)
    assert coder.fit(-x).transform(-x).min() < 0
    assert coder.set_params(positive_code=True).transform(-x).min() >= 0


@pytest.mark.parametrize("change", [{"l1": 0.4}, {"positive_code": True}])
def test_a_network_is_trained_with_its_parameters(change, x, atoms):
    coder = coder_of(atoms, "LISTA").fit(x)
    (name,) = change
    coder.set_params(**change)
    with pytest.raises(ValueError, match=f"{name}=.* was set after .*Call fit again"):
        coder.transform(x)
    assert coder.set_params(transform_algorithm="lasso").transform(x).any()
    coder.set_params(transform_algorithm=None).fit(x).transform(x)


def test_of_a_given_model_its_own_parameters_count(x, atoms):
    model = applications.ActiveSet(6, (8,), dictionary=atoms, l1=0.3, nonnegative=True)
    coder = SparseCodeTransformer(model=model, l1=5.0).fit(x)
    np.testing.assert_array_equal(coder.transform(x), model.encode(x))


# The mean, and the offset


@pytest.mark.parametrize("builder", with_slow(["ActiveSet"], ["StepLISTA"]))
def test_codes_with_center_are_those_of_centred_data(builder, x):
    how = {"n_atoms": 6, "builder": builder, "n_steps": 3, "epochs": 1}
    coder = SparseCodeTransformer(**how, random_state=0, center=True).fit(x)
    mean = x.astype("float64").mean(axis=0)
    np.testing.assert_allclose(coder.offset_, mean, rtol=1e-6)
    np.testing.assert_allclose(coder.offset_, PCA(2).fit(x).mean_, rtol=1e-5)
    plain = clone(coder).set_params(center=False).fit(x - mean)
    assert plain.transform(x - mean).any() and not plain.offset_.any()
    np.testing.assert_allclose(coder.components_, plain.components_, atol=2e-3)
    np.testing.assert_allclose(coder.transform(x), plain.transform(x - mean), atol=5e-3)


@pytest.mark.parametrize("options", [{"center": True}, {}, {"builder_kwargs": {}}])
def test_codes_stand_for_their_product_and_the_offset(options, x, atoms):
    if options.get("builder_kwargs") is not None:
        options = {"builder_kwargs": {"offset": 3.0}}
    coder = coder_of(atoms, **options).fit(x)
    codes = coder.transform(x)
    signals = codes @ coder.components_ + coder.offset_
    np.testing.assert_allclose(coder.inverse_transform(codes), signals, rtol=1e-5)
    assert coder.offset_.shape == (8,) and coder.offset_.dtype == "float32"


@pytest.mark.filterwarnings("ignore:Training ended with")
def test_the_offset_of_an_autoencoder_is_in_the_unit_of_the_data(x):
    coder = SparseCodeTransformer(6, builder="SparseAutoencoder", epochs=2).fit(x)
    zero = coder.inverse_transform(np.zeros((1, 6)))
    assert zero.any()
    np.testing.assert_allclose(coder.offset_, zero[0], rtol=1e-6)


def test_the_mean_counts_samples_as_they_count(x, atoms):
    weight = np.arange(40) % 3
    coder = coder_of(atoms, center=True).fit(x, sample_weight=1e300 * weight)
    np.testing.assert_allclose(
        coder.offset_, np.average(x, axis=0, weights=weight), rtol=1e-6
    )
    first = coder_of(atoms, center=True).partial_fit(x[:10]).partial_fit(x[10:])
    np.testing.assert_allclose(first.offset_, x[:10].mean(axis=0), rtol=1e-5)


def test_sparse_data_are_centred_as_dense_ones(atoms):
    x = signals(50, 8) * (signals(50, 8) > 0.5)
    coders = [
        coder_of(atoms, center=True, start="samples", n_atoms=6).fit(data)
        for data in (x, scipy.sparse.csr_array(x))
    ]
    np.testing.assert_array_equal(*(each.offset_ for each in coders))
    np.testing.assert_array_equal(*(each.components_ for each in coders))
    codes = coders[1].transform(scipy.sparse.csr_array(x))
    np.testing.assert_allclose(codes, coders[0].transform(x), atol=1e-6)


def test_a_warm_fit_keeps_its_mean(x, atoms):
    coder = coder_of(atoms, center=True, warm_start=True).fit(x)
    before = coder.offset_
    np.testing.assert_array_equal(coder.fit(x + 1).offset_, before)
    np.testing.assert_array_equal(clone_of(coder).fit(x + 1).offset_, before)
    with pytest.raises(ValueError, match=r"center=False differs.*has center=True"):
        coder.set_params(center=False).fit(x)
    own = coder_of(atoms, warm_start=True, builder_kwargs={"offset": 0.0}).fit(x)
    with pytest.raises(ValueError, match=r"center=True differs.*has center=False"):
        own.set_params(center=True, builder_kwargs=None).fit(x)
    assert clone(coder).get_params()["center"] is False


def test_one_offset_is_enough(x):
    options = {"center": True, "builder_kwargs": {"offset": 1.0}}
    with pytest.raises(ValueError, match=r"center=True and offset=1\.0 .*contradict"):
        SparseCodeTransformer(5, **options).fit(x)


def test_an_offset_that_is_trained_starts_at_the_mean(x):
    x = x + 20.0
    how = {"builder": "SparseAutoencoder", "builder_kwargs": {"k": 2}, "epochs": 3}
    coder = SparseCodeTransformer(5, center=True, random_state=0, **how)
    offset = coder.fit(x).offset_
    np.testing.assert_allclose(offset, x.mean(axis=0), atol=0.5)
    assert (offset != x.mean(axis=0)).any()
    coder.set_params(warm_start=True).fit(x)


def test_each_fold_has_a_mean_of_its_own():
    digits = sc2keras.datasets.load("digits")
    x, y = digits.x_train[:300].reshape(-1, 64), digits.y_train[:300]
    coder = SparseCodeTransformer(12, center=True, random_state=0)
    pipeline = make_pipeline(coder, LogisticRegression(max_iter=1000))
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.7


# Names of weights, and attributes


def test_weights_that_ship_are_taken_by_their_name(x):
    images = sc2keras.datasets.load("digits").x_test[:5].reshape(-1, 64)
    coder = SparseCodeTransformer(model="SC2Net/digits").fit(images)
    expected = applications.SC2Net(weights="digits").encode(images.reshape(-1, 8, 8, 1))
    np.testing.assert_allclose(coder.transform(images), expected, atol=1e-6)
    np.testing.assert_array_equal(clone(coder).fit_transform(images), expected)


@pytest.mark.parametrize("name", ["components_", "offset_"])
def test_what_fit_finds_is_not_there_before(name):
    coder = SparseCodeTransformer()
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(coder, name)
    assert not hasattr(coder, name)


# What is computed in float64


def given(builder_kwargs, **kwargs):
    """A transformer, and one that is given the model of its `fit`."""
    own = SparseCodeTransformer(builder_kwargs=builder_kwargs, **kwargs)
    return lambda x: (own.fit(x), SparseCodeTransformer(model=own.model_).fit(x))


@needs_float64
@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize(
    ("algorithm", "peer", "how"),
    [
        ("lasso", "lasso_cd", {"alpha": 0.3, "max_iter": 10**5}),
        ("threshold", "threshold", {"alpha": 0.3}),
        ("omp", "omp", {"n_nonzero_coefs": 3}),
    ],
)
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_means_that_are_large_leave_codes_in_float64(
    mean, algorithm, peer, how, make, x, atoms
):
    x = x.astype("float64") + mean
    transformers = given(
        EXACT, l1=0.3, start=atoms, center=True, transform_n_nonzero_coefs=3
    )
    expected = sparse_encode(x - x.mean(axis=0), atoms, algorithm=peer, **how)
    for coder in transformers(make(x)):
        coder.set_params(transform_algorithm=algorithm, transform_n_nonzero_coefs=3)
        if algorithm != "omp":
            coder.set_params(transform_alpha=0.3)
        codes = coder.transform(make(x))
        assert codes.dtype == "float64"
        np.testing.assert_allclose(codes, expected, atol=1e-5)
        decoded = expected @ coder.components_ + x.mean(axis=0)
        np.testing.assert_allclose(
            coder.inverse_transform(make(expected)), decoded, rtol=1e-14
        )


@needs_float64
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_float64_holds_what_is_beyond_float32(method, x):
    scale, found = 2.0**140, []
    for size in (1.0, scale):
        how = {"l1": 0.1 * size, "builder_kwargs": {"dtype": "float64"}}
        coder = SparseCodeTransformer(5, random_state=0, **how)
        getattr(coder, method)(size * x.astype("float64"))
        codes = coder.transform(size * x.astype("float64"))
        decoded = coder.inverse_transform(codes)
        found.append((coder.components_, codes / size, decoded / size))
        found[-1] += (coder.error_ / size**2,)
    for small, large in zip(*found, strict=True):
        np.testing.assert_allclose(large, small, rtol=1e-6, atol=1e-9)


def test_float32_does_not_hold_them_and_says_so(x):
    for coder in (SparseCodeTransformer(5), SparseCodeTransformer(5, builder="LISTA")):
        with pytest.raises(ValueError, match="too large for dtype"):
            coder.fit(1e40 * x.astype("float64"))


# λ of each atom, and of none


@needs_float64
@pytest.mark.parametrize("builder", ["ActiveSet", "LISTA"])
def test_lambda_may_be_one_of_each_atom(builder, x, atoms):
    x, weights = x.astype("float64"), np.linspace(0.1, 0.6, 6)
    how = {"builder_kwargs": {"dtype": "float64"}}
    coder = coder_of(atoms, builder, transform_alpha=weights, **how)
    coder.set_params(transform_algorithm="lasso").fit(x)
    # The LASSO of atoms in units of their weights.
    scaled = coder.components_ / weights[:, None]
    peer = {"algorithm": "lasso_cd", "alpha": 1.0, "max_iter": 10**5}
    expected = sparse_encode(x, scaled, **peer) / weights
    np.testing.assert_allclose(coder.transform(x), expected, atol=2e-3)
    same = clone(coder.set_params(transform_alpha=weights.tolist())).fit(x)
    np.testing.assert_allclose(same.transform(x), expected, atol=2e-3)
    coder.set_params(transform_algorithm="threshold")
    products = x @ coder.components_.T
    expected = np.sign(products) * np.maximum(np.abs(products) - weights, 0.0)
    np.testing.assert_allclose(coder.transform(x), expected, atol=1e-6)
    for wrong in (np.ones(5), -weights):
        coder.set_params(transform_alpha=wrong)
        for call in (coder.fit, coder.transform):
            with pytest.raises(ValueError, match=r"transform_alpha must be .*received"):
                call(x)


@pytest.mark.parametrize("zero", [0, 0.0, [0.0, *5 * [0.1]]])
@pytest.mark.parametrize(
    ("builder", "changes"),
    [
        ("ActiveSet", {"l1": None}),
        ("ActiveSet", {"transform_alpha": None}),
        ("LISTA", {"transform_alpha": None, "transform_algorithm": "lasso"}),
        ("LISTA", {"l1": None, "transform_algorithm": "lasso"}),
        ("given", {"transform_alpha": None, "transform_algorithm": "lasso"}),
    ],
)
def test_where_a_gap_measures_nothing_lambda_is_above_zero(
    builder, changes, zero, x, atoms
):
    coder = coder_of(atoms, "LISTA" if builder == "given" else builder).fit(x)
    if builder == "given":
        coder = SparseCodeTransformer(model=coder.model_).fit(x)
    name = next(iter(changes))
    coder.set_params(**changes | {name: zero})
    for call in (coder.transform, coder.fit, coder.partial_fit):
        with pytest.raises(
            ValueError, match=rf"^{name} must be above 0 .*received {name}=0"
        ):
            call(x)


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
def test_least_squares_are_coded_where_nothing_is_measured(x, atoms):
    products = x @ atoms.T
    coder = coder_of(atoms, transform_algorithm="threshold", transform_alpha=0.0)
    np.testing.assert_allclose(coder.fit(x).transform(x), products, atol=1e-4)
    steps = coder_of(atoms, "FISTA", l1=0, n_steps=2000).fit(x)
    best = np.linalg.lstsq(atoms.T, x.T, rcond=None)[0].T
    np.testing.assert_allclose(steps.transform(x), best, atol=1e-2)
    assert coder_of(atoms, "LISTA", l1=0).fit(x).transform(x).all()
