import json
import re
from pathlib import Path

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


def test_the_table_of_the_readme_is_that_of_the_results():
    for name in ("table1", "digits"):
        table = (ROOT / "results" / name / "table.md").read_text()
        assert table.split("\n\n")[0] in README


def test_the_benchmark_of_the_readme_is_that_of_the_results():
    tables = (ROOT / "results/benchmark/table.md").read_text().split("\n\n")[:-1]
    quoted = [t for t in tables if t.splitlines()[0] in README]
    assert len(quoted) >= 4
    assert [t for t in quoted if t not in README] == []


def test_the_pictures_of_the_readme_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    assert [p for p in pictures if not (ROOT / p).is_file()] == []


def test_the_results_come_from_the_recipe_of_the_script():
    script = load_program("scripts/reproduce_table1.py")
    for name in ("table1", "digits"):
        records = json.loads((ROOT / "results" / name / "results.json").read_text())
        for record in records:
            args = script.parse_arguments([])
            job = script.Job(record["dataset"], record["method"], record["seed"], args)
            assert record["settings"] == job.settings
