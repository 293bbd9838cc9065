"""The first table: the paper's methods on the digits, offline, in a minute."""

import math
import sys
import textwrap
import time
from dataclasses import dataclass
from itertools import product
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from sc2keras import datasets, plotting

from .methods import FORMS, Method
from .recipes import FIRST_CHOICE, FIRST_RATES, FIRST_RECIPE, FIRST_STEPS
from .records import Store
from .reports import cells, markdown, padded, percent, write_text
from .runs import Run, check_settings, diverged, found, hold_out
from .table1 import PAPER_L1, draw, groups_of, means

NETWORKS = {"lista": "LISTA", "lfista": "LFISTA", "slstm": "SC2Net"}
# Of what is chosen, above the optimum of its own dictionary, on held-out images.
LARGEST_GAP, LARGEST_GAP_OF_SOLVERS = 0.15, 0.05
TRIED_STEPS = (20, 50, 100, 300)
# Of the bar, in epochs: what a run takes besides its training.
_OTHER_WORK = 20


@dataclass(kw_only=True)
class FirstRun(Run):
    """A run whose encoding is timed, and which moves the bar of the program."""

    bar: Any = None

    def fit(self, model, x, y):
        tick = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: self.bar.update())
        return self.recipe.fit(model, x, y, verbose=0, callbacks=[tick])

    def measure(self, record, data, protocols, optimum):
        super().measure(record, data, protocols, optimum)
        if not self.validation:
            record["codes_per_second"] = codes_per_second(self.load(), data.x_train)


def codes_per_second(model, x):
    rows = np.resize(x, (2 * model.batch_size_of_encode(), *x.shape[1:]))
    seconds = []
    for _ in range(4):  # The first compiles.
        started = time.perf_counter()
        model.encode(rows)
        seconds.append(time.perf_counter() - started)
    return len(rows) / min(seconds)


def solver_run(key, n_steps, seed, args, validation=False):
    label, builder = f"{key.upper()}, {n_steps} steps", key.upper()
    method = Method(label, builder, kwargs={"n_steps": n_steps})
    name = f"digits-{key}-{n_steps}-seed{seed}"
    return _run(name, method, FIRST_RECIPE, seed, args, validation)


def network_run(key, form, rate, seed, args, validation=False):
    label = "SLSTM" if key == "slstm" else NETWORKS[key]
    method = Method(label, NETWORKS[key], kwargs=FORMS[form])
    recipe = FIRST_RECIPE.replace(learning_rate=rate)
    name = f"digits-{key}-{form}-rate{rate:g}-seed{seed}"
    return _run(name, method, recipe, seed, args, validation)


def _run(name, method, recipe, seed, args, validation):
    store = Store(args.output / ("holdout" if validation else "runs"))
    options = {"seed": seed, "n_atoms": args.n_atoms, "validation": validation}
    return FirstRun(
        name, store, "digits", recipe, method=method, l1=PAPER_L1, **options
    )


def table_runs(args):
    """The runs of the table, `{("digits", row, seed): run}`."""
    runs = {}
    for seed in args.seeds:
        for key, n_steps in FIRST_STEPS.items():
            runs["digits", key, seed] = solver_run(key, n_steps, seed, args)
        for key, chosen in FIRST_CHOICE.items():
            runs["digits", key, seed] = network_run(key, *chosen, seed, args)
    return runs


def tried_runs(args):
    """All that is tried on held-out images, `{(row, *what, seed): run}`."""
    runs = {}
    for seed in args.seeds:
        for key, n_steps in product(FIRST_STEPS, TRIED_STEPS):
            runs[key, n_steps, seed] = solver_run(key, n_steps, seed, args, True)
        for key, form, rate in product(NETWORKS, FORMS, FIRST_RATES):
            tried = network_run(key, form, rate, seed, args, True)
            runs[key, form, rate, seed] = tried
    return runs


def run(args):
    """Makes the table, the pictures and the page; the lines about what diverged."""
    data, runs = datasets.load("digits"), table_runs(args)
    records = found(runs) if args.tables else make(runs, data)
    if not records:
        sys.exit(f"error: {args.output / 'runs.jsonl'} holds none of these runs.")
    write_text(args.output / "table.md", table(records, len(data.x_test)))
    if not args.tables:
        draw("digits", data, runs, args)
        page = args.output / "slstm.html"
        model = runs["digits", "slstm", args.seeds[0]].load()
        plotting.explorer(model, data.x_test, title="SLSTM on the digits").save(page)
        print(f"A look inside the SLSTM: {page}")
    return diverged(runs, records)


def choose(args):
    """Tries all forms, rates and numbers of steps on held-out training images."""
    runs = tried_runs(args)
    records = (
        found(runs) if args.tables else make(runs, hold_out(datasets.load("digits")))
    )
    text = choice_table(records, args)
    write_text(args.output / "choice.md", text)
    return diverged(runs, records)


