"""Measures how fast sc2keras encodes and trains, beside its bounds and its peers.

    python scripts/benchmark.py              # everything, on MNIST
    python scripts/benchmark.py --quick      # fewer samples, sizes and repeats
    python scripts/benchmark.py --guard 0.8  # only: is fit as fast as a plain loop?

What is finished is kept in --output: a run that was stopped goes on where it was.
"""

import sys

import numpy as np
from experiments import arguments
from experiments.arguments import load_data, positive_integer, positive_number
from experiments.benchmarks import encoding, latency, measure, report, scale, training
from experiments.reports import write_text
from tqdm import tqdm

from sc2keras import datasets

SETTINGS = ("dataset", "n_atoms", "quick", "repeats")


def main(argv=None):
    args = parse_arguments(argv)
    if args.guard is not None:
        return guard(args)
    data = load_data(args.dataset, args.data_dir)
    x, x_test = (x.reshape(len(x), -1) for x in (data.x_train, data.x_test))
    if args.quick:
        x, x_test = x[:10_000], x_test[:2_000]
    args.output.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(args, name) for name in SETTINGS}
    results = report.Results(args.output / "results.json", settings)
    sections = {
        "bound": lambda: [
            encoding.against_the_bound(x, t, args) for t in measure.STEPS
        ],
        "latency": lambda: latency.latency(x, args),
        "training": lambda: [
            training.against_a_loop(x, args, t) for t in measure.STEPS
        ],
        "scale": lambda: scale.scale(args),
        "encoding": lambda: [
            encoding.against_solvers(x, x_test, l1, args) for l1 in args.l1s
        ],
    }
    for name, section in tqdm(sections.items(), "benchmark", unit="section"):
        results.once(name, section)
    write_text(args.output / "table.md", report.markdown(results.content))
    report.draw(results.content["encoding"], args.output / "pareto.png")
    return 0


def parse_arguments(argv):
    parser = arguments.make_parser(
        __doc__.split("\n\n")[0], "out/benchmark", has_data=True
    )
    add = parser.add_argument
    add("--dataset", choices=datasets.NAMES, default="mnist")
    add("--n-atoms", type=positive_integer, default=100, help="k")
    add("--quick", action="store_true", help="two minutes, and figures that say less")
    add("--repeats", type=positive_integer, help="by default 5, or 2 if --quick")
    add(
        "--guard",
        type=positive_number,
        help="compare only fit with a hand-written loop, and fail if it is slower than "
        "this fraction of its rate in every repeat",
    )
    args = parser.parse_args(argv)
    args.repeats = args.repeats or (2 if args.quick else 5)
    args.l1s = [0.1] if args.quick else [0.1, 1.0]
    return args


def guard(args):
    x = np.random.default_rng(0).random((1000, 784), dtype="float32")
    ratio = training.against_a_loop(x, args)["best_fit_over_loop"]
    print(f"fit runs at {ratio:.2f} of the rate of a hand-written loop, at best")
    if ratio < args.guard:
        print(f"error: that is less than {args.guard:g}", file=sys.stderr)
    return int(ratio < args.guard)


if __name__ == "__main__":
    arguments.run_program(main)
