"""The figures of a benchmark: the file that they are kept in, tables and a picture."""

import json
import sys
import time

import matplotlib.pyplot as plt
import numpy as np

from sc2keras import plotting

from .. import reports
from ..records import environment, write_json

PEERS = ("spams-bin", "celer")
SIZES = ("n_atoms", "n_features", "n_steps", "batch_size")


class Results:
    """The sections of a run, in one file that grows."""

    def __init__(self, path, args):
        self.path = path
        settings = {
            name: getattr(args, name)
            for name in ("dataset", "n_atoms", "quick", "repeats")
        }
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
        rate_table(
            "encoding, codes/s (of the bound)", results["bound"], "codes_per_second"
        ),
        point_table(results["encoding"]),
        stream_table(results["encoding"]),
        rate_table(
            "training, samples/s (of the bound)",
            results["training"],
            "samples_per_second",
        ),
        objective_lines(results["objective"]),
        latency_table(results["latency"]),
        scale_table(results["scale"]),
    ]
    machine, settings = results["environment"], results["settings"]
    hardware = machine["cpu"] if machine["device"] == "CPU" else machine["device"]
    peers = ", ".join(f"{p} {machine[p]}" for p in PEERS if p in machine)
    return "\n\n".join(parts) + (
        f"\n\n{settings['dataset']}, {settings['n_atoms']} atoms; {hardware}; "
        f"Keras {machine['keras']} on {machine['backend']} "
        f"{machine['backend_version']}; "
        f"scikit-learn {machine['scikit_learn']}, {peers}; "
        f"{machine['threads']} threads. Medians of {settings['repeats']} repeats or "
        "more, in turns.\n"
    )


def table(header, rows):
    return reports.markdown(header, rows, n_text=1).strip()


def rate_table(title, records, rates):
    """`rates` names the figures of a record; the first row is the bare products."""
    labels = list(records[0]["seconds"])
    products = [
        f"{r[rates][labels[0]]:,.0f} ({r['gflops']:.0f} GFLOP/s)" for r in records
    ]
    rows = [[labels[0], *products]]
    for label in labels[1:]:
        cells = [
            f"{r[rates][label]:,.0f} ({r['of_the_bound'][label]:.2f})" for r in records
        ]
        rows.append([label, *cells])
    return table([title, *(f"T = {r['n_steps']}" for r in records)], rows)


def point_table(records):
    points = [point for record in records for point in record["points"]]
    header = ["encoding", "dictionary"]
    for l1 in dict.fromkeys(p["l1"] for p in points):
        header += [f"codes/s, λ = {l1:g}", "gap, %", "nonzero"]
    rows = {}
    for p in points:
        dictionary = "own" if "own" in p["kind"] else "given"
        row = rows.setdefault((p["kind"], p["label"]), [p["label"], dictionary])
        row += [
            f"{p['codes_per_second']:,.0f}",
            f"{100 * p['gap']:.2f}",
            f"{p['nonzero']:.2f}",
        ]
    return table(header, rows.values())


def stream_table(records):
    header = ["stream", "λ", "vectors", "codes/s", "more memory, MB", "codes, MB"]
    rows = [
        [
            s["label"],
            f"{s['l1']:g}",
            f"{s['n_samples']:,}",
            f"{s['codes_per_second']:,.0f}",
            f"{s['more_memory_mb']:.0f}",
            f"{s['codes_mb']:.0f}",
        ]
        for record in records
        for s in record["streams"]
    ]
    return table(header, rows)


