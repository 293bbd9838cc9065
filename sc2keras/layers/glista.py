"""GLISTA: LISTA-CPSS with gates for gain and overshoot."""

from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from sc2keras.layers.coupled_steps import CoupledSteps
from sc2keras.layers.recovery import LearnedEncoder
from sc2keras.layers.support_selection import SelectsSupport
from sc2keras.registry import register_encoder
from sc2keras.validation import Shape, Tensor, at_least_float32

Gain = Literal["inverse", "relu"]
_GAIN_SCALE, _GAIN_FLOOR = 0.2, 0.001
_OVERSHOOT_FLOOR = 0.1


@register_encoder(
    "GLISTA",
    reference="Wu, Guo, Li and Zhang 2020, section 3",
    variants={"relu": {"gain": "relu"}},
)
@keras.saving.register_keras_serializable(package="sc2keras")
class GLISTABlock(SelectsSupport, LearnedEncoder):
    """Gated LISTA: coupled weights with a gain before each step, an overshoot after it.

        z = g_t(s_{t−1}) ⊙ s_{t−1}
        s̃ = sh^p_θt(z + (x − z D) W_t)
        s_t = s_{t−1} + o_t ⊙ (s̃ − s_{t−1}),  o_t = 1 + b_t·θ_t / (|s̃ − s_{t−1}| + 0.1)

    The gain takes back what a threshold took away from entries: with `"inverse"`
    g_t(s) = 1 + 0.2·a_t / (|s|⊙|v_t| + 0.001), with `"relu"`
    1 + a_t·relu(1 − relu(|s|⊙v_t)), with a vector v_t, one entry an atom. sh^p is the
    soft threshold with the support selection of `LISTASSBlock`, θ_t = λτ·exp(·).

    Both gates start closed, a_t = b_t = 0: the block starts as ISTA with that
    selection. Their signs are free. The paper's overshoot is at least one; the code of
    its authors has the opposite sign there, a start at 5, the threshold of the step
    before, and overshoots only where that did not select: it is the paper's formula
    that is taken, of the step's own θ_t, as in Open-L2O. Their thresholds are one an
    atom, here one a step.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term; thresholds are relative to it.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        gain: `"inverse"` or `"relu"`, the function of the gain gates.
        trainable_dictionary: Boolean. If False, D stays as it is given, as in the
            paper.
        support_step, max_support: See `LISTASSBlock`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: `unit`, and those of `keras.layers.Layer`, such as `name`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = GLISTABlock(20, n_steps=3)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 20)

    References:
        Wu, Guo, Li and Zhang, Sparse Coding with Gated Learned ISTA, 2020. Chen et al.,
        Learning to Optimize: A Primer and A Benchmark, 2022.
    """

    def __init__(
        self, n_atoms: int, n_steps: int = 10, *, gain: Gain = "inverse", **kwargs: Any
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        if gain not in get_args(Gain):
            raise ValueError(f"gain must be one of {get_args(Gain)}; received {gain=}.")
        self.gain: Gain = gain

    def build(self, input_shape: Shape) -> None:
        _, dictionary = self.build_dictionary(input_shape[-1])
        self.kernels = [
            self.add_weight_from(f"kernel_{t}", dictionary.T)
            for t in range(self.n_steps)
        ]
        zeros = np.zeros(self.n_steps)
        self.log_threshold = self.add_weight_from("log_threshold", zeros)
        self.overshoot = self.add_weight_from("overshoot", zeros)
        if self.n_steps > 1:  # The first step has no code to multiply.
            self.gain_gate = self.add_weight_from("gain_gate", zeros[1:])
            ones = np.ones((self.n_steps - 1, self.n_atoms))
            self.gain_scale = self.add_weight_from("gain_scale", ones)

    def step(self, prepared: Tensor, state: Any, t: int) -> tuple[Tensor]:
        codes = state[0]
        enlarged = None if codes is None else self._enlarge(codes, t)
        residual = self.residual(prepared, enlarged)
        total = self.step_size * ops.matmul(residual, self.kernels[t])
        if enlarged is not None:
            total = enlarged + total
        threshold = self.threshold_of(ops.exp(self.log_threshold[t]))
        found = self.select(total, self.shrink(total, threshold), t)
        change = found if codes is None else found - codes
        over = _over(threshold, ops.abs(change) + _OVERSHOOT_FLOOR)
        codes = found + self.overshoot[t] * over * change
        # The overshoot may lead below zero.
        return (self.shrink(codes, 0.0) if self.nonnegative else codes,)

    def _enlarge(self, codes: Tensor, t: int) -> Tensor:
        """g_t(s) ⊙ s."""
        gate, scale = self.gain_gate[t - 1], self.gain_scale[t - 1]
        if self.gain == "relu":
            fall = ops.relu(1.0 - ops.relu(scale * ops.abs(codes)))
        else:
            fall = _over(_GAIN_SCALE, ops.abs(scale * codes) + _GAIN_FLOOR)
        return codes + gate * fall * codes

    @property
    def can_take_steps(self) -> bool:
        return True

    def take_steps(self, steps: CoupledSteps) -> None:
        steps.assign_kernels(self.kernels, self.step_size)
        self.log_threshold.assign(steps.log_thresholds)
        self.overshoot.assign(np.zeros(self.n_steps))
        if self.n_steps > 1:
            self.gain_gate.assign(np.zeros(self.n_steps - 1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain": self.gain}


def _over(numerator: Tensor | float, denominator: Tensor) -> Tensor:
    """A quotient whose gradient may have no room in half precision."""
    wide = at_least_float32(keras.backend.standardize_dtype(denominator.dtype))
    # TensorFlow casts a float by way of float32.
    top = numerator if isinstance(numerator, float) else ops.cast(numerator, wide)
    quotient = top / ops.cast(denominator, wide)
    return ops.cast(quotient, denominator.dtype)
