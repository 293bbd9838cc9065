"""A classifier trained together with the codes, beside codes alone."""

import math
from dataclasses import replace
from itertools import product

from ..methods import METHODS
from ..recipes import Recipe, with_options
from ..reports import cells, markdown

CASCADE_WEIGHTS = (1.0, 0.1, 0.01, 0.001)
CASCADE_L1 = 0.5
FIGURES = ("objective", "train_objective", "nonzero")
# The task can take larger steps than the objective alone, if they are clipped.
CASCADE_RECIPE = Recipe(epochs=40, learning_rate=1.0, clipnorm=1.0)


def run(study):
    search = {
        (name, weight): cascade_run(study, name, weight, held=True)
        for name, weight in product(study.datasets, CASCADE_WEIGHTS)
    }
    found = study.make(search, study.held, optimum=False, may_diverge=True)
    runs, longer = {}, with_options(CASCADE_RECIPE, epochs=study.epochs)
    method = METHODS["slstm-untied"]
    for name in study.datasets:
        for label, stem, recipe in [
            ("codes alone", "codes", study.recipe(name, "slstm-untied")),
            ("codes alone, trained as the cascade", "codes-longer", longer),
        ]:
            run = study.new_run(name, stem, method, recipe, CASCADE_L1)
            runs[name, label] = run
        for weight in shown_weights(study, name, found):
            runs[name, weight] = cascade_run(study, name, weight, held=False)
    records = study.make(runs, study.data, ["full"], optimum=False)
    rows = [cascade_row(*key, "held out", each) for key, each in found.items()]
    rows += [cascade_row(*key, "test split", each) for key, each in records.items()]
    header = ["dataset", "model", "measured on", "its classifier, %", "on train, %"]
    header += ["full protocol, %", "objective", "on train", "nonzero"]
    return markdown(header, rows, n_text=3) + (
        f"\n{study.n_atoms} atoms, λ = {CASCADE_L1:g}, seed {study.seed}. On the test "
        "split: the largest weight, that is the sparsest codes, within two standard "
        "errors of the best on held-out training samples, measured once.\n"
    )


def cascade_run(study, name, weight, held):
    base, stem = METHODS["slstm-untied"], "held-out" if held else "cascade"
    method = replace(base, kwargs=base.kwargs | {"classes": 10})
    recipe = with_options(CASCADE_RECIPE, epochs=study.epochs, objective_weight=weight)
    stem += f"-weight-{weight:g}"
    return study.new_run(name, stem, method, recipe, CASCADE_L1, validation=held)


def shown_weights(study, name, found):
    """The weight that was chosen for a dataset; none if all trainings diverged."""
    if name not in study.data:
        # Where they are only read, the others than the chosen one have no record.
        return CASCADE_WEIGHTS
    heads = {w: r["head"] for (n, w), r in found.items() if n == name and "head" in r}
    return [heaviest_as_good(heads, len(study.held[name].y_test))] if heads else []


def heaviest_as_good(accuracies, n_samples):
    """The largest weight of `{weight: accuracy}` within two standard errors."""
    best = max(accuracies.values())
    least = best - 2 * math.sqrt(best * (1 - best) / n_samples)
    return max(w for w, accuracy in accuracies.items() if accuracy >= least)


def cascade_row(dataset, model, split, record):
    label = model if isinstance(model, str) else f"cascade, {model:g} × objective"
    shown = []
    for name in ("head", "head_train", "full"):
        shown += cells(record, name) if name in record else [""]
    return [dataset, label, split, *shown, *cells(record, *FIGURES)]
