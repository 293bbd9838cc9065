"""
Direction of arrival: where do the waves come from?
===================================================

Sixteen antennas, half a wavelength apart, take one snapshot of three waves. Few sources
on a grid of directions are a sparse code, and its dictionary is known from geometry,
exactly and for ever: samples to train on are drawn, and no array needs to be recorded.
(The dictionary of a radio channel is a model of hardware, and its law one of a place.)
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
from sklearn.linear_model import orthogonal_mp_gram

import sc2keras
from sc2keras import plotting

parser = argparse.ArgumentParser(description="Directions of waves by sparse codes.")
parser.add_argument("--output", type=Path, default=Path("out/direction_of_arrival"))
parser.add_argument("--epochs", type=int, default=20)
args = parser.parse_args()
M, N_CELLS, N_SOURCES, BEAM, N_TEST = 16, 128, 3, 2 / 16, 2000
rng = np.random.default_rng(0)

# %%
# A wave from θ adds a multiple of exp(iπm sin θ) to antenna m. Real and imaginary parts
# of a signal are stacked, those of a code are two atoms. The grid is even in sin θ, of
# eight cells a beam; sources lie anywhere, a beam apart at least.


def waves(sines):
    return np.exp(1j * np.pi * sines[..., None] * np.arange(M)) / np.sqrt(M)


def draw(n, snr):
    """Snapshots of unit norm, their codes, and the sines of the directions."""
    found = np.sort(rng.uniform(-0.9, 0.9, (3 * n, N_SOURCES)), axis=1)
    found = found[np.diff(found, axis=1).min(axis=1) > BEAM][:n]
    sources = np.exp(2j * np.pi * rng.random(found.shape))
    sources *= rng.uniform(0.5, 1, found.shape)
    noise = rng.standard_normal((n, M, 2)) @ [1, 1j] / np.sqrt(2 * M)
    x = (sources[:, None] @ waves(found))[:, 0] + 10 ** (-snr / 20) * noise
    codes, cells = np.zeros((n, N_CELLS), complex), np.rint((found + 1) * N_CELLS / 2)
    np.put_along_axis(codes, cells.astype(int), sources, axis=1)
    x, codes = (np.hstack([a.real, a.imag]).astype("float32") for a in (x, codes))
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / norms, codes / norms, found


grid = 2 * np.arange(N_CELLS) / N_CELLS - 1
real, imaginary = waves(grid).real, waves(grid).imag
dictionary = np.block([[real, imaginary], [-imaginary, real]])

# %%
# LISTA learns the codes of 60,000 snapshots of 0 to 30 dB. FISTA's λ and the number of
# OMP's atoms did best on other draws. MUSIC, which needs many snapshots, takes the
# windows of one.
keras.utils.set_random_seed(0)
given = {"n_atoms": 2 * N_CELLS, "input_shape": (2 * M,), "dictionary": dictionary}
lista = sc2keras.applications.LISTA(**given, n_steps=10, l1=0.05)
fista = sc2keras.applications.FISTA(**given, n_steps=300, l1=0.1)
x, codes, _ = draw(60_000, rng.uniform(0, 30, (60_000, 1)))
recipe = sc2keras.Recipe("adam", learning_rate=1e-3, epochs=args.epochs, clipnorm=1.0)
loss = sc2keras.losses.RecoveryLoss()
recipe.compile(lista, len(x), loss=loss, objective_weight=0)
recipe.fit(lista, x, codes, verbose=0)


def pursue(x, gram=dictionary @ dictionary.T):
    return orthogonal_mp_gram(gram, dictionary @ x.T, n_nonzero_coefs=4).T


def music(x, width=11):
    x = np.lib.stride_tricks.sliding_window_view(x[:, :M] + 1j * x[:, M:], width, 1)
    x = np.concatenate([x, x[..., ::-1].conj()], axis=1)
    vectors = np.linalg.eigh(x.swapaxes(1, 2) @ x.conj())[1][..., : width - N_SOURCES]
    return 1 / np.linalg.norm(waves(grid)[:, :width].conj() @ vectors, axis=2)


def magnitude(encode):
    return lambda x: np.hypot(*np.split(encode(x), 2, axis=1))


methods = {
    "LISTA, 10 steps": magnitude(lista.encode),
    "FISTA, 300 steps": magnitude(fista.encode),
    "OMP, 4 atoms": magnitude(pursue),
    "beams": magnitude(lambda x: x @ dictionary.T),
    "MUSIC": music,
}

# %%
# A snapshot is solved where the three highest peaks lie a quarter of a beam from the
# three directions at most. A cell counts with half of the next ones.


def peaks(spectra):
    padded = np.pad(spectra, ((0, 0), (2, 2)))
    sums = padded[:, 1:-1] + (padded[:, 2:] + padded[:, :-2]) / 2
    is_peak = (sums[:, 1:-1] > sums[:, :-2]) & (sums[:, 1:-1] >= sums[:, 2:])
    order = np.argsort(np.where(is_peak, -sums[:, 1:-1], 0), axis=1)
    return np.sort(grid[order[:, :N_SOURCES]], axis=1)


results = {method: {"solved": {}} for method in methods}
for snr in range(-5, 31, 5):
    x, _, truth = draw(N_TEST, snr)
    for method, result in results.items():
        started = time.perf_counter()
        spectra = methods[method](x)
        # In the end that of the last call, which compiles nothing.
        result["microseconds"] = 1e6 * (time.perf_counter() - started) / N_TEST
        solved = np.abs(peaks(spectra) - truth).max(axis=1) < BEAM / 4
        result["solved"][snr] = float(solved.mean())
for method, result in results.items():
    shares = " ".join(f"{share:6.1%}" for share in result["solved"].values())
    print(f"{method:16} {shares}  {result['microseconds']:6.1f} µs")

# %%
# One snapshot of 10 dB, and the share that is solved.
x, _, truth = draw(10, 10)
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
for i, (method, result) in enumerate(results.items()):
    spectrum = methods[method](x)[0]
    (line,) = left.plot(grid, spectrum / spectrum.max() - 1.2 * i)
    values = [100 * share for share in result["solved"].values()]
    label = f"{method}: {result['microseconds']:.0f} µs a snapshot"
    right.plot(list(result["solved"]), values, marker="o", label=label)
for sine in truth[0]:
    left.axvline(sine, color="0.6", linestyle=":")
left.set(xlabel="sin θ; dotted, where the waves come from")
left.set_yticks(-1.2 * np.arange(len(methods)), methods)
right.set(xlabel="signal to noise, dB", ylabel="snapshots with all three found, %")
right.grid(alpha=0.3)
right.legend()

# %%
args.output.mkdir(parents=True, exist_ok=True)
plotting.save_figure(figure, args.output / "direction_of_arrival.png")
text = json.dumps(results, indent=1) + "\n"
(args.output / "direction_of_arrival.json").write_text(text)
