"""Runs: what is made of a method, a recipe, a dataset, a λ and a seed."""

import math
import os
import sys
import time
from dataclasses import KW_ONLY, dataclass

import joblib
import keras
import numpy as np
from sklearn.decomposition import PCA
from tqdm import tqdm
from tqdm.keras import TqdmCallback

import sc2keras
from sc2keras import applications, evaluation
from sc2keras.metrics import NONZERO_THRESHOLD
from sc2keras.models.divergence import DivergenceError

from .methods import CEILINGS, SOLVERS, Method
from .recipes import Recipe
from .records import Store, environment

PROTOCOLS = ("paper", "full")


@dataclass
class Features:
    """Features of one dataset with one seed, and in `store` how well they classify."""

    name: str
    store: Store
    dataset: str
    recipe: Recipe
    _: KW_ONLY
    seed: int = 0
    n_atoms: int = 100
    validation: bool = False
    has_optimum = True

    def run(self, data, protocols=(), optimum=True):
        """The record, read, or made and written, with the accuracy by each protocol."""
        record = self.store.find(self.name, note=data.note)
        if not self.is_whole(record, protocols, optimum):
            # What was measured is measured again if it has to be made anew.
            protocols = [p for p in PROTOCOLS if p in record or p in protocols]
            record = self.complete(record, data, protocols, optimum)
            self.store.write(self.name, record)
        return record

    def is_whole(self, record, protocols, optimum):
        asked = {*protocols, *(["optimum"] if optimum and self.has_optimum else [])}
        return "diverged" in record or (bool(record) and asked <= record.keys())

    def needs_start(self, protocols, optimum):
        """Whether `run` will need the dictionary that runs share."""
        return False

    def new_record(self, data, **figures):
        asked = {"dataset": self.dataset, "note": data.note, "label": self.label}
        asked |= {"settings": self.settings, "environment": environment()}
        return asked | figures

    def classify(self, record, protocols, data, train, test):
        codes = train, data.y_train, test, data.y_test
        if "paper" in protocols and "paper" not in record:
            draws = evaluation.make_draws(len(train), len(test), seed=self.seed)
            record["paper"] = evaluation.paper_accuracy(*codes, draws).tolist()
        if "full" in protocols and "full" not in record:
            full = evaluation.full_accuracy(*codes)
            record["full"], record["full_train"], record["full_C"] = full

    def fit(self, model, x, y):
        options = {"desc": self.name, "leave": False, "disable": None}
        bar = TqdmCallback(verbose=0, **options)
        return self.recipe.fit(model, x, y, verbose=0, callbacks=[bar])


