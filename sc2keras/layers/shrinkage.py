"""The activations of sparse coding networks, with one trainable vector an argument."""

from typing import Any

import keras
from keras import ops

from sc2keras.layers.rebuilding import FiniteWeights
from sc2keras.validation import Shape, Tensor, check_non_negative


class _PerAtomActivation(FiniteWeights):
    """What the activations share: a trainable vector over the last axis."""

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_threshold = check_non_negative("threshold", threshold)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        self.threshold = self.add_weight(
            name="threshold",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_threshold),
            constraint=keras.constraints.NonNeg(),
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.initial_threshold}


@keras.saving.register_keras_serializable(package="sc2keras")
class Shrinkage(_PerAtomActivation):
    """Soft threshold with one trainable threshold an atom.

    sh_θ(x) = sign(x) · max(|x| − θ, 0), with a vector θ ≥ 0 over the last axis: the
    proximal operator of Σ_j θ_j·|x_j|. Its output is exactly zero wherever
    |x_j| ≤ θ_j.

    Args:
        threshold: Float >= 0, where every θ_j starts. Defaults to 0.1.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Tensor `(..., n_atoms)`.

    Returns:
        Tensor of the shape of `inputs`.

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

    def __init__(self, threshold: float = 0.1, **kwargs: Any) -> None:
        super().__init__(threshold, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        return soft_threshold(inputs, self.threshold)


@keras.saving.register_keras_serializable(package="sc2keras")
class DoubleTanh(_PerAtomActivation):
    """The double hyperbolic tangent, a smooth relative of the soft threshold.

    h_(D,u)(x) = D · (tanh(x + u) + tanh(x − u)), with one trainable threshold u_j ≥ 0
    and one trainable scale D_j an atom. It is flat around zero, its slope is D near
    ±u, and it saturates at ±2D. Being smooth it makes codes small but never exactly
    zero.

    Args:
        threshold: Float >= 0, where every u_j starts. Defaults to 1.
        scale: Float, where every D_j starts. Defaults to 1.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Tensor `(..., n_atoms)`.

    Returns:
        Tensor of the shape of `inputs`.

    Raises:
        ValueError: If `threshold` is negative.

    Example:

    >>> import numpy as np
    >>> y = DoubleTanh(threshold=2.0, scale=3.0)(np.array([[0.0, 50.0]]))
    >>> [float(v) for v in y[0]]
    [0.0, 6.0]

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 17.
    """

    def __init__(
        self, threshold: float = 1.0, scale: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(threshold, **kwargs)
        self.initial_scale = float(scale)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.scale = self.add_weight(
            name="scale",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_scale),
        )

    def call(self, inputs: Tensor) -> Tensor:
        # Of sums, not of differences, the gradient is one tensor that others share: see
        # `minus_shared`.
        negative = ops.tanh(self.threshold - inputs) + ops.tanh(
            -self.threshold - inputs
        )
        return -self.scale * negative

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.initial_scale}


def soft_threshold(x: Tensor, threshold: Tensor) -> Tensor:
    """sign(x) · max(|x| − threshold, 0), elementwise, as x − clip(x, ±threshold).

    `threshold` is a float or a tensor, which neither `keras.ops.soft_shrink` nor
    `keras.ops.clip` takes on every backend.

    Example:

    >>> float(soft_threshold(ops.convert_to_tensor(-3.0), 1.0))
    -2.0
    """
    return ops.stop_gradient(ops.sign(x)) * ops.relu(ops.abs(x) - threshold)
