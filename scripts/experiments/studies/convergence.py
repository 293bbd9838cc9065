"""Relative gap against steps, all encoders with one given dictionary."""

import math
import sys
from dataclasses import dataclass

import matplotlib.pyplot as plt

from sc2keras import applications, evaluation, plotting

from ..methods import Method
from ..records import environment
from ..reports import markdown
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
class SolverCurve:
    """The gaps of a solver after each step, with the dictionary of a network's run."""

    builder: str
    network: Run

    @property
    def name(self):
        network = self.network
        return f"{network.dataset}-{self.builder}-steps-l1-{L1:g}-seed{network.seed}"

    @property
    def store(self):
        return self.network.store

    @property
    def dataset(self):
        return self.network.dataset

    @property
    def settings(self):
        settings = self.network.settings
        shared = {key: settings[key] for key in ("n_atoms", "l1", "seed", "start")}
        return {"builder": self.builder, "n_steps": N_CURVE_STEPS, **shared}

    def needs_start(self, protocols, optimum):
        return not self.store.find(self.name)

    @property
    def dictionary_path(self):
        return self.network.dictionary_path

    def start(self, x):
        return self.network.start(x)

    def run(self, data, protocols=(), optimum=True):
        record = self.store.find(self.name, note=data.note)
        if record:
            return record
        dictionary = self.start(data.x_train)[0]
        build = getattr(applications, self.builder)
        x, n_atoms = data.x_test, len(dictionary)
        model = build(n_atoms, x.shape[1:], N_CURVE_STEPS, L1, dictionary=dictionary)
        steps = evaluation.step_codes(model, x)
        optimum = evaluation.code_quality(model, x, steps[-1]).optimum
        self.check(optimum)
        objectives = [evaluation.mean_objective(x, s, dictionary, L1) for s in steps]
        record = {
            "dataset": self.dataset,
            "note": data.note,
            "label": self.builder,
            "settings": self.settings,
            "optimum": optimum,
            "gaps": [objective / optimum - 1 for objective in objectives],
            "environment": environment(),
        }
        self.store.write(self.name, record)
        return record

    def check(self, optimum):
        """Exits if the network was trained elsewhere, for another dictionary."""
        expected = self.store.find(self.network.name).get("optimum", optimum)
        if not math.isclose(optimum, expected, rel_tol=1e-4):
            sys.exit(
                f"error: with the dictionary that was learned here the optimum is "
                f"{optimum:.6g}, but {expected:.6g} with that of the records, which "
                "were made elsewhere. Another --output makes both alike."
            )


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
            network = runs[name, "SLSTM", NETWORK_STEPS[0]]
            runs[name, builder, None] = SolverCurve(builder, network)
    records = study.make(runs, study.data)
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
    figure, axes = plt.subplots(
        1,
        len(curves),
        figsize=(6 * len(curves), 4.8),
        layout="constrained",
        squeeze=False,
    )
    for ax, (name, by_label) in zip(axes.flat, curves.items(), strict=True):
        points = {label: list(each.items()) for label, each in by_label.items()}
        plotting.plot_convergence(points, "above the LASSO optimum, %", ax)
        ax.set_title(f"{name}, one given dictionary, λ = {L1:g}")
    return figure
