"""Tables and pictures of the benchmark of sparse recovery."""

import matplotlib.pyplot as plt
import numpy as np

from sc2keras import plotting, registry

from . import recovery
from .reports import markdown as table
from .reports import panels

# `{(setting, model): (ratio of sums or None, mean of dB or None, source)}`, in dB.
_BEHRENS = "Behrens et al. 2021, committed logs"
# What stands in a row of another name is said to.
_BEHRENS_GATED = "beside GLISTA their AGLISTA, of another gain and overshoot"
_BEHRENS_ADAPTED = "beside error-based ALISTA their ALISTA-AT"
_ADAPTED = "ALISTA, error-based"
_OPEN_L2O = "Chen et al. 2022 (Open-L2O), read off a plot"
PUBLISHED = {
    ("250 x 500, SNR 40", "ALISTA"): (-39.07, None, _BEHRENS),
    ("250 x 500, SNR 40", "GLISTA"): (-41.35, None, _BEHRENS_GATED),
    ("250 x 500, SNR 40", "NA-ALISTA"): (-42.19, None, _BEHRENS),
    ("250 x 500, SNR 20", "ALISTA"): (-21.08, None, _BEHRENS),
    ("250 x 500, SNR 20", "GLISTA"): (-21.37, None, _BEHRENS_GATED),
    ("250 x 500, SNR 20", "NA-ALISTA"): (-21.64, None, _BEHRENS),
    ("250 x 1000, SNR 40", "ALISTA"): (-33.55, None, _BEHRENS),
    ("250 x 1000, SNR 40", "GLISTA"): (-35.48, None, _BEHRENS_GATED),
    ("250 x 1000, SNR 40", "NA-ALISTA"): (-39.13, None, _BEHRENS),
    ("250 x 1000, SNR 20", "ALISTA"): (-20.55, None, _BEHRENS),
    ("250 x 1000, SNR 20", "GLISTA"): (-20.89, None, _BEHRENS_GATED),
    ("250 x 1000, SNR 20", "NA-ALISTA"): (-21.33, None, _BEHRENS),
    ("250 x 2000, SNR 40", "ALISTA"): (-25.18, None, _BEHRENS),
    ("250 x 2000, SNR 40", "GLISTA"): (-25.61, None, _BEHRENS_GATED),
    ("250 x 2000, SNR 40", "NA-ALISTA"): (-32.50, None, _BEHRENS),
    ("250 x 2000, SNR 20", "ALISTA"): (-17.79, None, _BEHRENS),
    ("250 x 2000, SNR 20", "GLISTA"): (-17.74, None, _BEHRENS_GATED),
    ("250 x 2000, SNR 20", "NA-ALISTA"): (-20.16, None, _BEHRENS),
    ("250 x 500, SNR 40", _ADAPTED): (-41.97, None, _BEHRENS_ADAPTED),
    ("250 x 500, SNR 20", _ADAPTED): (-21.80, None, _BEHRENS_ADAPTED),
    ("250 x 1000, SNR 40", _ADAPTED): (-34.51, None, _BEHRENS_ADAPTED),
    ("250 x 1000, SNR 20", _ADAPTED): (-20.66, None, _BEHRENS_ADAPTED),
    ("250 x 2000, SNR 40", _ADAPTED): (-26.08, None, _BEHRENS_ADAPTED),
    ("250 x 2000, SNR 20", _ADAPTED): (-17.87, None, _BEHRENS_ADAPTED),
    ("256 x 512, noiseless", "LISTA"): (None, -35, _OPEN_L2O),
    ("256 x 512, noiseless", "LISTA-CP"): (None, -30, _OPEN_L2O),
    ("256 x 512, noiseless", "LISTA-CPSS"): (None, -63, _OPEN_L2O),
    ("256 x 512, noiseless", "LAMP"): (None, -55, _OPEN_L2O),
    ("256 x 512, noiseless", "ALISTA"): (None, -79, _OPEN_L2O),
    ("256 x 512, noiseless", "GLISTA"): (None, -56, _OPEN_L2O),
    ("256 x 512, SNR 20", "LISTA"): (None, -18, _OPEN_L2O),
    ("256 x 512, SNR 20", "LISTA-CP"): (None, -15, _OPEN_L2O),
    ("256 x 512, SNR 20", "LISTA-CPSS"): (None, -20, _OPEN_L2O),
    ("256 x 512, SNR 20", "LAMP"): (None, -16, _OPEN_L2O),
    ("256 x 512, SNR 20", "ALISTA"): (None, -20, _OPEN_L2O),
    ("256 x 512, SNR 20", "GLISTA"): (None, -22, _OPEN_L2O),
}


