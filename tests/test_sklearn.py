import copy
import pickle
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import sklearn
from helpers import EXHAUSTIVE, eagerly, signals, to_numpy, with_slow
from sklearn.base import clone
from sklearn.decomposition import SparseCoder as SolvingCoder
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import sc2keras
from sc2keras import applications, layers
from sc2keras.backend import make_deterministic
from sc2keras.datasets import load
from sc2keras.evaluation import mean_objective
from sc2keras.feature_sign import feature_sign_search
from sc2keras.objective import relative_duality_gap
from sc2keras.sklearn import SparseCodeTransformer

SMALL = {
    "builder": "SC2Net",
    "n_steps": 2,
    "start": "samples",
    "epochs": 2,
    "random_state": 0,
}
SOLVER = {"builder": "FISTA", "start": "samples", "random_state": 0}
_ROUNDING = (
    "asks for equality to 1e-7, where products in float32 round a row by its place "
    "in the batch"
)


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    return data.x_train[:300].reshape(-1, 64), data.y_train[:300]


@pytest.fixture(scope="module")
def fitted(digits):
    return SparseCodeTransformer(20, **SMALL | {"epochs": 10, "batch_size": 64}).fit(
        digits[0]
    )


@pytest.fixture(scope="module")
def trained(digits):
    """A model on images, with a classifier beside its codes."""
    model = applications.LISTA(12, input_shape=(8, 8, 1), n_steps=2, classes=10)
    model.compile(loss="sparse_categorical_crossentropy")
    model.fit(digits[0].reshape(-1, 8, 8, 1), digits[1], verbose=0)
    return model


def objective(transformer, x):
    codes = transformer.transform(x)
    return mean_objective(x, codes, transformer.components_, transformer.l1)


SMALLEST = {"n_atoms": 3, "start": "samples"}


_DRAWS = "draws its start and its batches, other ones where samples are repeated"


def _failing(transformer):
    names = ("sample_order", "subset")
    weighted = "check_sample_weight_equivalence_on"
    return {f"check_methods_{name}_invariance": _ROUNDING for name in names} | {
        f"{weighted}_{kind}_data": _DRAWS for kind in ("dense", "sparse")
    }


@parametrize_with_checks(
    [
        SparseCodeTransformer(**SMALLEST, n_steps=20),
        SparseCodeTransformer(
            **SMALLEST, transform_algorithm="threshold", sparse_output=True
        ),
    ],
    expected_failed_checks=_failing,
)
def test_check_of_scikit_learn(estimator, check):
    with eagerly():
        check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [SparseCodeTransformer(**SMALLEST, builder="SC2Net", n_steps=1, epochs=1)],
    expected_failed_checks=_failing,
)
def test_check_of_scikit_learn_of_a_network(estimator, check):
    with eagerly():
        check(estimator)


def test_the_codes_of_a_sample_do_not_depend_on_its_batch(fitted, digits):
    x = digits[0]
    codes = fitted.transform(x)
    np.testing.assert_allclose(fitted.transform(x[::-1])[::-1], codes, atol=1e-6)
    np.testing.assert_allclose(fitted.transform(x[7:8]), codes[7:8], atol=1e-6)


def test_a_solver_of_a_given_dictionary_equals_the_sparse_coder_of_scikit_learn(digits):
    x = digits[0][:50]
    dictionary = sc2keras.sample_dictionary(x, 15)
    ours = SparseCodeTransformer(
        15, 0.2, builder="FISTA", start=dictionary, builder_kwargs={"tol": 3e-7}
    )
    theirs = SolvingCoder(
        dictionary.astype("float64"),
        transform_algorithm="lasso_cd",
        transform_alpha=0.2,
        transform_max_iter=10000,
    )
    codes, peers = ours.fit_transform(x), theirs.fit_transform(x.astype("float64"))
    # Coordinate descent of scikit-learn 1.6 stops at a few thousandths.
    is_old = sklearn.__version__.startswith("1.6.")
    np.testing.assert_allclose(codes, peers, atol=5e-3 if is_old else 1e-3)
    problem = dictionary.astype("float64"), 0.2
    exact = feature_sign_search(x, *problem, peers)
    least = mean_objective(x, exact, *problem)
    assert mean_objective(x, codes, *problem) <= (1 + 1e-6) * least
    np.testing.assert_allclose(codes, exact, atol=1e-3)
    np.testing.assert_array_equal(ours.components_, dictionary)


