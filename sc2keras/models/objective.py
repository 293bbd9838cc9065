"""The objective of a model and its metrics."""

from typing import Any

import keras
from keras import ops

from sc2keras import metrics as sc_metrics
from sc2keras.layers.encoder import Encoder
from sc2keras.losses import flatten_samples
from sc2keras.metrics import CodeMetric
from sc2keras.models.activity import Activity
from sc2keras.objective import reconstruction_error
from sc2keras.validation import Tensor, at_least_float32

_METRICS = ("metrics", "weighted_metrics")


class PenalisedError(keras.losses.Loss):
    """½‖x − x̂‖² and what the codes cost, averaged as Keras averages losses.

    A loss, since Keras scales these alone where several devices share a batch.
    """

    def call(self, y_true: Tensor, y_pred: tuple[Tensor, Tensor]) -> Tensor:
        reconstruction, penalty = y_pred
        return reconstruction_error(y_true, reconstruction) + penalty


class Objective:
    """The objective of an encoder and its metrics.

    A plain object, so that Keras does not write the metrics into the model's file.

    Args:
        encoder: Of the model.
        options: Dictionary, of `compile`: the metrics of codes are taken out of it.
        duality_gap: Boolean, whether the gap is one of them.
    """

    def __init__(
        self, encoder: Encoder, options: dict[str, Any], duality_gap: bool
    ) -> None:
        self.loss = PenalisedError()
        self.activity = Activity(encoder.n_atoms)
        own = {}
        for name in _METRICS:
            own[name], options[name] = take_metrics(options.get(name))
        gap = [sc_metrics.DualityGap()] if duality_gap else []
        self._plain = [metric.on(encoder) for metric in own["metrics"]]
        self._weighted = [
            *(sc_metrics.ReconstructionError(), sc_metrics.L1Norm(), self.activity),
            *(metric.on(encoder) for metric in [*gap, *own["weighted_metrics"]]),
        ]
        self.metrics: list[keras.metrics.Metric] = [*self._weighted, *self._plain]

    def __call__(
        self,
        model: Any,
        x: Tensor,
        codes: Tensor,
        sample_weight: Tensor | None,
        training: bool,
    ) -> Tensor:
        encoder, outputs = model.encoder, codes
        self.activity.note_gaps(codes, encoder)
        # Of a narrower dtype the objective is computed in float32.
        dtype = at_least_float32(encoder.compute_dtype)
        reconstruction = ops.cast(encoder(codes, reverse=True), dtype)
        x, codes = flatten_samples(ops.cast(x, dtype)), ops.cast(codes, dtype)
        self.activity.note_mean(x, encoder)
        batch = sc_metrics.Batch(encoder, x, reconstruction, codes)
        for metric in self._weighted:
            metric.update_state(*metric.arguments(batch), sample_weight=sample_weight)
        for metric in self._plain:
            metric.update_state(*metric.arguments(batch))
        penalty = encoder.penalty(codes)
        added = encoder.auxiliary(outputs, x, reconstruction, training)
        if added is not None:
            penalty = penalty + added
        return self.loss(x, (reconstruction, penalty), sample_weight)


def metrics_of(options: dict[str, Any]) -> dict[str, Any]:
    """The metrics among the arguments of `compile`, those given as classes made."""
    return {
        name: keras.tree.map_structure(
            lambda metric: metric() if isinstance(metric, type) else metric,
            options[name],
        )
        for name in _METRICS
        if options.get(name)
    }


def take_metrics(metrics: Any) -> tuple[list[CodeMetric], Any]:
    """`(those of codes, the others)` of metrics as `compile` takes them."""
    if isinstance(metrics, dict):
        parts = {name: take_metrics(part) for name, part in metrics.items()}
        taken = [metric for found, _ in parts.values() for metric in found]
        return taken, {name: others for name, (_, others) in parts.items()}
    if isinstance(metrics, (list, tuple)):
        found = [take_metrics(part) for part in metrics]
        others = [
            other
            for part, (_, other) in zip(metrics, found, strict=True)
            if other is not None or part is None
        ]
        return [metric for taken, _ in found for metric in taken], others
    metric = sc_metrics.of_codes(metrics)
    return ([], metrics) if metric is None else ([metric], None)
