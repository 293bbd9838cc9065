"""Interleaved timing, and the matrix products of a model by themselves."""

import resource
import sys
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from sc2keras.models import compile_forward

# Of the networks that are measured beside their bounds.
STEPS = (3, 10)


def fast(steps_per_execution=20):
    """Arguments of `compile` for speed; PyTorch has neither."""
    if keras.backend.backend() == "torch":
        return {}
    return {"jit_compile": True, "steps_per_execution": steps_per_execution}


def interleaved(functions, repeats, description):
    """What each function returns, and its seconds, as they take turns."""
    bar = tqdm(functions.items(), f"{description}, warm-up", leave=False)
    results = {label: function() for label, function in bar}
    seconds = {label: [] for label in functions}
    for _ in tqdm(range(repeats), description, leave=False):
        for label, function in functions.items():
            seconds[label].append(seconds_of(function))
    return results, seconds


def rates(name, n_items, seconds, products, n_times):
    """Items a second of each label as `name`, and beside those of its bare products."""
    medians = {label: np.median(each) for label, each in seconds.items()}
    bound = medians["matrix products"]
    return {
        name: {label: n_items / median for label, median in medians.items()},
        "of_the_bound": {label: bound / median for label, median in medians.items()},
        "gflops": operations(products) * n_times / bound / 1e9,
        "seconds": seconds,
    }


def seconds_of(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def memory_mb(field="RssAnon"):
    """What this process holds, in MB, without files that it maps; "VmHWM": its peak."""
    # `getrusage` counts the process that this one was forked from.
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields[field].split()[0]) * 1024 / 1e6


def encoder_products(n_steps, n_rows, n_features, n_atoms):
    return [
        ((n_rows, n_features, n_atoms), 1),
        ((n_rows, n_features, 2 * n_atoms), 1),
        # The first step leaves out the product with s_0 = 0.
        ((n_rows, n_atoms, 3 * n_atoms), n_steps - 1),
    ]


def training_products(n_steps, n_rows, n_features, n_atoms):
    """Those of a training step: of the encoder, the decoder, and their gradients."""
    products = encoder_products(n_steps, n_rows, n_features, n_atoms)
    products.append(((n_rows, n_atoms, n_features), 1))
    # A product has two gradients; that for x is not needed.
    of_weights = [((k, m, n), count) for (m, k, n), count in products]
    return products + of_weights + [((m, n, k), c) for (m, k, n), c in products[2:]]


def operations(products):
    """Floating-point operations, 2·m·k·n each."""
    return sum(2 * m * k * n * count for (m, k, n), count in products)


class _Products(keras.layers.Layer):
    """Matrix products of given shapes and nothing else, `repeats` times in a loop."""

    def __init__(self, products, repeats):
        super().__init__()
        self.products, self.repeats = products, repeats
        self.factors = []
        for (m, k, n), _ in products:
            pair = [self.add_weight(s, "random_normal") for s in ((m, k), (k, n))]
            self.factors.append(pair)

    def call(self, inputs):
        factors = [tuple(map(ops.convert_to_tensor, pair)) for pair in self.factors]

        def repeat(_, state):
            result, factors = state
            for i, ((m, _, n), count) in enumerate(self.products):
                for _ in range(count):
                    left, right = factors[i]
                    # What is too little to count keeps the compiler from taking the
                    # product out of the loop.
                    trace = 1e-30 * ops.matmul(left, right)[:1, :1]
                    result += trace
                    if m < n:
                        factors[i] = ops.slice_update(left, (0, 0), trace), right
                    else:
                        factors[i] = left, ops.slice_update(right, (0, 0), trace)
            return result, factors

        return ops.fori_loop(0, self.repeats, repeat, (inputs, factors))[0]


def products_only(products, repeats):
    """A function that makes only these products, as one compiled graph: the bound."""
    inputs = keras.Input((1,), batch_size=1)
    model = keras.Model(inputs, _Products(products, repeats)(inputs))
    forward = compile_forward(model)
    return lambda: forward(np.zeros((1, 1), dtype="float32"))
