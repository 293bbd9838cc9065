"""
Denoising: sparse codes of the patches of a photograph
======================================================

Noise has no sparse code. A dictionary is learned from the noisy patches themselves,
every overlapping patch is coded, and the reconstructions are averaged.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_sample_image
from sklearn.decomposition import sparse_encode
from sklearn.feature_extraction import image as patching
from sklearn.linear_model import orthogonal_mp_gram

import sc2keras
from sc2keras import plotting

parser = argparse.ArgumentParser(description="Denoising by sparse codes of patches.")
parser.add_argument("--output", type=Path, default=Path("out/image_denoising"))
parser.add_argument("--noise", type=float, nargs="+", default=[0.05, 0.1, 0.2])
args = parser.parse_args()
warnings.simplefilter("ignore")  # The solvers warn for single patches.
N_ATOMS, L1 = 128, 1.5  # In units of the noise: enough to leave it out of the codes.
ONLINE = {"batch_size": 256, "max_iter": 150, "verbose": 0}
photograph = load_sample_image("china.jpg").mean(axis=2)[100:228, 100:260] / 255.0

# %%
# A patch is coded by SC2Net, trained for the dictionary; by LASSO; and by orthogonal
# matching pursuit (OMP) up to the noise.


def trained(x, dictionary):
    keras.utils.set_random_seed(0)
    given = {"dictionary": dictionary, "trainable_dictionary": False}
    model = sc2keras.applications.SC2Net(N_ATOMS, (64,), n_steps=8, l1=L1, **given)
    sc2keras.Recipe(epochs=10, clipnorm=1.0).fit(model, x, verbose=0)
    model.encode(x[:8192])  # Compiles.
    return lambda x, dictionary: model.encode(x)


def lasso(x, dictionary):
    return sparse_encode(x, dictionary, algorithm="lasso_cd", alpha=L1, n_jobs=-1)


def pursue(x, dictionary):
    squared, tol = np.sum(x.astype("float64") ** 2, axis=1), 1.15**2 * x.shape[1]
    codes, active = np.zeros((len(x), N_ATOMS), "float32"), squared > tol
    products = dictionary @ dictionary.T, dictionary @ x[active].T
    found = orthogonal_mp_gram(*products, tol=tol, norms_squared=squared[active])
    codes[active] = found.T
    return codes


# %%
# Patches are coded in units of the noise, without their means. The seconds are those of
# coding all of them.
n_rows = len(args.noise)
figure = plt.figure(figsize=(13, 2.7 * n_rows), layout="constrained")
axes = figure.subplots(n_rows, 4, squeeze=False)
results = []
for noise, row in zip(args.noise, axes, strict=True):
    normal = np.random.default_rng(0).standard_normal(photograph.shape)
    noisy = photograph + noise * normal
    patches = patching.extract_patches_2d(noisy, (8, 8)).reshape(-1, 64)
    means = patches.mean(axis=1, keepdims=True)
    x = ((patches - means) / noise).astype("float32")
    dictionary = sc2keras.learn_dictionary(x, N_ATOMS, L1, **ONLINE)
    methods = {"SC2Net": trained(x, dictionary), "LASSO": lasso, "OMP": pursue}
    for ax, method in zip(row, ["noisy", *methods], strict=True):
        image, seconds = noisy, 0.0
        if method in methods:
            started = time.perf_counter()
            codes = methods[method](x, dictionary)
            seconds = time.perf_counter() - started
            clean = (noise * (codes @ dictionary) + means).reshape(-1, 8, 8)
            image = patching.reconstruct_from_patches_2d(clean, noisy.shape)
        pair = [tf.constant(a[..., None], tf.float32) for a in (photograph, image)]
        psnr, ssim = (float(f(*pair, 1.0)) for f in (tf.image.psnr, tf.image.ssim))
        results.append((noise, method, psnr, ssim, seconds))
        print(f"{noise} {method:7} {psnr:.2f} dB, SSIM {ssim:.3f}, {seconds:.2f} s")
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], title=f"{method}, {noise:g}: {psnr:.2f} dB")

# %%
args.output.mkdir(parents=True, exist_ok=True)
plotting.save_figure(figure, args.output / "image_denoising.png")
text = json.dumps(results, indent=1) + "\n"
(args.output / "image_denoising.json").write_text(text)
