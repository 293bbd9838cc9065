"""
Denoising: sparse codes of the patches of a photograph
======================================================

Noise has no sparse code. A dictionary is learned from the noisy patches themselves,
every overlapping patch is coded, and the reconstructions are averaged. A network learns
to do that from other photographs and from the noisy one. Beside it stand solvers, and
the usual filters (``pip install 'sc2keras[gallery]'``).
"""

import argparse
import json
import os
import time
import warnings
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from skimage import data, restoration
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.datasets import load_sample_image
from sklearn.feature_extraction import image as patching
from sklearn.linear_model import orthogonal_mp_gram

import sc2keras
from sc2keras import plotting

parser = argparse.ArgumentParser(description="Denoising by sparse codes of patches.")
parser.add_argument("--output", type=Path, default=Path("out/image_denoising"))
parser.add_argument("--noise", type=float, nargs="+", default=[0.05, 0.1, 0.2])
parser.add_argument("--updates", type=int, default=1000)
args = parser.parse_args()
warnings.simplefilter("ignore")  # The solvers warn for single patches.
SIDE, CROP, N_ATOMS, L1 = 8, 15, 256, 1.5
ONLINE = {"batch_size": 256, "max_iter": 150, "verbose": 0}
photograph = load_sample_image("china.jpg").mean(axis=2)[100:228, 100:260] / 255.0

# %%
# Crops are as large as all patches of a pixel. Those of other photographs, in two
# sizes, are drawn more often where there is detail, and get noise. From a noisy image y
# pairs are made without a clean one: the noise of y + e/2 and of y − 2e is independent
# where e is noise, too (Pang et al., Recorrupted-to-Recorrupted, 2021).
others = [load_sample_image("flower.jpg"), data.astronaut(), data.chelsea()]
others += [data.coffee(), data.brick(), data.grass(), data.gravel(), data.rocket()]
others = [a if a.ndim == 2 else a.mean(axis=2) for a in others]
rng = np.random.default_rng(0)


