"""LISTA-SS: LISTA with support selection."""

from typing import Any

import keras

from sc2keras.layers.lista import LISTABlock
from sc2keras.layers.support_selection import SelectsSupport
from sc2keras.registry import register_encoder
from sc2keras.validation import Tensor


@register_encoder("LISTASS", reference="Chen, Liu, Wang and Yin 2018, section 3.2")
@keras.saving.register_keras_serializable(package="sc2keras")
class LISTASSBlock(SelectsSupport, LISTABlock):
    """LISTA-SS: LISTA whose largest entries pass each step unshrunk.

    s_t = h^p_t(s_{t−1} W_e + x W_d), where h^p_t is the soft threshold, but for the
    largest entries of each sample that are above it: a fraction
    p_t = min(t · support_step, max_support) of the atoms. They are surely nonzero, and
    a threshold would only make them too small. With max_support = 0 the block is
    `LISTABlock`.

    Args:
        n_atoms, n_steps, l1, dictionary, return_sequences, **kwargs: See `LISTABlock`,
            whose other arguments it takes as well.
        shared: Boolean. If False, each step has its own W_e, W_d and thresholds (in the
            authors' code all have one W_d); if True, they share them.
        support_step: Float from 0 to 1, by how much the fraction grows a step; the
            default is the authors', for 16 steps and a tenth of the entries nonzero.
        max_support: Float from 0 to 1, the largest fraction, a little above that of
            nonzero entries.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = LISTASSBlock(20, n_steps=3)
    >>> tuple(layer(np.ones((4, 8))).shape), layer.support_count(2)
    ((4, 20), 1)

    Reference:
        Chen, Liu, Wang and Yin, Theoretical Linear Convergence of Unfolded ISTA and its
        Practical Weights and Thresholds, 2018, section 3.2.
    """

    def __init__(
        self, n_atoms: int, n_steps: int = 10, *, shared: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(n_atoms, n_steps, shared=shared, **kwargs)

    def activate(self, total: Tensor, t: int) -> Tensor:
        return self.select(total, super().activate(total, t), t)
