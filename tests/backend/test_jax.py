"""JAX: several devices, which it makes of a processor's cores, and accelerators."""

import importlib.util
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import signals, unit_atoms

from sc2keras import backend
from sc2keras.applications import SC2Net
from sc2keras.layers import FISTA, LISTABlock
from sc2keras.objective import lasso_objective, relative_duality_gap

if keras.backend.backend() == "jax":
    import jax

DEVICES = """
import sys
import keras, numpy as np, jax
import sc2keras
from sc2keras.models import compile_forward

assert len(jax.devices()) == 4
n_atoms = int(sys.argv[1])
x = np.random.default_rng(0).random((203, 8), dtype="float32")
plain = sc2keras.applications.LISTA(6, (8,), n_steps=3)
expected = plain.encode(x)
initial = np.random.default_rng(0).standard_normal((n_atoms, 64)).astype("float32")
initial /= np.linalg.norm(initial, axis=1, keepdims=True)

mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"))
layout = keras.distribution.LayoutMap(mesh)
layout[".*dictionary"] = ("model", None)
for name, n_rows, distribution in [
    ("data", 20, keras.distribution.DataParallel()),
    ("model", 40, keras.distribution.ModelParallel(
        layout_map=layout, batch_dim_name="batch")),
]:
    keras.distribution.set_distribution(distribution)
    model = sc2keras.applications.LISTA(6, (8,), n_steps=3)
    model.set_weights(plain.get_weights())
    np.testing.assert_allclose(model.encode(x, batch_size=50), expected, atol=1e-6)
    np.testing.assert_allclose(model.encode(x[:3]), expected[:3], atol=1e-6)

    # What each device computes: the rows of its own part of a batch.
    seen, put = [], jax.device_put
    jax.device_put = lambda array, to: seen.append(put(array, to)) or seen[-1]
    compile_forward(model)(x[:80])
    jax.device_put = put
    rows = {shard.data.shape[0] for shard in seen[-1].addressable_shards}
    assert rows == {n_rows}, rows

    # An array as the initial value of a divided weight, however large it is.
    layer = sc2keras.layers.FISTA(n_atoms, dictionary=initial)
    layer.build((None, 64))
    np.testing.assert_array_equal(np.asarray(layer.dictionary), initial)
    print(name)
"""


