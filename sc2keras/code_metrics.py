"""Metrics of which atoms codes use, and of how much of the signals they explain."""

from typing import Any, NamedTuple, Self

import keras
from keras import ops
from numpy.typing import NDArray

from sc2keras.losses import flatten_samples
from sc2keras.validation import Tensor, check_non_negative, check_positive_integer


class Batch(NamedTuple):
    """What a model made of a batch of signals, all as vectors."""

    encoder: Any
    x: Tensor
    reconstruction: Tensor
    codes: Tensor


class CodeMetric(keras.metrics.Mean):
    """Base of the metrics of signals and their codes.

    In `SparseCoder.compile(metrics=[...])`, as an instance, a class or a name, they are
    about the model's own signals, reconstructions and codes, whatever the targets are.
    """

    def on(self, encoder: Any) -> Self:
        """This metric for a model with that encoder, or a ValueError."""
        return self

    def arguments(self, batch: Batch) -> tuple[Any, ...]:
        """What `update_state` takes of a batch."""
        return None, batch.codes


@keras.saving.register_keras_serializable(package="sc2keras")
class L0(CodeMetric):
    """Mean over samples of ‖s‖₀, the number of entries with |s_j| > threshold.

    Args:
        threshold: Float >= 0, by default zero.
        name, dtype: Of `keras.metrics.Metric`.

    Example:

    >>> metric = L0()
    >>> metric.update_state(None, ops.convert_to_tensor([[0.0, -2.0, 1e-4, 1.0]]))
    >>> float(metric.result())
    3.0
    """

    def __init__(
        self,
        threshold: float = 0.0,
        name: str = "l0",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.threshold = check_non_negative("threshold", threshold)

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        nonzero = ops.cast(ops.abs(y_pred) > self.threshold, self.dtype)
        super().update_state(ops.sum(nonzero, axis=-1), sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold}


class StatefulMetric(CodeMetric):
    """Base of those with numbers of each atom or feature, made for a model's encoder.

    On their own they are made by the first batch, outside of compiled functions.
    """

    _is_made = False

    def make(self, size: int) -> None:
        """Creates the variables, unless they are there."""
        if not self._is_made:
            self._is_made = True
            self.add_variables(size)

    def add_variables(self, size: int) -> None:
        """Creates the variables, of so many atoms or features."""
        raise NotImplementedError(
            f"{type(self).__name__} has no variables. Define add_variables(size)."
        )

    def size_of(self, encoder: Any) -> int:
        """The number of atoms."""
        return encoder.n_atoms

    def reset_state(self) -> None:
        # A mean would keep what is not its own.
        for variable in self.variables:
            variable.assign(ops.zeros(variable.shape, dtype=variable.dtype))

    def on(self, encoder: Any) -> Self:
        own = type(self).from_config(self.get_config())
        own.make(self.size_of(encoder))
        return own


@keras.saving.register_keras_serializable(package="sc2keras")
class DeadFraction(StatefulMetric):
    """The fraction of atoms that none of the last samples uses. `y_true` is not used.

    Args:
        window: Integer, how many samples; None: all since the epoch or the evaluation
            began, as of a longer window.
        threshold: Float >= 0: an entry uses its atom if it is larger in magnitude.
        name, dtype: Of `keras.metrics.Metric`.

    Example:

    >>> metric = DeadFraction()
    >>> metric.update_state(None, ops.array([[0.0, 1.0], [0.0, 2.0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        window: int | None = None,
        threshold: float = 0.0,
        name: str = "dead",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.window = None
        if window is not None:
            self.window = check_positive_integer("window", window)
        self.threshold = check_non_negative("threshold", threshold)

    def add_variables(self, size: int) -> None:
        # For how many samples each atom has not been used.
        self.silent = self.add_variable((size,), "zeros", name="silent")
        self.seen = self.add_variable((), "zeros", name="seen")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        self.make(y_pred.shape[-1])
        fired = ops.any(ops.abs(y_pred) > self.threshold, axis=0)
        n_rows = ops.cast(ops.shape(y_pred)[0], self.silent.dtype)
        self.silent.assign(ops.where(fired, 0.0, self.silent + n_rows))
        self.seen.assign_add(n_rows)

    def result(self) -> Tensor:
        if not self._is_made:
            return ops.zeros((), self.dtype)
        window = self.seen
        if self.window is not None:
            window = ops.minimum(self.seen, float(self.window))
        is_dead = ops.logical_and(self.silent >= window, self.seen > 0)
        return ops.mean(ops.cast(is_dead, self.dtype))

    def get_config(self) -> dict[str, Any]:
        own = {"window": self.window, "threshold": self.threshold}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="sc2keras")
class FiringFrequency(StatefulMetric):
    """How often atoms are used, as a quantile over them. `y_true` is not used.

    The frequency of an atom is the fraction of samples whose codes use it.

    Args:
        quantile: Float from 0 to 1; 0.5 is the median atom, 0 the one used least.
        threshold: Float >= 0: an entry uses its atom if it is larger in magnitude.
        name, dtype: Of `keras.metrics.Metric`.

    Example:

    >>> metric = FiringFrequency(quantile=1.0)
    >>> metric.update_state(None, ops.array([[0.0, 1.0], [3.0, 2.0]]))
    >>> float(metric.result()), metric.frequencies().tolist()
    (1.0, [0.5, 1.0])
    """

    def __init__(
        self,
        quantile: float = 0.5,
        threshold: float = 0.0,
        name: str = "firing",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if check_non_negative("quantile", quantile) > 1:
            raise ValueError(f"quantile must be at most 1; received {quantile=!r}.")
        self.quantile = float(quantile)
        self.threshold = check_non_negative("threshold", threshold)

    def add_variables(self, size: int) -> None:
        self.fired = self.add_variable((size,), "zeros", name="fired")
        self.seen = self.add_variable((), "zeros", name="seen")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        self.make(y_pred.shape[-1])
        fired = ops.cast(ops.abs(y_pred) > self.threshold, self.fired.dtype)
        self.fired.assign_add(ops.sum(fired, axis=0))
        self.seen.assign_add(ops.cast(ops.shape(y_pred)[0], self.seen.dtype))

    def frequencies(self) -> NDArray:
        """The frequency of each atom, `(n_atoms,)`."""
        return ops.convert_to_numpy(self.fired / ops.maximum(self.seen, 1.0))

    def result(self) -> Tensor:
        if not self._is_made:
            return ops.zeros((), self.dtype)
        frequencies = self.fired / ops.maximum(self.seen, 1.0)
        return ops.quantile(frequencies, self.quantile)

    def get_config(self) -> dict[str, Any]:
        own = {"quantile": self.quantile, "threshold": self.threshold}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="sc2keras")
class ExplainedVariance(StatefulMetric):
    """The fraction of the signals' variance that reconstructions explain.

    1 − Σ‖x − x̂‖²/Σ‖x − x̄‖² over all samples since the epoch began, x̄ their mean: one
    minus the fraction of variance unexplained (FVU).

    Example:

    >>> metric = ExplainedVariance()
    >>> x = ops.array([[0.0, 2.0], [2.0, 0.0]])
    >>> metric.update_state(x, x + 0.5)
    >>> float(metric.result())
    0.75
    """

    def __init__(
        self,
        name: str = "explained_variance",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)

    def add_variables(self, size: int) -> None:
        self.mean = self.add_variable((size,), "zeros", name="mean")
        self.variation = self.add_variable((), "zeros", name="variation")
        self.error = self.add_variable((), "zeros", name="error")
        self.seen = self.add_variable((), "zeros", name="seen")

    def size_of(self, encoder: Any) -> int:
        return encoder.n_features

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        x, reconstruction = (
            ops.cast(flatten_samples(y), self.dtype) for y in (y_true, y_pred)
        )
        self.make(x.shape[-1])
        weight = ops.ones_like(x[:, :1])
        if sample_weight is not None:
            weight = ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))
        n_new = ops.sum(weight)
        mean = ops.sum(weight * x, axis=0) / ops.maximum(n_new, 1e-30)
        # Of two parts, their variations and that of their means: nothing cancels.
        moved, total = mean - self.mean, ops.maximum(self.seen + n_new, 1e-30)
        between = ops.sum(ops.square(moved)) * self.seen * n_new / total
        within = ops.sum(weight * ops.square(x - mean))
        self.variation.assign_add(within + between)
        self.mean.assign_add(moved * n_new / total)
        self.error.assign_add(ops.sum(weight * ops.square(x - reconstruction)))
        self.seen.assign_add(n_new)

    def arguments(self, batch: Batch) -> tuple[Any, ...]:
        return batch.x, batch.reconstruction

    def result(self) -> Tensor:
        if not self._is_made:
            return ops.zeros((), self.dtype)
        return 1.0 - self.error / ops.maximum(self.variation, 1e-30)
