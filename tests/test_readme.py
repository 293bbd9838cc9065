"""README: its Python runs, its figures are those of the results, its links lead on."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from experiments import table1, weights
from experiments.methods import METHODS
from experiments.records import Store
from experiments.runs import check_settings, found
from experiments.studies import STUDIES
from helpers import ENTRIES, load_program, run_python_of

from sc2keras.evaluation import code_quality

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "results"
PAPER = ("dataset", "method", "the paper, %", "accuracy, %")
FULL = ("dataset", "method", "λ", "accuracy, %")
TRANSFORMERS = ("data", "transformer", "atoms", "objective", "fit, s")
FAMILY = ("model", "fitted numbers", "noiseless, dB", "fit, s")
SPEED = ("encoding", "codes/s, λ = 0.1", "gap, %", "codes/s, λ = 1")


def test_it_is_read_in_a_minute():
    assert len(README.splitlines()) <= 160
    assert len(README.encode()) <= 8000


def test_its_python_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = run_python_of(README)
    assert namespace["images"].shape == namespace["x"].shape


@pytest.mark.slow
def test_its_three_lines_give_sparse_codes_near_the_optimum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(README.split("```python\n")[1].split("```")[0], namespace)
    quality = code_quality(*(namespace[name] for name in ("model", "x", "codes")))
    assert quality.gap <= 0.12 and quality.nonzero <= 0.35


def test_its_methods_are_those_of_the_registry():
    table = README.split("## Methods")[1].split("##")[0]
    cells = [line.split("|")[1:3] for line in table.splitlines() if "|" in line]
    for entry in ENTRIES:
        (layers,) = (of for names, of in cells if f"`{entry.name}`" in names)
        follows = entry.layer.__name__ == f"{entry.name}Block" and "`…Block`" in layers
        assert follows or f"`{entry.layer.__name__}`" in layers


def test_its_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)", README)
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


def rows(name, columns):
    """The rows of a published table, cells by the first column of a name."""
    for part in (RESULTS / name).read_text().split("\n\n"):
        lines = [
            [c.strip() for c in s.strip("|").split("|")] for s in part.splitlines()
        ]
        if part.startswith("|") and set(columns) <= set(lines[0]):
            return [{c: row[lines[0].index(c)] for c in columns} for row in lines[2:]]
    raise AssertionError(f"{name} has no table with {columns}")


def test_its_figures_are_those_of_the_results():
    figures = " ".join(README.split("## Figures")[1].split("##")[0].split())
    for dataset in ("mnist", "cifar10 (JPEG copy)"):
        of_paper = {
            row["method"]: row
            for row in rows("table1/table.md", PAPER)
            if row["dataset"] == dataset
        }
        best = of_paper["SLSTM, factored"]
        assert f"SLSTM, factored: {best['accuracy, %']} %" in figures
        solvers = [of_paper[m] for m in ("ISTA, 20 steps", "FISTA, 20 steps")]
        solvers.append(of_paper["LASSO, converged"])
        solver = max(float(row["accuracy, %"].split()[0]) for row in solvers)
        assert f"| {solver:.2f} % best solver; {best['the paper, %']} %" in figures
    full = {
        r["method"]: r for r in rows("table1/table.md", FULL) if r["dataset"] == "mnist"
    }
    accuracy = {method: row["accuracy, %"] for method, row in full.items()}
    assert f"SLSTM, factored: {accuracy['SLSTM, factored']} %" in figures
    lasso, raw = accuracy["LASSO, converged"].split()[0], accuracy["raw features"]
    assert f"| {lasso} % LASSO; {raw} % raw pixels" in figures
    # For a given dictionary, which is the first of two rows of the same name.
    speed = {r["encoding"]: r for r in reversed(rows("benchmark/table.md", SPEED))}
    network = speed["StepLFISTA, 5 steps"]
    proven = speed["StepLFISTA, 10 steps, proven to 0.0001"]
    rate, sparse = SPEED[1], SPEED[3]
    assert f"StepLFISTA, 5 steps: {network[rate]}, {network['gap, %']} %" in figures
    peers = speed["SPAMS lasso"], speed["scikit-learn lasso_cd"]
    assert "| {} SPAMS; {} scikit-learn".format(*(p[rate] for p in peers)) in figures
    text = f"StepLFISTA, 10 steps: {proven[sparse]} codes a second | "
    assert text + f"{peers[0][sparse]} SPAMS" in figures
    online = {
        row["transformer"]: row
        for row in rows("studies/transformers.md", TRANSFORMERS)
        if (row["data"], row["atoms"]) == ("digits", "100")
    }
    for name, row in online.items():
        seconds = f"{float(row['fit, s']):.0f} s"
        text = f"`{name}`: {row['objective']}, {seconds}"
        assert text in figures or f"{row['objective']}, {seconds} `{name}`" in figures
    areas = json.loads((RESULTS / "applications/anomaly_detection.json").read_text())
    means = [
        np.mean([each[method] for each in areas.values()])
        for method in next(iter(areas.values()))
    ]
    text = "SC2Net: {:.3f} | {:.3f} PCA; {:.3f} Isolation Forest"
    assert text.format(*means) in figures


def test_its_models_of_recovery_have_the_figures_of_the_results():
    table = README.split("| model | fitted numbers")[1].split("\n\n")[0]
    errors = {r["model"]: r for r in rows("recovery/family.md", FAMILY)}
    for line in table.splitlines()[2:]:
        model, *figures = (cell.strip() for cell in line.split("|")[1:-1])
        row = errors[model.split(" (")[0]]
        assert figures == [row[name] for name in FAMILY[1:]]


def test_the_table_of_the_weights_is_that_of_their_cards():
    published = (ROOT / "results/weights/table.md").read_text()
    assert weights.table(ROOT / "sc2keras/weights") == published


def test_every_study_has_a_table():
    paths = (RESULTS / "studies").glob("*.md")
    assert {path.stem for path in paths} == set(STUDIES)


def options(*more):
    script = load_program("scripts/reproduce_table1.py")
    return script.parse_arguments(["--protocol", "both", *map(str, more)])


def test_the_results_come_from_the_recipes_of_the_script():
    args = options("--output", ROOT / "results/table1", "--seeds", *range(5))
    search = table1.search_runs(args)
    chosen = table1.choose(found(search))
    tables = [table1.table_runs(p, chosen, args) for p in args.protocols]
    runs = [*search.values(), *(run for runs in tables for run in runs.values())]
    check_settings(runs)
    made = {(r.store, r.name) for r in runs if r.store.find(r.name)}
    assert len(made) == 398


def test_the_rates_of_the_papers_protocol_are_those_that_the_ablation_found():
    args = options()
    records = Store(ROOT / "results/studies/ablation").records().values()
    for dataset in ("mnist", "cifar10"):
        for key, method in METHODS.items():
            accuracies = {
                record["settings"]["learning_rate"]: np.mean(record["paper"])
                for record in records
                if record["dataset"] == dataset
                and record["settings"]["builder"] == method.builder
                and record["settings"]["start"] == method.start
                and record["settings"]["kwargs"]
                == {"recurrent": "full"} | method.kwargs
                and "paper" in record
            }
            run = table1.make_run(dataset, key, table1.PAPER_L1, 0, args, "paper")
            if run.trained and (dataset, key) != ("cifar10", "lista-untied"):
                best = max(accuracies, key=accuracies.get)
                assert run.recipe.learning_rate == best, (dataset, key)
