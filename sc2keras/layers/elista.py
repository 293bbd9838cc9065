"""ELISTA: the extragradient method, unfolded."""

from typing import Any

import keras
import numpy as np
from keras import ops

from sc2keras.layers.recovery import LearnedEncoder
from sc2keras.layers.shrinkage import soft_threshold
from sc2keras.registry import register_encoder
from sc2keras.validation import Shape, Tensor


@register_encoder(
    "ELISTA", reference="Kong et al. 2021", variants={"firm": {"firm": True}}
)
@keras.saving.register_keras_serializable(package="sc2keras")
class ELISTABlock(LearnedEncoder):
    """ELISTA: each step corrects twice, the second time from where the first one leads.

        s½ = h(s_{t−1} + γ_t (x − s_{t−1} D) W; θ_t)
        s_t = h(s_{t−1} + γ'_t (x − s½ D) W; θ'_t)

    with one trained matrix W for all steps, and sizes γ = exp(·), thresholds
    θ = λτ·exp(·). h is the soft threshold, or, with `firm=True`, the firm one, the
    paper's multistage threshold: zero below θ, x above θ̄, and a line between them.
    The block starts as the extragradient method, W = τDᵀ, γ = 1, θ = λτ, θ̄ = 2θ. In
    the authors' code θ starts at λ/L − 0.1 and its magnitude is taken.

    A step costs as many products as two of the others: compare 8 with their 16.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term; thresholds are relative to it.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        firm: Boolean, whether h is the firm threshold.
        trainable_dictionary: Boolean. If False, D stays as it is given, as in the
            paper.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: `unit`, and those of `keras.layers.Layer`, such as `name`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = ELISTABlock(20, n_steps=3)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 20)

    Reference:
        Kong et al., Learned Interpretable Residual Extragradient ISTA for Sparse
        Coding, 2021.
    """

    recovery_rate = 0.04

    def __init__(
        self, n_atoms: int, n_steps: int = 10, *, firm: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.firm = bool(firm)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        zeros = np.zeros((self.n_steps, 2))
        self.log_step = self.add_weight_from("log_step", zeros)
        self.log_threshold = self.add_weight_from("log_threshold", zeros)
        if self.firm:
            self.log_width = self.add_weight_from("log_width", zeros)

    def step(self, prepared: Tensor, state: Any, t: int) -> tuple[Tensor]:
        half = self._half(prepared, state[0], state[0], t, 0)
        return (self._half(prepared, state[0], half, t, 1),)

    def _half(
        self, inputs: Tensor, codes: Tensor | None, at: Tensor | None, t: int, i: int
    ) -> Tensor:
        """h(s + γ (x − at·D) W)."""
        correction = self.correct(self.residual(inputs, at))
        total = ops.exp(self.log_step[t, i]) * correction
        if codes is not None:
            total = codes + total
        threshold = self.threshold_of(ops.exp(self.log_threshold[t, i]))
        if not self.firm:
            return self.shrink(total, threshold)
        width = self.threshold_of(ops.exp(self.log_width[t, i]))
        return firm_threshold(total, threshold, width, self.nonnegative)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "firm": self.firm}


def firm_threshold(
    x: Tensor, threshold: Tensor, width: Tensor, nonnegative: bool = False
) -> Tensor:
    """Zero up to the threshold, x from threshold + width on, and a line between them.

    Example:

    >>> y = firm_threshold(ops.array([0.9, 1.5, 2.0]), 1.0, 1.0)
    >>> [float(v) for v in y]
    [0.0, 1.0, 2.0]
    """
    # A soft threshold that gives back what it took, at a rate of threshold over width.
    shrunk = soft_threshold(x, threshold, nonnegative)
    beyond = soft_threshold(x, threshold + width, nonnegative)
    # With λ = 0 there is nothing to take.
    rate = threshold / ops.maximum(width, 1e-30)
    return shrunk + rate * (shrunk - beyond)
