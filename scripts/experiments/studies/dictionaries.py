"""`learn_dictionary` beside scikit-learn and SPAMS: the objective over the time."""

import importlib.util
import time
import warnings

import numpy as np
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.exceptions import ConvergenceWarning

import sc2keras
from sc2keras.applications import ActiveSet
from sc2keras.evaluation import mean_objective

from ..reports import cells, markdown
from .study import L1
from .transfer import photo_patches

PATCHES = "photo patches"
# Of the patches, by how much their atoms are more than the study's.
TIMES = {PATCHES: 10}


def unrolled(x, n_atoms, n_updates, seed):
    how = {"method": "unrolled", "max_iter": n_updates, "seed": seed, "verbose": 0}
    return sc2keras.learn_dictionary(x, n_atoms, L1, **how)


def online(x, n_atoms, passes, seed):
    how = {"max_iter": passes * len(x) // 64, "seed": seed, "verbose": 0}
    return sc2keras.learn_dictionary(x, n_atoms, L1, **how)


def called(x, n_atoms, _, seed):
    return minibatch(x, n_atoms, seed)


def descent(x, n_atoms, passes, seed):
    how = {"max_iter": passes, "max_no_improvement": None, "tol": 0.0}
    return minibatch(x, n_atoms, seed, fit_algorithm="cd", **how)


def minibatch(x, n_atoms, seed, **how):
    learner = MiniBatchDictionaryLearning(n_atoms, alpha=L1, random_state=seed, **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return learner.fit(x.astype("float64")).components_


def spams(x, n_atoms, n_updates, seed):
    import spams

    # It starts with samples that it draws of NumPy's own state.
    np.random.seed(seed)  # noqa: NPY002
    columns = np.asfortranarray(x.T, "float64")
    how = {"mode": 2, "batchsize": 256, "numThreads": 2, "verbose": False}
    return spams.trainDL(columns, K=n_atoms, lambda1=L1, iter=n_updates, **how).T


# How a dictionary is learned, with how much of it, and what that counts.
WAYS = {
    "sc2keras, unrolled": (unrolled, (500, 1500, 6000), "updates"),
    "sc2keras, online": (online, (1, 3), "× the data"),
    "scikit-learn, as called": (called, (None,), "until no better"),
    "scikit-learn, fit_algorithm='cd'": (descent, (1, 3), "× the data"),
    "SPAMS": (spams, (500, 2000), "updates"),
}


def run(study):
    data = dict(study.data)
    if not study.only_reads:
        data[PATCHES] = photo_patches()
    rows = []
    for name in (*study.datasets, PATCHES):
        for label, (learn, amounts, counted) in WAYS.items():
            for amount in amounts:
                record = record_of(study, name, data.get(name), label, learn, amount)
                if record:
                    figures = {"seconds": ".1f", "objective": ".4f", "nonzero": ".3f"}
                    much = f"{amount:,} {counted}" if amount else counted
                    n_atoms = f"{record['settings']['n_atoms']:,}"
                    rows.append([name, label, n_atoms, much, *cells(record, **figures)])
    header = ["data", "by", "atoms", "how long", "seconds", "objective", "nonzero"]
    return markdown(header, rows) + (
        "\nThe objective on the test split of the LASSO's own codes (gaps of 1e-4) for "
        f"the dictionary, at λ = {L1:g}, seed {study.seed}. scikit-learn as called: "
        "MiniBatchDictionaryLearning without further arguments; SPAMS: trainDL with "
        "batches of 256.\n"
    )


def record_of(study, name, data, label, learn, amount):
    n_atoms = study.n_atoms * TIMES.get(name, 1)
    settings = {"amount": amount, "l1": L1, "n_atoms": n_atoms, "seed": study.seed}
    key = f"{name}, {label}, {amount}, {n_atoms} atoms, seed {study.seed}"
    if label == "SPAMS" and importlib.util.find_spec("spams") is None:
        return study.store.find(key, settings=settings)

    def measure():
        x, test = (a.reshape(len(a), -1) for a in (data.x_train, data.x_test))
        began = time.perf_counter()
        dictionary = learn(x, n_atoms, amount, study.seed)
        seconds = time.perf_counter() - began
        norms = np.linalg.norm(dictionary, axis=1, keepdims=True)
        atoms = (dictionary / np.maximum(norms, 1.0)).astype("float32")
        how = {"l1": L1, "dictionary": atoms, "tol": 1e-4, "n_steps": 1000}
        codes = ActiveSet(n_atoms, x.shape[1:], **how).encode(test)
        return {
            "note": data.note,
            "objective": mean_objective(test, codes, atoms, L1),
            "nonzero": float(np.mean(codes != 0)),
            "seconds": seconds,
        }

    return study.once(key, name, label, settings, measure)
