import json
import re
from pathlib import Path

import numpy as np
from experiments import table1, weights
from experiments.methods import METHODS
from experiments.records import Store
from experiments.runs import check_settings, found
from experiments.studies import STUDIES
from helpers import load_program, run_python_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = run_python_of(README)
    assert namespace["images"].shape == namespace["x"].shape
    assert namespace["probabilities"].shape == (len(namespace["x"]), 10)


def tables_of(path):
    parts = (ROOT / "results" / path).read_text().split("\n\n")
    return [part.strip() for part in parts if part.startswith("|")]


def quoted(tables):
    """Those that the README quotes: each, if so, as it stands."""
    found = [table for table in tables if table.splitlines()[0] in README]
    assert [table for table in found if table not in README] == []
    return found


def test_the_tables_of_the_readme_are_those_of_the_results():
    for name in ("table1", "digits", "weights"):
        tables = tables_of(f"{name}/table.md")
        assert quoted(tables) == tables


def test_the_table_of_the_weights_is_that_of_their_cards():
    published = (ROOT / "results/weights/table.md").read_text()
    assert weights.table(ROOT / "sc2keras/weights") == published


def test_the_studies_are_quoted_as_they_stand_and_linked():
    paths = sorted((ROOT / "results/studies").glob("*.md"))
    assert {path.stem for path in paths} == set(STUDIES)
    for path in paths:
        assert f"](results/studies/{path.name})" in README
        tables = tables_of(f"studies/{path.name}")
        found = quoted(tables)
        assert found == tables or path.stem != "cascade"


def test_the_benchmark_of_the_readme_is_that_of_the_results():
    assert len(quoted(tables_of("benchmark/table.md"))) >= 4


def test_the_figures_of_the_gallery_are_those_of_the_results():
    def figures(name):
        return json.loads((ROOT / f"results/applications/{name}.json").read_text())

    gallery = " ".join(README.split("## Applications")[1].split())
    accuracies, mnist = (
        figures(name) for name in ("feature_extraction", "mnist/feature_extraction")
    )
    few, many = (
        [100 * np.mean(by_labels[n]) for by_labels in accuracies.values()]
        for n in ("100", "1149")
    )
    text = (
        "at {2:.1f} % with 100 labels, where raw pixels reach {0:.1f} % and PCA {1:.1f}"
    )
    assert text.format(*few) in gallery
    assert "1,149 labels {2:.1f}, {0:.1f} and {1:.1f} %".format(*many) in gallery
    few, many = (
        [f"{100 * np.mean(by_labels[n]):.1f} %" for by_labels in mnist.values()]
        for n in ("500", "4000")
    )
    assert "reach {2} (raw pixels {0}, PCA {1})".format(*few) in gallery
    assert f"than raw pixels do with 4,000 ({many[0]})" in gallery
    for noise, method, psnr, ssim, seconds in figures("image_denoising"):
        cell = f"{psnr:.2f}, {ssim:.3f}"
        if method != "noisy":
            cell += f", {seconds:.1f} s"
        assert f"| {cell} |" in gallery, (noise, method)
    areas = list(figures("anomaly_detection").values())
    means = [np.mean([each[method] for each in areas]) for method in areas[0]]
    for mean in means:
        assert f"{mean:.3f}" in gallery
    for accuracy, _, _ in figures("supervised_codes").values():
        assert f"{100 * accuracy:.1f} %" in gallery
    for label in ("SLSTM", "LSTM", "last row repeated"):
        assert f"{figures('sequence_coding')[label]:.3f}" in gallery


def test_the_pictures_of_the_readme_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    assert [p for p in pictures if not (ROOT / p).is_file()] == []


def options(*more):
    script = load_program("scripts/reproduce_table1.py")
    return script.parse_arguments(["--protocol", "both", *map(str, more)])


def test_the_results_come_from_the_recipes_of_the_script():
    for name, seeds, n_runs in (("table1", range(5), 398), ("digits", [0], 12)):
        args = options("--output", ROOT / "results" / name, "--seeds", *seeds)
        search = table1.search_runs(args)
        chosen = table1.choose(found(search))
        tables = [table1.table_runs(p, chosen, args) for p in args.protocols]
        runs = [*search.values(), *(run for runs in tables for run in runs.values())]
        check_settings(runs)
        made = {(r.store, r.name) for r in runs if r.store.find(r.name)}
        assert len(made) == n_runs


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
