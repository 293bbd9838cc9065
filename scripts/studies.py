"""What decides the objective and the accuracy: the studies behind the README's claims.

    python scripts/studies.py --datasets mnist cifar10 --output results/studies

What is finished is kept in --output and never computed again. With --tables nothing is
trained: the tables are those of the records that are there.
"""

import argparse
import sys

from experiments.arguments import add_experiment, load_data, make_parser, run_program
from experiments.reports import write_text
from experiments.studies import STUDIES
from experiments.studies.study import Study


def main(argv=None):
    studies = "\n".join(f"{name:<13}{study.__doc__}" for name, study in STUDIES.items())
    parser = make_parser(f"{__doc__}\n{studies}", "out/studies", has_data=True)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_experiment(parser)
    parser.add_argument("sections", nargs="*", default=list(STUDIES), metavar="section")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    unknown = [section for section in args.sections if section not in STUDIES]
    if unknown:
        parser.error(f"section {unknown[0]!r} is not one of {', '.join(STUDIES)}")
    data, failures = {}, []
    if not args.tables and not set(args.sections) <= {"transfer", "own_data"}:
        data = {name: load_data(name, args.data_dir) for name in args.datasets}
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.sections:
        options = (args.n_atoms, args.epochs, args.seed, args.tables)
        study = Study(name, data, args.output, *options)
        if args.tables and not study.store.path.exists():
            sys.exit(f"error: {study.store.path} is not there. Name its folder.")
        write_text(args.output / f"{name}.md", STUDIES[name].run(study))
        failures += study.diverged
    if failures and not args.tables:
        sys.exit("error: " + "\n".join(failures))


if __name__ == "__main__":
    run_program(main)
