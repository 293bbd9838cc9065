import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import studies
from experiments.recipes import RECIPES
from experiments.studies import (
    ablation,
    amortisation,
    cascade,
    convergence,
    dictionaries,
    gap,
    given,
    own_data,
    recipe,
    stopping,
    transfer,
    transformers,
)
from experiments.studies.study import Study
from helpers import EXHAUSTIVE, small_digits, with_slow

from sc2keras import applications

RESULTS = Path(__file__).parents[2] / "results/studies"


@pytest.fixture
def little_work(monkeypatch):
    small = small_digits(300)
    monkeypatch.setattr(studies, "load_data", lambda name, data_dir: small)
    chosen = ["the recipe", "constant learning rate", "W_d untied"]
    variations = {label: recipe.VARIATIONS[label] for label in chosen}
    monkeypatch.setattr(recipe, "VARIATIONS", variations)
    monkeypatch.setattr(gap, "GAP_L1", (0.5,))
    monkeypatch.setattr(gap, "GAP_METHODS", ("lista", "slstm-untied"))
    monkeypatch.setattr(convergence, "NETWORK_STEPS", (1, 4))
    monkeypatch.setattr(convergence, "N_CURVE_STEPS", 20)
    monkeypatch.setattr(stopping, "STOPPING_STEPS", (1, 20))
    monkeypatch.setattr(given, "N_STEPS", (1, 3))
    chosen = {"LISTA": given.NETWORKS["LISTA"]._replace(steps=(3,))}
    monkeypatch.setattr(given, "NETWORKS", chosen)
    keys, start = ("lista", "slstm-shrinkage"), "samples"
    ablated = [n for n in ablation.ABLATED if n[0] in keys and n[1] == start]
    monkeypatch.setattr(ablation, "ABLATED", ablated)
    monkeypatch.setattr(ablation, "ABLATED_RATES", {"digits": (0.3, 1.0, 3.0)})
    monkeypatch.setattr(cascade, "CASCADE_WEIGHTS", (1.0, 0.01))
    patches = {"photo-patches": lambda: small._replace(name="photo-patches")}
    monkeypatch.setattr(transfer, "OTHERS", patches)


def run(section, output, *more):
    """The records of the last runs, and the header and the rows of the table."""
    options = ["--n-atoms", "8", "--epochs", "1", "--output", str(output), *more]
    make, made = Study.make, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Study, "make", lambda *a, **k: made.append(make(*a, **k)) or made[-1]
        )
        studies.main([section, *options])
    records = list(made[-1].values())
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (output / f"{section}.md").read_text().splitlines()
        if line.startswith("|")
    ]
    return records, rows[0], rows[2:]


