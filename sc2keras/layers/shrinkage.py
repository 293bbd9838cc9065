"""The soft threshold, one trainable threshold an atom: the proximal step of ℓ1."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from sc2keras.layers.activation import Activation, register_activation
from sc2keras.layers.rebuilding import Given
from sc2keras.objective import elastic_net
from sc2keras.validation import Shape, Tensor, check_non_negative, check_weights


class ThresholdActivation(Activation):
    """An activation with one trainable threshold θ_j >= 0 an atom, and Σ l1_j·|s_j|."""

    solves = "lasso"

    def __init__(self, threshold: float | ArrayLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_threshold = check_weights("threshold", threshold, "n_atoms")

    def build(self, input_shape: Shape) -> None:
        n_atoms = input_shape[-1]
        start = self.initial_threshold
        if not isinstance(start, float):
            start = check_weights("threshold", start, "n_atoms", n_atoms)
        self.threshold = self.add_weight(
            name="threshold",
            shape=(n_atoms,),
            initializer=Given(np.broadcast_to(start, (n_atoms,))),
            constraint=keras.constraints.NonNeg(),
        )

    def penalty(self, codes: Tensor, l1: float | NDArray) -> Tensor:
        return elastic_net(codes, l1)

    def get_config(self) -> dict[str, Any]:
        start = self.initial_threshold
        start = start if isinstance(start, float) else start.tolist()
        return {**super().get_config(), "threshold": start}


@register_activation("shrinkage")
@keras.saving.register_keras_serializable(package="sc2keras")
class Shrinkage(ThresholdActivation):
    """Soft threshold with one trainable threshold an atom.

    sh_θ(x) = sign(x) · max(|x| − θ, 0), with a vector θ ≥ 0 over the last axis: the
    proximal operator of Σ_j θ_j·|x_j|. Its output is exactly zero wherever
    |x_j| ≤ θ_j.

    Args:
        threshold: Float >= 0, where every θ_j starts, or an array `(n_atoms,)`.
            Defaults to 0.1.
        nonnegative: Boolean. If True, max(x − θ, 0): the operator of codes s ≥ 0.
        l2: Float >= 0 or None. If given, the result is divided by 1 + l2: the operator
            of the elastic net, Σ_j θ_j·|x_j| + ½·l2·‖x‖². A weight that is not trained.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    Raises:
        ValueError: If an argument is negative, or of another shape.

    Example:

    >>> import numpy as np
    >>> y = Shrinkage(threshold=1.0)(np.array([[-3.0, 0.5, 2.0]]))
    >>> [float(v) for v in y[0]]
    [-2.0, 0.0, 1.0]

    References:
        Zhou et al., An End-to-End Sparse Coding, eq. 4 and 11. Parikh and Boyd,
        Proximal Algorithms, 2014, section 6.5, for the other two.
    """

    takes = frozenset({"nonnegative", "l2"})
    shows_non_finite = True

    def __init__(
        self,
        threshold: float | ArrayLike = 0.1,
        nonnegative: bool = False,
        l2: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold, **kwargs)
        self.nonnegative = bool(nonnegative)
        self.initial_l2 = None if l2 is None else check_non_negative("l2", l2)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.l2: keras.Variable = None
        if self.initial_l2 is not None:
            start = Given(self.initial_l2)
            self.l2 = self.add_weight(
                name="l2", shape=(), initializer=start, trainable=False
            )

    @classmethod
    def proximal(cls, threshold: float | NDArray, **kwargs: Any) -> Self:
        return cls(threshold, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        shrunk = soft_threshold(inputs, self.threshold, self.nonnegative)
        return shrunk if self.l2 is None else shrunk / (1.0 + self.l2)

    def get_config(self) -> dict[str, Any]:
        own = {"nonnegative": self.nonnegative, "l2": self.initial_l2}
        return {**super().get_config(), **own}


def soft_threshold(x: Tensor, threshold: Tensor, nonnegative: bool = False) -> Tensor:
    """sign(x) · max(|x| − threshold, 0), elementwise, as x − clip(x, ±threshold).

    With `nonnegative` max(x − threshold, 0), as x − min(x, threshold).
    `threshold` is a float or a tensor, which neither `keras.ops.soft_shrink` nor
    `keras.ops.clip` takes on every backend.

    Example:

    >>> float(soft_threshold(ops.convert_to_tensor(-3.0), 1.0))
    -2.0
    """
    if nonnegative:
        return x - ops.minimum(x, threshold)
    return x - ops.minimum(ops.maximum(x, -threshold), threshold)
