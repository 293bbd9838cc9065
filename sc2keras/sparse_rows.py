"""Signals and codes that are mostly zero, of which no more than a batch is dense."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


class SparseRows:
    """The rows of a CSR matrix, which indices and slices give as dense arrays.

    It stands where learners and encoders look at a batch of signals after the other,
    so that no more than a batch is ever dense.

    Args:
        matrix: SciPy CSR `(n_samples, n_features)`.
        offset: Array `(n_features,)` that is taken from every row, or a number.
        sample_shape: Tuple, the shape of a row as it is given; None: `(n_features,)`.

    Example:

    >>> import scipy.sparse
    >>> rows = SparseRows(scipy.sparse.csr_array([[0.0, 2.0], [0.0, 0.0]]))
    >>> rows.shape, rows[:1].tolist(), rows.minus(1.0)[1].tolist()
    ((2, 2), [[0.0, 2.0]], [-1.0, -1.0])
    """

    def __init__(
        self,
        matrix: Any,
        offset: NDArray | float | None = None,
        sample_shape: tuple[int, ...] | None = None,
    ) -> None:
        self._matrix, self._offset = matrix, offset
        self.shape = (matrix.shape[0], *(sample_shape or matrix.shape[1:]))
        self.dtype, self.ndim = matrix.dtype, len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray:
        if isinstance(index, (int, np.integer)):
            return self[[index]][0]
        rows = self._matrix[index].toarray()
        if self._offset is not None:
            rows = (rows - self._offset).astype(self.dtype)
        return rows.reshape(len(rows), *self.shape[1:])

    def minus(self, offset: NDArray | float) -> "SparseRows":
        """These rows less an offset."""
        return SparseRows(self._matrix, offset)

    def reshape(self, n_samples: int, *sample_shape: int) -> "SparseRows":
        """Such rows, each of another shape."""
        return SparseRows(self._matrix, self._offset, sample_shape)


def collect_sparse(parts: Iterable[NDArray], n_columns: int, dtype: str) -> csr_matrix:
    """The parts, `(n, n_columns)`, one below the other in canonical CSR.

    Example:

    >>> parts = [np.eye(2), np.zeros((0, 2)), np.zeros((1, 2))]
    >>> collect_sparse(parts, 2, "float32").toarray().tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    values, columns, counts = [np.zeros(0, dtype)], [np.zeros(0, np.int32)], [[0]]
    for part in parts:
        rows, found = np.nonzero(part)
        values.append(part[rows, found].astype(dtype, copy=False))
        columns.append(found.astype(np.int32))
        counts.append(np.count_nonzero(part, axis=1))
    ends = np.cumsum(np.concatenate(counts), dtype=np.int64)
    arrays = np.concatenate(values), np.concatenate(columns), ends
    sparse = csr_matrix(arrays, shape=(len(ends) - 1, n_columns))
    sparse.has_canonical_format = True
    return sparse
