"""Time and memory as the sizes grow, each point in a process of its own."""

import multiprocessing

import keras
import numpy as np
from tqdm import tqdm

from sc2keras import applications
from sc2keras.backend import aligned_empty
from sc2keras.models import compile_forward

from .measure import fast, memory_mb, seconds_of

BASE = {"n_atoms": 100, "n_features": 784, "n_steps": 3, "batch_size": 256}
AXES = {
    "n_atoms": [100, 400, 1600, 6400, 12_800, 16_384],
    "n_features": [64, 784, 3072, 12_288],
    "n_steps": [1, 3, 10, 30],
    "batch_size": [1, 64, 1024, 16_384],
}
QUICK_AXES = {"n_atoms": [100, 400]}
N_REPEATS = 3
SECONDS_OF_FIT = 1.0


def scale(args):
    """Milliseconds of encoding and of a training step, MB, and fitted exponents."""
    axes = QUICK_AXES if args.quick else AXES
    points = [{**BASE, axis: v} for axis, values in axes.items() for v in values]
    points = [p for i, p in enumerate(points) if p not in points[:i]]
    context = multiprocessing.get_context("spawn")
    # A fresh process for each, because the peak of a process never falls.
    with context.Pool(1, maxtasksperchild=1) as pool:
        jobs = pool.imap(_measure, points)
        figures = list(tqdm(jobs, "scale", len(points), leave=False))
    measured = [{**p, **f} for p, f in zip(points, figures, strict=True)]
    exponents = {}
    for axis in axes:
        rows = [p for p in measured if all(p[k] == BASE[k] for k in BASE if k != axis)]
        rows.sort(key=lambda p: p[axis])
        # The larger half, where constant costs no longer count.
        rows = rows[len(rows) // 2 if len(rows) > 2 else 0 :]
        exponents[axis] = {
            name: np.polyfit(*np.log([(p[axis], p[name]) for p in rows]).T, 1)[0]
            for name in ("encode_ms", "train_ms")
        }
    return {"points": measured, "exponents": exponents}


def _measure(sizes):
    n_rows = sizes["batch_size"]
    before, shape = memory_mb("VmHWM"), (sizes["n_features"],)
    model = applications.SC2Net(sizes["n_atoms"], shape, n_steps=sizes["n_steps"])
    rows = aligned_empty((n_rows, *shape), "float32")
    rows[:] = np.random.default_rng(0).random(rows.shape, dtype="float32")
    forward = compile_forward(model)
    encode = _best(lambda: forward(rows))
    model.compile(**fast(steps_per_execution=2))

    def fit(n_steps):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            data = tf.data.Dataset.from_tensors(rows).repeat(n_steps)
        else:
            data = ((rows,) for _ in range(n_steps))
        model.fit(data, verbose=0, shuffle=False)

    # A fit takes a constant time too, which would hide small steps.
    few = _best(lambda: fit(2))
    more = 2 + 2 * min(max(1, int(SECONDS_OF_FIT / few)), 10)
    step = (_best(lambda: fit(more)) - few) / (more - 2)
    return {
        "recurrent": "factored" if model.encoder.cell.factored else "full",
        "encode_ms": 1e3 * encode,
        "train_ms": 1e3 * step,
        "peak_mb": memory_mb("VmHWM") - before,
    }


def _best(function):
    function()
    return min(seconds_of(function) for _ in range(N_REPEATS))
