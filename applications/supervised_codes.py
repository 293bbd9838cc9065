"""Sparse codes for a task: a classifier trained together with the encoder.

    python applications/supervised_codes.py

The cascade of the paper: SC2Net(classes=10) minimises the cross-entropy of a
classifier on the codes plus a multiple of the sparse coding objective. On the digits of
scikit-learn its accuracy and the sparsity of its codes stand beside codes that never
saw a label.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np

import sc2keras
from sc2keras import datasets, evaluation, plotting
from sc2keras.files import whole_file

WEIGHTS = (1.0, 0.1, 0.01)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/supervised_codes"))
    parser.add_argument("--n-atoms", type=int, default=30)
    parser.add_argument("--l1", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=100)
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    data = datasets.load("digits")
    dictionary = sc2keras.learn_dictionary(
        data.x_train, args.n_atoms, args.l1, verbose=0
    )
    models = {"codes alone": train(data, dictionary, None, args)}
    for weight in WEIGHTS:
        label = f"cascade, {weight:g} × objective"
        models[label] = train(data, dictionary, weight, args)
    results = {label: measure(model, data) for label, model in models.items()}
    for label, (accuracy, nonzero, objective) in results.items():
        print(
            f"{label:<26} accuracy {100 * accuracy:5.2f} %  nonzero {nonzero:.2f}  "
            f"objective {objective:.3f}"
        )
    figure = draw(models, data)
    plotting.save_figure(figure, args.output / "supervised_codes.png")
    text = json.dumps(results, indent=1) + "\n"
    with whole_file(args.output / "supervised_codes.json") as path:
        path.write_text(text)
    return results


def train(data, dictionary, weight, args):
    """SC2Net with a classifier, or without one where `weight` is None."""
    keras.utils.set_random_seed(0)
    model = sc2keras.applications.SC2Net(
        args.n_atoms,
        data.x_train.shape[1:],
        l1=args.l1,
        activation="shrinkage",
        dictionary=dictionary,
        classes=None if weight is None else 10,
    )
    recipe = sc2keras.Recipe(epochs=args.epochs, batch_size=128)
    task, targets = {}, None
    if weight is not None:
        task = {"loss": "sparse_categorical_crossentropy", "objective_weight": weight}
        targets = data.y_train
    recipe.compile(model, len(data.x_train), **task)
    recipe.fit(model, data.x_train, targets, verbose=0)
    return model


def measure(model, data):
    """Accuracy on the test split, nonzero fraction and objective of the codes.

    Without a classifier of its own, that of a logistic regression on the codes.
    """
    codes = model.encode(data.x_test)
    if len(model.outputs) > 1:
        predicted = model.predict(data.x_test, verbose=0)[1].argmax(axis=1)
        accuracy = float(np.mean(predicted == data.y_test))
    else:
        split = (model.encode(data.x_train), data.y_train, codes, data.y_test)
        accuracy = evaluation.full_accuracy(*split).accuracy
    nonzero = float(np.mean(np.abs(codes) > 1e-3))
    objective = evaluation.mean_objective(
        data.x_test, codes, model.dictionary, model.encoder.l1
    )
    return accuracy, nonzero, objective


def draw(models, data):
    figure, axes = plt.subplots(
        1, 3, figsize=(13, 4.2), layout="constrained", width_ratios=(1, 1, 1.4)
    )
    figure.get_layout_engine().set(wspace=0.05)
    first, *_, last = models
    for ax, label in zip(axes, (first, last), strict=False):
        plotting.plot_atoms(models[label], data.x_train.shape[1:], ax=ax)
        ax.set_title(label)
    ends = {label: models[label] for label in (first, last)}
    plotting.plot_nonzeros(ends, data.x_test, ax=axes[2])
    return figure


if __name__ == "__main__":
    main()
