"""Where codes and decoded signals go: rows on their way to a file."""

import abc
import io
import math
import os
import zipfile
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from sc2keras.io.errors import OutputError, tell
from sc2keras.io.work import created, opened
from sc2keras.validation import Shape

Sizes = dict[str, int]


class Store(abc.ABC):
    """A kind of output: rows in files of a folder, which only grow, until all are done.

    Another kind is a subclass and its suffix in `STORES`. `shape` is that of the whole
    array, and `sizes` are the bytes of the rows that are done in each file: what was
    killed is taken up by cutting the files off there.
    """

    # The files that grow, and the one that is made of them.
    files: ClassVar[tuple[str, ...]]
    finished: ClassVar[str]
    summary: ClassVar[str]
    # Whether it is for codes alone, and may leave entries out.
    only_codes: ClassVar[bool] = False
    # Whether the codes are of an activation without exact zeros.
    is_never_zero = False

    def __init__(self, folder: Path, shape: Shape, threshold: float | None = None):
        self.folder, self.shape, self.threshold = folder, shape, threshold
        self.n_values = math.prod(shape[1:])

    @abc.abstractmethod
    def start(self) -> dict[str, bytes]:
        """What the files hold before the first row."""

    @abc.abstractmethod
    def parts(self, rows: NDArray, sizes: Sizes) -> dict[str, NDArray]:
        """What rows add to each file, behind `sizes`."""

    @abc.abstractmethod
    def sizes_at(self, n_rows: int) -> Sizes:
        """The bytes of so many rows, which the files hold."""

    def n_bytes(self) -> int:
        """What all rows need, as far as that is known beforehand."""
        return 0

    @abc.abstractmethod
    def finish(self, sizes: Sizes) -> Path:
        """The file of all rows; called again after a failure, it makes the same."""

    @abc.abstractmethod
    def description(self, sizes: Sizes) -> str:
        """What a `Result` says of it."""


class NpyStore(Store):
    files, finished, summary = ("rows.npy",), "rows.npy", "all entries"

    def start(self) -> dict[str, bytes]:
        return {self.finished: npy_header("<f4", self.shape)}

    def parts(self, rows: NDArray, sizes: Sizes) -> dict[str, NDArray]:
        return {self.finished: np.ascontiguousarray(rows, "<f4")}

    def sizes_at(self, n_rows: int) -> Sizes:
        n_bytes = 4 * n_rows * self.n_values
        return {self.finished: len(npy_header("<f4", self.shape)) + n_bytes}

    def n_bytes(self) -> int:
        return self.sizes_at(self.shape[0])[self.finished]

    def finish(self, sizes: Sizes) -> Path:
        with opened(self.folder / self.finished, os.O_RDWR) as file:
            # Again: there may be more images than at the start.
            file.write(npy_header("<f4", self.shape))
        return self.folder / self.finished

    def description(self, sizes: Sizes) -> str:
        return f"float32 of shape {self.shape}"


class CSRStore(Store):
    """The entries that are not zero, as `scipy.sparse.save_npz` writes a CSR array."""

    dtypes: ClassVar = {"data": "<f4", "indices": "<i4", "indptr": "<i8"}
    files, finished, summary = tuple(dtypes), "rows.npz", "a CSR array"
    only_codes = True
    warned = False

    def start(self) -> dict[str, bytes]:
        return {"data": b"", "indices": b"", "indptr": bytes(8)}

    def parts(self, rows: NDArray, sizes: Sizes) -> dict[str, NDArray]:
        kept = np.abs(rows) > (self.threshold or 0)
        n_kept = np.count_nonzero(kept, axis=1)
        fraction = n_kept.sum() / kept.size
        if fraction > 0.5 and not self.warned:
            self.warned = True
            small = "A double tanh makes small codes, but never an exact zero: "
            tell(
                f"{fraction:.0%} of the entries are kept; above 50% a CSR array is "
                "larger than an .npy of all codes. "
                f"{small * self.is_never_zero}threshold=T leaves out those of magnitude"
                " <= T."
            )
        indptr = n_entries(sizes) + np.cumsum(n_kept)
        found = {"data": rows[kept], "indices": np.nonzero(kept)[1], "indptr": indptr}
        return {key: found[key].astype(self.dtypes[key], copy=False) for key in found}

    def sizes_at(self, n_rows: int) -> Sizes:
        with opened(self.folder / "indptr") as file:
            file.seek(8 * n_rows)
            n_bytes = 4 * int.from_bytes(file.read(8), "little", signed=True)
        return {"data": n_bytes, "indices": n_bytes, "indptr": 8 * (n_rows + 1)}

    def finish(self, sizes: Sizes) -> Path:
        path = self.folder / self.finished
        marks = {"format": b"csr", "shape": self.shape, "_is_array": True}
        try:
            with created(path) as whole, zipfile.ZipFile(whole, "w") as archive:
                for name in ("indices", "indptr", "data"):
                    self._add(archive, name, sizes)
                for name, value in marks.items():
                    with member(archive, name) as file:
                        npy_format.write_array(file, np.array(value))
        except BaseException:
            path.unlink(missing_ok=True)  # The disk may be full of it.
            raise
        return path

    def _add(self, archive: zipfile.ZipFile, name: str, sizes: Sizes) -> None:
        held = dtype = self.dtypes[name]
        if name == "indptr" and n_entries(sizes) < 2**31:
            dtype = "<i4"
        n_values = sizes[name] // np.dtype(held).itemsize
        with opened(self.folder / name) as source, member(archive, name) as file:
            file.write(npy_header(dtype, (n_values,)))
            while len(values := np.fromfile(source, held, 2**20)):
                file.write(values.astype(dtype, copy=False).data)

    def description(self, sizes: Sizes) -> str:
        n, n_all = n_entries(sizes), max(1, self.shape[0] * self.n_values)
        return f"float32 CSR of shape {self.shape}, {n:,} entries ({n / n_all:.1%})"


STORES: dict[str, type[Store]] = {".npy": NpyStore, ".npz": CSRStore}


def kind_of_output(target: Path, threshold: float | None, codes: bool) -> type[Store]:
    """The class that writes an output, or an OutputError."""
    kinds = {s: kind for s, kind in STORES.items() if codes or not kind.only_codes}
    kind = kinds.get(target.suffix)
    if kind is None:
        known = " or ".join(f"{s} ({kind.summary})" for s, kind in kinds.items())
        raise OutputError(f"the output {target} must end in {known}.")
    if threshold is not None and not kind.only_codes:
        raise OutputError(
            f"threshold={threshold:g} leaves entries out of a CSR array. Name an output"
            f" that ends in .npz; received {target}."
        )
    return kind


def n_entries(sizes: Sizes) -> int:
    return sizes["data"] // 4


def npy_header(dtype: str, shape: Shape) -> bytes:
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, header)
    return file.getvalue()


def member(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    # A member that is opened by name has no date: the same codes make the same file.
    return archive.open(f"{name}.npy", "w", force_zip64=True)  # type: ignore[return-value]
