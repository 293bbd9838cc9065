import json
import re
from pathlib import Path

from experiments import CEILINGS
from helpers import load_program

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) >= 4
    namespace = {}
    for block in blocks:
        # One epoch shows that it runs.
        exec(block.replace("epochs=20", "epochs=1"), namespace)
    assert namespace["images"].shape == namespace["x"].shape
    assert namespace["probabilities"].shape == (len(namespace["x"]), 10)


def tables_of(path):
    parts = (ROOT / "results" / path).read_text().split("\n\n")
    return [part.strip() for part in parts if part.startswith("|")]


def test_the_tables_of_the_readme_are_those_of_the_results():
    for name in ("table1", "digits", "weights"):
        for table in tables_of(f"{name}/table.md"):
            assert table in README
    for path in (ROOT / "results" / "studies").glob("*.md"):
        for table in tables_of(path.relative_to(ROOT / "results")):
            assert table in README


def test_the_benchmark_of_the_readme_is_that_of_the_results():
    tables = (ROOT / "results/benchmark/table.md").read_text().split("\n\n")[:-1]
    quoted = [t for t in tables if t.splitlines()[0] in README]
    assert len(quoted) >= 4
    assert [t for t in quoted if t not in README] == []


def test_the_pictures_of_the_readme_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    assert [p for p in pictures if not (ROOT / p).is_file()] == []


def test_the_results_come_from_the_recipes_of_the_script():
    script = load_program("scripts/reproduce_table1.py")
    args = script.parse_arguments([])
    for name in ("table1", "digits"):
        records = json.loads((ROOT / "results" / name / "results.json").read_text())
        assert records
        for record in records:
            if record["row"] in CEILINGS:
                continue
            settings = record["settings"]
            run = script.make_run(
                record["dataset"],
                record["row"],
                settings["l1"],
                settings["seed"],
                args,
                settings["validation"],
            )
            assert settings == run.settings
