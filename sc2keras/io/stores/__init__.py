"""Where codes and decoded signals go."""

from pathlib import Path

from sc2keras.io.errors import OutputError
from sc2keras.io.stores.base import Store
from sc2keras.io.stores.csr import CSRStore
from sc2keras.io.stores.npy import NpyStore

STORES: dict[str, type[Store]] = {".npy": NpyStore, ".npz": CSRStore}

__all__ = ["STORES", "Store", "kind_of_output"]


def kind_of_output(
    target: Path, threshold: float | None, of_codes: bool
) -> type[Store]:
    """The class that writes an output.

    Raises:
        OutputError: If there is none, or if the threshold does not apply to it.
    """
    kinds = {
        suffix: kind
        for suffix, kind in STORES.items()
        if of_codes or not kind.only_codes
    }
    if target.suffix not in kinds:
        known = " or ".join(f"{s} ({kind.summary})" for s, kind in kinds.items())
        raise OutputError(f"the output {target} must end in {known}.")
    if threshold is not None and not kinds[target.suffix].only_codes:
        raise OutputError(
            f"threshold={threshold:g} leaves entries out of a CSR array. Name an output"
            f" that ends in .npz; received {target}."
        )
    return kinds[target.suffix]
