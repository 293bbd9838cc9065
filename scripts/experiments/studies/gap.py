"""Distance to the LASSO optimum on the test split, by λ."""

import itertools
import math

from ..methods import METHODS, SOLVERS
from ..reports import side_by_side

# All networks whose codes have zeros.
GAP_METHODS = [
    key for key, m in METHODS.items() if m.builder not in SOLVERS and key != "slstm"
]
GAP_L1 = (0.1, 0.5, 1.0)


def run(study):
    runs = {}
    for name, l1 in itertools.product(study.datasets, GAP_L1):
        for key in (*GAP_METHODS, "fista"):
            run = study.new_run(name, key, METHODS[key], study.recipe(name, key), l1)
            runs[f"λ = {l1:g}", name, run.label] = run
        # How close the closest of them comes, where time does not matter.
        recipe, method = study.recipe(name, "slstm-untied"), METHODS["slstm-untied"]
        recipe = recipe.replace(epochs=3 * recipe.epochs)
        run = study.new_run(name, "slstm-untied-3x", method, recipe, l1)
        runs[f"λ = {l1:g}", name, f"{run.label}, 3 × the epochs"] = run
    records = study.make(runs, study.data)
    for group in dict.fromkeys(key[:2] for key in records):
        each = [r for key, r in records.items() if key[:2] == group]
        best = min((r["optimum"] for r in each if "optimum" in r), default=math.nan)
        for record in each:
            record["above"] = record.get("objective", math.nan) / best - 1
    titles, measures = ("dataset", "method"), ("objective", "gap, %", "above, %")
    groups = [f"λ = {l1:g}" for l1 in GAP_L1]
    figures = ("objective", "gap", "above")
    return side_by_side(titles, measures, records, figures, groups) + (
        f"\nTest split, {study.n_atoms} atoms, seed {study.seed}. Gap: to the optimum "
        "of the LASSO with the same dictionary; above: to the lowest such optimum.\n"
    )
