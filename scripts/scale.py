"""Measures updates of wide sparse autoencoders: time, memory, and dense beside sparse.

    KERAS_BACKEND=jax python scripts/scale.py

Each case is a process of its own. What is finished is kept in --output, a file a
backend; the table has all of them.
"""

import json
import subprocess
import sys

import keras
import numpy as np
from experiments import arguments
from experiments.benchmarks import report
from experiments.reports import markdown, write_text
from tqdm import tqdm

N_FEATURES, K, BATCH = 768, 32, 256
WIDTHS = (2048, 4096, 16_384, 65_536)
# Where every atom that is silent in a batch is dead, AuxK has most to do.
CASES = [
    *((n, decoding, False) for n in WIDTHS for decoding in ("dense", "sparse")),
    *((max(WIDTHS), decoding, True) for decoding in ("dense", "sparse")),
]
UPDATES = """
import json, resource, sys, time
import keras, numpy as np
from sc2keras import applications

n_atoms, decoding, has_dead, n_features, k, batch, n_updates = json.loads(sys.argv[1])


class Clock(keras.callbacks.Callback):
    times = []

    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter() - self.began)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


keras.utils.set_random_seed(0)
before, dead_after = peak(), 1 if has_dead else 10**9
model = applications.SparseAutoencoder(
    n_atoms, (n_features,), k=k, decoding=decoding, dead_after=dead_after
)
model.compile()
rows = (n_updates + 2) * batch
x = np.random.default_rng(0).standard_normal((rows, n_features)).astype("float32")
# That of Keras: a copy of the weights, for a training that diverges, is not counted.
keras.Model.fit(model, x, batch_size=batch, verbose=0, callbacks=[Clock()])
weights = sum(int(np.prod(w.shape)) for w in model.weights) * 4 / 2**30
print(json.dumps({"seconds": Clock.times[2:], "peak_gib": peak(),
                  "before_gib": before, "weights_gib": weights}))
"""


def main(argv=None):
    args = parse_arguments(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"{keras.backend.backend()}.json"
    settings = {"updates": args.updates, "batch": BATCH, "k": K, "d": N_FEATURES}
    results = report.Results(path, settings, peers=())
    for case in tqdm(CASES, "scale", unit="case"):
        results.once(name_of(*case), lambda case=case: measure(case, args.updates))
    found = [json.loads(p.read_text()) for p in sorted(args.output.glob("*.json"))]
    write_text(args.output / "table.md", table(found))
    return 0


def parse_arguments(argv):
    parser = arguments.make_parser(__doc__.split("\n\n")[0], "out/scale")
    parser.add_argument("--updates", type=arguments.positive_integer, default=8)
    return parser.parse_args(argv)


def name_of(n_atoms, decoding, has_dead):
    return f"{n_atoms}, {decoding}{', dead' if has_dead else ''}"


def measure(case, n_updates):
    asked = json.dumps([*case, N_FEATURES, K, BATCH, n_updates])
    command = [sys.executable, "-c", UPDATES, asked]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"error: {case} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def table(found):
    """A Markdown table of the records of all backends."""
    rows, notes = [], []
    for results in found:
        machine = results["environment"]
        notes.append(f"{machine['backend']} {machine['backend_version']}")
        for n_atoms, has_dead in dict.fromkeys((n, dead) for n, _, dead in CASES):
            pair = [
                results.get(name_of(n_atoms, decoding, has_dead))
                for decoding in ("dense", "sparse")
            ]
            if None in pair:
                continue
            times = [f"{1e3 * np.median(each['seconds']):.0f}" for each in pair]
            peaks = [f"{each['peak_gib'] - each['before_gib']:.2f}" for each in pair]
            label = f"{n_atoms:,}{', dead atoms' if has_dead else ''}"
            weights = f"{pair[0]['weights_gib']:.2f}"
            rows.append([machine["backend"], label, *times, weights, *peaks])
    header = [
        *("backend", "atoms", "dense, ms", "sparse, ms"),
        *("weights, GiB", "dense, GiB", "sparse, GiB"),
    ]
    first = found[0]
    settings = first["settings"]
    return markdown(header, rows, n_text=2) + (
        f"\nAn update of `SparseAutoencoder`, {settings['d']} features, k = "
        f"{settings['k']}, batches of {settings['batch']}, Adam: the median of "
        f"{settings['updates']}, and the most memory that the process had beyond its "
        f"imports, weights and moments included, without `fit`'s copy of them. "
        f"{', '.join(notes)}; {first['environment']['cpu']}.\n"
    )


if __name__ == "__main__":
    arguments.run_program(main)
