"""LISTA-CP: LISTA with its two matrices coupled, one of its own for each step."""

from typing import Any

import keras
from keras import ops

from sc2keras.layers.activation import Activation
from sc2keras.layers.coupled_steps import CoupledSteps, are_shrinkages
from sc2keras.layers.encoder import UnfoldedEncoder
from sc2keras.layers.network import NetworkLayer
from sc2keras.registry import register_encoder
from sc2keras.training import Recipe
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

    The arguments, the call and the errors are those of `LISTABlock`, without `shared`,
    `tied`, `recurrent` and `trainable_step_size`. In the paper D is not trained:
    `trainable_dictionary=False`.

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

    recipe = Recipe("adadelta")

    def build(self, input_shape: Shape) -> None:
        step_size, dictionary = self.build_dictionary(input_shape[-1])
        steps = range(self.n_steps)
        # W_t over τ, as an optimizer's first steps are as large as D's entries.
        self.kernels = [
            self.add_weight_from(f"kernel_{t}", dictionary.T) for t in steps
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
        return (self.activate(total, t),)

    @property
    def can_take_steps(self) -> bool:
        return are_shrinkages(self.activations)

    def take_steps(self, steps: CoupledSteps) -> None:
        steps.assign_kernels(self.kernels, self.step_size)
        steps.assign_thresholds(self.activations)

    def activate(self, total: Tensor, t: int) -> Tensor:
        """h_t(s), with the activation of step t."""
        return self.activations[t](total)