def make(runs, data):
    """`{key: record}`, read or made, beside the one bar of the program."""
    check_settings(runs.values())
    records, work = {}, {key: work_of(run) for key, run in runs.items()}
    with tqdm(total=sum(work.values()), disable=None) as bar:
        for key, run in runs.items():
            run.bar, done = bar, bar.n
            bar.set_description(run.label)
            records[key] = run.run(data, ["paper"])
            bar.update(work[key] - (bar.n - done))
    return records


def work_of(run):
    return _OTHER_WORK + (run.recipe.epochs if run.trained else 0)


def table(records, n_test):
    header = ["method", "accuracy, %", "gap, %", "nonzero", "codes a second"]
    rows = [figures_of(group) for group in groups_of(records).values()]
    speed = {"codes_per_second": ",.0f"}
    lines = [
        [row["label"], row["accuracy"], *cells(row, "gap", "nonzero", **speed)]
        for row in rows
    ]
    seeds = sorted({seed for _, _, seed in records})
    note = (
        "Digits, 100 atoms, λ = 0.1; test split; means (± standard deviation) over the "
        f"seeds {', '.join(map(str, seeds))}. Gap: above the optimum of the LASSO with "
        "the row's own dictionary. Nonzero: entries above 1e-3 in magnitude."
    )
    parts = [note, *meaning({row["label"]: row for row in rows}, n_test)]
    parts = [textwrap.fill(part, 79) for part in parts]
    return (
        "\n\n".join([padded(markdown(header, lines, n_text=1)).strip(), *parts]) + "\n"
    )


def figures_of(group):
    """The figures of a row, means over its seeds."""
    figures, first = means(group), next(iter(group.values()))
    speeds = [record.get("codes_per_second", math.nan) for record in group.values()]
    accuracies = [percent(record, "paper") for record in group.values()]
    accuracy = f"{np.mean(accuracies):.2f}"
    if len(accuracies) > 1:
        accuracy += f" ± {np.std(accuracies, ddof=1):.2f}"
    figures |= {"label": first["label"], "accuracy": accuracy}
    return figures | {"codes_per_second": float(np.mean(speeds))}


def meaning(rows, n_test):
    """Two sentences on the table, from its figures."""
    slstm = rows.get("SLSTM", {"paper": math.nan})
    others = [row for row in rows.values() if row is not slstm]
    fista = next((row for row in others if row["label"].startswith("FISTA")), None)
    if math.isnan(slstm["paper"]) or fista is None:
        return []
    best = max(others, key=lambda row: np.nan_to_num(row["paper"]))
    ahead = slstm["paper"] - best["paper"]
    # The standard error of a difference of two accuracies.
    error = math.sqrt(2 * best["paper"] * (1 - best["paper"]) / n_test)
    place = "level with" if abs(ahead) <= error else "above" if ahead > 0 else "below"
    ratio = slstm["codes_per_second"] / fista["codes_per_second"]
    text = (
        f"The codes of the SLSTM, {slstm['nonzero']:.0%} of them not zero, classify "
        f"{slstm['paper']:.1%} of the test images, {place} the best other row "
        f"({best['label']}: {best['paper']:.1%}; on {n_test} images the standard error "
        f"of a difference is {error:.1%}). It makes {ratio:.1f} times as many codes a "
        f"second as {fista['label']}, and ends {slstm['gap']:.1%} above the optimum "
        f"where that ends {fista['gap']:.1%} above."
    )
    return [text.replace("%", " %")]


def groups_of_tried(records):
    groups = {}
    for (*what, seed), record in records.items():
        groups.setdefault(tuple(what), {})[seed] = record
    return groups


def chosen_steps(records, key):
    """The fewest steps of a solver that end near the optimum."""
    return min(what for (what,) in near(records, key, LARGEST_GAP_OF_SOLVERS))


def chosen_form(records, key):
    """Form and rate of the codes that classify best, of those near the optimum."""
    tried = near(records, key, LARGEST_GAP)
    return max(tried, key=tried.get)


def near(records, key, largest_gap):
    """The accuracy of what was tried for a row and ended near the optimum."""
    tried = {k: means(group) for k, group in groups_of_tried(records).items()}
    return {
        tuple(what): figures["paper"]
        for (row, *what), figures in tried.items()
        if row == key and figures["gap"] <= largest_gap
    }


def choice_table(records, args):
    header = ["method", "form", "rate", "accuracy, %", "objective", "gap, %", "nonzero"]
    rows = []
    for (key, *what), group in groups_of_tried(records).items():
        form, rate = what if key in NETWORKS else (f"{what[0]} steps", None)
        shown = cells(means(group), "paper", "objective", "gap", "nonzero")
        rows.append([key.upper(), form, f"{rate:g}" if rate else "", *shown])
    seeds = ", ".join(map(str, args.seeds))
    return markdown(header, rows) + (
        f"\nThe last sixth of the digits' training images, held out; seeds {seeds}. "
        "Chosen of a network: the best accuracy with a gap of at most "
        f"{100 * LARGEST_GAP:.0f} %; of a solver: the fewest steps with a gap of at "
        f"most {100 * LARGEST_GAP_OF_SOLVERS:.0f} %.\n"
    )