@dataclass(kw_only=True)
class Run(Features):
    """The codes of one method with one λ, and their model."""

    method: Method
    l1: float
    # From whose dictionary it starts.
    dictionary_of: "Run | None" = None

    def __post_init__(self):
        self.label, self.trained = self.method.label, self.method.builder not in SOLVERS
        self.model_path = self.store.folder / "models" / f"{self.name}.keras"
        settings = {n: getattr(self.method, n) for n in ("builder", "kwargs", "start")}
        settings |= {n: getattr(self, n) for n in ("n_atoms", "l1", "seed")}
        settings["validation"] = self.validation
        if self.dictionary_of:
            settings["dictionary_of"] = self.dictionary_of.settings
        self.settings = settings | (self.recipe.settings if self.trained else {})

    def complete(self, record, data, protocols, optimum):
        if not (record and self.model_path.exists()):
            optimum = optimum or "optimum" in record
            record = self.train(data)
        if "diverged" not in record:
            self.measure(record, data, protocols, optimum)
        return record

    def needs_start(self, protocols, optimum):
        record = self.store.find(self.name)
        made = record and self.model_path.exists()
        shares = self.method.start == "classical"
        return shares and not (made or self.is_whole(record, protocols, optimum))

    def train(self, data):
        """Makes the model, and its file unless it diverged; the start of the record."""
        # Keras keeps the graphs of every model: gigabytes over a hundred runs.
        keras.backend.clear_session()
        self.model_path.parent.mkdir(parents=True, exist_ok=True)
        dictionary, seconds = self.start(data.x_train)
        keras.utils.set_random_seed(self.seed)
        kwargs = {"n_steps": self.recipe.n_steps} if self.trained else {}
        kwargs |= {"dictionary": dictionary, **self.method.kwargs}
        model = self.build(data.x_train.shape[1:], **kwargs)
        losses, outcome, started = [], {}, time.perf_counter()
        if self.trained:
            try:
                losses = self.optimize(model, data)
            except DivergenceError:
                names = ("objective", "nonzero", "train_objective", "train_nonzero")
                outcome = {"diverged": True, **dict.fromkeys(names, math.nan)}
            outcome["fit_seconds"] = time.perf_counter() - started
            seconds += outcome["fit_seconds"]
        if "diverged" not in outcome:
            model.save(self.model_path)
        return self.new_record(data, training_seconds=seconds, loss=losses, **outcome)

    def build(self, input_shape, **kwargs):
        build = getattr(applications, self.method.builder)
        return build(self.n_atoms, input_shape, l1=self.l1, **kwargs)

    def optimize(self, model, data):
        x, y, task = data.x_train, None, {}
        if len(model.outputs) > 1:
            y, task["loss"] = data.y_train, "sparse_categorical_crossentropy"
            task["objective_weight"] = self.recipe.objective_weight
        self.recipe.compile(model, len(x), **task)
        return self.fit(model, x, y).history["loss"]

    def start(self, x):
        if self.dictionary_of:
            return self.dictionary_of.load().dictionary, 0.0
        if self.method.start == "random":
            return None, 0.0
        if self.method.start == "samples":
            return sc2keras.sample_dictionary(x, self.n_atoms, self.seed), 0.0
        # Runs share it. A memory map, which a process may get, has a hash of its own.
        learn = joblib.Memory(self.model_path.parent, verbose=0).cache(learn_dictionary)
        return learn(np.asarray(x), self.n_atoms, self.l1, self.seed)

    def load(self):
        if not self.model_path.exists():
            sys.exit(
                f"error: {self.model_path} is not there. Delete the line of "
                f"{self.name!r} in {self.store.path}, and it is made again."
            )
        return keras.saving.load_model(self.model_path)

    def measure(self, record, data, protocols, optimum):
        model = self.load()
        train, test = (model.encode(x) for x in (data.x_train, data.x_test))
        if "objective" not in record:
            splits = ("train_", data.x_train, train), ("", data.x_test, test)
            for prefix, x, codes in splits:
                nonzero = np.mean(np.abs(codes) > NONZERO_THRESHOLD)
                record[prefix + "objective"] = self.objective(model, x, codes)
                record[prefix + "nonzero"] = float(nonzero)
            zero = self.objective(model, data.x_test, np.zeros_like(test))
            # Not for codes that a large λ makes zero, to rounding; but for NaN.
            if not record["objective"] <= 1.001 * zero:
                record["diverged"] = True
                return
            if len(model.outputs) > 1:  # The classifier of a cascade.
                for split, name in (("test", "head"), ("train", "head_train")):
                    x, y = getattr(data, f"x_{split}"), getattr(data, f"y_{split}")
                    _, classes = model.predict(x, batch_size=2048, verbose=0)
                    record[name] = float(np.mean(classes.argmax(axis=1) == y))
        if optimum and "optimum" not in record:
            record |= evaluation.code_quality(model, data.x_test, test)._asdict()
        self.classify(record, protocols, data, train, test)

    def objective(self, model, x, codes):
        return evaluation.mean_objective(x, codes, model.dictionary, self.l1)


