"""Step-LISTA and step-LFISTA beside their equations in NumPy, and beside solvers."""

import keras
import numpy as np
import pytest
from helpers import perturb, shrink, signals, to_numpy, unit_atoms

from sc2keras import applications
from sc2keras.layers import FISTA, ISTA, StepLFISTABlock, StepLISTABlock

SCALARS = {"per_atom": False, "warm_start": False, "preconditioned": False}
OPTIONS = [{}, SCALARS, *(SCALARS | {name: True} for name in SCALARS)]


def perturbed(layer_class, options, **kwargs):
    layer = layer_class(
        6, n_steps=4, l1=0.3, return_sequences=True, **kwargs, **options
    )
    layer.build((None, 8))
    perturb(layer)
    return layer


def reference(layer, x):
    """The codes after every step, from the weights of the layer in float64."""
    value = {
        weight.name: to_numpy(weight.value).astype(float) for weight in layer.weights
    }
    dictionary = value["dictionary"]
    step_size = 1 / np.linalg.eigvalsh(dictionary @ dictionary.T)[-1]
    if layer.trainable_dictionary:
        step_size = 1 / np.sum((dictionary @ value["direction"]) ** 2)
    matrix = value.get("preconditioner", np.eye(6))
    momentum = value.get("momentum", np.zeros((3, 1)))
    codes = previous = np.zeros((len(x), 6))
    steps = []
    for t in range(layer.n_steps):
        size = step_size
        if t >= layer.warm_start:
            size = size * np.exp(value["log_step"][t - layer.warm_start])
        threshold = layer.l1 * size * np.exp(value["log_threshold"][t])
        y = codes if t == 0 else codes + momentum[t - 1] * (codes - previous)
        total = y - size * ((y @ dictionary - x) @ dictionary.T @ matrix)
        if t == 0 and layer.warm_start:
            total = size * x @ value["first_kernel"]
        codes, previous = shrink(total, threshold), codes
        steps.append(codes)
    return np.stack(steps, axis=1)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("layer_class", [StepLISTABlock, StepLFISTABlock])
@pytest.mark.parametrize("n_samples", [2, 50])  # Factored, and with D K.
def test_steps_are_those_of_the_equation(layer_class, options, n_samples):
    layer, x = perturbed(layer_class, options), signals(n_samples, 8)
    codes = to_numpy(layer(x))
    np.testing.assert_allclose(codes, reference(layer, x), atol=2e-5)
    assert np.abs(codes[:, -1]).max() > 0.01


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(
    "layer_class, solver_class", [(StepLISTABlock, ISTA), (StepLFISTABlock, FISTA)]
)
def test_untrained_it_is_the_solver(layer_class, solver_class, frozen, options):
    arguments = {"n_steps": 7, "l1": 0.2, "dictionary": unit_atoms(6, 8)}
    layer = layer_class(6, trainable_dictionary=not frozen, **arguments, **options)
    x = signals(20, 8)
    expected = to_numpy(solver_class(6, **arguments)(x))
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-6)


def test_the_optimum_is_the_fixed_point_of_steps_of_any_size():
    atoms, x = unit_atoms(6, 8), signals(20, 8)
    optimum = to_numpy(FISTA(6, n_steps=2000, l1=0.1, dictionary=atoms)(x))
    layer = StepLFISTABlock(
        6, n_steps=3, l1=0.1, dictionary=atoms, **SCALARS | {"per_atom": True}
    )
    layer.build((None, 8))
    rng = np.random.default_rng(0)
    layer.log_step.assign(rng.normal(size=(3, 6), scale=0.3))
    layer.momentum.assign(rng.random((2, 6)))
    tensors = [keras.ops.convert_to_tensor(value) for value in (x, optimum)]
    prepared = layer.prepare(tensors[0])
    for t in (1, 2):
        codes, _ = layer.step(prepared, (tensors[1], tensors[1]), t)
        np.testing.assert_allclose(to_numpy(codes), optimum, atol=2e-5)


def trained(x, **kwargs):
    model = applications.build(
        "StepLFISTA", 12, (16,), n_steps=4, dictionary=unit_atoms(12, 16), **kwargs
    )
    model.compile(keras.optimizers.Adam(1e-2, global_clipnorm=1.0))
    model.fit(x, epochs=10, batch_size=32, verbose=0)
    return model


def test_the_step_size_follows_a_dictionary_that_is_trained():
    x = signals(256, 16)
    model = trained(x, **SCALARS)
    encoder, before = model.encoder, 1 / np.linalg.norm(unit_atoms(12, 16), 2) ** 2
    found = float(to_numpy(encoder.prepare(keras.ops.ones((1, 16))).step_size))
    assert found == pytest.approx(1 / encoder.lipschitz(), rel=0.02)
    assert abs(found / before - 1) > 0.05
    # What moves in training is not what the codes are computed with at that call.
    inference = to_numpy(encoder(x))
    encoder(x, training=True)
    np.testing.assert_allclose(to_numpy(encoder(x)), inference, atol=0.02)


def test_a_frozen_layer_stays_as_it_is():
    layer = StepLISTABlock(6, n_steps=2)
    layer.build((None, 8))
    layer.dictionary.assign(unit_atoms(6, 8))
    layer.trainable = False
    before = to_numpy(layer.direction.value)
    layer(signals(4, 8), training=True)
    np.testing.assert_array_equal(to_numpy(layer.direction.value), before)


def test_training_comes_closer_than_the_solver_that_it_unfolds():
    x = signals(512, 16)
    frozen = {"trainable_dictionary": False, "l1": 0.1}
    model = trained(x, **frozen)
    np.testing.assert_allclose(model.dictionary, unit_atoms(12, 16), atol=1e-6)
    names = [weight.name for weight in model.encoder.trainable_weights]
    assert "dictionary" not in names and "preconditioner" in names
    solver = {"dictionary": unit_atoms(12, 16), "l1": 0.1}
    few = applications.FISTA(12, (16,), n_steps=4, **solver)
    exact = applications.FISTA(12, (16,), n_steps=3000, tol=1e-5, **solver)

    def objective(codes):
        error = 0.5 * np.sum((x - codes @ model.dictionary) ** 2, axis=1)
        return np.mean(error + 0.1 * np.abs(codes).sum(axis=1))

    optimum = objective(exact.encode(x))
    gaps = [objective(coder.encode(x)) / optimum - 1 for coder in (model, few)]
    assert 0 <= gaps[0] < gaps[1] / 10
