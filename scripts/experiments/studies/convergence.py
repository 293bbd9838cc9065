"""Relative gap against steps, all encoders with one given dictionary."""

import math
import sys
from dataclasses import dataclass
from itertools import product

import keras

from sc2keras import evaluation, plotting

from ..methods import SOLVERS, Method
from ..reports import markdown, panels
from ..runs import Run
from .study import L1

N_CURVE_STEPS = 100
NETWORK_STEPS = (1, 2, 4, 8, 16)
CURVES = {
    "LISTA": ("LISTA", {}),
    "LFISTA": ("LFISTA", {}),
    "adaptive ISTA": ("AdaptiveISTA", {}),
    "SLSTM": ("SC2Net", {"activation": "shrinkage"}),
}


@dataclass(frozen=True)
class SolverCurve(Run):
    """A run of a solver whose record has the gap after each step too."""

    def measure(self, record, data, protocols, optimum):
        super().measure(record, data, protocols, optimum)
        model, x = keras.saving.load_model(self.model_path), data.x_test
        objectives = [
            self.objective(model, x, codes) for codes in evaluation.step_codes(model, x)
        ]
        record["gaps"] = [each / record["optimum"] - 1 for each in objectives]


def run(study):
    runs = {}
    for name in study.datasets:
        for (label, (builder, kwargs)), n_steps in product(
            CURVES.items(), NETWORK_STEPS
        ):
            kwargs = kwargs | {"trainable_dictionary": False}
            # From a solver's weights steps of 1.0 diverge without the clipping.
            recipe = study.recipe(name).replace(n_steps=n_steps, clipnorm=1.0)
            method = Method(label, builder, kwargs=kwargs)
            run = study.new_run(name, f"{builder}-T{n_steps}", method, recipe)
            runs[name, label, n_steps] = run
        for builder in SOLVERS:
            method = Method(builder, builder, kwargs={"n_steps": N_CURVE_STEPS})
            stem, recipe = f"{builder}-T{N_CURVE_STEPS}", study.recipe(name)
            run = study.new_run(name, stem, method, recipe, cls=SolverCurve)
            runs[name, builder, None] = run
    records = study.make(runs, study.data)
    curves = {
        name: curves_of({key[1:]: r for key, r in records.items() if key[0] == name})
        for name in dict.fromkeys(name for name, *_ in records)
    }
    if curves:
        plotting.save_figure(draw(curves), study.output / "convergence.png")
    rows = []
    for name, by_label in curves.items():
        for label, points in by_label.items():
            cells = [f"{points[n]:.2f}" if n in points else "" for n in NETWORK_STEPS]
            last = points.get(N_CURVE_STEPS)
            cells.append(f"{last:.4f}" if last is not None else "")
            rows.append([name, label, *cells])
    header = ["dataset", "method", *map(str, NETWORK_STEPS), str(N_CURVE_STEPS)]
    return markdown(header, rows) + (
        "\nGap to the LASSO optimum in % after so many steps, test split, "
        f"{study.n_atoms} atoms of scikit-learn's dictionary, λ = {L1:g}. Each network "
        "is trained for its number of steps.\n"
    )


def curves_of(records):
    """The gaps of a dataset in percent, `{label: {steps: gap}}`, the solvers first."""
    check_optima(records.values())
    curves = {}
    for label in (*SOLVERS, *CURVES):
        found = {n: record for (each, n), record in records.items() if each == label}
        gaps = {n: record.get("gap", math.nan) for n, record in found.items()}
        if None in found:
            gaps = dict(enumerate(found[None]["gaps"], start=1))
        if gaps:
            curves[label] = {n: 100 * gap for n, gap in gaps.items()}
    return curves


def check_optima(records):
    """Exits if not all of them were made with one dictionary."""
    optima = {r["optimum"]: r["dataset"] for r in records if "optimum" in r}
    low, high = min(optima, default=0), max(optima, default=0)
    if not math.isclose(low, high, rel_tol=1e-4):
        sys.exit(
            f"error: the optimum on {optima[low]} is {low:.6g} in some records and "
            f"{high:.6g} in others: they were made on different machines, with "
            "dictionaries of their own. Another --output makes all alike."
        )


def draw(curves):
    figure, axes = panels(len(curves), 6, 4.8)
    for ax, (name, by_label) in zip(axes, curves.items(), strict=True):
        points = {label: list(each.items()) for label, each in by_label.items()}
        plotting.plot_convergence(points, "above the LASSO optimum, %", ax)
        ax.set_title(f"{name}, one given dictionary, λ = {L1:g}")
    return figure
