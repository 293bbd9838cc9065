"""What is worth watching while a sparse coder trains, as Keras metrics."""

from typing import Any

import keras
from keras import ops

from sc2keras.losses import flatten_samples
from sc2keras.objective import l1_norm, reconstruction_error, relative_duality_gap
from sc2keras.validation import Tensor, check_non_negative

NONZERO_THRESHOLD = 1e-3


@keras.saving.register_keras_serializable(package="sc2keras")
class ReconstructionError(keras.metrics.Mean):
    """Mean over samples of ½‖x − x̂‖².

    Example:

    >>> metric = ReconstructionError()
    >>> metric.update_state(ops.ones((3, 4)), ops.zeros((3, 4)))
    >>> float(metric.result())
    2.0
    """

    def __init__(
        self, name: str = "reconstruction", dtype: str | keras.DTypePolicy | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        error = reconstruction_error(flatten_samples(y_true), flatten_samples(y_pred))
        super().update_state(error, sample_weight)


@keras.saving.register_keras_serializable(package="sc2keras")
class L1Norm(keras.metrics.Mean):
    """Mean over samples of ‖s‖₁, without the weight λ. `y_true` is not used.

    Example:

    >>> metric = L1Norm()
    >>> metric.update_state(None, ops.convert_to_tensor([[-1.0, 2.0]]))
    >>> float(metric.result())
    3.0
    """

    def __init__(
        self, name: str = "l1", dtype: str | keras.DTypePolicy | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        super().update_state(l1_norm(y_pred), sample_weight)


@keras.saving.register_keras_serializable(package="sc2keras")
class NonzeroFraction(keras.metrics.Mean):
    """Fraction of the codes' entries with |s_j| > threshold. `y_true` is not used.

    Args:
        threshold: Float, by default 1e-3, so that a smooth activation's small entries
            count as zero.
        name, dtype: Of `keras.metrics.Metric`.

    Example:

    >>> metric = NonzeroFraction()
    >>> metric.update_state(None, ops.convert_to_tensor([[0.0, -2.0, 1e-4, 1.0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        threshold: float = NONZERO_THRESHOLD,
        name: str = "nonzero",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.threshold = float(threshold)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        nonzero = ops.cast(ops.abs(y_pred) > self.threshold, self.dtype)
        super().update_state(ops.mean(nonzero, axis=-1), sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold}


@keras.saving.register_keras_serializable(package="sc2keras")
class DualityGap(keras.metrics.Mean):
    """Mean over samples of the relative duality gap of codes for a dictionary.

    See `sc2keras.objective.relative_duality_gap`.

    Args:
        l1: Float, λ, the weight of the ℓ1 term.
        name, dtype: Of `keras.metrics.Metric`.

    Example:

    >>> metric = DualityGap(l1=0.1)
    >>> x, optimum = ops.convert_to_tensor([[2.0]]), ops.convert_to_tensor([[1.9]])
    >>> metric.update_state(x, optimum, dictionary=ops.ones((1, 1)))
    >>> float(metric.result()) < 1e-6
    True
    """

    def __init__(
        self,
        l1: float = 0.1,
        name: str = "duality_gap",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.l1 = check_non_negative("l1", l1)

    def update_state(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        dictionary: Tensor,
        sample_weight: Tensor | None = None,
    ) -> None:
        gap = relative_duality_gap(y_true, y_pred, dictionary, self.l1)
        super().update_state(gap, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l1": self.l1}
