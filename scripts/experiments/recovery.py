"""The benchmark of sparse recovery: its settings, its models, and their records."""

import functools
import time
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import ops

import sc2keras
from sc2keras import evaluation

from .benchmarks.measure import seconds_of
from .records import environment

N_STEPS, N_TEST = 16, 1000
# Samples to choose on, and to test on, are others than those of any fit.
_CHOICE_SEED, _TEST_SEED = 2**20, 2**21
_RIDGES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_L1S = np.geomspace(0.03, 1.0, 10)


@dataclass(frozen=True)
class Setting:
    """What `sc2keras.datasets.sparse_recovery` draws."""

    n_features: int = 250
    n_atoms: int = 500
    n_active: float = 50  # On average.
    snr: float | None = None
    condition: float | None = None

    @property
    def name(self):
        noise = "noiseless" if self.snr is None else f"SNR {self.snr:g}"
        kappa = "" if self.condition is None else f", κ = {self.condition:g}"
        return f"{self.n_features} x {self.n_atoms}{kappa}, {noise}"

    def draw(self, n_samples, seed, dictionary, **changes):
        problem = {"density": self.n_active / self.n_atoms, "snr": self.snr, **changes}
        return sc2keras.datasets.sparse_recovery(
            n_samples=n_samples, dictionary=dictionary, seed=seed, **problem
        )

    def dictionary(self, seed):
        sizes = self.n_features, self.n_atoms, 1
        drawn = sc2keras.datasets.sparse_recovery(
            *sizes, condition=self.condition, seed=seed
        )
        return drawn.dictionary


def _settings():
    for snr in (None, 40.0, 30.0, 20.0):
        yield Setting(snr=snr)
    for snr in (None, 20.0):
        yield Setting(256, 512, 51.2, snr)
    for condition in (5.0, 30.0, 50.0):
        yield Setting(condition=condition)
    yield Setting(condition=50.0, snr=40.0)
    for n_atoms in (1000, 2000):
        for snr in (40.0, 20.0):
            yield Setting(n_atoms=n_atoms, snr=snr)


SETTINGS = {setting.name: setting for setting in _settings()}


@dataclass(frozen=True)
class Model:
    """A builder with its options, and how `fit_recovery` is called for it.

    Args:
        builder: String; empty for the bound, which knows the support.
        options: Dictionary, of the builder.
        has_ridge: Boolean, whether its analytic weights have a ridge.
        starts_as: String, the solver that it is untrained, whose best λ it starts with.
        methods, n_updates: Of `fit_recovery`, in a run of minutes and in one of hours;
            methods is None where nothing is fitted.
    """

    builder: str
    options: dict = field(default_factory=dict)
    has_ridge: bool = False
    starts_as: str = ""
    methods: tuple | None = ("auto", "auto")
    n_updates: tuple = (80, 2000)


