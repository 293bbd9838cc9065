"""`check_encoder` over every entry of the registry, and on an encoder that is wrong."""

import pytest
from helpers import ENTRIES, KIN, WITH_ACTIVATION, with_slow

import sc2keras
from sc2keras import registry
from sc2keras.testing import check_encoder

ACTIVATIONS = [
    (entry.name, {"activation": activation})
    for entry in ENTRIES
    if entry.layer in WITH_ACTIVATION
    for activation in ("double_tanh", "top_k")
]
VARIANTS = with_slow(
    [(e.name, {}) for e in ENTRIES if e.layer not in KIN],
    [(e.name, options) for e in ENTRIES for options in ({}, *e.variants.values())]
    + ACTIVATIONS,
)


@pytest.mark.parametrize("name, options", VARIANTS, ids=str)
def test_every_entry_obeys_the_laws(name, options):
    check_encoder(name, **options)


def test_a_law_that_does_not_hold_is_named():
    lista = registry.get_entry("LISTA").layer

    @sc2keras.register_encoder("Broken")
    class Broken(lista):
        """A LISTA whose rows touch each other."""

        def step(self, prepared, state, t):
            codes, previous = super().step(prepared, state, t)
            return codes + sc2keras.layers.shrinkage.ops.mean(codes, axis=0), previous

    try:
        with pytest.raises(AssertionError, match="depend on the other rows"):
            check_encoder("Broken")
    finally:
        del registry._ENTRIES["Broken"]
