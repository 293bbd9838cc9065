"""Networks trained for a dictionary that is given, beside the solver."""

import math
from itertools import product
from typing import NamedTuple

from sc2keras.layers import step_lista

from ..methods import Method
from ..recipes import Recipe
from ..reports import markdown
from .convergence import SolverCurve
from .study import L1

N_STEPS = (5, 10, 20)
# Of each dataset: by how much its atoms are more than the study's, and λ.
SETTINGS = {"mnist": ((1, L1), (1, 1.0), (4, L1))}
TRAINING = {"optimizer": "adam", "clipnorm": 1.0, "epochs": 13}


class Network(NamedTuple):
    """A builder and its arguments, and of what the choice on held-out images is."""

    builder: str
    kwargs: dict
    rates: tuple = (0.01, 0.02)
    steps: tuple = N_STEPS


NETWORKS = {
    "LISTA": Network("LISTA", {}, (0.002, 0.005), (5, 10)),
    "step-LFISTA": Network("StepLFISTA", {}),
    "step-LFISTA, numbers alone": Network(
        "StepLFISTA", step_lista.VARIANTS["scalars"], steps=(10, 20)
    ),
}


def run(study):
    solved, records = {}, {}
    for setting in settings(study):
        solved |= solver(study, setting)
        records |= networks(study, setting)
    rows = []
    for setting, label in product(settings(study), ("FISTA", *NETWORKS)):
        solution = solved.get(setting, {})
        made = {n: records.get((setting, label, n)) for n in N_STEPS}
        made = {n: record for n, record in made.items() if record}
        gaps, best = {}, solution.get("optimum", math.nan)
        if label == "FISTA" and solution:
            gaps = {n: solution["gaps"][n - 1] for n in N_STEPS}
        for n, record in made.items():
            gaps[n] = record["objective"] / best - 1
        if not gaps:
            continue
        name, times, l1 = setting
        row = [name, label, f"{times * study.n_atoms}", f"{l1:g}"]
        row += [f"{100 * gaps[n]:.4f}" if n in gaps else "" for n in N_STEPS]
        rates = [f"{r['settings']['learning_rate']:g}" for r in made.values()]
        seconds = [r["fit_seconds"] for r in made.values()]
        rows.append([*row, ", ".join(rates), f"{max(seconds):.0f}" if made else ""])
    steps = [f"{n} steps" for n in N_STEPS]
    header = ["dataset", "method", "atoms", "λ", *steps, "rates", "seconds"]
    return markdown(header, rows) + (
        "\nGap to the LASSO optimum in %, test split, scikit-learn's dictionary, seed "
        f"{study.seed}. Adam, {TRAINING['epochs']} epochs; rates: of each number of "
        "steps, chosen on held-out samples; seconds: the longest of the trainings.\n"
    )


def solver(study, setting):
    method = Method("FISTA", "FISTA", kwargs={"n_steps": max(N_STEPS)})
    run = new_run(study, setting, "fista", method, Recipe(), cls=SolverCurve)
    return study.make({setting: run}, study.data)


def networks(study, setting):
    """The records of the networks, each at its best rate on held-out samples."""
    runs = {}
    for label, network in NETWORKS.items():
        for n_steps, rate in product(network.steps, network.rates):
            run = network_run(study, setting, label, n_steps, rate, True)
            runs[label, n_steps, rate] = run
    held = study.make(runs, study.held, optimum=False, may_diverge=True)
    chosen = {}
    for label, network in NETWORKS.items():
        for n_steps in network.steps:
            found = {rate: held.get((label, n_steps, rate)) for rate in network.rates}
            if all(found.values()):
                rate = min(found, key=lambda rate: objective(found[rate]))
                run = network_run(study, setting, label, n_steps, rate)
                chosen[setting, label, n_steps] = run
    return study.make(chosen, study.data, optimum=False)


def settings(study):
    found = [
        (name, times, l1)
        for name in study.datasets
        for times, l1 in SETTINGS.get(name, ((1, L1),))
    ]
    return sorted(found, key=lambda setting: setting[1])  # The longest at the end.


def network_run(study, setting, label, n_steps, rate, validation=False):
    network = NETWORKS[label]
    kwargs = network.kwargs | {"trainable_dictionary": False}
    recipe = Recipe(learning_rate=rate, n_steps=n_steps, **TRAINING)
    if study.epochs:
        recipe = recipe.replace(epochs=study.epochs)
    stem = f"{label}-T{n_steps}"
    if validation:
        stem += f"-held-out-{rate:g}"
    method = Method(label, network.builder, kwargs=kwargs)
    return new_run(study, setting, stem, method, recipe, validation=validation)


def new_run(study, setting, stem, method, recipe, **more):
    name, times, l1 = setting
    n_atoms = times * study.n_atoms
    stem = f"{stem}-{n_atoms}-atoms".replace(", ", "-").replace(" ", "-")
    return study.new_run(name, stem, method, recipe, l1, n_atoms=n_atoms, **more)


def objective(record):
    return math.inf if record.get("diverged") else record["objective"]
