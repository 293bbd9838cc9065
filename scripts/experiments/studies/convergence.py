"""Relative gap against steps, all encoders with one given dictionary."""

import math
import sys
from itertools import product

from sc2keras import plotting
from sc2keras.evaluation import step_codes

from ..methods import SHRINKAGE, SOLVERS, Method
from ..reports import markdown, panels
from ..runs import Run
from .study import L1

N_CURVE_STEPS = 100
NETWORK_STEPS = (1, 2, 4, 8, 16)
CURVES = {
    "LISTA": ("LISTA", {}),
    "LFISTA": ("LFISTA", {}),
    "adaptive ISTA": ("AdaptiveISTA", {}),
    "SLSTM": ("SC2Net", SHRINKAGE),
}


class SolverCurve(Run):
    def measure(self, record, data, protocols, optimum):
        super().measure(record, data, protocols, optimum)
        model, x = self.load(), data.x_test
        objectives = [self.objective(model, x, s) for s in step_codes(model, x)]
        record["gaps"] = [each / record["optimum"] - 1 for each in objectives]


def run(study):
    runs = {}
    for name, n_steps in product(study.datasets, NETWORK_STEPS):
        # From a solver's weights steps of 1.0 diverge without the clipping.
        recipe = study.recipe(name).replace(n_steps=n_steps, clipnorm=1.0)
        for label, (builder, kwargs) in CURVES.items():
            kwargs = kwargs | {"trainable_dictionary": False}
            method = Method(label, builder, kwargs=kwargs)
            run = study.new_run(name, f"{builder}-T{n_steps}", method, recipe)
            runs[name, label, n_steps] = run
    for name, builder in product(study.datasets, SOLVERS):
        method = Method(builder, builder, kwargs={"n_steps": N_CURVE_STEPS})
        stem, recipe = f"{builder}-T{N_CURVE_STEPS}", study.recipe(name)
        run = study.new_run(name, stem, method, recipe, cls=SolverCurve)
        runs[name, builder, None] = run
    records = study.make(runs, study.data)
    for name in study.datasets:
        found = [r for r in records.values() if r["dataset"] == name]
        check_optima(name, [r["optimum"] for r in found if "optimum" in r])
    keys = product(study.datasets, (*SOLVERS, *CURVES))
    curves = {key: points for key in keys if (points := curve_of(records, *key))}
    if curves:
        draw(curves, study.output / "convergence.png")
    rows = []
    for key, points in curves.items():
        cells = [f"{points[n]:.2f}" if n in points else "" for n in NETWORK_STEPS]
        last = points.get(N_CURVE_STEPS)
        rows.append([*key, *cells, "" if last is None else f"{last:.4f}"])
    header = ["dataset", "method", *map(str, (*NETWORK_STEPS, N_CURVE_STEPS))]
    return markdown(header, rows) + (
        "\nGap to the LASSO optimum in % after so many steps, test split, "
        f"{study.n_atoms} atoms of scikit-learn's dictionary, λ = {L1:g}. Each network "
        "is trained for its number of steps.\n"
    )


def curve_of(records, name, label):
    """The gaps of a method on a dataset in percent, `{steps: gap}`."""
    found = {n: r for (*key, n), r in records.items() if key == [name, label]}
    gaps = {n: record.get("gap", math.nan) for n, record in found.items()}
    if None in found:
        gaps = dict(enumerate(found[None]["gaps"], start=1))
    return {n: 100 * gap for n, gap in gaps.items()}


def check_optima(name, optima):
    low, high = min(optima, default=0), max(optima, default=0)
    if not math.isclose(low, high, rel_tol=1e-4):
        sys.exit(
            f"error: the optimum on {name} is {low:.6g} in some records and {high:.6g} "
            "in others: they were made on different machines, with dictionaries of "
            "their own. Another --output makes all alike."
        )


def draw(curves, path):
    names = list(dict.fromkeys(name for name, _ in curves))
    figure, axes = panels(len(names), 6, 4.8)
    for ax, name in zip(axes, names, strict=True):
        found = [(label, each) for (n, label), each in curves.items() if n == name]
        points = {label: list(each.items()) for label, each in found}
        plotting.plot_convergence(points, "above the LASSO optimum, %", ax)
        ax.set_title(f"{name}, one given dictionary, λ = {L1:g}")
    plotting.save_figure(figure, path)
