"""Arrays in files: `.npy`, a member of an `.npz`, a CSR array as SciPy saves it."""

import hashlib
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from sc2keras.io.errors import InputError, one_line
from sc2keras.io.sources.base import Progress, Source, file_state
from sc2keras.validation import Shape


class ArrayFile(Source):
    """A file that holds rows; it is not mapped: one that is cut short would end all."""

    suffix: ClassVar[str]
    writer: ClassVar[str]
    holds_codes = True

    def __init__(
        self, name: str, shape: Shape, progress: Progress, **options: Any
    ) -> None:
        self.name = name
        self.watch()
        try:
            found, self.dtype = self.open(options.get("key"))
        except InputError:
            raise
        # A damaged file fails in many ways.
        except Exception as error:
            raise InputError(
                f"the input {name} cannot be read as {self.suffix} ({one_line(error)})."
                f" Write it anew with {self.writer}."
            ) from error
        if len(found) < 2 or min(found) < 0:
            raise InputError(
                f"the input {name} has shape {found}, but needs (n_samples, ...). Save "
                "a single sample as x[numpy.newaxis]."
            )
        self.n_rows, self.shape = found[0], tuple(found[1:])
        self.fingerprint = file_fingerprint(name) | self.fingerprint_of_part()

    @classmethod
    def reads(cls, name: str) -> bool:
        return name.lower().endswith(cls.suffix) and os.path.isfile(name)

    def open(self, key: str | None) -> tuple[Shape, np.dtype]:
        """The shape and the dtype of the array."""
        raise NotImplementedError

    def fingerprint_of_part(self) -> dict[str, Any]:
        return {}

    def state(self) -> tuple[int, int, int]:
        return file_state(self.name)

    def chunks(self, start: int, n_rows: int) -> Iterator[NDArray]:
        return self.checked(self.read(start, n_rows))

    def read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        raise NotImplementedError

    def starts(self, start: int, n_rows: int) -> Iterator[tuple[int, int]]:
        """The first row of each chunk, and how many it holds."""
        for first in range(start, self.n_rows, n_rows):
            yield first, min(n_rows, self.n_rows - first)


class NpyFile(ArrayFile):
    suffix, writer = ".npy", "numpy.save"

    def open(self, key: str | None) -> tuple[Shape, np.dtype]:
        with open(self.name, "rb") as file:
            shape, self._fortran_order, dtype = read_header(file)
            self._offset = file.tell()
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        needed = self._offset + dtype.itemsize * math.prod(shape)
        missing = needed - os.stat(self.name).st_size
        if missing > 0:
            raise ValueError(f"{missing} bytes are missing")
        return shape, dtype

    def read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        order: Any = "F" if self._fortran_order else "C"
        with open(self.name, "rb") as file:
            for first, n_held in self.starts(start, n_rows):
                rows = self._rows(file, first, n_held)
                yield rows.reshape((-1, *self.shape), order=order)

    def _rows(self, file: Any, first: int, n_rows: int) -> NDArray:
        n_values, itemsize = math.prod(self.shape), self.dtype.itemsize
        if not self._fortran_order:
            file.seek(self._offset + first * n_values * itemsize)
            rows = np.fromfile(file, self.dtype, n_rows * n_values)
            return rows.reshape(n_rows, -1)
        columns = []
        for column in range(n_values):
            file.seek(self._offset + (column * self.n_rows + first) * itemsize)
            columns.append(np.fromfile(file, self.dtype, n_rows))
        return np.stack(columns, axis=1)


