"""TISTA: the best estimate of each entry under a prior, and one number a step."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.analytic import pseudo_inverse
from sc2keras.layers.penalised import NO_ELASTIC_NET
from sc2keras.layers.rebuilding import Given
from sc2keras.layers.recovery import FixedKernelEncoder
from sc2keras.layers.support_selection import check_fraction
from sc2keras.registry import register_encoder
from sc2keras.validation import (
    Shape,
    Tensor,
    at_least_float32,
    check_non_negative,
    check_positive,
)

_MIN_VARIANCE = 1e-9


@register_encoder(
    "TISTA",
    reference="Ito, Takabe and Wadayama 2019, section III",
    variants={"prior": {"trainable_prior": True, "noise": 0.1}},
)
@keras.saving.register_keras_serializable(package="sc2keras")
class TISTABlock(FixedKernelEncoder):
    """TISTA: a trained step size a step, and the mean of the posterior for a threshold.

        r = x − s_{t−1} D,  z = s_{t−1} + γ_t·r D†,  s_t = η(z; τ²)
        v² = max((‖r‖² − n·σ²)/‖D‖², 1e-9)
        τ² = v²/k·(k + (γ_t² − 2γ_t)·m) + γ_t²·σ²·‖D†‖²/k

    where n is `n_features`, m the rank of D, D† the pseudo-inverse, and η the mean of
    an entry that is zero, or with probability p drawn from N(0, α²), given that z is it
    with an error of variance τ². (In the paper m = n; with fewer atoms than features,
    or centred ones, m = tr(D D†) is less.) Noise σ and prior p, α must be known; they
    may be trained from there on. They, and the codes, are not of `l1`'s doing.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term of the objective.
        dictionary: Array `(n_atoms, n_features)`, D; its atoms have a norm of at most
            1. None: random atoms of unit norm.
        noise: Float >= 0, σ, the standard deviation of noise in a signal's entries, in
            units of `unit`.
        density: Float from 0 to 1, p.
        scale: Float > 0, α, the standard deviation of entries that are not zero, in
            units of `unit`.
        trainable_prior: Boolean, whether σ, p and α are trained.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: `unit`, and those of `keras.layers.Layer`, such as `name`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = TISTABlock(20, n_steps=3)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 20)

    Reference:
        Ito, Takabe and Wadayama, Trainable ISTA for Sparse Signal Recovery, 2019.
    """

    has_thresholds_of_l1 = False
    refuses = NO_ELASTIC_NET | {
        "l1": "l1 is of no effect on its codes. Use ALISTA, or TiLISTA.",
        "nonnegative": "its prior is symmetric. Use ALISTA, or TiLISTA.",
    }

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        noise: float = 0.0,
        density: float = 0.1,
        scale: float = 1.0,
        trainable_prior: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.noise = check_non_negative("noise", noise)
        self.density = check_fraction("density", density)
        if not 0 < self.density < 1:
            raise ValueError(
                f"density must be between 0 and 1; received density={density!r}."
            )
        self.scale = check_positive("scale", scale)
        self.trainable_prior = bool(trainable_prior)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.log_step = self.add_weight_from("log_step", np.zeros(self.n_steps))
        odds = math.log(self.density / (1 - self.density))
        prior = [math.log(self.noise**2 + 1e-12), odds, 2 * math.log(self.scale)]
        # ln σ², the log-odds of p, ln α².
        self.prior = self.add_freezable(
            name="prior",
            shape=(3,),
            initializer=Given(prior),
            trainable=self.trainable_prior,
        )

    def kernel_of(self, dictionary: NDArray, dtype: str) -> NDArray:
        return pseudo_inverse(dictionary, dtype)

    def prepare(self, inputs: Tensor) -> tuple[Tensor, ...]:
        energies = (
            ops.sum(ops.square(weight)) for weight in (self.dictionary, self.kernel)
        )
        # tr(D D†), a whole number.
        wide = at_least_float32(self.compute_dtype)
        parts = (ops.cast(w, wide) for w in (self.dictionary, self.kernel))
        rank = ops.round(ops.sum(ops.transpose(next(parts)) * next(parts)))
        return inputs, rank, *energies

    def step(self, prepared: Any, state: Any, t: int) -> tuple[Tensor]:
        inputs, rank, of_atoms, of_kernel = prepared
        n_features = inputs.shape[-1]
        residual = self.residual(inputs, state[0])
        size = ops.exp(self.log_step[t])
        total = size * self.correct(residual)
        if state[0] is not None:
            total = state[0] + total
        # Half precision has no room for variances.
        wide = at_least_float32(self.compute_dtype)
        noise, odds, power = ops.split(ops.cast(self.prior, wide), 3)
        noise, power = ops.exp(noise), ops.exp(power)
        size, of_atoms, of_kernel = (
            ops.cast(a, wide) for a in (size, of_atoms, of_kernel)
        )
        energy = ops.sum(ops.square(ops.cast(residual, wide)), axis=-1, keepdims=True)
        left = ops.maximum((energy - n_features * noise) / of_atoms, _MIN_VARIANCE)
        share = 1.0 + (size * size - 2.0 * size) * (rank / self.n_atoms)
        variance = left * share + size * size * noise * of_kernel / self.n_atoms
        variance = ops.maximum(variance, _MIN_VARIANCE)
        codes = posterior_mean(ops.cast(total, wide), variance, odds, power)
        return (ops.cast(codes, total.dtype),)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "noise": self.noise,
            "density": self.density,
            "scale": self.scale,
            "trainable_prior": self.trainable_prior,
        }


def posterior_mean(x: Tensor, variance: Tensor, odds: Tensor, power: Tensor) -> Tensor:
    """The mean of what is 0 or, at log-odds `odds`, from N(0, power), seen as x.

    Example:

    >>> y = posterior_mean(ops.array([0.0, 10.0]), 1e-4, 0.0, 1.0)
    >>> [round(float(v), 3) for v in y]
    [0.0, 9.999]
    """
    total = variance + power
    # The logarithm of the ratio of both densities: they themselves underflow.
    ratio = 0.5 * (ops.log(variance / total) + ops.square(x) * power / variance / total)
    return x * (power / total) * ops.sigmoid(odds + ratio)
