import keras
import numpy as np
import pytest
from helpers import (
    EXHAUSTIVE,
    OF_THE_LASSO,
    signals,
    to_numpy,
    unit_atoms,
    with_slow,
)

from sc2keras import applications
from sc2keras.evaluation import mean_objective
from sc2keras.feature_sign import feature_sign_search, relative_gaps
from sc2keras.io import InputError, encode_file
from sc2keras.layers.active_set import improve
from sc2keras.models import proven

ALL = [(entry.name, tol) for entry in OF_THE_LASSO for tol in (True, 1e-2, 1e-4, 2e-6)]
FEW = [("SC2Net", 1e-4), ("StepLFISTA", 2e-6), ("FISTA", 1e-2)]


def build(name, n_atoms=20, input_shape=(4, 3), **options):
    usual = {"n_steps": 3, "l1": 0.05, "dictionary": unit_atoms(n_atoms, 12)}
    return applications.build(name, n_atoms, input_shape, **(usual | options))


def gaps(model, x, codes, l1=None):
    x = x.reshape(len(x), -1)
    return relative_gaps(x, codes, model.dictionary, l1 or model.encoder.l1)


@pytest.mark.parametrize(("name", "tol"), with_slow(FEW, ALL, EXHAUSTIVE))
def test_every_code_is_proven(name, tol):
    model, x = build(name), signals(50, 12).reshape(50, 4, 3)
    assert gaps(model, x, model.encode(x)).max() > tol
    codes = model.encode(x, tol=tol)
    assert codes.dtype == np.float32 and codes.shape == (50, 20)
    assert gaps(model, x, codes).max() <= tol


def test_an_activation_or_a_weight_without_a_gap_is_refused():
    for options in ({"activation": "top_k"}, {"l1": 0.0}):
        with pytest.raises(ValueError, match="tol needs codes that a duality gap"):
            build("LISTA", **options).encode(signals(3, 12).reshape(3, 4, 3), tol=1e-3)


@pytest.mark.parametrize("tol", [0.0, -1.0, True, float("nan"), 10**400, "small"])
def test_a_tolerance_is_a_positive_number(tol):
    with pytest.raises(ValueError, match="tol must be a number > 0"):
        build("LISTA").encode(signals(3, 12).reshape(3, 4, 3), tol=tol)


def test_what_float32_cannot_prove_is_said():
    model, x = build("LISTA"), signals(50, 12).reshape(50, 4, 3)
    with pytest.raises(ValueError, match=r"less than float32 codes can prove of x\["):
        model.encode(x, tol=1e-12)


ALIKE = 1 + 0.1 * np.random.default_rng(0).standard_normal((20, 12))
ALIKE /= np.linalg.norm(ALIKE, axis=1, keepdims=True)


@pytest.mark.parametrize("n_rounds", with_slow([1], [0, 3]))
def test_what_the_conjugate_gradients_leave_open_is_solved(n_rounds, monkeypatch):
    monkeypatch.setattr(proven, "_N_ROUNDS", n_rounds)
    monkeypatch.setattr(proven, "_N_CYCLES", 2)
    model, x = build("LISTA", dictionary=ALIKE, l1=1e-2), signals(30, 12)
    x = x.reshape(30, 4, 3)
    codes = model.encode(x, tol=1e-4)
    assert gaps(model, x, codes).max() <= 1e-4


@pytest.mark.parametrize("scale", with_slow([1e20], [1e-30, 1e-5]))
def test_codes_have_the_scale_of_signals_and_weight(scale):
    x = scale * signals(40, 12).reshape(40, 4, 3)
    model = build("FISTA", l1=0.05 * scale)
    assert gaps(model, x, model.encode(x, tol=1e-4)).max() <= 1e-4


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has float64 only where it is configured, PyTorch not at all",
)
class TestFloat64:
    def test_signals_of_any_magnitude_are_proven(self):
        x = 1e-290 * signals(20, 12).astype("float64").reshape(20, 4, 3)
        model = build("FISTA", l1=5e-292, dtype="float64")
        codes = model.encode(x, tol=1e-6)
        assert gaps(model, x * 1e290, codes * 1e290, l1=0.05).max() <= 1e-6

    def test_atoms_of_any_size_are_solved(self):
        dictionary = np.diag([1.0, 1.0, 1e-5, *9 * [0.5]])
        shape = {"n_atoms": 12, "dictionary": dictionary, "l1": 1e-6}
        model = build("StepLISTA", **shape, dtype="float64")
        x = np.ones((2, 4, 3))
        assert gaps(model, x, model.encode(x, tol=1e-6)).max() <= 1e-6

    def test_what_is_proven_is_what_a_file_holds(self, tmp_path):
        model, x = build("StepLFISTA", dtype="float64"), signals(30, 12)
        np.save(tmp_path / "x.npy", x.astype("float64"))
        paths = tmp_path / "x.npy", tmp_path / "s.npy"
        codes = np.load(encode_file(model, *paths, tol=1e-4).path)
        assert codes.dtype == "float32" and gaps(model, x, codes).max() <= 1e-4
        with pytest.raises(InputError, match=r"float32 codes can prove of row \d+ of"):
            encode_file(model, *paths, tol=1e-9, overwrite=True)


