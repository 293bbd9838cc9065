"""Step-LFISTA: step-LISTA with momentum, which starts as FISTA."""

import keras
import numpy as np

from sc2keras.layers.fista import extrapolated, fista_momentum
from sc2keras.layers.step_lista import VARIANTS, StepLISTABlock
from sc2keras.registry import register_encoder
from sc2keras.validation import Shape, Tensor


@register_encoder(
    "StepLFISTA",
    reference="Ablin, Moreau, Massias and Gramfort 2019, with momentum",
    variants=VARIANTS,
)
@keras.saving.register_keras_serializable(package="sc2keras")
class StepLFISTABlock(StepLISTABlock):
    """Step-LFISTA: `n_steps` steps of FISTA, with trained steps and momenta.

        y_t = s_{t−1} + m_t·(s_{t−1} − s_{t−2})
        s_t = sh_(λτ·exp(a_t + b_t))(y_t − τ·exp(a_t)·[(y_t D − x) Dᵀ] P)

    with one trainable momentum m_t an atom and step, from the second step on (one a
    step with `per_atom=False`), beside the weights of `StepLISTABlock`. The block
    starts as FISTA.

    The arguments, the call and the errors are those of `StepLISTABlock`.

    Example:

    >>> import numpy as np
    >>> layer = StepLFISTABlock(20, n_steps=3, return_sequences=True)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 3, 20)

    References:
        Ablin, Moreau, Massias and Gramfort, Learning step sizes for unfolded sparse
        coding, 2019. Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding
        Algorithm for Linear Inverse Problems, 2009.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.n_steps > 1:
            later = np.array(fista_momentum(self.n_steps)[1:])
            if self.per_atom:
                later = np.tile(later[:, None], self.n_atoms)
            self.momentum = self.add_weight_from("momentum", later)

    def extrapolate(self, codes: Tensor, previous: Tensor, t: int) -> Tensor:
        return extrapolated(codes, previous, self.momentum[t - 1])
