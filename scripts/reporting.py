"""What the scripts share: arguments, files that are never half written, environment."""

import argparse
import json
import math
import os
import platform
import sys
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import sklearn

import sc2keras


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


def replace_file(path, write):
    """Writes a file under another name first, so that `path` is never half a file."""
    temporary = path.with_name("unfinished-" + path.name)
    write(temporary)
    os.replace(temporary, path)


def write_json(path, value):
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    replace_file(path, lambda p: p.write_text(text))


def environment():
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        cpu = next((s.split(": ")[1] for s in lines if s.startswith("model name")), cpu)
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "sc2keras": sc2keras.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "backend_version": sys.modules[keras.backend.backend()].__version__,
        "numpy": np.__version__,
        "scikit_learn": sklearn.__version__,
    }


def save_figure(figure, path):
    replace_file(path, lambda p: figure.savefig(p, dpi=110))
    plt.close(figure)
