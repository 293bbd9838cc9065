import json
from pathlib import Path

import keras
import numpy as np
import pytest
from experiments.benchmarks import profile
from helpers import load_program

RESULTS = Path(__file__).parents[2] / "results/fit"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(profile, "CASES", {"digits": ("digits", 6, 32, 64)})
    monkeypatch.setattr(profile, "STEPS", (3,))
    return load_program("scripts/profile_fit.py")


@pytest.mark.slow
def test_a_run_times_every_part_once_and_writes_a_row(script, tmp_path, monkeypatch):
    options = ["--repeats", "1", "--output", str(tmp_path)]
    assert script.main(options) == 0
    backend = keras.backend.backend()
    results = json.loads((tmp_path / f"{backend}.json").read_text())
    record = results["digits, 3 steps"]
    assert set(record) == set(profile.PARTS)
    assert min(min(times) for times in record.values()) > 0
    fail = dict.fromkeys(results, lambda: pytest.fail("it was measured before"))
    monkeypatch.setattr(profile, "cases", lambda *args: fail)
    assert script.main(options) == 0
    row = f"| {backend} | digits, 3 steps | {np.median(record['products']):.2f} |"
    assert row in (tmp_path / "table.md").read_text()


def test_every_backend_has_a_row_and_its_ratios(script):
    parts = {part: [2.0, 4.0, 3.0] for part in profile.PARTS}
    environment = {"backend_version": "1.0", "cpu": "a processor"}
    found = [
        {
            "settings": {"repeats": 3},
            "environment": {"backend": backend, **environment},
            "seconds": {"a case": 1},
            "a case": parts | {"loop": [6.0]},
        }
        for backend in ("jax", "torch")
    ]
    table = script.table(found)
    for backend in ("jax", "torch"):
        assert f"| {backend} | a case | 3.00 |" in table
        assert f"{backend} 1.0" in table
    assert table.count("| 2.00 | 1.00 |") == 2


def test_the_published_table_is_that_of_the_records():
    script = load_program("scripts/profile_fit.py")
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    backends = {results["environment"]["backend"] for results in found}
    assert backends == {"jax", "tensorflow", "torch"}
    published = (RESULTS / "table.md").read_text()
    assert script.table(found).strip() == published.strip()
