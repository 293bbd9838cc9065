"""What every kind of output has."""

import math
from pathlib import Path
from typing import ClassVar

from numpy.typing import NDArray

from sc2keras.validation import Shape


class Store:
    """Rows on their way to a file: in files of a folder, which only grow.

    Another kind is a subclass and its suffix in `sc2keras.io.stores.STORES`. What it
    needs to know of the rows that are done is in `sizes`, the bytes of them in each
    file: a run that was killed is taken up by cutting the files off there.

    Args:
        folder: `pathlib.Path` of the folder.
        shape: Tuple of integers, that of the whole array.
        threshold: Float, the magnitude up to which entries are left out, or None.
    """

    # The files that grow, and the one that is made of them.
    files: ClassVar[tuple[str, ...]]
    finished: ClassVar[str]
    # Whether it is for codes alone, and may leave entries out.
    only_codes: ClassVar[bool] = False
    summary: ClassVar[str]

    def __init__(
        self, folder: Path, shape: Shape, threshold: float | None = None
    ) -> None:
        self.folder, self.shape, self.threshold = folder, shape, threshold
        self.n_values = math.prod(shape[1:])

    def start(self) -> dict[str, bytes]:
        """What the files hold before the first row."""
        raise NotImplementedError

    def parts(self, rows: NDArray, sizes: dict[str, int]) -> dict[str, NDArray]:
        """What rows add to each file, behind `sizes`."""
        raise NotImplementedError

    def sizes_at(self, n_rows: int) -> dict[str, int]:
        """The bytes of so many rows, which the files hold."""
        raise NotImplementedError

    def may_be(self, n_rows: int, sizes: dict[str, int]) -> bool:
        """Whether so many rows can have these sizes, before a look at the files."""
        return sizes == self.sizes_at(n_rows)

    def n_bytes(self) -> int:
        """What all rows need, as far as that is known beforehand."""
        return 0

    def finish(self, sizes: dict[str, int]) -> Path:
        """The file of all rows; called again after a failure, it makes the same."""
        raise NotImplementedError

    def description(self, sizes: dict[str, int]) -> str:
        raise NotImplementedError