class NpzFile(ArrayFile):
    suffix, writer = ".npz", "numpy.savez"
    options = ("key",)

    def open(self, key: str | None) -> tuple[Shape, np.dtype]:
        with zipfile.ZipFile(self.name) as archive:
            names = [name[:-4] for name in archive.namelist() if name[-4:] == ".npy"]
            if key is None and len(names) == 1:
                key = names[0]
            if key not in names:
                asked = "" if key is None else f" and none named {key!r}"
                raise InputError(
                    f"the input {self.name} holds {len(names)} arrays{asked}. Choose "
                    f"one with key=NAME: {', '.join(names) or 'there is none'}."
                )
            with Member(archive, key) as member:
                shape, dtype = member.shape, member.dtype
        if member.fortran_order and len(shape) > 1:
            raise InputError(
                f"array {key!r} of the input {self.name} is in Fortran order, so its "
                "rows do not follow one another. Save numpy.ascontiguousarray of it."
            )
        self._key = key
        return shape, dtype

    def fingerprint_of_part(self) -> dict[str, Any]:
        return {"key": self._key}

    def read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        n_values = math.prod(self.shape)
        with (
            zipfile.ZipFile(self.name) as archive,
            Member(archive, self._key) as member,
        ):
            member.skip(start * n_values)
            for _, n_held in self.starts(start, n_rows):
                yield member.read(n_held * n_values).reshape(n_held, *self.shape)


class CSRFile(ArrayFile):
    """What `scipy.sparse.save_npz` writes of a CSR array."""

    suffix, writer = ".npz", "scipy.sparse.save_npz"

    @classmethod
    def reads(cls, name: str) -> bool:
        if not super().reads(name) or not zipfile.is_zipfile(name):
            return False
        with zipfile.ZipFile(name) as archive:
            names = {f"{part}.npy" for part in ("indptr", "indices", "data", "format")}
            return names <= set(archive.namelist())

    def open(self, key: str | None) -> tuple[Shape, np.dtype]:
        with np.load(self.name) as held:
            kind = held["format"].item()
            if kind not in (b"csr", "csr"):
                raise ValueError(f"it is in {kind!r} format: convert it with tocsr()")
            shape = tuple(int(size) for size in held["shape"])
        with zipfile.ZipFile(self.name) as archive, Member(archive, "data") as data:
            return shape, data.dtype

    def read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        from scipy import sparse

        with (
            zipfile.ZipFile(self.name) as archive,
            Member(archive, "indptr") as indptr,
            Member(archive, "indices") as indices,
            Member(archive, "data") as data,
        ):
            indptr.skip(start)
            last = indptr.read(1)
            data.skip(int(last[0]))
            indices.skip(int(last[0]))
            for _, n_held in self.starts(start, n_rows):
                ends = np.concatenate([last, indptr.read(n_held)])
                n_entries, last = int(ends[-1] - ends[0]), ends[-1:]
                parts = data.read(n_entries), indices.read(n_entries), ends - ends[0]
                rows = sparse.csr_array(parts, (n_held, *self.shape))
                rows.check_format()
                yield rows.toarray()


class Member:
    """An array in an archive, that is read from its first value to its last."""

    def __init__(self, archive: zipfile.ZipFile, key: str | None) -> None:
        self._file = archive.open(f"{key}.npy")
        self.shape, self.fortran_order, self.dtype = read_header(self._file)

    def __enter__(self) -> "Member":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def skip(self, n_values: int) -> None:
        self._file.seek(n_values * self.dtype.itemsize, os.SEEK_CUR)

    def read(self, n_values: int) -> NDArray:
        content = self._file.read(n_values * self.dtype.itemsize)
        values = np.frombuffer(content, self.dtype)
        if len(values) != n_values:
            raise ValueError(f"{n_values - len(values)} values are missing")
        return values


def read_header(file: Any) -> tuple[Shape, bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype of the array that a stream begins."""
    if npy_format.read_magic(file) == (1, 0):
        return npy_format.read_array_header_1_0(file)
    return npy_format.read_array_header_2_0(file)


def file_fingerprint(path: str) -> dict[str, Any]:
    """What tells a file from another, between two runs and after a copy of it."""
    status = os.stat(path)
    # A sample of the content too: a date can be set.
    content, n_bytes = hashlib.sha256(), 2**14
    with open(path, "rb") as file:
        for block in range(64):
            file.seek(block * max(0, status.st_size - n_bytes) // 63)
            content.update(file.read(n_bytes))
    return {
        "input": str(Path(path).resolve()),
        "input_bytes": status.st_size,
        "input_mtime_ns": status.st_mtime_ns,
        "input_sample_sha256": content.hexdigest(),
    }