@pytest.mark.slow
@pytest.mark.usefixtures("little_work")
@pytest.mark.parametrize(
    "section, prefix",
    with_slow(
        [("recipe", "digits: ")], [("gap", "λ = 0.5: "), ("transfer", "")], EXHAUSTIVE
    ),
)
def test_the_table_of_a_section_holds_the_figures_of_its_records(
    section, prefix, tmp_path
):
    records, header, rows = run(section, tmp_path)
    assert len(records) == len(rows) > 2
    for record, row in zip(records, rows, strict=True):
        cells = dict(zip(header, row, strict=True))
        if "optimum" in record:
            assert cells[prefix + "objective"] == f"{record['objective']:.3f}"
            assert cells[prefix + "gap, %"] == f"{100 * record['gap']:.2f}"
        if "nonzero" in record and section != "gap":
            assert cells[prefix + "nonzero"] == f"{record['nonzero']:.2f}"
        if section != "gap":
            protocol = "full" if section == "transfer" else "paper"
            accuracy = f"{100 * np.mean(record[protocol]):.2f}"
            assert cells[prefix + "accuracy, %"] == accuracy


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.usefixtures("little_work")
def test_above_is_measured_from_the_best_dictionary_for_that_lambda(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(gap, "GAP_L1", (0.1, 0.5))
    records, header, rows = run("gap", tmp_path)
    for l1 in (0.1, 0.5):
        of_l1 = [r for r in records if r["settings"]["l1"] == l1]
        best = min(record["optimum"] for record in of_l1)
        for record, row in zip(of_l1, rows, strict=True):
            above = row[header.index(f"λ = {l1:g}: above, %")]
            assert above == f"{100 * (record['objective'] / best - 1):.2f}"


@pytest.mark.slow
@pytest.mark.usefixtures("little_work")
def test_a_network_for_a_given_dictionary_has_the_rate_that_was_best_held_out(
    tmp_path,
):
    (record,), header, rows = run("given", tmp_path)
    store = Study("given", {}, tmp_path).store.records()
    stem = "digits-LISTA-T3-held-out-{:g}-8-atoms-l1-0.1-seed0"
    held = {rate: store[stem.format(rate)]["objective"] for rate in (0.002, 0.005)}
    best = min(held, key=held.get)
    assert record["settings"]["learning_rate"] == best
    solver, network = (dict(zip(header, row, strict=True)) for row in rows)
    curve = store["digits-fista-8-atoms-l1-0.1-seed0"]
    for n in (1, 3):
        assert solver[f"{n} steps"] == f"{100 * curve['gaps'][n - 1]:.4f}"
    gap = record["objective"] / curve["optimum"] - 1
    assert network["1 steps"] == "" and network["3 steps"] == f"{100 * gap:.4f}"
    assert network["rates"] == f"{best:g}" and solver["rates"] == ""


@pytest.mark.slow
@pytest.mark.usefixtures("little_work")
def test_a_variation_changes_what_it_names_and_nothing_else(tmp_path):
    records, _, _ = run("recipe", tmp_path)
    base, constant, untied = (record["settings"] for record in records)
    assert base["validation"] and base["decay"]
    assert constant == base | {"decay": False}
    assert untied == base | {"kwargs": base["kwargs"] | {"tied": False}}


def test_a_variation_of_the_epochs_varies_those_that_are_asked_for(monkeypatch):
    made = {}
    monkeypatch.setattr(Study, "make", lambda _, runs, *a, **k: made.update(runs) or {})
    study = Study("recipe", {"digits": small_digits(300)}, Path("none"), epochs=7)
    recipe.run(study)
    assert {made["digits", label].recipe.epochs for label in recipe.VARIATIONS} == {
        7,
        2,
        14,
    }
    made.clear()
    gap.run(study)
    epochs = {stem: r.recipe.epochs for (*_, stem), r in made.items()}
    assert set(epochs.values()) == {7, 21}
    # A warm-up is never all of a training.
    short = recipe.vary(RECIPES["digits"].replace(epochs=1), {"warmup_epochs": 1})
    assert short.warmup_epochs == 0


def test_every_variation_is_another_recipe():
    base = RECIPES["mnist"]
    varied = [
        (recipe.vary(base, training), building)
        for training, building in recipe.VARIATIONS.values()
    ]
    assert all(varied.count(variation) == 1 for variation in varied)
    halved = recipe.vary(base, {"epochs": 0.5, "learning_rate": 0.5})
    assert halved.epochs == base.epochs // 2
    assert halved.learning_rate == base.learning_rate / 2


def test_a_constant_learning_rate_is_constant():
    constant = recipe.Variation(decay=False, learning_rate=0.5)
    assert constant.make_optimizer(1000).get_config()["learning_rate"] == 0.5
    falling = recipe.Variation(epochs=2, batch_size=100).make_optimizer(1000)
    assert float(falling._learning_rate(20)) == 0


def test_gate_biases_open_one_gate_and_close_the_other():
    model = applications.SC2Net(3, (8,), bias_initializer=recipe.GateBias(3.0, -3.0))
    bias = np.array(model.encoder.cell.gate_bias)
    np.testing.assert_array_equal(bias, [3, 3, 3, -3, -3, -3])


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.usefixtures("little_work")
def test_the_curves_of_the_solvers_fall_and_have_a_picture(tmp_path):
    records, header, rows = run("convergence", tmp_path)
    assert (tmp_path / "convergence.png").stat().st_size > 10_000
    assert header[2:] == ["1", "4", "20"]
    cells = {row[1]: row[2:] for row in rows}
    for label in ("ISTA", "FISTA"):
        gaps = [float(cell) for cell in cells[label]]
        assert gaps[0] > gaps[1] > gaps[2] > 0
    assert set(cells) == {"ISTA", "FISTA", *convergence.CURVES}
    fixed = [r["settings"]["kwargs"] for r in records if "gaps" not in r]
    assert len(fixed) == 8
    assert not any(kwargs["trainable_dictionary"] for kwargs in fixed)
    solvers = {r["label"]: r["gaps"] for r in records if "gaps" in r}
    assert len(solvers) == 2
    assert cells["FISTA"][-1] == f"{100 * solvers['FISTA'][19]:.4f}"


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.usefixtures("little_work")
def test_the_solver_that_is_stopped_has_the_dictionary_of_the_network(tmp_path):
    records, header, rows = run("stopping", tmp_path)
    assert header[:2] == ["codes", "digits: objective"] and len(rows) == 6
    network = "slstm-shrinkage-samples-full-rate1"
    names = [f"ablation/models/digits-{network}-l1-0.1-seed0.keras"]
    names += [
        f"stopping/models/digits-fista-T{t}-full-l1-0.1-seed0.keras" for t in (1, 20)
    ]
    first, *others = [keras.saving.load_model(tmp_path / n) for n in names]
    for other in others:
        np.testing.assert_allclose(other.dictionary, first.dictionary, atol=1e-7)
    # More steps of the same solver come closer to the optimum.
    assert records[1]["objective"] > records[2]["objective"]
    assert records[1]["settings"]["dictionary_of"] == records[0]["settings"]
    again, _, _ = run("stopping", tmp_path)
    assert again == records


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.usefixtures("little_work")
def test_the_ablation_has_each_network_at_the_rate_that_is_best_for_it(tmp_path):
    records, header, rows = run("ablation", tmp_path)
    assert len(rows) == 4 and len(records) >= 8
    settings = [record["settings"] for record in records]
    crossed = {(s["builder"], s["kwargs"]["recurrent"]) for s in settings}
    assert len(crossed) == 4
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        label, form = cells["network"].split(", from training samples, ")
        found = {
            r["settings"]["learning_rate"]: 100 * np.mean(r["paper"])
            for r in records
            if (r["label"], r["settings"]["kwargs"]["recurrent"]) == (label, form)
        }
        best = max(found, key=found.get)
        assert float(cells["rate"]) == best
        assert cells["accuracy, %"] == f"{found[best]:.2f}"


def test_the_search_for_a_rate_ends_where_both_neighbours_are_worse(
    tmp_path, monkeypatch
):
    best = {"lista": 30.0, "slstm-shrinkage": 0.3}
    tried = []

    def make(study, runs, *args, **kwargs):
        tried.append(runs)
        return {
            cell: {
                "paper": [1 / (1 + abs(np.log(cell[4] / best[cell[1]])))],
                "objective": 1.0,
                "nonzero": 0.5,
            }
            for cell in runs
        }

    monkeypatch.setattr(Study, "make", make)
    ladder = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    monkeypatch.setattr(ablation, "ABLATED_RATES", {"digits": ladder})
    networks = [(key, "samples", "full") for key in sorted(best)]
    monkeypatch.setattr(ablation, "ABLATED", networks)
    study = Study("ablation", {"digits": small_digits(300)}, tmp_path)
    text = ablation.run(study)
    rates = {key: [] for key in best}
    for _, key, _, _, rate in tried[-1]:
        rates[key].append(rate)
    assert rates["lista"] == [0.3, 1.0, 3.0, 10.0, 30.0]
    assert rates["slstm-shrinkage"] == [0.1, 0.3, 1.0, 3.0, 10.0]
    rows = [line.split(" | ") for line in text.splitlines()[2:4]]
    assert [row[2] for row in rows] == ["30", "0.3"]


@pytest.mark.slow
def test_own_data_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(own_data, "SEEDS", [3])
    name = "standardised table"
    monkeypatch.setattr(own_data, "DATA", {name: own_data.DATA[name]})
    options = ["own_data", "--epochs", "1", "--output", str(tmp_path)]
    studies.main(options)
    table = (tmp_path / "own_data.md").read_text(encoding="utf-8")
    assert [line.split(" | ")[1] for line in table.splitlines()[2:4]] == [
        *own_data.WAYS
    ]
    monkeypatch.setattr(own_data, "WAYS", dict.fromkeys(own_data.WAYS))
    studies.main(options)
    assert (tmp_path / "own_data.md").read_text(encoding="utf-8") == table


@pytest.mark.slow
def test_transformers_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers, "N_ATOMS", (5, 6))
    others = {"500 digits": lambda: small_digits(100)}
    monkeypatch.setattr(transformers, "OTHERS", others)
    study = Study("transformers", {}, tmp_path)
    table = transformers.run(study)
    rows = [line.split(" | ") for line in table.splitlines()[2:7]]
    assert [row[1] for row in rows] == [
        *transformers.WAYS,
        *list(transformers.WAYS)[:2],
    ]
    objectives = [float(row[3]) for row in rows]
    assert max(objectives[:3]) < 1.2 * min(objectives[:3])
    study = Study("transformers", {}, tmp_path, only_reads=True)
    assert transformers.run(study) == table


