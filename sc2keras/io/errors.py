"""What can go wrong between two files; every message names a remedy."""

import contextlib
import warnings
from collections.abc import Iterator

from sc2keras.validation import depth_of_caller


class TransferError(Exception):
    """A file cannot be encoded or decoded as asked."""


class ModelError(TransferError, ValueError):
    """The model cannot be loaded, or is none that encodes."""


class InputError(TransferError, ValueError):
    """The input cannot be read, or does not fit the model."""


class InputChangedError(InputError):
    """The input is not what it was, from a row on."""

    def __init__(self, what: object, row: int = 0) -> None:
        super().__init__(what)
        self.row = row


class OutputError(TransferError, ValueError):
    """The output cannot be written, or must not be replaced."""


class UnfinishedError(TransferError):
    """The unfinished work beside the output is damaged, in use, or of other settings"""


class InUseError(UnfinishedError):
    """Another run writes the same output."""


class TransferWarning(UserWarning):
    """What a user wants to know of a transfer that goes on."""


@contextlib.contextmanager
def failing_as(kind: type[TransferError], what: str, remedy: str) -> Iterator[None]:
    """Files, archives and libraries fail in many ways, all with the same remedy."""
    try:
        yield
    except (TransferError, MemoryError):
        raise
    except Exception as error:
        raise kind(f"{what} ({one_line(error)}). {remedy}") from error


def tell(message: str) -> None:
    warnings.warn(message, TransferWarning, stacklevel=depth_of_caller())


def one_line(error: BaseException) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) < 300 else text[:297] + "..."
