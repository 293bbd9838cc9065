"""sc2keras: a Keras 3 model zoo for learned sparse coding."""

from sc2keras import (
    applications,
    callbacks,
    compiled,
    datasets,
    io,
    layers,
    losses,
    metrics,
    pursuit,
    sklearn,
    testing,
)
from sc2keras._version import __version__
from sc2keras.analytic import analytic_weights
from sc2keras.diagnosis import diagnose, l1_from
from sc2keras.dictionary_learning import learn_dictionary, sample_dictionary
from sc2keras.models import SparseCoder
from sc2keras.recovery import fit_recovery
from sc2keras.refining import refine
from sc2keras.registry import register_encoder
from sc2keras.training import Recipe

__all__ = [
    "Recipe",
    "SparseCoder",
    "__version__",
    "analytic_weights",
    "applications",
    "callbacks",
    "compiled",
    "datasets",
    "diagnose",
    "fit_recovery",
    "io",
    "l1_from",
    "layers",
    "learn_dictionary",
    "losses",
    "metrics",
    "pursuit",
    "refine",
    "register_encoder",
    "sample_dictionary",
    "sklearn",
    "testing",
]
