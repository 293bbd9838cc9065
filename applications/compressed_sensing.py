"""
Compressed sensing: patches from a quarter of their numbers
===========================================================

A camera measures m random sums of a patch of 144 pixels, y = Φx. A patch has a sparse
code over a dictionary D of another photograph, x ≈ sD, and what is measured has this
code over DΦᵀ. A solver finds it; a network is trained for the operator.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LinearRegression, orthogonal_mp_gram

import sc2keras
from sc2keras import plotting

parser = argparse.ArgumentParser(description="Compressed sensing of image patches.")
parser.add_argument("--output", type=Path, default=Path("out/compressed_sensing"))
parser.add_argument("--share", type=float, nargs="+", default=[0.25, 0.5])
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--updates", type=int, default=150)
args = parser.parse_args()
SIDE, N_ATOMS, L1 = 12, 288, 0.2
N = SIDE**2

# %%
# A dictionary is learned from one photograph, in two sizes, and another is measured. A
# patch's mean is one of its measurements, and what is coded is the rest.


def patches(image, step):
    views = np.lib.stride_tricks.sliding_window_view(image, (SIDE, SIDE))
    return views[::step, ::step].reshape(-1, N)


def centred(x):
    return x - x.mean(axis=1, keepdims=True)


names = ("china.jpg", "flower.jpg")
source, photograph = (load_sample_image(name).mean(axis=2) / 255 for name in names)
smaller = source[:426].reshape(213, 2, 320, 2).mean(axis=(1, 3))
x = centred(np.concatenate([patches(source, 4), patches(smaller, 2)]))
unit = np.sqrt(np.mean(np.sum(x**2, axis=1))) / 10  # Of signals of E‖x‖² = 100.
x = (x / unit).astype("float32")
photograph = photograph[: 427 // SIDE * SIDE, : 640 // SIDE * SIDE]
tested = patches(photograph, SIDE)
how = {"method": "unrolled", "max_iter": 800, "verbose": 0}
dictionary = sc2keras.learn_dictionary(x, N_ATOMS, 1.0, **how)

# %%
# λ and OMP's number of atoms, a tenth of the measurements, were chosen on a strip of
# the first photograph, with a dictionary of the rest. Networks are trained on measured
# patches alone, to stand in for FISTA; by ``fit_recovery`` on synthetic codes, without
# any patch; or on pairs of measurements and patches, with a decoder of their own.
recipe = sc2keras.Recipe("adam", learning_rate=3e-3, epochs=args.epochs, clipnorm=1.0)


def on_pairs(layer, y):
    """A network of measurements and codes, trained by what a decoder makes of these."""
    inputs, decoder = keras.Input(y.shape[1:]), keras.layers.Dense(N, use_bias=False)
    codes = layer(inputs)
    model = sc2keras.SparseCoder(inputs, [codes, decoder(codes)])
    decoder.set_weights([dictionary])
    recipe.compile(model, len(y), loss="mse", objective_weight=0)
    recipe.fit(model, y, x, verbose=0)
    return lambda y: model.encode(y) @ decoder.get_weights()[0]


def make_methods(operator):
    y, atoms = x @ operator.T, dictionary @ operator.T
    gram, n = (atoms @ atoms.T).astype(float), len(operator) // 10
    shape = {"input_shape": (len(operator),)}
    given = {"n_atoms": N_ATOMS, "l1": L1, "dictionary": atoms}
    fista = sc2keras.applications.FISTA(**given, **shape, n_steps=200)
    exact = sc2keras.applications.ActiveSet(**given, **shape, tol=1e-4)
    given |= {"n_steps": 8, "trainable_dictionary": False}
    keras.utils.set_random_seed(0)
    surrogate = sc2keras.applications.StepLFISTA(**given, **shape)
    recipe.fit(surrogate, y, verbose=0)
    synthetic = sc2keras.applications.ALISTA(
        N_ATOMS, **shape, n_steps=12, dictionary=atoms, error_based=True, ridge=0.3
    )
    how = {"density": 0.05, "snr": 20.0, "n_samples": 500, "verbose": 0}
    sc2keras.fit_recovery(synthetic, n_updates=args.updates, **how)
    return {
        "linear regression": LinearRegression(fit_intercept=False).fit(y, x).predict,
        "OMP": lambda y: (
            orthogonal_mp_gram(gram, atoms @ y.T, n_nonzero_coefs=n).T @ dictionary
        ),
        "FISTA, 200 steps": lambda y: fista.encode(y) @ dictionary,
        "ActiveSet, gap 1e-4": lambda y: exact.encode(y) @ dictionary,
        "StepLFISTA, as FISTA": lambda y: surrogate.encode(y) @ dictionary,
        "ALISTA, synthetic": lambda y: synthetic.encode(y) @ dictionary,
        "StepLFISTA, pairs": on_pairs(sc2keras.layers.StepLFISTABlock(**given), y),
    }


# %%
# The seconds are those of all patches of the photograph, in the second call: the first
# compiles.
results, images = [], {}
measured = (centred(tested) / unit).astype("float32")
for share in args.share:
    normal = np.random.default_rng(0).standard_normal((N, round(share * N) - 1))
    operator = np.linalg.qr(centred(normal.T).T)[0].T.astype("float32")
    y = measured @ operator.T
    for method, decode in make_methods(operator).items():
        decode(y)
        started = time.perf_counter()
        found = unit * decode(y) + tested.mean(axis=1, keepdims=True)
        seconds = time.perf_counter() - started
        psnr = float(-10 * np.log10(np.mean((found - tested) ** 2)))
        results.append((share, method, psnr, seconds))
        images[share, method] = found
        print(f"{share:.0%} {method:20} {psnr:.2f} dB, {seconds:.3f} s")

# %%
shown = ["OMP", "FISTA, 200 steps", "ALISTA, synthetic", "StepLFISTA, pairs"]
figure = plt.figure(figsize=(14, 2.6 * len(args.share)), layout="constrained")
axes = figure.subplots(len(args.share), 5, squeeze=False)
height, width = (size // SIDE for size in photograph.shape)
for share, row in zip(args.share, axes, strict=True):
    row[0].imshow(photograph, cmap="gray", vmin=0, vmax=1)
    row[0].set_title(f"{share:.0%} measured of")
    for ax, method in zip(row[1:], shown, strict=True):
        tiles = images[share, method].reshape(height, width, SIDE, SIDE)
        image = tiles.swapaxes(1, 2).reshape(photograph.shape)
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        psnr = next(r[2] for r in results if r[:2] == (share, method))
        ax.set_title(f"{method}: {psnr:.2f} dB")
for ax in axes.flat:
    # A part, in which patches can be seen.
    ax.set(xlim=(200, 400), ylim=(330, 170), xticks=[], yticks=[])

# %%
args.output.mkdir(parents=True, exist_ok=True)
plotting.save_figure(figure, args.output / "compressed_sensing.png")
text = json.dumps(results, indent=1) + "\n"
(args.output / "compressed_sensing.json").write_text(text)
