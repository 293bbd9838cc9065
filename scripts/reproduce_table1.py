"""Reproduces Table 1 of "An End-to-End Sparse Coding" (Zhou et al., 2017).

Trains every method on every dataset, saves each model, loads it again, encodes, fits a
logistic regression on the codes, and prints the paper's table beside its own:

    python scripts/reproduce_table1.py                          # digits, a minute
    python scripts/reproduce_table1.py --datasets mnist cifar10 --output results/table1

What is finished is kept in --output and never computed again: a run that was stopped
goes on where it was.
"""

import argparse
import json
import logging
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
from reporting import (
    environment,
    positive_integer,
    positive_number,
    replace_file,
    save_figure,
    write_json,
)
from tqdm import tqdm
from tqdm.keras import TqdmCallback

import sc2keras
from sc2keras import applications, datasets, evaluation, plotting

N_CURVE_STEPS = 100
N_CURVE_SAMPLES = 500


@dataclass(frozen=True)
class Method:
    """A row of the table: a builder, its arguments, and the paper's figures.

    It starts from the classical dictionary, as the paper's baselines do, or from
    normalised training samples: the SLSTM learns its dictionary end to end.
    """

    label: str
    builder: str
    paper: dict = field(default_factory=dict)
    kwargs: dict = field(default_factory=dict)
    trained: bool = True
    classical_start: bool = True


METHODS = {
    "ista": Method(
        "ISTA, converged",
        "ISTA",
        {"mnist": 85.25, "cifar10": 34.05},
        {"tol": 1e-3, "n_steps": 3000},
        trained=False,
    ),
    "ista-20": Method(
        "ISTA, 20 steps",
        "ISTA",
        {"mnist": 85.25, "cifar10": 34.05},
        {"n_steps": 20},
        trained=False,
    ),
    "fista": Method(
        "FISTA, converged",
        "FISTA",
        {"mnist": 86.65, "cifar10": 35.75},
        {"tol": 1e-4, "n_steps": 3000},
        trained=False,
    ),
    "fista-20": Method(
        "FISTA, 20 steps",
        "FISTA",
        {"mnist": 86.65, "cifar10": 35.75},
        {"n_steps": 20},
        trained=False,
    ),
    "lista": Method("LISTA", "LISTA", {"mnist": 85.75, "cifar10": 35.12}),
    "lfista": Method("LFISTA", "LFISTA", {"mnist": 85.55, "cifar10": 35.65}),
    "adaptive-ista": Method("adaptive ISTA", "AdaptiveISTA"),
    "slstm": Method(
        "SLSTM, double tanh",
        "SC2Net",
        {"mnist": 89.81, "cifar10": 39.10},
        {"activation": "double_tanh"},
        classical_start=False,
    ),
    "slstm-shrinkage": Method(
        "SLSTM, shrinkage",
        "SC2Net",
        {"mnist": 89.81, "cifar10": 39.10},
        {"activation": "shrinkage"},
        classical_start=False,
    ),
}


@dataclass(frozen=True)
class Recipe:
    """How the networks of a dataset are trained; chosen on held-out training images."""

    n_steps: int = 5
    epochs: int = 12
    batch_size: int = 256
    learning_rate: float = 1.0
    # XLA takes seconds to compile, which a small dataset does not earn back.
    jit_compile: bool | str = "auto"


RECIPES = {
    "digits": Recipe(epochs=40, batch_size=128, jit_compile=False),
    "mnist": Recipe(),
    "cifar10": Recipe(learning_rate=0.3),
}


def main(argv=None):
    args = parse_arguments(argv)
    # TensorFlow warns that it traces anew for every model, of which there are many.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    data = {name: load_data(name, args) for name in args.datasets}
    for folder in ("models", "runs"):
        (args.output / folder).mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(name, key, seed, args)
        for name in args.datasets
        for seed in args.seeds
        for key in args.methods
    ]
    for job in jobs:
        job.check_settings()
    bar = tqdm(jobs, "Table 1", unit="run")
    records = []
    for job in bar:
        bar.set_postfix_str(job.name)
        records.append(job.run(data[job.dataset]))
    write_results(records, args)
    for name in args.datasets:
        draw(name, data[name], args)
    print(f"\nModels, runs, table and pictures are in {args.output}")


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--datasets", nargs="+", choices=datasets.NAMES, default=["digits"])
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add("--n-atoms", type=positive_integer, default=100, help="k")
    add("--n-steps", type=positive_integer, help="T; by default the dataset's recipe")
    add("--l1", type=positive_number, default=0.1, help="λ")
    add("--epochs", type=positive_integer, help="by default the dataset's recipe")
    add("--seeds", type=int, nargs="+", default=[0])
    add(
        "--protocol",
        choices=["paper", "full", "both"],
        default="paper",
        help="paper: classifier fitted on 4,000 codes, scored on 1,000, 10 draws; "
        "full: all training codes, C chosen on a holdout, official test split",
    )
    add("--data-dir", help="where TensorFlow Datasets keeps its prepared datasets")
    add("--output", type=Path, default=Path("out/table1"))
    add(
        "--validation",
        action="store_true",
        help="measure on a sixth of the training split, held out, in place of the test "
        "split: for choosing a recipe",
    )
    args = parser.parse_args(argv)
    args.protocols = ["paper", "full"] if args.protocol == "both" else [args.protocol]
    return args