def test_the_default_start_is_a_learned_dictionary(digits):
    x = digits[0]
    learned = SparseCodeTransformer(20, builder="FISTA", random_state=0).fit(x)
    sampled = SparseCodeTransformer(20, **SOLVER).fit(x)
    assert objective(learned, x) < 0.8 * objective(sampled, x)


@pytest.mark.parametrize(
    ("builder", "layer"),
    [
        ("SC2Net", layers.SLSTM),
        ("LISTA", layers.LISTABlock),
        ("LFISTA", layers.LFISTABlock),
        ("AdaptiveISTA", layers.AdaptiveISTA),
        ("ISTA", layers.ISTA),
    ],
)
def test_builders_and_the_zeros_of_their_codes(builder, layer, digits):
    transformer = SparseCodeTransformer(6, l1=2.0, **SMALL | {"builder": builder})
    codes = transformer.fit_transform(digits[0])
    assert isinstance(transformer.model_.encoder, layer)
    assert transformer.model_.encoder.n_steps == 2
    assert 0 < np.mean(codes == 0) < 1


def test_arguments_reach_the_builder(digits):
    transformer = SparseCodeTransformer(
        6,
        l1=0.3,
        builder="LISTA",
        n_steps=4,
        start="random",
        epochs=1,
        builder_kwargs={"activation": "double_tanh", "trainable_dictionary": False},
    ).fit(digits[0])
    encoder = transformer.model_.encoder
    assert (encoder.n_atoms, encoder.n_steps, encoder.l1) == (6, 4, 0.3)
    assert encoder.activation == "double_tanh"
    assert not encoder.trainable_dictionary


def test_fit_lowers_the_objective(fitted, digits):
    untrained = clone(fitted).set_params(learning_rate=0.0, epochs=1).fit(digits[0])
    assert objective(fitted, digits[0]) < 0.8 * objective(untrained, digits[0])
    assert np.linalg.norm(fitted.components_, axis=1).max() < 1 + 1e-5


def test_a_long_training_is_as_good(fitted, digits, monkeypatch):
    monkeypatch.setattr("sc2keras.training._MIN_UPDATES_TO_GROUP", 1)
    grouped = clone(fitted).fit(digits[0])
    assert grouped.model_.steps_per_execution == 1
    np.testing.assert_allclose(grouped.components_, fitted.components_, atol=1e-4)


def test_partial_fit_lowers_the_objective_call_by_call(digits):
    x = digits[0]
    transformer = SparseCodeTransformer(20, batch_size=64, **SMALL)
    objectives = []
    for _ in range(3):
        for part in np.split(x, 2):
            transformer.partial_fit(part)
        objectives.append(objective(transformer, x))
    assert objectives == sorted(objectives, reverse=True)
    # Two parts of three batches, three times: the optimizer was kept.
    assert int(transformer.model_.optimizer.iterations) == 18


def test_partial_fit_goes_on_from_fit(fitted, digits):
    more = copy.deepcopy(fitted)
    for _ in range(3):
        more.partial_fit(digits[0])
    assert objective(more, digits[0]) < objective(fitted, digits[0])


def test_partial_fit_of_a_solver_learns_online(digits):
    x = digits[0]
    coder = SparseCodeTransformer(20, random_state=0)
    objectives = [objective(coder.partial_fit(x), x) for _ in range(4)]
    assert objectives == sorted(objectives, reverse=True)
    learned = SparseCodeTransformer(20, random_state=0).fit(x)
    assert objectives[-1] < 1.02 * objective(learned, x)


def test_partial_fit_of_a_solver_goes_on_from_fit(digits):
    x = digits[0]
    coder = SparseCodeTransformer(20, random_state=0).fit(x)
    before, learned = coder.components_, objective(coder, x)
    state = pickle.dumps(coder)
    coder.partial_fit(x)
    # What was learned before outweighs a single pass.
    assert 0 < np.abs(coder.components_ - before).max() < 0.2
    assert objective(coder, x) < 1.01 * learned
    again = pickle.loads(state).partial_fit(x)
    np.testing.assert_array_equal(again.components_, coder.components_)


