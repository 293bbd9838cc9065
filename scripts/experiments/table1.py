"""The paper's table, for the options of `reproduce_table1.py`."""

import math
from itertools import product

import numpy as np

from sc2keras import datasets, plotting

from .methods import CEILINGS, METHODS
from .recipes import PAPER_RATES, recipe_of, with_options
from .records import Store
from .reports import FORMATS, cells, markdown, paired_interval, panels, percent
from .runs import Ceiling, Run

PAPER_L1 = 0.1
L1_GRID = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# The row that the others are compared with, by protocol: the SLSTM that classifies best
# on held-out samples (with λ chosen, by far on CIFAR-10; on MNIST three are level).
REFERENCE = {"paper": "slstm-factored", "full": "slstm-untied"}
# For every seed the same.
DETERMINISTIC = ("pca", "pixels")


def store(args, validation=False):
    return Store(args.output / ("holdout" if validation else "runs"))


def names(args):
    found = {record["dataset"] for record in store(args).records().values()}
    return [n for n in datasets.NAMES if n in found or n in args.datasets]


def make_run(dataset, key, l1, seed, args, protocol="full", validation=False):
    rate = PAPER_RATES.get(key, {}).get(dataset) if protocol == "paper" else None
    recipe = recipe_of(dataset, key, n_steps=args.n_steps, epochs=args.epochs)
    name = f"{dataset}-{key}" + (f"-rate{rate:g}" if rate else "")
    name += f"-l1-{l1:g}-seed{seed}"
    recipe = with_options(recipe, learning_rate=rate)
    made = {"method": METHODS[key], "l1": l1, "seed": seed, "n_atoms": args.n_atoms}
    made["validation"] = validation
    return Run(name, store(args, validation), dataset, recipe, **made)


def search_runs(args):
    """The runs on held-out samples that choose λ, `{(dataset, method, λ): Run}`."""
    searched = product(names(args), args.l1_grid, args.methods)
    return {
        (name, key, l1): make_run(name, key, l1, args.seeds[0], args, validation=True)
        for name, l1, key in (searched if "full" in args.protocols else ())
    }


def choose(found):
    """`{(dataset, method): λ}` of the best accuracy on held-out samples."""
    best = {}
    for (*pair, l1), record in found.items():
        # One that diverged has no accuracy, and is chosen only where all did.
        tried = record.get("full", 0.0), l1
        best[*pair] = max(best.get((*pair,), tried), tried)
    return {pair: l1 for pair, (_, l1) in best.items()}


def table_runs(protocol, chosen, args):
    """The runs of a table, `{(dataset, row, seed): Run}`."""
    runs = {}
    for name in names(args):
        # Seed by seed, so that a run that is stopped leaves whole seeds.
        for seed, key in product(args.seeds, args.methods):
            l1 = chosen.get((name, key)) if protocol == "full" else PAPER_L1
            if l1 is not None:
                run = make_run(name, key, l1, seed, args, protocol)
                runs[name, key, seed] = run
        # Last, because the classifier on thousands of raw features takes longest.
        recipe = recipe_of(name, epochs=args.epochs)
        for kind in CEILINGS if protocol == "full" else ():
            for seed in args.seeds[:1] if kind in DETERMINISTIC else args.seeds:
                made = {"kind": kind, "seed": seed, "n_atoms": args.n_atoms}
                where = f"{name}-{kind}-seed{seed}", store(args), name
                runs[name, kind, seed] = Ceiling(*where, recipe, **made)
    return runs


def groups_of(records):
    """The records of each row by seed, `{(dataset, row): {seed: record}}`."""
    groups = {}
    for (name, key, seed), record in records.items():
        groups.setdefault((name, key), {})[seed] = record
    return groups


def table(protocol, records, args):
    full, reference = protocol == "full", REFERENCE[protocol]
    known = reference in args.methods
    header = ["dataset", "method", "λ" if full else "the paper, %"]
    header += ["rate", "accuracy, %"]
    header += [f"{METHODS[reference].label} − row"] if known else []
    header += ["objective", "optimum", "gap, %", "above the best, %", "nonzero"]
    rows, groups = [], groups_of(records)
    for (name, key), group in groups.items():
        best = best_optima({k: g for k, g in groups.items() if k[0] == name})
        row = table_row(key, group, protocol, best)
        if known:
            against = groups.get((name, reference)) if key != reference else None
            row.insert(5, difference(against, group, protocol) if against else "")
        rows.append(row)
    spread = "One seed" + ("" if full else ", mean ± standard deviation over the draws")
    spread += "."
    if len(args.seeds) > 1:
        spread = (
            f"Mean ± standard deviation over {len(args.seeds)} seeds; differences with "
            "the 95 % interval of Student's t, paired by seed."
        )
    chosen = "chosen on held-out training samples for each row" if full else "0.1"
    rates = "the recipe's" if full else "where studied, chosen on held-out samples"
    return markdown(header, rows) + (
        f"\n{protocol.capitalize()} protocol, {args.n_atoms} atoms, λ {chosen}. "
        f"{spread} Rate: Adadelta's learning rate, {rates}. Objective and optimum: on "
        "the test split; the optimum is that of the LASSO with the same dictionary, "
        "the best the lowest optimum of any row at that λ. nan: training diverged.\n"
    )


