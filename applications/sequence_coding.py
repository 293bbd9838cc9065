"""
Sequences: the next row of a digit
==================================

``keras.layers.RNN(SLSTMCell)`` reads an image row by row, as any recurrent layer does,
and a dense layer predicts the row that follows. For prediction alone an LSTM is the
better unit; what the SLSTM adds is a state with exact zeros.
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
from sc2keras import plotting
from sc2keras.layers import SLSTMCell

parser = argparse.ArgumentParser(description="The next row of a digit.")
parser.add_argument("--output", type=Path, default=Path("out/sequence_coding"))
parser.add_argument("--epochs", type=int, default=60)
args = parser.parse_args()
UNITS = 64
data = sc2keras.datasets.load("digits")
# A sequence of 8 rows of 8 pixels; the next row is predicted from those before.
x, x_test = data.x_train[..., 0], data.x_test[..., 0]

# %%
# Two recurrent layers, one task
# ------------------------------


def train(layer):
    """The model, and its error on the test split by epoch."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(x[:, :-1].shape[1:])
    model = keras.Model(inputs, keras.layers.Dense(x.shape[-1])(layer(inputs)))
    model.compile(keras.optimizers.Adam(3e-3), loss="mse")
    history = model.fit(
        x[:, :-1],
        x[:, 1:],
        epochs=args.epochs,
        batch_size=64,
        verbose=0,
        validation_data=(x_test[:, :-1], x_test[:, 1:]),
    )
    return model, history.history["val_loss"]


layers = {
    "SLSTM": keras.layers.RNN(SLSTMCell(UNITS), return_sequences=True),
    "LSTM": keras.layers.LSTM(UNITS, return_sequences=True),
}
predictions, histories = {}, {}
for label, layer in layers.items():
    model, histories[label] = train(layer)
    predictions[label] = model.predict(x_test[:, :-1], verbose=0)
codes = keras.ops.convert_to_numpy(layers["SLSTM"](x_test[:, :-1]))

# %%
# The errors
# ----------
# They stand beside those of the last row, repeated, and of the mean row.
mean = np.broadcast_to(x[:, 1:].mean(axis=0), x_test[:, 1:].shape)
others = {"last row repeated": x_test[:, :-1], "mean row": mean}
results = {}
for label, predicted in {**predictions, **others}.items():
    results[label] = float(np.mean((x_test[:, 1:] - predicted) ** 2))
    print(f"{label:<18} mean squared error of the next row {results[label]:.4f}")
results["nonzero"] = float(np.mean(np.abs(codes) > 1e-3))
print(f"{results['nonzero']:.0%} of the entries of the SLSTM's codes are not zero")

# %%
# Error by epoch; and digits whose rows are each predicted from the true rows above.
figure, (left, right) = plt.subplots(
    1, 2, figsize=(12, 4.2), layout="constrained", width_ratios=(2, 3)
)
for label, losses in histories.items():
    left.semilogy(range(1, len(losses) + 1), losses, label=label)
left.set(xlabel="epoch", ylabel="error of the next row, test split")
left.grid(alpha=0.3, which="both")
left.legend()
images = {
    label: np.concatenate([x_test[:12, :1], predicted[:12]], axis=1)
    for label, predicted in predictions.items()
}
plotting.plot_reconstructions(x_test[:12], images, x_test.shape[1:], ax=right)
right.set_title("each row predicted from those above it")

# %%
args.output.mkdir(parents=True, exist_ok=True)
plotting.save_figure(figure, args.output / "sequence_coding.png")
text = json.dumps(results, indent=1) + "\n"
(args.output / "sequence_coding.json").write_text(text)
