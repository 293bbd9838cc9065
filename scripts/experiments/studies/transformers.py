"""`SparseCodeTransformer` beside what it takes the place of in scikit-learn."""

import itertools
import time
import warnings

import numpy as np
from sklearn.decomposition import DictionaryLearning, MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning

from sc2keras import datasets
from sc2keras.evaluation import mean_objective
from sc2keras.sklearn import SparseCodeTransformer

from ..reports import cells, markdown
from .study import L1
from .transfer import breast_cancer, photo_patches

N_ATOMS = (100, 400)
# Above so many samples scikit-learn's batch algorithm takes hours.
FEW = 500


def digits():
    return datasets.load("digits")


def few_digits():
    data = digits()
    return data._replace(x_train=data.x_train[:500], y_train=data.y_train[:500])


OTHERS = {
    "breast cancer": breast_cancer,
    "digits": digits,
    "500 digits": few_digits,
    "photo patches": photo_patches,
}
_LASSO = {"transform_algorithm": "lasso_cd", "alpha": L1, "transform_alpha": L1}


def ours(n_atoms, seed):
    return SparseCodeTransformer(n_atoms, L1, random_state=seed)


def minibatch(n_atoms, seed):
    return MiniBatchDictionaryLearning(n_atoms, random_state=seed, **_LASSO)


def batch(n_atoms, seed):
    how = {"fit_algorithm": "cd", "random_state": seed, **_LASSO}
    return DictionaryLearning(n_atoms, **how)


WAYS = {
    "SparseCodeTransformer": ours,
    "MiniBatchDictionaryLearning": minibatch,
    "DictionaryLearning": batch,
}


def run(study):
    loads = dict(OTHERS)
    loads |= {name: lambda name=name: study.data[name] for name in study.datasets}
    rows = []
    for name, n_atoms, label in itertools.product(loads, N_ATOMS, WAYS):
        record = record_of(study, name, loads[name], n_atoms, label)
        if record:
            figures = {"objective": ".3f", "nonzero": ".2f"}
            figures |= {"fit_seconds": ".1f", "transform_seconds": ".2f"}
            rows.append([name, label, f"{n_atoms}", *cells(record, **figures)])
    header = ["data", "transformer", "atoms", "objective", "nonzero"]
    return markdown([*header, "fit, s", "transform, s"], rows) + (
        f"\nTest split: the objective of what `transform` gives, at λ = {L1:g}, seed "
        f"{study.seed}; scikit-learn's with transform_algorithm='lasso_cd', its batch "
        f"algorithm with fit_algorithm='cd' and for at most {FEW:,} samples and "
        f"{N_ATOMS[0]} atoms; every other parameter is the default.\n"
    )


def record_of(study, name, load, n_atoms, label):
    settings = {"n_atoms": n_atoms, "l1": L1, "seed": study.seed}
    key = f"{name}, {n_atoms} atoms, {label}, seed {study.seed}"
    if not study.only_reads:
        data = load()
        is_long = len(data.x_train) > FEW or n_atoms > N_ATOMS[0]
        if WAYS[label] is batch and is_long:
            return {}

    def measure():
        # scikit-learn's lasso_cd fails on float32.
        splits = data.x_train, data.x_test
        train, test = (x.reshape(len(x), -1).astype("float64") for x in splits)
        coder = WAYS[label](n_atoms, study.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            began = time.perf_counter()
            coder.fit(train)
            fitted = time.perf_counter()
            codes = coder.transform(test)
            done = time.perf_counter()
        return {
            "note": data.note,
            "objective": mean_objective(test, codes, coder.components_, L1),
            "nonzero": float(np.mean(codes != 0)),
            "norm": float(np.linalg.norm(coder.components_, axis=1).max()),
            "fit_seconds": fitted - began,
            "transform_seconds": done - fitted,
        }

    return study.once(key, name, label, settings, measure)
