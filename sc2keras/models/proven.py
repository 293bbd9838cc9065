"""Codes whose duality gap is proven, from those of a network."""

import numbers
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sc2keras import backend
from sc2keras.backend import ArrayFunction
from sc2keras.feature_sign import (
    feature_sign_search,
    gaps_and_residuals,
    relative_gaps,
)
from sc2keras.layers.active_set import improve
from sc2keras.layers.fista import FISTA
from sc2keras.layers.proximal_gradient import with_l2
from sc2keras.models.variables import centered, value
from sc2keras.validation import Tensor, at_least_float32

# From a good start two or three do. What is open after them is ill-conditioned.
_N_CYCLES = 40
# Each starts from a residual in float64, without what the last one has rounded.
_N_ROUNDS = 3
# Of the tolerance: the rest is for what the solver's own dtype rounds.
_SHARE = 0.9
# λ in units of a row from where on every code is zero, and within float32.
_MAX_L1 = 1e30


class UnprovableError(Exception):
    """A row of a batch whose optimum, as it is returned, has a gap above `tol`."""

    def __init__(self, row: int, gap: float, tol: float, dtype: str) -> None:
        super().__init__(row, gap, tol, dtype)

    def message(self, n_before: int) -> str:
        row, gap, tol, dtype = self.args
        remedy = (
            "" if dtype == "float64" else ", or build the model with dtype='float64'"
        )
        return (
            f"tol={tol:g} is less than {dtype} codes can prove of x[{n_before + row}]: "
            f"its optimum, rounded to it, has a gap of {gap:.1g}. Raise tol{remedy}."
        )


def check_provable(encoder: Any, tol: float) -> None:
    """Raises if no code of an encoder can be proven to a relative gap of `tol`."""
    if isinstance(tol, np.generic):  # A float32 would not hold the bound.
        tol = tol.item()
    is_number = isinstance(tol, numbers.Real) and not isinstance(tol, bool)
    if not is_number or not 0 < tol < 1e300:
        raise ValueError(f"tol must be a number > 0; received tol={tol!r}.")
    smallest = float(np.min(encoder.l1))
    if encoder.solves != "lasso" or smallest == 0.0:
        raise ValueError(
            "tol needs codes that a duality gap is defined of, those of the LASSO with "
            f"l1 > 0; received tol={tol!r} for {encoder.name!r} with "
            f"solves={encoder.solves!r} and l1={smallest:g}. Leave it out."
        )


class Solver:
    """Takes codes on to a relative duality gap of at most `tol`.

    Conjugate gradients on the support, in the encoder's dtype, bring them there; what
    they leave open is solved exactly. The gap of every code is computed in float64,
    from the code as it is returned.

    Args:
        encoder: The encoder whose dictionary and λ the codes are of.
        tol: Float.
        dtype: String, that of the codes it returns.
    """

    def __init__(self, encoder: Any, tol: float, dtype: str) -> None:
        check_provable(encoder, tol)
        self.tol, self._encoder, self._returned = float(tol), encoder, dtype
        shape = encoder.n_atoms, encoder.n_features
        self._dtype = at_least_float32(encoder.compute_dtype)
        self._options = encoder.penalty_options()
        self._layer = FISTA(
            encoder.n_atoms,
            l1=encoder.l1,
            # `follow` sets it: a trained one may have atoms that no layer is given,
            # zero, or rounded by bfloat16 to a norm above 1.
            dictionary=np.full(shape, shape[1] ** -0.5),
            dtype=self._dtype,
        )
        inputs = keras.Input(shape[1:], dtype=self._dtype)
        self._model = keras.Model(inputs, self._layer(inputs))
        self._compiled: dict[bool, ArrayFunction] = {}

    def follow(self) -> None:
        """Takes over the encoder's dictionary, which training may have changed."""
        self._layer.dictionary.assign(value(self._encoder.dictionary))
        self._dictionary = value(self._layer.dictionary).astype("float64")

    def _improve(
        self, codes: Tensor, correlation: Tensor, squared: Tensor, l1: Tensor
    ) -> tuple[Tensor]:
        step_size = with_l2(self._layer.step_size, self._options["l2"])
        problem = self._layer.dictionary, step_size, _SHARE * self.tol, _N_CYCLES
        state = codes, correlation, squared, l1
        codes, *_ = improve(*state, *problem, **self._options)
        return (codes,)

    def __call__(self, x: NDArray, codes: NDArray, use_xla: bool) -> NDArray:
        if use_xla not in self._compiled:
            compile_function = backend.compile_function
            self._compiled[use_xla] = compile_function(
                self._model, self._improve, use_xla
            )
        x, codes, unit, is_finite = _in_units(centered(self._encoder, x), codes)
        if self._options["nonnegative"]:
            codes = np.maximum(codes, 0.0)
        l1 = np.minimum(self._layer.l1 / unit, _MAX_L1)
        dtype = self._dtype
        problem: Any = (a.astype(dtype) for a in (x, codes, self._dictionary, l1))
        _, correlation, squared = gaps_and_residuals(*problem, **self._options)
        rows = np.flatnonzero(is_finite)
        for _ in range(_N_ROUNDS):
            state = (each.astype(dtype) for each in (codes, correlation, squared, l1))
            (better,) = self._compiled[use_xla](*state)
            better = np.where(np.isfinite(better), better, codes)
            codes[rows] = self._rounded(better[rows], unit[rows])
            gaps, correlation[rows], squared[rows] = gaps_and_residuals(
                x[rows], codes[rows], self._dictionary, l1[rows], **self._options
            )
            # Not `gaps > tol`, which a gap that is no number would pass.
            rows = rows[~(gaps <= self.tol)]
            if not len(rows):
                break
        else:
            codes[rows] = self._found(x[rows], codes[rows], unit[rows], rows)
        codes[~is_finite] = np.nan
        return (codes * unit).astype(self._returned)

    def _rounded(self, codes: NDArray, unit: NDArray) -> NDArray:
        """Codes as they are returned, in units of their rows, in float64."""
        with np.errstate(over="ignore"):  # Then nothing is proven.
            returned = (codes * unit).astype(self._returned)
        return returned.astype("float64") / unit

    def _found(
        self, x: NDArray, codes: NDArray, unit: NDArray, rows: NDArray
    ) -> NDArray:
        """Exact codes, or an error that names a row that cannot be proven."""
        dictionary, l1, options = self._dictionary, self._layer.l1, self._options
        start = x * unit, dictionary, l1, codes * unit
        codes = self._rounded(feature_sign_search(*start, **options) / unit, unit)
        gaps = relative_gaps(x, codes, dictionary, l1 / unit, **options)
        if not (gaps <= self.tol).all():
            worst = int(np.nanargmax(gaps))
            row, gap = int(rows[worst]), float(gaps[worst])
            raise UnprovableError(row, gap, self.tol, self._returned)
        return codes


def _in_units(x: NDArray, codes: NDArray) -> tuple[NDArray, ...]:
    """x and codes in float64 and units of the rows, these, and which are finite.

    Units are powers of two, which round nothing. Rows that are not finite are zero.
    """
    largest = np.maximum(x.max(axis=1), -x.min(axis=1)).astype("float64")
    is_finite = np.isfinite(largest)
    unit = np.ldexp(1.0, np.frexp(np.where(is_finite, largest, 1.0))[1])[:, None]
    x, codes = x.astype("float64"), codes.astype("float64")
    x[~is_finite] = 0.0
    # Where a network gave no number, the search starts from zero.
    codes[~np.isfinite(codes)] = 0.0
    return x / unit, codes / unit, unit, is_finite
