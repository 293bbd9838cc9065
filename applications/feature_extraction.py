"""Sparse codes as features: encode, classify, compare with raw pixels and PCA.

    python applications/feature_extraction.py                       # digits, seconds
    python applications/feature_extraction.py --model MODEL.keras --dataset mnist

Without --model a small SC2Net is trained on the digits that ship with scikit-learn.
"""

import argparse
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


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, help="a saved .keras model")
    parser.add_argument("--dataset", choices=datasets.NAMES, default="digits")
    parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps its data")
    parser.add_argument("--output", type=Path, default="out/feature_extraction")
    args = parser.parse_args(argv)
    try:
        data = datasets.load(args.dataset, data_dir=args.data_dir)
    except (datasets.DatasetUnavailableError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    model = load(args.model, data) if args.model else train(data.x_train)

    codes_train, codes_test = model.encode(data.x_train), model.encode(data.x_test)
    accuracies = compare(data, codes_train, codes_test)
    print(f"\nLogistic regression on {args.dataset}, mean ± std over 10 draws:\n")
    for label, values in accuracies.items():
        print(f"  {label:24s} {100 * values.mean():6.2f} ± {100 * values.std():.2f} %")
    print(f"\nNonzero entries of the codes: {np.mean(np.abs(codes_test) > 1e-3):.0%}")

    args.output.mkdir(parents=True, exist_ok=True)
    ax = plotting.plot_atoms(model, data.x_train.shape[1:])
    ax.figure.savefig(args.output / "atoms.png", dpi=110)
    plt.close(ax.figure)
    print(f"The atoms are drawn in {args.output / 'atoms.png'}")
    return accuracies


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


def train(x, epochs=40):
    """An SC2Net with exact zeros in its codes, trained in seconds."""
    keras.utils.set_random_seed(0)
    model = sc2keras.applications.SC2Net(
        n_atoms=100, input_shape=x.shape[1:], activation="shrinkage"
    )
    model.compile(jit_compile=False)
    model.fit(x, epochs=epochs, batch_size=128, verbose=2)
    return model


def compare(data, codes_train, codes_test):
    """Accuracies by draw of raw pixels, PCA of the codes' size, and the codes."""
    raw_train = data.x_train.reshape(len(data.x_train), -1)
    raw_test = data.x_test.reshape(len(data.x_test), -1)
    n_components = min(codes_train.shape[1], *raw_train.shape)
    pca = PCA(n_components, random_state=0).fit(raw_train)
    features = {
        f"raw pixels ({raw_train.shape[1]})": (raw_train, raw_test),
        f"PCA ({n_components})": (pca.transform(raw_train), pca.transform(raw_test)),
        f"sparse codes ({codes_train.shape[1]})": (codes_train, codes_test),
    }
    draws = evaluation.make_draws(len(raw_train), len(raw_test))
    return {
        label: evaluation.paper_accuracy(train, data.y_train, test, data.y_test, draws)
        for label, (train, test) in features.items()
    }


if __name__ == "__main__":
    main()
