"""Several devices, which JAX makes of the cores of one processor."""

import importlib.util
import os
import subprocess
import sys

import pytest

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
