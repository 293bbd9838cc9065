import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from experiments import recovery, recovery_report
from experiments.records import Store
from helpers import EXHAUSTIVE, load_program, with_slow

import sc2keras

TINY = recovery.Setting(20, 40, 4)
SOME = ("FISTA, best λ", "ALISTA, error-based", "least squares on the true support")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(recovery, "SETTINGS", {TINY.name: TINY})
    monkeypatch.setattr(recovery, "N_STEPS", 4)
    monkeypatch.setattr(recovery, "N_TEST", 40)
    return load_program("scripts/reproduce_recovery.py")


@pytest.mark.slow
def test_a_run_writes_records_table_and_pictures_and_goes_on(
    script, tmp_path, monkeypatch
):
    options = ["--output", str(tmp_path), "--jobs", "1", "--models", *SOME]
    assert script.main(options) == 0
    names = {path.name for path in tmp_path.iterdir()}
    # The family's table is of other settings.
    texts = {"records.jsonl", "table.md"}
    assert names == texts | {"layers.png", "shifts.png"}
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    records = {r["label"]: r for r in map(json.loads, lines)}
    assert set(records) == set(SOME)
    fista, fitted, bound = (records[label]["layers"] for label in SOME)
    assert len(fista) == len(fitted) == 4 and len(bound) == 1
    assert bound[0]["ratio"] < -100 < fitted[-1]["ratio"] < fista[-1]["ratio"] < 0
    assert records["ALISTA, error-based"]["n_parameters"] == 8
    table = (tmp_path / "table.md").read_text()
    assert all(f"| {label} | 1 |" in table for label in SOME)
    monkeypatch.setattr(recovery, "measure", None)  # Nothing is measured again.
    assert script.main(options) == 0


@pytest.mark.parametrize("snr", [None, 10.0])
def test_processes_begin_a_model_once_what_it_needs_is_there(
    script, monkeypatch, tmp_path, snr
):
    setting = replace(TINY, snr=snr)
    monkeypatch.setattr(recovery, "SETTINGS", {setting.name: setting})
    begun, made = [], [""]

    def record_of(store, name, matrix, label):
        begun.append(label)
        assert recovery.needs(name, label) in made
        made.append(label)

    monkeypatch.setattr(recovery, "record_of", record_of)
    pool = lambda jobs, *_: ThreadPoolExecutor(jobs)  # noqa: E731
    monkeypatch.setattr(script.futures, "ProcessPoolExecutor", pool)
    args = script.parse_arguments(["--output", str(tmp_path), "--jobs", "2"])
    script.make(Store(tmp_path / "records"), setting.name, 0, args)
    usual = [m for m, model in recovery.MODELS.items() if not model.only]
    assert sorted(made[1:]) == sorted(begun) == sorted(usual)


def test_a_model_of_some_settings_is_of_those_of_the_benchmark():
    for model in recovery.MODELS.values():
        assert set(model.only) <= set(recovery.SETTINGS)
    assert [m for m in recovery.MODELS if m not in recovery.models_of(TINY.name)]
    script = load_program("scripts/reproduce_recovery.py")
    everything = script.parse_arguments(["--whole"]).models
    assert everything == list(recovery.MODELS)
    assert set(script.parse_arguments([]).models) < set(everything)


@pytest.mark.parametrize(
    "label",
    with_slow(["TISTA"], [m for m in recovery.MODELS if m not in SOME], EXHAUSTIVE),
)
def test_every_model_is_measured_after_each_step(monkeypatch, tmp_path, label):
    monkeypatch.setattr(recovery, "SETTINGS", {TINY.name: TINY})
    monkeypatch.setattr(recovery, "N_STEPS", 4)
    monkeypatch.setattr(recovery, "N_TEST", 40)
    model = recovery.MODELS[label]
    few = {"ridge_of": "", "n_updates": 2}
    models = {label: replace(each, **few) for label, each in recovery.MODELS.items()}
    monkeypatch.setattr(recovery, "MODELS", models)
    monkeypatch.setattr(recovery, "_L1S", (0.1,))
    record = recovery.record_of(Store(tmp_path / "records"), TINY.name, 0, label)
    assert len(record["layers"]) == model.options.get("n_steps", 4)
    assert set(record["shifts"]) == set(recovery.SHIFTS)
    # The last step's codes are what `encode` gives.
    last, same = record["layers"][-1]["ratio"], record["shifts"]["none"]["ratio"]
    assert last == pytest.approx(same, abs=1e-2)


@pytest.mark.slow
def test_noise_gets_the_ridge_that_is_best_on_other_samples(monkeypatch, tmp_path):
    noisy = recovery.Setting(20, 40, 4, snr=10.0)
    monkeypatch.setattr(
        recovery, "SETTINGS", {each.name: each for each in (TINY, noisy)}
    )
    monkeypatch.setattr(recovery, "N_STEPS", 2)
    monkeypatch.setattr(recovery, "N_TEST", 40)
    monkeypatch.setattr(recovery, "_RIDGES", (0.0, 3.0))
    models = {m: replace(each, n_updates=1) for m, each in recovery.MODELS.items()}
    monkeypatch.setattr(recovery, "MODELS", models)
    store = Store(tmp_path / "records")
    quiet = recovery.record_of(store, TINY.name, 0, "ALISTA")
    assert quiet["options"] == {}
    # Of the first matrix, and of one model, whatever is asked for.
    asked = recovery.record_of(store, noisy.name, 1, "ALISTA")
    assert asked["options"]["ridge"] > 0
    found = store.records().values()
    found = [r for r in found if r["setting"] == noisy.name]
    assert len(found) == 4 and all(r["options"] == asked["options"] for r in found)


