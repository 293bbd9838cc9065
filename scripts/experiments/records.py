"""Records of runs: one file a study, with a line of JSON for each run."""

import contextlib
import functools
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import joblib
import keras
import numpy as np
import sklearn

import sc2keras
from sc2keras.files import whole_file


class Store:
    """Where the runs of a study are kept, a line each, sorted, in `folder.jsonl`."""

    def __init__(self, folder):
        self.folder, self.path = folder, folder.with_name(f"{folder.name}.jsonl")

    def find(self, name, **expected):
        """The record of that name, or an empty one; exits if it has other entries."""
        record = json.loads(self._lines().get(name, "{}"))
        for key, value in expected.items():
            if record and record[key] != value:
                sys.exit(
                    f"error: {name!r} in {self.path} was made with the {key} "
                    f"{record[key]!r}, but now {value!r} is asked for. Choose another "
                    "--output, or delete that line."
                )
        return record

    def records(self):
        return {name: json.loads(line) for name, line in self._lines().items()}

    def write(self, name, record):
        line = json.dumps({"name": name, **record}, sort_keys=True, ensure_ascii=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(self.path.parent):
            lines = self._lines() | {name: line}
            replace_text(self.path, "".join(f"{lines[n]}\n" for n in sorted(lines)))

    def _lines(self):
        if not self.path.exists():
            return {}
        status = self.path.stat()
        return _read(self.path, (status.st_ino, status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=8)
def _read(path, state):
    """`{name: line}` of a file; `state` tells one version of it from another."""
    lines = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines[json.loads(line)["name"]] = line
        except (ValueError, KeyError, TypeError):
            sys.exit(
                f"error: line {number} of {path} is no record. Delete it, and the run "
                "is made again."
            )
    return lines


@contextlib.contextmanager
def _alone_in(folder):
    """Lets one process at a time write to a folder, but on Windows."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def replace_text(path, text):
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    replace_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def environment(peers=()):
    """Versions and machine of a result; `peers` are further packages, if installed."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    installed = {d.metadata["Name"] for d in metadata.distributions()}
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "threads": int(os.environ.get("OMP_NUM_THREADS", joblib.cpu_count())),
        "device": _device(),
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (sc2keras, keras)},
        "backend": keras.backend.backend(),
        "backend_version": sys.modules[keras.backend.backend()].__version__,
        "numpy": np.__version__,
        "scikit_learn": sklearn.__version__,
        **{peer: metadata.version(peer) for peer in peers if peer in installed},
    }


def _device():
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return "CPU" if device.platform == "cpu" else device.device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        return details.get("device_name", gpu.name)
    return "CPU"
