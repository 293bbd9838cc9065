import json

import pytest
from helpers import load_program

from sc2keras import datasets


@pytest.fixture(scope="module")
def script():
    return load_program("scripts/reproduce_table1.py")


def use_few_digits(monkeypatch):
    """Cuts the digits down, so that a run takes seconds."""
    data = datasets.load("digits")
    small = data._replace(
        x_train=data.x_train[:200],
        y_train=data.y_train[:200],
        x_test=data.x_test[:80],
        y_test=data.y_test[:80],
    )
    load = datasets.load

    def load_small(name, data_dir=None):
        return small if name == "digits" else load(name, data_dir, download=False)

    monkeypatch.setattr(datasets, "load", load_small)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    use_few_digits(monkeypatch)


def arguments(output, *more):
    settings = ["--n-atoms", "8", "--epochs", "1", "--output", str(output)]
    return ["--methods", "fista-20", "slstm-shrinkage", *settings, *more]


@pytest.fixture(scope="module")
def finished(script, tmp_path_factory):
    output = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        use_few_digits(patch)
        script.main(arguments(output, "--protocol", "both"))
    return output


def test_a_run_writes_models_records_table_and_pictures(finished):
    written = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()}
    assert {
        "models/digits-fista-20-seed0.keras",
        "models/digits-slstm-shrinkage-seed0.keras",
        "runs/digits-fista-20-seed0.json",
        "runs/digits-slstm-shrinkage-seed0.json",
        "results.json",
        "table.md",
        "digits-atoms.png",
        "digits-reconstructions.png",
        "digits-convergence.png",
    } <= written
    assert not [name for name in written if "unfinished" in name]


def test_the_table_holds_the_figures_of_the_records(finished):
    records = json.loads((finished / "results.json").read_text())
    lines = (finished / "table.md").read_text().splitlines()
    for record, line in zip(records, lines[2:4], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        mean = 100 * sum(record["paper"]) / len(record["paper"])
        assert cells[0] == "digits" and cells[1] == record["label"]
        assert cells[3].startswith(f"{mean:.2f} ±")
        assert cells[4] == f"{100 * record['full']:.2f}"
        assert cells[5] == f"{record['objective']:.3f}"
        assert cells[8] == f"{record['nonzero']:.2f}"


def test_a_record_names_its_settings_and_its_machine(finished):
    path = finished / "runs" / "digits-slstm-shrinkage-seed0.json"
    record = json.loads(path.read_text())
    assert record["settings"]["epochs"] == 1 and record["seed"] == 0
    assert len(record["loss"]) == 1 and len(record["paper"]) == 10
    assert record["environment"]["keras"] and record["environment"]["cpu"]
    assert record["gap"] == pytest.approx(record["objective"] / record["optimum"] - 1)


def test_nothing_that_is_finished_is_computed_again(script, finished, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(script.Job, "train", fail)
    monkeypatch.setattr(script.evaluation, "paper_accuracy", fail)
    before = (finished / "table.md").read_text()
    script.main(arguments(finished, "--protocol", "both"))
    assert (finished / "table.md").read_text() == before


def test_an_interrupted_run_goes_on_where_it_was(script, tmp_path, monkeypatch):
    train, trained = script.Job.train, []

    def interrupted(job, data):
        if job.key == "slstm-shrinkage" and not trained.count("slstm-shrinkage"):
            trained.append(job.key)
            raise KeyboardInterrupt
        trained.append(job.key)
        return train(job, data)

    monkeypatch.setattr(script.Job, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.main(arguments(tmp_path))
    assert not (tmp_path / "table.md").exists()
    script.main(arguments(tmp_path))
    assert trained == ["fista-20", "slstm-shrinkage", "slstm-shrinkage"]
    assert (tmp_path / "table.md").exists()


def test_other_settings_in_the_same_folder_are_an_error_before_any_work(
    script, finished, monkeypatch
):
    monkeypatch.setattr(script.Job, "run", lambda *args: pytest.fail("worked"))
    with pytest.raises(SystemExit, match=r"'l1': 0.2.*another --output"):
        script.main(arguments(finished, "--l1", "0.2"))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--datasets", "svhn", "invalid choice: 'svhn'"),
        ("--methods", "omp", "invalid choice: 'omp'"),
        ("--n-atoms", "0", "0 is not an integer >= 1"),
        ("--l1", "-1", "-1.0 is not a number > 0"),
    ],
)
def test_bad_options_name_the_value(script, capsys, option, value, message):
    with pytest.raises(SystemExit):
        script.main([f"{option}={value}"])
    assert message in capsys.readouterr().err


def test_a_dataset_that_is_not_there_is_an_error_with_two_ways_out(script, tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)mnist.*--data-dir.*--datasets digits"):
        script.main(["--datasets", "mnist", "--data-dir", str(tmp_path)])


def test_held_out_images_come_from_the_training_split(script):
    args = script.parse_arguments(["--validation"])
    held = script.load_data("digits", args)
    full = datasets.load("digits")
    assert len(held.x_train) + len(held.x_test) == len(full.x_train)
    assert (held.x_test == full.x_train[len(held.x_train) :]).all()
