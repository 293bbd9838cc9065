"""What decides the objective and the accuracy: the studies behind the README's claims.

    python scripts/studies.py --datasets mnist cifar10 --output results/studies

What is finished is kept in --output and never computed again. With --tables nothing is
trained: the tables are those of the records that are there.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from experiments.arguments import positive_integer, run_program
from experiments.data import load_data
from experiments.reports import write_text
from experiments.studies import STUDIES
from experiments.studies.study import Study

from sc2keras import datasets


def main(argv=None):
    args = parse_arguments(argv)
    data = {}
    if not args.tables and set(args.sections) != {"transfer"}:
        data = {name: load_data(name, args.data_dir) for name in args.datasets}
    args.output.mkdir(parents=True, exist_ok=True)
    failures = []
    for name in args.sections:
        options = (args.n_atoms, args.epochs, args.seed, args.tables)
        study = Study(name, data, args.output, *options)
        if args.tables and not study.store.path.exists():
            sys.exit(f"error: {study.store.path} is not there. Name its folder.")
        text = STUDIES[name].run(study)
        write_text(args.output / f"{name}.md", text)
        failures += study.diverged
    if failures and not args.tables:
        sys.exit("error: " + "\n".join(failures))


def parse_arguments(argv):
    studies = "\n".join(f"{name:<13}{study.__doc__}" for name, study in STUDIES.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{studies}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sections", nargs="*", default=list(STUDIES), metavar="section")
    add("--datasets", nargs="+", choices=datasets.NAMES, default=["digits"])
    add("--n-atoms", type=positive_integer, default=100, help="k (default: 100)")
    add("--epochs", type=positive_integer, help="by default the dataset's recipe")
    add("--seed", type=int, default=0)
    add("--data-dir", help="where TensorFlow Datasets keeps its prepared datasets")
    add("--output", type=Path, default=Path("out/studies"))
    add("--tables", action="store_true", help="only write tables of the records again")
    args = parser.parse_args(argv)
    for section in args.sections:
        if section not in STUDIES:
            parser.error(f"section {section!r} is not one of {', '.join(STUDIES)}")
    return args


if __name__ == "__main__":
    run_program(main)
