"""How good codes are: their objective, their distance to the optimum, a classifier."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sc2keras.applications import FISTA
from sc2keras.feature_sign import feature_sign_search, relative_gaps
from sc2keras.metrics import NMSE, NONZERO_THRESHOLD, FailureRate, MeanNMSE
from sc2keras.models import SparseCoder
from sc2keras.models.variables import centered
from sc2keras.objective import recovery_error
from sc2keras.signals import as_array, in_rows
from sc2keras.threads import on_one_thread

_CS = (0.001, 0.01, 0.1, 1.0, 10.0)
# In float64 this ends at the exact optimum, whatever the codes' scale, many times
# faster than the other solvers: lbfgs needs thousands of steps on raw codes.
_CLASSIFIER: dict[str, Any] = {"solver": "newton-cg", "max_iter": 1000}
# Where FISTA's next steps cost more than the rounds of the search that they spare.
_N_STEPS_BEFORE_SEARCH = 500


class CodeQuality(NamedTuple):
    """The figures of `code_quality`, means over samples.

    `gap` is the relative one between `objective` and `optimum`; `optimum_gap`, the
    relative duality gap of the optimum, proves it; `nonzero` is the fraction of the
    codes' entries above 1e-3 in magnitude.
    """

    objective: float
    optimum: float
    gap: float
    optimum_gap: float
    nonzero: float


class RecoveryQuality(NamedTuple):
    """The figures of `recovery_quality`, in dB, and the fraction of failures."""

    ratio: float
    mean: float
    median: float
    failures: float


def recovery_quality(codes: NDArray, truth: NDArray) -> RecoveryQuality:
    """How well codes are recovered, by every definition in use.

    Papers differ in theirs by up to 30 dB. `ratio` is `sc2keras.metrics.NMSE`, of sums
    over the samples, which the few that fail rule; `mean` is `MeanNMSE`, of dB; beside
    them stand the median of the samples, and the fraction of them above −20 dB.

    Args:
        codes: Array `(n_samples, n_atoms)`.
        truth: Array of the same shape, the codes that the signals were made of.

    Example:

    >>> quality = recovery_quality(0.95 * np.ones((3, 4)), np.ones((3, 4)))
    >>> round(quality.ratio, 3), quality.failures
    (-26.021, 0.0)
    """
    codes, truth = as_array("codes", codes), as_array("truth", truth)
    if codes.shape != truth.shape or codes.ndim != 2 or not len(codes):
        raise ValueError(
            "codes and truth must have one shape (n_samples, n_atoms), of at least one "
            f"sample; received {codes.shape} and {truth.shape}."
        )
    figures = []
    for metric in (NMSE(), MeanNMSE(), FailureRate()):
        metric.update_state(truth, codes)
        figures.append(float(metric.result()))
    ratio, mean, failures = figures
    errors = ops.convert_to_numpy(recovery_error(truth, codes))
    return RecoveryQuality(ratio, mean, float(np.median(errors)), failures)


def mean_objective(
    x: NDArray,
    codes: NDArray,
    dictionary: NDArray,
    l1: float | NDArray,
    chunk: int = 4096,
    l2: float = 0.0,
) -> float:
    """Mean over samples of ½‖x − sD‖² + l1·‖s‖₁ + ½·l2·‖s‖², in NumPy.

    Args:
        x: Array `(n_samples, ...)`.
        codes: Array `(n_samples, n_atoms)`.
        dictionary: Array `(n_atoms, n_features)`.
        l1: Float, or an array `(n_atoms,)`.
        chunk: Integer, the rows at a time.
        l2: Float.

    Example:

    >>> round(mean_objective(np.ones((1, 2)), np.ones((1, 2)), np.eye(2), l1=0.1), 6)
    0.2
    """
    x, codes, total = in_rows("x", x), in_rows("codes", codes), 0.0
    for start in range(0, x.shape[0], chunk):
        rows = slice(start, start + chunk)
        signals, s = as_array("x", x[rows]), as_array("codes", codes[rows])
        residual = signals.reshape(len(signals), -1) - s @ dictionary
        total += 0.5 * np.sum(np.square(residual), dtype="float64")
        total += np.sum(l1 * np.sum(np.abs(s), axis=0, dtype="float64"))
        if l2:
            total += 0.5 * l2 * np.sum(np.square(s), dtype="float64")
    return float(total / x.shape[0])


def code_quality(model: SparseCoder, x: NDArray, codes: NDArray) -> CodeQuality:
    """The objective of a model's codes beside the optimum for the same dictionary.

    The optimum is exact to rounding, in float64: FISTA comes near it, and feature-sign
    search ends on it, however ill-conditioned the dictionary.

    Args:
        model, x: A `SparseCoder`, and an array `(n_samples, *input_shape)`.
        codes: Array `(n_samples, n_atoms)`, `model.encode(x)`.

    Raises:
        ValueError: If the codes of the model are not to solve the LASSO.

    Example:

    >>> from sc2keras.applications import LISTA
    >>> model = LISTA(4, input_shape=(8,), n_steps=200)
    >>> x = np.random.default_rng(0).random((5, 8), dtype="float32")
    >>> bool(code_quality(model, x, model.encode(x)).gap < 1e-3)
    True
    """
    if model.encoder.solves != "lasso":
        raise ValueError(
            f"code_quality compares with the optimum of the LASSO, and {model.name!r} "
            f"has other codes (solves={model.encoder.solves!r}). Measure "
            "reconstruction and sparsity, for instance with model.evaluate."
        )
    dictionary, l1 = model.dictionary, model.encoder.l1
    options = model.encoder.penalty_options()
    x, codes = as_array("x", x), as_array("codes", codes)
    x = centered(model.encoder, x)
    signals, atoms = _in_span(x, dictionary)
    problem = {"l1": l1, "dictionary": atoms, **options}
    problem["n_steps"] = _N_STEPS_BEFORE_SEARCH
    solver = FISTA(len(dictionary), signals.shape[1:], **problem)
    near = solver.predict(signals, batch_size=2048, verbose=0)
    best = feature_sign_search(signals, atoms, l1, near, **options)
    objective, optimum = (
        mean_objective(x, each, dictionary, l1, l2=options["l2"])
        for each in (codes, best)
    )
    return CodeQuality(
        objective=objective,
        optimum=optimum,
        gap=objective / optimum - 1.0,
        optimum_gap=float(relative_gaps(signals, best, atoms, l1, **options).mean()),
        nonzero=float(np.mean(np.abs(codes) > NONZERO_THRESHOLD)),
    )


def _in_span(x: NDArray, dictionary: NDArray) -> tuple[NDArray, NDArray]:
    """Signals and atoms of the same LASSO problem in at most n_atoms + 1 features.

    In an orthonormal basis of the atoms' span, and with what a signal has outside of it
    as one more feature, every product and norm stays what it was.
    """
    if len(dictionary) + 1 >= dictionary.shape[1]:
        return x, dictionary
    basis, coordinates = np.linalg.qr(dictionary.T.astype("float64"))
    inside = x @ basis
    squared = np.sum(np.square(x), axis=1, dtype="float64") - np.sum(inside**2, axis=1)
    outside = np.sqrt(np.maximum(squared, 0.0))
    atoms = np.column_stack([coordinates.T, np.zeros(len(dictionary))])
    return np.column_stack([inside, outside]), atoms


def step_codes(model: SparseCoder, x: NDArray) -> NDArray:
    """The codes after every step of a model's encoder, `(n_steps, n_samples, n_atoms)`.

    Example:

    >>> from sc2keras.applications import SC2Net
    >>> model = SC2Net(4, input_shape=(8,), n_steps=3)
    >>> step_codes(model, np.zeros((5, 8), "float32")).shape
    (3, 5, 4)
    """
    encoder = model.encoder
    steps = type(encoder).from_config(encoder.get_config() | {"return_sequences": True})
    inputs = keras.Input((encoder.n_features,))
    unrolled = keras.Model(inputs, steps(inputs))
    steps.set_weights(encoder.get_weights())
    x = as_array("x", x)
    codes = unrolled.predict(ops.reshape(x, (len(x), -1)), verbose=0)
    return np.moveaxis(codes, 1, 0)


def make_draws(
    n_train: int,
    n_test: int,
    n_draws: int = 10,
    n_fit: int = 4000,
    n_score: int = 1000,
    seed: int = 0,
) -> list[tuple[NDArray, NDArray]]:
    """Which samples the `paper` protocol fits and scores on.

    Args:
        n_train, n_test: Integers, the sizes of the two splits.
        n_draws, seed: Integers. Equal arguments give equal draws.
        n_fit, n_score: Integers, the samples of a draw; at most 80 % of a split, so
            that draws from a small dataset still differ.

    Returns:
        List of `(fit, score)`, two arrays of indices without repetition.

    Example:

    >>> draws = make_draws(60000, 10000)
    >>> len(draws), len(draws[0][0]), len(draws[0][1])
    (10, 4000, 1000)
    """
    draw = np.random.default_rng(seed).choice
    n_fit, n_score = min(n_fit, n_train * 4 // 5), min(n_score, n_test * 4 // 5)
    return [
        (draw(n_train, n_fit, replace=False), draw(n_test, n_score, replace=False))
        for _ in range(n_draws)
    ]


@on_one_thread
def paper_accuracy(
    codes_train: NDArray,
    y_train: NDArray,
    codes_test: NDArray,
    y_test: NDArray,
    draws: list[tuple[NDArray, NDArray]],
) -> NDArray:
    """Accuracy by the protocol behind the paper's table, one figure a draw.

    A default logistic regression (C = 1) is fitted on 4,000 codes as they are and
    scored on 1,000.

    Args:
        codes_train, codes_test: Arrays `(n_samples, n_features)`.
        y_train, y_test: Arrays `(n_samples,)`, the labels.
        draws: Of `make_draws`; the same for every method that is compared.

    Returns:
        Array `(n_draws,)` of accuracies in [0, 1].

    Example:

    >>> x, y = np.eye(2).repeat(10, axis=0), np.arange(2).repeat(10)
    >>> paper_accuracy(x, y, x, y, make_draws(20, 20, n_draws=2)).tolist()
    [1.0, 1.0]
    """
    codes_train, codes_test = _in_float64(codes_train, codes_test)
    accuracies = []
    for fit, score in draws:
        classifier = LogisticRegression(tol=1e-6, **_CLASSIFIER)
        classifier.fit(codes_train[fit], y_train[fit])
        accuracies.append(classifier.score(codes_test[score], y_test[score]))
    return np.array(accuracies)


def _in_float64(*codes: Any) -> Iterator[NDArray]:
    return (as_array("codes", each).astype("float64") for each in codes)


class FullAccuracy(NamedTuple):
    """The figures of `full_accuracy`, `accuracy` on the test split."""

    accuracy: float
    train_accuracy: float
    C: float


@on_one_thread
def full_accuracy(
    codes_train: NDArray,
    y_train: NDArray,
    codes_test: NDArray,
    y_test: NDArray,
    seed: int = 0,
) -> FullAccuracy:
    """Accuracy with all labels: every training code, standardised; the test split.

    C is chosen from 0.001, 0.01, 0.1, 1 and 10 on a stratified holdout, a tenth of the
    training split: upwards, until the accuracy there has fallen by two of its standard
    errors. The classifier is then fitted on all of the split.

    Args:
        codes_train, y_train, codes_test, y_test: As in `paper_accuracy`.
        seed: Integer, of the holdout.

    Example:

    >>> x, y = np.eye(2).repeat(10, axis=0), np.arange(2).repeat(10)
    >>> full_accuracy(x, y, x, y).accuracy
    1.0
    """
    fit, hold = train_test_split(
        np.arange(len(y_train)), test_size=0.1, stratify=y_train, random_state=seed
    )

    # Standardised codes need no closer optimum, and each C starts from the last one's.
    logistic = LogisticRegression(tol=1e-4, warm_start=True, **_CLASSIFIER)
    classifier = Pipeline([("scale", StandardScaler()), ("classify", logistic)])
    codes_train, codes_test = _in_float64(codes_train, codes_test)
    scores = {}
    for c in _CS:
        classifier.set_params(classify__C=c).fit(codes_train[fit], y_train[fit])
        scores[c] = classifier.score(codes_train[hold], y_train[hold])
        # On thousands of features each larger C takes many times longer.
        best = max(scores.values())
        if best - scores[c] > 2 * math.sqrt(best * (1 - best) / len(hold)):
            break
    chosen = max(scores, key=lambda c: scores[c])
    classifier.set_params(classify__C=chosen).fit(codes_train, y_train)
    return FullAccuracy(
        accuracy=float(classifier.score(codes_test, y_test)),
        train_accuracy=float(classifier.score(codes_train, y_train)),
        C=chosen,
    )
