"""In an environment of one backend, without the others: train, encode, save and load.

KERAS_BACKEND=jax python tests/alone.py
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras.ops import convert_to_numpy as to_numpy

import sc2keras
from sc2keras.sklearn import SparseCodeTransformer

BACKENDS = ("tensorflow", "jax", "torch")
N_ATOMS = 16


def main():
    running = keras.backend.backend()
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    assert installed == [running], installed
    x = sc2keras.datasets.load("digits").x_train[:256]
    shape = x.shape[1:]
    names = [entry.name for entry in sc2keras.registry.entries()]
    for name in names:
        model = sc2keras.applications.build(name, N_ATOMS, shape, n_steps=3)
        if model.trainable_weights:
            model.compile()
            before = [to_numpy(w).copy() for w in model.trainable_weights]
            losses = model.fit(x, epochs=3, batch_size=32, verbose=0).history["loss"]
            pairs = zip(before, model.trainable_weights, strict=True)
            assert any((old != to_numpy(new)).any() for old, new in pairs), name
            # Few numbers, as of HyperLISTA or TISTA, hardly matter to the objective.
            is_small = sum(weight.size for weight in before) < N_ATOMS * x[0].size
            assert losses[-1] < losses[0] or is_small, (name, losses)
            assert np.isfinite(losses).all(), (name, losses)
        check_files(model, x)
    check_command(sc2keras.applications.SC2Net(weights="digits"), x)
    codes = SparseCodeTransformer(N_ATOMS).fit_transform(x.reshape(len(x), -1))
    assert codes.shape == (len(x), N_ATOMS)
    print(f"{running} alone: {', '.join(names)} train, encode, save and load")


def check_files(model, x):
    with tempfile.TemporaryDirectory() as folder:
        model.save(path := Path(folder, "model.keras"))
        loaded = keras.saving.load_model(path)
    np.testing.assert_allclose(loaded.encode(x), model.encode(x), atol=1e-6)


def check_command(model, x):
    with tempfile.TemporaryDirectory() as folder:
        model.save(path := Path(folder, "model.keras"))
        np.save(source := Path(folder, "x.npy"), x)
        target = Path(folder, "codes.npy")
        command = [sys.executable, "-m", "sc2keras", "encode", path, source, target]
        subprocess.run(command, check=True, capture_output=True)
        np.testing.assert_allclose(np.load(target), model.encode(x), atol=1e-5)


if __name__ == "__main__":
    main()
