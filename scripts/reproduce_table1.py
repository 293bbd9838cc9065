"""Reproduces Table 1 of "An End-to-End Sparse Coding" (Zhou et al., 2017).

Trains every method on every dataset, saves each model, loads it again, encodes, fits a
logistic regression on the codes, and prints the paper's table beside its own:

    python scripts/reproduce_table1.py                          # digits, a minute
    python scripts/reproduce_table1.py --datasets mnist cifar10 --seeds 0 1 2 3 4 \
        --protocol both --output results/table1

What is finished is kept in --output and never computed again: a run that was stopped
goes on where it was. With --tables nothing is trained: the tables are those of the
records that are there.
"""

import sys

from experiments import table1
from experiments.arguments import (
    add_experiment,
    make_parser,
    positive_integer,
    positive_number,
    run_program,
)
from experiments.data import hold_out, load_data
from experiments.methods import METHODS
from experiments.reports import write_text
from experiments.runs import PROTOCOLS, check_settings, diverged, run_all

from sc2keras import plotting


def main(argv=None):
    args = parse_arguments(argv)
    names = () if args.tables else args.datasets
    data = {name: load_data(name, args.data_dir) for name in names}
    search = table1.search_runs(args)
    # The λ of the table's own runs follow from the search: only its runs are known yet.
    check_settings([*search.values(), *table1.table_runs("paper", {}, args).values()])
    held = {name: hold_out(each) for name, each in data.items()}
    found = run_all(search, held, "choice of λ", ["full"], False, args.jobs)
    chosen, runs, tables = table1.choose(found), {}, {}
    for protocol in args.protocols:
        runs[protocol] = table1.table_runs(protocol, chosen, args)
        check_settings(runs[protocol].values())
        tables[protocol] = run_all(
            runs[protocol], data, f"{protocol} protocol", [protocol], jobs=args.jobs
        )
    if not any(tables.values()):
        sys.exit(f"error: {table1.store(args).path} holds none of these runs.")
    write_text(args.output / "table.md", table1.write_up(tables, args))
    if found:
        picture = args.output / "accuracy-nonzero.png"
        plotting.save_figure(table1.draw_choice(found), picture)
    for name in names:
        table1.draw(name, data[name], runs[args.protocols[0]], args)
    print(f"\nModels, records, tables and pictures are in {args.output}")
    failures = [line for p in tables for line in diverged(runs[p], tables[p])]
    if failures and not args.tables:
        sys.exit("error: " + "\n".join(failures))


def parse_arguments(argv):
    parser = make_parser(__doc__.split("\n\n")[0], "out/table1")
    add_experiment(parser)
    add = parser.add_argument
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add("--n-steps", type=positive_integer, help="T; by default the dataset's recipe")
    add("--seeds", type=int, nargs="+", default=[0])
    add(
        "--protocol",
        choices=[*PROTOCOLS, "both"],
        default="paper",
        help="paper: λ = 0.1, classifier fitted on 4,000 codes, scored on 1,000, 10 "
        "draws; full: λ and C chosen on held-out training samples, all training codes, "
        "official test split",
    )
    add(
        "--l1-grid",
        type=positive_number,
        nargs="+",
        default=list(table1.L1_GRID),
        help="the λ that the full protocol chooses from",
    )
    add("--jobs", type=positive_integer, default=1, help="processes for the runs")
    args = parser.parse_args(argv)
    args.protocols = PROTOCOLS if args.protocol == "both" else (args.protocol,)
    return args


if __name__ == "__main__":
    run_program(main)
