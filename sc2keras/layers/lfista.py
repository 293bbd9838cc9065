"""LFISTA: FISTA unfolded, with its matrices and momenta learned."""

import keras
import numpy as np

from sc2keras.layers.coupled_steps import CoupledSteps
from sc2keras.layers.fista import extrapolated, fista_momentum
from sc2keras.layers.lista import LISTABlock
from sc2keras.registry import register_encoder
from sc2keras.validation import Shape, Tensor


@register_encoder(
    "LFISTA",
    reference="Moreau and Bruna 2017",
    variants={"unshared": {"shared": False}},
)
@keras.saving.register_keras_serializable(package="sc2keras")
class LFISTABlock(LISTABlock):
    """Learned FISTA: `n_steps` steps of FISTA with its weights learned.

        y_t = s_{t−1} + m_t·(s_{t−1} − s_{t−2})
        s_t = h(y_t W_e + x W_d)

    with one trainable momentum m_t a step, from the second on, beside the weights of
    `LISTABlock`. The block starts as FISTA.
    (Moreau and Bruna give s_{t−2} a matrix W_m of its own, which starts at −m_t·W_e;
    here it stays a multiple of W_e, so that weights can be shared over steps that
    differ in m_t, and a step costs one product.)

    The arguments, the call and the errors are those of `LISTABlock`.

    Example:

    >>> import numpy as np
    >>> lfista = LFISTABlock(20, n_steps=3, return_sequences=True)
    >>> tuple(lfista(np.ones((4, 8))).shape)
    (4, 3, 20)

    References:
        Moreau and Bruna, Understanding Neural Sparse Coding with Matrix Factorization,
        2017, section 4. Zhou et al., An End-to-End Sparse Coding, section 4.1.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.n_steps > 1:
            later = fista_momentum(self.n_steps)[1:]
            self.momentum = self.add_weight_from("momentum", later)

    def extrapolate(self, codes: Tensor, previous: Tensor, step: int) -> Tensor:
        return extrapolated(codes, previous, self.momentum[step - 1])

    def take_steps(self, steps: CoupledSteps) -> None:
        super().take_steps(steps)
        if self.n_steps > 1:
            self.momentum.assign(np.zeros(self.n_steps - 1))
