"""The entries that are not zero, as `scipy.sparse.save_npz` writes a CSR array."""

import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from sc2keras.io.errors import tell
from sc2keras.io.stores.base import Store
from sc2keras.io.stores.npy import npy_header
from sc2keras.io.work import created, opened


class CSRStore(Store):
    files, finished = ("data", "indices", "indptr"), "rows.npz"
    only_codes, summary = True, "a CSR array"
    warned = False

    def start(self) -> dict[str, bytes]:
        return {"data": b"", "indices": b"", "indptr": np.zeros(1, "<i8").tobytes()}

    def parts(self, rows: NDArray, sizes: dict[str, int]) -> dict[str, NDArray]:
        kept = np.abs(rows) > (self.threshold or 0)
        n_kept = np.count_nonzero(kept, axis=1)
        self._warn_if_dense(n_kept.sum() / kept.size)
        return {
            "data": rows[kept].astype("<f4", copy=False),
            "indices": np.nonzero(kept)[1].astype("<i4"),
            "indptr": n_entries(sizes) + np.cumsum(n_kept, dtype="<i8"),
        }

    def _warn_if_dense(self, fraction: float) -> None:
        if self.warned or fraction <= 0.5:
            return
        self.warned = True
        tell(
            f"{fraction:.0%} of the entries are kept; above 50% a CSR array is larger "
            "than an .npy of all codes. A double tanh makes small codes, but never an "
            "exact zero: threshold=T leaves out those of magnitude <= T."
        )

    def sizes_at(self, n_rows: int) -> dict[str, int]:
        with opened(self.folder / "indptr") as file:
            file.seek(8 * n_rows)
            n_bytes = 4 * int.from_bytes(file.read(8), "little", signed=True)
        return {"data": n_bytes, "indices": n_bytes, "indptr": 8 * (n_rows + 1)}

    def may_be(self, n_rows: int, sizes: dict[str, int]) -> bool:
        return (
            sizes["indptr"] == 8 * (n_rows + 1)
            and sizes["data"] == sizes["indices"]
            and 0 <= sizes["data"] <= 4 * n_rows * self.n_values
        )

    def finish(self, sizes: dict[str, int]) -> Path:
        path = self.folder / self.finished
        indptr = "<i4" if n_entries(sizes) < 2**31 else "<i8"
        try:
            with created(path) as file, zipfile.ZipFile(file, "w") as archive:
                self._add_file(archive, "indices", "<i4", "<i4", sizes)
                self._add_file(archive, "indptr", "<i8", indptr, sizes)
                add_array(archive, "format", np.array(b"csr"))
                add_array(archive, "shape", np.array(self.shape, "<i8"))
                self._add_file(archive, "data", "<f4", "<f4", sizes)
                add_array(archive, "_is_array", np.array(True))
        except BaseException:
            path.unlink(missing_ok=True)  # The disk may be full of it.
            raise
        return path

    def _add_file(
        self,
        archive: zipfile.ZipFile,
        name: str,
        stored: str,
        dtype: str,
        sizes: dict[str, int],
    ) -> None:
        n_values = sizes[name] // np.dtype(stored).itemsize
        with opened(self.folder / name) as file, add_member(archive, name) as member:
            member.write(npy_header(dtype, (n_values,)))
            while len(values := np.fromfile(file, stored, 2**20)):
                member.write(values.astype(dtype, copy=False).data)

    def description(self, sizes: dict[str, int]) -> str:
        fraction = n_entries(sizes) / max(1, self.shape[0] * self.n_values)
        return (
            f"float32 CSR of shape {self.shape}, {n_entries(sizes):,} entries "
            f"({fraction:.1%})"
        )


def n_entries(sizes: dict[str, int]) -> int:
    return sizes["data"] // 4


def add_member(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    # A member that is opened by name has no date: the same codes make the same file.
    return archive.open(f"{name}.npy", "w", force_zip64=True)  # type: ignore[return-value]


def add_array(archive: zipfile.ZipFile, name: str, array: NDArray) -> None:
    with add_member(archive, name) as member:
        npy_format.write_array(member, array)
