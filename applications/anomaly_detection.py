"""Finds digits of a class that training did not see, by the objective of their codes.

    python applications/anomaly_detection.py

Each class of scikit-learn's digits is left out once. SC2Net learns a dictionary of the
nine others; a sample that it cannot code cheaply, F(x) = ½‖x − sD‖² + λ‖s‖₁, is an
anomaly. The area under the ROC curve stands beside that of PCA's reconstruction error
and of an Isolation Forest.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

import sc2keras
from sc2keras import datasets, plotting
from sc2keras.files import whole_file


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/anomaly_detection"))
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--n-atoms", type=int, default=30)
    parser.add_argument("--l1", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    data = datasets.load("digits")
    results, scores = {}, {}
    for anomaly in args.classes:
        scores[anomaly] = score(data, anomaly, args)
        truth = data.y_test == anomaly
        results[anomaly] = {
            method: roc_auc_score(truth, values)
            for method, values in scores[anomaly].items()
        }
        areas = "  ".join(f"{m} {area:.3f}" for m, area in results[anomaly].items())
        print(f"digit {anomaly} left out: {areas}")
    methods = list(next(iter(results.values())))
    means = {m: np.mean([areas[m] for areas in results.values()]) for m in methods}
    print("mean:                " + "  ".join(f"{m} {v:.3f}" for m, v in means.items()))
    figure = draw(data, results, scores)
    plotting.save_figure(figure, args.output / "anomaly_detection.png")
    text = json.dumps(results, indent=1) + "\n"
    with whole_file(args.output / "anomaly_detection.json") as path:
        path.write_text(text)
    return results


def score(data, anomaly, args):
    """`{method: scores of the test samples}`, high where a sample is unusual."""
    normal = data.x_train[data.y_train != anomaly]
    flat, flat_test = (x.reshape(len(x), -1) for x in (normal, data.x_test))
    model = train(normal, args)
    pca = PCA(args.n_atoms).fit(flat)
    residual = flat_test - pca.inverse_transform(pca.transform(flat_test))
    forest = IsolationForest(random_state=0).fit(flat)
    return {
        "SC2Net": objective(model, data.x_test),
        "PCA": np.sum(residual**2, axis=1),
        "Isolation Forest": -forest.score_samples(flat_test),
    }


def train(x, args):
    keras.utils.set_random_seed(0)
    dictionary = sc2keras.learn_dictionary(x, args.n_atoms, args.l1, verbose=0)
    model = sc2keras.applications.SC2Net(
        args.n_atoms,
        x.shape[1:],
        l1=args.l1,
        activation="shrinkage",
        dictionary=dictionary,
    )
    recipe = sc2keras.Recipe(epochs=args.epochs, batch_size=128)
    recipe.fit(model, x, verbose=0)
    return model


def objective(model, x):
    """½‖x − sD‖² + λ‖s‖₁ of every sample."""
    codes = model.encode(x)
    residual = x.reshape(len(x), -1) - codes @ model.dictionary
    squared = np.sum(residual**2, axis=1)
    return 0.5 * squared + model.encoder.l1 * np.sum(np.abs(codes), axis=1)


def draw(data, results, scores):
    """The areas by class; and the digits that are most and least unusual."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.2), layout="constrained", width_ratios=(3, 2)
    )
    methods = list(next(iter(results.values())))
    for i, method in enumerate(methods):
        positions = np.arange(len(results)) + 0.27 * (i - 1)
        left.bar(positions, [a[method] for a in results.values()], 0.27, label=method)
    left.set_xticks(range(len(results)), [str(anomaly) for anomaly in results])
    left.set_ylim(0.4, 1)
    left.set_xlabel("digit left out of training")
    left.set_ylabel("area under the ROC curve")
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(methods))
    anomaly = next(iter(scores))
    order = np.argsort(scores[anomaly]["SC2Net"])
    rows = {"least": data.x_test[order[:10]], "most": data.x_test[order[::-1][:10]]}
    images = np.concatenate(list(rows.values()))
    grid = plotting.tile_images(images, fill=1.0, n_columns=10)
    right.imshow(grid.squeeze(), cmap="gray", vmin=0, vmax=1)
    right.set_xticks([])
    right.set_yticks([4, 13], list(rows))
    right.set_title(f"least and most unusual without {anomaly} in training")
    return figure


if __name__ == "__main__":
    main()
