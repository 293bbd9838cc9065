"""The double hyperbolic tangent, the paper's smooth relative of the soft threshold."""

from typing import Any

import keras
import numpy as np
from keras import ops

from sc2keras.layers.activation import register_activation
from sc2keras.layers.rebuilding import Given
from sc2keras.layers.shrinkage import ThresholdActivation
from sc2keras.validation import Shape, Tensor


@register_activation("double_tanh")
@keras.saving.register_keras_serializable(package="sc2keras")
class DoubleTanh(ThresholdActivation):
    """The double hyperbolic tangent, a smooth relative of the soft threshold.

    h_(D,u)(x) = D · (tanh(x + u) + tanh(x − u)), with one trainable threshold u_j ≥ 0
    and one trainable scale D_j an atom. It is flat around zero, its slope is D near
    ±u, and it saturates at ±2D. Being smooth it makes codes small but never exactly
    zero.

    Args:
        threshold: Float >= 0, where every u_j starts. Defaults to 1.
        scale: Float, where every D_j starts. Defaults to 1.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

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
            initializer=Given(np.full(input_shape[-1:], self.initial_scale)),
        )

    def call(self, inputs: Tensor) -> Tensor:
        # The gradient of x + u is a tensor that u shares, that of −u − x is one of its
        # own: see `minus_shared`.
        upper = -ops.tanh(-self.threshold - inputs)
        return self.scale * (upper - ops.tanh(self.threshold - inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.initial_scale}


def is_never_zero(encoder: keras.layers.Layer) -> bool:
    """Whether the codes of an encoder are small where others' are zero."""
    return any(isinstance(layer, DoubleTanh) for layer in encoder._flatten_layers())
