"""Codes whose duality gap is proven, from those of a network."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from sc2keras import backend
from sc2keras.backend import ArrayFunction
from sc2keras.feature_sign import feature_sign_search, relative_gaps
from sc2keras.layers.fista import FISTA
from sc2keras.models.variables import value
from sc2keras.validation import at_least_float32, check_positive

# From a good start they are few. What is open after them is ill-conditioned.
_N_STEPS = 1000
# Of the tolerance: the rest is for what the solver's own dtype rounds.
_SHARE = 0.9


def check_provable(encoder: Any, tol: float) -> None:
    """Raises if no code of an encoder can be proven to a relative gap of `tol`."""
    check_positive("tol", tol)
    if encoder.solves != "lasso" or encoder.l1 == 0.0:
        raise ValueError(
            "tol needs codes that a duality gap is defined of, those of the LASSO with "
            f"l1 > 0; received tol={tol!r} for {encoder.name!r} with "
            f"solves={encoder.solves!r} and l1={encoder.l1:g}. Leave it out."
        )


class Solver:
    """Takes codes on to a relative duality gap of at most `tol`.

    Rows whose codes are not there yet go on in FISTA, and what it leaves open is solved
    exactly, in float64.
    """

    def __init__(self, encoder: Any, tol: float) -> None:
        check_provable(encoder, tol)
        self.tol, self._encoder = tol, encoder
        shape = encoder.n_atoms, encoder.n_features
        self._dtype = at_least_float32(encoder.compute_dtype)
        self._layer = FISTA(
            encoder.n_atoms,
            n_steps=_N_STEPS,
            tol=_SHARE * tol,
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

    def __call__(self, x: NDArray, codes: NDArray, use_xla: bool) -> NDArray:
        if use_xla not in self._compiled:
            self._compiled[use_xla] = backend.compile_function(
                self._model, self._layer.solve, use_xla
            )
        x = x.reshape(len(x), -1).astype(self._dtype, copy=False)
        codes = codes.astype(self._dtype, copy=False)
        codes, gaps = self._compiled[use_xla](x, codes)
        # The gap's own rounding error: that of D r, ε‖x‖, times ‖s‖₁, over F ≥ λ‖s‖₁.
        error = np.finfo(codes.dtype).eps / 2 / self._layer.l1
        unproven = gaps + error * np.linalg.norm(x, axis=1) > self.tol
        rows = np.flatnonzero(unproven & np.isfinite(gaps))
        if len(rows):
            codes = codes.copy()
            codes[rows] = self._checked(x[rows], codes[rows])
        return codes

    def _checked(self, x: NDArray, codes: NDArray) -> NDArray:
        """Codes that are proven in float64, solved anew where they are not."""
        dictionary, l1 = value(self._layer.dictionary), self._layer.l1
        is_open = relative_gaps(x, codes, dictionary, l1) > self.tol
        if is_open.any():
            x = x[is_open]
            found = feature_sign_search(x, dictionary, l1, codes[is_open])
            found = found.astype(codes.dtype)
            gap = float(relative_gaps(x, found, dictionary, l1).max())
            if gap > self.tol:
                raise ValueError(
                    f"tol={self.tol:g} is less than {codes.dtype} codes can prove: an "
                    f"optimum, rounded to it, has a gap of {gap:.1g}. Raise tol, or "
                    "build the model with dtype='float64'."
                )
            codes[is_open] = found
        return codes
