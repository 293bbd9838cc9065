"""The same weights give the same codes on every backend that is installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import sc2keras

pytestmark = pytest.mark.slow
BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}

MODELS = """
import sys
import keras
import numpy as np
import sc2keras

rng = np.random.default_rng(0)
x = rng.random((12, 3, 3), dtype="float32")
y = np.arange(12) % 3
OPTIONS = {
    "SC2Net": {"classes": 3},
    "LISTA": {"shared": False},
    "LFISTA": {"activation": "top_k"},
    "AdaptiveISTA": {"activation": "double_tanh"},
    "FISTA": {"tol": 1e-4},
}
BUILDERS = [entry.name for entry in sc2keras.registry.entries()]


def build(name):
    options = OPTIONS.get(name, {})
    return sc2keras.applications.build(
        name, n_atoms=6, input_shape=(3, 3), n_steps=4, name=name, **options
    )


def figures(model):
    result = {"codes": model.encode(x), "decoded": model.reconstruct(x)}
    if model.compiled:
        result["loss"] = model.evaluate(x, y, verbose=0)
        model.fit(x, y, batch_size=6, shuffle=False, verbose=0)
        for i, weight in enumerate(model.get_weights()):
            result[f"trained_{i}"] = weight
    return {f"{model.name}/{key}": value for key, value in result.items()}
"""

SAVE = """
folder, results = sys.argv[1], {}
for name in BUILDERS:
    # The dictionaries are drawn by NumPy. The gates start at zero, which would hide a
    # difference, and each backend draws a classifier of its own.
    keras.utils.set_random_seed(0)
    model = build(name)
    for weight in model.weights:
        if weight.name in ("gate_kernel", "kernel", "recurrent_kernel"):
            noise = np.random.default_rng(1).standard_normal(weight.shape)
            weight.assign(0.3 * noise)
    if name == "SC2Net":
        model.compile(
            keras.optimizers.SGD(0.05), loss="sparse_categorical_crossentropy"
        )
    model.save(f"{folder}/{name}.keras")
    results |= figures(model)
np.savez(f"{folder}/results.npz", **results)
"""

LOAD = """
results = {}
for folder in sys.argv[2:]:
    for name in BUILDERS:
        model = keras.saving.load_model(f"{folder}/{name}.keras")
        results |= {f"{folder}/{k}": v for k, v in figures(model).items()}
np.savez(sys.argv[1], **results)
"""


def run(backend, code, *arguments):
    root = str(pathlib.Path(sc2keras.__file__).parents[1])
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": root,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # The law is about the mathematics; an accelerator rounds as it likes.
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }
    process = subprocess.run(
        [sys.executable, "-c", MODELS + code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-4000:]


def require(*backends):
    for backend in backends:
        if importlib.util.find_spec(BACKENDS[backend]) is None:
            pytest.skip(f"{backend} is not installed")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function that gives a backend's files, written in a process of its own."""
    folders = {}

    def save(backend):
        if backend not in folders:
            folders[backend] = tmp_path_factory.mktemp(backend)
            run(backend, SAVE, folders[backend])
        return folders[backend]

    return save


@pytest.fixture(scope="module")
def loaded(saved, tmp_path_factory):
    """A function that gives what a backend makes of the files of all of them."""
    results = {}

    def load(backend):
        if backend not in results:
            path = tmp_path_factory.mktemp("loaded") / f"{backend}.npz"
            installed = [b for b in BACKENDS if importlib.util.find_spec(BACKENDS[b])]
            run(backend, LOAD, path, *(saved(b) for b in installed))
            results[backend] = dict(np.load(path))
        return results[backend]

    return load


def check_close(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("other", ["jax", "torch"])
def test_same_weights_give_the_codes_and_the_training_of_tensorflow(saved, other):
    require("tensorflow", other)
    reference = dict(np.load(saved("tensorflow") / "results.npz"))
    check_close(dict(np.load(saved(other) / "results.npz")), reference)


def test_same_weights_give_the_same_on_jax_and_torch(saved):
    require("jax", "torch")
    reference = dict(np.load(saved("jax") / "results.npz"))
    check_close(dict(np.load(saved("torch") / "results.npz")), reference)


@pytest.mark.parametrize("writer", BACKENDS)
@pytest.mark.parametrize("reader", BACKENDS)
def test_a_file_saved_on_one_backend_loads_on_another(saved, loaded, writer, reader):
    require(writer, reader)
    folder = saved(writer)
    expected = dict(np.load(folder / "results.npz"))
    prefix = f"{folder}/"
    actual = {
        name.removeprefix(prefix): value
        for name, value in loaded(reader).items()
        if name.startswith(prefix)
    }
    check_close(actual, expected)
    assert "SC2Net/trained_0" in actual
