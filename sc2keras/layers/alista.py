"""ALISTA: analytic weights, and two numbers a step."""

import keras
import numpy as np
from keras import ops

from sc2keras.layers.coupled_steps import CoupledSteps
from sc2keras.layers.recovery import AnalyticEncoder, ScalarSteps
from sc2keras.registry import register_encoder


@register_encoder(
    "ALISTA",
    reference="Liu, Chen, Wang and Yin 2019; error-based thresholds: Li et al. 2024",
    variants={
        "error-based": {"error_based": True, "ridge": 0.3},
        "selecting": {"support_step": 0.2, "max_support": 0.5},
    },
)
@keras.saving.register_keras_serializable(package="sc2keras")
class ALISTABlock(ScalarSteps, AnalyticEncoder):
    """ALISTA: the matrix is analytic, a step size and a threshold a step are trained.

        s_t = sh^p_θt(s_{t−1} + γ_t (x − s_{t−1} D) Wᵀ),  γ_t = exp(a_t),
        θ_t = λτ·exp(b_t)

    where sh^p is the soft threshold with the support selection of `LISTASSBlock`, and W
    is `sc2keras.analytic_weights(D, ridge)`. It is made of D alone: it is not trained,
    and follows a dictionary that is assigned. a_t and b_t start at 0. Sizes and
    thresholds are positive here; in the authors' code nothing keeps them so.

    With `error_based=True` each sample has thresholds of its own, as large as its error
    still is: θ_t = ρ_t · mean_j |((x − s_{t−1} D) Wᵀ)_j|, ρ_t = exp(b_t). Codes are
    then homogeneous, s(c·x) = c·s(x), whatever `l1` is, and ρ_t starts at a schedule
    that fits Gaussian dictionaries, from 0.24·ln k to 0.8·ln k. The authors
    take one of four norms over a constant that depends on the size, and add a bias; a
    mean has no need of the one, and the other would end the homogeneity.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term; thresholds are relative to it.
        dictionary: Array `(n_atoms, n_features)`, D; its atoms have a norm of at most
            1. None: random atoms of unit norm.
        ridge: Float >= 0, of `sc2keras.analytic_weights`: about 1 for signals with 40
            dB of noise, 3 for 20 dB.
        error_based: Boolean, whether thresholds follow each sample's error.
        support_step, max_support: See `LISTASSBlock`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: `unit`, and those of `keras.layers.Layer`, such as `name`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import sc2keras
    >>> data = sc2keras.datasets.sparse_recovery(20, 40, 5)
    >>> layer = ALISTABlock(40, n_steps=16, dictionary=data.dictionary)
    >>> layer.build((None, 20))
    >>> tuple(layer(data.x).shape), len(layer.trainable_weights)
    ((5, 40), 2)

    References:
        Liu, Chen, Wang and Yin, ALISTA: Analytic Weights Are As Good As Learned Weights
        in LISTA, 2019. Li et al., Error-Based Thresholding for LISTA, ICASSP 2024.
    """

    def coupled_steps(self) -> CoupledSteps:
        """The steps as they are now."""
        numbers = [self.kernel, self.log_step, self.log_threshold, self.step_size]
        kernel, sizes, scales, step_size = map(ops.convert_to_numpy, numbers)
        unit = ops.convert_to_numpy(self.l1_in_unit()) * step_size
        shape = self.n_steps, self.n_atoms
        thresholds = np.broadcast_to(np.exp(scales)[:, None] * unit, shape)
        return CoupledSteps(kernel, sizes, scales, thresholds)