def load_data(name, args):
    try:
        data = datasets.load(name, data_dir=args.data_dir)
    except (datasets.DatasetUnavailableError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if args.validation:
        start = len(data.x_train) * 5 // 6
        data = data._replace(
            x_train=data.x_train[:start],
            y_train=data.y_train[:start],
            x_test=data.x_train[start:],
            y_test=data.y_train[start:],
        )
    return data


class Job:
    """One method on one dataset with one seed: its files, and how they are made."""

    def __init__(self, dataset, key, seed, args):
        self.dataset, self.key, self.seed, self.args = dataset, key, seed, args
        self.method = METHODS[key]
        self.name = f"{dataset}-{key}-seed{seed}"
        self.model_path = args.output / "models" / f"{self.name}.keras"
        self.record_path = args.output / "runs" / f"{self.name}.json"
        recipe = RECIPES[dataset]
        self.settings = {"n_atoms": args.n_atoms, "l1": args.l1}
        if self.method.trained:
            self.settings |= asdict(recipe)
            self.settings["n_steps"] = args.n_steps or recipe.n_steps
            self.settings["epochs"] = args.epochs or recipe.epochs
        self.settings["validation"] = args.validation

    def check_settings(self):
        """Exits, before any work, if --output holds runs with other settings."""
        if self.record_path.exists():
            found = json.loads(self.record_path.read_text())["settings"]
            if found != self.settings:
                sys.exit(
                    f"error: {self.record_path} was made with {found}, but now "
                    f"{self.settings} is asked for. Choose another --output, or delete "
                    "that file."
                )

    def run(self, data):
        """The record of this job: read, or made and written."""
        record = {}
        if self.record_path.exists():
            record = json.loads(self.record_path.read_text())
        missing = [p for p in self.args.protocols if p not in record]
        if record and not missing:
            return record
        if not record:
            record = self.train(data)
        model = keras.saving.load_model(self.model_path)
        codes_train = model.encode(data.x_train)
        started = time.perf_counter()
        codes_test = model.encode(data.x_test)
        seconds = time.perf_counter() - started
        if "objective" not in record:
            record["codes_per_second"] = len(codes_test) / seconds
            quality = evaluation.code_quality(model, data.x_test, codes_test)
            record.update(quality._asdict())
        codes = (codes_train, data.y_train, codes_test, data.y_test)
        if "paper" in missing:
            draws = evaluation.make_draws(len(data.x_train), len(data.x_test))
            record["paper"] = evaluation.paper_accuracy(*codes, draws).tolist()
        if "full" in missing:
            accuracy, c = evaluation.full_accuracy(*codes)
            record["full"], record["full_C"] = accuracy, c
        write_json(self.record_path, record)
        return record

    def train(self, data):
        """Makes the model and writes its file; returns the start of the record."""
        dictionary, seconds = self.start(data.x_train)
        keras.utils.set_random_seed(self.seed)
        kwargs = {**self.method.kwargs, "dictionary": dictionary}
        if self.method.trained:
            kwargs["n_steps"] = self.settings["n_steps"]
        model = getattr(applications, self.method.builder)(
            n_atoms=self.args.n_atoms,
            input_shape=data.x_train.shape[1:],
            l1=self.args.l1,
            **kwargs,
        )
        losses = []
        if self.method.trained:
            started = time.perf_counter()
            losses = self.fit(model, data.x_train)
            seconds += time.perf_counter() - started
        replace_file(self.model_path, model.save)
        return {
            "dataset": self.dataset,
            "note": data.note,
            "method": self.key,
            "label": self.method.label,
            "seed": self.seed,
            "settings": self.settings,
            "training_seconds": seconds,
            "loss": losses,
            "environment": environment(),
        }

    def fit(self, model, x):
        epochs, batch_size = self.settings["epochs"], self.settings["batch_size"]
        schedule = keras.optimizers.schedules.CosineDecay(
            self.settings["learning_rate"], epochs * math.ceil(len(x) / batch_size)
        )
        model.compile(
            keras.optimizers.Adadelta(schedule, epsilon=1e-6),
            jit_compile=self.settings["jit_compile"],
            steps_per_execution=20,
        )
        bar = TqdmCallback(verbose=0, desc=self.name, leave=False)
        history = model.fit(
            x, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[bar]
        )
        return history.history["loss"]

    def start(self, x):
        """The dictionary that the method starts from, and the seconds it took."""
        if not self.method.classical_start:
            return sc2keras.sample_dictionary(x, self.args.n_atoms, self.seed), 0.0
        name = f"{self.dataset}-dictionary-seed{self.seed}.npz"
        path = self.args.output / "models" / name
        settings = {"n_atoms": self.args.n_atoms, "l1": self.args.l1}
        settings |= {"n_samples": len(x), "seed": self.seed}
        if path.exists():
            with np.load(path) as saved:
                if json.loads(str(saved["settings"])) == settings:
                    return saved["dictionary"], float(saved["seconds"])
        started = time.perf_counter()
        dictionary = sc2keras.learn_dictionary(
            x, self.args.n_atoms, self.args.l1, seed=self.seed
        )
        seconds = time.perf_counter() - started
        content = {"dictionary": dictionary, "settings": json.dumps(settings)}
        replace_file(path, lambda p: np.savez(p, seconds=seconds, **content))
        return dictionary, seconds


def write_results(records, args):
    table = markdown_table(records, args)
    write_json(args.output / "results.json", records)
    replace_file(args.output / "table.md", lambda p: p.write_text(table))
    print("\n" + table)


def markdown_table(records, args):
    """The table as Markdown, a row for each dataset and method, means over seeds."""
    accuracies = [f"{protocol} protocol, %" for protocol in args.protocols]
    header = [
        "dataset",
        "method",
        "the paper, %",
        *accuracies,
        "objective",
        "optimum",
        "gap, %",
        "nonzero",
        "training, s",
        "codes/s",
    ]
    rows = []
    for dataset in args.datasets:
        for key in args.methods:
            found = [
                r for r in records if (r["dataset"], r["method"]) == (dataset, key)
            ]
            if found:
                rows.append(table_row(found, METHODS[key], args.protocols))
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2), *rows]
    n_seeds = len(args.seeds)
    spread = f"over {n_seeds} seeds" if n_seeds > 1 else "over the draws of one seed"
    split = "images held out of the training split" if args.validation else "test split"
    return (
        "\n".join("| " + " | ".join(line) + " |" for line in lines)
        + f"\n\nMean ± standard deviation {spread}. Objective and optimum: on the "
        f"{split}, λ = {args.l1:g}, {args.n_atoms} atoms; the optimum is that of the "
        "LASSO with the same dictionary. Training includes the classical dictionary "
        "where the method starts from one.\n"
    )


