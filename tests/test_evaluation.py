import keras
import numpy as np
import pytest
import threadpoolctl
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sc2keras import applications, datasets, evaluation
from sc2keras.feature_sign import feature_sign_search


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    dictionary = rng.standard_normal((12, 8))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    return rng.random((30, 8)).astype("float32"), dictionary


def test_mean_objective_is_that_of_the_formula_whatever_the_chunk(problem):
    x, dictionary = problem
    codes = np.random.default_rng(1).standard_normal((30, 12))
    expected = np.mean(
        [
            0.5 * np.sum((a - s @ dictionary) ** 2) + 0.3 * np.sum(np.abs(s))
            for a, s in zip(x, codes, strict=True)
        ]
    )
    for chunk in (7, 4096):
        result = evaluation.mean_objective(x, codes, dictionary, 0.3, chunk)
        assert result == pytest.approx(expected, rel=1e-6)


def test_mean_objective_flattens_images(problem):
    x, dictionary = problem
    codes = np.ones((30, 12))
    flat = evaluation.mean_objective(x, codes, dictionary, 0.1)
    images = evaluation.mean_objective(x.reshape(30, 2, 4, 1), codes, dictionary, 0.1)
    assert images == flat


# Below n_features the span is smaller.
@pytest.mark.parametrize("n_atoms", [12, 5])
@pytest.mark.parametrize("l1", [0.01, 0.3])
def test_the_optimum_is_that_of_scikit_learn(problem, n_atoms, l1):
    x, dictionary = problem
    dictionary = dictionary[:n_atoms]
    model = applications.ISTA(n_atoms, (8,), n_steps=3, l1=l1, dictionary=dictionary)
    quality = evaluation.code_quality(model, x, model.encode(x))
    best = sparse_encode(
        x.astype("float64"), dictionary, algorithm="lasso_cd", alpha=l1, max_iter=100000
    )
    optimum = evaluation.mean_objective(x, best, dictionary, l1)
    assert quality.optimum == pytest.approx(optimum, rel=1e-4)
    assert quality.gap == pytest.approx(quality.objective / optimum - 1, abs=1e-3)
    assert quality.gap > 0.01
    assert quality.optimum_gap < (1e-5 if keras.backend.backend() == "jax" else 1e-9)


def test_an_ill_conditioned_dictionary_with_equal_atoms_has_an_exact_optimum():
    rng = np.random.default_rng(0)
    dictionary = rng.standard_normal((30, 8)) + 5.0
    dictionary[1], dictionary[2] = dictionary[0], -dictionary[0]
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    x = rng.standard_normal((50, 8))
    # The search alone, from codes far off with larger supports than features.
    far = rng.standard_normal((50, 30))
    codes = feature_sign_search(x, dictionary, 0.05, far)
    correlation = (x - codes @ dictionary) @ dictionary.T
    np.testing.assert_array_less(np.abs(correlation), 0.05 + 1e-8)
    active = codes != 0
    np.testing.assert_allclose(
        correlation[active], 0.05 * np.sign(codes[active]), atol=1e-8
    )
    assert active.any(axis=1).all() and active.sum(axis=1).max() <= 8


def test_without_lambda_the_optimum_is_that_of_least_squares(problem):
    x, dictionary = problem
    dictionary = dictionary[:5]
    model = applications.LISTA(5, (8,), n_steps=3, l1=0.0, dictionary=dictionary)
    optimum = evaluation.code_quality(model, x, model.encode(x)).optimum
    residual = np.linalg.lstsq(dictionary.T, x.T, rcond=None)[1]
    assert optimum == pytest.approx(0.5 * np.mean(residual), rel=1e-5)


@pytest.mark.parametrize("builder", ["ISTA", "LFISTA", "AdaptiveISTA", "SC2Net"])
def test_the_last_of_the_step_codes_are_the_codes(builder, problem):
    x, dictionary = problem
    model = getattr(applications, builder)(12, (8,), n_steps=4, dictionary=dictionary)
    steps = evaluation.step_codes(model, x)
    assert steps.shape == (4, 30, 12)
    np.testing.assert_allclose(steps[-1], model.encode(x), atol=1e-6)
    assert np.abs(steps[0] - steps[-1]).max() > 1e-3


def test_draws_do_not_repeat_a_sample_and_depend_on_the_seed():
    draws = evaluation.make_draws(60000, 10000)
    assert len(draws) == 10
    for fit, score in draws:
        assert len(np.unique(fit)) == 4000 and fit.max() < 60000
        assert len(np.unique(score)) == 1000 and score.max() < 10000
    again = evaluation.make_draws(60000, 10000)
    other = evaluation.make_draws(60000, 10000, seed=1)
    assert all((a[0] == b[0]).all() for a, b in zip(draws, again, strict=True))
    assert any((a[0] != b[0]).any() for a, b in zip(draws, other, strict=True))