def objective_lines(record):
    def seconds(name):
        value = record[name]
        return f"{value:.0f} s" if value is not None else "not reached"

    target, last = record["scikit_learn_objective"], record["curve"][-1]
    return table(
        ["time to the objective of scikit-learn's dictionary learning", ""],
        [
            [
                f"scikit-learn, objective {target:.3f} with converged codes",
                f"{record['scikit_learn_seconds']:.0f} s",
            ],
            [
                "SC2Net: a dictionary as good",
                seconds("seconds_until_dictionary_as_good"),
            ],
            [
                "SC2Net: its own codes within 3 %",
                seconds("seconds_until_codes_within_3_percent"),
            ],
            ["SC2Net: its own codes as good", seconds("seconds_until_codes_as_good")],
            [
                f"SC2Net at the end, objective {last['objective']:.3f}",
                f"{last['seconds']:.0f} s",
            ],
        ],
    )


def latency_table(records):
    steps = list(dict.fromkeys(r["n_steps"] for r in records))
    header = ["one vector, median (99th percentile), µs", *(f"T = {t}" for t in steps)]
    rows = []
    for way in dict.fromkeys(r["way"] for r in records):
        cells = [
            f"{r['median_us']:,.0f} ({r['p99_us']:,.0f})"
            for r in records
            if r["way"] == way
        ]
        rows.append([way, *cells])
    return table(header, rows)


def scale_table(results):
    header = [", ".join(SIZES), "recurrent", "encode, ms", "train, ms", "peak, MB"]
    rows = []
    for p in results["points"]:
        rows.append(
            [
                ", ".join(f"{p[axis]:,}" for axis in SIZES),
                p["recurrent"],
                f"{p['encode_ms']:,.2f}",
                f"{p['train_ms']:,.2f}",
                f"{p['peak_mb']:,.0f}",
            ]
        )
    for axis, exponents in results["exponents"].items():
        rows.append(
            [
                f"exponent of {axis}",
                "",
                f"{exponents['encode_ms']:.2f}",
                f"{exponents['train_ms']:.2f}",
                "",
            ]
        )
    return table(header, rows)


MARKERS = {"network": "o", "solver": "^", "peer": "X"}
FLOOR = 1e-6


def draw(records, path):
    """Gap against codes a second, and the front that nothing beats."""
    figure, axes = plt.subplots(
        1,
        len(records),
        figsize=(5.2 * len(records) + 2.2, 5.2),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    points = [point for record in records for point in record["points"]]
    families = list(dict.fromkeys(family(p)[0] for p in points))
    colours = dict(zip(families, plt.get_cmap("tab20").colors, strict=False))
    for ax, record in zip(axes[0], records, strict=True):
        for p in record["points"]:
            name, setting = family(p)
            position = p["codes_per_second"], max(p["gap"], FLOOR)
            own = "own" in p["kind"]
            ax.plot(
                *position,
                MARKERS[p["kind"].split(",")[0]],
                color=colours[name],
                fillstyle="none" if own else "full",
                markersize=7,
            )
            ax.annotate(
                setting, position, (5, 3), textcoords="offset points", fontsize=7
            )
        front = pareto_front([p for p in record["points"] if "own" not in p["kind"]])
        ax.step(
            [p["codes_per_second"] for p in front],
            [max(p["gap"], FLOOR) for p in front],
            where="post",
            color="0.6",
            linewidth=1,
            zorder=0,
        )
        l1 = record["points"][0]["l1"]
        ax.set(xscale="log", yscale="log", xlabel="codes a second", title=f"λ = {l1:g}")
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f"gap to the LASSO optimum, F/F* − 1, at least {FLOOR:g}")
    kinds = {family(p)[0]: p["kind"].split(",")[0] for p in points}
    handles = [
        plt.Line2D([], [], linestyle="", marker=MARKERS[kinds[f]], color=colours[f])
        for f in families
    ]
    hollow = plt.Line2D([], [], linestyle="", marker="o", color="0.4", fillstyle="none")
    line = plt.Line2D([], [], color="0.6", linewidth=1)
    figure.legend(
        [*handles, hollow, line],
        [*families, "trained with its own dictionary", "front, for the given one"],
        loc="outside right center",
        fontsize=8,
        title="numbers: steps",
    )
    plotting.save_figure(figure, path)


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
