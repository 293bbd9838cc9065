"""Arrays in files: `.npy`, a member of an `.npz`, a CSR array as SciPy saves it."""

import abc
import contextlib
import hashlib
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from sc2keras.io.errors import InputError, failing_as
from sc2keras.io.sources.base import Progress, Source, file_state
from sc2keras.validation import Shape


class Stream:
    """An array in an open file, not mapped: one that is cut short would end all."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        major, _ = npy_format.read_magic(file)
        read_header = getattr(npy_format, f"read_array_header_{major}_0")
        shape, self.is_fortran, self.dtype = read_header(file)
        self.shape = tuple(map(int, shape))  # NumPy lets True pass.
        self.begin = file.tell()
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects")

    def values(self, first: int, n_values: int) -> NDArray:
        self.file.seek(self.begin + first * self.dtype.itemsize)
        content = self.file.read(n_values * self.dtype.itemsize)
        values = np.frombuffer(content, self.dtype)
        if len(values) != n_values:
            raise ValueError(f"{n_values - len(values)} values are missing")
        return values

    def rows(self, part: slice) -> NDArray:
        first, n_rows = part.start, part.stop - part.start
        n_values, shape = math.prod(self.shape[1:]), (n_rows, *self.shape[1:])
        if not self.is_fortran:
            return self.values(first * n_values, n_rows * n_values).reshape(shape)
        starts = range(first, n_values * self.shape[0] + first, self.shape[0])
        columns = [self.values(start, n_rows) for start in starts]
        return np.stack(columns, 1).reshape(shape, order="F")


@contextlib.contextmanager
def members(path: str, *names: str | None) -> Iterator[list[Stream]]:
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        files = [stack.enter_context(archive.open(f"{name}.npy")) for name in names]
        yield [Stream(file) for file in files]


class ArrayFile(Source):
    suffix: ClassVar[str]
    writer: ClassVar[str]
    holds_codes = True
    known_by_content = True

    def __init__(self, name: str, shape: Shape, _: Progress, key: str | None = None):
        self.name, self.key = name, key
        self.before = self.state()
        what = f"the input {name} cannot be read as {self.suffix}"
        with failing_as(InputError, what, f"Write it anew with {self.writer}."):
            found, self.dtype = self.look()
        if len(found) < 2 or min(found) < 0:
            raise InputError(
                f"the input {name} has shape {found}, but needs (n_samples, ...). Save "
                "a single sample as x[numpy.newaxis]."
            )
        self.n_rows, self.shape = found[0], tuple(found[1:])
        self.fingerprint = {**file_fingerprint(name), "key": self.key}

    @classmethod
    def reads(cls, name: str) -> bool:
        return name.lower().endswith(cls.suffix) and os.path.isfile(name)

    @abc.abstractmethod
    def look(self) -> tuple[Shape, np.dtype]:
        """The shape and the dtype of the array."""

    @abc.abstractmethod
    def streams(self) -> contextlib.AbstractContextManager[list[Stream]]:
        """What `rows` takes, opened."""

    def rows(self, part: slice, *streams: Stream) -> NDArray:
        return streams[0].rows(part)

    def read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        with self.streams() as streams:
            for part in self.parts(start, n_rows):
                yield self.rows(part, *streams)

    def state(self) -> tuple[int, int, int]:
        return file_state(self.name)


class NpyFile(ArrayFile):
    suffix, writer = ".npy", "numpy.save"

    @contextlib.contextmanager
    def streams(self) -> Iterator[list[Stream]]:
        with open(self.name, "rb") as file:
            yield [Stream(file)]

    def look(self) -> tuple[Shape, np.dtype]:
        with self.streams() as (array,):
            needed = array.begin + array.dtype.itemsize * math.prod(array.shape)
            missing = needed - array.file.seek(0, os.SEEK_END)
        if missing > 0:
            raise ValueError(f"{missing} bytes are missing")
        return array.shape, array.dtype


class NpzFile(ArrayFile):
    suffix, writer = ".npz", "numpy.savez"
    options = ("key",)

    def streams(self) -> contextlib.AbstractContextManager[list[Stream]]:
        return members(self.name, self.key)

    def look(self) -> tuple[Shape, np.dtype]:
        with zipfile.ZipFile(self.name) as archive:
            names = [name[:-4] for name in archive.namelist() if name[-4:] == ".npy"]
        if self.key is None and len(names) == 1:
            self.key = names[0]
        if self.key not in names:
            asked = "" if self.key is None else f" and none named {self.key!r}"
            raise InputError(
                f"the input {self.name} holds {len(names)} arrays{asked}. Choose one "
                f"with key=NAME: {', '.join(names) or 'there is none'}."
            )
        with self.streams() as (array,):
            if array.is_fortran and len(array.shape) > 1:
                raise InputError(
                    f"array {self.key!r} of the input {self.name} is in Fortran order, "
                    "so its rows do not follow one another. Save "
                    "numpy.ascontiguousarray of it."
                )
            return array.shape, array.dtype


class CSRFile(ArrayFile):
    """What `scipy.sparse.save_npz` writes of a CSR array."""

    suffix, writer = ".npz", "scipy.sparse.save_npz"

    @classmethod
    def reads(cls, name: str) -> bool:
        if not super().reads(name):
            return False
        # What is wrong with a damaged archive, `NpzFile` tells.
        with contextlib.suppress(Exception), members(name, "format", "data") as found:
            # Of every format of SciPy's: `look` refuses all but CSR by name.
            return found[0].shape == () and found[0].dtype.kind in "SU"
        return False

    def streams(self) -> contextlib.AbstractContextManager[list[Stream]]:
        # Where rows start, and where they end: an archive is read in order.
        return members(self.name, "indptr", "indptr", "indices", "data")

    def look(self) -> tuple[Shape, np.dtype]:
        with np.load(self.name) as held:
            kind, shape = held["format"].item(), tuple(map(int, held["shape"].tolist()))
        if kind not in (b"csr", "csr"):
            name = kind.decode() if isinstance(kind, bytes) else kind
            raise ValueError(f"it is in {name!r} format: convert it with tocsr()")
        with self.streams() as (starts, _, indices, data):
            is_index = starts.dtype.kind in "iu" and indices.dtype.kind in "iu"
            fits = starts.shape == (shape[0] + 1,) and indices.shape == data.shape
            if not (is_index and fits) or starts.values(0, 1) != 0:
                raise ValueError(f"its arrays are not those of {shape}")
            return shape, data.dtype

    def rows(self, part: slice, *streams: Stream) -> NDArray:
        from scipy import sparse

        starts, ends, indices, data = streams
        n_rows = part.stop - part.start
        first = starts.values(part.start, 1)
        indptr = np.append(first, ends.values(part.start + 1, n_rows)) - first
        entries = int(first[0]), int(indptr[-1])
        arrays = data.values(*entries), indices.values(*entries), indptr
        rows = sparse.csr_array(arrays, (n_rows, *self.shape))
        rows.check_format()
        return rows.toarray()


def file_fingerprint(path: str) -> dict[str, Any]:
    """What tells a file from another, between two runs and after a copy of it."""
    status, sample = os.stat(path), file_sample(path)
    # A sample of the content too: a date can be set.
    return {
        "input": str(Path(path).resolve()),
        "input_bytes": sample["bytes"],
        "input_mtime_ns": status.st_mtime_ns,
        "input_sample_sha256": sample["sample_sha256"],
    }


def file_sample(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The size of a file, and a sum of blocks all over it."""
    content, n_bytes = hashlib.sha256(), 2**14
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        for block in range(64):
            file.seek(block * max(0, size - n_bytes) // 63)
            content.update(file.read(n_bytes))
    return {"bytes": size, "sample_sha256": content.hexdigest()}
