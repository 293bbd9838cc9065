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
SIZES = ("n_atoms", "n_features", "n_steps", "batch_size")
MARKERS = {"network": "o", "solver": "^", "peer": "X"}
FLOOR = 1e-6


class Results:
    """What is measured once, in a file; what on another machine, with its name.

    Args:
        path: Of the file; where it exists, it is read.
        settings: Dictionary, what all of it is measured with.
        peers: Names of packages whose versions are kept, if installed.
    """

    def __init__(self, path, settings, peers=PEERS):
        self.path, self.peers = path, peers
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))
            if self.content["settings"] != settings:
                sys.exit(
                    f"error: {path} was made with {self.content['settings']}, but now "
                    f"{settings} is asked for. Choose another --output, or delete it."
                )
        else:
            self.content = {"settings": settings, "environment": environment(peers)}
            self.content["seconds"] = {}

    def once(self, name, measure):
        if name not in self.content:
            started = time.perf_counter()
            self.content[name] = measure()
            self.content["seconds"][name] = round(time.perf_counter() - started)
            here = environment(self.peers)
            if here != self.content["environment"]:
                self.content.setdefault("environments", {})[name] = here
            write_json(self.path, self.content)


def markdown(results):
    encoding = results["encoding"]
    parts = [
        rate_table("encoding, codes/s", results["bound"], "codes_per_second"),
        point_table([point for record in encoding for point in record["points"]]),
        stream_table([stream for record in encoding for stream in record["streams"]]),
        rate_table("training, samples/s", results["training"], "samples_per_second"),
        latency_table(results["latency"]),
        scale_table(results["scale"]),
    ]
    machine, settings = results["environment"], results["settings"]
    others = {}
    for name, other in results.get("environments", {}).items():
        others.setdefault(hardware_of(other), []).append(name)
    hardware = hardware_of(machine)
    hardware += "".join(f" ({', '.join(names)}: {o})" for o, names in others.items())
    peers = ", ".join(f"{p} {machine[p]}" for p in PEERS if p in machine)
    return "\n".join(parts) + (
        f"\n{settings['dataset']}, {settings['n_atoms']} atoms; {hardware}; Keras "
        f"{machine['keras']} on {machine['backend']} {machine['backend_version']}; "
        f"scikit-learn {machine['scikit_learn']}, {peers}; "
        f"{machine['threads']} threads. Medians of {settings['repeats']} repeats or "
        "more, in turns.\n"
    )


def hardware_of(machine):
    return machine["cpu"] if machine["device"] == "CPU" else machine["device"]


def accelerator_markdown(results):
    cases = {name: r for name, r in results.items() if "operations" in r}
    rates = {
        name.removeprefix("encode, "): r["operations"] / r["seconds"]["products"]
        for name, r in cases.items()
        if name.startswith("encode")
    }
    rows = []
    for name, record in cases.items():
        what, case = name.split(", ", 1)
        seconds, n_rows = record["seconds"], record["n_rows"]
        ours = seconds["on_device" if what == "encode" else "fit"]
        peer, host = seconds["peer"], seconds.get("encode")
        rate = record["operations"] / ours
        figures = [f"{n_rows / ours:,.0f}", f"{rate / 1e12:.0f}"]
        figures += [f"{rate / rates[case]:.2f}", f"{peer / ours:.1f}" if peer else ""]
        figures += [f"{n_rows / host:,.0f}" if host else ""]
        rows.append([what, case, *figures])
    header = ["", "case, atoms x features", "samples/s", "TFLOP/s", "of the products"]
    header += ["times plain PyTorch", "samples/s, from and to the host"]
    to_device, to_host = (results["copies"][w] / 1e9 for w in ("to_device", "to_host"))
    machine = results["environment"]
    return table(header, rows, n_text=2) + (
        f"\n{machine['device']}; Keras {machine['keras']} on {machine['backend']} "
        f"{machine['backend_version']}, PyTorch {machine.get('torch', '–')}. Plain "
        f"copies: {to_device:.1f} GB/s to the device, {to_host:.1f} GB/s back.\n"
    )