def test_what_starts_as_a_solver_has_the_l1_that_is_best_for_that(monkeypatch):
    monkeypatch.setattr(recovery, "_L1S", (1e-3, 0.1, 10.0))
    monkeypatch.setattr(recovery, "N_STEPS", 4)
    for label in ("ISTA, best λ", "SLISTA"):
        options = recovery.chosen_options(TINY, recovery.MODELS[label], {})
        assert options == {"l1": 0.1}


def test_a_shift_changes_what_it_names_by_as_much_as_it_says():
    atoms = TINY.dictionary(3)
    plain, *_, off = (shifted := recovery.shifted_tests(TINY, atoms, 3)).values()
    np.testing.assert_array_equal(plain.dictionary, atoms)
    moved = np.linalg.norm(off.dictionary - atoms, axis=1)
    # Of each atom, but for what is in its own direction.
    assert moved.min() > 0.005 and moved.max() < 0.02
    np.testing.assert_allclose(np.linalg.norm(off.dictionary, axis=1), 1, rtol=1e-6)
    density = {name: np.mean(data.codes != 0) for name, data in shifted.items()}
    assert density["density / 2"] < 0.7 * density["none"] < density["density × 1.5"]
    size = {name: np.abs(data.x).mean() for name, data in shifted.items()}
    assert size["amplitudes × 10"] == pytest.approx(10 * size["none"], rel=1e-5)
    assert size["amplitudes / 10"] == pytest.approx(size["none"] / 10, rel=1e-5)


def test_least_squares_knows_the_support_alone():
    data = sc2keras.datasets.sparse_recovery(20, 40, 30, snr=30.0)
    codes = recovery.least_squares(data)
    np.testing.assert_array_equal(codes != 0, data.codes != 0)
    residual = data.x - codes @ data.dictionary
    correlation = (residual @ data.dictionary.T)[data.codes != 0]
    np.testing.assert_allclose(correlation, 0, atol=1e-5)


def test_published_figures_are_of_settings_and_models_that_are_there():
    for setting, label in recovery_report.PUBLISHED:
        assert setting in recovery.SETTINGS and label in recovery.MODELS


@pytest.mark.parametrize(
    ("label", "n_parameters"),
    [
        ("ALISTA", 32),
        ("NA-ALISTA", 84_098),
        ("LISTA-CP", 16 * (125_000 + 500)),
        ("LISTA", 16 * (125_000 + 500) + 15 * 250_000),
    ],
)
def test_every_fitted_number_is_counted(monkeypatch, label, n_parameters):
    monkeypatch.setattr(sc2keras, "fit_recovery", lambda *_, **__: None)
    setting, model = recovery.Setting(), recovery.MODELS[label]
    coder = recovery.build(model, setting.dictionary(0), {})
    found = recovery.fit(coder, setting, model, 0, {})
    assert found["n_parameters"] == n_parameters


def fake(setting, label="ALISTA"):
    quality = dict.fromkeys(("ratio", "mean", "median", "failures"), -20.0)
    record = {"setting": setting, "label": label, "layers": [quality]}
    return record | {"n_parameters": 32, "fit_cpu_seconds": 4.0}


def test_noise_is_drawn_over_settings_that_differ_by_it_alone(monkeypatch, tmp_path):
    drawn = []
    for name in ("draw_layers", "draw_shifts"):
        monkeypatch.setattr(recovery_report, name, lambda *_: None)
    monkeypatch.setattr(recovery_report, "draw_noise", lambda g, _: drawn.extend(g))
    recovery_report.draw([fake(name) for name in recovery.SETTINGS], tmp_path)
    expected = ["noiseless", *(f"SNR {snr}" for snr in (40, 30, 20))]
    assert drawn == [f"250 x 500, {noise}" for noise in expected]


def test_the_family_is_that_of_the_settings_that_are_there():
    name = "250 x 500, SNR 40"
    table = recovery_report.family([fake(name), fake("256 x 512, noiseless", "LAMP")])
    (row,) = table.splitlines()[2:]
    assert row.startswith("| ALISTA | Liu") and row.endswith("| 32 | 4 |  | -20.0 |  |")
    assert recovery_report.family([fake("256 x 512, noiseless")]) == ""


@pytest.mark.parametrize("folder", ["", "missing"])
def test_tables_of_no_records_are_refused(script, tmp_path, folder):
    with pytest.raises(SystemExit, match=r"error: .*no record of a setting\. Name"):
        script.main(["--tables", "--output", str(tmp_path / folder)])
    assert not list(tmp_path.iterdir())


def test_what_is_published_of_another_model_says_so():
    for (_, label), (*_, source) in recovery_report.PUBLISHED.items():
        is_behrens = "Chen" not in source
        other = {"GLISTA": "AGLISTA", "ALISTA, error-based": "ALISTA-AT"}.get(label)
        assert not is_behrens or (other or "Behrens") in source
