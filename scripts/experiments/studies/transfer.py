"""The recipe on data that it was not tuned on."""

import math

import numpy as np
from sklearn.datasets import load_breast_cancer, load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from sc2keras import datasets

from ..methods import CEILINGS, METHODS
from ..recipes import RECIPES, Recipe, with_options
from ..reports import cells, markdown
from ..runs import Ceiling

# Where the rule of `transferred_recipe` meets the rates chosen for MNIST and CIFAR-10.
SQUARED_NORM_OF_RATE_1 = 85.0
TRANSFERRED = ("fista", "lista", "lfista", "slstm-shrinkage", "slstm-untied")


def transferred_recipe(x):
    """As many updates as on MNIST, at a learning rate that falls with E‖x‖²."""
    # By which an update of the weights changes the gates and codes.
    updates = RECIPES["mnist"].n_updates(60_000)
    squared_norm = float(np.mean(np.sum(x.reshape(len(x), -1) ** 2, axis=1)))
    return Recipe(
        epochs=math.ceil(updates / math.ceil(len(x) / Recipe.batch_size)),
        learning_rate=min(1.0, SQUARED_NORM_OF_RATE_1 / squared_norm),
    )


def breast_cancer():
    """569 tumours by 30 measurements, standardised: tabular, of both signs."""
    x, y = load_breast_cancer(return_X_y=True)
    split = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    scaler = StandardScaler().fit(split[0])
    return _dataset("breast cancer", *map(scaler.transform, split[:2]), *split[2:])


def photo_patches():
    """8 × 8 colour patches of two photographs, less their mean; the label: which."""
    images = [image / 255.0 for image in load_sample_images().images]
    # No pixel is in both splits.
    border = images[0].shape[1] * 4 // 5
    x = [
        np.concatenate([patches(image[:, :border], 10_000) for image in images]),
        np.concatenate([patches(image[:, border:], 2_500) for image in images]),
    ]
    y = [np.repeat((0, 1), len(each) // 2) for each in x]
    return _dataset("photo patches", *x, *y)


def patches(image, n):
    found = extract_patches_2d(image, (8, 8), max_patches=n, random_state=0)
    return found - found.mean(axis=(1, 2), keepdims=True)


def _dataset(name, x_train, x_test, y_train, y_test):
    x_train, x_test = x_train.astype("float32"), x_test.astype("float32")
    return datasets.Dataset(name, x_train, y_train, x_test, y_test)


OTHERS = {"breast-cancer": breast_cancer, "photo-patches": photo_patches}


def run(study):
    others, runs = {name: load() for name, load in OTHERS.items()}, {}
    for name, other in others.items():
        recipe = with_options(transferred_recipe(other.x_train), epochs=study.epochs)
        for key in TRANSFERRED:
            run = study.new_run(name, key, METHODS[key], recipe)
            runs[name, run.label] = run
        where = f"{name}-pixels", study.store, name
        runs[name, CEILINGS["pixels"]] = Ceiling(*where, recipe, kind="pixels")
    records = study.make(runs, {} if study.only_reads else others, ["full"])
    header = ["dataset", "method", "objective", "optimum", "gap, %", "nonzero"]
    rows, figures = [], ("objective", "optimum", "gap", "nonzero")
    for (name, label), record in records.items():
        shown = cells(record if label != CEILINGS["pixels"] else None, *figures)
        rows.append([name, label, *shown, *cells(record, "full")])
    return markdown([*header, "accuracy, %"], rows) + (
        f"\nTest split, {study.note}, full protocol. Nothing was tuned on these data.\n"
    )
