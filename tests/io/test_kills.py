"""What only a process of its own shows: kills, signals, full disks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import EXHAUSTIVE
from transfers import (
    assert_nothing_unfinished,
    encode,
    floats,
    images,
    save_image,
    save_npy,
)

from sc2keras.io import OutputError, progress, transfer

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

# Imports once; then every run is a process of its own, as a shell would start it.
RUNNER = """
import os, random, signal, sys, time
from sc2keras import cli
from sc2keras.io import transfer
from sc2keras_command import parse_arguments
transfer.SAVE_EVERY = 0.01


def run(arguments, wait=None, signal_number=signal.SIGKILL):
    # Its exit code; a signal reaches it after seconds, or once `wait()` is true.
    sys.stdout.flush()
    # What Python itself does after a fork is no part of the command.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    pid = os.fork()
    if not pid:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, cli.interrupted)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            cli.run(parse_arguments(arguments))
        except SystemExit as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        except BaseException:
            os._exit(99)
        os._exit(0)
    if wait is not None:
        if callable(wait):
            while not wait():
                time.sleep(0.001)
        else:
            time.sleep(wait)
        os.kill(pid, signal_number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


arguments = [*sys.argv[1:5], "--batch-rows", "8"]
output = arguments[3]
whole = os.path.join(os.path.dirname(output), "whole" + output[-4:])
"""


def run_apart(code, *arguments):
    """A Python program after RUNNER, with a command and what it takes."""
    command = [sys.executable, "-c", RUNNER + code, *arguments]
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("command", "kind", "suffix", "n_kills"),
    [
        ("encode", "npy", ".npy", 6),
        pytest.param("encode", "npy", ".npy", 20, marks=EXHAUSTIVE),
        pytest.param("encode", "images", ".npz", 20, marks=EXHAUSTIVE),
        pytest.param("decode", "npz", ".npy", 20, marks=EXHAUSTIVE),
    ],
)
def test_kills_lose_and_double_nothing(saved, tmp_path, command, kind, suffix, n_kills):
    if command == "decode":
        x = encode(
            saved[1], save_npy(tmp_path / "x.npy", floats(3001)), tmp_path / "x.npz"
        )
    elif kind == "npy":
        x = save_npy(tmp_path / "x.npy", floats(3001))
    else:
        x = tmp_path / "photos"
        for i, image in enumerate(images(501)):
            save_image(x / f"{i % 7}" / f"{i}.bmp", image)
    code = """
began = time.monotonic()
assert run([*arguments[:3], whole, *arguments[4:]]) == 0
seconds = time.monotonic() - began
expected, n_whole, n_kills = open(whole, "rb").read(), 0, int(sys.argv[5])
while n_kills:
    code = run(arguments, random.uniform(0, 2 * seconds))
    assert code in (0, -9), code
    n_kills -= code == -9
    if os.path.exists(output):
        assert open(output, "rb").read() == expected
        os.remove(output)
        n_whole += 1
assert run(arguments) == 0
assert open(output, "rb").read() == expected
print("whole", n_whole + 1)
"""
    out = run_apart(code, command, saved[1], x, tmp_path / f"codes{suffix}", n_kills)
    assert n_kills < 20 or int(out.split()[-1]) > 1
    assert_nothing_unfinished(tmp_path)


@pytest.mark.exhaustive
def test_of_two_runs_at_a_time_one_writes_the_output(saved, tmp_path):
    x = save_npy(tmp_path / "x.npy", floats(300))
    code = """
assert run([*arguments[:3], whole, *arguments[4:]]) == 0
expected = open(whole, "rb").read()
for _ in range(10):
    pids = []
    for _ in range(3):
        pids.append(os.fork())
        if not pids[-1]:
            time.sleep(random.uniform(0, 0.3))
            os._exit(run(arguments))
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert sorted(codes) == [0, 1, 1], codes
    assert open(output, "rb").read() == expected
    os.remove(output)
"""
    run_apart(code, "encode", saved[1], x, tmp_path / "codes.npy")
    assert_nothing_unfinished(tmp_path)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_keeps_what_is_done(saved, tmp_path, name):
    x = save_npy(tmp_path / "x.npy", floats(3001))
    code = """
number = getattr(signal, sys.argv[5])
progress = os.path.join(os.path.dirname(output), "unfinished-codes.npy/progress.json")
begun = lambda: os.path.exists(progress) or os.path.exists(output)
for wait in (begun, 0, 0.3, 0.6, 1.2):
    code = run(arguments, wait, number)
    assert code in (0, 130, -number), code
    if not code:
        os.remove(output)
    if wait is begun:
        assert code and os.path.exists(progress)
"""
    run_apart(code, "encode", saved[1], x, tmp_path / "codes.npy", name)


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param((0.2, 2.5, 6), id="some"),
        pytest.param(np.linspace(0.2, 10, 15), id="many", marks=pytest.mark.exhaustive),
    ],
)
def test_ctrl_c_shows_no_traceback_whenever_it_comes(saved, tmp_path, moments):
    x = save_npy(tmp_path / "x.npy", floats(3001))
    command = [sys.executable, "-c", "from sc2keras_command import start; start()"]
    command += ["encode", saved[1], x, tmp_path / "codes.npy", "--overwrite"]
    for seconds in moments:
        with subprocess.Popen(
            [*map(str, command), "--batch-rows", "8"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            error = process.communicate()[1]
        assert "Traceback" not in error
        assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT, 0)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("n_pages", [1, 3, 5])
def test_a_disk_that_is_full_keeps_what_is_done(
    saved, tmp_path, monkeypatch, small_disk, suffix, n_pages
):
    x = save_npy(tmp_path / "x.npy", floats(1000))
    whole = encode(saved[1], x, tmp_path / f"whole{suffix}")
    output = small_disk(f"size={4096 * n_pages}") / f"codes{suffix}"
    usage = progress.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(progress.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(transfer, "SAVE_EVERY", 0)
    with pytest.raises(OSError, match="No space left"):
        encode(saved[1], x, output)
    assert not output.exists()
    small_disk("remount,size=1M")
    encode(saved[1], x, output)
    assert output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(output.parent)


def test_a_disk_that_cannot_be_written_is_an_error(saved, tmp_path, small_disk):
    x = save_npy(tmp_path / "x.npy", floats())
    disk = small_disk("size=1M")
    small_disk("remount,ro")
    with pytest.raises(OutputError, match=r"cannot be made .*Read-only.*Name an outpu"):
        encode(saved[1], x, disk / "codes.npy")
