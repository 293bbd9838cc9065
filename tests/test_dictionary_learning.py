import warnings

import numpy as np
import pytest
from helpers import EXHAUSTIVE, with_slow
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode
from sklearn.exceptions import ConvergenceWarning

from sc2keras.datasets import load
from sc2keras.dictionary_learners import typical_norm
from sc2keras.dictionary_learning import learn_dictionary, sample_dictionary


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    return data.x_train.reshape(-1, 64), data.x_test.reshape(-1, 64)


@pytest.fixture(params=with_slow(["online"], ["unrolled"]))
def method(request):
    return request.param


def encode(x, dictionary, l1):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return sparse_encode(
            x.astype("float64"),
            dictionary.astype("float64"),
            algorithm="lasso_cd",
            alpha=l1,
            max_iter=1000,
        )


def objective(x, dictionary, l1):
    codes = encode(x, dictionary, l1)
    reconstruction = ((x - codes @ dictionary) ** 2).sum(axis=1) / 2
    return np.mean(reconstruction + l1 * np.abs(codes).sum(axis=1))


def check_atoms(dictionary, shape):
    assert dictionary.shape == shape
    assert dictionary.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(dictionary, axis=1), 1, atol=1e-6)
    gram = np.abs(dictionary.astype("float64") @ dictionary.T)
    np.fill_diagonal(gram, 0)
    assert gram.max() < 1 - 1e-6


