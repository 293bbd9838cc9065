"""LISTA-CPSS: LISTA-CP with support selection."""

import keras

from sc2keras.layers.lista_cp import LISTACPBlock
from sc2keras.layers.support_selection import SelectsSupport
from sc2keras.registry import register_encoder
from sc2keras.validation import Tensor


@register_encoder("LISTACPSS", reference="Chen, Liu, Wang and Yin 2018, section 3.2")
@keras.saving.register_keras_serializable(package="sc2keras")
class LISTACPSSBlock(SelectsSupport, LISTACPBlock):
    """LISTA-CPSS: coupled weights, and the largest entries pass unshrunk.

    s_t = h^p_t(s_{t−1} + (x − s_{t−1} D) W_t), as `LISTACPBlock` with the support
    selection of `LISTASSBlock`. With max_support = 0 it is LISTA-CP.

    Args:
        n_atoms, n_steps, l1, dictionary, return_sequences, **kwargs: See
            `LISTACPBlock`.
        support_step, max_support: See `LISTASSBlock`.

    The call and the errors are those of `UnfoldedEncoder`. In the paper D is not
    trained: `trainable_dictionary=False`. W_t starts at τDᵀ, as in the authors' code,
    and not at Dᵀ, as in Open-L2O.

    Example:

    >>> import numpy as np
    >>> layer = LISTACPSSBlock(20, n_steps=3)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 20)

    References:
        Chen, Liu, Wang and Yin, Theoretical Linear Convergence of Unfolded ISTA and its
        Practical Weights and Thresholds, 2018, section 3.2. Chen et al., Learning to
        Optimize: A Primer and A Benchmark, 2022.
    """

    def activate(self, total: Tensor, t: int) -> Tensor:
        return self.select(total, super().activate(total, t), t)
