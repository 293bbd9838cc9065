"""Runs: what is made of a method, a recipe, a dataset, a λ and a seed."""

import math
import os
import sys
import time
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of one dataset with one seed, and how well they classify.

    The record is in `store`; what is there is read, not made again.
    """

    name: str
    store: Store
    dataset: str
    recipe: Recipe
    seed: int = 0
    n_atoms: int = 100
    validation: bool = False

    def run(self, data, protocols=(), optimum=True):
        """The record, read, or made and written, with the accuracy by each protocol."""
        record = self.store.find(self.name, note=data.note)
        if not is_whole(record, protocols, optimum):
            # What was measured is measured again if it has to be made anew.
            protocols = [p for p in PROTOCOLS if p in record or p in protocols]
            record = self.complete(record, data, protocols, optimum)
            self.store.write(self.name, record)
        return record

    def new_record(self, data, **figures):
        return {
            "dataset": self.dataset,
            "note": data.note,
            "label": self.label,
            "settings": self.settings,
            "environment": environment(),
            **figures,
        }

    def classify(self, record, protocols, data, train, test):
        """Adds the accuracies that are not in the record yet."""
        codes = train, data.y_train, test, data.y_test
        if "paper" in protocols and "paper" not in record:
            draws = evaluation.make_draws(len(train), len(test), seed=self.seed)
            record["paper"] = evaluation.paper_accuracy(*codes, draws).tolist()
        if "full" in protocols and "full" not in record:
            full = evaluation.full_accuracy(*codes)
            record["full"], record["full_train"], record["full_C"] = full

    def fit(self, model, x, y):
        bar = TqdmCallback(verbose=0, desc=self.name, leave=False)
        return self.recipe.fit(model, x, y, verbose=0, callbacks=[bar])


@dataclass(frozen=True, kw_only=True)
class Run(Features):
    """The codes of one method with one λ.

    The record has the objective and, if `optimum`, the gap to the optimum of the same
    dictionary; where training diverged, that it did, and an objective which is NaN or
    worse than that of codes of zero. The model is in `store`, too. With
    `dictionary_of`, another run, it has the dictionary of that run's model.
    """

    method: Method
    l1: float
    dictionary_of: "Run | None" = None

    @property
    def label(self):
        return self.method.label

    @property
    def model_path(self):
        return self.store.models / f"{self.name}.keras"

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
        if self.dictionary_of:
            settings["dictionary_of"] = self.dictionary_of.settings
        return settings | (self.recipe.settings if self.trained else {})

    def complete(self, record, data, protocols, optimum):
        if not (record and self.model_path.exists()):
            optimum = optimum or "optimum" in record
            record = self.train(data)
        if "diverged" not in record:
            self.measure(record, data, protocols, optimum)
        return record

    def needs_start(self, protocols, optimum):
        """Whether `run` will need the dictionary that runs share."""
        record = self.store.find(self.name)
        made = record and self.model_path.exists()
        shares = self.method.start == "classical"
        return shares and not (made or is_whole(record, protocols, optimum))

    def train(self, data):
        """Makes the model and writes its file; returns the start of the record.

        There is no file of a model whose training diverged.
        """
        # Keras keeps the graphs of every model: gigabytes over a hundred runs.
        keras.backend.clear_session()
        self.store.models.mkdir(parents=True, exist_ok=True)
        dictionary, seconds = self.start(data.x_train)
        model = self.build(data.x_train.shape[1:], dictionary)
        losses, outcome = [], {}
        if self.trained:
            started = time.perf_counter()
            try:
                losses = self.optimize(model, data)
            except DivergenceError:
                names = ("objective", "nonzero", "train_objective", "train_nonzero")
                outcome = {"diverged": True, **dict.fromkeys(names, math.nan)}
            seconds += time.perf_counter() - started
        if not outcome:
            model.save(self.model_path)
        return self.new_record(data, training_seconds=seconds, loss=losses, **outcome)

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

    def optimize(self, model, data):
        targets, task = None, {}
        if len(model.outputs) > 1:
            targets = data.y_train
            task["loss"] = "sparse_categorical_crossentropy"
            task["objective_weight"] = self.recipe.objective_weight
        self.recipe.compile(model, len(data.x_train), **task)
        return self.fit(model, data.x_train, targets).history["loss"]

    def start(self, x):
        """The dictionary that the method starts from, and the seconds it took."""
        if self.dictionary_of:
            return self.dictionary_of.learned(), 0.0
        if self.method.start == "random":
            return None, 0.0
        if self.method.start == "samples":
            return sc2keras.sample_dictionary(x, self.n_atoms, self.seed), 0.0
        # Runs share it. A memory map, which a process may get, has a hash of its own.
        learn_once = joblib.Memory(self.store.models, verbose=0).cache(learn_dictionary)
        return learn_once(np.asarray(x), self.n_atoms, self.l1, self.seed)

    def learned(self):
        """The dictionary of the model of this run, which was made before."""
        if not self.model_path.exists():
            sys.exit(
                f"error: {self.model_path} is not there. Delete the line of "
                f"{self.name!r} in {self.store.path}, and it is made again."
            )
        return keras.saving.load_model(self.model_path).dictionary

    def measure(self, record, data, protocols, optimum):
        """Adds to the record what is not in it yet."""
        model = keras.saving.load_model(self.model_path)
        train, test = (model.encode(x) for x in (data.x_train, data.x_test))
        if "objective" not in record:
            for prefix, x, codes in [
                ("train_", data.x_train, train),
                ("", data.x_test, test),
            ]:
                nonzero = np.mean(np.abs(codes) > NONZERO_THRESHOLD)
                record[prefix + "objective"] = self.objective(model, x, codes)
                record[prefix + "nonzero"] = float(nonzero)
            zero = self.objective(model, data.x_test, np.zeros_like(test))
            # Not for codes that a large λ makes zero, to rounding; but for NaN.
            if not record["objective"] <= 1.001 * zero:
                record["diverged"] = True
                return
            if len(model.outputs) > 1:
                record["head"] = own_accuracy(model, data.x_test, data.y_test)
                record["head_train"] = own_accuracy(model, data.x_train, data.y_train)
        if optimum and "optimum" not in record:
            quality = evaluation.code_quality(model, data.x_test, test)
            record.update(quality._asdict())
        self.classify(record, protocols, data, train, test)

    def objective(self, model, x, codes):
        return evaluation.mean_objective(x, codes, model.dictionary, self.l1)


@dataclass(frozen=True, kw_only=True)
class Ceiling(Features):
    """Features that are no sparse codes, of a kind of `CEILINGS`, to compare with."""

    kind: str

    @property
    def label(self):
        return CEILINGS[self.kind]

    @cached_property
    def settings(self):
        settings = {"kind": self.kind, "seed": self.seed, "validation": self.validation}
        if self.kind != "pixels":
            settings["n_features"] = self.n_atoms
        return settings | (self.recipe.settings if self.kind == "autoencoder" else {})

    def run(self, data, protocols=(), optimum=True):
        """Without an optimum, which such features do not have."""
        return super().run(data, protocols, optimum=False)

    def complete(self, record, data, protocols, optimum):
        record = self.new_record(data)
        self.classify(record, protocols, data, *self.features(data))
        return record

    def needs_start(self, protocols, optimum):
        return False

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
    dictionary = sc2keras.learn_dictionary(x, n_atoms, l1, seed=seed)
    return dictionary, time.perf_counter() - started


def is_whole(record, protocols, optimum):
    """Whether the record has all that is asked for."""
    asked = {*protocols, *(["optimum"] if optimum else [])}
    return "diverged" in record or (bool(record) and asked <= record.keys())


def check_settings(runs):
    """Exits, before any work, if a run was made with other settings."""
    for run in runs:
        run.store.find(run.name, settings=run.settings)


def found(runs):
    """The records that are there, `{key: record}`."""
    records = {key: run.store.find(run.name) for key, run in runs.items()}
    return {key: record for key, record in records.items() if record}


def run_all(runs, data, description, protocols=(), optimum=True, jobs=1):
    """The records of the runs `{key: run}`, `{key: record}`, made by so many processes.

    `data` holds the datasets by name. Of a dataset that it lacks the records are read.
    """
    asked = [run for run in runs.values() if run.dataset in data]
    if jobs > 1:
        # The bars of several processes would overwrite each other.
        os.environ["TQDM_DISABLE"] = "1"
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(max(1, joblib.cpu_count() // jobs))
    shared = {
        (run.dataset, run.l1, run.seed): run
        for run in asked
        if run.needs_start(protocols, optimum)
    }
    # Before the runs that share them, lest two of these learn the same one.
    starts = [
        joblib.delayed(run.start)(data[run.dataset].x_train) for run in shared.values()
    ]
    calls = [
        joblib.delayed(run.run)(data[run.dataset], protocols, optimum) for run in asked
    ]
    parallel = joblib.Parallel(jobs, return_as="generator")
    for name, each in [("dictionaries", starts), (description, calls)]:
        for _ in tqdm(parallel(each), name, len(each), unit="run", disable=not each):
            pass
    return found(runs)


def diverged(runs, records):
    """A line for each run that diverged."""
    return [
        f"{runs[key].name} diverged: its objective on samples that it was not trained "
        f"on is {record['objective']:.3g}, which codes of zero are below. A lower "
        "learning rate or fewer steps help."
        for key, record in records.items()
        if record.get("diverged")
    ]


def own_accuracy(model, x, y):
    """The accuracy of a cascade's own classifier."""
    _, probabilities = model.predict(x, batch_size=2048, verbose=0)
    return float(np.mean(probabilities.argmax(axis=1) == y))