def test_partial_fit_of_a_solver_starts_from_a_given_dictionary(digits):
    x = digits[0]
    start = sc2keras.sample_dictionary(x, 20)
    coder = SparseCodeTransformer(20, start=start, random_state=0).fit(x)
    np.testing.assert_array_equal(coder.components_, start)
    sampled = objective(coder, x)
    assert objective(coder.partial_fit(x), x) < sampled


def test_a_solver_solves_to_a_gap_unless_steps_are_given(digits):
    coder = SparseCodeTransformer(20, **SOLVER).fit(digits[0])
    assert coder.model_.encoder.tol == 1e-4
    problem = (digits[0], coder.transform(digits[0]), coder.components_, coder.l1)
    assert float(keras.ops.max(relative_duality_gap(*problem))) <= 1.01e-4
    for options in ({"n_steps": 3}, {"builder_kwargs": {"tol": 1e-2}}):
        coder = SparseCodeTransformer(20, **SOLVER | options)
        encoder = coder.fit(digits[0]).model_.encoder
        assert (encoder.tol, encoder.n_steps) in [(None, 3), (1e-2, 10_000)]


def test_equal_random_states_give_equal_codes(fitted, digits):
    again = clone(fitted).fit(digits[0])
    np.testing.assert_array_equal(
        again.transform(digits[0]), fitted.transform(digits[0])
    )
    other = clone(fitted).set_params(random_state=1).fit(digits[0])
    assert np.abs(other.components_ - fitted.components_).max() > 0.01


@pytest.mark.parametrize("start", with_slow(["samples"], ["classical", "random"]))
def test_global_random_states_decide_nothing(start, digits):
    transformer = SparseCodeTransformer(6, **SMALL | {"start": start})
    components = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        state = random.getstate()
        components.append(transformer.fit(digits[0]).components_)
        assert random.getstate() == state
    np.testing.assert_array_equal(*components)


@pytest.mark.parametrize("start", with_slow(["classical"], ["samples", "random"]))
@pytest.mark.parametrize(
    "x",
    [
        pytest.param(np.zeros((5, 4)), id="zeros", marks=pytest.mark.slow),
        pytest.param(np.ones((5, 4)), id="constant", marks=pytest.mark.slow),
        pytest.param(np.arange(12.0).reshape(3, 4), id="few samples"),
        pytest.param(np.arange(1.0, 21.0)[:, None], id="one feature"),
        pytest.param(np.ones((1, 1)), id="one value"),
    ],
)
def test_more_atoms_than_the_data_give(start, x):
    transformer = SparseCodeTransformer(8, builder="FISTA", start=start).fit(x)
    assert np.isfinite(transformer.transform(x)).all()
    norms = np.linalg.norm(transformer.components_, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)


def test_clone_keeps_the_parameters_and_nothing_else(fitted):
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert not hasattr(copied, "model_")
    assert not hasattr(copied, "components_")


def test_pickled_before_fit(fitted, digits):
    again = pickle.loads(pickle.dumps(clone(fitted))).fit(digits[0])
    np.testing.assert_array_equal(again.components_, fitted.components_)


def test_pickled_after_transform_it_gives_the_same_codes_and_training(digits, recwarn):
    x = digits[0]
    transformer = SparseCodeTransformer(20, **SMALL).partial_fit(x)
    codes = transformer.transform(x)
    copied = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(copied.transform(x), codes)
    for each in (transformer, copied):
        each.partial_fit(x)
    np.testing.assert_array_equal(copied.components_, transformer.components_)
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]


def test_pickled_after_fit_it_is_quiet(fitted, digits, recwarn):
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(
        copied.transform(digits[0]), fitted.transform(digits[0])
    )
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]


@pytest.mark.slow
def test_grid_search_over_a_pipeline(digits):
    x, y = digits[0][:200], digits[1][:200]
    coder = SparseCodeTransformer(**SMALL | {"builder": "LISTA", "epochs": 1})
    grid = {
        "sparsecodetransformer__l1": [0.1, 50.0],
        "sparsecodetransformer__n_atoms": [1, 40],
    }
    pipeline = make_pipeline(coder, LogisticRegression(C=100, max_iter=1000))
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(x, y)
    # So large an l1 leaves no codes, and one atom does not tell ten digits apart.
    assert list(search.best_params_.values()) == [0.1, 40]
    assert search.best_score_ > 0.6
    assert search.predict(x).shape == y.shape


