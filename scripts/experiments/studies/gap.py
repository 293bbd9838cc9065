"""Distance to the LASSO optimum on the test split, by λ."""

import math

from ..methods import METHODS, SOLVERS
from ..reports import cells, side_by_side

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
                runs[f"λ = {l1:g}", name, method.label] = run
            # How close the closest of them comes, where time does not matter.
            method = METHODS["slstm-untied"]
            longer = study.recipe(name, "slstm-untied")
            longer = longer.replace(epochs=3 * longer.epochs)
            run = study.new_run(name, "slstm-untied-3x", method, longer, l1)
            runs[f"λ = {l1:g}", name, f"{method.label}, 3 × the epochs"] = run
    records = study.make(runs, study.data)
    for group in dict.fromkeys(key[:2] for key in records):
        measure_from_the_best([r for k, r in records.items() if k[:2] == group])
    titles, measures = ("dataset", "method"), ("objective", "gap, %", "above, %")
    groups = [f"λ = {l1:g}" for l1 in GAP_L1]
    return side_by_side(titles, measures, records, row_cells, groups) + (
        f"\nTest split, {study.n_atoms} atoms, seed {study.seed}. Gap: to the optimum "
        "of the LASSO with the same dictionary; above: to the lowest such optimum.\n"
    )


def measure_from_the_best(records):
    best = min((r["optimum"] for r in records if "optimum" in r), default=math.nan)
    for record in records:
        record["above"] = record.get("objective", math.nan) / best - 1


def row_cells(record):
    return cells(record, "objective", "gap", above=".2%")
