"""Measures encoding and training on a GPU, beside its matrix products and PyTorch.

    KERAS_BACKEND=jax python scripts/benchmark_gpu.py

What is finished is kept in --output: a run that was stopped goes on where it was.
"""

import sys

import keras
from experiments import arguments
from experiments.benchmarks import report
from experiments.reports import write_text
from tqdm import tqdm


def main(argv=None):
    args = parse_arguments(argv)
    if keras.backend.backend() != "jax":
        sys.exit("error: this program measures JAX; start it with KERAS_BACKEND=jax.")
    from experiments.benchmarks import accelerator

    args.output.mkdir(parents=True, exist_ok=True)
    settings, path = {"quick": args.quick}, args.output / "results.json"
    results = report.Results(path, settings, peers=("torch",))
    cases = accelerator.cases(args.quick)
    for name, case in tqdm(cases.items(), "GPU", unit="case"):
        results.once(name, case)
    write_text(args.output / "table.md", report.accelerator_markdown(results.content))
    return 0


def parse_arguments(argv):
    parser = arguments.make_parser(__doc__.split("\n\n")[0], "out/benchmark_gpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try it")
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments.run_program(main)
