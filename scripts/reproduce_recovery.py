"""Measures the LISTA family on the benchmark of sparse recovery.

    python scripts/reproduce_recovery.py            # every model, one setting, a matrix
    python scripts/reproduce_recovery.py --whole --output results/recovery

What is finished is kept in --output: a run that was stopped goes on where it was.
"""

import itertools
import multiprocessing
import os
import signal
import sys
from concurrent import futures

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
    if not recovery_report.by_setting(records):
        sys.exit(
            f"error: {store.path} holds no record of a setting. Name its folder with "
            "--output, or leave out --tables."
        )
    if family := recovery_report.family(records):
        write_text(args.output / "family.md", family)
    write_text(args.output / "table.md", recovery_report.markdown(records))
    recovery_report.draw(records, args.output)
    return 0


def make(store, name, matrix, args):
    """The records of a matrix of a setting, each after those that it needs."""
    asked = set(args.models)
    while more := {recovery.needs(name, label) for label in asked} - asked - {""}:
        asked |= more
    labels = [label for label in recovery.models_of(name) if label in asked]
    calls = {label: (store, name, matrix, label) for label in labels}
    calls = {label: c for label, c in calls.items() if not recovery.find(*c)[-1]}
    with tqdm(total=len(calls), desc=name, unit="model") as bar:
        if args.jobs == 1:
            made = itertools.starmap(recovery.record_of, calls.values())
        else:
            made = side_by_side(calls, args.jobs)
        for _ in made:
            bar.update()


def side_by_side(calls, jobs):
    """Yields each record when it is made; the long ones are begun first."""
    waiting = sorted(calls, key=length_of, reverse=True)
    needs = {label: recovery.needs(calls[label][1], label) for label in waiting}
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(jobs, spawn, leave_signals) as pool:
        running = {}
        try:
            while waiting or running:
                unmade = {*waiting, *running.values()}
                ready = [label for label in waiting if needs[label] not in unmade]
                for label in ready[: jobs - len(running)]:
                    running[pool.submit(recovery.record_of, *calls[label])] = label
                    waiting.remove(label)
                done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    yield future.result()
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def leave_signals():
    """A Ctrl-C is for the process that began this one, and ends it as it should."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


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
    models = f"{'; '.join(labels)}; by default those of every setting, whole: all"
    add("--models", choices=labels, help=models, **named)
    cores = joblib.cpu_count()
    add("--jobs", type=arguments.positive_integer, default=cores, help="processes")
    add("--matrices", type=arguments.positive_integer, help="by default 1, whole: 3")
    add("--whole", action="store_true", help="all settings, three matrices each")
    add("--tables", action="store_true", help="only write tables of the records again")
    args = parser.parse_args(argv)
    args.settings = args.settings or (names if args.whole else names[:1])
    usual = [m for m in labels if args.whole or not recovery.MODELS[m].only]
    args.models = args.models or usual
    args.matrices = args.matrices or (3 if args.whole else 1)
    return args


if __name__ == "__main__":
    arguments.run_program(main)