def by_steps(title, cells):
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


def point_table(points):
    header = ["encoding", "dictionary"]
    for l1 in dict.fromkeys(p["l1"] for p in points):
        header += [f"codes/s, λ = {l1:g}", "gap, %", "nonzero"]
    rows = {}
    for p in points:
        dictionary = "own" if "own" in p["kind"] else "given"
        row = rows.setdefault((p["kind"], p["label"]), [p["label"], dictionary])
        row += cells(p, codes_per_second=",.0f", gap=".2%", nonzero=".2f")
    return table(header, rows.values(), n_text=1)


def stream_table(streams):
    header = ["stream", "λ", "vectors", "codes/s", "more memory, MB", "codes, MB"]
    formats = {"l1": "g", "n_samples": ",.0f", "codes_per_second": ",.0f"}
    formats |= {"more_memory_mb": ".0f", "codes_mb": ".0f"}
    rows = [[stream["label"], *cells(stream, **formats)] for stream in streams]
    return table(header, rows, n_text=1)


def latency_table(records):
    shown = {}
    for r in records:
        shown[r["way"], r["n_steps"]] = f"{r['median_us']:,.0f} ({r['p99_us']:,.0f})"
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


def draw(records, path):
    """Gap against codes a second, and the front that nothing beats."""
    figure, axes = panels(len(records), 5.2, 5.2, margin=2.2, sharey=True)
    families = dict.fromkeys(family(p)[0] for r in records for p in r["points"])
    colours = dict(zip(families, plt.get_cmap("tab20").colors, strict=False))
    legend = {}
    for ax, points in zip(axes, [r["points"] for r in records], strict=True):
        for point in points:
            draw_point(ax, point, colours)
        given = [p for p in points if "own" not in p["kind"]]
        front = np.array([position(p) for p in pareto_front(given)])
        style = {"color": "0.6", "linewidth": 1, "zorder": 0}
        ax.step(*front.T, where="post", label="front, for the given one", **style)
        title = f"λ = {points[0]['l1']:g}"
        ax.set(xscale="log", yscale="log", xlabel="codes a second", title=title)
        ax.grid(alpha=0.3)
        handles, labels = ax.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    axes[0].set_ylabel(f"gap to the LASSO optimum, F/F* − 1, at least {FLOOR:g}")
    options = {"fontsize": 8, "title": "numbers: steps"}
    figure.legend(legend.values(), legend, loc="outside right center", **options)
    plotting.save_figure(figure, path)


def draw_point(ax, point, colours):
    (name, setting), own = family(point), "own" in point["kind"]
    label = f"{name}, its own dictionary" if own else name
    style = {"color": colours[name], "fillstyle": "none" if own else "full"}
    marker = MARKERS[point["kind"].split(",")[0]]
    ax.plot(*position(point), marker, label=label, **style)
    shift = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 7}
    ax.annotate(setting, position(point), **shift)


def position(point):
    return point["codes_per_second"], max(point["gap"], FLOOR)


def family(point):
    """`(method, its setting)` of a point's label."""
    name, _, setting = point["label"].partition(", ")
    if setting.endswith("bfloat16"):
        name = f"{name} in bfloat16"
    if "proven" in setting:
        name = f"{name}, proven"
    if setting.startswith("duality"):
        return f"{name} to a duality gap", setting.split()[-1]
    return name, setting.split(" ")[0]


def pareto_front(points):
    """Those that no other point beats in both, from the fastest to the most exact."""
    points = sorted(points, key=lambda p: -p["codes_per_second"])
    best = np.minimum.accumulate([np.inf, *(p["gap"] for p in points)])
    return [p for p, least in zip(points, best, strict=False) if p["gap"] < least]
