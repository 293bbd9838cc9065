"""Relative gap against steps, all encoders with one given dictionary."""

import math
import sys
from dataclasses import dataclass

import keras

from sc2keras import evaluation, plotting

from ..methods import Method
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
        for label, (builder, kwargs) in CURVES.items():
            for n_steps in NETWORK_STEPS:
                method = Method(
                    label, builder, kwargs=kwargs | {"trainable_dictionary": False}
                )
                # From a solver's weights steps of 1.0 diverge without the clipping.
                recipe = study.recipe(name).replace(n_steps=n_steps, clipnorm=1.0)
                runs[name, label, n_steps] = study.new_run(
                    name, f"{builder}-T{n_steps}", method, recipe
                )
        for builder in ("ISTA", "FISTA"):
            method = Method(builder, builder, kwargs={"n_steps": N_CURVE_STEPS})
            stem = f"{builder}-T{N_CURVE_STEPS}"
            runs[name, builder, None] = study.new_run(
                name, stem, method, study.recipe(name), cls=SolverCurve
            )
    records = study.make(runs, study.data)
    check_optima(records)
    curves = {
        name: curves_of(records, name)
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


def check_optima(records):
    """Exits if not all of a dataset were made with one dictionary."""
    for dataset in {dataset for dataset, *_ in records}:
        found = [r for (name, *_), r in records.items() if name == dataset]
        optima = [record["optimum"] for record in found if "optimum" in record]
        low, high = min(optima, default=0), max(optima, default=0)
        if not math.isclose(low, high, rel_tol=1e-4):
            sys.exit(
                f"error: the optimum on {dataset} is {low:.6g} in some records and "
                f"{high:.6g} in others: they were made on different machines, with "
                "dictionaries of their own. Another --output makes all alike."
            )


def curves_of(records, name):
    """The gaps in percent, `{label: {steps: gap}}`, the solvers first."""
    curves = {label: {} for label in ("ISTA", "FISTA", *CURVES)}
    for (dataset, label, n_steps), record in records.items():
        if dataset == name:
            gaps = {n_steps: record.get("gap", math.nan)}
            if n_steps is None:
                gaps = dict(enumerate(record["gaps"], start=1))
            curves[label] |= {n: 100 * gap for n, gap in gaps.items()}
    return {label: points for label, points in curves.items() if points}


def draw(curves):
    figure, axes = panels(len(curves), 6, 4.8)
    for ax, (name, by_label) in zip(axes, curves.items(), strict=True):
        points = {label: list(each.items()) for label, each in by_label.items()}
        plotting.plot_convergence(points, "above the LASSO optimum, %", ax)
        ax.set_title(f"{name}, one given dictionary, λ = {L1:g}")
    return figure