def table_row(records, method, protocols):
    def mean(name):
        return np.mean([record[name] for record in records])

    cells = []
    for protocol in protocols:
        values = [100 * np.mean(record[protocol]) for record in records]
        spread = values
        if len(values) == 1 and protocol == "paper":
            spread = [100 * a for a in records[0]["paper"]]
        deviation = f" ± {np.std(spread):.2f}" if len(spread) > 1 else ""
        cells.append(f"{np.mean(values):.2f}{deviation}")
    dataset, note = records[0]["dataset"], records[0]["note"]
    paper = method.paper.get(dataset)
    return [
        f"{dataset} ({note})" if note else dataset,
        method.label,
        f"{paper:.2f}" if paper else "",
        *cells,
        f"{mean('objective'):.3f}",
        f"{mean('optimum'):.3f}",
        f"{100 * mean('gap'):.2f}",
        f"{mean('nonzero'):.2f}",
        f"{mean('training_seconds'):.0f}",
        f"{mean('codes_per_second'):,.0f}",
    ]


def draw(name, data, args):
    """The three pictures of a dataset, from its models of the first seed."""
    models = {
        key: keras.saving.load_model(Job(name, key, args.seeds[0], args).model_path)
        for key in args.methods
    }
    shape = data.x_test.shape[1:]
    # The solvers share one dictionary: it is drawn once.
    dictionaries = {}
    for key, model in models.items():
        label = METHODS[key].label if METHODS[key].trained else "scikit-learn"
        dictionaries[label] = model.dictionary
    n_columns = min(3, len(dictionaries))
    n_rows = math.ceil(len(dictionaries) / n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(4 * n_columns, 4.3 * n_rows),
        layout="constrained",
        squeeze=False,
    )
    for ax in axes.flat[len(dictionaries) :]:
        ax.set_axis_off()
    for ax, (label, dictionary) in zip(axes.flat, dictionaries.items(), strict=False):
        plotting.plot_atoms(dictionary, shape, ax=ax)
        ax.set_title(label)
    save_figure(figure, args.output / f"{name}-atoms.png")

    x = data.x_test[:12]
    reconstructions = {METHODS[k].label: m.reconstruct(x) for k, m in models.items()}
    ax = plotting.plot_reconstructions(x, reconstructions, shape)
    save_figure(ax.figure, args.output / f"{name}-reconstructions.png")

    x = data.x_test[:N_CURVE_SAMPLES]
    curves = {}
    for key, model in models.items():
        if key in ("ista-20", "fista-20"):
            continue
        label = METHODS[key].label
        if not METHODS[key].trained:
            label = METHODS[key].builder
            model = getattr(applications, label)(
                args.n_atoms, shape, N_CURVE_STEPS, args.l1, dictionary=model.dictionary
            )
        curves[label] = [
            evaluation.mean_objective(x, codes, model.dictionary, args.l1)
            for codes in evaluation.step_codes(model, x)
        ]
    if curves:
        ax = plotting.plot_convergence(curves, f"objective, {name}, {len(x)} images")
        save_figure(ax.figure, args.output / f"{name}-convergence.png")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on where this one stopped")
