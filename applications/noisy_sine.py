"""
Which activation in a recurrent model? A noisy sine
===================================================

An ``SLSTMCell`` predicts the next value of a sine with noise, with each of its
activations, beside a ``keras.layers.LSTM`` of as many units. No prediction can have an
error below the variance of the noise, 0.01.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np

from sc2keras import plotting
from sc2keras.layers import SLSTMCell, TopK

parser = argparse.ArgumentParser(description="A noisy sine by recurrent layers.")
parser.add_argument("--output", type=Path, default=Path("out/noisy_sine"))
args = parser.parse_args()
UNITS, NOISE = 32, 0.1

# %%
# Sines of random frequency and phase, with noise.
generator = np.random.default_rng(0)
frequency, phase = generator.uniform((0.1, 0), (0.5, 2 * np.pi), (1200, 2)).T
time = np.arange(41)
clean = np.sin(frequency[:, None] * time + phase[:, None])[..., None]
signals = (clean + NOISE * generator.standard_normal(clean.shape)).astype("float32")
x, y = signals[:1000, :-1], signals[:1000, 1:]
x_test, y_test = signals[1000:, :-1], signals[1000:, 1:]

# %%
# One model for each layer
# ------------------------
layers = {
    "LSTM": keras.layers.LSTM(UNITS, return_sequences=True),
    **{
        f"SLSTM, {name}": keras.layers.RNN(
            SLSTMCell(UNITS, activation=activation), return_sequences=True
        )
        for name, activation in [
            ("shrinkage", "shrinkage"),
            ("double tanh", "double_tanh"),
            ("top 8 of 32", TopK(8)),
        ]
    },
}
results, predictions = {}, {}
for label, layer in layers.items():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 1))
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(keras.optimizers.Adam(5e-3, clipnorm=1.0), loss="mse")
    model.fit(x, y, epochs=25, batch_size=64, verbose=0)
    predictions[label] = model.predict(x_test, verbose=0)
    states = keras.ops.convert_to_numpy(layer(x_test))
    results[label] = {
        "error": float(np.mean((predictions[label] - y_test) ** 2)),
        "nonzero": float(np.mean(np.abs(states) > 1e-3)),
    }
    print(
        f"{label:20} error {results[label]['error']:.4f}, "
        f"{results[label]['nonzero']:.0%} of the states not zero"
    )

# %%
# The prediction of one sine, after its first values.
figure, axes = plt.subplots(
    len(layers), 1, figsize=(9, 7), layout="constrained", sharex=True, sharey=True
)
for ax, (label, predicted) in zip(axes, predictions.items(), strict=True):
    ax.plot(time[1:], y_test[0], ".", color="0.6", label="signal")
    ax.plot(time[1:], predicted[0], label="predicted")
    ax.set_title(f"{label}: error {results[label]['error']:.4f}", fontsize=10)
    ax.grid(alpha=0.3)
axes[0].legend(loc="upper right")
axes[-1].set_xlabel("time")

# %%
args.output.mkdir(parents=True, exist_ok=True)
plotting.save_figure(figure, args.output / "noisy_sine.png")
text = json.dumps(results, indent=1) + "\n"
(args.output / "noisy_sine.json").write_text(text)
