"""Sparse codes as features where labels are few, beside raw pixels and PCA.

    python applications/feature_extraction.py                    # digits, seconds
    python applications/feature_extraction.py --dataset mnist
    python applications/feature_extraction.py --model MODEL.keras --dataset mnist

The model is the SC2Net that ships with the package for the dataset, trained on its
training split without labels, or a saved one. A logistic regression is fitted on the
features of 100, 500 and 4,000 labelled samples, ten draws each, and scored on the test
split.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

import sc2keras
from sc2keras import datasets, evaluation, plotting
from sc2keras.files import whole_file


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, help="a saved .keras model")
    parser.add_argument("--dataset", choices=datasets.NAMES, default="digits")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 500, 4000])
    parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps its data")
    parser.add_argument("--output", type=Path, default=Path("out/feature_extraction"))
    args = parser.parse_args(argv)
    if min(args.labels) < 10:
        parser.error(f"--labels {min(args.labels)} is not an integer >= 10")
    try:
        data = datasets.load(args.dataset, data_dir=args.data_dir)
    except (datasets.DatasetUnavailableError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if args.model:
        model = load(args.model, data)
    else:
        model = sc2keras.applications.SC2Net(weights=args.dataset)

    features = {
        f"raw pixels ({data.x_train[0].size})": [
            x.reshape(len(x), -1) for x in (data.x_train, data.x_test)
        ],
        **pca(data, model.encoder.n_atoms),
        f"sparse codes ({model.encoder.n_atoms})": [
            model.encode(x) for x in (data.x_train, data.x_test)
        ],
    }
    results = {label: compare(data, *x, args.labels) for label, x in features.items()}
    print(f"Logistic regression on {args.dataset}, mean ± std over 10 draws of labels:")
    for label, accuracies in results.items():
        cells = [
            f"{n} labels {100 * values.mean():6.2f} ± {100 * values.std():.2f} %"
            for n, values in accuracies.items()
        ]
        print(f"  {label:20s} " + "   ".join(cells))
    codes = list(features.values())[-1][1]
    print(f"Nonzero entries of the codes: {np.mean(np.abs(codes) > 1e-3):.0%}")
    args.output.mkdir(parents=True, exist_ok=True)
    figure = draw(model, data, results)
    plotting.save_figure(figure, args.output / "feature_extraction.png")
    rows = {
        label: {n: values.tolist() for n, values in accuracies.items()}
        for label, accuracies in results.items()
    }
    text = json.dumps(rows, indent=1) + "\n"
    with whole_file(args.output / "feature_extraction.json") as path:
        path.write_text(text)
    return results


def load(path, data):
    """The saved model, if it takes the images of this dataset."""
    if not path.is_file():
        sys.exit(f"error: --model {path} is not a file")
    model = keras.saving.load_model(path)
    expected, shape = model.input_shape[1:], data.x_train.shape[1:]
    if expected != shape:
        sys.exit(
            f"error: {path} takes inputs of shape {expected}, but those of {data.name} "
            f"have {shape}. Give the --dataset that it was trained on."
        )
    return model


def pca(data, n_components):
    """PCA of the codes' size, which sees the training split without labels too.

    With all components it would be the raw pixels, turned: it keeps half at most.
    """
    train, test = (x.reshape(len(x), -1) for x in (data.x_train, data.x_test))
    n_components = min(n_components, train.shape[1] // 2)
    found = PCA(n_components, random_state=0).fit(train)
    return {f"PCA ({n_components})": [found.transform(train), found.transform(test)]}


def compare(data, train, test, labels):
    """`{number of labels: accuracies by draw}`; the draws are the same for all."""
    accuracies = {}
    for n_labels in labels:
        draws = evaluation.make_draws(len(train), len(test), n_fit=n_labels)
        accuracies[len(draws[0][0])] = evaluation.paper_accuracy(
            train, data.y_train, test, data.y_test, draws
        )
    return accuracies


def draw(model, data, results):
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(5, 4)
    )
    for label, accuracies in results.items():
        means = [100 * values.mean() for values in accuracies.values()]
        spreads = [100 * values.std() for values in accuracies.values()]
        left.errorbar(
            list(accuracies), means, spreads, marker="o", capsize=3, label=label
        )
    left.set_xscale("log")
    ticks = list(next(iter(results.values())))
    left.set_xticks(ticks, [f"{n:,}" for n in ticks])
    left.minorticks_off()
    left.set_xlabel("labelled samples")
    left.set_ylabel("accuracy on the test split, %")
    left.set_title(f"{data.name}, logistic regression")
    left.grid(alpha=0.3)
    left.legend(loc="lower right")
    plotting.plot_atoms(model, data.x_train.shape[1:], ax=right)
    right.set_title("the atoms that the codes stand for")
    return figure


if __name__ == "__main__":
    main()
