"""Reproduces Table 1 of "An End-to-End Sparse Coding" (Zhou et al., 2017).

    python scripts/reproduce_table1.py           # the paper's rows on digits, a minute
    python scripts/reproduce_table1.py --all     # every row and column, on digits
    python scripts/reproduce_table1.py --datasets mnist cifar10 --seeds 0 1 2 3 4 \
        --protocol both --output results/table1
    python scripts/reproduce_table1.py --choose   # the first one's recipes

What is finished is kept in --output: a run that was stopped goes on where it was.
"""

import sys

from experiments import arguments, first, table1
from experiments.arguments import load_data, positive_integer, positive_number
from experiments.methods import METHODS
from experiments.reports import write_text
from experiments.runs import PROTOCOLS, check_settings, diverged, hold_out, run_all

# Options that the first table does not have.
OF_ALL = ("datasets", "methods", "n_steps", "epochs", "protocol", "l1_grid", "jobs")


def main(argv=None):
    args = parse_arguments(argv)
    whole = table_of_all if args.all else first.choose if args.choose else first.run
    failures = whole(args)
    print(f"Models, records, tables and pictures are in {args.output}")
    if failures and not args.tables:
        sys.exit("error: " + "\n".join(failures))


def table_of_all(args):
    """Every row and column; the lines about what diverged."""
    names = () if args.tables else args.datasets
    data = {name: load_data(name, args.data_dir) for name in names}
    search = table1.search_runs(args)
    # The λ of the table's own runs follow from the search: only its runs are known yet.
    check_settings([*search.values(), *table1.table_runs("paper", {}, args).values()])
    held = {name: hold_out(each) for name, each in data.items()}
    found = run_all(search, held, "choice of λ", ["full"], False, args.jobs)
    chosen, runs, tables, failures = table1.choose(found), {}, {}, []
    for protocol in args.protocols:
        runs[protocol] = table1.table_runs(protocol, chosen, args)
        how = f"{protocol} protocol", [protocol]
        tables[protocol] = run_all(runs[protocol], data, *how, jobs=args.jobs)
        failures += diverged(runs[protocol], tables[protocol])
    if not any(tables.values()):
        sys.exit(f"error: {table1.store(args).path} holds none of these runs.")
    parts = [table1.table(protocol, each, args) for protocol, each in tables.items()]
    if "full" in tables:
        parts.append(table1.seen_and_unseen(tables["full"], args))
    write_text(args.output / "table.md", "\n".join(parts))
    if found:
        table1.draw_choice(found, args.output / "accuracy-nonzero.png")
    for name in names:
        table1.draw(name, data[name], runs[args.protocols[0]], args)
    return failures


def parse_arguments(argv):
    parser = arguments.make_parser(
        __doc__.split("\n\n")[0], "out/table1", has_data=True
    )
    arguments.add_experiment(parser)
    add = parser.add_argument
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add("--n-steps", type=positive_integer, help="T; by default the dataset's recipe")
    add("--seeds", type=int, nargs="+", help="0; of the first table 0 and 1")
    add(
        "--protocol",
        choices=[*PROTOCOLS, "both"],
        default="paper",
        help="paper: λ = 0.1, classifier fitted on 4,000 codes, scored on 1,000, 10 "
        "draws; full: λ and C chosen on held-out training samples, all training codes, "
        "official test split",
    )
    grid = {"default": list(table1.L1_GRID), "nargs": "+", "type": positive_number}
    add("--l1-grid", help="the λ that the full protocol chooses from", **grid)
    add("--jobs", type=positive_integer, default=1, help="processes for the runs")
    add(
        "--all",
        action="store_true",
        help="every row and column, as with one of "
        + ", ".join(f"--{name}".replace("_", "-") for name in OF_ALL),
    )
    add("--choose", action="store_true", help="try what the first table may be made of")
    args = parser.parse_args(argv)
    given = any(getattr(args, name) != parser.get_default(name) for name in OF_ALL)
    args.all = args.all or given
    args.seeds = args.seeds or ([0] if args.all else [0, 1])
    args.protocols = PROTOCOLS if args.protocol == "both" else (args.protocol,)
    return args


if __name__ == "__main__":
    arguments.run_program(main)
