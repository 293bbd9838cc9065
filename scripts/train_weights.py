"""Makes the trained weights that ship with the package, and their cards.

    python scripts/train_weights.py --datasets digits --builders SC2Net

What is trained is kept in --work: a run that was stopped goes on where it was.
"""

import itertools
import sys
from pathlib import Path

from experiments import weights
from experiments.arguments import load_data, make_parser, run_program
from experiments.records import Store
from experiments.reports import write_text
from experiments.runs import PROTOCOLS, Run, check_settings
from experiments.weights import BUILDERS, OWN, TRAINING
from tqdm import tqdm

from sc2keras import datasets

ROOT = Path(__file__).parents[1]


def main(argv=None):
    parser = make_parser(
        __doc__.split("\n\n")[0], ROOT / "sc2keras" / "weights", has_data=True
    )
    add = parser.add_argument
    add("--datasets", nargs="+", choices=datasets.NAMES, default=list(TRAINING))
    add("--builders", nargs="+", choices=BUILDERS, default=list(BUILDERS))
    add("--work", type=Path, default=Path("out/weights"))
    add("--table", type=Path, default=ROOT / "results" / "weights" / "table.md")
    args = parser.parse_args(argv)
    data = {name: load_data(name, args.data_dir) for name in args.datasets}
    store, runs = Store(args.work / "runs"), {}
    for name, b in itertools.product(args.datasets, args.builders):
        l1, recipe = TRAINING[name]
        recipe = recipe.replace(**OWN.get(b, {}))
        where = f"{b.lower()}-{name}", store, name
        runs[b, name] = Run(*where, recipe, method=BUILDERS[b], l1=l1)
    check_settings(runs.values())
    args.output.mkdir(parents=True, exist_ok=True)
    bar = tqdm(runs.items(), "weights", unit="model")
    for (builder, name), run in bar:
        bar.set_postfix_str(run.name)
        record = run.run(data[name], PROTOCOLS)
        if "diverged" in record:
            sys.exit(f"error: {run.name} diverged. A lower learning rate helps.")
        weights.ship(builder, run, record, len(data[name].x_train), args.output)
    args.table.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.table, weights.table(args.output))


if __name__ == "__main__":
    run_program(main)