def halved(image):
    height, width = (size // 2 for size in image.shape)
    image = image[: 2 * height, : 2 * width]
    return image.reshape(height, 2, width, 2).mean(axis=(1, 3))


def draw_crops(image, n):
    views = np.lib.stride_tricks.sliding_window_view(image, (CROP, CROP))
    places = (rng.integers(size, size=n) for size in views.shape[:2])
    return views[tuple(places)].reshape(-1, CROP**2)


def draw_pairs(image, noise, n):
    """Crops in units of the noise that is in them, and what is to become of them."""
    found = [draw_crops(a / 255, n // 3) for a in (*others, *map(halved, others))]
    found = np.concatenate(found)
    detail = found.std(axis=1)
    clean = found[rng.choice(len(found), n, p=detail / detail.sum())] / noise
    own, more = draw_crops(image / noise, n), rng.standard_normal(clean.shape)
    x = [clean + rng.standard_normal(clean.shape), (own + more / 2) / np.sqrt(1.25)]
    y = [clean, (own - 2 * more) / np.sqrt(1.25)]
    order = rng.permutation(2 * n)
    return np.concatenate(x)[order], np.concatenate(y)[order]


grid = np.arange(CROP**2).reshape(CROP, CROP)
windows = np.lib.stride_tricks.sliding_window_view(grid, (SIDE, SIDE)).ravel()
average = np.eye(CROP**2, dtype="float32")[windows] / np.bincount(windows)


def centred(x):
    return (x - x.mean(axis=-1, keepdims=True)).astype("float32")


# %%
# The network codes all patches of a crop, and is trained by what their average is.


def trained(image, noise, dictionary):
    """What makes clean patches of noisy ones, in units of the noise."""
    keras.utils.set_random_seed(0)
    layer = sc2keras.layers.StepLFISTABlock(N_ATOMS, 8, l1=L1, dictionary=dictionary)
    decoder = keras.layers.Dense(SIDE**2, use_bias=False)
    inputs = keras.Input((CROP**2,))
    patches = ops.reshape(ops.take(inputs, windows, axis=1), (-1, 64, SIDE**2))
    means = ops.mean(patches, axis=-1, keepdims=True)
    found = ops.reshape(decoder(layer(patches - means)) + means, (-1, len(windows)))
    trainer = keras.Model(inputs, ops.matmul(found, average))
    decoder.set_weights([dictionary])
    x, y = draw_pairs(image, noise, 4 * args.updates)
    recipe = sc2keras.Recipe("adam", 2e-3, epochs=1, batch_size=8, clipnorm=1)
    trainer.compile(recipe.make_optimizer(len(x)), loss="mse")
    trainer.fit(x, y, batch_size=8, verbose=0)
    inputs = keras.Input((SIDE**2,))
    model = sc2keras.SparseCoder(inputs, layer(inputs))
    model.encode(np.zeros((4096, SIDE**2), "float32"))  # Compiles.
    return lambda x: model.encode(x) @ decoder.get_weights()[0]


# %%
# Solvers, for patches in units of the noise: OMP stops where that begins. Filters, for
# images; their constants were chosen on the cameraman.


def pursue(x, atoms):
    squared, tol = np.sum(x.astype(float) ** 2, axis=1), 1.15**2 * x.shape[1]
    codes, active = np.zeros((len(x), len(atoms))), squared > tol
    products = atoms @ atoms.T, atoms @ x[active].T
    found = orthogonal_mp_gram(*products, tol=tol, norms_squared=squared[active])
    codes[active] = found.T
    return codes @ atoms


def make_methods(image, x, noise):
    """What makes clean patches of noisy ones; and clean images."""
    own = sc2keras.learn_dictionary(x, N_ATOMS, L1, **ONLINE)
    given = {"l1": L1, "dictionary": own, "tol": 1e-3}
    exact = sc2keras.applications.ActiveSet(len(own), (SIDE**2,), **given)
    exact.encode(x[:2048])  # Compiles.
    means = {"patch_size": 5, "patch_distance": 6, "h": 0.7 * noise, "sigma": noise}
    variation = restoration.denoise_tv_chambolle
    shifts = {"max_shifts": 3, "func_kw": {"sigma": noise}}
    wavelets = {"func": restoration.denoise_wavelet, **shifts}
    return {
        "StepLFISTA": trained(image, noise, own),
        "LASSO": lambda x: exact.encode(x) @ own,
        "OMP": lambda x: pursue(x, own),
    }, {
        "noisy": lambda image: image,
        "wavelets": partial(restoration.cycle_spin, **wavelets),
        "total variation": partial(variation, weight=0.8 * noise),
        "non-local means": partial(restoration.denoise_nl_means, **means),
    }


# %%
# The seconds are those of coding and decoding all patches, or of the filter.
shown, results = ["noisy", "non-local means", "LASSO", "OMP", "StepLFISTA"], []
figure = plt.figure(figsize=(15, 2.6 * len(args.noise)), layout="constrained")
axes = figure.subplots(len(args.noise), len(shown), squeeze=False)
for noise, row in zip(args.noise, axes, strict=True):
    normal = np.random.default_rng(0).standard_normal(photograph.shape)
    noisy = photograph + noise * normal
    patches = patching.extract_patches_2d(noisy, (SIDE, SIDE)).reshape(-1, SIDE**2)
    x = centred(patches) / np.float32(noise)
    of_patches, of_images = make_methods(noisy, x, noise)
    for method, function in (of_images | of_patches).items():
        started = time.perf_counter()
        image = function(noisy if method in of_images else x)
        seconds = time.perf_counter() - started
        if method in of_patches:
            found = noise * image + patches.mean(axis=1, keepdims=True)
            found = found.reshape(-1, SIDE, SIDE)
            image = patching.reconstruct_from_patches_2d(found, noisy.shape)
        psnr = float(peak_signal_noise_ratio(photograph, image, data_range=1))
        ssim = float(structural_similarity(photograph, image, data_range=1))
        results.append((noise, method, psnr, ssim, seconds))
        print(f"{noise} {method:16} {psnr:.2f} dB, SSIM {ssim:.3f}, {seconds:.2f} s")
        if method in shown:
            ax = row[shown.index(method)]
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[], title=f"{method}, {noise:g}: {psnr:.2f} dB")

# %%
args.output.mkdir(parents=True, exist_ok=True)
plotting.save_figure(figure, args.output / "image_denoising.png")
text = json.dumps(results, indent=1) + "\n"
(args.output / "image_denoising.json").write_text(text)
