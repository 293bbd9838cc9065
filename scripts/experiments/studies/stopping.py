"""Whether the network or stopping early makes codes that classify better."""

from ..methods import Method
from ..reports import cells, side_by_side
from .ablation import FORMS, ablation_run

# Of FISTA on the dictionary that such an SLSTM of five steps has learned.
STOPPING_STEPS = (2, 5, 10, 20, 100)


def run(study):
    runs, key = {}, "slstm-shrinkage"
    for name in study.datasets:
        rate = study.recipe(name, key).learning_rate
        for form in FORMS:
            slstm = ablation_run(study, name, key, "samples", form, rate)
            network = f"the {form} SLSTM"
            runs[name, network] = slstm
            for n_steps in STOPPING_STEPS:
                label = f"FISTA, {n_steps} steps, the dictionary of {network}"
                kwargs = {"n_steps": n_steps}
                method = Method("FISTA", "FISTA", kwargs=kwargs, start=slstm.name)
                stem, more = f"fista-T{n_steps}-{form}", {"dictionary_of": slstm}
                runs[name, label] = study.new_run(
                    name, stem, method, slstm.recipe, validation=True, **more
                )
    records = study.make(runs, study.held, ["paper"], optimum=False)
    measures = ("objective", "nonzero", "accuracy, %")
    return side_by_side(("codes",), measures, records, row_cells) + (
        f"\nHeld-out samples, {study.note}, the paper's protocol. The solver has the "
        "dictionary that the network learned.\n"
    )


def row_cells(record):
    return cells(record, "objective", "nonzero", "paper")
