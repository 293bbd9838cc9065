"""Predicts the next row of a digit with a Sparse LSTM over its rows.

    python applications/sequence_coding.py

`keras.layers.RNN(SLSTMCell)` reads an image row by row, as any recurrent layer does,
and a dense layer predicts the row that follows from the code. The error stands beside
that of `keras.layers.LSTM` with as many units, of the last row repeated, and of the
mean row. How many entries of the SLSTM's codes are not zero is printed too.
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
from sc2keras import datasets, plotting
from sc2keras.files import whole_file


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/sequence_coding"))
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    data = datasets.load("digits")
    # A sequence of 8 rows of 8 pixels; the next row is predicted from those before.
    x, x_test = data.x_train[..., 0], data.x_test[..., 0]
    predictions, histories = {}, {}
    layers = {
        "SLSTM": keras.layers.RNN(
            sc2keras.layers.SLSTMCell(args.units, activation="shrinkage"),
            return_sequences=True,
        ),
        "LSTM": keras.layers.LSTM(args.units, return_sequences=True),
    }
    for label, layer in layers.items():
        model, histories[label] = train(layer, x, x_test, args.epochs)
        predictions[label] = model.predict(x_test[:, :-1], verbose=0)
        if label == "SLSTM":
            codes = layer(x_test[:, :-1])
            nonzero = float(np.mean(np.abs(keras.ops.convert_to_numpy(codes)) > 1e-3))
    predictions["last row repeated"] = x_test[:, :-1]
    mean = x[:, 1:].mean(axis=0)
    predictions["mean row"] = np.broadcast_to(mean, x_test[:, 1:].shape)
    errors = {
        label: float(np.mean((x_test[:, 1:] - predicted) ** 2))
        for label, predicted in predictions.items()
    }
    for label, error in errors.items():
        print(f"{label:<18} mean squared error of the next row {error:.4f}")
    print(f"{nonzero:.0%} of the entries of the SLSTM's codes are not zero")
    results = {**errors, "nonzero": nonzero}
    figure = draw(x_test, predictions, histories)
    plotting.save_figure(figure, args.output / "sequence_coding.png")
    text = json.dumps(results, indent=1) + "\n"
    with whole_file(args.output / "sequence_coding.json") as path:
        path.write_text(text)
    return results


def train(layer, x, x_test, epochs):
    """A model that predicts each next row, and its error on the test split by epoch."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(x[:, :-1].shape[1:])
    model = keras.Model(inputs, keras.layers.Dense(x.shape[-1])(layer(inputs)))
    model.compile(keras.optimizers.Adam(3e-3), loss="mse")
    history = model.fit(
        x[:, :-1],
        x[:, 1:],
        epochs=epochs,
        batch_size=64,
        verbose=0,
        validation_data=(x_test[:, :-1], x_test[:, 1:]),
    )
    return model, history.history["val_loss"]


def draw(x_test, predictions, histories):
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.2), layout="constrained", width_ratios=(2, 3)
    )
    for label, losses in histories.items():
        left.plot(range(1, len(losses) + 1), losses, label=label)
    left.set_yscale("log")
    left.set_xlabel("epoch")
    left.set_ylabel("error of the next row, test split")
    left.grid(alpha=0.3, which="both")
    left.legend()
    # Row by row, each predicted from the true rows above it.
    images = {
        label: np.concatenate([x_test[:12, :1], predicted[:12]], axis=1)
        for label, predicted in predictions.items()
        if label in histories
    }
    plotting.plot_reconstructions(x_test[:12], images, x_test.shape[1:], ax=right)
    right.set_title("each row predicted from those above it")
    return figure


if __name__ == "__main__":
    main()
