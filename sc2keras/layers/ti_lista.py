"""TiLISTA: one trained matrix for all steps, and two numbers a step."""

import keras
from keras import ops

from sc2keras.layers.coupled_steps import CoupledSteps
from sc2keras.layers.recovery import LearnedEncoder, ScalarSteps
from sc2keras.registry import register_encoder


@register_encoder("TiLISTA", reference="Liu, Chen, Wang and Yin 2019, eq. 9")
@keras.saving.register_keras_serializable(package="sc2keras")
class TiLISTABlock(ScalarSteps, LearnedEncoder):
    """Tied LISTA-CPSS: one trained matrix, a step size and a threshold a step.

        s_t = sh^p_θt(s_{t−1} + γ_t (x − s_{t−1} D) W),  γ_t = exp(a_t),
        θ_t = λτ·exp(b_t)

    where sh^p is the soft threshold with the support selection of `LISTASSBlock`. The
    block starts as ISTA with that selection: W = τDᵀ, a_t = b_t = 0. Sizes and
    thresholds are positive here; in the authors' code nothing keeps them so.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term; thresholds are relative to it.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        trainable_dictionary: Boolean. If False, D stays as it is given, as in the
            paper.
        error_based: Boolean. If True, thresholds are those of `ALISTABlock` with it.
        support_step, max_support: See `LISTASSBlock`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: `unit`, and those of `keras.layers.Layer`, such as `name`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = TiLISTABlock(20, n_steps=3)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 20)

    Reference:
        Liu, Chen, Wang and Yin, ALISTA: Analytic Weights Are As Good As Learned Weights
        in LISTA, 2019.
    """

    recovery_rate = 0.01

    @property
    def can_take_steps(self) -> bool:
        return True

    def take_steps(self, steps: CoupledSteps) -> None:
        self.kernel.assign(steps.kernel / ops.convert_to_numpy(self.step_size))
        self.log_step.assign(steps.log_sizes)
        self.log_threshold.assign(steps.log_thresholds)
