"""NumPy implementations to compare with, and what several test files build."""

import contextlib
import importlib.util
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from sc2keras import datasets, layers, registry
from sc2keras.layers import FISTA, ActiveSet
from sc2keras.losses import ReconstructionLoss

to_numpy = keras.ops.convert_to_numpy

# Those of this package: a test may register others.
ENTRIES = [e for e in registry.entries() if e.layer.__module__.startswith("sc2keras.")]
ENCODERS = [entry.layer for entry in ENTRIES]
SOLVERS = [entry.layer for entry in ENTRIES if not entry.is_trained]
TRAINABLE = [entry.layer for entry in ENTRIES if entry.is_trained]


def takes(cls, argument):
    """Whether an encoder, or its cell, has an argument of that name."""
    layers = [*cls.__mro__, *getattr(cls, "cell_class", object).__mro__]
    return any(argument in inspect.signature(c).parameters for c in layers[:-1])


# Those of a dictionary and an `Activation`: an autoencoder has names of its own.
WITH_ACTIVATION = [
    cls
    for cls in TRAINABLE
    if takes(cls, "activation") and cls is not layers.SparseAutoencoderBlock
]
# Those with the matrices W_d and W_e of the paper.
WITH_MATRICES = [cls for cls in TRAINABLE if takes(cls, "recurrent")]

# Those whose codes are to minimise the LASSO's objective, by default.
OF_THE_LASSO = [entry for entry in ENTRIES if entry.layer.solves is not None]

EXHAUSTIVE = (pytest.mark.slow, pytest.mark.exhaustive)


def with_slow(fast, slow, marks=pytest.mark.slow):
    """The cases of a law in the default suite, and those that `-m slow` adds.

    With `marks=EXHAUSTIVE` those that are run before a release. A case with marks of
    its own keeps them.
    """

    def values(case):
        if isinstance(case, tuple) and not hasattr(case, "marks"):
            return case
        return case.values if hasattr(case, "marks") else (case,)

    kept = [values(case) for case in fast]
    return [
        *fast,
        *(
            pytest.param(*values(case), marks=getattr(case, "marks", ()) or marks)
            for case in slow
            if values(case) not in kept
        ),
    ]


# Encoders that share all but their step rule with another, which stands for them: in
# `layers/recovery.py` TiLISTA, with trained weights, NA-ALISTA, with analytic ones.
KIN = (
    layers.ALISTABlock,
    layers.ELISTABlock,
    layers.GLISTABlock,
    layers.HyperLISTABlock,
    layers.LAMPBlock,
    layers.LISTACPSSBlock,
    layers.LISTASSBlock,
    layers.SLISTABlock,
    layers.TISTABlock,
)


# Whose variants differ by what their own tests compare with equations.
WITH_OWN_LAWS = (layers.SparseAutoencoderBlock,)


def marks(cls):
    return EXHAUSTIVE if cls in KIN else ()


def marks_of_variant(cls):
    return pytest.mark.slow if cls in WITH_OWN_LAWS else marks(cls)


def without_kin(classes):
    return with_slow([cls for cls in classes if cls not in KIN], classes, EXHAUSTIVE)


FEW_ENCODERS = without_kin(ENCODERS)
FEW_TRAINED = without_kin(TRAINABLE)
FEW_WITH_MATRICES = without_kin(WITH_MATRICES)
FEW_OF_THE_LASSO = with_slow(
    [e for e in OF_THE_LASSO if e.layer not in KIN], OF_THE_LASSO
)

# Every encoder, and the options that give it other weights.
VARIANTS = [
    *(pytest.param(cls, {}, id=cls.__name__, marks=marks(cls)) for cls in ENCODERS),
    *(
        pytest.param(
            entry.layer,
            options,
            id=f"{entry.layer.__name__}-{name}",
            marks=marks_of_variant(entry.layer),
        )
        for entry in ENTRIES
        for name, options in entry.variants.items()
    ),
    *(
        pytest.param(cls, options, id=f"{cls.__name__}-{name}", marks=marks(cls))
        for cls in TRAINABLE
        for name, options in [
            ("fixed", {"trainable_dictionary": False}),
            ("untied", {"tied": False}),
        ]
        if takes(cls, *options)
    ),
]

# Of solvers that differ by a line the one with more in it, of variants the defaults.
FEW_SOLVERS = with_slow([FISTA, ActiveSet], SOLVERS)
ONE_SOLVER = with_slow([ActiveSet], SOLVERS)
FEW_VARIANTS = with_slow(
    [v for v in VARIANTS if not v.values[1] and not v.marks], VARIANTS
)


@contextlib.contextmanager
def eagerly():
    """Nothing is traced: for many trainings of a few small batches each."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


# How W_d is coupled with the decoder.
DECODERS = [{}, {"tied": False}, {"trainable_dictionary": False}]
TRAINABLE_VARIANTS = [v for v in VARIANTS if v.values[0] in TRAINABLE]
FEW_TRAINABLE = [v for v in FEW_VARIANTS if v.values[0] in TRAINABLE]


def run_python_of(markdown):
    """Runs the Python of a page, block after block; the names that it leaves."""
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", markdown, flags=re.S):
        # One epoch shows that it runs.
        exec(block.replace("epochs=20", "epochs=1"), namespace)
    return namespace


def unit_atoms(n_atoms, n_features, seed=0):
    atoms = np.random.default_rng(seed).standard_normal((n_atoms, n_features))
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def signals(n_samples, n_features, seed=1):
    rng = np.random.default_rng(seed)
    return rng.random((n_samples, n_features), dtype="float32")


def decoded(layer, codes):
    """s D, and the offset where a layer has one, in NumPy."""
    offset = getattr(layer, "offset", None)
    moved = 0.0 if offset is None else to_numpy(offset)
    return codes @ to_numpy(layer.dictionary) + moved


def perturb(layer, seed=2):
    """Moves every weight, so that no agreement comes from the initial values."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        value = to_numpy(weight)
        noise = 0.1 * rng.standard_normal(value.shape)
        weight.assign(np.abs(value + noise) if value.min() >= 0 else value + noise)