@dataclass(kw_only=True)
class Ceiling(Features):
    """Features that are no sparse codes, of a kind of `CEILINGS`, to compare with."""

    kind: str
    has_optimum = False

    def __post_init__(self):
        self.label, self.settings = CEILINGS[self.kind], {"kind": self.kind}
        self.settings |= {"seed": self.seed, "validation": self.validation}
        if self.kind != "pixels":
            self.settings["n_features"] = self.n_atoms
        if self.kind == "autoencoder":
            self.settings |= self.recipe.settings

    def complete(self, record, data, protocols, optimum):
        record = self.new_record(data)
        self.classify(record, protocols, data, *self.features(data))
        return record

    def features(self, data):
        train, test = (x.reshape(len(x), -1) for x in (data.x_train, data.x_test))
        if self.kind == "pca":
            pca = PCA(min(self.n_atoms, *train.shape), random_state=self.seed)
            return pca.fit(train).transform(train), pca.transform(test)
        if self.kind == "autoencoder":
            predict = self.autoencoder(train).predict
            return [predict(x, batch_size=2048, verbose=0) for x in (train, test)]
        return train, test

    def autoencoder(self, x):
        """The hidden layer of a ReLU autoencoder, trained as long as the networks."""
        keras.utils.set_random_seed(self.seed)
        inputs = keras.Input((x.shape[1],))
        codes = keras.layers.Dense(self.n_atoms, activation="relu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(x.shape[1])(codes))
        self.recipe.compile(model, len(x), loss=sc2keras.losses.ReconstructionLoss())
        self.fit(model, x, x)
        return keras.Model(inputs, codes)


def learn_dictionary(x, n_atoms, l1, seed):
    """The classical dictionary, and the seconds it took."""
    started = time.perf_counter()
    dictionary = sc2keras.learn_dictionary(x, n_atoms, l1, seed=seed, verbose=0)
    return dictionary, time.perf_counter() - started


def check_settings(runs):
    """Exits, before any work, if a run was made with other settings."""
    for run in runs:
        run.store.find(run.name, settings=run.settings)


def found(runs):
    """The records that are there, `{key: record}`."""
    records = {key: run.store.find(run.name) for key, run in runs.items()}
    return {key: record for key, record in records.items() if record}


def run_all(runs, data, description, protocols=(), optimum=True, jobs=1):
    """`{key: record}`, read where `data` lacks the dataset, made by `jobs` processes"""
    check_settings(runs.values())
    asked = [run for run in runs.values() if run.dataset in data]
    if jobs > 1:
        # The bars of several processes would overwrite each other.
        os.environ["TQDM_DISABLE"] = "1"
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(max(1, joblib.cpu_count() // jobs))
    needing = [run for run in asked if run.needs_start(protocols, optimum)]
    # Before the runs that share them, lest two of these learn the same one.
    shared = {(run.dataset, run.l1, run.seed): run for run in needing}.values()
    starts = [joblib.delayed(run.start)(data[run.dataset].x_train) for run in shared]
    options = protocols, optimum
    calls = [joblib.delayed(run.run)(data[run.dataset], *options) for run in asked]
    parallel = joblib.Parallel(jobs, return_as="generator")
    for name, each in [("dictionaries", starts), (description, calls)]:
        quiet = None if each else True  # None: where there is no terminal.
        for _ in tqdm(parallel(each), name, len(each), unit="run", disable=quiet):
            pass
    return found(runs)


def hold_out(data):
    """The dataset with the last sixth of its training split as the test split."""
    x, y, start = data.x_train, data.y_train, len(data.x_train) * 5 // 6
    train = {"x_train": x[:start], "y_train": y[:start]}
    return data._replace(**train, x_test=x[start:], y_test=y[start:])


def diverged(runs, records):
    return [
        f"{runs[key].name} diverged: its objective on samples that it was not trained "
        f"on is {record['objective']:.3g}, which codes of zero are below. A lower "
        "learning rate or fewer steps help."
        for key, record in records.items()
        if record.get("diverged")
    ]
