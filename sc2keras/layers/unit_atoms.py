"""A decoder whose atoms have unit norm, and an offset that it adds."""

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.chosen_rows import product_of_chosen
from sc2keras.layers.dictionary import DictionaryLayer
from sc2keras.layers.encoder import UnfoldedEncoder
from sc2keras.validation import Tensor

_LEAST_NORM = 0.98  # Of unit atoms, in narrow dtypes.


class UnitAtoms(UnfoldedEncoder, DictionaryLayer):
    """Base of encoders that decode by s D + b_d, with atoms of unit norm.

    The part of an atom's gradient that would change its norm is left out.
    """

    offset_in_unit = True

    def add_dictionary(self, n_features: int) -> NDArray:
        initial = super().add_dictionary(n_features)
        self.dictionary.constraint = keras.constraints.UnitNorm(axis=1)
        return initial

    def check_trainable(self) -> None:
        norms = np.linalg.norm(
            ops.convert_to_numpy(self.dictionary).astype(float), axis=1
        )
        if self.dictionary.trainable and norms.min() < _LEAST_NORM:
            raise ValueError(
                "Training gives every atom a norm of 1, and the trained ones have "
                f"norms from {norms.min():.3g} on, of which codes would not know. Set "
                "encoder.dictionary.trainable = False."
            )

    def atoms(self) -> Tensor:
        """D, with the gradient of its atoms as directions."""
        if not self.dictionary.trainable:
            return self.dictionary
        squared = ops.sum(ops.square(self.dictionary), axis=1, keepdims=True)
        norm = ops.sqrt(ops.maximum(squared, 1e-24))
        return self.dictionary * (ops.stop_gradient(norm) / norm)

    def synthesis(self, codes: Tensor) -> Tensor:
        product = product_of_chosen(codes, self.dictionary)
        return ops.matmul(codes, self.atoms()) if product is None else product

    def center(self, x: Tensor) -> Tensor:
        return x - self.out_of_unit(ops.cast(self.offset, x.dtype))

    def decode(self, codes: Tensor) -> Tensor:
        return self.synthesis(codes) + self.out_of_unit(self.offset)

    def reconstruction(self, codes: Tensor, atoms: Tensor, offset: Tensor) -> Tensor:
        """s D + b_d, in the unit of the signals and the dtype of the codes."""
        atoms, offset = (ops.cast(part, codes.dtype) for part in (atoms, offset))
        return ops.matmul(codes, atoms) + self.out_of_unit(offset)
