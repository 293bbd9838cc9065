"""Tables and pictures of records."""

import math

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from .records import replace_text

# How the figures of a record are printed, `%` without its sign.
FORMATS = {
    "objective": ".3f",
    "train_objective": ".3f",
    "optimum": ".3f",
    "gap": "z.2%",
    "above": ".2%",
    "nonzero": ".2f",
    **dict.fromkeys(("paper", "full", "full_train", "head", "head_train"), ".2%"),
}


def write_text(path, text):
    replace_text(path, text)
    print("\n" + text)


def paired_interval(differences):
    """`(mean, half)` of the 95 % interval of Student's t; half is NaN for one value."""
    n = len(differences)
    if n < 2:
        return float(np.mean(differences)), math.nan
    half = stats.t.ppf(0.975, n - 1) * stats.sem(differences)
    return float(np.mean(differences)), float(half)


def markdown(header, rows, n_text=2):
    """A Markdown table whose first `n_text` columns are text, the others figures."""
    rule = ["---"] * n_text + ["---:"] * (len(header) - n_text)
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def padded(table):
    """A Markdown table whose columns line up where it is read as text."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    header, rule, *rows = lines
    columns = zip(rule, *[header, *rows], strict=True)
    aligned = [_aligned(*column) for column in columns]
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*aligned, strict=True))


def _aligned(rule, *texts):
    """A column: its header, its rule and its cells, of one width."""
    width, is_figure = max(map(len, texts)), rule.endswith(":")
    rule = "-" * (width - 1) + ":" if is_figure else "-" * width
    header, *texts = [t.rjust(width) if is_figure else t.ljust(width) for t in texts]
    return header, rule, *texts


def side_by_side(titles, measures, records, figures, groups=None):
    """A Markdown table of `{(group, *labels): record}`, the groups side by side."""
    groups = groups or list(dict.fromkeys(group for group, *_ in records))
    header = [*titles, *(f"{group}: {m}" for group in groups for m in measures)]
    rows = []
    for labels in dict.fromkeys(tuple(labels) for _, *labels in records):
        rows.append(list(labels))
        for record in (records.get((group, *labels), {}) for group in groups):
            gone = ["diverged", *[""] * (len(figures) - 1)]
            rows[-1] += gone if record.get("diverged") else cells(record, *figures)
    return markdown(header, rows, n_text=len(titles))


def cells(record, *names, **formats):
    """Figures of a record as cells: nan where it lacks one, empty where it is none."""
    formats = {name: FORMATS[name] for name in names} | formats
    if not record:
        return [""] * len(formats)
    return [
        format(np.mean(record.get(name, math.nan)), form).rstrip("%")
        for name, form in formats.items()
    ]


def percent(record, protocol):
    return 100 * float(np.mean(record.get(protocol, math.nan)))


def panels(n, width, height, n_columns=None, **options):
    n_columns = n_columns or n
    n_rows = math.ceil(n / n_columns)
    size = (width * n_columns + options.pop("margin", 0), height * n_rows)
    options |= {"figsize": size, "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(n_rows, n_columns, **options)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    return figure, list(axes.flat[:n])
