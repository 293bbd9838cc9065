"""The figures of a page: of a model's codes, of each atom, of each sample."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.losses import flatten_samples
from sc2keras.metrics import NONZERO_THRESHOLD
from sc2keras.models import SparseCoder
from sc2keras.objective import reconstruction_error, relative_duality_gap

N_BINS = 24
N_TOP = 8
# Rows whose reconstructions are held at a time.
_CHUNK = 2048


class SampleFigures(NamedTuple):
    """One figure a sample, arrays `(n_samples,)`.

    `gap` is the relative duality gap; None where codes are not to solve the LASSO.
    """

    error: NDArray
    penalty: NDArray
    energy: NDArray
    gap: NDArray | None

    @property
    def objective(self) -> NDArray:
        """½‖x − x̂‖² and what the code costs."""
        return self.error + self.penalty


class AtomFigures(NamedTuple):
    """One figure an atom, arrays `(n_atoms, ...)`, of entries that are not zero.

    `fires` is the share of samples; `mean` and `largest` are magnitudes; `counts`
    the histogram between `low` and `high`; `top` the samples with the largest entries,
    -1 where there are no more.
    """

    fires: NDArray
    mean: NDArray
    largest: NDArray
    low: NDArray
    high: NDArray
    counts: NDArray
    top: NDArray


def sample_figures(model: SparseCoder, x: NDArray, codes: NDArray) -> SampleFigures:
    """The objective of each code, in its parts, and its duality gap.

    Args:
        model: A `SparseCoder`.
        x: Array `(n_samples, *input_shape)`.
        codes: Array `(n_samples, n_atoms)`, `model.encode(x)`.

    Example:

    >>> from sc2keras.applications import LISTA
    >>> model, x = LISTA(4, input_shape=(8,)), np.ones((5, 8), "float32")
    >>> figures = sample_figures(model, x, model.encode(x))
    >>> figures.objective.shape, bool((figures.gap >= 0).all())
    ((5,), True)
    """
    parts = list(_in_chunks(model, x, codes))
    error, penalty, energy, gap = map(np.concatenate, zip(*parts, strict=True))
    return SampleFigures(
        error, penalty, energy, gap if model.encoder.solves == "lasso" else None
    )


def _in_chunks(model: SparseCoder, x: NDArray, codes: NDArray) -> Iterator[list[Any]]:
    encoder: Any = model.encoder
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, start + _CHUNK)
        s = ops.convert_to_tensor(codes[rows])
        signals, reconstruction = (
            flatten_samples(ops.convert_to_tensor(a.astype(codes.dtype, copy=False)))
            for a in (x[rows], model.decode(codes[rows]))
        )
        moved = encoder.center(signals)
        figures = [
            reconstruction_error(signals, reconstruction),
            encoder.penalty(s),
            reconstruction_error(moved, ops.zeros_like(signals)),
        ]
        gap = ops.zeros_like(figures[0])
        if encoder.solves == "lasso":
            problem = encoder.dictionary, encoder.l1
            options = encoder.penalty_options()
            gap = relative_duality_gap(moved, s, *problem, **options)
        yield [ops.convert_to_numpy(figure) for figure in (*figures, gap)]


def atom_figures(codes: NDArray) -> AtomFigures:
    """How often and how strongly each atom fires: in entries above 1e-3 in magnitude.

    Example:

    >>> figures = atom_figures(np.array([[0.0, 1.0], [0.0, -3.0], [0.0, 0.0]]))
    >>> figures.fires.round(2).tolist(), figures.top[1, :3].tolist()
    ([0.0, 0.67], [1, 0, -1])
    """
    columns = [_of_an_atom(column) for column in codes.T]
    return AtomFigures(*(np.array(values) for values in zip(*columns, strict=True)))


def _of_an_atom(column: NDArray) -> tuple[Any, ...]:
    rows = np.flatnonzero(np.abs(column) > NONZERO_THRESHOLD)
    values = column[rows]
    top = np.full(N_TOP, -1)
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0, 0.0, np.zeros(N_BINS, int), top
    magnitude = np.abs(values)
    order = np.argsort(-magnitude, kind="stable")[:N_TOP]
    top[: len(order)] = rows[order]
    counts, edges = np.histogram(values, N_BINS)
    fires = len(rows) / len(column)
    largest = values[order[0]]
    return fires, magnitude.mean(), largest, edges[0], edges[-1], counts, top


def choose_samples(top: NDArray, n_samples: int, n_most: int) -> tuple[NDArray, int]:
    """Which samples a page holds: evenly spread ones, then the top ones of each atom.

    Args:
        top: Array `(n_atoms, n)`, of `AtomFigures`.
        n_samples: Integer, how many there are.
        n_most: Integer, the most to choose.

    Returns:
        `(rows, n_spread)`: the chosen samples, the evenly spread ones first.

    Example:

    >>> rows, n_spread = choose_samples(np.array([[7, 3], [8, 7]]), 1000, 4)
    >>> rows.tolist(), n_spread
    ([0, 999, 7, 8], 2)
    """
    n_spread = min(n_samples, max(1, n_most // 2), 48)
    spread = np.linspace(0, n_samples - 1, n_spread).round().astype(int).tolist()
    # The best of every atom before the second best of any.
    best = [row for row in top.T.ravel().tolist() if row >= 0]
    rows = list(dict.fromkeys([*spread, *best]))[: max(n_most, n_spread)]
    return np.array(rows), n_spread
