"""Measures where the time of an update of `fit` goes, on the backend that runs.

    KERAS_BACKEND=jax python scripts/profile_fit.py

What is finished is kept in --output, a file a backend; the table has all of them.
"""

import json

import keras
import numpy as np
from experiments import arguments
from experiments.benchmarks import profile, report
from experiments.reports import markdown, write_text
from tqdm import tqdm


def main(argv=None):
    args = parse_arguments(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"{keras.backend.backend()}.json"
    results = report.Results(path, {"repeats": args.repeats}, peers=())
    cases = profile.cases(args.data_dir, args.repeats)
    for name, case in tqdm(cases.items(), "profile", unit="case"):
        results.once(name, case)
    found = [json.loads(p.read_text()) for p in sorted(args.output.glob("*.json"))]
    write_text(args.output / "table.md", table(found))
    return 0


def parse_arguments(argv):
    parser = arguments.make_parser(__doc__.split("\n\n")[0], "out/fit", has_data=True)
    add = parser.add_argument
    add("--repeats", type=arguments.positive_integer, default=5)
    return parser.parse_args(argv)


def table(found):
    """A Markdown table of the records of all backends."""
    rows, notes = [], []
    for results in found:
        machine = results["environment"]
        notes.append(f"{machine['backend']} {machine['backend_version']}")
        for case, record in results.items():
            if not isinstance(record, dict) or "products" not in record:
                continue
            medians = {part: np.median(record[part]) for part in profile.PARTS}
            ratios = [medians[p] / medians["fit_20"] for p in ("loop", "products")]
            row = [machine["backend"], case, *(f"{m:.2f}" for m in medians.values())]
            rows.append([*row, *(f"{ratio:.2f}" for ratio in ratios)])
    header = ["backend", "case", *profile.PARTS, "loop / fit_20", "products / fit_20"]
    meanings = "; ".join(f"{name}: {text}" for name, text in profile.PARTS.items())
    return markdown(header, rows, n_text=2) + (
        f"\nMilliseconds an update, medians of {found[0]['settings']['repeats']} in "
        f"turns, SC2Net with 100 atoms. {meanings}. {', '.join(notes)}; "
        f"{found[0]['environment']['cpu']}.\n"
    )


if __name__ == "__main__":
    arguments.run_program(main)
