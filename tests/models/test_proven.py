import keras
import numpy as np
import pytest
from helpers import ENTRIES, EXHAUSTIVE, signals, unit_atoms, with_slow

from sc2keras import applications
from sc2keras.feature_sign import feature_sign_search, relative_gaps
from sc2keras.layers import FISTA
from sc2keras.models import proven

ALL = [(entry.name, tol) for entry in ENTRIES for tol in (1e-2, 1e-4, 2e-6)]
FEW = [("SC2Net", 1e-4), ("StepLFISTA", 2e-6), ("FISTA", 1e-2)]


def build(name, n_atoms=20, input_shape=(4, 3), **options):
    usual = {"n_steps": 3, "l1": 0.05, "dictionary": unit_atoms(n_atoms, 12)}
    return applications.build(name, n_atoms, input_shape, **(usual | options))


def gaps(model, x, codes):
    x = x.reshape(len(x), -1)
    return relative_gaps(x, codes, model.dictionary, model.encoder.l1)


@pytest.mark.parametrize(("name", "tol"), with_slow(FEW, ALL, EXHAUSTIVE))
def test_every_code_is_proven(name, tol):
    model, x = build(name), signals(50, 12).reshape(50, 4, 3)
    assert gaps(model, x, model.encode(x)).max() > tol
    codes = model.encode(x, tol=tol)
    assert codes.dtype == np.float32 and codes.shape == (50, 20)
    assert gaps(model, x, codes).max() < 1.0001 * tol


def test_an_activation_or_a_weight_without_a_gap_is_refused():
    for options in ({"activation": "top_k"}, {"l1": 0.0}):
        with pytest.raises(ValueError, match="tol needs codes that a duality gap"):
            build("LISTA", **options).encode(signals(3, 12).reshape(3, 4, 3), tol=1e-3)


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan"), "small"])
def test_a_tolerance_is_a_positive_number(tol):
    with pytest.raises((ValueError, TypeError), match="tol"):
        build("LISTA").encode(signals(3, 12).reshape(3, 4, 3), tol=tol)


def test_what_float32_cannot_prove_is_said():
    model, x = build("LISTA"), signals(50, 12).reshape(50, 4, 3)
    with pytest.raises(ValueError, match=r"tol=1e-12 is less than float32 codes can"):
        model.encode(x, tol=1e-12)


def test_what_the_solver_leaves_open_is_solved(monkeypatch):
    # Atoms so much alike that FISTA takes tens of thousands of steps.
    rng = np.random.default_rng(0)
    atoms = 1 + 0.1 * rng.standard_normal((20, 12))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    monkeypatch.setattr(proven, "_N_STEPS", 20)
    model, x = build("LISTA", dictionary=atoms, l1=1e-2), signals(30, 12)
    x = x.reshape(30, 4, 3)
    codes = model.encode(x, tol=1e-4)
    assert gaps(model, x, codes).max() < 1.0001e-4


def test_it_follows_the_dictionary_and_the_weights():
    model, x = build("LISTA"), signals(60, 12).reshape(60, 4, 3)
    model.encode(x, tol=1e-4)
    model.compile()
    model.fit(x, epochs=3, verbose=0)
    assert gaps(model, x, model.encode(x, tol=1e-4)).max() < 1.0001e-4


def test_an_atom_that_training_made_zero_is_no_obstacle():
    model, x = build("LISTA"), signals(20, 12).reshape(20, 4, 3)
    dictionary = model.dictionary
    dictionary[3] = 0.0
    model.encoder.dictionary.assign(dictionary)
    codes = model.encode(x, tol=1e-4)
    assert gaps(model, x, codes).max() < 1.0001e-4


def test_batches_files_and_arrays_of_the_caller_are_as_without(tmp_path):
    model, x = build("StepLFISTA"), signals(150, 12).reshape(150, 4, 3)
    expected = model.encode(x, tol=1e-4)
    out = np.lib.format.open_memmap(tmp_path / "s.npy", "w+", "float32", (150, 20))
    assert model.encode(x, batch_size=64, out=out, tol=1e-4) is out
    np.testing.assert_allclose(out, expected, atol=0.02)
    assert gaps(model, x, out).max() < 1.0001e-4
    parts = model.encode((x[:70], x[70:]), tol=1e-4)
    assert gaps(model, x, parts).max() < 1.0001e-4


def test_a_row_that_is_not_finite_is_named():
    model, x = build("LISTA"), signals(9, 12).reshape(9, 4, 3)
    x[4, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"x\[4\]"):
        model.encode(x, tol=1e-3)


def test_a_file_holds_no_solver(tmp_path):
    model, x = build("LISTA"), signals(9, 12).reshape(9, 4, 3)
    model.encode(x, tol=1e-3)
    n_weights = len(model.weights)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert len(loaded.weights) == n_weights == len(build("LISTA").weights)
    np.testing.assert_allclose(
        loaded.encode(x, tol=1e-3), model.encode(x, tol=1e-3), atol=1e-5
    )


def test_the_solver_goes_on_from_where_it_is_told():
    layer = FISTA(20, tol=1e-4, l1=0.05, dictionary=unit_atoms(20, 12))
    x = signals(10, 12)
    layer.build(x.shape)
    best = feature_sign_search(x, unit_atoms(20, 12), 0.05, np.zeros((10, 20)))
    codes, _ = layer.solve(x, best.astype("float32"))
    np.testing.assert_allclose(codes, best, atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "float64"])
def test_the_proof_is_in_float32_at_least(dtype):
    if dtype == "float64" and keras.backend.backend() != "tensorflow":
        pytest.skip("JAX has it only where it is configured, PyTorch not at all")
    model, x = build("LISTA", dtype=dtype), signals(20, 12).reshape(20, 4, 3)
    tol = 1e-10 if dtype == "float64" else 1e-4
    codes = model.encode(x, tol=tol)
    assert codes.dtype == ("float64" if dtype == "float64" else "float32")
    assert gaps(model, x, codes).max() < 1.0001 * tol
