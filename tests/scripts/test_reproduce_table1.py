import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from experiments import runs, table1
from experiments.records import Store
from helpers import load_program, small_digits
from scipy import stats

from sc2keras import datasets


@pytest.fixture(scope="module")
def script():
    return load_program("scripts/reproduce_table1.py")


def use_few_digits(monkeypatch):
    """Cuts the digits down, so that a run takes seconds."""
    small = small_digits(200)
    load = datasets.load

    def load_small(name, data_dir=None):
        return small if name == "digits" else load(name, data_dir, download=False)

    monkeypatch.setattr(datasets, "load", load_small)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    use_few_digits(monkeypatch)


def arguments(output, *more):
    settings = ["--n-atoms", "8", "--epochs", "1", "--output", str(output)]
    grid = ["--l1-grid", "0.1", "0.5"]
    methods = ["fista-20", "slstm-untied"]
    return ["--methods", *methods, *settings, *grid, *more]


BOTH = ("--protocol", "both", "--seeds", "0", "1")


def make_up(run, record, data, protocols, optimum):
    """A record in no time: its figures come from its name, and no two are alike."""
    rng = np.random.default_rng(zlib.crc32(run.name.encode()))
    low, high = sorted(1 + rng.random(2))
    codes = {"optimum": low, "objective": high, "gap": high / low - 1}
    names = ("train_objective", "train_nonzero", "nonzero")
    codes |= dict(zip(names, rng.random(3), strict=True))
    accuracies = {"paper": rng.random(10).tolist(), "full": rng.random()}
    found = {name: accuracies[name] for name in protocols}
    if "full" in protocols:
        found["full_train"] = rng.random()
    return run.new_record(data, **found, **(codes if isinstance(run, runs.Run) else {}))


@pytest.fixture(scope="module")
def finished(script, tmp_path_factory):
    output = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        use_few_digits(patch)
        for made in (runs.Run, runs.Ceiling):
            patch.setattr(made, "complete", make_up)
            patch.setattr(made, "needs_start", lambda *args: False)
        script.main(arguments(output, *BOTH))
    return output


def results_of(script, finished, table):
    """The records of a table, `[(row, record)]`."""
    args = script.parse_arguments(arguments(finished, *BOTH))
    search = table1.search_runs(args)
    if table != "choice of λ":
        chosen = table1.choose(runs.found(search))
        search = table1.table_runs(table, chosen, args)
    return [(key, record) for (_, key, _), record in runs.found(search).items()]


def cells_of(finished, table, label):
    """The cells of a row, by column."""
    text = (finished / "table.md").read_text().split("| dataset ")[1 + table]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    header = ["dataset", *lines[0][:]] if lines[0][0] != "dataset" else lines[0]
    row = next(line for line in lines if line[1] == label)
    return dict(zip(header, row, strict=True))


@pytest.mark.slow
def test_a_run_writes_models_records_tables_and_pictures(script, tmp_path):
    script.main(arguments(tmp_path, *BOTH))
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert {
        "runs/models/digits-fista-20-l1-0.1-seed0.keras",
        "runs.jsonl",
        "holdout.jsonl",
        "table.md",
        "digits-atoms.png",
        "digits-reconstructions.png",
        "accuracy-nonzero.png",
    } <= written
    assert not [name for name in written if "unfinished" in name]
    assert "nan" not in (tmp_path / "table.md").read_text().split("nan: training")[0]
    record = Store(tmp_path / "runs").find("digits-slstm-untied-l1-0.1-seed0")
    assert record["settings"]["epochs"] == 1 and record["settings"]["seed"] == 0
    assert len(record["loss"]) == 1 and len(record["paper"]) == 10
    assert record["environment"]["keras"] and record["environment"]["cpu"]
    assert record["gap"] == pytest.approx(record["objective"] / record["optimum"] - 1)


def test_every_run_has_a_record_and_deterministic_features_have_one(finished):
    names = Store(finished / "runs").records().keys()
    assert {"digits-slstm-untied-l1-0.1-seed1", "digits-pixels-seed0"} <= names
    assert "digits-autoencoder-seed1" in names and "digits-pixels-seed1" not in names
    held = Store(finished / "holdout").records()
    assert "digits-slstm-untied-l1-0.5-seed0" in held


def test_the_tables_hold_the_figures_of_the_records(script, finished):
    for number, protocol in enumerate(("paper", "full")):
        for key in ("fista-20", "slstm-untied"):
            found = results_of(script, finished, protocol)
            records = [record for row, record in found if row == key]
            assert [r["settings"]["seed"] for r in records] == [0, 1]
            cells = cells_of(finished, number, records[0]["label"])
            values = [100 * np.mean(record[protocol]) for record in records]
            mean, deviation = np.mean(values), np.std(values, ddof=1)
            assert cells["accuracy, %"] == f"{mean:.2f} ± {deviation:.2f}"
            for name in ("objective", "optimum"):
                expected = np.mean([record[name] for record in records])
                assert cells[name] == f"{expected:.3f}"
            gap = np.mean([record["gap"] for record in records])
            assert cells["gap, %"] == f"{100 * gap:.2f}"


