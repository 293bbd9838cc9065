"""
Which activation in a recurrent model? A noisy sine
===================================================

An ``SLSTMCell`` predicts the next value of a sine with noise, with a sparse activation
and with a smooth one, beside a ``keras.layers.LSTM`` of as many units. No prediction
can have an error below the variance of the noise, 0.01.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np

from sc2keras import plotting
from sc2keras.layers import SLSTMCell

parser = argparse.ArgumentParser(description="A noisy sine by recurrent layers.")
parser.add_argument("--output", type=Path, default=Path("out/noisy_sine"))
args = parser.parse_args()
UNITS, NOISE = 32, 0.1

# %%
# Sines of random frequency and phase, with noise.
generator = np.random.default_rng(0)
frequency, phase = generator.uniform((0.2, 0), (0.4, 2 * np.pi), (1000, 2)).T
time = np.arange(17)
clean = np.sin(frequency[:, None] * time + phase[:, None])[..., None]
signals = (clean + NOISE * generator.standard_normal(clean.shape)).astype("float32")
x, y = signals[:500, :-1], signals[:500, 1:]
x_test, y_test = signals[500:, :-1], signals[500:, 1:]

# %%
# One model for each layer
# ------------------------
options = {"return_sequences": True, "unroll": True}
layers = {
    "LSTM": keras.layers.LSTM(UNITS, **options),
    "SLSTM, shrinkage": keras.layers.RNN(SLSTMCell(UNITS), **options),
    "SLSTM, double tanh": keras.layers.RNN(
        SLSTMCell(UNITS, activation="double_tanh"), **options
    ),
}
results, predictions = {}, {}
n_first = 6  # Of so few values nobody can tell the frequency: they are not counted.
for label, layer in layers.items():
    keras.utils.set_random_seed(0)
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(
        keras.optimizers.Adam(5e-3, clipnorm=1.0), loss="mse", jit_compile=False
    )
    model.fit(x, y, epochs=30, batch_size=32, verbose=0)
    predictions[label] = model.predict(x_test, verbose=0)
    states = keras.ops.convert_to_numpy(layer(x_test))
    results[label] = {
        "error": float(np.mean(np.square(predictions[label] - y_test)[:, n_first:])),
        "nonzero": float(np.mean(np.abs(states) > 1e-3)),
    }
    print(
        f"{label:20} error {results[label]['error']:.4f}, "
        f"{results[label]['nonzero']:.0%} of the states not zero"
    )

# %%
# The prediction of one sine, after its first values.
figure, axes = plt.subplots(
    len(layers), 1, figsize=(9, 6), layout="constrained", sharex=True, sharey=True
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
