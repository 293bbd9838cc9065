import json
from pathlib import Path

import keras
import pytest
from helpers import load_program

RESULTS = Path(__file__).parents[2] / "results/scale"


@pytest.fixture
def script():
    return load_program("scripts/scale.py")


@pytest.mark.slow
def test_a_run_measures_every_case_once_and_writes_a_row(script, tmp_path, monkeypatch):
    cases = [(64, decoding, True) for decoding in ("dense", "sparse")]
    monkeypatch.setattr(script, "CASES", cases)
    monkeypatch.setattr(script, "K", 4)
    options = ["--updates", "1", "--output", str(tmp_path)]
    assert script.main(options) == 0
    backend = keras.backend.backend()
    results = json.loads((tmp_path / f"{backend}.json").read_text())
    for decoding in ("dense", "sparse"):
        record = results[f"64, {decoding}, dead"]
        assert len(record["seconds"]) == 1
        # A process begins with the peak of the one that started it.
        assert 0 < record["before_gib"] <= record["peak_gib"]
    monkeypatch.setattr(
        script, "measure", lambda *args: pytest.fail("it was measured before")
    )
    assert script.main(options) == 0
    assert f"| {backend} | 64, dead atoms |" in (tmp_path / "table.md").read_text()


def test_a_case_that_fails_says_why(script, monkeypatch):
    monkeypatch.setattr(script, "UPDATES", "raise ValueError('no memory')")
    with pytest.raises(SystemExit, match="no memory"):
        script.measure((64, "dense", False), 1)


def test_the_published_table_is_that_of_the_records(script):
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    backends = {results["environment"]["backend"] for results in found}
    assert backends == {"jax", "tensorflow"}
    assert (RESULTS / "table.md").read_text() == script.table(found)
    for results in found:
        wide = [results[f"65536, {decoding}"] for decoding in ("dense", "sparse")]
        times, peaks = ([each[key] for each in wide] for key in ("seconds", "peak_gib"))
        assert sorted(times[1])[4] < 0.75 * sorted(times[0])[4]
        assert peaks[1] < peaks[0]
