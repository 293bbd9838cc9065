"""Distance to the LASSO optimum on the test split, by λ."""

import math

from ..methods import METHODS, SOLVERS
from ..reports import markdown
from .study import figures

# All networks whose codes have zeros.
GAP_METHODS = [
    key for key, m in METHODS.items() if m.builder not in SOLVERS and key != "slstm"
]
GAP_L1 = (0.1, 0.5, 1.0)


def run(study):
    runs = {}
    for name in study.datasets:
        for l1 in GAP_L1:
            for key in (*GAP_METHODS, "fista"):
                recipe, method = study.recipe(name, key), METHODS[key]
                run = study.new_run(name, key, method, recipe, l1)
                runs[name, f"{l1:g}", method.label] = run
            # How close the closest of them comes, where time does not matter.
            method = METHODS["slstm-untied"]
            longer = study.recipe(name, "slstm-untied")
            longer = longer.replace(epochs=3 * longer.epochs)
            run = study.new_run(name, "slstm-untied-3x", method, longer, l1)
            runs[name, f"{l1:g}", f"{method.label}, 3 × the epochs"] = run
    records = study.make(runs, study.data)
    header, rows = ["dataset", "method"], []
    for l1 in GAP_L1:
        header += [f"λ = {l1:g}: {m}" for m in ("objective", "gap, %", "above, %")]
    for name, label in dict.fromkeys((name, label) for name, _, label in records):
        row = [name, label]
        for l1 in (f"{l1:g}" for l1 in GAP_L1):
            record = records.get((name, l1, label))
            objective, _, gap, _ = figures(record)
            row += [objective, gap, above(record, records, name, l1)]
        rows.append(row)
    return markdown(header, rows) + (
        f"\nTest split, {study.n_atoms} atoms, seed {study.seed}. Gap: to the optimum "
        "of the LASSO with the same dictionary; above: to the lowest such optimum.\n"
    )


def above(record, records, name, l1):
    optima = [
        other["optimum"]
        for key, other in records.items()
        if key[:2] == (name, l1) and "optimum" in other
    ]
    if not record or not optima:
        return ""
    return f"{100 * (record.get('objective', math.nan) / min(optima) - 1):.2f}"
