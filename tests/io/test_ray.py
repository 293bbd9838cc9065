"""The program that encodes a folder of shards through Ray, on a local cluster."""

import importlib.util
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from sc2keras import applications

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "applications/encode_with_ray.py"
N_SHARDS, N_ROWS = 6, 4000


def test_without_ray_the_program_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(SystemExit, match=r"Ray is not installed.*sc2keras\[ray\]"):
        runpy.run_path(str(PROGRAM), run_name="__main__")


class Rows:
    """What the program asks of a data set of Ray, in this process."""

    def __init__(self, tasks):
        self.tasks = tasks

    def map(self, kind, fn_constructor_args, fn_constructor_kwargs, **_):
        worker = kind(*fn_constructor_args, **fn_constructor_kwargs)
        return Rows([worker(task) for task in self.tasks])

    def iter_rows(self):
        return iter(self.tasks)


def run_here(monkeypatch, *arguments):
    ray, data = ModuleType("ray"), ModuleType("ray.data")
    ray.data = data
    data.DataContext = SimpleNamespace(get_current=SimpleNamespace)
    data.from_items = lambda tasks, **_: Rows(tasks)
    data.ActorPoolStrategy = lambda size: None
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", data)
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), *map(str, arguments)])
    runpy.run_path(str(PROGRAM), run_name="__main__")


@pytest.mark.filterwarnings("ignore::sc2keras.io.TransferWarning")
def test_other_targets_are_replaced_where_it_is_asked_for(
    tmp_path, monkeypatch, capsys
):
    source, target = tmp_path / "x", tmp_path / "codes"
    source.mkdir()
    np.save(source / "0.npy", np.random.default_rng(0).random((9, 64), "float32"))
    arguments = "SC2Net/digits", source, target, "--sparse"
    run_here(monkeypatch, *arguments)
    n_all = sparse.load_npz(target / "0.npz").nnz
    capsys.readouterr()
    arguments = *arguments, "--threshold", "0.2"
    with pytest.raises(SystemExit, match="1 of 1 shards failed"):
        run_here(monkeypatch, *arguments)
    said = capsys.readouterr().out
    assert "threshold was None and is 0.2" in said and "with --overwrite." in said
    run_here(monkeypatch, *arguments, "--overwrite")
    found = sparse.load_npz(target / "0.npz")
    assert 0 < found.nnz < n_all and np.abs(found.data).min() > 0.2
    with pytest.raises(SystemExit):
        run_here(monkeypatch, *arguments[:3], "--threshold", "0.2")
    assert "--sparse" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A model, its file, and a folder of shards."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: pip install 'sc2keras[ray]'")
    folder = tmp_path_factory.mktemp("shards")
    model = applications.SC2Net(weights="digits")
    model.save(folder / "model.keras")
    (folder / "x").mkdir()
    rng = np.random.default_rng(0)
    for i in range(N_SHARDS):
        np.save(folder / f"x/{i}.npy", rng.random((N_ROWS + i, 64), dtype="float32"))
    return model, folder


def start(folder, target, *options):
    arguments = [PROGRAM, folder / "model.keras", folder / "x", target, *options]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0"},
    )


def finish(process, code=0):
    out, error = process.communicate(timeout=300)
    assert process.returncode == code, error[-3000:]
    return out.splitlines()


def processes_of(session):
    """The processes of a session: a cluster that a program started is in its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append(int(path.name))
    return found


def kill_all(process):
    for _ in range(50):
        alive = [pid for pid in processes_of(process.pid) if pid != process.pid]
        for pid in [*alive, process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if process.poll() is not None and not alive:
            break
        time.sleep(0.1)
    process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds its processes")
def test_a_kill_in_the_middle_loses_and_doubles_no_row(shards):
    model, folder = shards
    target = folder / "codes"
    process = start(folder, target)
    deadline = time.monotonic() + 240
    while len(list(target.glob("[0-9].npy"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)
    kill_all(process)
    n_done = len(list(target.glob("[0-9].npy")))
    assert 2 <= n_done < N_SHARDS
    lines = finish(start(folder, target))
    assert sum("was done" in line for line in lines) >= n_done
    assert any(" s" in line and "was done" not in line for line in lines[:-1])
    n_rows = sum(N_ROWS + i for i in range(N_SHARDS))
    assert lines[-1].startswith(f"{n_rows:,} rows in ")
    names = {f"{i}.npy" for i in range(N_SHARDS)}
    assert {path.name for path in target.glob("*")} == names | {
        f"{name}.json" for name in names
    }
    for i in range(N_SHARDS):
        codes = np.load(target / f"{i}.npy")
        expected = model.encode(np.load(folder / f"x/{i}.npy").reshape(-1, 8, 8, 1))
        np.testing.assert_array_equal(codes, expected)


@pytest.mark.slow
def test_a_shard_that_fails_does_not_stop_the_others(shards):
    model, folder = shards
    target = folder / "sparse"
    target.mkdir()
    (target / "4.npz").write_text("precious")
    lines = finish(start(folder, target, "--sparse", "--workers", "2"), code=1)
    assert len(lines) == N_SHARDS + 1
    (failure,) = (line for line in lines if "error" in line)
    assert "4.npz: 0 rows, error: " in failure and "with --overwrite" in failure
    assert (target / "4.npz").read_text() == "precious"
    options = ("--sparse", "--overwrite", "--threshold", "0.5")
    assert finish(start(folder, target, *options))[-1].startswith("24,015 rows in ")
    codes = sparse.load_npz(target / "4.npz")
    assert codes.nnz > 0 and np.abs(codes.data).min() > 0.5
    finish(start(folder, target, "--sparse", "--overwrite"))
    codes = sparse.load_npz(target / "3.npz").toarray()
    expected = model.encode(np.load(folder / "x/3.npy").reshape(-1, 8, 8, 1))
    np.testing.assert_array_equal(codes, expected)