@pytest.fixture(
    scope="module", params=[64, pytest.param(300_000, marks=pytest.mark.slow)]
)
def four_devices(request):
    flags = "--xla_force_host_platform_device_count=4"
    return subprocess.run(
        [sys.executable, "-c", DEVICES, str(request.param)],
        env={**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
@pytest.mark.parametrize("distribution", ["data", "model"])
def test_four_devices_encode_a_part_of_the_rows_each(four_devices, distribution):
    assert distribution in four_devices.stdout.split(), four_devices.stderr[-3000:]


of_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")


@pytest.fixture
def accelerator(monkeypatch):
    """Takes the processor for one."""
    monkeypatch.setattr("sc2keras.backend.jax.has_accelerator", lambda: True)


@of_jax
@pytest.mark.parametrize(
    ("encoder", "is_full"),
    [
        (FISTA(6, n_steps=3), True),
        (FISTA(6, n_steps=3, tol=1e-3), True),
        (LISTABlock(6, n_steps=3), False),
    ],
)
def test_a_solver_computes_in_full_precision_on_an_accelerator(
    accelerator, encoder, is_full
):
    jaxpr = str(jax.make_jaxpr(lambda x: encoder(x))(signals(4, 8)))
    n_products = jaxpr.count("dot_general")
    assert n_products >= 3
    assert ("HIGHEST" in jaxpr) == is_full
    assert len(re.findall(r"precision=\(?Precision.HIGHEST", jaxpr)) == (
        n_products * is_full
    )


@of_jax
def test_gaps_and_objectives_are_of_full_precision_on_an_accelerator(accelerator):
    x, codes, atoms = signals(4, 8), np.ones((4, 6), "float32"), unit_atoms(6, 8)
    for measure in (relative_duality_gap, lasso_objective):
        jaxpr = str(jax.make_jaxpr(lambda *a, f=measure: f(*a, 0.1))(x, codes, atoms))
        assert "HIGHEST" in jaxpr


@of_jax
@pytest.mark.parametrize("steps_per_execution", [1, 2])
@pytest.mark.parametrize("n_rows", [11, 12])
def test_fit_on_an_accelerator_is_that_of_keras_on_the_host(
    monkeypatch, steps_per_execution, n_rows
):
    x, weights = signals(n_rows, 6), np.linspace(0, 2, n_rows, dtype="float32")
    histories = []
    for on_device in (True, False):
        monkeypatch.setattr(
            "sc2keras.backend.jax.has_accelerator", lambda v=on_device: v
        )
        keras.utils.set_random_seed(2)
        model = SC2Net(4, (6,), n_steps=2)
        model.compile(loss="mse", steps_per_execution=steps_per_execution)
        settings = {"batch_size": 4, "epochs": 3, "verbose": 0}
        y = np.ones((n_rows, 4), "float32")
        history = model.fit(x, y, sample_weight=weights, **settings)
        histories.append(history.history["loss"])
    np.testing.assert_allclose(*histories, rtol=1e-5)


@of_jax
def test_data_that_an_accelerator_does_not_hold_are_gathered_by_keras(
    accelerator, monkeypatch
):
    monkeypatch.setattr("sc2keras.backend.jax._SHARE_OF_MEMORY", -1)
    model, x = SC2Net(4, (6,), n_steps=2), signals(9, 6)
    assert backend.batches_of_arrays(model, [x], 4) is None
    model.compile()
    assert len(model.fit(x, batch_size=4, epochs=2, verbose=0).history["loss"]) == 2


@of_jax
def test_encode_takes_more_rows_at_a_time_on_an_accelerator(accelerator):
    x, expected = signals(9, 6), SC2Net(4, (6,), n_steps=2)
    model = SC2Net(4, (6,), n_steps=2)
    model.set_weights(expected.get_weights())
    assert model.batch_size_of_encode() == 2**16
    np.testing.assert_array_equal(model.encode(x), expected.encode(x))


@of_jax
def test_keras_does_not_look_through_the_state_of_every_step(monkeypatch):
    model = SC2Net(4, (6,), n_steps=2)
    model.compile()
    x, tracked = signals(8, 6), []
    model.fit(x, verbose=0)
    track = type(model._tracker).track
    monkeypatch.setattr(
        type(model._tracker), "track", lambda *a: tracked.append(a[1]) or track(*a)
    )
    model.fit(x, verbose=0)
    dictionaries = [each for each in tracked if isinstance(each, dict)]
    assert not any("metrics_variables" in each for each in dictionaries)


@of_jax
@pytest.mark.parametrize("n_rows", [32, 43])
def test_steps_that_are_one_program_are_those_that_are_not(n_rows):
    x, y = signals(n_rows, 6), np.ones((n_rows, 4), "float32")
    histories = []
    for steps_per_execution in (1, 3):
        keras.utils.set_random_seed(2)
        model = SC2Net(4, (6,), n_steps=2)
        model.compile(loss="mse", steps_per_execution=steps_per_execution)
        histories.append(model.fit(x, y, 4, epochs=3, verbose=0).history)
        assert int(model.optimizer.iterations) == 3 * -(-n_rows // 4)
    assert histories[0] == histories[1]


@of_jax
def test_a_batch_stops_a_group_of_steps_that_it_does_not_fit():
    model = SC2Net(4, (6,), n_steps=2)
    model.compile(steps_per_execution=2)
    sizes = [4, 4, 3, 4, 2]
    batches = ((signals(n, 6),) for n in sizes)
    model.fit(batches, steps_per_epoch=5, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 5