def test_above_the_best_is_measured_from_the_lowest_optimum_of_its_lambda(
    script, finished
):
    for number, table in enumerate(("paper", "full")):
        groups = {}
        for _, record in results_of(script, finished, table):
            if "optimum" in record:
                l1 = record["settings"]["l1"]
                groups.setdefault((l1, record["label"]), []).append(record)
        means = {
            key: [
                np.mean([r[name] for r in group]) for name in ("objective", "optimum")
            ]
            for key, group in groups.items()
        }
        for (l1, label), (objective, _) in means.items():
            optima = [
                optimum for (other, _), (_, optimum) in means.items() if other == l1
            ]
            expected = f"{100 * (objective / min(optima) - 1):.2f}"
            cells = cells_of(finished, number, label)
            assert cells["above the best, %"] == expected * (len(optima) > 1)


def test_one_dictionary_alone_is_not_the_best():
    def group(*optima):
        return {
            i: {"optimum": o, "settings": {"l1": 0.1}} for i, o in enumerate(optima)
        }

    both = {"ista": group(2.0, 3.0), "fista": group(2.0, 3.0 + 1e-9)}
    assert table1.best_optima(both) == {}
    best = table1.best_optima(both | {"lista": group(2.0, 2.5)})
    assert best == {0.1: pytest.approx(2.25)}


def test_the_rate_of_a_row_is_that_of_the_papers_protocol_alone(script):
    args = script.parse_arguments([])
    rate = table1.PAPER_RATES["lista"]["mnist"]
    paper, full = (
        table1.make_run("mnist", "lista", 0.1, 0, args, protocol)
        for protocol in ("paper", "full")
    )
    assert paper.recipe.learning_rate == rate != full.recipe.learning_rate
    assert f"rate{rate:g}" in paper.name and "rate" not in full.name
    held = table1.search_runs(script.parse_arguments(["--protocol", "full"]))
    assert all("rate" not in run.name for run in held.values())


@pytest.mark.slow
def test_a_row_that_diverged_is_nan_and_the_program_fails_in_the_end(
    script, tmp_path, monkeypatch
):
    monkeypatch.setattr(table1, "PAPER_RATES", {"slstm-untied": {"digits": 1e6}})
    with pytest.raises(SystemExit, match=r"slstm-untied-rate1e\+06.* diverged"):
        script.main(arguments(tmp_path))
    cells = cells_of(tmp_path, 0, "SLSTM, classical start, untied")
    assert cells["accuracy, %"] == cells["gap, %"] == "nan"
    assert "nan" not in cells_of(tmp_path, 0, "FISTA, 20 steps").values()


def test_a_lambda_that_diverges_is_not_chosen():
    found = {
        ("digits", "lista", 0.1): {"full": 0.8},
        ("digits", "lista", 0.5): {"diverged": True},
        ("digits", "lista", 1.0): {"full": 0.9},
    }
    assert table1.choose(found) == {("digits", "lista"): 1.0}


def test_the_last_table_compares_the_training_split_with_the_test_split(
    script, finished
):
    found = results_of(script, finished, "full")
    records = [record for row, record in found if row == "slstm-untied"]
    text = (finished / "table.md").read_text()
    row = [line for line in text.splitlines() if records[0]["label"] in line][-1]
    figures = [cell.strip() for cell in row.strip("|").split("|")][2:]
    expected = [
        np.mean([record[name] for record in records])
        for name in ("train_objective", "objective", "train_nonzero", "nonzero")
    ]
    assert figures[:4] == [f"{value:.3f}" for value in expected]
    expected = [np.mean([r[name] for r in records]) for name in ("full_train", "full")]
    assert figures[4:] == [f"{100 * value:.2f}" for value in expected]


def test_differences_are_paired_by_seed_and_have_an_interval(script, finished):
    records = results_of(script, finished, "full")
    by_row = {
        key: [100 * record["full"] for row, record in records if row == key]
        for key in ("slstm-untied", "fista-20", "pixels")
    }
    reference = np.array(by_row["slstm-untied"])
    for key, label in [("fista-20", "FISTA, 20 steps"), ("pixels", "raw features")]:
        cells = cells_of(finished, 1, label)
        found = next(v for k, v in cells.items() if k.endswith("− row"))
        differences = reference - np.array(by_row[key])
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
        assert found == f"{(low + high) / 2:+.2f} ± {(high - low) / 2:.2f}"


def test_lambda_is_chosen_by_accuracy_on_samples_of_the_training_split(
    script, finished
):
    search = results_of(script, finished, "choice of λ")
    assert all(record["settings"]["validation"] for _, record in search)
    for key in ("fista-20", "slstm-untied"):
        tried = [record for row, record in search if row == key]
        assert {r["settings"]["l1"] for r in tried} == {0.1, 0.5}
        best = max(r["full"] for r in tried)
        found = results_of(script, finished, "full")
        chosen = [record for row, record in found if row == key]
        (l1,) = {r["settings"]["l1"] for r in chosen}
        assert best == next(r["full"] for r in tried if r["settings"]["l1"] == l1)


