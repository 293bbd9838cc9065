"""What every kind of input has."""

import abc
import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sc2keras.io.errors import InputChangedError
from sc2keras.validation import Shape

# Called with what is done, how many are done, and how many there are, if that is known.
Progress = Callable[[str, int, int | None], None]


class Source(abc.ABC):
    """An input: its rows, what tells it from another, and how it is read.

    Another kind is a subclass and its place in `sc2keras.io.sources.SOURCES`. Its
    `__init__` takes the name that the user gives, and the shape of a row as the model
    takes it.
    """

    options: ClassVar[tuple[str, ...]] = ()
    # Whether a row of it may be a code.
    holds_codes: ClassVar[bool] = False
    # Whether the rest of its fingerprint and its listing tell it from all others, so
    # that `input`, its path, need not be the same.
    known_by_content: ClassVar[bool] = False

    n_rows: int
    shape: Shape
    dtype: np.dtype
    # What stays the same as long as a run may go on with the work of another.
    fingerprint: dict[str, Any]
    # What `state()` was at first.
    before: Any = None

    @abc.abstractmethod
    def __init__(self, name: str, shape: Shape, progress: Progress, **options: Any): ...

    @classmethod
    @abc.abstractmethod
    def reads(cls, name: str) -> bool:
        """Whether it is for inputs of that name."""

    @abc.abstractmethod
    def read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        """Arrays of `n_rows` rows, the last perhaps of fewer, from row `start` on."""

    def parts(self, start: int, n_rows: int) -> Iterator[slice]:
        """Where those arrays lie."""
        for first in range(start, self.n_rows, n_rows):
            yield slice(first, min(first + n_rows, self.n_rows))

    def state(self) -> Any:
        """What is another once the input was changed."""
        return None

    def check(self) -> None:
        """Raises an InputChangedError if the input is not what it was."""
        if self.state() != self.before:
            raise InputChangedError("its size or a date is another")

    def chunks(self, start: int, n_rows: int) -> Iterator[NDArray]:
        """What `read` gives, as long as the input is what it was."""
        for rows in self.read(start, n_rows):
            self.check()
            yield rows

    def listing(self, n_rows: int) -> str | None:
        """What tells the first rows from others, where an input may grow."""
        return None


def file_state(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """What changes with a file, and with the file that a name stands for."""
    status = os.stat(path)
    # The last of them cannot be set, but a copy of the file has another.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
