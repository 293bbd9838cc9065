"""Whether the network or stopping early makes codes that classify better."""

from itertools import product

from ..methods import Method
from ..reports import side_by_side
from .ablation import FORMS, ablation_run

# Of FISTA on the dictionary that such an SLSTM of five steps has learned.
STOPPING_STEPS = (2, 5, 10, 20, 100)


def run(study):
    runs, key = {}, "slstm-shrinkage"
    for name, form in product(study.datasets, FORMS):
        rate = study.recipe(name, key).learning_rate
        slstm = ablation_run(study, name, key, "samples", form, rate)
        network = f"the {form} SLSTM"
        runs[name, network] = slstm
        more = {"validation": True, "dictionary_of": slstm}
        for n in STOPPING_STEPS:
            method = Method("FISTA", "FISTA", kwargs={"n_steps": n}, start=slstm.name)
            stem = f"fista-T{n}-{form}"
            run = study.new_run(name, stem, method, slstm.recipe, **more)
            runs[name, f"FISTA, {n} steps, the dictionary of {network}"] = run
    records = study.make(runs, study.held, ["paper"], optimum=False)
    measures = ("objective", "nonzero", "accuracy, %")
    figures = ("objective", "nonzero", "paper")
    return side_by_side(("codes",), measures, records, figures) + (
        f"\nHeld-out samples, {study.note}, the paper's protocol. The solver has the "
        "dictionary that the network learned.\n"
    )
