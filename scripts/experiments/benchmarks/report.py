"""The figures of a benchmark: the file that they are kept in, tables and a picture."""

import json
import sys
import time

import matplotlib.pyplot as plt
import numpy as np

from sc2keras import plotting

from ..records import environment, write_json
from ..reports import cells, panels
from ..reports import markdown as table

PEERS = ("spams-bin", "celer")
SETTINGS = ("dataset", "n_atoms", "quick", "repeats")
SIZES = ("n_atoms", "n_features", "n_steps", "batch_size")


class Results:
    """The sections of a run, in one file that grows."""

    def __init__(self, path, args):
        self.path = path
        settings = {name: getattr(args, name) for name in SETTINGS}
        self.content = {"settings": settings, "environment": environment(PEERS)}
        self.content["seconds"] = {}
        if path.exists():
            found = json.loads(path.read_text())
            if found["settings"] != settings:
                sys.exit(
                    f"error: {path} was made with {found['settings']}, but now "
                    f"{settings} is asked for. Choose another --output, or delete it."
                )
            self.content = found

    def once(self, name, measure):
        if name not in self.content:
            started = time.perf_counter()
            self.content[name] = measure()
            self.content["seconds"][name] = round(time.perf_counter() - started)
            write_json(self.path, self.content)


def markdown(results):
    parts = [
        rate_table("encoding, codes/s", results["bound"], "codes_per_second"),
        point_table(results["encoding"]),
        stream_table(results["encoding"]),
        rate_table("training, samples/s", results["training"], "samples_per_second"),
        objective_table(results["objective"]),
        latency_table(results["latency"]),
        scale_table(results["scale"]),
    ]
    machine, settings = results["environment"], results["settings"]
    hardware = machine["cpu"] if machine["device"] == "CPU" else machine["device"]
    peers = ", ".join(f"{p} {machine[p]}" for p in PEERS if p in machine)
    return "\n".join(parts) + (
        f"\n{settings['dataset']}, {settings['n_atoms']} atoms; {hardware}; Keras "
        f"{machine['keras']} on {machine['backend']} {machine['backend_version']}; "
        f"scikit-learn {machine['scikit_learn']}, {peers}; "
        f"{machine['threads']} threads. Medians of {settings['repeats']} repeats or "
        "more, in turns.\n"
    )


def by_steps(title, cells):
    """A table of `{(label, T): cell}`, a column for each T."""
    labels, steps = (list(dict.fromkeys(each)) for each in zip(*cells, strict=True))
    rows = [[label, *(cells[label, t] for t in steps)] for label in labels]
    return table([title, *(f"T = {t}" for t in steps)], rows, n_text=1)


def rate_table(title, records, rates):
    """`rates` names the figures of a record; of the bare products, with their speed."""
    shown = {}
    for r in records:
        notes = {label: f"{part:.2f}" for label, part in r["of_the_bound"].items()}
        notes["matrix products"] = f"{r['gflops']:.0f} GFLOP/s"
        for label, rate in r[rates].items():
            shown[label, r["n_steps"]] = f"{rate:,.0f} ({notes[label]})"
    return by_steps(f"{title} (of the bound)", shown)


def point_table(records):
    points = [point for record in records for point in record["points"]]
    header = ["encoding", "dictionary"]
    for l1 in dict.fromkeys(p["l1"] for p in points):
        header += [f"codes/s, λ = {l1:g}", "gap, %", "nonzero"]
    rows = {}
    for p in points:
        dictionary = "own" if "own" in p["kind"] else "given"
        row = rows.setdefault((p["kind"], p["label"]), [p["label"], dictionary])
        row += cells(p, codes_per_second=",.0f", gap=".2%", nonzero=".2f")
    return table(header, rows.values(), n_text=1)


def stream_table(records):
    header = ["stream", "λ", "vectors", "codes/s", "more memory, MB", "codes, MB"]
    formats = {"l1": "g", "n_samples": ",.0f", "codes_per_second": ",.0f"}
    formats |= {"more_memory_mb": ".0f", "codes_mb": ".0f"}
    streams = [stream for record in records for stream in record["streams"]]
    rows = [[stream["label"], *cells(stream, **formats)] for stream in streams]
    return table(header, rows, n_text=1)


