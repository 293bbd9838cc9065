"""Measures the LISTA family on the benchmark of sparse recovery.

    python scripts/reproduce_recovery.py            # every model, one setting, a matrix
    python scripts/reproduce_recovery.py --whole --output results/recovery

What is finished is kept in --output: a run that was stopped goes on where it was.
"""

import itertools
import os

import joblib
from experiments import arguments, recovery, recovery_report
from experiments.records import Store
from experiments.reports import write_text
from tqdm import tqdm


def main(argv=None):
    args = parse_arguments(argv)
    store = Store(args.output / "records")
    if not args.tables:
        if args.jobs > 1:
            os.environ["TF_NUM_INTRAOP_THREADS"] = str(joblib.cpu_count() // args.jobs)
        for name, matrix in itertools.product(args.settings, range(args.matrices)):
            make(store, name, matrix, args)
    records = list(store.records().values())
    write_text(args.output / "family.md", recovery_report.family(records))
    write_text(args.output / "table.md", recovery_report.markdown(records))
    recovery_report.draw(records, args.output)
    return 0


def make(store, name, matrix, args):
    """The records of a matrix of a setting, each after those that it needs."""
    asked = set(args.models)
    while more := {recovery.needs(name, label) for label in asked} - asked - {""}:
        asked |= more
    parallel = joblib.Parallel(args.jobs, return_as="generator")
    waiting = [label for label in recovery.MODELS if label in asked]
    needs = {label: recovery.needs(name, label) for label in waiting}
    with tqdm(total=len(waiting), desc=name, unit="model") as bar:
        while waiting:
            ready = [label for label in waiting if needs[label] not in waiting]
            # The long ones first, so that no process waits for another one.
            ready.sort(key=lambda label: -length_of(label))
            calls = [(store, name, matrix, label) for label in ready]
            made = parallel(joblib.delayed(recovery.record_of)(*call) for call in calls)
            for _ in made:
                bar.update()
            waiting = [label for label in waiting if label not in ready]


def length_of(label):
    model = recovery.MODELS[label]
    return model.n_updates if model.is_fitted else 0


def parse_arguments(argv):
    parser = arguments.make_parser(__doc__.split("\n\n")[0], "out/recovery")
    names, labels = list(recovery.SETTINGS), list(recovery.MODELS)
    named = {"nargs": "+", "metavar": "NAME"}
    add = parser.add_argument
    settings = f"{'; '.join(names)}; by default the first, whole: all"
    add("--settings", choices=names, help=settings, **named)
    add("--models", choices=labels, default=labels, help="; ".join(labels), **named)
    cores = joblib.cpu_count()
    add("--jobs", type=arguments.positive_integer, default=cores, help="processes")
    add("--matrices", type=arguments.positive_integer, help="by default 1, whole: 3")
    add("--whole", action="store_true", help="all settings, three matrices each")
    add("--tables", action="store_true", help="only write tables of the records again")
    args = parser.parse_args(argv)
    args.settings = args.settings or (names if args.whole else names[:1])
    args.matrices = args.matrices or (3 if args.whole else 1)
    return args


if __name__ == "__main__":
    arguments.run_program(main)