def test_what_is_proven_is_what_is_written():
    model, x = build("StepLFISTA"), signals(30, 12).reshape(30, 4, 3)
    out = np.empty((30, 20), "float16")
    assert gaps(model, x, model.encode(x, out=out, tol=1e-2)).max() <= 1e-2
    with pytest.raises(ValueError, match=r"less than float16 codes can prove of x\["):
        model.encode(x, out=out, tol=1e-5)


def test_a_network_that_gives_no_number_leaves_it_to_the_solver():
    model, x = build("LISTA", n_steps=2), signals(5, 12).reshape(5, 4, 3)
    weights = [1e30 * np.ones_like(w) for w in model.get_weights()[1:]]
    model.set_weights([model.get_weights()[0], *weights])
    with pytest.raises(ValueError, match=r"code of x\[0\] holds a NaN"):
        model.encode(x)
    assert gaps(model, x, model.encode(x, tol=1e-4)).max() <= 1e-4


def test_it_follows_the_dictionary_and_the_weights():
    model, x = build("LISTA"), signals(60, 12).reshape(60, 4, 3)
    model.encode(x, tol=1e-4)
    model.compile()
    model.fit(x, epochs=3, verbose=0)
    assert gaps(model, x, model.encode(x, tol=1e-4)).max() <= 1e-4


@pytest.mark.slow
def test_an_atom_that_training_made_zero_is_no_obstacle():
    model, x = build("LISTA"), signals(20, 12).reshape(20, 4, 3)
    dictionary = model.dictionary
    dictionary[3] = 0.0
    model.encoder.dictionary.assign(dictionary)
    codes = model.encode(x, tol=1e-4)
    assert gaps(model, x, codes).max() <= 1e-4


def test_batches_files_and_arrays_of_the_caller_are_as_without(tmp_path):
    model, x = build("StepLFISTA"), signals(150, 12).reshape(150, 4, 3)
    expected = model.encode(x, tol=1e-4)
    out = np.lib.format.open_memmap(tmp_path / "s.npy", "w+", "float32", (150, 20))
    assert model.encode(x, batch_size=64, out=out, tol=1e-4) is out
    np.testing.assert_allclose(out, expected, atol=0.02)
    assert gaps(model, x, out).max() <= 1e-4
    parts = model.encode((x[:70], x[70:]), tol=1e-4)
    assert gaps(model, x, parts).max() <= 1e-4


def test_a_row_that_is_not_finite_is_named():
    model, x = build("LISTA"), signals(9, 12).reshape(9, 4, 3)
    x[4, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"x\[4\]"):
        model.encode(x, tol=1e-3)


@pytest.mark.slow
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


def test_no_cycle_raises_the_objective():
    x, dictionary = signals(50, 12), unit_atoms(20, 12).astype("float32")
    step_size = np.float32(1 / np.linalg.norm(dictionary, 2) ** 2)
    codes, objectives = np.zeros((50, 20), "float32"), []
    l1 = np.full((50, 1), 0.05, "float32")
    for _ in range(15):
        residual = x - codes @ dictionary
        objectives.append(mean_objective(x, codes, dictionary, 0.05))
        squared = np.sum(residual**2, axis=1, keepdims=True)
        problem = (codes, residual @ dictionary.T, squared, l1, dictionary, step_size)
        tensors = map(keras.ops.convert_to_tensor, problem)
        found = improve(*tensors, tol=1e-9, n_cycles=1)
        codes, estimated, n_cycles = map(to_numpy, found)
        assert n_cycles == 1
    assert np.diff(objectives).max() < 1e-7
    best = feature_sign_search(x, dictionary, 0.05, np.zeros((50, 20)))
    assert objectives[-1] < (1 + 1e-5) * mean_objective(x, best, dictionary, 0.05)
    # What it goes by is the gap, but for what float32 rounds.
    exact = relative_gaps(x, codes, dictionary, 0.05)
    np.testing.assert_allclose(estimated, exact, atol=1e-5)


@pytest.mark.parametrize(
    "dtype", with_slow(["bfloat16"], ["mixed_bfloat16", "float64"])
)
def test_the_proof_is_in_float32_at_least(dtype):
    if dtype == "float64" and keras.backend.backend() != "tensorflow":
        pytest.skip("JAX has it only where it is configured, PyTorch not at all")
    model, x = build("LISTA", dtype=dtype), signals(20, 12).reshape(20, 4, 3)
    tol = 1e-10 if dtype == "float64" else 1e-4
    codes = model.encode(x, tol=tol)
    assert codes.dtype == ("float64" if dtype == "float64" else "float32")
    assert gaps(model, x, codes).max() <= tol
