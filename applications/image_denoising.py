"""Removes noise from a photograph by sparse codes of its overlapping patches.

    python applications/image_denoising.py

For each noise level a dictionary is learned from the noisy patches themselves, in units
of the noise. SC2Net, trained for that dictionary, stands beside LASSO (scikit-learn's
coordinate descent) and orthogonal matching pursuit (OMP) with the same one: PSNR, SSIM
and the time to code all patches. The photograph ships with scikit-learn.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_sample_image
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.image import (
    extract_patches_2d,
    reconstruct_from_patches_2d,
)
from sklearn.linear_model import orthogonal_mp_gram

import sc2keras
from sc2keras import plotting
from sc2keras.files import whole_file

PATCH = 8
# In units of the noise: enough to leave it out of the codes of a unit-norm dictionary.
L1 = 1.5
# OMP stops where the residual of a feature is about that of the noise.
OMP_RESIDUAL = 1.15


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/image_denoising"))
    parser.add_argument("--noise", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--n-atoms", type=int, default=128)
    parser.add_argument("--size", type=int, nargs=2, default=[128, 160])
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    image = photograph(*args.size)
    results, pictures = [], {}
    for noise in args.noise:
        noisy = image + noise * np.random.default_rng(0).standard_normal(image.shape)
        found = denoise(noisy, noise, args)
        found = {"noisy": (noisy, 0.0), **found}
        for method, (denoised, seconds) in found.items():
            quality = compare(image, denoised)
            results.append((noise, method, *quality, seconds))
            print(
                "noise {:.2f}  {:<8} PSNR {:5.2f} dB  SSIM {:.3f}  {:6.2f} s".format(
                    *results[-1]
                )
            )
        pictures[noise] = found
    figure = draw(image, pictures, results)
    plotting.save_figure(figure, args.output / "image_denoising.png")
    text = json.dumps(results, indent=1) + "\n"
    with whole_file(args.output / "image_denoising.json") as path:
        path.write_text(text)
    return results


def photograph(height, width):
    """A part of scikit-learn's picture of a temple, grey, in [0, 1]."""
    grey = load_sample_image("china.jpg").mean(axis=2) / 255.0
    return grey[100 : 100 + height, 100 : 100 + width]


def denoise(noisy, noise, args):
    """`{method: (image, seconds)}`; the seconds are those of coding all patches."""
    patches = extract_patches_2d(noisy, (PATCH, PATCH)).reshape(-1, PATCH**2)
    means = patches.mean(axis=1, keepdims=True)
    # Signals of this scale are what a learning rate of 1.0 suits, at any noise.
    x = ((patches - means) / noise).astype("float32")
    dictionary = sc2keras.learn_dictionary(
        x, args.n_atoms, L1, batch_size=256, max_iter=150, verbose=0
    )
    model = train(x, dictionary, args.epochs)
    model.encode(x[:8192])  # Compiles.
    methods = {
        "SC2Net": lambda: model.encode(x),
        "LASSO": lambda: sparse_encode(
            x, dictionary, algorithm="lasso_cd", alpha=L1, n_jobs=-1
        ),
        "OMP": lambda: pursue(x, dictionary),
    }
    found = {}
    for method, code in methods.items():
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            codes = code()
        seconds = time.perf_counter() - started
        clean = (noise * (codes @ dictionary) + means).reshape(-1, PATCH, PATCH)
        found[method] = reconstruct_from_patches_2d(clean, noisy.shape), seconds
    return found


def train(x, dictionary, epochs):
    """SC2Net for a given dictionary: it takes the place of a solver."""
    keras.utils.set_random_seed(0)
    model = sc2keras.applications.SC2Net(
        len(dictionary),
        x.shape[1:],
        n_steps=8,
        l1=L1,
        activation="shrinkage",
        dictionary=dictionary,
        trainable_dictionary=False,
    )
    sc2keras.Recipe(epochs=epochs, clipnorm=1.0).fit(model, x, verbose=0)
    return model


def pursue(x, dictionary):
    """OMP until each residual has the norm that the noise has."""
    squared_norms = np.sum(x.astype("float64") ** 2, axis=1)
    tol = OMP_RESIDUAL**2 * x.shape[1]
    codes = np.zeros((len(x), len(dictionary)), dtype="float32")
    # A patch within the noise needs no atom.
    active = squared_norms > tol
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        codes[active] = orthogonal_mp_gram(
            dictionary @ dictionary.T,
            dictionary @ x[active].T,
            tol=tol,
            norms_squared=squared_norms[active],
        ).T
    return codes


def compare(image, other):
    """PSNR in dB and SSIM."""
    a, b = (tf.constant(array[..., None], tf.float32) for array in (image, other))
    return float(tf.image.psnr(a, b, 1.0)), float(tf.image.ssim(a, b, 1.0))


def draw(image, pictures, results):
    quality = {(noise, method): (p, s) for noise, method, p, s, _ in results}
    n_columns = 1 + max(len(found) for found in pictures.values())
    figure, axes = plt.subplots(
        len(pictures),
        n_columns,
        figsize=(3.2 * n_columns, 2.5 * len(pictures)),
        layout="constrained",
        squeeze=False,
    )
    for row, (noise, found) in zip(axes, pictures.items(), strict=True):
        panels = {"original": (image, 0.0), **found}
        for ax, (method, (picture, _)) in zip(row, panels.items(), strict=True):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            ax.set_xticks([])
            ax.set_yticks([])
            title = method
            if method != "original":
                title += "\n{:.2f} dB, SSIM {:.3f}".format(*quality[noise, method])
            ax.set_title(title, fontsize=10)
        row[0].set_ylabel(f"noise {noise:g}")
    return figure


if __name__ == "__main__":
    main()
