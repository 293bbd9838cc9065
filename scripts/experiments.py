"""What the scripts on the paper's experiments share: methods, recipes and runs."""

import json
import logging
import math
import os
import sys
import time
import zlib
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import joblib
import keras
import numpy as np
from reporting import environment, write_json
from scipy import stats
from sklearn.decomposition import PCA
from tqdm import tqdm
from tqdm.keras import TqdmCallback

import sc2keras
from sc2keras import applications, datasets, evaluation
from sc2keras.files import replace_file
from sc2keras.metrics import NONZERO_THRESHOLD
from sc2keras.models.divergence import DivergenceError

# It warns that it traces anew for every model, of which there are many.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

SOLVERS = ("ISTA", "FISTA")
PROTOCOLS = ("paper", "full")


@dataclass(frozen=True)
class Method:
    """A row of a table: a builder, its arguments, where it starts, the paper's figures.

    It starts from the classical dictionary, as the paper's baselines do, or from
    normalised training samples: the paper's SLSTM learns its dictionary end to end.
    """

    label: str
    builder: str
    paper: dict = field(default_factory=dict)
    kwargs: dict = field(default_factory=dict)
    start: str = "classical"
    # Where a dataset's own learning rate is not the best for this method.
    learning_rates: dict = field(default_factory=dict)


METHODS = {
    "ista-20": Method(
        "ISTA, 20 steps",
        "ISTA",
        {"mnist": 85.25, "cifar10": 34.05},
        {"n_steps": 20},
    ),
    "fista-20": Method(
        "FISTA, 20 steps",
        "FISTA",
        {"mnist": 86.65, "cifar10": 35.75},
        {"n_steps": 20},
    ),
    "fista": Method(
        "LASSO, converged",
        "FISTA",
        kwargs={"tol": 1e-4, "n_steps": 3000},
    ),
    "lista": Method("LISTA", "LISTA", {"mnist": 85.75, "cifar10": 35.12}),
    "lista-untied": Method("LISTA, untied", "LISTA", kwargs={"tied": False}),
    "lfista": Method("LFISTA", "LFISTA", {"mnist": 85.55, "cifar10": 35.65}),
    "adaptive-ista": Method("adaptive ISTA", "AdaptiveISTA"),
    "slstm": Method(
        "SLSTM, double tanh",
        "SC2Net",
        {"mnist": 89.81, "cifar10": 39.10},
        {"activation": "double_tanh"},
        start="samples",
        learning_rates={"cifar10": 0.3},
    ),
    "slstm-shrinkage": Method(
        "SLSTM, shrinkage",
        "SC2Net",
        {"mnist": 89.81, "cifar10": 39.10},
        {"activation": "shrinkage"},
        start="samples",
        learning_rates={"cifar10": 0.3},
    ),
    "slstm-factored": Method(
        "SLSTM, factored",
        "SC2Net",
        {"mnist": 89.81, "cifar10": 39.10},
        {"activation": "shrinkage", "recurrent": "factored"},
        start="samples",
        learning_rates={"cifar10": 0.3},
    ),
    "slstm-classical": Method(
        "SLSTM, classical start",
        "SC2Net",
        kwargs={"activation": "shrinkage"},
    ),
    "slstm-untied": Method(
        "SLSTM, classical start, untied",
        "SC2Net",
        kwargs={"activation": "shrinkage", "tied": False},
    ),
}


@dataclass(frozen=True)
class Recipe:
    """How the networks of a dataset are trained; chosen on held-out training images."""

    n_steps: int = 5
    epochs: int = 12
    batch_size: int = 256
    learning_rate: float = 1.0
    warmup_epochs: int = 0
    clipnorm: float | None = None
    objective_weight: float = 1.0
    # XLA takes seconds to compile, which a small dataset does not earn back.
    jit_compile: bool | str = "auto"

    def compile(self, model, n_samples, **kwargs):
        """Compiles for `fit` on so many samples."""
        n_batches = math.ceil(n_samples / self.batch_size)
        optimizer = keras.optimizers.Adadelta(
            self.schedule(n_batches), epsilon=1e-6, global_clipnorm=self.clipnorm
        )
        if keras.backend.backend() != "torch":
            kwargs["steps_per_execution"] = 20
        model.compile(optimizer, jit_compile=self.jit_compile, **kwargs)

    def schedule(self, n_batches):
        """The learning rate over epochs of so many batches: a cosine to zero."""
        n_warmup = self.warmup_epochs * n_batches
        return keras.optimizers.schedules.CosineDecay(
            0.0 if n_warmup else self.learning_rate,
            max(1, self.epochs * n_batches - n_warmup),
            warmup_target=self.learning_rate if n_warmup else None,
            warmup_steps=n_warmup,
        )