def seen_and_unseen(records, args):
    """Objective and accuracy on the training and the test split, as Markdown."""
    header = ["dataset", "method"]
    for name in ("objective", "nonzero", "accuracy, %"):
        header += [f"{name}: training split", "test split"]
    rows = []
    for (name, key), group in groups_of(records).items():
        if key not in CEILINGS:
            figures = means(group)
            shown = cells(figures, "train_objective", "objective")
            shown += cells(figures, train_nonzero=".3f", nonzero=".3f")
            shown += cells(figures, "full_train", "full")
            rows.append([name, METHODS[key].label, *shown])
    return markdown(header, rows) + (
        f"\nThe models of the full protocol, means over {len(args.seeds)} seeds.\n"
    )


def means(group):
    return {
        name: np.mean([record.get(name, math.nan) for record in group.values()])
        for name in (*FORMATS, "train_nonzero")
    }


def best_optima(groups):
    """The lowest optimum of these rows, each a mean over seeds, `{λ: optimum}`."""
    optima = {}
    for group in groups.values():
        optimum = means(group)["optimum"]
        if not math.isnan(optimum):
            optima.setdefault(setting(group, "l1"), []).append(optimum)
    # One dictionary alone would be compared with itself.
    return {
        l1: min(each)
        for l1, each in optima.items()
        if not math.isclose(min(each), max(each), rel_tol=1e-6)
    }


def setting(group, name):
    return next(iter(group.values()))["settings"].get(name)


def difference(reference, group, protocol):
    if setting(group, "kind") in DETERMINISTIC:
        group = dict.fromkeys(reference, *group.values())
    differences = [
        percent(reference[seed], protocol) - percent(group[seed], protocol)
        for seed in reference
        if seed in group
    ]
    if not differences:
        return ""
    middle, half = paired_interval(differences)
    return f"{middle:+.2f}" + ("" if math.isnan(half) else f" ± {half:.2f}")


def table_row(key, group, protocol, best):
    spread = values = [percent(record, protocol) for record in group.values()]
    first, l1 = next(iter(group.values())), setting(group, "l1")
    if len(values) == 1 and protocol == "paper":
        spread = [100 * a for a in first.get("paper", [math.nan])]
    deviation = f" ± {np.std(spread, ddof=1):.2f}" if len(spread) > 1 else ""
    note = f" ({first['note']})" if first["note"] else ""
    row = [first["dataset"] + note, first["label"]]
    if protocol == "full":
        row.append("" if key in CEILINGS else f"{l1:g}")
    else:
        paper = zip(("mnist", "cifar10"), METHODS[key].paper, strict=False)
        row += [f"{p:.2f}" for name, p in paper if name == first["dataset"]] or [""]
    rate = setting(group, "learning_rate")
    row += [f"{rate:g}" if rate else "", f"{np.mean(values):.2f}{deviation}"]
    if key in CEILINGS:
        return [*row, "", "", "", "", ""]
    figures, best = means(group), best.get(l1)
    row += cells(figures, "objective", "optimum", "gap")
    row.append(f"{100 * (figures['objective'] / best - 1):z.2f}" if best else "")
    return row + cells(figures, "nonzero")


def draw_choice(found, path):
    """Accuracy on held-out samples against the nonzero fraction, as λ varies."""
    names = list(dict.fromkeys(name for name, _, _ in found))
    figure, axes = panels(len(names), 6, 4.6, margin=2)
    for ax, name in zip(axes, names, strict=True):
        curves = {}
        for (dataset, key, _), record in found.items():
            if dataset == name and "full" in record:
                point = (record["nonzero"], 100 * record["full"])
                curves.setdefault(METHODS[key].label, []).append(point)
        plotting.plot_tradeoff(curves, "nonzero entries of a code", "accuracy, %", ax)
        ax.set_title(f"{name}, held-out samples; along a curve λ grows to the left")
        ax.get_legend().remove()
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    plotting.save_figure(figure, path)


def draw(name, data, runs, args):
    models, dictionaries = {}, {}
    for (dataset, key, seed), run in runs.items():
        if (dataset, seed) != (name, args.seeds[0]) or key in CEILINGS:
            continue
        if not run.model_path.exists():
            print(f"{run.model_path} is not there: no new pictures of {name}")
            return
        models[run.label] = run.load()
        # The solvers share one dictionary where they share λ: it is drawn once.
        label = run.label if run.trained else f"scikit-learn, λ = {run.l1:g}"
        dictionaries[label] = models[run.label].dictionary
    shape, x = data.x_test.shape[1:], data.x_test[:12]
    figure, axes = panels(len(dictionaries), 4, 4.3, min(3, len(dictionaries)))
    for ax, (label, dictionary) in zip(axes, dictionaries.items(), strict=True):
        plotting.plot_atoms(dictionary, shape, ax=ax)
        ax.set_title(label)
    plotting.save_figure(figure, args.output / f"{name}-atoms.png")
    reconstructions = {label: model.reconstruct(x) for label, model in models.items()}
    ax = plotting.plot_reconstructions(x, reconstructions, shape)
    plotting.save_figure(ax.figure, args.output / f"{name}-reconstructions.png")
