"""What the scripts share: arguments, files that are never half written, environment."""

import argparse
import json
import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import sklearn

import sc2keras
from sc2keras.files import replace_file


def positive_integer(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not an integer >= 1")
    return value


def positive_number(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} is not a number > 0")
    return value


def write_json(path, value):
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    replace_file(path, lambda p: p.write_text(text))


def environment(peers=()):
    """Versions and machine of a result; `peers` are further packages, if installed."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        cpu = next((s.split(": ")[1] for s in lines if s.startswith("model name")), cpu)
    installed = {d.metadata["Name"] for d in metadata.distributions()}
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "threads": _n_threads(),
        "device": _accelerator() or "CPU",
        "python": platform.python_version(),
        "sc2keras": sc2keras.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "backend_version": sys.modules[keras.backend.backend()].__version__,
        "numpy": np.__version__,
        "scikit_learn": sklearn.__version__,
        **{peer: metadata.version(peer) for peer in peers if peer in installed},
    }


def _n_threads():
    if "OMP_NUM_THREADS" in os.environ:
        return int(os.environ["OMP_NUM_THREADS"])
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _accelerator():
    """The name of the GPU that the backend computes on, or None."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return None
    details = tf.config.experimental.get_device_details(devices[0])
    return details.get("device_name", devices[0].name)


def save_figure(figure, path):
    # Not every script draws, and matplotlib is an extra.
    import matplotlib.pyplot as plt

    replace_file(path, lambda p: figure.savefig(p, dpi=110))
    plt.close(figure)
