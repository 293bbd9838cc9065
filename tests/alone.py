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

import sc2keras
from sc2keras.sklearn import SparseCodeTransformer

BACKENDS = ("tensorflow", "jax", "torch")


def main():
    running = keras.backend.backend()
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    assert installed == [running], installed
    x = sc2keras.datasets.load("digits").x_train[:256]
    shape = x.shape[1:]
    names = [entry.name for entry in sc2keras.registry.entries()]
    for name in names:
        # More atoms than features, as recovery has them: TISTA is done in a step else.
        model = sc2keras.applications.build(name, 80, shape, n_steps=3)
        if model.trainable_weights:
            model.compile()
            losses = model.fit(x, epochs=3, batch_size=32, verbose=0).history["loss"]
            assert losses[-1] < losses[0], (name, losses)
        check_files(model, x)
    check_command(sc2keras.applications.SC2Net(weights="digits"), x)
    codes = SparseCodeTransformer(16).fit_transform(x.reshape(len(x), -1))
    assert codes.shape == (len(x), 16)
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
