"""Codes of files into files: sources, stores, and what goes on after a stop."""

from sc2keras.io.errors import (
    InputChangedError,
    InputError,
    ModelError,
    OutputError,
    TransferError,
    TransferWarning,
    UnfinishedError,
)
from sc2keras.io.models import load_model, model_path
from sc2keras.io.sources import SOURCES, Source
from sc2keras.io.stores import STORES, Store
from sc2keras.io.transfer import Result, decode_file, encode_file

__all__ = [
    "SOURCES",
    "STORES",
    "InputChangedError",
    "InputError",
    "ModelError",
    "OutputError",
    "Result",
    "Source",
    "Store",
    "TransferError",
    "TransferWarning",
    "UnfinishedError",
    "decode_file",
    "encode_file",
    "load_model",
    "model_path",
]
