"""Encoding: against the bound of the matrix products, and against other solvers."""

import itertools
import sys
import tempfile
import warnings
from functools import partial

import keras
import numpy as np
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

import sc2keras
from sc2keras import applications, evaluation
from sc2keras.metrics import NONZERO_THRESHOLD
from sc2keras.objective import relative_duality_gap

from . import measure
from .measure import fast, interleaved, memory_mb

N_SLOW = 500  # Samples for the solvers that take a millisecond each.
N_VERY_SLOW = 50
STREAMED = "SC2Net, 3 steps", "SC2Net, 10 steps", "LISTA, 16 steps", "FISTA, 20 steps"
NETWORKS = {"LISTA": [5, 16], "LFISTA": [5, 10], "SC2Net": [3, 10]}
NETWORKS["StepLFISTA"] = [5, 10, 20]
# Whose codes are also taken on to a proven gap of so much.
PROVEN, TOLERANCE = "StepLFISTA", 1e-4


def against_the_bound(x, n_steps, args):
    """Codes a second from every kind of source, over the rate of the bare products."""
    n_features, n_chunks = x.shape[1], 8 if args.quick else 24
    model = applications.SC2Net(args.n_atoms, (n_features,), n_steps=n_steps)
    n_rows = model.batch_size_of_encode()
    signals = np.resize(x, (n_chunks * n_rows, n_features))
    products = measure.encoder_products(n_steps, n_rows, n_features, args.n_atoms)
    out = np.empty((len(signals), args.n_atoms), dtype="float32")
    functions = {
        "matrix products": measure.products_only(products, n_chunks),
        "encode, array": lambda: model.encode(signals, out=out),
        "predict": lambda: model.predict(signals, batch_size=2048, verbose=0),
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices(signals).batch(1024)
        functions["encode, tf.data"] = lambda: model.encode(dataset, out=out)
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, signals)
        file.flush()
        mapped = np.load(file.name, mmap_mode="r")
        functions["encode, memory map"] = lambda: model.encode(mapped, out=out)
        _, seconds = interleaved(functions, 3 * args.repeats, f"encode, T = {n_steps}")
    found = measure.rates("codes_per_second", len(signals), seconds, products, n_chunks)
    return {"n_steps": n_steps, "rows_at_a_time": n_rows, **found}


def against_solvers(x, x_test, l1, args):
    """Points of gap against codes a second, for one λ, and a stream of vectors."""
    n_learn = 5_000 if args.quick else 20_000
    dictionary = sc2keras.learn_dictionary(x[:n_learn], args.n_atoms, l1)
    shape = {"n_atoms": args.n_atoms, "input_shape": x.shape[1:], "l1": l1}
    # Of (kind, label): a network may be there with either dictionary.
    models = _solvers(dictionary, shape) | _networks(x, dictionary, shape, True, args)
    fixed = {"n_steps": 3, "trainable_dictionary": False}
    narrow = applications.SC2Net(**shape, **fixed, dtype="mixed_bfloat16")
    narrow.set_weights(models["network", "SC2Net, 3 steps"].get_weights())
    models["network", "SC2Net, 3 steps, bfloat16"] = narrow
    if not args.quick:
        models |= _networks(x, dictionary, shape, False, args)
    functions = {key: partial(model.encode, x_test) for key, model in models.items()}
    for (kind, label), model in models.items():
        if kind == "network" and label.startswith(PROVEN):
            name = f"{label}, proven to {TOLERANCE:g}"
            functions[kind, name] = partial(model.encode, x_test, tol=TOLERANCE)
    for label, function in _peers(x_test, dictionary, l1, args).items():
        functions["peer", label] = function
    codes, seconds = interleaved(functions, args.repeats, f"λ = {l1:g}")
    exact = _optimal_codes(x_test, dictionary, shape)
    points = []
    for (kind, label), found in tqdm(codes.items(), "objectives", leave=False):
        atoms, best, signals = dictionary, exact[: len(found)], x_test[: len(found)]
        if "own" in kind:
            atoms = models[kind, label].dictionary
            best = _optimal_codes(signals, atoms, shape)
        objective = evaluation.mean_objective(signals, found, atoms, l1)
        optimum = evaluation.mean_objective(signals, best, atoms, l1)
        points.append({"label": label, "kind": kind, "l1": l1, "n_samples": len(found)})
        points[-1] |= {
            "codes_per_second": len(found) / np.median(seconds[kind, label]),
            "objective": objective,
            "optimum": optimum,
            "gap": objective / optimum - 1,
            "nonzero": float(np.mean(np.abs(found) > NONZERO_THRESHOLD)),
            "seconds": seconds[kind, label],
        }
    known = itertools.product(("network", "solver"), STREAMED)
    streams = [
        {"label": key[1], "l1": l1, **stream(models[key], x_test, args)}
        for key in tqdm([k for k in known if k in models], "streams", leave=False)
    ]
    return {"points": points, "streams": streams}


