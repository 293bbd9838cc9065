"""The objective of a model and its metrics."""

from typing import Any

import keras
from keras import ops

from sc2keras import metrics as sc_metrics
from sc2keras.losses import SparseCodingLoss, flatten_samples
from sc2keras.validation import Tensor, at_least_float32


class Objective:
    """The objective and its metrics.

    A plain object, so that Keras does not write the metrics into the model's file.
    """

    def __init__(self, l1: float, duality_gap: bool) -> None:
        self.loss = SparseCodingLoss(l1)
        self.reconstruction = sc_metrics.ReconstructionError()
        self.l1 = sc_metrics.L1Norm()
        self.nonzero = sc_metrics.NonzeroFraction()
        self.gap = sc_metrics.DualityGap(l1) if duality_gap else None

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        metrics = [self.reconstruction, self.l1, self.nonzero]
        return metrics if self.gap is None else [*metrics, self.gap]

    def __call__(
        self, model: Any, x: Tensor, codes: Tensor, sample_weight: Tensor | None
    ) -> Tensor:
        encoder = model.encoder
        # Of a narrower dtype the objective is computed in float32.
        dtype = at_least_float32(encoder.compute_dtype)
        reconstruction = ops.cast(encoder(codes, reverse=True), dtype)
        x, codes = flatten_samples(ops.cast(x, dtype)), ops.cast(codes, dtype)
        self.reconstruction.update_state(x, reconstruction, sample_weight)
        self.l1.update_state(None, codes, sample_weight)
        self.nonzero.update_state(None, codes, sample_weight)
        if self.gap is not None:
            self.gap.update_state(x, codes, encoder.dictionary, sample_weight)
        return self.loss(x, (reconstruction, codes), sample_weight)
