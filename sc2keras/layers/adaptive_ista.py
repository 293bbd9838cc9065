"""Adaptive ISTA: ISTA with trained momentum vectors, as a cell and as an encoder."""

import keras

from sc2keras.layers.recurrent import MomentumCell, RecurrentEncoder
from sc2keras.registry import register_encoder
from sc2keras.training import Recipe
from sc2keras.validation import Shape, Tensor


@keras.saving.register_keras_serializable(package="sc2keras")
class AdaptiveISTACell(MomentumCell):
    """Cell of adaptive ISTA: ISTA with trainable momentum vectors.

        c̃_t = s_{t−1} W_e + x_t W_d
        c_t = f ⊙ c_{t−1} + i ⊙ c̃_t
        s_t = h(c_t)

    with one i and one f an atom, shared by all steps. It starts as ISTA: i = 1, f = 0,
    W_d = τDᵀ, W_e = I − τ D Dᵀ, and soft thresholds at l1·τ.

    The arguments, the call and the errors are those of `SLSTMCell`, without what is
    about gates.

    Example:

    >>> import numpy as np
    >>> layer = keras.layers.RNN(AdaptiveISTACell(20))
    >>> tuple(layer(np.ones((4, 6, 8))).shape)
    (4, 20)

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 9 to 11.
    """

    def build(self, input_shape: Shape) -> None:
        recurrent = self.build_candidate(input_shape[-1])
        if recurrent is not None:
            self.recurrent_kernel = self.add_weight_from("recurrent_kernel", recurrent)
        self.input_gate = self.add_weight(
            name="input_gate", shape=(self.n_atoms,), initializer="ones"
        )
        self.forget_gate = self.add_weight(
            name="forget_gate", shape=(self.n_atoms,), initializer="zeros"
        )

    def gates(self, candidate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return candidate, self.input_gate, self.forget_gate


@register_encoder(
    "AdaptiveISTA", reference="Zhou et al., An End-to-End Sparse Coding, section 3.1"
)
@keras.saving.register_keras_serializable(package="sc2keras")
class AdaptiveISTA(RecurrentEncoder):
    """Adaptive ISTA: `n_steps` steps of `AdaptiveISTACell` on the same x.

    The arguments, the call and the errors are those of `SLSTM`, with `AdaptiveISTACell`
    in place of its cell.

    Example:

    >>> import numpy as np
    >>> layer = AdaptiveISTA(20, n_steps=3)
    >>> codes = layer(np.ones((4, 8)))
    >>> tuple(codes.shape), tuple(layer(codes, reverse=True).shape)
    ((4, 20), (4, 8))

    Reference:
        Zhou et al., An End-to-End Sparse Coding, section 3.1.
    """

    recipe = Recipe("adadelta")
    cell_class = AdaptiveISTACell
