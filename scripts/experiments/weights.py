"""The trained weights that ship with the package: their training and their cards."""

import json
from dataclasses import replace

import keras

from sc2keras.applications.pretrained import file_sha256

from .methods import METHODS, UNTIED, Method
from .recipes import RECIPES
from .records import write_json
from .reports import cells, markdown

# The networks that come closest to the optimum: those with a W_d of their own, and what
# keeps the exact gradient.
BUILDERS = {
    "SC2Net": METHODS["slstm-untied"],
    "LISTA": METHODS["lista-untied"],
    "LFISTA": replace(METHODS["lfista"], kwargs=UNTIED),
    "StepLFISTA": Method("step-LFISTA", "StepLFISTA"),
}
# λ and the recipe of each dataset: of those that the full protocol chooses from, the λ
# of the best codes on held-out training samples.
TRAINING = {
    "digits": (0.1, RECIPES["digits"].replace(epochs=400)),
    "mnist": (0.5, RECIPES["mnist"].replace(epochs=60)),
    "cifar10": (1.0, RECIPES["cifar10"].replace(epochs=36)),
}
# What of a dataset's recipe is another for a builder.
OWN = {
    "StepLFISTA": {
        "optimizer": "adam",
        "learning_rate": 0.01,
        "clipnorm": 1.0,
        "n_steps": 10,
    }
}
DATA = {
    "digits": (
        "Optical Recognition of Handwritten Digits (scikit-learn's copy)",
        "CC BY 4.0 (UCI Machine Learning Repository)",
    ),
    "mnist": ("MNIST (TensorFlow Datasets, mnist 3.0.1)", "CC BY-SA 3.0"),
    "cifar10": (
        "CIFAR-10 (TensorFlow Datasets, cifar10 3.0.2)",
        "none stated; the authors ask for a citation of Krizhevsky, 2009, "
        "Learning Multiple Layers of Features from Tiny Images",
    ),
}
FIGURES = ("objective", "optimum", "gap", "nonzero", "full", "paper")


def ship(builder, run, record, n_samples, output):
    """Writes the model without its optimizer, and the card beside it."""
    path, (data, licence) = output / f"{run.name}.keras", DATA[run.dataset]
    keras.saving.load_model(run.model_path, compile=False).save(path)
    note = f" ({record['note']})" if record["note"] else ""
    card = {
        "builder": builder,
        "weights": run.dataset,
        "sha256": file_sha256(path),
        "licence": "Apache-2.0",
        "data": {
            "name": data + note,
            "licence": licence,
            "split": f"the training split, {n_samples:,} samples, without labels",
            "preprocessing": "pixels in [0, 1]",
        },
        "settings": record["settings"],
        "seed": run.seed,
        **{name: record[name] for name in ("training_seconds", "environment")},
        "command": f"python scripts/train_weights.py --datasets {run.dataset} "
        f"--builders {builder}",
        "train": {name: record[f"train_{name}"] for name in ("objective", "nonzero")},
        "test": {name: record[name] for name in FIGURES},
    }
    write_json(path.with_suffix(".json"), card)


def table(folder):
    rows = []
    for path in sorted(folder.glob("*.json")):
        card = json.loads(path.read_text())
        size = path.with_suffix(".keras").stat().st_size / 1000
        figures = card["settings"] | card["test"] | {"kb": size}
        shown = cells(figures, l1="g", n_steps=".0f")
        names = ("objective", "gap", "nonzero", "paper", "full")
        shown += cells(figures, *names, kb=",.0f")
        rows.append([card["builder"], card["weights"], *shown])
    header = ["builder", "weights", "λ", "T", "objective", "gap, %", "nonzero"]
    header += ["paper protocol, %", "full protocol, %", "kB"]
    return markdown(header, rows) + (
        "\n100 atoms; figures of the test split, by the commands in the cards.\n"
    )
