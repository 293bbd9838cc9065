"""LISTA-CP: LISTA with its two matrices coupled, one of its own for each step."""

from typing import Any

import keras
from keras import ops

from sc2keras.layers.activation import Activation
from sc2keras.layers.encoder import UnfoldedEncoder
from sc2keras.layers.network import NetworkLayer
from sc2keras.layers.rebuilding import Given
from sc2keras.registry import register_encoder
from sc2keras.validation import Shape, Tensor


@register_encoder("LISTACP", reference="Chen, Liu, Wang and Yin 2018, eq. 15")
@keras.saving.register_keras_serializable(package="sc2keras")
class LISTACPBlock(UnfoldedEncoder, NetworkLayer):
    """LISTA with coupled weights: `n_steps` steps, each with one matrix of its own.

    s_t = h_t(s_{t−1} + (x − s_{t−1} D) W_t), s_0 = 0, where h_t is the soft threshold.
    A LISTA that converges to the code that made x must come to have this form,
    W_e = I − D W_d. The block starts as ISTA: W_t = τDᵀ, θ_t = l1·τ. The dictionary
    in the residual is also the decoder's. Thresholds are one an atom; the paper has one
    a step.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        activation: `"shrinkage"`, `"double_tanh"` or an `Activation`, h.
        trainable_dictionary: Boolean. If False, D stays as it is given, as in the
            paper.
        unit: See `DictionaryLayer`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Tensor `(batch, n_features)`, or codes `(batch, n_atoms)` in reverse.
        reverse: Boolean. If True, decode: x̂ = s D, with the same weights.

    Returns:
        Tensor `(batch, n_atoms)`, the codes; in reverse `(batch, n_features)`.

    Raises:
        ValueError: If an argument or the dictionary is unusable.

    Example:

    >>> import numpy as np
    >>> layer = LISTACPBlock(20, n_steps=3)
    >>> codes = layer(np.ones((4, 8)))
    >>> tuple(codes.shape), tuple(layer(codes, reverse=True).shape)
    ((4, 20), (4, 8))

    Reference:
        Chen, Liu, Wang and Yin, Theoretical Linear Convergence of Unfolded ISTA and its
        Practical Weights and Thresholds, 2018, section 3.1.
    """

    def build(self, input_shape: Shape) -> None:
        step_size, dictionary = self.build_dictionary(input_shape[-1])
        steps = range(self.n_steps)
        # W_t over τ, as an optimizer's first steps are as large as D's entries.
        self.kernels = [
            self.add_weight(
                name=f"kernel_{t}",
                shape=dictionary.T.shape,
                initializer=Given(dictionary.T),
            )
            for t in steps
        ]
        self.activations = [
            self.build_activation(step_size, f"activation_{t}") for t in steps
        ]

    def last_activation(self) -> Activation:
        return self.activations[-1]

    def initial_state(self, prepared: Tensor) -> tuple[None]:
        # Of zeros nothing needs to be computed.
        return (None,)

    def step(self, prepared: Tensor, state: tuple[Any], t: int) -> tuple[Tensor]:
        codes, residual = state[0], prepared
        if codes is not None:
            residual = prepared - self.synthesis(codes)
        total = self.step_size * ops.matmul(residual, self.kernels[t])
        if codes is not None:
            total = codes + total
        return (self.activations[t](total),)