def markdown(records):
    parts = [_table_of(name, group) for name, group in by_setting(records).items()]
    parts.append(_shift_table(records))
    machine = records[0]["environment"]
    hardware = ", ".join(dict.fromkeys(r["environment"]["cpu"] for r in records))
    sources = "; ".join(dict.fromkeys(source for *_, source in PUBLISHED.values()))
    return "\n".join(parts) + (
        f"\nNMSE in dB after {recovery.N_STEPS} steps on {recovery.N_TEST:,} test "
        "samples a matrix, means over matrices: of sums, mean and median of samples; "
        "failed: samples above −20 dB. Fit: seconds of a processor, with "
        "those of the ALISTA that it goes on from; encode: "
        f"{recovery.N_TEST:,} samples, while other processes fit. Published: ratio "
        f"of sums, and of 256 x 512 the mean: {sources}. {hardware}; Keras "
        f"{machine['keras']} on {machine['backend']} {machine['backend_version']}.\n"
    )


# What the table of the family shows, of each the NMSE of sums.
_OF_FAMILY = ("250 x 500, noiseless", "250 x 500, SNR 40", "250 x 500, SNR 20")


def family(records):
    """A row for each model at 250 x 500: its paper, its size, its error, its fit.

    Empty where there is no record of those settings.
    """
    groups, rows = by_setting(records), []
    for label, model in recovery.MODELS.items():
        found = [groups.get(name, {}).get(label) for name in _OF_FAMILY]
        if not any(found) or not model.builder:
            continue
        row = [label, registry.get_entry(model.builder).reference]
        # Of the first setting that there is.
        first = next(filter(None, found))
        for key, form in (("n_parameters", ",.0f"), ("fit_cpu_seconds", ".0f")):
            is_there = key in first[0]
            row += [format(_mean(r[key] for r in first), form) if is_there else ""]
        for chosen in found:
            errors = [r["layers"][-1]["ratio"] for r in chosen or []]
            row += [f"{_mean(errors):.1f}" if errors else ""]
        rows.append(row)
    header = ["model", "paper", "fitted numbers", "fit, s"]
    header += ["noiseless, dB", "SNR 40, dB", "SNR 20, dB"]
    return table(header, rows) if rows else ""


def by_setting(records):
    """`{setting: {model: its records}}`, in the order of the benchmark."""
    found = {}
    for name in recovery.SETTINGS:
        for label in recovery.MODELS:
            chosen = [r for r in records if (r["setting"], r["label"]) == (name, label)]
            if chosen:
                found.setdefault(name, {})[label] = chosen
    return found


def _table_of(name, group):
    rows = []
    for label, chosen in group.items():
        first = chosen[0]
        last = {key: _mean(r["layers"][-1][key] for r in chosen) for key in _KEYS}
        row = [label, f"{len(chosen)}"]
        row += [f"{first['n_parameters']:,}" if "n_parameters" in first else ""]
        for key, unit in (("fit_cpu_seconds", 1), ("encode_seconds", 1e3)):
            is_there = key in first
            row += [f"{unit * _mean(r[key] for r in chosen):.0f}" if is_there else ""]
        row += [f"{last[key]:.1f}" for key in _KEYS[:3]] + [f"{last['failures']:.1%}"]
        *known, _ = PUBLISHED.get((name, label), (None, None, None))
        row += [next((f"{value:g}" for value in known if value is not None), "")]
        rows.append(row)
    header = [name, "matrices", "fitted numbers", "fit, s", "encode, ms"]
    header += ["of sums", "mean", "median", "failed", "published"]
    return table(header, rows, n_text=1)


_HIGHEST = 10
_KEYS = ("ratio", "mean", "median", "failures")


def _shift_table(records):
    rows = []
    for name, group in by_setting(records).items():
        for label, chosen in group.items():
            shifts = [r["shifts"] for r in chosen if "shifts" in r]
            if shifts:
                parts = [
                    f"{_mean(s[shift]['ratio'] for s in shifts):.1f}"
                    for shift in recovery.SHIFTS
                ]
                rows.append([name, label, *parts])
    header = ["NMSE of sums under a shift at test time", "", *recovery.SHIFTS]
    return table(header, rows)