@pytest.mark.slow
def test_dictionaries_are_learned_once_and_measured_by_their_own_codes(
    tmp_path, monkeypatch
):
    data = small_digits(300)
    monkeypatch.setattr(dictionaries, "photo_patches", lambda: data)
    monkeypatch.setattr(dictionaries, "TIMES", {})
    ways = {
        label: (learn, (2,), counted)
        for label, (learn, amounts, counted) in dictionaries.WAYS.items()
        # The one is not always installed, the other takes its time.
        if label not in ("SPAMS", "scikit-learn, as called")
    }
    monkeypatch.setattr(dictionaries, "WAYS", ways)
    study = Study("dictionaries", {"digits": data}, tmp_path, n_atoms=8)
    table = dictionaries.run(study)
    records = list(study.store.records().values())
    assert len(records) == 2 * len(ways)
    assert [line.split(" | ")[1] for line in table.splitlines()[2:-2]] == 2 * [*ways]
    # As of patches, which are the same data here.
    objectives = {}
    for record in records:
        objectives.setdefault(record["label"], set()).add(record["objective"])
    assert all(len(found) == 1 for found in objectives.values())
    study = Study("dictionaries", {}, tmp_path, n_atoms=8, only_reads=True)
    assert dictionaries.run(study) == table


@pytest.mark.slow
def test_amortisation_is_measured_once_by_codes_of_as_many_entries(
    tmp_path, monkeypatch
):
    data = small_digits(300)
    monkeypatch.setattr(amortisation, "OTHERS", {"photo patches": lambda: data})
    cases = {("photo patches", 12): amortisation.Case(3, 1, 100)}
    monkeypatch.setattr(amortisation, "CASES", cases)
    monkeypatch.setattr(amortisation, "BATCH_SIZE", 32)
    study = Study("amortisation", {}, tmp_path)
    table = amortisation.run(study)
    speed, *records = sorted(
        study.store.records().values(), key=lambda r: r["label"] != "speed"
    )
    assert len(records) == len(amortisation.STEPS)
    assert all(r["l0"] <= 3 and 0 < r["omp_fvu"] < 1 for r in records)
    # Least squares on the support cannot be worse than the codes themselves.
    assert all(r["refit_fvu"] <= r["fvu"] + 1e-6 for r in records)
    first = [r for r in records if r["settings"]["n_steps"] == 1]
    assert all(r["frozen"]["fvu"] < r["fvu"] for r in first)
    assert (tmp_path / "amortisation.png").stat().st_size > 5_000
    cells = table.splitlines()[2].strip("| ").split(" | ")
    assert cells[:5] == ["photo patches", "12", "3", "100", "1"]
    assert cells[5] == f"{np.mean([r['fvu'] for r in first]):.3f}"
    ratios = [
        speed["seconds"][omp] / speed["seconds"]["encode"] for omp in amortisation.OMPS
    ]
    assert cells[-2:] == [f"{ratio:,.0f}" for ratio in ratios]
    study = Study("amortisation", {}, tmp_path, only_reads=True)
    assert amortisation.run(study) == table


