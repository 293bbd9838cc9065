"""The matrices of the paper's methods, W_d and W_e, and their factored form."""

from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.network import NetworkLayer
from sc2keras.validation import Tensor

Recurrent = Literal["auto", "full", "factored"]
_RECURRENTS = get_args(Recurrent)
_MIN_ATOMS_TO_FACTOR = 2048
_USUAL_BATCH = 256


class MatrixLayer(NetworkLayer):
    """Base of the layers that compute s W_e + x W_d (eq. 6 of the paper).

    Args:
        n_atoms, l1, l2, nonnegative, dictionary, unit, activation,
            trainable_dictionary, **kwargs: See `NetworkLayer`.
        tied: Boolean. If True, one matrix encodes and decodes, W_d = τDᵀ, as in the
            paper. If False, or if D is not trainable, W_d is a weight of its own that
            starts at τDᵀ: the codes come much closer to the optimum.
        recurrent: `"full"`: W_e, and what else s_{t−1} is multiplied with, is a weight
            of its own, k × k. `"factored"`: W_e = I − D W_d, so that
            s W_e + x W_d = s + (x − s D) W_d, computed in either form. `"auto"`:
            factored from 2,048 atoms on where it takes fewer operations.
        trainable_step_size: Boolean. If True, τ, the scale of W_d, is trained from
            1/L on.
    """

    # The matrices that s_{t−1} is multiplied with.
    n_products: int = 1

    def __init__(
        self,
        n_atoms: int,
        *,
        tied: bool = True,
        recurrent: Recurrent = "auto",
        trainable_step_size: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, **kwargs)
        if recurrent not in _RECURRENTS:
            raise ValueError(
                f"recurrent must be one of {_RECURRENTS}; received {recurrent=!r}."
            )
        self.tied = bool(tied)
        self.recurrent = recurrent
        self.trainable_step_size = bool(trainable_step_size)
        self.kernel: keras.Variable = None

    def build_kernel(self, initial: NDArray, n_kernels: int = 1) -> None:
        """Adds the weight `kernel`, which holds `n_kernels` W_d/τ side by side."""
        # W_d over τ: its entries have the size of D's, whatever τ is, and where τ is
        # small the first steps of an optimizer do not wipe them out.
        kernel = np.tile(initial.T, (1, n_kernels))
        self.kernel = self.add_weight_from("kernel", kernel)

    def project(self, inputs: Tensor) -> Tensor:
        """W_d x for every sample, the part of a step that depends on x alone."""
        kernel = self.kernel
        if kernel is None:
            kernel = ops.transpose(self.dictionary)
        return self.step_size * ops.matmul(inputs, kernel)

    def recurrent_product(self) -> Tensor:
        """The matrices that the factored form stands for: W_e = I − D W_d."""
        product = MatrixLayer.project(self, self.dictionary)
        # Not `ops.eye`, which OpenVINO does not read.
        index = ops.arange(self.n_atoms)
        return ops.cast(index[:, None] == index, product.dtype) - product

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "tied": self.tied,
            "recurrent": self.recurrent,
            "trainable_step_size": self.trainable_step_size,
        }


def is_factored(
    recurrent: Recurrent, n_atoms: int, n_features: int, n_products: int
) -> bool:
    """Whether products with D replace `n_products` matrices of k × k.

    By "auto" where a step then takes fewer operations, (n + 1)·d·k in place of n·k².
    """
    if recurrent != "auto":
        return recurrent == "factored"
    is_cheaper = (n_products + 1) * n_features < n_products * n_atoms
    return is_cheaper and n_atoms >= _MIN_ATOMS_TO_FACTOR


def is_product_cheaper(
    n_products: int, n_atoms: int, n_features: int, n_samples: int | None, n_steps: int
) -> bool:
    """Whether D W, once a batch, takes fewer operations than (s D) W at each step.

    n·k²·(d + n_rows) in place of (n + 1)·d·k·n_rows, for n matrices W of d × k.
    """
    # Nobody knows the number of a batch that is None, or a symbol of an export.
    n_rows = n_steps * (n_samples if isinstance(n_samples, int) else _USUAL_BATCH)
    product = n_products * n_atoms * (n_features + n_rows)
    return product < (n_products + 1) * n_features * n_rows