def test_draws_from_a_small_dataset_differ():
    draws = evaluation.make_draws(1437, 360)
    assert {len(fit) for fit, _ in draws} == {1149}
    assert {len(score) for _, score in draws} == {288}
    assert len({tuple(sorted(fit)) for fit, _ in draws}) == 10


def test_paper_accuracy_fits_on_each_draw_and_scores_on_its_own(problem):
    rng = np.random.default_rng(2)
    codes, labels = rng.standard_normal((200, 5)), rng.integers(3, size=200)
    codes[:, 0] += labels
    draws = evaluation.make_draws(150, 50, n_draws=3)
    accuracies = evaluation.paper_accuracy(
        codes[:150], labels[:150], codes[150:], labels[150:], draws
    )
    for accuracy, (fit, score) in zip(accuracies, draws, strict=True):
        classifier = LogisticRegression(max_iter=5000).fit(codes[fit], labels[fit])
        predicted = classifier.predict(codes[150:][score])
        assert accuracy == np.mean(predicted == labels[150:][score])


def test_full_accuracy_does_not_depend_on_the_scale_of_the_codes():
    rng = np.random.default_rng(3)
    labels = rng.integers(3, size=400)
    codes = rng.standard_normal((400, 6)) + labels[:, None] * np.array(
        [1, 0, 0, 0, 0, 0]
    )
    split = (codes[:300], labels[:300], codes[300:], labels[300:])
    found = evaluation.full_accuracy(*split)
    scaled = evaluation.full_accuracy(
        1000 * split[0], split[1], 1000 * split[2], split[3]
    )
    assert found.accuracy == pytest.approx(scaled.accuracy, abs=0.011)
    assert 0.5 < found.accuracy < 1.0
    assert found.C in (0.001, 0.01, 0.1, 1.0, 10.0)


def test_full_accuracy_is_that_of_a_classifier_with_the_c_that_it_chose():
    data = datasets.load("digits")
    x, y = data.x_train.reshape(-1, 64)[:600], data.y_train[:600]
    x_test, y_test = data.x_test.reshape(-1, 64), data.y_test
    found = evaluation.full_accuracy(x, y, x_test, y_test)
    pipeline = make_pipeline(
        StandardScaler(), LogisticRegression(C=found.C, max_iter=5000, tol=1e-8)
    ).fit(x, y)
    assert found.accuracy == pytest.approx(pipeline.score(x_test, y_test), abs=0.006)
    assert found.train_accuracy == pytest.approx(pipeline.score(x, y), abs=0.004)


def test_c_is_raised_until_the_holdout_falls(monkeypatch):
    fitted = []

    class Scripted(LogisticRegression):
        """Its accuracies on a holdout of 60 have a standard error of about 0.03."""

        def fit(self, x, y):
            fitted.append(self.C)
            return super().fit(x, y)

        def score(self, x, y):
            return {0.001: 0.9, 0.01: 0.95, 0.1: 0.93, 1.0: 0.85, 10.0: 1.0}[self.C]

    monkeypatch.setattr(evaluation, "LogisticRegression", Scripted)
    codes, labels = np.eye(2).repeat(300, axis=0), np.arange(2).repeat(300)
    found = evaluation.full_accuracy(codes, labels, codes, labels)
    assert fitted == [0.001, 0.01, 0.1, 1.0, 0.01]
    assert found.C == 0.01


def test_threads_of_blas_do_not_wait_for_those_of_the_backend(monkeypatch):
    seen = []

    class Classifier(LogisticRegression):
        def fit(self, x, y):
            pools = threadpoolctl.threadpool_info()
            seen.extend(pool["num_threads"] for pool in pools)
            return super().fit(x, y)

    monkeypatch.setattr(evaluation, "LogisticRegression", Classifier)
    x, y = np.eye(2).repeat(10, axis=0), np.arange(2).repeat(10)
    draws = evaluation.make_draws(20, 20, n_draws=1)
    with threadpoolctl.threadpool_limits(2):
        before = threadpoolctl.threadpool_info()
        evaluation.paper_accuracy(x, y, x, y, draws)
        assert threadpoolctl.threadpool_info() == before
    assert max(pool["num_threads"] for pool in before) == 2
    assert seen and set(seen) == {1}
