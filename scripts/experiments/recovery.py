"""The benchmark of sparse recovery: its settings, its models, and their records."""

import functools
import math
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

    @property
    def density(self):
        return self.n_active / self.n_atoms

    @property
    def noise(self):
        """The deviation of the noise, of a signal of mean power."""
        power = self.n_active / self.n_features
        return 0.0 if self.snr is None else math.sqrt(power) * 10 ** (-self.snr / 20)

    def draw(self, n_samples, seed, dictionary, **changes):
        problem = {"density": self.density, "snr": self.snr, **changes}
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
        ridge_of: String, the model whose ridge its analytic weights have with noise;
            empty for those without.
        starts_as: String, the solver that it is untrained, whose best λ it starts with;
            or the ALISTA, among the models, whose fit its own goes on from.
        is_fitted: Boolean.
        n_updates: Integer, of the gradient.
        learning_rate: Float; None: the encoder's.
        only: Names of the settings that it is for; empty: it is for all.
    """

    builder: str
    options: dict = field(default_factory=dict)
    ridge_of: str = ""
    starts_as: str = ""
    is_fitted: bool = True
    n_updates: int = 80
    learning_rate: float | None = None
    only: tuple[str, ...] = ()


_ERROR_BASED = {"error_based": True}
# Its ridge is chosen, by fits of seconds that stand for those of the others.
_RIDGED = {"ridge_of": "ALISTA, error-based"}
_UNSELECTED = "ALISTA, no selection"
_OF_ISTA = {"starts_as": "ISTA"}
# From there on, hundreds of updates of a matrix a step gain a decibel at most.
_OF_ALISTA = {"starts_as": "ALISTA", "n_updates": 20}
_OF_UNSELECTED = _OF_ALISTA | {"starts_as": _UNSELECTED}
MODELS = {
    "ISTA, best λ": Model("ISTA", starts_as="ISTA", is_fitted=False),
    "FISTA, best λ": Model("FISTA", starts_as="FISTA", is_fitted=False),
    "AMP": Model("LAMP", is_fitted=False),
    "LISTA": Model("LISTA", {"shared": False}, **_OF_UNSELECTED),
    "LISTA-CP": Model("LISTACP", **_OF_UNSELECTED),
    "LISTA-SS": Model("LISTASS", **_OF_ALISTA),
    "LISTA-CPSS": Model("LISTACPSS", **_OF_ALISTA),
    "SLISTA": Model("SLISTA", **_OF_ISTA),
    "TiLISTA": Model("TiLISTA", **_OF_ALISTA),
    _UNSELECTED: Model("ALISTA", {"max_support": 0.0}, **_RIDGED),
    "ALISTA": Model("ALISTA", n_updates=150, **_RIDGED),
    # Fewer entries are selected than most codes have, and sooner.
    "ALISTA, 11.5 % selected": Model(
        "ALISTA",
        {"support_step": 0.016, "max_support": 0.115},
        n_updates=150,
        only=("250 x 500, noiseless",),
    ),
    "ALISTA, error-based": Model("ALISTA", _ERROR_BASED, n_updates=200, **_RIDGED),
    "HyperLISTA": Model("HyperLISTA", **_RIDGED),
    "NA-ALISTA": Model("NAALISTA", **_RIDGED, n_updates=120),
    "NA-ALISTA, longer": Model(
        "NAALISTA",
        **_RIDGED,
        n_updates=1200,
        learning_rate=0.008,
        only=("250 x 500, SNR 40",),
    ),
    "LAMP": Model("LAMP", n_updates=120),
    "GLISTA": Model("GLISTA", **_OF_ALISTA),
    "ELISTA": Model("ELISTA", {"n_steps": N_STEPS // 2}, n_updates=120, **_OF_ISTA),
    "TISTA": Model("TISTA", n_updates=120),
    "least squares on the true support": Model("", is_fitted=False),
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


def models_of(name):
    """The models that a setting is measured with."""
    return [m for m, model in MODELS.items() if name in (model.only or SETTINGS)]


def needs(name, label):
    """The model whose record is needed first, for a start or a ridge; or none."""
    model = MODELS[label]
    if model.starts_as in MODELS:
        return model.starts_as
    has_ridge = SETTINGS[name].snr is not None
    return model.ridge_of if has_ridge and model.ridge_of != label else ""


def find(store, name, matrix, label):
    """The key, the settings and the record, which is empty if it is missing."""
    key, model = f"{name}, {label}, matrix {matrix}", MODELS[label]
    settings = {"seed": matrix, "n_steps": N_STEPS, "n_updates": model.n_updates}
    if model.learning_rate:
        settings["learning_rate"] = model.learning_rate
    return key, settings, store.find(key, settings=settings)


def record_of(store, name, matrix, label):
    """The record of a model on a matrix of a setting, made if it is missing."""
    setting, model = SETTINGS[name], MODELS[label]
    key, settings, record = find(store, name, matrix, label)
    if not record:
        other = needs(name, label)
        needed = record_of(store, name, matrix, other) if other else {}
        # What is chosen is so on the first matrix.
        first = record_of(store, name, 0, label) if matrix else {}
        record = {"dataset": "sparse recovery", "note": "", "setting": name}
        record |= {"label": label, "settings": settings}
        record |= {"environment": environment()}
        record |= measure(setting, model, matrix, needed, first)
        store.write(key, record)
    return record


def measure(setting, model, matrix, needed, first):
    """`needed` and `first` are records: of what it needs, and of the first matrix."""
    atoms = setting.dictionary(matrix)
    test = setting.draw(N_TEST, _TEST_SEED + matrix, atoms)
    if not model.builder:
        return {"layers": [quality_of(least_squares(test), test)]}
    options = first["options"] if first else chosen_options(setting, model, needed)
    coder = build(model, atoms, options)
    found = {"options": options}
    if model.is_fitted:
        start = needed if model.starts_as in MODELS else {}
        found |= fit(coder, setting, model, matrix, start)
    coder.encode(test.x)
    seconds = min(seconds_of(lambda: coder.encode(test.x)) for _ in range(3))
    return {
        **found,
        "encode_seconds": seconds,
        "layers": layers_of(coder, test),
        "shifts": {
            name: quality_of(coder.encode(shifted.x), shifted)
            for name, shifted in shifted_tests(setting, atoms, matrix).items()
        },
    }


def fit(coder, setting, model, matrix, start):
    """Fits, from the record `start` if there is one, and what is to be told of it."""
    begun = None
    if start:
        of = MODELS[model.starts_as]
        begun = build(of, coder.dictionary, start["options"])
        for name, values in start["numbers"].items():
            getattr(begun.encoder, name).assign(values)
    began, cpu = time.perf_counter(), time.process_time()
    sc2keras.fit_recovery(
        coder,
        start=begun,
        n_updates=model.n_updates,
        learning_rate=model.learning_rate,
        density=setting.density,
        snr=setting.snr,
        seed=matrix,
        verbose=0,
    )
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    found = {
        "n_parameters": sum(math.prod(w.shape) for w in fitted_weights(coder)),
        "fit_seconds": start.get("fit_seconds", 0.0) + seconds,
        "fit_cpu_seconds": start.get("fit_cpu_seconds", 0.0) + cpu,
    }
    if model.builder == "ALISTA":
        found["numbers"] = {
            w.name: ops.convert_to_numpy(w).tolist() for w in fitted_weights(coder)
        }
    return found


def fitted_weights(coder):
    """All that is trainable but the dictionary."""
    held = coder.encoder.dictionary
    return [w for w in coder.trainable_weights if w is not held]


def build(model, atoms, options):
    keras.utils.set_random_seed(0)
    options = {"n_steps": N_STEPS, "dictionary": atoms, **model.options, **options}
    return sc2keras.applications.build(
        model.builder, len(atoms), atoms.shape[1:], **options
    )


def chosen_options(setting, model, needed):
    """The ridge or λ of the smallest error, on samples to choose on; or the prior."""
    if model.ridge_of and setting.snr is not None:
        return needed.get("options") or {"ridge": best_ridge(setting)}
    if model.starts_as in ("ISTA", "FISTA"):
        return {"l1": best_l1(setting, model.starts_as)}
    if model.builder == "TISTA":
        return {"noise": setting.noise, "density": setting.density}
    return {}


@functools.cache
def best_l1(setting, builder):
    """λ of the smallest error after as many steps of a solver."""
    atoms, choice = choice_of(setting)

    def error(l1):
        solver = build(Model(builder), atoms, {"l1": float(l1)}).encoder
        # Not by encode, which compiles.
        return quality_of(ops.convert_to_numpy(solver(choice.x)), choice)["ratio"]

    return float(min(_L1S, key=error))


def best_ridge(setting):
    atoms, choice = choice_of(setting)
    problem = {"density": setting.density, "snr": setting.snr}

    def error(ridge):
        coder = build(Model("ALISTA", _ERROR_BASED), atoms, {"ridge": ridge})
        how = {"method": "greedy", "n_samples": 300, "verbose": 0}
        sc2keras.fit_recovery(coder, **how, **problem)
        return quality_of(coder.encode(choice.x), choice)["ratio"]

    return min(_RIDGES, key=error)


def choice_of(setting):
    atoms = setting.dictionary(0)
    return atoms, setting.draw(500, _CHOICE_SEED, atoms)


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
            changes["density"] *= setting.density
        if level := changes.pop("perturbation", 0.0):
            # The matrix itself is drawn with its number as the seed.
            rng = np.random.default_rng([_TEST_SEED, matrix])
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
