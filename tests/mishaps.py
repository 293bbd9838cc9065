"""Kills at random moments, and disks that are full."""

import collections
import contextlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sc2keras

# How often a test kills: a few times whenever whole programs are tested, and often.
KILLS = [
    pytest.param(5, id="some", marks=pytest.mark.slow),
    pytest.param(50, id="many", marks=[pytest.mark.slow, pytest.mark.exhaustive]),
]

# Imports once, and forks before any backend has started its threads.
DRIVER = """
import glob, os, random, select, signal, sys, time
import keras, sc2keras.applications

unfinished = os.path.join(os.path.dirname(sys.argv[1]), "unfinished-*")


def wait_for_the_moment(i):
    # Every second kill is within a save, the others whenever they are.
    if i % 2:
        time.sleep(random.uniform(0, 0.1))
        return
    n_left = len(glob.glob(unfinished))
    while len(glob.glob(unfinished)) == n_left:
        time.sleep(0.0005)


def run(i):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            work(lambda: os.write(write, b"."))
        finally:
            os._exit(1)
    os.close(write)
    select.select([read], [], [], 120)
    if not os.read(read, 1):
        sys.exit("The work ended before a file was whole.")
    wait_for_the_moment(i)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)


for line in sys.stdin:
    run(int(line))
    print("killed", flush=True)
"""


def killed_again_and_again(code, *arguments, times):
    """Yields after each kill of what `work(ready)` in `code` does.

    The first of the arguments is the path of the file that it writes. `work` calls
    `ready` after each file that it has written, and does not end.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code + DRIVER, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(sc2keras.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        for i in range(times):
            process.stdin.write(f"{i}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "killed\n"
            yield
        process.stdin.close()


@contextlib.contextmanager
def full_disk(folder, size=2**21):
    """Mounts a small disk on `folder`; a function that writes to it filled to random.

    The function takes the path of a file that is there, what writes it again, and how
    many times, and counts how often that `failed` or has `written` the file. After a
    failure the file is what it was; and there is nothing else on the disk.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    mounted = shutil.which("mount") and subprocess.run(mount, capture_output=True)
    if not mounted or mounted.returncode:
        pytest.skip("Mounting a disk is not allowed here.")

    def tries(path, write, times):
        outcomes = collections.Counter()
        filling = folder / "filling"
        for _ in range(times):
            old = path.read_bytes()
            status = os.statvfs(folder)
            room = status.f_bavail * status.f_frsize
            left = random.randrange(2 * len(old))
            filling.write_bytes(bytes(max(room - left, 0)))
            try:
                write()
            except OSError as error:
                assert str(path) in str(error)
                assert path.read_bytes() == old
                outcomes["failed"] += 1
            else:
                outcomes["written"] += 1
            filling.unlink()
            assert os.listdir(folder) == [path.name]
        return outcomes

    try:
        yield tries
    finally:
        subprocess.run(["umount", folder], check=True)
