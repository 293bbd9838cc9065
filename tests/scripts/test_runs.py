import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from experiments import runs as runs_module
from experiments.methods import METHODS, Method
from experiments.recipes import Recipe
from experiments.records import Store
from experiments.runs import Ceiling, Run, check_settings, diverged, run_all
from helpers import small_digits
from joblib import cpu_count

from sc2keras import evaluation

RECIPE = Recipe(n_steps=2, epochs=1, batch_size=64, jit_compile=False)


@pytest.fixture(scope="module")
def data():
    return small_digits(200)


def make_run(folder, method=METHODS["slstm-untied"], recipe=RECIPE, **options):
    options = {"name": "a", "dataset": "digits", "l1": 0.1, "n_atoms": 6} | options
    return Run(store=Store(folder / "runs"), method=method, recipe=recipe, **options)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a run that was trained and measured, without a protocol."""
    folder = tmp_path_factory.mktemp("trained")
    make_run(folder).run(data, optimum=False)
    return folder


@pytest.fixture
def made(trained, tmp_path):
    """The same run in a folder of the test's own."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return make_run(tmp_path)


def test_a_record_has_the_objective_of_the_saved_model_on_both_splits(made, data):
    record = made.store.find(made.name)
    model = keras.saving.load_model(made.model_path)
    for prefix, x in [("", data.x_test), ("train_", data.x_train)]:
        codes = model.encode(x)
        objective = evaluation.mean_objective(x, codes, model.dictionary, 0.1)
        assert record[prefix + "objective"] == pytest.approx(objective, rel=1e-5)
        nonzero = np.mean(np.abs(codes) > 1e-3)
        assert record[prefix + "nonzero"] == pytest.approx(nonzero)


def test_a_protocol_is_added_without_training_again(made, data, monkeypatch):
    first = made.store.find(made.name)
    assert "optimum" not in first and "paper" not in first
    monkeypatch.setattr(Run, "train", lambda *args: pytest.fail("trained again"))
    both = made.run(data, ["paper", "full"])
    assert both == made.store.find(made.name)
    assert both.items() >= first.items()
    assert both["optimum"] <= both["objective"]
    assert both["gap"] == pytest.approx(both["objective"] / both["optimum"] - 1)
    assert len(both["paper"]) == 10 and 0 < both["full"] <= 1


def test_a_lost_model_is_made_again_for_a_protocol_that_is_missing(made, data):
    first = made.run(data, ["paper"], optimum=False)
    made.model_path.unlink()
    again = made.run(data, ["full"], optimum=False)
    assert again["objective"] == pytest.approx(first["objective"], rel=1e-3)
    assert {"paper", "full"} <= set(again) and made.model_path.exists()


def test_other_settings_are_refused(trained):
    check_settings([make_run(trained)])
    for options in ({"l1": 0.2}, {"seed": 1}, {"recipe": replace(RECIPE, epochs=2)}):
        with pytest.raises(SystemExit, match="Choose another --output"):
            check_settings([make_run(trained, **options)])


def test_another_copy_of_the_dataset_is_refused(made, data, tmp_path):
    for run in (made, ceiling("pixels", tmp_path)):
        run.run(data, optimum=False)
        with pytest.raises(SystemExit, match="note '', but now 'JPEG' is asked for"):
            run.run(data._replace(note="JPEG"))


def test_a_solver_does_not_depend_on_the_recipe(tmp_path):
    solver = {"method": METHODS["fista"]}
    settings = make_run(tmp_path, **solver).settings
    other = make_run(tmp_path, **solver, recipe=replace(RECIPE, epochs=9)).settings
    assert settings == other and "epochs" not in settings


def test_runs_with_one_lambda_and_seed_share_the_classical_dictionary(
    tmp_path, data, monkeypatch
):
    calls = []
    learn = runs_module.sc2keras.learn_dictionary

    def counted(*args, **kwargs):
        calls.append(args[2])
        return learn(*args, **kwargs, max_iter=5)

    monkeypatch.setattr(runs_module.sc2keras, "learn_dictionary", counted)
    first = make_run(tmp_path).start(data.x_train)
    again = make_run(tmp_path, method=METHODS["lista"]).start(data.x_train)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1] > 0
    make_run(tmp_path, l1=0.2).start(data.x_train)
    make_run(tmp_path).start(data.x_train[:100])
    assert calls == [0.1, 0.2, 0.1]
    samples, seconds = make_run(tmp_path, method=METHODS["slstm"]).start(data.x_train)
    assert samples.shape == (6, 64) and seconds == 0
    assert make_run(tmp_path, method=Method("", "SC2Net", start="random")).start(
        data.x_train
    ) == (None, 0.0)