def _mean(values):
    return float(np.mean(list(values)))


def draw(records, folder):
    groups = by_setting(records)
    draw_layers(groups, folder / "layers.png")
    draw_shifts(groups, folder / "shifts.png")
    noisy = [name for name in groups if _is_plain(recovery.SETTINGS[name])]
    if len(noisy) > 1:
        draw_noise({name: groups[name] for name in noisy}, folder / "noise.png")


def _is_plain(setting):
    """Whether noise is all that a setting differs by from the first one."""
    sizes = setting.n_features, setting.n_atoms, setting.condition
    return sizes == (250, 500, None)


def draw_layers(groups, path):
    """NMSE of sums over steps, a panel a setting."""
    figure, axes = panels(len(groups), 5.0, 4.2, min(3, len(groups)), margin=2.5)
    for ax, (name, group) in zip(axes, groups.items(), strict=True):
        for label, chosen in group.items():
            steps = np.mean([[q["ratio"] for q in r["layers"]] for r in chosen], axis=0)
            style = {"label": label, "color": _colour(label)}
            if len(steps) == 1:
                ax.axhline(steps[0], linestyle=":", **style)
            else:
                width = _width(label)
                ax.plot(np.arange(1, len(steps) + 1), steps, linewidth=width, **style)
        ax.set(title=name, xlabel="steps", ylabel="NMSE of sums, dB")
        # What diverges would leave the others no room.
        ax.set_ylim(top=min(ax.get_ylim()[1], _HIGHEST))
        ax.grid(alpha=0.3)
    _legend(figure, axes)
    plotting.save_figure(figure, path)


def draw_noise(groups, path):
    figure, (ax,) = panels(1, 6.0, 4.2, margin=2.5)
    found = [label for group in groups.values() for label in group]
    labels = [label for label in dict.fromkeys(found) if found.count(label) > 1]
    names = [name.split(", ")[-1] for name in groups]
    for label in labels:
        values = [
            _mean(r["layers"][-1]["ratio"] for r in group[label])
            if label in group
            else np.nan
            for group in groups.values()
        ]
        style = {"label": label, "color": _colour(label)}
        ax.plot(names, values, linewidth=_width(label), **style)
    ax.set(ylabel="NMSE of sums, dB")
    ax.grid(alpha=0.3)
    _legend(figure, [ax])
    plotting.save_figure(figure, path)


def draw_shifts(groups, path):
    """The fraction of samples that fail, by what changed at test time."""
    name, group = next(iter(groups.items()))
    group = {label: r for label, r in group.items() if "shifts" in r[0]}
    if not group:
        return
    shifts = list(recovery.SHIFTS)
    failures = [
        [
            100 * _mean(r["shifts"][shift]["failures"] for r in chosen)
            for shift in shifts
        ]
        for chosen in group.values()
    ]
    figure, (ax,) = panels(1, 7.0, 0.28 * len(group) + 1.5)
    ax.imshow(failures, cmap="Reds", vmin=0, vmax=150, aspect="auto")
    for (i, j), value in np.ndenumerate(failures):
        # So that none looks like zero that is not.
        text = f"{value:.1f}" if 0 < value < 1 else f"{value:.0f}"
        ax.text(j, i, text, ha="center", va="center", fontsize=8)
    ax.set(title=f"samples above −20 dB, in %; fitted on {name}")
    ax.set_xticks(range(len(shifts)), shifts, fontsize=8, rotation=20)
    ax.set_yticks(range(len(group)), list(group), fontsize=8)
    plotting.save_figure(figure, path)


def _colour(label):
    # Neighbours of the map are a dark and a light one of a colour.
    colours = [*plt.get_cmap("tab20").colors, "black"]
    return colours[list(recovery.MODELS).index(label)]


def _width(label):
    """Later lines are thinner, so that of several on one another all are seen."""
    labels = list(recovery.MODELS)
    return 1 + 4 * (1 - labels.index(label) / len(labels))


def _legend(figure, axes):
    handles = {}
    for ax in axes:
        found, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(
        handles.values(), handles, loc="outside right center", fontsize=7, ncols=1
    )
