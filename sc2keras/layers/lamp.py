"""LAMP: approximate message passing, unfolded."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from sc2keras.layers.penalised import NO_ELASTIC_NET
from sc2keras.layers.recovery import LearnedEncoder, RecoveryEncoder
from sc2keras.registry import register_encoder
from sc2keras.validation import Shape, Tensor, at_least_float32

# The multiple of the deviation that AMP's minimax threshold takes where measurements
# are half as many as unknowns.
_AMP_SCALE = 1.1402
# How far from a threshold an entry makes the gradient of the count, in deviations. The
# gradient of LAMP's error by finite differences is met at 0.02 to 0.1.
_WIDTH = 0.05


@register_encoder("LAMP", reference="Borgerding, Schniter and Rangan 2017, section III")
@keras.saving.register_keras_serializable(package="sc2keras")
class LAMPBlock(LearnedEncoder):
    """LAMP: AMP with its matrix, one for all steps, and a threshold a step trained.

        v_t = x − s_{t−1} D + (‖s_{t−1}‖₀/n)·v_{t−1},  n = n_features
        s_t = sh_θ(s_{t−1} + v_t B),  θ = α_t·‖v_t‖/√n

    The Onsager term makes what disturbs a code look like Gaussian noise, of the
    deviation ‖v_t‖/√n, if D is large and Gaussian. On others, small or coherent ones,
    AMP may diverge, and the block does before it is trained: its codes grow from step
    to step. Codes are homogeneous, s(c·x) = c·s(x), and `l1` is of no effect on them.

    The block starts as AMP, B = Dᵀ and α_t = 1.1402; the authors' code starts at
    B = Dᵀ/L, which is no AMP. α_t is the exponential of a weight, and so positive.

    The count ‖s‖₀ has a gradient nowhere, but its mean over samples has one. Here it is
    that of Σ_i σ((|u_i| − θ)/(ε‖v‖/√n)), u = s + v B, ε = 0.05, a straight-through
    estimate. Without it training raises the thresholds past the best ones; the authors
    train each step apart, where no count matters.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term of the objective.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        trainable_dictionary: Boolean. If False, D stays as it is given, as in the
            paper.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: `unit`, and those of `keras.layers.Layer`, such as `name`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = LAMPBlock(20, n_steps=3)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 20)

    Reference:
        Borgerding, Schniter and Rangan, AMP-Inspired Deep Networks for Sparse Linear
        Inverse Problems, 2017.
    """

    recovery_rate = 0.01

    has_thresholds_of_l1 = False
    refuses = NO_ELASTIC_NET | {
        "l1": "l1 is of no effect on its codes. Use ALISTA, or TiLISTA.",
    }

    def build(self, input_shape: Shape) -> None:
        dictionary = self.add_dictionary(input_shape[-1])
        self.add_offset()
        self.kernel = self.add_weight_from("kernel", dictionary.T)
        start = np.full(self.n_steps, math.log(_AMP_SCALE))
        self.log_threshold = self.add_weight_from("log_threshold", start)

    def correct(self, residual: Tensor) -> Tensor:
        return RecoveryEncoder.correct(self, residual)

    def initial_state(self, prepared: Tensor) -> tuple[None, None, None]:
        return None, None, None

    def step(
        self, prepared: Tensor, state: Any, t: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        codes, previous, n_active = state
        residual = self.residual(prepared, codes)
        if codes is not None:
            residual = residual + n_active / self.n_features * previous
        total = self.correct(residual)
        if codes is not None:
            total = codes + total
        # Half precision has no room for squares of small numbers.
        wide = at_least_float32(self.compute_dtype)
        power = ops.mean(ops.square(ops.cast(residual, wide)), axis=-1, keepdims=True)
        # The root of a power of zero has no gradient.
        deviation = ops.sqrt(ops.maximum(power, 1e-30))
        threshold = ops.exp(ops.cast(self.log_threshold[t], wide)) * deviation
        codes = self.shrink(total, ops.cast(threshold, total.dtype))
        size = ops.cast(total if self.nonnegative else ops.abs(total), wide)
        width = _WIDTH * ops.stop_gradient(deviation)
        smooth = ops.sigmoid((size - threshold) / width)
        # The count, with the gradient of what is smooth.
        active = ops.cast(ops.not_equal(codes, 0.0), wide)
        active = ops.stop_gradient(active - smooth) + smooth
        n_active = ops.sum(active, axis=-1, keepdims=True)
        return codes, residual, ops.cast(n_active, total.dtype)
