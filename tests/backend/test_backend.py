import ast
import importlib
import pathlib

import keras
import pytest

from sc2keras import backend
from sc2keras.backend import aligned_empty

FILES = sorted(pathlib.Path(backend.__file__).parents[1].rglob("*.py"))
NAMES = (
    "compile_function",
    "batches_of_arrays",
    "take_rows",
    "recomputed",
    "has_accelerator",
    "full_precision",
    "to_numpy",
    "make_deterministic",
    "MAY_CHOOSE_XLA",
    "HAS_STEPS_PER_EXECUTION",
    "MAY_LOSE_WEIGHTS",
    "EXPORTS",
    "LOOPS_IN",
    "export_arguments",
    "FLOAT64_REMEDY",
    "is_recorded",
    "is_traced",
)


@pytest.mark.parametrize("name", ["tensorflow", "jax", "torch"])
def test_every_backend_has_the_same_names(name):
    module = importlib.import_module(f"sc2keras.backend.{name}")
    assert all(hasattr(module, attribute) for attribute in NAMES)
    assert all(f"`{attribute}" in backend.__doc__ for attribute in NAMES)


def test_the_names_are_those_of_the_running_backend(monkeypatch):
    module = importlib.import_module(f"sc2keras.backend.{keras.backend.backend()}")
    for name in NAMES:
        assert getattr(backend, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        backend.no_such_name  # noqa: B018
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(
        ValueError, match=r"tensorflow, jax, torch; received 'openvino'"
    ):
        backend.compile_function  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_backend_is_imported_before_it_is_needed(path):
    imported = {
        name.split(".")[0]
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in [getattr(node, "module", None) or "", *(a.name for a in node.names)]
    }
    assert not imported & {"tensorflow", "jax", "torch"}


@pytest.mark.parametrize("shape", [(3,), (5, 7)])
def test_aligned_empty_is_writable_and_aligned(shape):
    array = aligned_empty(shape, "float32")
    assert (array.shape, array.dtype) == (shape, "float32")
    assert array.ctypes.data % 64 == 0
    assert array.flags.carray
