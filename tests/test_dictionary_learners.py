"""Online updates of a dictionary, against scikit-learn's, and when they end."""

import itertools

import numpy as np
import pytest
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode

from sc2keras.datasets import load
from sc2keras.dictionary_learners import SWEEPS, Beginning, OnlineLearner
from sc2keras.stopping import Monitor, StoppingRule

# Of scikit-learn's, beside learners that spend as few sweeps on a code.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
SIGNS = [(False, False), (True, True)]


@pytest.fixture(scope="module")
def x():
    return load("digits").x_train[:240].reshape(-1, 64).astype("float64")


def learner_of(x, l1=0.1, unit=1.0, signs=(False, False)):
    start = x[:12] / np.linalg.norm(x[:12], axis=1, keepdims=True)
    return OnlineLearner(Beginning(start, l1, unit, 40, 0, 3, *signs))


def peer_of(learner, **options):
    problem = learner.beginning
    return MiniBatchDictionaryLearning(
        len(problem.start),
        alpha=problem.l1,
        batch_size=40,
        dict_init=problem.start,
        fit_algorithm="cd",
        transform_max_iter=SWEEPS,
        shuffle=False,
        random_state=problem.seed,
        positive_code=problem.nonnegative,
        positive_dict=problem.nonnegative_dictionary,
        **options,
    )


@pytest.mark.parametrize("l1", [0.1, 8.0])
@pytest.mark.parametrize("signs", SIGNS)
def test_updates_are_those_of_scikit_learn(x, l1, signs):
    learner = learner_of(x, l1, signs=signs)
    peer = peer_of(learner)
    # At the larger l1 there are atoms that no code uses, which are made anew.
    for batch in np.split(x, 6):
        learner.update(batch)
        peer.partial_fit(batch)
    np.testing.assert_allclose(learner.dictionary, peer.components_, atol=1e-8)


@pytest.mark.parametrize(
    "limits",
    [
        {"tol": 4e-3, "max_no_improvement": None},
        {"tol": 0.0, "max_no_improvement": 3},
        {"tol": 1e-3, "max_no_improvement": 10},
    ],
)
def test_they_end_where_those_of_scikit_learn_do(x, limits):
    learner = learner_of(x)
    rule = StoppingRule(**limits, n_samples=len(x), batch_size=40)
    n_steps = 0
    for batch in itertools.cycle(np.split(x, 6)):
        objective, n_steps = learner.update(batch), n_steps + 1
        if rule(objective, learner.dictionary):
            break
    peer = peer_of(learner, max_iter=200, **limits).fit(x)
    assert 7 <= n_steps == peer.n_steps_ < 1200
    np.testing.assert_allclose(learner.dictionary, peer.components_, atol=1e-8)


@pytest.mark.parametrize("signs", SIGNS)
def test_a_weight_of_two_is_the_sample_twice(x, signs):
    weight = np.random.default_rng(0).integers(1, 4, 40).astype("float64")
    weighted, repeated = learner_of(x, signs=signs), learner_of(x, signs=signs)
    for batch in np.split(x, 6):
        many = np.repeat(batch, weight.astype(int), axis=0)
        objective = weighted.update(batch, weight)
        assert objective == pytest.approx(repeated.update(many), rel=1e-8)
    np.testing.assert_allclose(weighted.dictionary, repeated.dictionary, atol=1e-7)


@pytest.mark.parametrize("unit", [1.0, 256.0])
def test_an_update_tells_the_objective_in_the_units_of_the_data(x, unit):
    learner = learner_of(x * unit, 0.1 * unit, unit)
    codes = sparse_encode(
        x[:40],
        learner.beginning.start,
        algorithm="lasso_cd",
        alpha=0.1,
        max_iter=SWEEPS,
    )
    costs = ((x[:40] - codes @ learner.beginning.start) ** 2).sum(axis=1) / 2
    expected = np.mean(costs + 0.1 * np.abs(codes).sum(axis=1))
    found = learner.update(x[:40] * unit)
    assert found == pytest.approx(unit**2 * expected, rel=1e-6)


def test_a_monitor_without_limits_only_tells():
    told = []
    monitor = Monitor(told.append, n_iter=5)
    monitor.begin(10, 10)
    assert not any(monitor(1.0, np.eye(2)) for _ in range(30))
    assert (monitor.n_iter, monitor.errors) == (35, [1.0] * 30)
    assert [each["n_iter"] for each in told] == list(range(6, 36))
    assert told[0]["error"] == 1.0
    np.testing.assert_array_equal(told[0]["components"], np.eye(2))


def test_what_a_fixed_dictionary_does_not_move_ends_nothing():
    monitor = Monitor(tol=1.0)
    monitor.begin(10, 10, is_fixed=True)
    assert not any(monitor(1.0, np.eye(2)) for _ in range(30))
    monitor.begin(10, 10)
    assert [monitor(1.0, np.eye(2)) for _ in range(2)] == [False, True]
