"""The soft threshold, one trainable threshold an atom: the proximal step of ℓ1."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from sc2keras.layers.activation import Activation, register_activation
from sc2keras.layers.rebuilding import Given
from sc2keras.objective import l1_norm
from sc2keras.validation import Shape, Tensor, check_non_negative


class ThresholdActivation(Activation):
    """An activation with one trainable threshold θ_j >= 0 an atom, and λ·‖s‖₁."""

    solves = "lasso"

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_threshold = check_non_negative("threshold", threshold)

    def build(self, input_shape: Shape) -> None:
        self.threshold = self.add_weight(
            name="threshold",
            shape=(input_shape[-1],),
            initializer=Given(np.full(input_shape[-1:], self.initial_threshold)),
            constraint=keras.constraints.NonNeg(),
        )

    def penalty(self, codes: Tensor, l1: float) -> Tensor:
        return l1 * l1_norm(codes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.initial_threshold}


@register_activation("shrinkage")
@keras.saving.register_keras_serializable(package="sc2keras")
class Shrinkage(ThresholdActivation):
    """Soft threshold with one trainable threshold an atom.

    sh_θ(x) = sign(x) · max(|x| − θ, 0), with a vector θ ≥ 0 over the last axis: the
    proximal operator of Σ_j θ_j·|x_j|. Its output is exactly zero wherever
    |x_j| ≤ θ_j.

    Args:
        threshold: Float >= 0, where every θ_j starts. Defaults to 0.1.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    Raises:
        ValueError: If `threshold` is negative.

    Example:

    >>> import numpy as np
    >>> y = Shrinkage(threshold=1.0)(np.array([[-3.0, 0.5, 2.0]]))
    >>> [float(v) for v in y[0]]
    [-2.0, 0.0, 1.0]

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 4 and 11.
    """

    shows_non_finite = True

    def __init__(self, threshold: float = 0.1, **kwargs: Any) -> None:
        super().__init__(threshold, **kwargs)

    @classmethod
    def proximal(cls, threshold: float, **kwargs: Any) -> Self:
        return cls(threshold, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        return soft_threshold(inputs, self.threshold)


def soft_threshold(x: Tensor, threshold: Tensor) -> Tensor:
    """sign(x) · max(|x| − threshold, 0), elementwise, as x − clip(x, ±threshold).

    `threshold` is a float or a tensor, which neither `keras.ops.soft_shrink` nor
    `keras.ops.clip` takes on every backend.

    Example:

    >>> float(soft_threshold(ops.convert_to_tensor(-3.0), 1.0))
    -2.0
    """
    return x - ops.minimum(ops.maximum(x, -threshold), threshold)
