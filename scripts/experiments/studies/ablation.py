"""Start, coupling and learning rate of every network: what gates are worth."""

import itertools
from dataclasses import replace

import numpy as np

from ..methods import METHODS
from ..records import Store
from ..reports import cells, markdown, percent

ABLATED_STARTS = {"classical": "learned dictionary", "samples": "training samples"}
FORMS = ("full", "factored")
# Method, start and form: what is crossed, and the other networks of the paper's table.
ABLATED = (
    *itertools.product(
        ("lista", "lfista", "adaptive-ista", "slstm-shrinkage"), ABLATED_STARTS, FORMS
    ),
    ("lista-untied", "classical", "full"),
    ("slstm-untied", "classical", "full"),
    ("slstm", "samples", "full"),
)
# Every network has the one of these that is best for it. The middle ones are tried, and
# those beside the best. On CIFAR-10 E‖x‖² is ten times as large, and rates a tenth.
ABLATED_RATES = {
    "digits": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    "mnist": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    "cifar10": (0.03, 0.1, 0.3, 1.0, 3.0),
}


def ablation_run(study, dataset, key, start, form, rate):
    kwargs = METHODS[key].kwargs | {"recurrent": form}
    method = replace(METHODS[key], start=start, kwargs=kwargs)
    recipe = study.recipe(dataset, key).replace(learning_rate=rate)
    name, store = f"{key}-{start}-{form}-rate{rate:g}", Store(study.output / "ablation")
    made = {"store": store, "validation": True}
    return study.new_run(dataset, name, method, recipe, **made)


def run(study):
    rates = {
        (name, *network): set(ABLATED_RATES[name][1:-1])
        for name in study.datasets
        for network in ABLATED
    }
    wider = None
    while wider != rates:
        rates = wider or rates
        runs = {
            (*network, rate): ablation_run(study, *network, rate)
            for network, tried in rates.items()
            for rate in sorted(tried)
        }
        records = study.make(runs, study.held, ["paper"], False, may_diverge=True)
        by_rate = {}
        for (*network, rate), record in records.items():
            by_rate.setdefault(tuple(network), {})[rate] = percent(record, "paper")
        # One that diverged has no accuracy.
        best = {
            network: max(tried, key=lambda rate: np.nan_to_num(tried[rate]))
            for network, tried in by_rate.items()
        }
        wider = dict(rates)
        for network, rate in best.items():  # And its neighbours.
            ladder = ABLATED_RATES[network[0]]
            place = ladder.index(rate)
            wider[network] = rates[network] | {*ladder[max(0, place - 1) : place + 2]}
    header = ["dataset", "network", "rate", "objective", "nonzero", "accuracy, %"]
    rows = []
    for (name, key, start, form), rate in best.items():
        network = name, key, start, form
        label = METHODS[key].label.replace("classical start", "shrinkage")
        label += f", from {ABLATED_STARTS[start]}, {form}"
        shown = cells(records[*network, rate], "objective", "nonzero", "paper")
        tried = ", ".join(f"{r:g}: {a:.2f}" for r, a in by_rate[network].items())
        rows.append([name, label, f"{rate:g}", *shown, tried])
    return markdown([*header, "accuracy by rate"], rows) + (
        f"\nHeld-out samples, {study.note}, the paper's protocol. Full: W_e (and the "
        "gates' U) are matrices of their own; factored: W_e = I − D W_d, U = −D W. "
        "Rate: that of Adadelta's learning rates which classifies best (nan: "
        "diverged). To be the best of several flatters a row by some tenths of a "
        "point.\n"
    )
