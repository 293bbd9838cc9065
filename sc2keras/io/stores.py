"""Where codes and decoded signals go: rows on their way to a file."""

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


class Store:
    """A kind of output: rows in files of a folder, which only grow, until all are done.

    Another kind is a subclass and its suffix in `STORES`. What it needs to know of the
    rows that are done is in `sizes`, the bytes of them in each file: what was killed is
    taken up by cutting the files off there.

    Args:
        folder: `pathlib.Path` of the folder.
        shape: Tuple of integers, that of the whole array.
        threshold: Float, the magnitude up to which entries are left out, or None.
    """

    # The files that grow, and the one that is made of them.
    files: ClassVar[tuple[str, ...]]
    finished: ClassVar[str]
    summary: ClassVar[str]
    # Whether it is for codes alone, and may leave entries out.
    only_codes: ClassVar[bool] = False

    def __init__(self, folder: Path, shape: Shape, threshold: float | None = None):
        self.folder, self.shape, self.threshold = folder, shape, threshold
        self.n_values = math.prod(shape[1:])

    def start(self) -> dict[str, bytes]:
        """What the files hold before the first row."""
        raise NotImplementedError

    def parts(self, rows: NDArray, sizes: Sizes) -> dict[str, NDArray]:
        """What rows add to each file, behind `sizes`."""
        raise NotImplementedError

    def sizes_at(self, n_rows: int) -> Sizes:
        """The bytes of so many rows, which the files hold."""
        raise NotImplementedError

    def n_bytes(self) -> int:
        """What all rows need, as far as that is known beforehand."""
        return 0

    def finish(self, sizes: Sizes) -> Path:
        """The file of all rows; called again after a failure, it makes the same."""
        raise NotImplementedError

    def description(self, sizes: Sizes) -> str:
        raise NotImplementedError


class NpyStore(Store):
    files, finished, summary = ("rows.npy",), "rows.npy", "all entries"

    def start(self) -> dict[str, bytes]:
        return {self.finished: npy_header("<f4", self.shape)}

    def parts(self, rows: NDArray, sizes: Sizes) -> dict[str, NDArray]:
        return {self.finished: np.ascontiguousarray(rows, "<f4")}

    def sizes_at(self, n_rows: int) -> Sizes:
        header = len(npy_header("<f4", self.shape))
        return {self.finished: header + 4 * n_rows * self.n_values}

    def n_bytes(self) -> int:
        return self.sizes_at(self.shape[0])[self.finished]

    def finish(self, sizes: Sizes) -> Path:
        path = self.folder / self.finished
        with opened(path, os.O_RDWR) as file:
            # Again: there may be more images than at the start.
            file.write(npy_header("<f4", self.shape))
        return path

    def description(self, sizes: Sizes) -> str:
        return f"float32 of shape {self.shape}"


class CSRStore(Store):
    """The entries that are not zero, as `scipy.sparse.save_npz` writes a CSR array."""

    files, finished, summary = ("data", "indices", "indptr"), "rows.npz", "a CSR array"
    only_codes = True
    warned = False

    def start(self) -> dict[str, bytes]:
        return {"data": b"", "indices": b"", "indptr": np.zeros(1, "<i8").tobytes()}

    def parts(self, rows: NDArray, sizes: Sizes) -> dict[str, NDArray]:
        kept = np.abs(rows) > (self.threshold or 0)
        n_kept = np.count_nonzero(kept, axis=1)
        fraction = n_kept.sum() / kept.size
        if fraction > 0.5 and not self.warned:
            self.warned = True
            tell(
                f"{fraction:.0%} of the entries are kept; above 50% a CSR array is "
                "larger than an .npy of all codes. A double tanh makes small codes, but"
                " never an exact zero: threshold=T leaves out those of magnitude <= T."
            )
        return {
            "data": rows[kept].astype("<f4", copy=False),
            "indices": np.nonzero(kept)[1].astype("<i4"),
            "indptr": n_entries(sizes) + np.cumsum(n_kept, dtype="<i8"),
        }

    def sizes_at(self, n_rows: int) -> Sizes:
        with opened(self.folder / "indptr") as file:
            file.seek(8 * n_rows)
            n_bytes = 4 * int.from_bytes(file.read(8), "little", signed=True)
        return {"data": n_bytes, "indices": n_bytes, "indptr": 8 * (n_rows + 1)}

    def finish(self, sizes: Sizes) -> Path:
        path = self.folder / self.finished
        indptr = "<i4" if n_entries(sizes) < 2**31 else "<i8"
        marks = {"format": b"csr", "shape": self.shape, "_is_array": True}
        try:
            with created(path) as whole, zipfile.ZipFile(whole, "w") as archive:
                self._add(archive, "indices", "<i4", "<i4", sizes)
                self._add(archive, "indptr", "<i8", indptr, sizes)
                self._add(archive, "data", "<f4", "<f4", sizes)
                for name, value in marks.items():
                    with member(archive, name) as file:
                        npy_format.write_array(file, np.array(value))
        except BaseException:
            path.unlink(missing_ok=True)  # The disk may be full of it.
            raise
        return path

    def _add(
        self, archive: zipfile.ZipFile, name: str, held: str, dtype: str, sizes: Sizes
    ) -> None:
        n_values = sizes[name] // np.dtype(held).itemsize
        with opened(self.folder / name) as source, member(archive, name) as file:
            file.write(npy_header(dtype, (n_values,)))
            while len(values := np.fromfile(source, held, 2**20)):
                file.write(values.astype(dtype, copy=False).data)

    def description(self, sizes: Sizes) -> str:
        n, all_values = n_entries(sizes), max(1, self.shape[0] * self.n_values)
        share = f"{n:,} entries ({n / all_values:.1%})"
        return f"float32 CSR of shape {self.shape}, {share}"


STORES: dict[str, type[Store]] = {".npy": NpyStore, ".npz": CSRStore}


def kind_of_output(
    target: Path, threshold: float | None, of_codes: bool
) -> type[Store]:
    """The class that writes an output, or an OutputError."""
    kinds = {s: kind for s, kind in STORES.items() if of_codes or not kind.only_codes}
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