@pytest.mark.parametrize("l1", [0.05, 0.2])
def test_no_worse_than_scikit_learn_with_the_same_budget(digits, l1):
    train, test = (x[:700] for x in digits)
    ours = learn_dictionary(train, 16, l1, max_iter=40, verbose=0)
    theirs = MiniBatchDictionaryLearning(
        16,
        alpha=l1,
        batch_size=64,
        max_iter=4,  # epochs, of 10 full updates and a rest
        max_no_improvement=None,
        tol=0,
        fit_algorithm="cd",
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = theirs.fit(train).components_
    check_atoms(ours, (16, 64))
    assert objective(test, ours, l1) <= 1.01 * objective(test, theirs, l1)


@pytest.mark.parametrize("seed", [0, 1])
def test_recovers_a_planted_dictionary(seed, method):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((12, 30))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    codes = np.zeros((1500, 12))
    for code in codes:
        code[rng.choice(12, 2, replace=False)] = rng.choice([-1, 1], 2)
    codes *= rng.uniform(0.5, 1.5, codes.shape)
    x = codes @ truth + 0.01 * rng.standard_normal((1500, 30))
    options = {"method": method, "max_iter": 300, "verbose": 0}
    found = learn_dictionary(x, 12, l1=0.2, seed=seed, **options)
    cosines = np.abs(truth @ found.T)
    assert cosines.max(axis=1).min() > 0.9
    assert sorted(cosines.argmax(axis=1)) == list(range(12))


@pytest.mark.slow
def test_through_an_unrolled_solver_it_comes_as_low(digits):
    train, test = digits
    options = {"n_atoms": 40, "l1": 0.1, "verbose": 0}
    online = learn_dictionary(train, **options)
    unrolled = learn_dictionary(
        train, method="unrolled", max_iter=600, batch_size=64, **options
    )
    check_atoms(unrolled, (40, 64))
    assert objective(test, unrolled, 0.1) < 1.01 * objective(test, online, 0.1)


def test_global_random_states_stay_as_they_are(digits):
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    learn_dictionary(digits[0], 8, max_iter=3, verbose=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_equal_seeds_are_equal_and_others_differ(digits, method):
    train, _ = digits
    options = {"method": method, "max_iter": 5, "verbose": 0}
    first, again, other = (
        learn_dictionary(train, 12, seed=seed, **options) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_flattens_and_leaves_its_input_alone(digits):
    images = load("digits").x_train
    before = images.copy()
    from_images = learn_dictionary(images, 8, max_iter=5, verbose=0)
    from_rows = learn_dictionary(digits[0], 8, max_iter=5, verbose=0)
    np.testing.assert_array_equal(from_images, from_rows)
    np.testing.assert_array_equal(images, before)


def test_reads_a_memory_map(digits, tmp_path):
    np.save(tmp_path / "x.npy", digits[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        learn_dictionary(mapped, 8, max_iter=5, verbose=0),
        learn_dictionary(digits[0], 8, max_iter=5, verbose=0),
    )


@pytest.mark.parametrize("l1", [0.1, 1000.0])
@pytest.mark.parametrize(
    "data", ["one direction", "mostly zero", "repeated", "as many samples as atoms"]
)
@pytest.mark.parametrize("method", with_slow(["online"], ["unrolled"], EXHAUSTIVE))
def test_degenerate_data(method, data, l1):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 10))
    if data == "one direction":
        x = np.outer(rng.uniform(1, 2, 200), x[0])
    elif data == "mostly zero":
        x[12:] = 0
    elif data == "repeated":
        x = np.repeat(x[:5], 40, axis=0)
    else:
        x = x[:12]
    options = {"method": method, "max_iter": 30, "verbose": 0}
    check_atoms(learn_dictionary(x, 12, l1, **options), (12, 10))


def test_every_atom_is_used(method):
    # Most samples are too weak for any code to be worth its l1, and so are atoms
    # that start from them, or that scikit-learn resamples from them.
    rng = np.random.default_rng(0)
    x = np.zeros((600, 40))
    x[:60, :20] = rng.standard_normal((60, 20))
    x[60:, 20:] = 1e-3 * rng.standard_normal((540, 20))
    options = {"method": method, "max_iter": 3, "verbose": 0}
    dictionary = learn_dictionary(x, 15, 0.1, **options)
    assert encode(x, dictionary, 0.1).any(axis=0).all()


def test_is_quiet(digits, method, recwarn, capfd):
    options = {"method": method, "max_iter": 10, "verbose": 0}
    learn_dictionary(digits[0], 30, 0.01, **options)
    # Keras's own, of how it hands a variable to NumPy.
    assert all("__array__" in str(warning.message) for warning in recwarn)
    assert capfd.readouterr() == ("", "")


def test_shows_progress(digits, method, capfd):
    learn_dictionary(digits[0], 4, method=method, max_iter=7)
    assert "7/7" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_atoms": 0}, "received n_atoms=0"),
        ({"n_atoms": 2.5}, "received n_atoms=2.5"),
        ({"n_atoms": 21}, "n_atoms=21 is more than the 20 samples"),
        ({"method": "ksvd"}, "one of 'online', 'unrolled'; received method='ksvd'"),
        ({"l1": -0.1}, "l1=-0.1"),
        ({"l1": 0}, "l1=0"),
        ({"l1": float("nan")}, "l1=nan"),
        ({"batch_size": 0}, "received batch_size=0"),
        ({"max_iter": -1}, "received max_iter=-1"),
        ({"seed": -1}, "seed=-1 "),
        ({"x": np.ones((20, 5), "uint8")}, "dtype uint8.*preprocess_input"),
        ({"x": np.full((20, 5), np.nan)}, "NaN"),
        ({"x": np.zeros((20, 5))}, "n_atoms=4 is more than the 0 samples"),
        ({"x": np.ones(5)}, r"shape \(5,\)"),
        ({"x": np.ones((20, 1))}, "n_atoms=4, but x has a single feature"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"x": np.random.default_rng(0).random((20, 5)), "n_atoms": 4}
    with pytest.raises(ValueError, match=message):
        learn_dictionary(**(good | arguments), verbose=0)


def test_a_sample_dictionary_holds_samples_of_unit_norm_each_once(digits):
    x = np.concatenate([digits[0][:40], 2 * digits[0][:40], np.zeros((5, 64))])
    x = x.astype("float32")
    dictionary = sample_dictionary(x, 40, seed=3)
    check_atoms(dictionary, (40, 64))
    samples = digits[0][:40] / np.linalg.norm(digits[0][:40], axis=1, keepdims=True)
    assert (np.abs(dictionary @ samples.T).max(axis=1) > 1 - 1e-5).all()


def test_a_sample_dictionary_depends_on_the_seed_alone(digits):
    first, again, other = (sample_dictionary(digits[0], 9, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_sample_dictionary_of_more_atoms_than_samples_is_an_error(digits):
    with pytest.raises(ValueError, match="n_atoms=9 is more than the 8 samples"):
        sample_dictionary(digits[0][:8], 9)


@pytest.mark.parametrize("function", [learn_dictionary, sample_dictionary])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_nothing_to_learn_from_is_named(function, shape):
    with pytest.raises(ValueError, match=r"but must be .*at least n_atoms=2"):
        function(np.zeros(shape, "float32"), n_atoms=2)


@pytest.mark.parametrize("scale", [1e-20, 255.0, 1e15])
def test_a_dictionary_does_not_depend_on_the_unit_of_the_data(method, scale):
    x = np.random.default_rng(0).random((60, 6))
    options = {"method": method, "n_atoms": 5, "max_iter": 20, "verbose": 0}
    expected = learn_dictionary(x, l1=0.1, **options)
    found = learn_dictionary(x * scale, l1=0.1 * scale, **options)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_samples_of_any_size_become_atoms_of_unit_norm(scale):
    x = np.random.default_rng(0).random((20, 6))
    expected = sample_dictionary(x, 5)
    np.testing.assert_allclose(sample_dictionary(x * scale, 5), expected, atol=1e-6)


def test_the_norm_of_images_is_that_of_their_pixels():
    x = np.random.default_rng(0).random((9, 3, 2, 2))
    assert typical_norm(x) == pytest.approx(np.sqrt(np.sum(x**2) / 9))


def positive_objective(x, dictionary, l1):
    codes = sparse_encode(
        x.astype("float64"),
        dictionary.astype("float64"),
        algorithm="lasso_cd",
        alpha=l1,
        max_iter=1000,
        positive=True,
    )
    reconstruction = ((x - codes @ dictionary) ** 2).sum(axis=1) / 2
    return np.mean(reconstruction + l1 * codes.sum(axis=1))


def test_codes_and_atoms_of_one_sign_are_no_worse_than_scikit_learn(digits, method):
    train, test = (x[:700] for x in digits)
    signs = {"nonnegative": True, "nonnegative_dictionary": True}
    max_iter = {"online": 40, "unrolled": 300}[method]
    ours = learn_dictionary(
        train, 16, 0.1, method=method, max_iter=max_iter, verbose=0, **signs
    )
    theirs = MiniBatchDictionaryLearning(
        16,
        alpha=0.1,
        batch_size=64,
        max_iter=4,
        max_no_improvement=None,
        tol=0,
        fit_algorithm="cd",
        positive_code=True,
        positive_dict=True,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = theirs.fit(train).components_
    check_atoms(ours, (16, 64))
    assert ours.min() >= 0
    assert positive_objective(test, ours, 0.1) <= 1.02 * positive_objective(
        test, theirs, 0.1
    )


def test_atoms_of_one_sign_are_made_of_what_is_above_zero(method):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 10)).astype("float32")
    how = {"nonnegative_dictionary": True, "max_iter": 5, "verbose": 0}
    atoms = learn_dictionary(x, 8, 0.1, method=method, **how)
    assert atoms.min() >= 0
    check_atoms(atoms, (8, 10))
    with pytest.raises(ValueError, match="0 samples of x that are not all zero, or be"):
        learn_dictionary(-np.abs(x), 8, 0.1, **how)