def _solvers(dictionary, shape):
    shape, solvers = shape | {"dictionary": dictionary}, {}
    for name, n in itertools.product(("ISTA", "FISTA"), (20, 50, 100)):
        solver = getattr(applications, name)(**shape, n_steps=n)
        solvers["solver", f"{name}, {n} steps"] = solver
    for name, tol in itertools.product(("FISTA", "ActiveSet"), (1e-2, 1e-4)):
        solver = getattr(applications, name)(**shape, n_steps=5000, tol=tol)
        solvers["solver", f"{name}, duality gap ≤ {tol:g}"] = solver
    return solvers


def _networks(x, dictionary, shape, fixed, args):
    networks, kind = {}, "network" if fixed else "network, own dictionary"
    start = {"dictionary": dictionary, "trainable_dictionary": not fixed}
    for builder, steps in tqdm(NETWORKS.items(), "training", leave=False):
        for n_steps in steps if fixed and not args.quick else steps[:1]:
            keras.utils.set_random_seed(0)
            model = getattr(applications, builder)(**shape, n_steps=n_steps, **start)
            fit(model, x, 2 if args.quick else 13)
            networks[kind, f"{builder}, {n_steps} steps"] = model
    return networks


def _optimal_codes(x, dictionary, shape):
    # Of the duality gap; the objective is then closer by far.
    solver = applications.ActiveSet(**shape, dictionary=dictionary)
    return solver.encode(x, tol=1e-5)


def fit(model, x, epochs):
    # Without the clipping, steps of 1.0 from a solver's weights diverge.
    recipe = model.encoder.recipe.replace(epochs=epochs, clipnorm=1.0)
    recipe.compile(model, len(x), **fast())
    recipe.fit(model, x, verbose=0)


def _peers(x, dictionary, l1, args):
    """`{label: function}`; each returns the codes of the first samples."""
    try:
        import celer
        import spams
    except ImportError as error:
        sys.exit(f"error: {error}. Install the peers: pip install '.[benchmark]'")
    few, atoms = x[:N_SLOW].astype("float64"), dictionary.astype("float64")
    top, fista = x[: 2 * N_SLOW], partial(numpy_fista, dictionary=dictionary, l1=l1)
    peers = {
        "NumPy FISTA, 50 steps": lambda: fista(x, n_steps=50),
        "NumPy FISTA, 100 steps": lambda: fista(x, n_steps=100),
        "NumPy FISTA, duality gap ≤ 0.0001": lambda: fista(top, n_steps=5000, tol=1e-4),
    }
    for algorithm in ("lasso_cd", "lasso_lars", "omp"):
        options = {"algorithm": algorithm, "alpha": l1, "n_jobs": -1}
        # OMP is told how many atoms to use: about as many as the LASSO at 0.1.
        if algorithm == "omp":
            options["n_nonzero_coefs"] = args.n_atoms // 2

        def encode(options=options):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return sparse_encode(few, atoms, **options)

        peers[f"scikit-learn {algorithm}"] = encode
    columns = np.asfortranarray(x.T), np.asfortranarray(dictionary.T)
    lars = {"lambda1": l1, "mode": 2, "numThreads": -1}
    peers["SPAMS lasso"] = lambda: spams.lasso(*columns, **lars).T.toarray()
    # celer minimises ‖y − Xw‖²/(2n) + alpha·‖w‖₁.
    lasso = celer.Lasso(l1 / x.shape[1], fit_intercept=False)
    rows = few[:N_VERY_SLOW]
    peers["celer Lasso"] = lambda: np.stack([lasso.fit(atoms.T, r).coef_ for r in rows])
    return peers


def numpy_fista(x, dictionary, l1, n_steps, tol=None):
    step_size = np.float32(1 / np.linalg.norm(dictionary, 2) ** 2)
    gram, correlation = dictionary @ dictionary.T, x @ dictionary.T
    y = codes = np.zeros_like(correlation)
    t = 1.0
    for step in range(n_steps):
        new = y - step_size * (y @ gram - correlation)
        new = np.sign(new) * np.maximum(np.abs(new) - step_size * np.float32(l1), 0)
        t_next = (1 + (1 + 4 * t * t) ** 0.5) / 2
        y = new + np.float32((t - 1) / t_next) * (new - codes)
        codes, t = new, t_next
        if tol is not None and step % 20 == 19:
            gaps = relative_duality_gap(x, codes, dictionary, l1)
            if keras.ops.convert_to_numpy(gaps).max() <= tol:
                break
    return codes


def stream(model, x_test, args):
    """A million vectors from a generator to a memory map, and the memory it takes."""
    n_repeats = -(-(20_000 if args.quick else 1_000_000) // len(x_test))
    model.encode(x_test)
    before, held = memory_mb(), []

    def batches():
        for _ in range(n_repeats):
            held.append(memory_mb())
            yield x_test

    shape = n_repeats * len(x_test), args.n_atoms
    with tempfile.NamedTemporaryFile() as file:
        out = np.memmap(file, "float32", "w+", shape=shape)
        elapsed = measure.seconds_of(lambda: model.encode(batches(), out=out))
    return {
        "n_samples": len(out),
        "codes_per_second": len(out) / elapsed,
        "codes_mb": out.nbytes / 1e6,
        "more_memory_mb": max(held) - before,
    }