RECIPES = {
    "digits": Recipe(epochs=40, batch_size=128, jit_compile=False),
    "mnist": Recipe(epochs=20),
    "cifar10": Recipe(learning_rate=0.1),
}


def recipe_of(dataset, method):
    """The recipe of a method on a dataset."""
    return with_options(
        RECIPES[dataset], learning_rate=method.learning_rates.get(dataset)
    )


def load_data(name, data_dir=None):
    try:
        return datasets.load(name, data_dir=data_dir)
    except (datasets.DatasetUnavailableError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


def hold_out(data):
    """The dataset with the last sixth of its training split as the test split."""
    start = len(data.x_train) * 5 // 6
    return data._replace(
        x_train=data.x_train[:start],
        y_train=data.y_train[:start],
        x_test=data.x_train[start:],
        y_test=data.y_train[start:],
    )


@dataclass(frozen=True)
class Run:
    """One method on one dataset with one λ and one seed: its files, and its making.

    `folder` holds `models/` and `runs/`; a run whose record is in `runs/` is read, not
    made again.
    """

    name: str
    folder: Path
    dataset: str
    method: Method
    recipe: Recipe
    l1: float
    seed: int = 0
    n_atoms: int = 100
    validation: bool = False

    @property
    def model_path(self):
        return self.folder / "models" / f"{self.name}.keras"

    @property
    def record_path(self):
        return self.folder / "runs" / f"{self.name}.json"

    @property
    def shares_start(self):
        """Whether all runs with its data, λ and seed start from one dictionary."""
        return self.method.start == "classical"

    @property
    def dictionary_path(self):
        name = f"{self.dataset}-l1-{self.l1:g}-dictionary-seed{self.seed}.npz"
        return self.model_path.with_name(name)

    @property
    def trained(self):
        return self.method.builder not in SOLVERS

    @cached_property
    def settings(self):
        settings = {
            "builder": self.method.builder,
            "kwargs": self.method.kwargs,
            "start": self.method.start,
            "n_atoms": self.n_atoms,
            "l1": self.l1,
            "seed": self.seed,
            "validation": self.validation,
        }
        return settings | (asdict(self.recipe) if self.trained else {})

    def check_settings(self):
        """Exits, before any work, if the folder holds this run with other settings."""
        if self.record_path.exists():
            found = self.found()["settings"]
            if found != self.settings:
                sys.exit(
                    f"error: {self.record_path} was made with {found}, but now "
                    f"{self.settings} is asked for. Choose another --output, or delete "
                    "that file."
                )

    def found(self):
        """The record that the folder holds, or an empty one."""
        if self.record_path.exists():
            return json.loads(self.record_path.read_text())
        return {}

    def is_whole(self, protocols=(), optimum=True):
        """Whether the folder's record has all that is asked for."""
        record, asked = self.found(), {*protocols}
        if optimum:
            asked.add("optimum")
        return "diverged" in record or (bool(record) and asked <= record.keys())

    @property
    def is_trained(self):
        return self.record_path.exists() and self.model_path.exists()

    def run(self, data, protocols=(), optimum=True):
        """The record of this run, read, or made and written.

        It has the objective, the accuracy for each of `protocols` and, if `optimum`,
        the gap to the optimum of the same dictionary; where training diverged, that it
        did, and an objective which is NaN or worse than that of codes of zero.
        """
        record = self.found()
        check_note(self, record, data)
        if self.is_whole(protocols, optimum):
            return record
        missing = [p for p in protocols if p not in record]
        for folder in (self.model_path.parent, self.record_path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.is_trained:
            # With the model all that was measured is made again.
            missing = [p for p in PROTOCOLS if p in record or p in protocols]
            optimum = optimum or "optimum" in record
            record = self.train(data)
            if "diverged" in record:
                write_json(self.record_path, record)
                return record
        model = keras.saving.load_model(self.model_path)
        codes_train = model.encode(data.x_train)
        codes_test = model.encode(data.x_test)
        if "objective" not in record:
            for prefix, x, codes in [
                ("train_", data.x_train, codes_train),
                ("", data.x_test, codes_test),
            ]:
                record[prefix + "objective"] = evaluation.mean_objective(
                    x, codes, model.dictionary, self.l1
                )
                nonzero = np.mean(np.abs(codes) > NONZERO_THRESHOLD)
                record[prefix + "nonzero"] = float(nonzero)
            without_codes = evaluation.mean_objective(
                data.x_test, np.zeros_like(codes_test), model.dictionary, self.l1
            )
            # Not for codes that a large λ makes zero, to rounding; but for NaN.
            if not record["objective"] <= 1.001 * without_codes:
                record["diverged"] = True
                write_json(self.record_path, record)
                return record
            if len(model.outputs) > 1:
                record.update(head_accuracy(model, data))
        if optimum and "optimum" not in record:
            quality = evaluation.code_quality(model, data.x_test, codes_test)
            record.update(quality._asdict())
        codes = (codes_train, data.y_train, codes_test, data.y_test)
        record.update(accuracies(codes, missing, self.seed))
        write_json(self.record_path, record)
        return record

    def train(self, data):
        """Makes the model and writes its file; returns the start of the record.

        There is no file of a model whose training diverged.
        """
        # Keras keeps the graphs of every model: gigabytes over a hundred runs.
        keras.backend.clear_session()
        dictionary, seconds = self.start(data.x_train)
        model = self.build(data.x_train.shape[1:], dictionary)
        losses, outcome = [], {}
        if self.trained:
            started = time.perf_counter()
            try:
                losses = self.fit(model, data)
            except DivergenceError:
                names = ("objective", "nonzero", "train_objective", "train_nonzero")
                outcome = {"diverged": True, **dict.fromkeys(names, math.nan)}
            seconds += time.perf_counter() - started
        if not outcome:
            model.save(self.model_path)
        return {
            "dataset": self.dataset,
            "note": data.note,
            "label": self.method.label,
            "settings": self.settings,
            "training_seconds": seconds,
            "loss": losses,
            "environment": environment(),
            **outcome,
        }

    def build(self, input_shape, dictionary):
        keras.utils.set_random_seed(self.seed)
        kwargs = {"n_steps": self.recipe.n_steps} if self.trained else {}
        return getattr(applications, self.method.builder)(
            n_atoms=self.n_atoms,
            input_shape=input_shape,
            l1=self.l1,
            dictionary=dictionary,
            **(kwargs | self.method.kwargs),
        )

    def fit(self, model, data):
        recipe, targets, kwargs = self.recipe, (), {}
        if len(model.outputs) > 1:
            targets = (data.y_train,)
            kwargs["loss"] = "sparse_categorical_crossentropy"
            kwargs["objective_weight"] = recipe.objective_weight
        recipe.compile(model, len(data.x_train), **kwargs)
        history = model.fit(
            data.x_train,
            *targets,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            verbose=0,
            callbacks=[TqdmCallback(verbose=0, desc=self.name, leave=False)],
        )
        return history.history["loss"]

    def start(self, x):
        """The dictionary that the method starts from, and the seconds it took."""
        if self.method.start == "random":
            return None, 0.0
        if self.method.start == "samples":
            return sc2keras.sample_dictionary(x, self.n_atoms, self.seed), 0.0
        path = self.dictionary_path
        path.parent.mkdir(parents=True, exist_ok=True)
        checksum = zlib.crc32(np.ascontiguousarray(x))
        settings = {"n_atoms": self.n_atoms, "x": checksum}
        if path.exists():
            with np.load(path) as saved:
                if json.loads(str(saved["settings"])) == settings:
                    return saved["dictionary"], float(saved["seconds"])
        started = time.perf_counter()
        dictionary = sc2keras.learn_dictionary(x, self.n_atoms, self.l1, seed=self.seed)
        seconds = time.perf_counter() - started
        content = {"dictionary": dictionary, "settings": json.dumps(settings)}
        replace_file(path, lambda p: np.savez(p, seconds=seconds, **content))
        return dictionary, seconds


@dataclass(frozen=True)
class Ceiling:
    """The same classifier on features that are no sparse codes: what a reader compares.

    `kind` is "pixels", "pca" or "autoencoder".
    """

    name: str
    folder: Path
    dataset: str
    kind: str
    label: str
    recipe: Recipe
    seed: int = 0
    n_features: int = 100
    validation: bool = False

    shares_start = False
    record_path = Run.record_path
    check_settings = Run.check_settings
    found = Run.found

    @cached_property
    def settings(self):
        settings = {"kind": self.kind, "seed": self.seed, "validation": self.validation}
        if self.kind != "pixels":
            settings["n_features"] = self.n_features
        return settings | (asdict(self.recipe) if self.kind == "autoencoder" else {})

    def run(self, data, protocols=(), optimum=True):
        found = self.found()
        check_note(self, found, data)
        if found.keys() >= {*protocols, "settings"}:
            return found
        protocols = [p for p in PROTOCOLS if p in found or p in protocols]
        self.record_path.parent.mkdir(parents=True, exist_ok=True)
        train, test = (x.reshape(len(x), -1) for x in (data.x_train, data.x_test))
        if self.kind == "pca":
            pca = PCA(min(self.n_features, *train.shape), random_state=self.seed)
            pca.fit(train)
            train, test = pca.transform(train), pca.transform(test)
        elif self.kind == "autoencoder":
            hidden = self.autoencoder(train)
            train, test = (
                hidden.predict(x, batch_size=2048, verbose=0) for x in (train, test)
            )
        record = {
            "dataset": self.dataset,
            "note": data.note,
            "label": self.label,
            "settings": self.settings,
            "environment": environment(),
        }
        codes = (train, data.y_train, test, data.y_test)
        record.update(accuracies(codes, protocols, self.seed))
        write_json(self.record_path, record)
        return record

    def autoencoder(self, x):
        """The hidden layer of a ReLU autoencoder, trained as long as the networks."""
        keras.utils.set_random_seed(self.seed)
        inputs = keras.Input((x.shape[1],))
        codes = keras.layers.Dense(self.n_features, activation="relu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(x.shape[1])(codes))
        self.recipe.compile(model, len(x), loss=sc2keras.losses.ReconstructionLoss())
        bar = TqdmCallback(verbose=0, desc=self.name, leave=False)
        epochs, batch_size = self.recipe.epochs, self.recipe.batch_size
        model.fit(
            x, x, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[bar]
        )
        return keras.Model(inputs, codes)


def check_note(run, record, data):
    """Exits if a record was made with another copy of its dataset."""
    if record and record["note"] != data.note:
        sys.exit(
            f"error: {run.record_path} was made with {run.dataset} "
            f"{record['note'] or 'as published'!r}, but now it is "
            f"{data.note or 'as published'!r}. Choose another --output, or delete that "
            "file."
        )


CEILINGS = {
    "autoencoder": "ReLU autoencoder",
    "pca": "PCA",
    "pixels": "raw features",
}


def run_all(
    runs, data, description, protocols=(), optimum=True, jobs=1, may_diverge=False
):
    """The record of every run, `{key: record}`, made by so many processes.

    `data` holds the datasets by name. Exits in the end if trainings diverged, unless
    they may.
    """
    if jobs > 1:
        # The bars of several processes would overwrite each other.
        os.environ["TQDM_DISABLE"] = "1"
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(max(1, joblib.cpu_count() // jobs))
    parallel = joblib.Parallel(jobs, return_as="generator")
    # Before the runs that share them, lest two of these learn the same one.
    dictionaries = {
        run.dictionary_path: joblib.delayed(run.start)(data[run.dataset].x_train)
        for run in runs.values()
        if run.shares_start and not (run.is_trained or run.is_whole(protocols, optimum))
    }
    made = parallel(dictionaries.values())
    for _ in tqdm(made, "dictionaries", len(dictionaries), disable=not dictionaries):
        pass
    records = parallel(
        joblib.delayed(run.run)(data[run.dataset], protocols, optimum)
        for run in runs.values()
    )
    bar = tqdm(records, description, len(runs), unit="run", disable=not runs)
    records = dict(zip(runs, bar, strict=True))
    for key, record in records.items():
        if record.get("diverged") and not may_diverge:
            sys.exit(
                f"error: {runs[key].name} diverged: its objective on samples that it "
                f"was not trained on is {record['objective']:.3g}, which codes of zero "
                f"are below ({runs[key].record_path}). A lower learning rate or fewer "
                "steps help."
            )
    return records


def accuracies(codes, protocols, seed):
    """What the classifier reaches on `(train, y_train, test, y_test)`, by protocol."""
    record = {}
    if "paper" in protocols:
        draws = evaluation.make_draws(len(codes[0]), len(codes[2]), seed=seed)
        record["paper"] = evaluation.paper_accuracy(*codes, draws).tolist()
    if "full" in protocols:
        full = evaluation.full_accuracy(*codes)
        record |= {
            "full": full.accuracy,
            "full_train": full.train_accuracy,
            "full_C": full.C,
        }
    return record


def percent(record, protocol):
    """Accuracy in percent; NaN where training diverged."""
    return 100 * float(np.mean(record.get(protocol, math.nan)))


def head_accuracy(model, data):
    """The accuracy of a cascade's own classifier."""
    return {
        name: float(
            np.mean(model.predict(x, batch_size=2048, verbose=0)[1].argmax(1) == y)
        )
        for name, x, y in [
            ("head", data.x_test, data.y_test),
            ("head_train", data.x_train, data.y_train),
        ]
    }


def paired_interval(differences):
    """`(mean, half)` of the 95 % interval of Student's t; half is NaN for one value."""
    n = len(differences)
    mean = float(np.mean(differences))
    if n < 2:
        return mean, math.nan
    spread = float(np.std(differences, ddof=1)) / math.sqrt(n)
    return mean, float(stats.t.ppf(0.975, n - 1)) * spread


def markdown(header, rows, n_text=2):
    """A Markdown table whose first `n_text` columns are text, the others figures."""
    rule = ["---"] * n_text + ["---:"] * (len(header) - n_text)
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def with_options(recipe, **options):
    """The recipe with those of the options that are not None."""
    return replace(recipe, **{k: v for k, v in options.items() if v is not None})
