"""Weights that devices divide: which, and that nothing but memory is another."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from helpers import ENTRIES, EXHAUSTIVE, with_slow

from sc2keras import applications, backend

ROOT = Path(__file__).parents[2]
N_ATOMS, N_FEATURES = 13, 7
# Numbers of each step, of each atom or not: small, and whole on every device.
OF_STEPS = {"log_step", "log_threshold", "momentum"}


@pytest.fixture
def layout(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "jax")
        return backend.layout_map(["cpu:0", "cpu:1"])


def variants(entry):
    """Its builder's options, with other weights each."""
    yield from ({}, *entry.variants.values())
    for name, value in [
        ("trainable_dictionary", False),
        ("tied", False),
        ("activation", "double_tanh"),
        ("classes", N_ATOMS),
    ]:
        yield {name: value}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_weight_with_an_axis_of_atoms_is_divided_along_it(layout, entry):
    """Of sizes that no other axis has a multiple of."""
    n_divided = 0
    for options in variants(entry):
        try:
            options = {"n_steps": 3, **options}
            model = applications.build(entry.name, N_ATOMS, (N_FEATURES,), **options)
        except ValueError:  # Not of this encoder.
            continue
        for weight in model.weights:
            found = layout[weight.path]
            axes = [i for i, n in enumerate(weight.shape) if n % N_ATOMS == 0]
            if not axes or weight.name in OF_STEPS or "predictions" in weight.path:
                assert found is None, weight.path
                continue
            assert found is not None, weight.path
            assert len(found.axes) == len(weight.shape), weight.path
            assert [i for i, axis in enumerate(found.axes) if axis] in [
                [i] for i in axes
            ], weight.path
            n_divided += 1
    assert n_divided


@pytest.mark.parametrize(
    ("path", "axes"),
    [
        ("kernel", (None, "model")),  # As after a reload of a cell.
        ("a/b/cell/recurrent_kernel_3", (None, "model")),
        ("slstm/cell/activation/threshold", ("model",)),
        ("dense/kernel", None),
        ("a/conv2d_3/bias", None),
        ("slstm/cell/step_size", None),
    ],
)
def test_layers_beside_an_encoder_are_whole_on_every_device(layout, path, axes):
    assert getattr(layout[path], "axes", None) == axes


@pytest.mark.parametrize(
    ("devices", "shape"),
    [(["cpu:0", "cpu:1"], (1, 2)), ([["cpu:0"], ["cpu:1"]], (2, 1))],
)
def test_lists_of_devices_share_a_batch(monkeypatch, devices, shape):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    mesh = backend.layout_map(devices).device_mesh
    assert mesh.shape == shape and mesh.axis_names == ["batch", "model"]


@pytest.mark.parametrize("devices", [[], [["cpu:0"], ["cpu:1", "cpu:2"]]])
def test_devices_that_are_no_grid_are_an_error(monkeypatch, devices):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"equally long lists.*received devices=\["):
        backend.layout_map(devices)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="works there")
def test_on_other_backends_it_says_where_weights_are_divided():
    with pytest.raises(ValueError, match=r"on JAX alone.*Set KERAS_BACKEND=jax"):
        backend.layout_map()


FOUR = """
import sys
import jax, keras, numpy as np
from sc2keras import applications, backend

assert len(jax.devices()) == 4
x = np.random.default_rng(0).random((40, 8), dtype="float32")
names = keras.distribution.list_devices()
grids = {"atoms": names, "both": [names[:2], names[2:]]}


def fitted(name, options, weights=None):
    keras.utils.set_random_seed(0)
    model = applications.build(name, 16, (8,), **options)
    if weights is not None:
        model.set_weights(weights)
    start = model.get_weights()
    settings = {"batch_size": 20, "epochs": 3, "shuffle": False, "verbose": 0}
    losses = [0.0]
    if model.trainable_weights:
        model.compile()
        losses = model.fit(x, **settings).history["loss"]
    return model, start, losses, model.encode(x)


def halves(variable):
    return {shard.data.shape for shard in variable.value.addressable_shards}


for argument in sys.argv[1:]:
    name, _, activation = argument.partition("-")
    options = {"n_steps": 3, **({"activation": activation} if activation else {})}
    if name == "SparseAutoencoder":
        options |= {"dead_after": 1}  # So that dead atoms are trained.
    plain, start, losses, codes = fitted(name, options)
    for grid, devices in grids.items():
        layout = backend.layout_map(devices)
        n = layout.device_mesh.shape[1]
        keras.distribution.set_distribution(
            keras.distribution.ModelParallel(layout_map=layout)
        )
        model, _, found, encoded = fitted(name, options, start)
        keras.distribution.set_distribution(None)
        np.testing.assert_allclose(found, losses, rtol=1e-4)
        # Conjugate gradients stop on another side of a zero by a rounding.
        atol = 1e-3 if name == "ActiveSet" else 1e-4
        np.testing.assert_allclose(encoded, codes, atol=atol)
        assert not losses[0] or losses[-1] != losses[0]
        dictionary = model.encoder.dictionary
        assert halves(dictionary) == {(16 // n, 8)}, dictionary.value.sharding
        for weight in model.weights:
            if layout[weight.path] is not None:
                spec = weight.value.sharding.spec
                assert "model" in spec, (weight.path, spec)
        if not losses[0]:
            continue
        # What an optimizer holds is divided as well.
        for each in model.optimizer.variables:
            if each.path.endswith("dictionary_momentum"):
                assert halves(each) == {(16 // n, 8)}
    print(argument)

layout = backend.layout_map(names)
parallel = keras.distribution.ModelParallel(layout_map=layout)
with parallel.scope():
    for name in ("FISTA", "SC2Net"):
        try:
            applications.build(name, 18, (8,))
        except ValueError as error:
            assert "multiple of the 4 devices" in str(error), error
            assert "Take 20 atoms" in str(error), error
        else:
            raise AssertionError(name)
"""

TRAINED = [entry.name for entry in ENTRIES]
SOME = ["SC2Net", "SparseAutoencoder", "StepLFISTA", "FISTA"]
MORE = [
    *(name for name in TRAINED if name not in SOME),
    *(f"SparseAutoencoder-{name}" for name in ("relu", "batch_top_k", "gated")),
]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
@pytest.mark.parametrize("names", with_slow([SOME], [MORE], EXHAUSTIVE), ids=len)
def test_four_devices_have_the_losses_and_codes_of_one(names):
    flags = "--xla_force_host_platform_device_count=4"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", FOUR, *names],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "XLA_FLAGS": flags,
            "PYTHONPATH": paths,
        },
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == names, run.stderr[-3000:]