def test_records_of_different_dictionaries_are_an_error(tmp_path):
    lines = (RESULTS / "convergence.jsonl").read_text(encoding="utf-8").splitlines()
    records = {r["name"]: r for r in map(json.loads, lines)}
    records["mnist-SC2Net-T1-l1-0.1-seed0"]["optimum"] *= 1.001
    text = "".join(json.dumps(record) + "\n" for record in records.values())
    (tmp_path / "convergence.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"optimum on mnist is .* Another --output"):
        studies.main(["convergence", "--tables", "--output", str(tmp_path)])


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.usefixtures("little_work")
def test_the_cascade_of_the_test_split_has_the_weight_that_was_chosen_held_out(
    tmp_path,
):
    records, header, rows = run("cascade", tmp_path)
    store = Study("cascade", {}, tmp_path).store.records()
    found = [store[f"digits-held-out-weight-{w}-l1-0.5-seed0"] for w in ("1", "0.01")]
    assert [r["settings"]["objective_weight"] for r in found] == [1.0, 0.01]
    assert all(r["settings"]["validation"] for r in found)
    codes, alike, supervised = records
    heads = {r["settings"]["objective_weight"]: r["head"] for r in found}
    chosen = cascade.heaviest_as_good(heads, len(small_digits(300).y_train) // 6)
    best = next(r for r in found if r["settings"]["objective_weight"] == chosen)
    assert supervised["settings"] == best["settings"] | {"validation": False}
    settings = supervised["settings"]
    assert alike["settings"] == settings | {
        "kwargs": codes["settings"]["kwargs"],
        "objective_weight": 1.0,
    }
    *_, codes_row, _, cascade_row = (
        dict(zip(header, row, strict=True)) for row in rows
    )
    assert len(rows) == len(found) + len(records)
    assert codes_row["its classifier, %"] == "" and "head" not in codes
    assert cascade_row["measured on"] == "test split"
    assert cascade_row["its classifier, %"] == f"{100 * supervised['head']:.2f}"


def test_of_weights_as_good_the_heaviest_is_taken():
    # Two standard errors of 0.9 over 100 samples are 0.06.
    accuracies = {1.0: 0.83, 0.1: 0.85, 0.01: 0.9}
    assert cascade.heaviest_as_good(accuracies, 100) == 0.1
    assert cascade.heaviest_as_good(accuracies, 10_000) == 0.01
    assert cascade.heaviest_as_good(accuracies, 10) == 1.0


def test_the_transferred_recipe_is_that_of_mnist_where_the_norm_is():
    x = np.zeros((60_000, 1), dtype="float32") + np.sqrt(80.0)
    found = transfer.transferred_recipe(x)
    assert (found.epochs, found.learning_rate) == (RECIPES["mnist"].epochs, 1.0)
    dense = transfer.transferred_recipe(np.full((500, 1), 29.0))
    assert dense.learning_rate == pytest.approx(0.1, abs=0.01)
    assert dense.epochs * 2 == pytest.approx(20 * 235, abs=2)


def test_the_other_data_are_floats_of_either_sign():
    for load in (transfer.breast_cancer, transfer.photo_patches):
        other = load()
        assert other.x_train.dtype == other.x_test.dtype == np.float32
        assert len(other.x_train) == len(other.y_train)
        assert len(other.x_test) == len(other.y_test)
        assert other.x_train.min() < 0 < other.x_train.max()
        assert set(other.y_train) == {0, 1}


def test_no_pixel_of_a_photograph_is_in_both_splits(monkeypatch):
    # Column c is c² bright: the step from one to the next, 2c + 1, tells which it is.
    columns = np.arange(100) ** 2
    image = np.broadcast_to(columns[:, None], (60, 100, 3))
    photographs = SimpleNamespace(images=[image, image])
    monkeypatch.setattr(transfer, "load_sample_images", lambda: photographs)
    other = transfer.photo_patches()

    def first_columns(x):
        return np.round((255 * (x[:, 0, 1, 0] - x[:, 0, 0, 0]) - 1) / 2).astype(int)

    train, test = first_columns(other.x_train), first_columns(other.x_test)
    assert (train.min(), train.max() + 7) == (0, 79)
    assert (test.min(), test.max() + 7) == (80, 99)


def test_an_unknown_section_is_named(capsys):
    with pytest.raises(SystemExit):
        studies.main(["colour"])
    assert "'colour' is not one of recipe, gap" in capsys.readouterr().err


def test_the_tables_that_are_published_come_from_their_records(tmp_path):
    for path in RESULTS.glob("*.jsonl"):
        shutil.copy(path, tmp_path)
    studies.main(["--tables", "--output", str(tmp_path)])
    paths = sorted(RESULTS.glob("*.md"))
    assert {path.stem for path in paths} == set(studies.STUDIES)
    for path in paths:
        made = (tmp_path / path.name).read_text(encoding="utf-8")
        assert made == path.read_text(encoding="utf-8")
    assert (tmp_path / "convergence.png").stat().st_size > 10_000


@pytest.mark.parametrize("section", studies.STUDIES)
def test_rows_without_records_do_not_break_a_table(section, tmp_path):
    lines = (RESULTS / f"{section}.jsonl").read_text(encoding="utf-8").splitlines()
    text = "".join(f"{line}\n" for line in lines[::3])
    (tmp_path / f"{section}.jsonl").write_text(text, encoding="utf-8")
    studies.main([section, "--tables", "--output", str(tmp_path)])
    header = (RESULTS / f"{section}.md").read_text(encoding="utf-8").split("\n")[0]
    made = (tmp_path / f"{section}.md").read_text(encoding="utf-8").splitlines()
    assert made[0].count("|") == header.count("|") and len(made) > 4


def test_tables_without_records_are_an_error(tmp_path):
    with pytest.raises(SystemExit, match=r"gap.jsonl is not there"):
        studies.main(["gap", "--tables", "--output", str(tmp_path)])


def test_other_datasets_keep_their_rows(tmp_path):
    shutil.copy(RESULTS / "recipe.jsonl", tmp_path)
    study = Study("recipe", {"digits": small_digits(300)}, tmp_path)
    assert study.datasets == ["digits", "mnist", "cifar10"]
