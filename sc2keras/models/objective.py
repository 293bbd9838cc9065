"""The objective of a model and its metrics."""

from typing import Any

import keras
from keras import ops

from sc2keras import metrics as sc_metrics
from sc2keras.layers.encoder import Encoder
from sc2keras.losses import flatten_samples
from sc2keras.objective import reconstruction_error
from sc2keras.validation import Tensor, at_least_float32


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
    """

    def __init__(self, encoder: Encoder, duality_gap: bool) -> None:
        if duality_gap and encoder.solves != "lasso":
            raise ValueError(
                f"duality_gap=True needs codes that are to solve the LASSO; those of "
                f"{encoder.name!r} are not (solves={encoder.solves!r}). Leave it out."
            )
        self.loss = PenalisedError()
        self.reconstruction = sc_metrics.ReconstructionError()
        self.l1 = sc_metrics.L1Norm()
        self.nonzero = sc_metrics.NonzeroFraction()
        self.metrics = [self.reconstruction, self.l1, self.nonzero]
        self.gap = sc_metrics.DualityGap(encoder.l1) if duality_gap else None
        if self.gap is not None:
            self.metrics.append(self.gap)

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
        return self.loss(x, (reconstruction, encoder.penalty(codes)), sample_weight)
