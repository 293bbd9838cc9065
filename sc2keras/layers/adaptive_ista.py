"""Adaptive ISTA: ISTA with trained momentum vectors, as a cell and as an encoder."""

import keras

from sc2keras.layers.rebuilding import Given
from sc2keras.layers.recurrent import MomentumCell, RecurrentEncoder
from sc2keras.registry import register_encoder
from sc2keras.validation import Shape, Tensor


@keras.saving.register_keras_serializable(package="sc2keras")
class AdaptiveISTACell(MomentumCell):
    """Cell of adaptive ISTA: ISTA with trainable momentum vectors.

        c̃_t = s_{t−1} W_e + x_t W_d
        c_t = f ⊙ c_{t−1} + i ⊙ c̃_t
        s_t = h(c_t)

    with one i and one f an atom, shared by all steps. It starts as ISTA: i = 1, f = 0,
    W_d = τDᵀ, W_e = I − τ D Dᵀ, and soft thresholds at l1·τ. Its states are
    `[codes, cell]`.

    Args:
        n_atoms: Integer, k, the number of atoms.
        l1: Float >= 0, λ, the weight of the ℓ1 term.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        activation: `"shrinkage"`, `"double_tanh"` or an `Activation`, h.
        trainable_dictionary, tied, recurrent, trainable_step_size, unit: See
            `MatrixLayer`.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Tensor `(batch, n_features)`, one time step.
        states: `[codes, cell]`, two tensors `(batch, n_atoms)`.

    Returns:
        `(codes, [codes, cell])`.

    Raises:
        ValueError: If an argument or the dictionary is unusable.

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
            self.recurrent_kernel = self.add_weight(
                name="recurrent_kernel",
                shape=recurrent.shape,
                initializer=Given(recurrent),
            )
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

    On a 2-D input `(batch, n_features)` the cell is stepped `n_steps` times on x, which
    is projected once. On a 3-D input `(batch, time, n_features)` it is stepped over the
    sequence, as in any `keras.layers.RNN`.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps on a 2-D input.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: Of `AdaptiveISTACell`, such as `l1`, `dictionary`, `activation`, and
            of `keras.layers.RNN`, such as `return_state`, `name`, `dtype`.

    Call arguments:
        inputs: Tensor `(batch, n_features)` or `(batch, time, n_features)`; codes,
            `(..., n_atoms)`, in reverse.
        initial_state: `[codes, cell]`, two tensors `(batch, n_atoms)`, or None for
            zeros.
        reverse: Boolean. If True, decode: x̂ = s D, with the same weights.

    Returns:
        Tensor `(batch, n_atoms)`, the codes; in reverse `(..., n_features)`.

    Raises:
        ValueError: If an argument or the dictionary is unusable.

    Example:

    >>> import numpy as np
    >>> layer = AdaptiveISTA(20, n_steps=3)
    >>> codes = layer(np.ones((4, 8)))
    >>> tuple(codes.shape), tuple(layer(codes, reverse=True).shape)
    ((4, 20), (4, 8))

    Reference:
        Zhou et al., An End-to-End Sparse Coding, section 3.1.
    """

    cell_class = AdaptiveISTACell
