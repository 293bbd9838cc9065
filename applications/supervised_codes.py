"""
Codes for a task: the cascade
=============================

``SC2Net(classes=10)`` minimises the cross-entropy of a classifier on its codes plus a
multiple of the sparse coding objective. Labels buy accuracy; the weight of the
objective says what they may cost.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np

import sc2keras
from sc2keras import evaluation, plotting

parser = argparse.ArgumentParser(description="Sparse codes for a task.")
parser.add_argument("--output", type=Path, default=Path("out/supervised_codes"))
parser.add_argument("--epochs", type=int, default=100)
args = parser.parse_args()
N_ATOMS, L1 = 30, 0.2
data = sc2keras.datasets.load("digits")
dictionary = sc2keras.learn_dictionary(data.x_train, N_ATOMS, L1, verbose=0)

# %%
# With labels, and without
# ------------------------
# All models start from the same dictionary and are trained in the same way; ``weight``
# is that of the objective beside the cross-entropy.


def train(weight=None):
    keras.utils.set_random_seed(0)
    model = sc2keras.applications.SC2Net(
        N_ATOMS,
        data.x_train.shape[1:],
        l1=L1,
        dictionary=dictionary,
        classes=None if weight is None else 10,
    )
    recipe = sc2keras.Recipe(epochs=args.epochs, batch_size=128)
    if weight is None:
        recipe.fit(model, data.x_train, verbose=0)
        return model
    loss = "sparse_categorical_crossentropy"
    recipe.compile(model, len(data.x_train), loss=loss, objective_weight=weight)
    recipe.fit(model, data.x_train, data.y_train, verbose=0)
    return model


models = {"codes alone": train()}
for weight in (1.0, 0.1, 0.01):
    models[f"cascade, {weight:g} × objective"] = train(weight)

# %%
# What they reach
# ---------------
# Accuracy on the test split: of the model's own classifier, or of a logistic regression
# on codes that never saw a label.
results = {}
for label, model in models.items():
    codes = model.encode(data.x_test)
    if len(model.outputs) > 1:
        predicted = model.predict(data.x_test, verbose=0)[1].argmax(axis=1)
        accuracy = float(np.mean(predicted == data.y_test))
    else:
        split = (model.encode(data.x_train), data.y_train, codes, data.y_test)
        accuracy = evaluation.full_accuracy(*split).accuracy
    nonzero = float(np.mean(np.abs(codes) > 1e-3))
    objective = evaluation.mean_objective(data.x_test, codes, model.dictionary, L1)
    results[label] = accuracy, nonzero, objective
    print(f"{label:26} {accuracy:.2%}, nonzero {nonzero:.2f}, F {objective:.3f}")

# %%
# The atoms with and without labels, and how many of them a code uses.
figure, axes = plt.subplots(
    1, 3, figsize=(13, 4.2), layout="constrained", width_ratios=(1, 1, 1.4)
)
figure.get_layout_engine().set(wspace=0.05)
first, *_, last = models
ends = {label: models[label] for label in (first, last)}
for ax, (label, model) in zip(axes, ends.items(), strict=False):
    plotting.plot_atoms(model, data.x_train.shape[1:], ax=ax)
    ax.set_title(label)
plotting.plot_nonzeros(ends, data.x_test, ax=axes[2])

# %%
args.output.mkdir(parents=True, exist_ok=True)
plotting.save_figure(figure, args.output / "supervised_codes.png")
text = json.dumps(results, indent=1) + "\n"
(args.output / "supervised_codes.json").write_text(text)
