"""
Few labels: sparse codes as features
====================================

Codes are learned without labels. Where labels are few, a logistic regression on them is
ahead of one on raw pixels, and of one on PCA.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

import sc2keras
from sc2keras import datasets, evaluation, plotting

parser = argparse.ArgumentParser(description="Sparse codes where labels are few.")
parser.add_argument("--dataset", choices=datasets.NAMES, default="digits")
parser.add_argument("--output", type=Path, default=Path("out/feature_extraction"))
args = parser.parse_args()

# %%
# The features
# ------------
# The model ships with the package, trained on the training split without its labels.
# PCA sees that split too. It keeps half of the components at most: with all of them it
# would be the raw pixels, turned.
data = datasets.load(args.dataset)
model = sc2keras.applications.SC2Net(weights=args.dataset)
n_atoms = model.encoder.n_atoms
pixels = [x.reshape(len(x), -1) for x in (data.x_train, data.x_test)]
n_components = min(n_atoms, pixels[0].shape[1] // 2)
pca = PCA(n_components, random_state=0).fit(pixels[0])
features = {
    f"raw pixels ({pixels[0].shape[1]})": pixels,
    f"PCA ({n_components})": [pca.transform(x) for x in pixels],
    f"sparse codes ({n_atoms})": [model.encode(x) for x in (data.x_train, data.x_test)],
}

# %%
# The comparison
# --------------
# A logistic regression is fitted on 100, 500 and 4,000 labelled samples (or as many as
# there are), in ten draws that all features share, and scored on the test split.
results = {}
for label, (train, test) in features.items():
    results[label] = {}
    for n_labels in (100, 500, 4000):
        draws = evaluation.make_draws(len(train), len(test), n_fit=n_labels)
        n_fitted = len(draws[0][0])
        accuracies = evaluation.paper_accuracy(
            train, data.y_train, test, data.y_test, draws
        )
        results[label][n_fitted] = accuracies.tolist()
        mean, spread = 100 * accuracies.mean(), 100 * accuracies.std()
        print(f"{label:20s} {n_fitted:5,} labels  {mean:6.2f} ± {spread:.2f} %")
codes = features[f"sparse codes ({n_atoms})"][1]
print(f"{np.mean(np.abs(codes) > 1e-3):.0%} of the entries of the codes are not zero")

# %%
# Accuracy against the number of labels, and the atoms that the codes stand for.
figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(5, 4)
)
for label, by_labels in results.items():
    means = [100 * np.mean(values) for values in by_labels.values()]
    spreads = [100 * np.std(values) for values in by_labels.values()]
    left.errorbar(list(by_labels), means, spreads, marker="o", capsize=3, label=label)
left.set_xscale("log")
left.set_xticks(list(by_labels), [f"{n:,}" for n in by_labels])
left.minorticks_off()
left.set(xlabel="labelled samples", ylabel="accuracy on the test split, %")
left.set_title(f"{data.name}, logistic regression")
left.grid(alpha=0.3)
left.legend(loc="lower right")
plotting.plot_atoms(model, data.x_train.shape[1:], ax=right)
right.set_title("the atoms that the codes stand for")

# %%
args.output.mkdir(parents=True, exist_ok=True)
plotting.save_figure(figure, args.output / "feature_extraction.png")
text = json.dumps(results, indent=1) + "\n"
(args.output / "feature_extraction.json").write_text(text)