def objective_table(record):
    target, last = record["scikit_learn_objective"], record["curve"][-1]
    times = record | {"at_the_end": last["seconds"]}
    labels = {
        "scikit_learn_seconds": f"scikit-learn, objective {target:.3f} with converged "
        "codes",
        "seconds_until_dictionary_as_good": "SC2Net: a dictionary as good",
        "seconds_until_codes_within_3_percent": "SC2Net: its own codes within 3 %",
        "seconds_until_codes_as_good": "SC2Net: its own codes as good",
        "at_the_end": f"SC2Net at the end, objective {last['objective']:.3f}",
    }
    rows = [
        [label, "not reached" if times[name] is None else f"{times[name]:.0f} s"]
        for name, label in labels.items()
    ]
    header = ["time to the objective of scikit-learn's dictionary learning", ""]
    return table(header, rows, n_text=1)


def latency_table(records):
    shown = {
        (r["way"], r["n_steps"]): f"{r['median_us']:,.0f} ({r['p99_us']:,.0f})"
        for r in records
    }
    return by_steps("one vector, median (99th percentile), µs", shown)


def scale_table(results):
    header = [", ".join(SIZES), "recurrent", "encode, ms", "train, ms", "peak, MB"]
    rows = []
    for p in results["points"]:
        sizes = ", ".join(f"{p[axis]:,}" for axis in SIZES)
        figures = cells(p, encode_ms=",.2f", train_ms=",.2f", peak_mb=",.0f")
        rows.append([sizes, p["recurrent"], *figures])
    for axis, exponents in results["exponents"].items():
        figures = cells(exponents, encode_ms=".2f", train_ms=".2f")
        rows.append([f"exponent of {axis}", "", *figures, ""])
    return table(header, rows, n_text=1)


MARKERS = {"network": "o", "solver": "^", "peer": "X"}
FLOOR = 1e-6


def draw(records, path):
    """Gap against codes a second, and the front that nothing beats."""
    figure, axes = panels(len(records), 5.2, 5.2, margin=2.2, sharey=True)
    families = dict.fromkeys(family(p)[0] for r in records for p in r["points"])
    colours = dict(zip(families, plt.get_cmap("tab20").colors, strict=False))
    legend = {}
    for ax, record in zip(axes, records, strict=True):
        for point in record["points"]:
            draw_point(ax, point, colours)
        given = [p for p in record["points"] if "own" not in p["kind"]]
        front = np.array([position(p) for p in pareto_front(given)])
        style = {"color": "0.6", "linewidth": 1, "zorder": 0}
        ax.step(*front.T, where="post", label="front, for the given one", **style)
        l1 = record["points"][0]["l1"]
        ax.set(xscale="log", yscale="log", xlabel="codes a second", title=f"λ = {l1:g}")
        ax.grid(alpha=0.3)
        handles, labels = ax.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    axes[0].set_ylabel(f"gap to the LASSO optimum, F/F* − 1, at least {FLOOR:g}")
    options = {"fontsize": 8, "title": "numbers: steps"}
    figure.legend(legend.values(), legend, loc="outside right center", **options)
    plotting.save_figure(figure, path)


def draw_point(ax, point, colours):
    (name, setting), own = family(point), "own" in point["kind"]
    ax.plot(
        *position(point),
        MARKERS[point["kind"].split(",")[0]],
        color=colours[name],
        fillstyle="none" if own else "full",
        label=f"{name}, its own dictionary" if own else name,
    )
    shift = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 7}
    ax.annotate(setting, position(point), **shift)


def position(point):
    return point["codes_per_second"], max(point["gap"], FLOOR)


def family(point):
    """`(method, its setting)` of a point's label."""
    name, _, setting = point["label"].partition(", ")
    if setting.endswith("bfloat16"):
        name = f"{name} in bfloat16"
    if setting.startswith("duality"):
        return f"{name} to a duality gap", setting.split()[-1]
    return name, setting.split(" ")[0]


def pareto_front(points):
    """Those that no other point beats in both, from the fastest to the most exact."""
    front, best = [], np.inf
    for point in sorted(points, key=lambda p: -p["codes_per_second"]):
        if point["gap"] < best:
            front.append(point)
            best = point["gap"]
    return front
