"""What is worth watching while a sparse coder trains, as Keras metrics."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from sc2keras.code_metrics import L0 as L0
from sc2keras.code_metrics import Batch as Batch
from sc2keras.code_metrics import CodeMetric as CodeMetric
from sc2keras.code_metrics import DeadFraction as DeadFraction
from sc2keras.code_metrics import ExplainedVariance as ExplainedVariance
from sc2keras.code_metrics import FiringFrequency as FiringFrequency
from sc2keras.losses import flatten_samples
from sc2keras.objective import (
    code_difference,
    l1_norm,
    reconstruction_error,
    recovery_error,
    relative_duality_gap,
)
from sc2keras.validation import Tensor, check_weights

NONZERO_THRESHOLD = 1e-3
_USUAL_L1 = 0.1
# Of means of squares over atoms, as Open-L2O adds it.
_NMSE_FLOOR = 1e-10
_FAILURE = -20.0


@keras.saving.register_keras_serializable(package="sc2keras")
class ReconstructionError(CodeMetric):
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

    def arguments(self, batch: Batch) -> tuple[Any, ...]:
        return batch.x, batch.reconstruction


@keras.saving.register_keras_serializable(package="sc2keras")
class L1Norm(CodeMetric):
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
class NonzeroFraction(CodeMetric):
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
class DualityGap(CodeMetric):
    """Mean over samples of the relative duality gap of codes for a dictionary.

    See `sc2keras.objective.relative_duality_gap`.

    Args:
        l1: Float, λ, the weight of the ℓ1 term, or an array `(n_atoms,)`. None: that of
            the encoder, where it is a metric of a `SparseCoder`, and 0.1 elsewhere.
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
        l1: float | ArrayLike | None = None,
        name: str = "duality_gap",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.l1 = None if l1 is None else check_weights("l1", l1, "n_atoms")
        self._options: dict[str, Any] = {}

    def update_state(
        self,
        y_true: Tensor,
        y_pred: Tensor,
        dictionary: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> None:
        if dictionary is None:
            raise ValueError(
                f"The metric {self.name!r} needs the dictionary of the codes: pass "
                "dictionary=..., or take it in SparseCoder.compile(metrics=[...])."
            )
        l1 = _USUAL_L1 if self.l1 is None else self.l1
        gap = relative_duality_gap(y_true, y_pred, dictionary, l1, **self._options)
        super().update_state(gap, sample_weight)

    def on(self, encoder: Any) -> Self:
        if encoder.solves != "lasso":
            raise ValueError(
                "A duality gap needs codes that are to solve the LASSO; those of "
                f"{encoder.name!r} are not (solves={encoder.solves!r}). Leave it out."
            )
        l1 = encoder.l1 if self.l1 is None else self.l1
        found = type(self)(l1, self.name, self.dtype)
        found._options = encoder.penalty_options()
        return found

    def arguments(self, batch: Batch) -> tuple[Any, ...]:
        encoder = batch.encoder
        return encoder.center(batch.x), batch.codes, encoder.dictionary

    def get_config(self) -> dict[str, Any]:
        l1 = self.l1.tolist() if isinstance(self.l1, np.ndarray) else self.l1
        return {**super().get_config(), "l1": l1}


@keras.saving.register_keras_serializable(package="sc2keras")
class NMSE(keras.metrics.Metric):
    """The normalised squared error of codes in dB, of sums over all samples.

    10·log₁₀(Σ‖s − s*‖² / Σ‖s*‖²), with the true codes s* for targets: the definition of
    LISTA-CP, ALISTA, NA-ALISTA and HyperLISTA. The few samples that are worst rule it;
    see `MeanNMSE`.

    Example:

    >>> metric = NMSE()
    >>> metric.update_state(ops.ones((3, 4)), 0.9 * ops.ones((3, 4)))
    >>> round(float(metric.result()), 3)
    -20.0

    Reference:
        Chen, Liu, Wang and Yin, Theoretical Linear Convergence of Unfolded ISTA and its
        Practical Weights and Thresholds, 2018, section 4.
    """

    def __init__(
        self, name: str = "nmse", dtype: str | keras.DTypePolicy | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.error = self.add_variable((), "zeros", name="error")
        self.power = self.add_variable((), "zeros", name="power")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        y_true, y_pred = (ops.cast(y, self.dtype) for y in (y_true, y_pred))
        difference = code_difference(y_true, y_pred)
        for variable, y in ((self.error, difference), (self.power, y_true)):
            squares = ops.sum(ops.square(y), axis=-1)
            if sample_weight is not None:
                squares *= ops.reshape(ops.cast(sample_weight, self.dtype), (-1,))
            variable.assign_add(ops.sum(squares))

    def result(self) -> Tensor:
        # 0 dB of nothing, as of codes that are all zero.
        tiny = keras.config.epsilon() ** 4
        return 10.0 * ops.log10((self.error + tiny) / (self.power + tiny))


@keras.saving.register_keras_serializable(package="sc2keras")
class MeanNMSE(keras.metrics.Mean):
    """The mean over samples of the normalised squared error in dB.

    Means of squares over the atoms have 1e-10 added, so that a sample whose code is
    exact counts with a finite figure (−90 dB where a tenth of the entries is of
    variance one): the definition of Open-L2O. The many samples that are easy rule it.
    A sample whose true code is zero counts as 0 dB if its code is, too.

    Example:

    >>> metric = MeanNMSE()
    >>> metric.update_state(ops.ones((3, 4)), 0.9 * ops.ones((3, 4)))
    >>> round(float(metric.result()), 3)
    -20.0

    Reference:
        Chen et al., Learning to Optimize: A Primer and A Benchmark, 2022.
    """

    def __init__(
        self, name: str = "mean_nmse", dtype: str | keras.DTypePolicy | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        y_true, y_pred = (ops.cast(y, self.dtype) for y in (y_true, y_pred))
        error = recovery_error(y_true, y_pred, _NMSE_FLOOR)
        super().update_state(error, sample_weight)


@keras.saving.register_keras_serializable(package="sc2keras")
class FailureRate(keras.metrics.Mean):
    """The fraction of samples whose normalised squared error is above a limit.

    Args:
        limit: Float, in dB.
        name, dtype: Of `keras.metrics.Metric`.

    Example:

    >>> metric = FailureRate()
    >>> metric.update_state(ops.ones((2, 1)), ops.array([[0.95], [0.5]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        limit: float = _FAILURE,
        name: str = "failures",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.limit = float(limit)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        y_true, y_pred = (ops.cast(y, self.dtype) for y in (y_true, y_pred))
        error = ops.sum(ops.square(code_difference(y_true, y_pred)), axis=-1)
        power = ops.sum(ops.square(y_true), axis=-1)
        # Not `>`: an error that is no number is a failure.
        succeeds = error <= 10 ** (self.limit / 10) * power
        super().update_state(1.0 - ops.cast(succeeds, self.dtype), sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "limit": self.limit}


_NAMES: dict[str, type[CodeMetric]] = {
    "reconstruction": ReconstructionError,
    "l1": L1Norm,
    "nonzero": NonzeroFraction,
    "duality_gap": DualityGap,
    "l0": L0,
    "dead": DeadFraction,
    "firing": FiringFrequency,
    "explained_variance": ExplainedVariance,
}
_NAMES |= {kind.__name__: kind for kind in _NAMES.values()}


def of_codes(metric: Any) -> CodeMetric | None:
    """A metric of this module, given as Keras takes metrics; None if it is another.

    Example:

    >>> of_codes("duality_gap").name, of_codes(L1Norm).name, of_codes("accuracy")
    ('duality_gap', 'l1', None)
    """
    if isinstance(metric, str):
        metric = _NAMES.get(metric.removeprefix("sc2keras>"))
    if isinstance(metric, type) and issubclass(metric, CodeMetric):
        metric = metric()
    return metric if isinstance(metric, CodeMetric) else None