def test_nothing_that_is_finished_is_computed_again(script, finished, monkeypatch):
    for made in (runs.Run, runs.Ceiling):
        monkeypatch.setattr(made, "complete", lambda *_: pytest.fail("computed again"))
    before = (finished / "table.md").read_text()
    script.main(arguments(finished, *BOTH))
    assert (finished / "table.md").read_text() == before


def test_the_tables_are_made_of_records_where_the_models_are_absent(
    script, finished, tmp_path, capsys
):
    for path in finished.glob("*.*"):
        shutil.copy(path, tmp_path)
    before = (tmp_path / "table.md").read_text()
    script.main(arguments(tmp_path, *BOTH))
    assert (tmp_path / "table.md").read_text() == before
    assert "no new pictures of digits" in capsys.readouterr().out


RESULTS = Path(__file__).parents[2] / "results"
FIVE_SEEDS = ("--datasets", "mnist", "cifar10", "--seeds", *"01234")


def test_the_tables_that_are_published_come_from_their_records(script, tmp_path):
    for path in (RESULTS / "table1").glob("*.jsonl"):
        shutil.copy(path, tmp_path)
    options = [*FIVE_SEEDS, "--protocol", "both", "--tables"]
    script.main([*options, "--output", str(tmp_path)])
    published = (RESULTS / "table1/table.md").read_text(encoding="utf-8")
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == published


def test_rows_without_records_are_left_out_and_records_without_rows_too(
    script, tmp_path
):
    for path in (RESULTS / "table1").glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if "-lfista-" not in line]
        # The reference of the first table, on one of the datasets and with one seed.
        kept = [line for line in kept if "mnist-slstm-factored" not in line]
        gone = lines[0].replace("adaptive-ista", "forgotten")
        text = "".join([*kept, gone])
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    options = [*FIVE_SEEDS, "--protocol", "both", "--tables"]
    script.main([*options, "--output", str(tmp_path)])
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    published = (RESULTS / "table1/table.md").read_text(encoding="utf-8")
    assert "LFISTA" not in text and "forgotten" not in text
    row = next(line for line in text.splitlines() if "| cifar10 " in line)
    assert row in published
    row = next(line for line in text.splitlines() if "| mnist | LISTA |" in line)
    assert row.split(" | ")[5] == ""


def test_tables_without_records_are_an_error_and_replace_nothing(script, tmp_path):
    (tmp_path / "table.md").write_text("as it was")
    with pytest.raises(SystemExit, match=r"runs.jsonl holds none of these runs"):
        script.main(arguments(tmp_path, "--tables"))
    assert (tmp_path / "table.md").read_text() == "as it was"


def test_a_dataset_that_is_not_asked_for_keeps_its_rows(script, finished, tmp_path):
    shutil.copy(finished / "runs.jsonl", tmp_path)
    args = script.parse_arguments(["--datasets", "mnist", "--output", str(tmp_path)])
    assert table1.names(args) == ["digits", "mnist"]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_was(script, tmp_path, monkeypatch):
    train, trained = runs.Run.train, []

    def interrupted(run, data):
        key = run.name.split("-l1-")[0]
        trained.append(key)
        if trained.count("digits-slstm-shrinkage") == 1:
            raise KeyboardInterrupt
        return train(run, data)

    monkeypatch.setattr(runs.Run, "train", interrupted)
    only = ("--methods", "fista-20", "slstm-shrinkage")
    with pytest.raises(KeyboardInterrupt):
        script.main(arguments(tmp_path, *only))
    assert not (tmp_path / "table.md").exists()
    script.main(arguments(tmp_path, *only))
    shrinkage = "digits-slstm-shrinkage"
    assert trained == ["digits-fista-20", shrinkage, shrinkage]
    assert (tmp_path / "table.md").exists()


def test_other_settings_in_the_same_folder_are_an_error_before_any_work(
    script, finished, monkeypatch
):
    monkeypatch.setattr(runs.Run, "run", lambda *args: pytest.fail("worked"))
    with pytest.raises(SystemExit, match=r"'n_atoms': 9.*another --output"):
        script.main(arguments(finished, "--n-atoms", "9"))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--datasets", "svhn", "invalid choice: 'svhn'"),
        ("--methods", "omp", "invalid choice: 'omp'"),
        ("--n-atoms", "0", "0 is not an integer >= 1"),
        ("--l1-grid", "-1", "-1.0 is not a number > 0"),
    ],
)
def test_bad_options_name_the_value(script, capsys, option, value, message):
    with pytest.raises(SystemExit):
        script.main([f"{option}={value}"])
    assert message in capsys.readouterr().err


def test_a_dataset_that_is_not_there_is_an_error_with_two_ways_out(script, tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)mnist.*--data-dir.*--datasets digits"):
        script.main(["--datasets", "mnist", "--data-dir", str(tmp_path)])
