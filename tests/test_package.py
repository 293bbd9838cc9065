import ast
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import to_numpy

import sc2keras
from sc2keras.layers import SLSTMCell

PACKAGE = pathlib.Path(sc2keras.__file__).parent
PORTABLE = [
    *sorted((PACKAGE / "layers").glob("*.py")),
    PACKAGE / "losses.py",
    PACKAGE / "metrics.py",
    *sorted((PACKAGE / "models").glob("*.py")),
    PACKAGE / "objective.py",
]

LOAD = """
import sys
import keras
import numpy as np
import sc2keras
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], model.encode(np.load(sys.argv[2])))
"""


def test_sc2net_is_fitted_saved_and_loaded_by_another_process(tmp_path, recwarn):
    x = np.random.default_rng(0).random((64, 28, 28, 1), dtype="float32")
    model = sc2keras.applications.SC2Net(n_atoms=100)
    model.compile()
    losses = model.fit(x, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    arguments = [tmp_path / name for name in ("model.keras", "x.npy", "codes.npy")]
    process = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    codes = np.load(tmp_path / "codes.npy")
    assert codes.shape == (64, 100)
    np.testing.assert_array_equal(codes, model.encode(x))
    # Of Keras's own dependencies, which warn as they please, none is asked.
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]


def test_in_sc2net_an_rnn_holds_the_cell_and_projects_the_signal_once(monkeypatch):
    model = sc2keras.applications.SC2Net(n_atoms=6, input_shape=(8,), n_steps=5)
    assert isinstance(model.encoder, keras.layers.RNN)
    assert isinstance(model.encoder.cell, SLSTMCell)
    calls, project, step = [], SLSTMCell.project, SLSTMCell.step
    monkeypatch.setattr(
        SLSTMCell, "project", lambda *args: calls.append("project") or project(*args)
    )
    monkeypatch.setattr(
        SLSTMCell, "step", lambda *args: calls.append("step") or step(*args)
    )
    model(np.ones((2, 8), "float32"))
    assert calls == ["project"] + 5 * ["step"]


def test_names_at_the_top_are_those_a_user_needs():
    assert sc2keras.SparseCoder is sc2keras.models.SparseCoder
    for name in (
        "layers",
        "losses",
        "metrics",
        "applications",
        "datasets",
        "sklearn",
    ):
        assert hasattr(sc2keras, name)


@pytest.mark.parametrize("path", PORTABLE, ids=lambda path: path.stem)
def test_nothing_but_keras_and_numpy_is_imported_by_the_core(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
    roots = {name.split(".")[0] for name in imported}
    assert roots <= {"h5py", "keras", "numpy", "sc2keras"} | set(
        sys.stdlib_module_names
    )
    # Imports go one way: layers, then models, then applications.
    assert not any(name.startswith("keras.src") for name in imported)
    later = {"sc2keras.applications", "sc2keras.datasets", "sc2keras.evaluation"}
    if path.parent.name == "layers":
        later |= {"sc2keras.models", "sc2keras.losses", "sc2keras.metrics"}
    assert not imported & later


# A file that holds one of these is loaded by its name for ever.
REGISTERED = [
    "AdaptiveISTA",
    "AdaptiveISTACell",
    "DoubleTanh",
    "FISTA",
    "ISTA",
    "LFISTABlock",
    "LISTABlock",
    "ReconstructionLoss",
    "SLSTM",
    "SLSTMCell",
    "Shrinkage",
    "SparseCoder",
    "SparseCodingLoss",
]


def test_every_class_has_its_registered_name():
    for name in REGISTERED:
        registered = keras.saving.get_registered_object(f"sc2keras>{name}")
        assert registered is not None
        assert keras.saving.get_registered_name(registered) == f"sc2keras>{name}"


def test_weights_are_float32_arrays_whatever_the_dictionary_was():
    model = sc2keras.applications.LISTA(
        n_atoms=4, input_shape=(4,), dictionary=np.eye(4, dtype="int64")
    )
    assert to_numpy(model.encoder.dictionary).dtype == "float32"
