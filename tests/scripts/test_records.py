import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from experiments import records
from experiments.records import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "study")


def test_a_record_is_a_line_and_the_lines_are_sorted(store):
    assert store.find("b") == {} and store.records() == {}
    store.write("b", {"z": 1, "a": "λ"})
    store.write("a", {"loss": [1.0, float("nan")]})
    store.write("b", {"z": 2, "a": "λ"})
    assert store.path.read_text(encoding="utf-8").splitlines() == [
        '{"loss": [1.0, NaN], "name": "a"}',
        '{"a": "λ", "name": "b", "z": 2}',
    ]
    assert store.find("b") == {"name": "b", "z": 2, "a": "λ"}
    assert list(store.records()) == ["a", "b"]


def test_a_record_that_was_changed_by_its_reader_is_read_as_it_was(store):
    store.write("a", {"settings": {"l1": 0.1}})
    store.find("a")["settings"]["l1"] = 0.2
    assert store.find("a")["settings"] == {"l1": 0.1}


def test_a_record_of_something_else_is_refused(store):
    store.write("a", {"settings": {"l1": 0.1}, "note": ""})
    assert store.find("a", settings={"l1": 0.1}, note="")
    with pytest.raises(SystemExit, match=r"'a' in .*0\.1.*0\.2.*another --output"):
        store.find("a", settings={"l1": 0.2})
    assert store.find("b", settings={"l1": 0.2}) == {}


def test_a_full_disk_loses_no_line(store, monkeypatch):
    store.write("a", {"x": 1})
    before = store.path.read_text()

    def full(path, text, **kwargs):
        with open(path, "w") as file:
            file.write(text[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            store.write("b", {"x": 2})
    assert store.path.read_text() == before
    assert [path.name for path in store.path.parent.iterdir()] == ["study.jsonl"]
    store.write("b", {"x": 2})
    assert store.records().keys() == {"a", "b"}


WRITER = """
import sys
from pathlib import Path
from experiments.records import Store
for i in range(25):
    Store(Path(sys.argv[1])).write(f"{sys.argv[2]}{i:02}", {"i": i})
"""


@pytest.mark.slow
def test_two_processes_lose_no_line_of_each_other(store):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store.folder), prefix],
            cwd=ROOT / "scripts",
        )
        for prefix in "ab"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = store.records()
    assert sorted(found) == sorted(f"{p}{i:02}" for p in "ab" for i in range(25))
    assert all(record["i"] == int(name[1:]) for name, record in found.items())


@pytest.mark.parametrize("line", ["<<<<<<< HEAD", '{"x": 1}', "[1]"])
def test_a_line_that_is_no_record_is_named(store, line):
    store.path.write_text(f'{{"name": "a"}}\n{line}\n')
    with pytest.raises(SystemExit, match=r"line 2 of .*study\.jsonl is no record"):
        store.find("a")


def test_an_environment_names_machine_and_versions():
    found = records.environment(["pytest", "no-such-package"])
    assert {"cpu", "device", "keras", "backend_version", "pytest"} <= found.keys()
    assert "no-such-package" not in found


PUBLISHED = sorted((ROOT / "results").rglob("*.jsonl"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_the_published_records_are_sorted_and_say_how_they_were_made(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [record["name"] for record in found] == sorted({r["name"] for r in found})
    for line, record in zip(lines, found, strict=True):
        assert line == json.dumps(record, sort_keys=True, ensure_ascii=False)
        assert {"dataset", "note", "label", "settings", "environment"} <= record.keys()
        assert record["settings"]["seed"] in range(5)
        assert {"cpu", "threads", "keras"} <= record["environment"].keys()


def test_no_picture_is_larger_than_300_kb():
    pictures = sorted((ROOT / "results").rglob("*.png"))
    sizes = {path.name: path.stat().st_size for path in pictures}
    assert len(sizes) > 10
    assert {name: size for name, size in sizes.items() if size > 300_000} == {}