def test_a_training_that_diverged_is_not_classified(tmp_path, data, monkeypatch):
    # Far above the rate at which Adadelta's steps stay small.
    recipe = replace(RECIPE, learning_rate=1e6)
    method = replace(METHODS["slstm-untied"], start="samples")
    run = make_run(tmp_path, method, recipe)
    records = run_all({"a": run}, {"digits": data}, "", ["full"])
    assert records["a"]["diverged"] and "full" not in records["a"]
    (line,) = diverged({"a": run}, records)
    assert line.startswith(f"{run.name} diverged: its objective")
    monkeypatch.setattr(Run, "train", lambda *args: pytest.fail("trained again"))
    assert run.run(data, ["full"])["diverged"]


def test_shared_dictionaries_are_learned_before_the_runs_that_need_them(
    made, data, monkeypatch
):
    """One is made and the other is not; both start from the same dictionary."""
    calls = []
    for name in ("start", "run"):
        monkeypatch.setattr(Run, name, lambda *args, name=name: calls.append(name))
    runs = {"a": made, "b": make_run(made.store.folder.parent, name="b")}

    def started(*protocols):
        calls.clear()
        run_all(runs, {"digits": data}, "", protocols, optimum=False)
        return calls.index("run")

    assert started() == 1 and calls == ["start", "run", "run"]
    # The dictionary of what is lost is needed only for what is not measured yet.
    made.model_path.unlink()
    runs.pop("b")
    assert started() == 0
    assert started("paper") == 1


@pytest.mark.exhaustive
@pytest.mark.slow
def test_two_processes_make_the_records_of_one(tmp_path, data):
    records = []
    for jobs in (1, 2):
        runs = {
            key: make_run(tmp_path / str(jobs), METHODS[key], name=key)
            for key in ("fista-20", "slstm-untied")
        }
        found = run_all(runs, {"digits": data}, "", ["full"], optimum=False, jobs=jobs)
        assert all(found[k] == r.store.find(r.name) for k, r in runs.items())
        records.append(found)
    one, two = records
    assert list(one) == list(two) == list(runs)
    for key in runs:
        assert two[key]["settings"] == one[key]["settings"]
        for figure in ("objective", "full"):
            assert two[key][figure] == pytest.approx(one[key][figure], rel=1e-4)
    assert two["slstm-untied"]["environment"]["threads"] == max(1, cpu_count() // 2)


@pytest.mark.slow
def test_a_cascade_records_the_accuracy_of_its_own_classifier(tmp_path, data):
    method = Method("cascade", "SC2Net", kwargs={"classes": 10}, start="samples")
    run = make_run(tmp_path, method=method, recipe=replace(RECIPE, epochs=60))
    record = run.run(data, optimum=False)
    model = keras.saving.load_model(run.model_path)
    predicted = model.predict(data.x_test, verbose=0)[1].argmax(axis=1)
    assert record["head"] == pytest.approx(np.mean(predicted == data.y_test))
    assert record["head_train"] > 0.3


def ceiling(kind, folder, recipe=RECIPE):
    options = {"name": "c", "dataset": "digits", "n_atoms": 10}
    return Ceiling(store=Store(folder / "runs"), kind=kind, recipe=recipe, **options)


def test_the_raw_features_are_classified_as_they_are(tmp_path, data):
    record = ceiling("pixels", tmp_path).run(data, ["full"])
    expected = evaluation.full_accuracy(
        data.x_train.reshape(200, -1),
        data.y_train,
        data.x_test.reshape(80, -1),
        data.y_test,
    )
    assert record["full"] == expected.accuracy


@pytest.mark.slow
def test_ten_components_and_ten_trained_units_beat_chance_by_far(tmp_path, data):
    for kind in ("pca", "autoencoder"):
        trained = replace(RECIPE, epochs=60)
        record = ceiling(kind, tmp_path / kind, trained).run(data, ["full"])
        assert record["full"] > 0.6
        assert record["settings"]["n_features"] == 10
