"""The studies behind the README's claims, each a module with `run(study)`."""

from . import (
    ablation,
    amortisation,
    cascade,
    convergence,
    dictionaries,
    gap,
    given,
    own_data,
    recipe,
    stopping,
    transfer,
    transformers,
)

_MODULES = (recipe, gap, convergence, given, stopping, ablation, cascade)
_MODULES += (dictionaries, transformers, transfer, own_data, amortisation)
STUDIES = {module.__name__.split(".")[-1]: module for module in _MODULES}