def test_frames_have_names_with_the_prefix_of_the_class(fitted, digits):
    pandas = pytest.importorskip("pandas")
    transformer = copy.deepcopy(fitted).set_output(transform="pandas")
    frame = transformer.transform(digits[0])
    assert isinstance(frame, pandas.DataFrame)
    names = [f"sparsecodetransformer{i}" for i in range(20)]
    assert list(frame.columns) == list(fitted.get_feature_names_out()) == names
    np.testing.assert_array_equal(frame, fitted.transform(digits[0]))


def test_inverse_transform_is_the_product_with_the_dictionary(fitted, digits):
    codes = fitted.transform(digits[0])
    assert codes.dtype == "float32"
    np.testing.assert_array_equal(
        fitted.inverse_transform(codes), codes @ fitted.components_
    )
    with pytest.raises(ValueError, match=r"X has 19 columns.* 20, one for each atom"):
        fitted.inverse_transform(codes[:, 1:])


def test_a_trained_model_is_used_as_it_is(trained, digits, tmp_path):
    x = digits[0]
    trained.save(tmp_path / "model.keras")
    before = [weight.copy() for weight in trained.get_weights()]
    expected = trained.encode(x.reshape(-1, 8, 8, 1))
    for model in (trained, tmp_path / "model.keras", str(tmp_path / "model.keras")):
        transformer = clone(SparseCodeTransformer(model=model)).fit(x).partial_fit(x)
        np.testing.assert_array_equal(transformer.transform(x), expected)
        np.testing.assert_array_equal(transformer.components_, trained.dictionary)
    transformer = SparseCodeTransformer(model=trained).fit(x).partial_fit(x)
    assert transformer.model_ is trained
    for weight, value in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_atoms": 0}, "received n_atoms=0"),
        ({"l1": -1}, "received l1=-1"),
        ({"builder": "OMP"}, "received builder='OMP'"),
        ({"n_steps": 0}, "received n_steps=0"),
        (
            {"builder": "LISTA", "builder_kwargs": {"activation": "relu"}},
            "received activation='relu'",
        ),
        ({"builder_kwargs": {"l1": 0.2}}, r"received {'l1': 0.2}. Use n_atoms=, l1="),
        ({"builder_kwargs": [1]}, r"builder_kwargs must be a dict.*received \[1\]"),
        ({"start": "svd"}, "received start='svd'"),
        ({"start": None}, "received start=None"),
        ({"start": np.eye(3)}, r"received dictionary.shape=\(3, 3\)"),
        ({"epochs": 0}, "received epochs=0"),
        ({"batch_size": 2.5}, "received batch_size=2.5"),
        ({"learning_rate": np.nan}, "received learning_rate=nan"),
        ({"random_state": "zero"}, "'zero' cannot be used to seed"),
        ({"model": keras.Sequential()}, "received model=<Sequential"),
        (
            {"model": "none.keras"},
            r"none\.keras is not a file, .* give one of .*SC2Net/digits",
        ),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_wrong_values_are_named_before_anything_is_learned(
    method, parameters, message, monkeypatch
):
    monkeypatch.setattr("sc2keras.sklearn_learning.trained_learner", None)
    transformer = SparseCodeTransformer(**{"n_atoms": 4} | parameters)
    with pytest.raises(ValueError, match=message):
        getattr(transformer, method)(np.ones((10, 5)))
    assert not hasattr(transformer, "model_")


def test_a_trained_model_for_other_features_is_an_error(trained):
    with pytest.raises(ValueError, match=r"X has 5 features.*takes 64.*\(8, 8, 1\)"):
        SparseCodeTransformer(model=trained).fit(np.ones((10, 5)))


# What a call that fails leaves behind


def attributes(estimator):
    return {k: v for k, v in vars(estimator).items() if k.endswith("_")}


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "failure", with_slow(["divergence"], ["parameter", "interrupt"])
)
def test_a_fit_that_fails_leaves_the_old_estimator(monkeypatch, failure):
    x, other = signals(40, 16), signals(30, 8)
    coder = SparseCodeTransformer(5, builder="LISTA", epochs=1, random_state=0).fit(x)
    before, codes, l1 = attributes(coder), coder.transform(x), coder.l1
    if failure == "parameter":
        coder.set_params(l1=-1.0)
    elif failure == "interrupt":
        monkeypatch.setattr(sc2keras.SparseCoder, "fit", interrupted)
    else:
        kwargs = {"tied": False}  # A kernel that nothing bounds.
        coder.set_params(learning_rate=1e30, epochs=5, builder_kwargs=kwargs)
    with pytest.raises((ValueError, KeyboardInterrupt)):
        coder.fit(other)
    assert attributes(coder) == before
    coder.set_params(l1=l1)  # `transform` looks at it.
    np.testing.assert_array_equal(coder.transform(x), codes)
    with pytest.raises(ValueError, match="8 features"):
        coder.transform(other)


