"""Where signals and codes come from."""

import os
from typing import Any

from sc2keras.io.errors import InputError
from sc2keras.io.sources.arrays import CSRFile, NpyFile, NpzFile
from sc2keras.io.sources.base import Progress, Source
from sc2keras.io.sources.images import ImageFolder
from sc2keras.io.sources.named import Digits, TensorFlowDataset

# The first that reads an input is its kind.
SOURCES: list[type[Source]] = [ImageFolder, NpyFile, CSRFile, NpzFile]
SOURCES += [Digits, TensorFlowDataset]

__all__ = ["SOURCES", "Progress", "Source", "kind_of_input"]


def kind_of_input(name: str, options: dict[str, Any], of_codes: bool) -> type[Source]:
    """The class that reads an input with these options, or an InputError."""
    kinds = (kind for kind in SOURCES if kind.holds_codes or not of_codes)
    kind = next((kind for kind in kinds if kind.reads(name)), None)
    if kind is None and not os.path.exists(name):
        raise InputError(f"the input {name} is not a file. Check the path.")
    if kind is None:
        known = ".npy or .npz" if of_codes else ".npy, .npz or folder of images"
        what = f"the input {name} is no {known}"
        raise InputError(f"{what}. Save samples with numpy.save.")
    for option in options:
        if option not in kind.options:
            what = f"{option}= does not apply to the input {name}"
            raise InputError(f"{what}; leave it out.")
    return kind
