"""A solver that its cap stops says so once, on every way of Keras and its own."""

import functools
import warnings

import keras
import numpy as np
import pytest
from coders import CROSSENTROPY, build, images
from helpers import EXHAUSTIVE, SOLVERS, unit_atoms, with_slow
from sklearn.exceptions import ConvergenceWarning
from ways import dataset

from sc2keras.layers import FISTA
from sc2keras.models.forward import compile_forward

N = 9
QUIET = {"verbose": 0}


def parts(x):
    return (x[i : i + 3] for i in range(0, len(x), 3))


# Each calls with signals, and targets if there is a classifier.
WAYS = {
    "encode": lambda model, x, _: model.encode(x, batch_size=4),
    "encode of batches": lambda model, x, _: model.encode(parts(x)),
    "reconstruct": lambda model, x, _: model.reconstruct(x, batch_size=4),
    "call": lambda model, x, _: model(x),
    "compile_forward": lambda model, x, _: compile_forward(model, False)(x),
    "predict": lambda model, x, _: model.predict(x, batch_size=4, **QUIET),
    "predict of a dataset": lambda model, x, _: model.predict(dataset(x), **QUIET),
    "predict of a generator": lambda model, x, _: model.predict(parts(x), **QUIET),
    "predict_on_batch": lambda model, x, _: model.predict_on_batch(x),
    "evaluate": lambda model, x, y: model.evaluate(x, y, batch_size=4, **QUIET),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
}
OF_STREAMS = {
    "evaluate of a dataset": lambda m, x, _: m.evaluate(dataset(x, True), **QUIET),
}
TRAININGS = {
    "fit": lambda model, x, y: model.fit(x, y, epochs=2, **QUIET),
    "fit with a validation": lambda model, x, y: model.fit(
        x[:3], y[:3], validation_data=(x, y), **QUIET
    ),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
}
CALLS = {**WAYS, **OF_STREAMS, **TRAININGS}
KINDS = [(None, False), (None, True), (3, False), (3, True)]
FAST = [
    (FISTA, "encode", None, False),
    *((FISTA, way, 3, True) for way in ("predict", "train_on_batch")),
]
# A training that nothing compiles takes a minute.
ALL = [
    *((cls, way, n, e) for cls in SOLVERS for way in WAYS for n, e in KINDS),
    *((cls, way, None, False) for cls in SOLVERS for way in OF_STREAMS),
    *((cls, way, 3, e) for cls in SOLVERS for way in TRAININGS for e in (False, True)),
]


@functools.cache
def solver(cls, classes, run_eagerly, n_steps, tol):
    options = {"n_steps": n_steps, "tol": tol, "dictionary": unit_atoms(6, 8)}
    model = build(cls, classes, **options)
    loss = CROSSENTROPY if classes else None
    model.compile("sgd", loss, run_eagerly=run_eagerly)
    return model


def caught_of(call, *args):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*args)
    return [w for w in caught if issubclass(w.category, ConvergenceWarning)]


@pytest.mark.parametrize(
    ("cls", "way", "classes", "run_eagerly"),
    with_slow(FAST, ALL, EXHAUSTIVE),
)
def test_a_solver_that_its_cap_stops_warns_once_on_every_way(
    cls, way, classes, run_eagerly
):
    x, y = images(N), np.arange(N) % 3 if classes else None
    stopped = solver(cls, classes, run_eagerly, 10, 1e-7)
    gaps = keras.ops.convert_to_numpy(stopped.encoder.solve(x.reshape(N, -1))[1])
    for _ in range(2):  # What is compiled by then warns as well.
        (warning,) = caught_of(CALLS[way], stopped, x, y)
        message = str(warning.message)
        assert message.startswith(f"{(gaps > 1e-7).sum()} of {N} rows have not reached")
        assert "tol=1e-07 after n_steps=10 steps; " in message
        assert f"gap is {gaps.max():.2g}. Raise n_steps" in message
        assert warning.filename == __file__
    other = solver(cls, classes, run_eagerly, 2000, 1e-3)
    assert not caught_of(CALLS[way], other, x, y)


def test_what_is_predicted_and_shown_is_as_without_a_tolerance():
    x, y = images(N), np.arange(N) % 3
    stopped = solver(FISTA, 3, True, 10, 1e-7)
    with pytest.warns(ConvergenceWarning):
        codes, predictions = stopped.predict(x, verbose=0)
    assert (codes.shape, predictions.shape) == ((N, 6), (N, 3))
    with pytest.warns(ConvergenceWarning):
        found = stopped.evaluate(x, y, return_dict=True, verbose=0)
        values = stopped.evaluate(x, y, verbose=0)
    assert sorted(found) == ["l1", "loss", "nonzero", "reconstruction"]
    assert len(values) == 4


def test_a_row_that_is_not_finite_is_none_that_took_too_long():
    x = images(N)
    x[2] = np.nan
    stopped = solver(FISTA, None, False, 10, 1e-7)
    (warning,) = caught_of(WAYS["predict of a generator"], stopped, x, None)
    assert str(warning.message).startswith(f"{N - 1} of {N} rows")