def test_a_first_fit_that_fails_leaves_an_unfitted_estimator():
    coder = SparseCodeTransformer(5, l1=-1.0)
    with pytest.raises(ValueError, match="l1"):
        coder.fit(signals(40, 8))
    assert not attributes(coder)
    with pytest.raises(NotFittedError):
        coder.transform(signals(4, 8))


@pytest.mark.parametrize("failure", with_slow(["divergence"], ["interrupt"]))
def test_a_partial_fit_that_fails_leaves_the_old_model(monkeypatch, failure):
    x = signals(40, 8)
    coder = SparseCodeTransformer(5, builder="LISTA", random_state=0).partial_fit(x)
    before = [w.copy() for w in coder.model_.get_weights()]
    state = [to_numpy(v).copy() for v in coder.model_.optimizer.variables]
    if failure == "interrupt":
        if keras.backend.backend() == "jax":
            pytest.skip("JAX compiles the update")
        update = keras.optimizers.Adadelta.apply

        def apply_and_stop(*args, **kwargs):
            update(*args, **kwargs)
            raise KeyboardInterrupt

        coder.model_.compile(coder.model_.optimizer, run_eagerly=True)
        monkeypatch.setattr(keras.optimizers.Adadelta, "apply", apply_and_stop)
        data = x
    else:
        data = x * 1e25
    with pytest.raises((ValueError, KeyboardInterrupt)):
        coder.partial_fit(data)
    for a, b in zip(before, coder.model_.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(state, coder.model_.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, to_numpy(b))
    monkeypatch.undo()
    coder.partial_fit(x)
    assert np.isfinite(coder.transform(x)).all()


# Units, and equal results


@pytest.mark.parametrize("scale", with_slow([255.0], [1e-6, 1e6], EXHAUSTIVE))
@pytest.mark.parametrize("builder", with_slow(["SC2Net"], ["LISTA", "FISTA"]))
def test_codes_have_the_units_of_the_data(digits, builder, scale):
    x = digits[0][:300]
    settings = {"builder": builder, "epochs": 3, "random_state": 0}
    plain = SparseCodeTransformer(12, 0.1, **settings).fit(x)
    scaled = SparseCodeTransformer(12, 0.1 * scale, **settings).fit(x * scale)
    codes, of_scaled = plain.transform(x), scaled.transform(x * scale) / scale
    assert np.abs(of_scaled - codes).max() < 0.03 * np.abs(codes).max()
    np.testing.assert_allclose(scaled.components_, plain.components_, atol=0.02)


@pytest.mark.parametrize(
    "builder",
    [
        "LISTA",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("SC2Net", "LFISTA", "AdaptiveISTA")
        ),
    ],
)
def test_an_integer_state_gives_equal_results_whatever_else_the_cores_do(builder):
    x = signals(256, 16)

    def result():
        coder = SparseCodeTransformer(
            20, builder=builder, start="samples", epochs=2, random_state=0
        )
        return coder.fit(x).transform(x).tobytes()

    quiet = result()
    work = "import numpy as np\nwhile True: np.linalg.svd(np.ones((60, 60)))"
    with subprocess.Popen([sys.executable, "-c", work]) as busy:
        try:
            assert result() == quiet == result()
        finally:
            busy.kill()