_ERROR_BASED = {"error_based": True}
_OF_ISTA = {"starts_as": "ISTA"}
# Three stages a step take half an hour.
_STAGED = {**_OF_ISTA, "methods": ("joint", "stages"), "n_updates": (80, 400)}
MODELS = {
    "ISTA, best λ": Model("ISTA", starts_as="ISTA", methods=None),
    "FISTA, best λ": Model("FISTA", starts_as="FISTA", methods=None),
    "AMP": Model("LAMP", methods=None),
    "LISTA": Model("LISTA", **_OF_ISTA),
    "LISTA-CP": Model("LISTACP", **_STAGED),
    "LISTA-SS": Model("LISTASS", **_STAGED),
    "LISTA-CPSS": Model("LISTACPSS", **_STAGED),
    "SLISTA": Model("SLISTA", **_OF_ISTA),
    "TiLISTA": Model("TiLISTA", **_OF_ISTA),
    "ALISTA": Model("ALISTA", has_ridge=True),
    "ALISTA, error-based": Model("ALISTA", _ERROR_BASED, has_ridge=True),
    "HyperLISTA": Model("HyperLISTA", has_ridge=True),
    "NA-ALISTA": Model("NAALISTA", has_ridge=True, n_updates=(80, 4000)),
    "LAMP": Model("LAMP"),
    "GLISTA": Model("GLISTA", **_STAGED),
    "ELISTA": Model("ELISTA", {"n_steps": N_STEPS // 2}, **_OF_ISTA),
    "TISTA": Model("TISTA"),
    "least squares on the true support": Model("", methods=None),
}
# Changes at test time to what was fitted on.
SHIFTS = {
    "none": {},
    "density / 2": {"density": 0.5},
    "density × 1.5": {"density": 1.5},
    "amplitudes / 10": {"scale": 0.1},
    "amplitudes × 10": {"scale": 10.0},
    "dictionary, 1 % off": {"perturbation": 0.01},
}


def record_of(store, setting, label, matrix, is_whole):
    """The record of a model on a matrix of a setting, made if it is missing."""
    model = MODELS[label]
    settings = {"matrix": matrix, "whole": is_whole, "n_steps": N_STEPS}
    name = f"{setting.name}, {label}, matrix {matrix}" + ", whole" * is_whole
    record = store.find(name, settings=settings)
    if not record:
        record = {"setting": setting.name, "label": label, "settings": settings}
        record |= {"environment": environment()}
        record |= measure(setting, model, matrix, is_whole)
        store.write(name, record)
    return record


def measure(setting, model, matrix, is_whole):
    atoms = setting.dictionary(matrix)
    test = setting.draw(N_TEST, _TEST_SEED + matrix, atoms)
    if not model.builder:
        return {"layers": [quality_of(least_squares(test), test)]}
    options = chosen_options(setting, model, matrix)
    coder = build(model, atoms, options)
    began, cpu = time.perf_counter(), time.process_time()
    if model.methods is not None:
        sc2keras.fit_recovery(
            coder,
            method=model.methods[is_whole],
            n_updates=model.n_updates[is_whole],
            density=setting.n_active / setting.n_atoms,
            snr=setting.snr,
            seed=matrix,
            verbose=0,
        )
    fitted, cpu_fitted = time.perf_counter(), time.process_time()
    coder.encode(test.x)
    seconds = min(seconds_of(lambda: coder.encode(test.x)) for _ in range(3))
    layers = layers_of(coder, test)
    return {
        "options": options,
        "n_parameters": sum(int(np.prod(w.shape)) for w in _fitted(coder, model)),
        "fit_seconds": fitted - began,
        "fit_cpu_seconds": cpu_fitted - cpu,
        "encode_seconds": seconds,
        "layers": layers,
        "shifts": {
            name: quality_of(coder.encode(shifted.x), shifted)
            for name, shifted in shifted_tests(setting, atoms, matrix).items()
        },
    }


def _fitted(coder, model):
    """The weights that are fitted: all that are trainable but the dictionary."""
    if model.methods is None:
        return []
    dictionary = coder.encoder.dictionary
    return [w for w in coder.trainable_weights if w is not dictionary]


def build(model, atoms, options):
    keras.utils.set_random_seed(0)
    options = {"n_steps": N_STEPS, "dictionary": atoms, **model.options, **options}
    return sc2keras.applications.build(
        model.builder, len(atoms), atoms.shape[1:], **options
    )


def chosen_options(setting, model, matrix):
    """The ridge, or the λ, of the smallest error on samples to choose on."""
    if model.starts_as:
        return {"l1": best_l1(setting, model.starts_as, matrix)}
    if model.has_ridge and setting.snr is not None:
        return {"ridge": best_ridge(setting, matrix)}
    return {}


@functools.cache
def best_l1(setting, builder, matrix):
    """λ of the smallest error after as many steps of a solver."""
    atoms, choice = choice_of(setting, matrix)

    def error(l1):
        coder = build(Model(builder), atoms, {"l1": float(l1)})
        return quality_of(coder.encode(choice.x), choice)["ratio"]

    return float(min(_L1S, key=error))


@functools.cache
def best_ridge(setting, matrix):
    """The ridge of the smallest error, by a fit of seconds that stands for others."""
    atoms, choice = choice_of(setting, matrix)
    problem = {"density": setting.n_active / setting.n_atoms, "snr": setting.snr}

    def error(ridge):
        coder = build(Model("ALISTA", _ERROR_BASED), atoms, {"ridge": ridge})
        how = {"method": "greedy", "n_samples": 300, "verbose": 0}
        sc2keras.fit_recovery(coder, **how, **problem)
        return quality_of(coder.encode(choice.x), choice)["ratio"]

    return min(_RIDGES, key=error)


def choice_of(setting, matrix):
    atoms = setting.dictionary(matrix)
    return atoms, setting.draw(500, _CHOICE_SEED + matrix, atoms)


def quality_of(codes, data):
    found = evaluation.recovery_quality(np.asarray(codes, "float32"), data.codes)
    return {name: float(value) for name, value in found._asdict().items()}


def layers_of(coder, data):
    """The quality after each step."""
    encoder = coder.encoder
    config = encoder.get_config() | {"return_sequences": True, "name": "steps"}
    layer = type(encoder).from_config(config)
    layer.build((None, encoder.n_features))
    layer.set_weights(encoder.get_weights())
    parts = [ops.convert_to_numpy(layer(rows)) for rows in np.split(data.x, 4)]
    codes = np.concatenate(parts)
    return [quality_of(codes[:, t], data) for t in range(codes.shape[1])]


def shifted_tests(setting, atoms, matrix):
    found = {}
    for name, shift in SHIFTS.items():
        changes, dictionary = dict(shift), atoms
        if "density" in changes:
            changes["density"] *= setting.n_active / setting.n_atoms
        if level := changes.pop("perturbation", 0.0):
            rng = np.random.default_rng(matrix)
            dictionary = atoms + level * rng.standard_normal(atoms.shape) / np.sqrt(
                atoms.shape[1]
            )
            dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
        seed = _TEST_SEED + matrix
        found[name] = setting.draw(N_TEST, seed, dictionary, **changes)
    return found


def least_squares(data):
    """Codes of who knows the support: a bound of those who must find it."""
    codes = np.zeros(data.codes.shape)
    for row, x, truth in zip(codes, data.x, data.codes, strict=True):
        support = np.flatnonzero(truth)
        row[support] = np.linalg.lstsq(data.dictionary[support].T, x, rcond=None)[0]
    return codes