def tied_model(encoder, n_features=8, l1=0.0):
    """A functional model that encodes, and decodes by the reverse call."""
    x = keras.Input((n_features,))
    codes = encoder(x)
    if l1:
        codes = keras.layers.ActivityRegularization(l1=l1)(codes)
    return keras.Model(x, [codes, encoder(codes, reverse=True)])


def train(model, x, learning_rate=0.1):
    model.compile(
        keras.optimizers.SGD(learning_rate),
        loss=[None, ReconstructionLoss()],
        run_eagerly=True,
    )
    model.fit(x, [None, x], epochs=2, verbose=0)


def layer_index(layer, name):
    return [weight.name for weight in layer.weights].index(name)


def layer_weight(layer, name):
    return layer.weights[layer_index(layer, name)]


def max_norm(dictionary):
    return np.linalg.norm(to_numpy(dictionary), axis=1).max()


def objective(x, codes, dictionary, l1):
    """One figure a sample, in float64."""
    x, codes, dictionary = (np.asarray(a, "float64") for a in (x, codes, dictionary))
    residual = x - codes @ dictionary
    return 0.5 * (residual**2).sum(axis=-1) + l1 * np.abs(codes).sum(axis=-1)


def shrink(x, threshold):
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)


def double_tanh(x, threshold, scale):
    return scale * (np.tanh(x + threshold) + np.tanh(x - threshold))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_percentile(x, threshold, fraction):
    """Support selection of Chen et al. 2018: above the nearest percentile, and θ."""
    magnitude = np.abs(x)
    line = np.percentile(
        magnitude, 100 * (1 - fraction), axis=1, keepdims=True, method="nearest"
    )
    passes = (magnitude > threshold) & (magnitude > line)
    return np.where(passes, x, shrink(x, threshold))


def ista(x, dictionary, l1, n_steps):
    """The codes after every step, `(batch, n_steps, n_atoms)`, as gradient steps."""
    step_size = 1 / np.linalg.norm(dictionary, 2) ** 2
    codes = np.zeros((len(x), len(dictionary)))
    history = []
    for _ in range(n_steps):
        gradient = (codes @ dictionary - x) @ dictionary.T
        codes = shrink(codes - step_size * gradient, l1 * step_size)
        history.append(codes)
    return np.stack(history, axis=1)


def fista(x, dictionary, l1, n_steps, restart=False):
    """Beck and Teboulle, section 4, "FISTA with constant stepsize", as printed.

    With `restart`, O'Donoghue and Candès' gradient scheme for each sample.
    """
    step_size = 1 / np.linalg.norm(dictionary, 2) ** 2
    y = previous = np.zeros((len(x), len(dictionary)))
    t = np.ones((len(x), 1))
    history = []
    for _ in range(n_steps):
        gradient = (y @ dictionary - x) @ dictionary.T
        codes = shrink(y - step_size * gradient, l1 * step_size)
        if restart:
            against = np.sum((y - codes) * (codes - previous), axis=1) > 0
            t[against] = 1.0
        t_next = (1 + np.sqrt(1 + 4 * t**2)) / 2
        y = codes + (t - 1) / t_next * (codes - previous)
        previous, t = codes, t_next
        history.append(codes)
    return np.stack(history, axis=1)


def active_set(x, dictionary, l1, n_steps):
    """A step of ISTA, then twelve of conjugate gradients on its support, row by row."""
    step_size = 1 / np.linalg.norm(dictionary, 2) ** 2
    history = np.zeros((len(x), n_steps, len(dictionary)))
    for signal, steps in zip(x, history, strict=True):
        s = np.zeros(len(dictionary))
        for step in steps:
            correlation = dictionary @ (signal - s @ dictionary)
            s = shrink(s + step_size * correlation, l1 * step_size)
            signs, direction, length = np.sign(s), None, 1.0
            for _ in range(12):
                gradient = dictionary @ (signal - s @ dictionary) - l1 * signs
                gradient[s == 0] = 0
                new_length = gradient @ gradient
                if new_length < 1e-20:
                    break
                if direction is None:
                    direction = gradient
                else:
                    direction = gradient + new_length / length * direction
                length, moved = new_length, direction @ dictionary
                size = length / (moved @ moved)
                crosses = np.flatnonzero(s * direction < 0)
                zeros = -s[crosses] / direction[crosses]
                if len(crosses) and zeros.min() <= size:
                    s = s + zeros.min() * direction
                    s[crosses[zeros == zeros.min()]] = 0
                    direction = None
                else:
                    s = s + size * direction
            step[:] = s
    return history


def small_digits(n_train, n_test=80):
    """The first samples of the digits, on which a training takes seconds."""
    digits = datasets.load("digits")
    return digits._replace(
        x_train=digits.x_train[:n_train],
        y_train=digits.y_train[:n_train],
        x_test=digits.x_test[:n_test],
        y_test=digits.y_test[:n_test],
    )


def load_program(path):
    """A file of scripts/ or applications/ as a module."""
    path = Path(__file__).parents[1] / path
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_same(found, expected, cls):
    """Equal; on PyTorch its LSTM's to rounding, which depends on where weights lie."""
    if keras.backend.backend() == "torch" and cls is layers.NAALISTABlock:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)
