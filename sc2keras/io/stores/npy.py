"""All entries, as `.npy`."""

import io
import os
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from sc2keras.io.stores.base import Store
from sc2keras.io.work import opened
from sc2keras.validation import Shape


class NpyStore(Store):
    files, finished, summary = ("rows.npy",), "rows.npy", "all entries"

    def start(self) -> dict[str, bytes]:
        return {self.finished: npy_header("<f4", self.shape)}

    def parts(self, rows: NDArray, sizes: dict[str, int]) -> dict[str, NDArray]:
        return {self.finished: np.ascontiguousarray(rows, "<f4")}

    def sizes_at(self, n_rows: int) -> dict[str, int]:
        header = len(npy_header("<f4", self.shape))
        return {self.finished: header + 4 * n_rows * self.n_values}

    def n_bytes(self) -> int:
        return self.sizes_at(self.shape[0])[self.finished]

    def finish(self, sizes: dict[str, int]) -> Path:
        path = self.folder / self.finished
        with opened(path, os.O_RDWR) as file:
            # Again: there may be more images than at the start.
            file.write(npy_header("<f4", self.shape))
        return path

    def description(self, sizes: dict[str, int]) -> str:
        return f"float32 of shape {self.shape}"


def npy_header(dtype: str, shape: Shape) -> bytes:
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, header)
    return file.getvalue()