def test_tensorflow_is_made_deterministic_where_it_has_a_gpu(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the operations of TensorFlow")
    import tensorflow as tf

    calls = []
    experimental = tf.config.experimental
    monkeypatch.setattr(
        experimental, "enable_op_determinism", lambda: calls.append("on")
    )
    make_deterministic()
    assert not calls
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    make_deterministic()
    assert calls == ["on"]


@pytest.mark.parametrize(
    "name, value", with_slow([("l1", 5.0)], [("n_atoms", 7), ("n_steps", 9)])
)
def test_partial_fit_goes_on_with_the_same_problem_or_says_so(name, value):
    x = signals(40, 8)
    coder = SparseCodeTransformer(5, builder="LISTA", n_steps=2).partial_fit(x)
    coder.set_params(**{name: value})
    with pytest.raises(ValueError, match=rf"{name}={value!r} differs.*Call fit"):
        coder.partial_fit(x)


def test_partial_fit_takes_the_learning_rate_of_the_day():
    x = signals(40, 8)
    coder = SparseCodeTransformer(5, builder="LISTA").partial_fit(x)
    before = [w.copy() for w in coder.model_.get_weights()]
    coder.set_params(learning_rate=0.0).partial_fit(x)
    for a, b in zip(before, coder.model_.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # The constraint rounds.


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float16", "mixed_bfloat16"])
def test_a_global_policy_has_no_part_in_the_codes(policy):
    x = signals(60, 8)
    settings = {"builder": "LISTA", "epochs": 1, "random_state": 0}
    expected = SparseCodeTransformer(5, **settings).fit_transform(x)
    keras.config.set_dtype_policy(policy)
    try:
        coder = SparseCodeTransformer(5, **settings)
        np.testing.assert_allclose(coder.fit_transform(x), expected, atol=1e-6)
        assert coder.components_.dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_dates_and_texts_are_no_signals_and_no_codes():
    pandas = pytest.importorskip("pandas")
    x = signals(20, 8)
    coder = SparseCodeTransformer(8, builder="LISTA", epochs=1).fit(x)
    dates = (1e9 * x).astype("datetime64[s]")
    for bad in (
        dates,
        pandas.DataFrame(dates),
        list(dates),
        x.astype(str),
        x.astype(str).tolist(),
        np.ma.masked_array(x, x > 0.5),
    ):
        for call in (coder.transform, coder.inverse_transform, coder.fit):
            with pytest.raises(ValueError, match=r"^X "):
                call(bad)
    with pytest.raises(ValueError, match=r"finite|infinity"):
        coder.inverse_transform(np.full((2, 8), np.inf))


def test_codes_and_atoms_of_one_sign_are_learned_as_such(digits):
    x = digits[0][:200] - 0.2
    signs = {"nonnegative": True, "nonnegative_dictionary": True}
    coder = SparseCodeTransformer(8, builder_kwargs=signs, random_state=0)
    codes = coder.fit(x).transform(x)
    assert codes.min() >= 0 and codes.any()
    assert coder.components_.min() >= 0
    assert coder.partial_fit(x).components_.min() >= 0


@pytest.mark.parametrize("builder", with_slow(["ActiveSet"], ["StepLISTA"], EXHAUSTIVE))
def test_what_is_learned_beside_an_offset_is_that_of_centred_data(builder, digits):
    # Whole numbers, and pixels are sixteenths: sums and differences are exact.
    x, offset = digits[0][:200], np.arange(64.0) - 20
    how = {"n_atoms": 8, "builder": builder, "n_steps": 3, "epochs": 1}
    plain = SparseCodeTransformer(**how, random_state=0)
    moved = clone(plain).set_params(builder_kwargs={"offset": offset})
    # One fits and then goes on, the other begins with a part.
    for first in ("fit", "partial_fit"):
        for coder, data in ((plain, x), (moved, x + offset)):
            vars(coder).pop("model_", None)
            getattr(coder, first)(data).partial_fit(data)
        codes = plain.transform(x)
        assert codes.any()
        np.testing.assert_allclose(
            moved.components_, plain.components_, rtol=0, atol=2e-3
        )
        np.testing.assert_allclose(
            moved.transform(x + offset), codes, rtol=0, atol=2e-3
        )


@pytest.mark.parametrize(
    ("fitted_as", "other"), [("ActiveSet", "FISTA"), ("LISTA", "FISTA")]
)
def test_partial_fit_goes_on_with_no_other_builder(fitted_as, other, digits):
    coder = SparseCodeTransformer(6, **SMALL | {"builder": fitted_as}).fit(digits[0])
    before = coder.components_
    with pytest.raises(ValueError, match=f"builder='{other}' differs.*'{fitted_as}'"):
        coder.set_params(builder=other).partial_fit(digits[0])
    np.testing.assert_array_equal(coder.components_, before)
