"""The page "your own data": its recipe, beside the defaults."""

import itertools
import time

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer, load_sample_images
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import sc2keras
from sc2keras.dictionary_learners import typical_norm

from ..reports import cells, markdown

SEEDS = range(5)
N_IMAGES = 200
SIZE = 16
# How the table prints the figures of a record, and the worst of them.
SHOWN = dict.fromkeys(("nonzero", "dead", "gap", "error"), ".1%")
WORST = dict.fromkeys(("nonzero", "dead"), ".1%")


def small_images(seed):
    """200 colour images of 16 × 16 out of two photographs; others to measure on."""
    rng = np.random.default_rng(seed)
    photos = [photo[::2, ::2] / 255.0 for photo in load_sample_images().images]
    # No pixel is in both splits.
    border = photos[0].shape[1] * 4 // 5
    return [
        np.concatenate([cut(p, N_IMAGES // 2, rng) for p in parts]).astype("float32")
        for parts in ([p[:, :border] for p in photos], [p[:, border:] for p in photos])
    ]


def cut(photo, n, rng):
    tops = rng.integers(photo.shape[0] - SIZE + 1, size=n)
    lefts = rng.integers(photo.shape[1] - SIZE + 1, size=n)
    places = zip(tops, lefts, strict=True)
    return np.stack([photo[t : t + SIZE, s : s + SIZE] for t, s in places])


def tumours(seed):
    """569 tumours by 30 measurements, standardised."""
    split = train_test_split(
        load_breast_cancer().data, test_size=0.2, random_state=seed
    )
    scaler = StandardScaler().fit(split[0])
    return [scaler.transform(each).astype("float32") for each in split]


DATA = {"small images": (small_images, 25), "standardised table": (tumours, 56)}


def defaults(train, test, n_atoms, seed, epochs):
    model = sc2keras.applications.SC2Net(n_atoms=100, input_shape=train.shape[1:])
    model.compile()
    model.fit(train, epochs=epochs or 20, verbose=0)
    return model, train, test


def page(train, test, n_atoms, seed, epochs):
    mean = train.mean(axis=0)
    scale = typical_norm((train - mean).reshape(len(train), -1)) / 10
    train, test = (train - mean) / scale, (test - mean) / scale
    atoms = sc2keras.sample_dictionary(train, n_atoms, seed)
    l1 = sc2keras.l1_from(train, atoms)
    model = sc2keras.applications.SC2Net(
        n_atoms, train.shape[1:], l1=l1, dictionary=atoms
    )
    changes = {} if epochs is None else {"epochs": epochs}
    recipe = sc2keras.Recipe.for_samples(len(train), **changes)
    recipe.fit(model, train, verbose=0)
    return model, train, test


WAYS = {"the defaults": defaults, "this page": page}


def run(study):
    rows = []
    for data, way in itertools.product(DATA, WAYS):
        records = [record_of(study, data, way, seed) for seed in SEEDS]
        records = [record for record in records if record]
        if records:
            mean = {name: [r[name] for r in records] for name in SHOWN}
            worst = {name: max(mean[name]) for name in WORST}
            rows.append([data, way, *cells(mean, **SHOWN), *cells(worst, **WORST)])
    header = ["data", "way", "nonzero, %", "dead, %", "gap, %", "error, %"]
    return markdown([*header, "most nonzero, %", "most dead, %"], rows) + (
        "\nSC2Net, five seeds: their means, and the worst of them. Dead atoms on the "
        "training samples, all else on others. Error: share of the signal, for this "
        "page's recipe less the mean.\n"
    )


def record_of(study, name, way, seed):
    """The record of a run, read or made; an empty one where they are only read."""
    load, n_atoms = DATA[name]
    settings = {"n_atoms": n_atoms, "seed": seed, "epochs": study.epochs}

    def measure():
        keras.utils.set_random_seed(seed)
        began = time.perf_counter()
        model, *splits = WAYS[way](*load(seed), n_atoms, seed, study.epochs)
        seconds = time.perf_counter() - began
        train, test = (sc2keras.diagnose(model, x) for x in splits)
        return {
            "note": "200 images, or 455 tumours",
            "nonzero": 1 - test.zero,
            "dead": train.n_dead / train.n_atoms,
            "gap": test.gap,
            "error": test.error,
            "l1": test.l1,
            "seconds": seconds,
            "train_nonzero": 1 - train.zero,
            "objective": test.objective,
        }

    return study.once(f"{name}, {way}, seed {seed}", name, way, settings, measure)
