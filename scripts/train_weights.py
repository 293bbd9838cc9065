"""Makes the trained weights that ship with the package, and their cards.

    python scripts/train_weights.py                        # digits, mnist and cifar10
    python scripts/train_weights.py --datasets digits --builders SC2Net

Every model is measured on the test split, once, and its figures go into its card. What
is trained is kept in --work: a run that was stopped goes on where it was.
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from experiments import METHODS, PROTOCOLS, RECIPES, Run, load_data, markdown
from reporting import write_json
from tqdm import tqdm

from sc2keras import datasets
from sc2keras.applications.pretrained import file_sha256
from sc2keras.files import replace_file

ROOT = Path(__file__).parents[1]

# The networks that come closest to the optimum: with a W_d of their own.
BUILDERS = {
    "SC2Net": METHODS["slstm-untied"],
    "LISTA": METHODS["lista-untied"],
    "LFISTA": replace(METHODS["lfista"], kwargs={"tied": False}),
}
# λ and the recipe of each dataset: of those that the full protocol chooses from, the λ
# of the best codes on held-out training samples.
TRAINING = {
    "digits": (0.1, replace(RECIPES["digits"], epochs=400)),
    "mnist": (0.5, replace(RECIPES["mnist"], epochs=60)),
    "cifar10": (1.0, replace(RECIPES["cifar10"], epochs=36)),
}
DATA = {
    "digits": {
        "name": "Optical Recognition of Handwritten Digits (scikit-learn's copy)",
        "licence": "CC BY 4.0 (UCI Machine Learning Repository)",
    },
    "mnist": {
        "name": "MNIST (TensorFlow Datasets, mnist 3.0.1)",
        "licence": "CC BY-SA 3.0",
    },
    "cifar10": {
        "name": "CIFAR-10 (TensorFlow Datasets, cifar10 3.0.2)",
        "licence": "none stated; the authors ask for a citation of Krizhevsky, 2009, "
        "Learning Multiple Layers of Features from Tiny Images",
    },
}


def main(argv=None):
    args = parse_arguments(argv)
    data = {name: load_data(name, args.data_dir) for name in args.datasets}
    runs = {
        (builder, name): make_run(builder, name, args.work)
        for name in args.datasets
        for builder in args.builders
    }
    for run in runs.values():
        run.check_settings()
    args.output.mkdir(parents=True, exist_ok=True)
    bar = tqdm(runs.items(), "weights", unit="model")
    for (builder, name), run in bar:
        bar.set_postfix_str(run.name)
        record = run.run(data[name], PROTOCOLS)
        ship(builder, name, run, record, len(data[name].x_train), args.output)
    text = table(args.output)
    args.table.parent.mkdir(parents=True, exist_ok=True)
    replace_file(args.table, lambda path: path.write_text(text))
    print("\n" + text)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--datasets", nargs="+", choices=datasets.NAMES, default=list(TRAINING))
    add("--builders", nargs="+", choices=BUILDERS, default=list(BUILDERS))
    add("--data-dir", help="where TensorFlow Datasets keeps its prepared datasets")
    add("--work", type=Path, default=Path("out/weights"))
    add("--output", type=Path, default=ROOT / "sc2keras" / "weights")
    add("--table", type=Path, default=ROOT / "results" / "weights" / "table.md")
    return parser.parse_args(argv)


def make_run(builder, dataset, folder):
    l1, recipe = TRAINING[dataset]
    return Run(
        name=f"{builder.lower()}-{dataset}",
        folder=folder,
        dataset=dataset,
        method=BUILDERS[builder],
        recipe=recipe,
        l1=l1,
    )


def ship(builder, dataset, run, record, n_samples, output):
    """Writes the model without its optimizer, and the card beside it."""
    path = output / f"{run.name}.keras"
    model = keras.saving.load_model(run.model_path, compile=False)
    model.save(path)
    settings = record["settings"]
    note = f" ({record['note']})" if record["note"] else ""
    card = {
        "builder": builder,
        "weights": dataset,
        "sha256": file_sha256(path),
        "licence": "Apache-2.0",
        "data": {
            **DATA[dataset],
            "name": DATA[dataset]["name"] + note,
            "split": f"the training split, {n_samples:,} samples, without labels",
            "preprocessing": "pixels in [0, 1]",
        },
        "settings": settings,
        "seed": settings["seed"],
        "training_seconds": record["training_seconds"],
        "environment": record["environment"],
        "command": f"python scripts/train_weights.py --datasets {dataset} "
        f"--builders {builder}",
        "train": {
            "objective": record["train_objective"],
            "nonzero": record["train_nonzero"],
        },
        "test": {
            key: record[key]
            for key in ("objective", "optimum", "gap", "nonzero", "full", "paper")
        },
    }
    write_json(path.with_suffix(".json"), card)


def table(folder):
    """All cards of the folder as a Markdown table."""
    header = ["builder", "weights", "λ", "T", "objective", "gap, %", "nonzero"]
    header += ["paper protocol, %", "full protocol, %", "kB"]
    rows = []
    for path in sorted(folder.glob("*.json")):
        card = json.loads(path.read_text())
        test, size = card["test"], path.with_suffix(".keras").stat().st_size
        rows.append(
            [
                card["builder"],
                card["weights"],
                f"{card['settings']['l1']:g}",
                str(card["settings"]["n_steps"]),
                f"{test['objective']:.3f}",
                f"{100 * test['gap']:.2f}",
                f"{test['nonzero']:.2f}",
                f"{100 * np.mean(test['paper']):.2f}",
                f"{100 * test['full']:.2f}",
                f"{size / 1000:,.0f}",
            ]
        )
    return markdown(header, rows) + (
        "\n100 atoms; figures of the test split, by the commands in the cards.\n"
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on where this one stopped")
