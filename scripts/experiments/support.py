"""What works where: every encoder in every way, on the backend that runs."""

import re

import keras
import numpy as np

from sc2keras import applications, registry

from .exported import export
from .reports import markdown

N_ATOMS, N_FEATURES = 6, 8
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
ENCODERS = {
    **{entry.name: {} for entry in registry.entries()},
    **{
        f"{entry.name} with tol": {"tol": 1e-3, "n_steps": 500}
        for entry in registry.entries()
        if not entry.is_trained
    },
}


def build(name):
    """A small model whose weights are none that it starts from."""
    builder, *_ = name.split()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    # Well-conditioned: else a solver multiplies what float32 rounds.
    atoms = np.eye(N_ATOMS, N_FEATURES) + 0.3 * rng.random((N_ATOMS, N_FEATURES))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    options = {"n_steps": 3, "dictionary": atoms, **ENCODERS[name]}
    model = applications.build(builder, N_ATOMS, (N_FEATURES,), **options)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.05 * rng.random(weight.shape))
    return model


def signals(n_rows):
    return np.random.default_rng(n_rows).random((n_rows, N_FEATURES), dtype="float32")


def fit(model, folder):
    model.compile()
    before = model.evaluate(signals(32), verbose=0, return_dict=True)["loss"]
    losses = model.fit(signals(32), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < before


def encode(model, folder):
    x = signals(9)
    codes = model.encode(x, batch_size=4)
    agree(codes, keras.ops.convert_to_numpy(model(x)))
    assert np.count_nonzero(codes)


def save(model, folder):
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    agree(loaded.encode(signals(9)), model.encode(signals(9)))


def export_as(format):
    def run(model, folder):
        run = export(model, format, folder)
        for n_rows in (1, 5):
            agree(run(signals(n_rows)), model.encode(signals(n_rows)))

    return run


def agree(found, expected):
    # What float32 rounds is of the size of the largest entries: AMP's are above 1.
    atol = 1e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


EXPORTS = {
    "SavedModel": "tf_saved_model",
    "LiteRT": "litert",
    "ONNX": "onnx",
    "OpenVINO": "openvino",
    ".pt2": "torch",
}
WAYS = {
    "fit": fit,
    "encode": encode,
    "save and load": save,
    **{way: export_as(format) for way, format in EXPORTS.items()},
}


def works(name, way, folder):
    """Whether it works; False if it is refused by name, before a file is there."""
    try:
        WAYS[way](build(name), folder)
    except ValueError as error:
        if not re.search("received|no trainable weights", str(error)):
            raise
        assert not list(folder.iterdir())
        return False
    return True


def on_this_backend(folder, names):
    found = {}
    for name in names:
        found[name] = {}
        for way in WAYS:
            (path := folder / f"{name} {way}").mkdir(parents=True)
            found[name][way] = works(name, way, path)
    return found


def table(found):
    """A Markdown table of `{backend: {encoder: {way: bool}}}`."""
    rows = [
        [BACKENDS[backend], name, *("yes" if ways[way] else "–" for way in WAYS)]
        for backend, encoders in found.items()
        for name, ways in encoders.items()
    ]
    return markdown(["backend", "encoder", *WAYS], rows)
