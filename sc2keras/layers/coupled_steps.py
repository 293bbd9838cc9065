"""The steps that ALISTA's numbers give, as a start of encoders with more weights."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.activation import Activation
from sc2keras.layers.shrinkage import Shrinkage


class CoupledSteps(NamedTuple):
    """s_t = sh^p_θt(s_{t−1} + γ_t (x − s_{t−1} D) W), of one matrix.

    Args:
        kernel: Array `(n_features, n_atoms)`, W.
        log_sizes: Array `(n_steps,)`, ln γ_t.
        log_thresholds: Array `(n_steps,)`, ln θ_t/λτ, or of error-based thresholds.
        thresholds: Array `(n_steps, n_atoms)`, θ_t in the encoder's unit; unused where
            they are error-based.
    """

    kernel: NDArray
    log_sizes: NDArray
    log_thresholds: NDArray
    thresholds: NDArray

    def kernel_of(self, t: int) -> NDArray:
        """γ_t W."""
        scaled: NDArray = np.exp(self.log_sizes[t]) * self.kernel
        return scaled

    def assign_kernels(
        self, kernels: list[keras.Variable], step_size: keras.Variable
    ) -> None:
        """Sets matrices that are kept over τ."""
        for t, kernel in enumerate(kernels):
            kernel.assign(self.kernel_of(t) / ops.convert_to_numpy(step_size))

    def assign_thresholds(self, activations: list[Activation]) -> None:
        for activation, threshold in zip(activations, self.thresholds, strict=True):
            activation.threshold.assign(threshold)


def are_shrinkages(activations: list[Activation]) -> bool:
    """Whether all are the plain soft threshold."""
    return all(type(a) is Shrinkage and a.l2 is None for a in activations)
