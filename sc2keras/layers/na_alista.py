"""NA-ALISTA: an LSTM gives each sample its step sizes and thresholds."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from sc2keras.layers.rebuilding import Given
from sc2keras.layers.recovery import AnalyticEncoder
from sc2keras.layers.support_selection import (
    check_fraction,
    support_selection,
    whole_part,
)
from sc2keras.registry import register_encoder
from sc2keras.signals import as_array
from sc2keras.validation import Shape, Tensor, check_positive_integer

# softplus of it is one.
_ONE = math.log(math.e - 1.0)


@register_encoder("NAALISTA", reference="Behrens, Sauder and Jung 2021, algorithm 2")
@keras.saving.register_keras_serializable(package="sc2keras")
class NAALISTABlock(AnalyticEncoder):
    """NA-ALISTA: ALISTA whose step sizes and thresholds an LSTM gives each sample.

        c = (x − s_{t−1} D) Wᵀ
        s_t = sh^p_θ(s_{t−1} + γ·c)
        (γ, θ/qλτ) = softplus(relu(m_t V + v) U + u)

    where m_t is the cell state of an LSTM on (‖x − s_{t−1} D‖₁, ‖c‖₁), standardised.
    Here p is a count that grows linearly to `max_support` of the atoms; so many largest
    entries of a sample, less one, pass unshrunk, whether above θ or not. U starts at
    zero, and u where γ = 1 and θ = qλτ, with q = 1: untrained, it is ALISTA with that
    selection.

    Mean and deviation of the two features, and q, are weights that are not trained, and
    saved: in the authors' code the features' are of the first batch, and lost with the
    process, and there is no q. `adapt(x)` takes them from signals, q such that qλτ is
    the mean magnitude of a first correction; `sc2keras.fit_recovery` calls it.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term; thresholds are relative to it.
        dictionary: Array `(n_atoms, n_features)`, D; its atoms have a norm of at most
            1. None: random atoms of unit norm.
        n_units: Integer, the units of the LSTM.
        max_support: Float from 0 to 1, the largest fraction of entries that pass.
        ridge: See `ALISTABlock`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: `unit`, and those of `keras.layers.Layer`, such as `name`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = NAALISTABlock(20, n_steps=3)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 20)

    Reference:
        Behrens, Sauder and Jung, Neurally Augmented ALISTA, 2021.
    """

    recovery_rate = 0.004

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        n_units: int = 128,
        max_support: float = 0.12,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.n_units = check_positive_integer("n_units", n_units)
        self.max_support = check_fraction("max_support", max_support)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.feature_mean, self.feature_deviation, self.threshold_scale = (
            self.add_weight(
                name=name,
                shape=np.shape(start),
                initializer=Given(start),
                trainable=False,
            )
            for name, start in (
                ("feature_mean", np.zeros(2)),
                ("feature_deviation", np.ones(2)),
                ("threshold_scale", 1.0),
            )
        )
        size = self.n_units
        self.first_hidden, self.first_cell = (
            self.add_weight(name=name, shape=(size,), initializer="zeros")
            for name in ("first_hidden", "first_cell")
        )
        self.lstm = keras.layers.LSTMCell(
            size,
            recurrent_initializer=_orthogonal,
            name="lstm",
            dtype=self.dtype_policy,
            trainable=self.trainable,
        )
        self.hidden = keras.layers.Dense(
            size,
            "relu",
            name="hidden",
            dtype=self.dtype_policy,
            trainable=self.trainable,
        )
        self.numbers = keras.layers.Dense(
            2,
            kernel_initializer="zeros",
            bias_initializer=Given(np.full(2, _ONE)),
            activation="softplus",
            name="numbers",
            dtype=self.dtype_policy,
            trainable=self.trainable,
        )
        for layer, width in ((self.lstm, 2), (self.hidden, size), (self.numbers, size)):
            layer.build((None, width))
            for weight in layer.weights:
                name = f"{layer.name}/{weight.name}"
                self.watch(name, weight, by_default=layer.trainable)

    def adapt(self, x: ArrayLike) -> None:
        """Takes what features and thresholds are relative to from signals, in rows."""
        rows = as_array("x", x)
        if rows.ndim != 2 or rows.shape[1] != self.n_features or not len(rows):
            raise ValueError(
                f"x must have shape (n_samples, n_features) with n_features="
                f"{self.n_features}; received {rows.shape}."
            )
        if not np.isfinite(rows).all() or not rows.any():
            raise ValueError(
                "x must be finite signals that are not all zero; received "
                f"{'zeros' if not rows.any() else 'a NaN or an infinity'}."
            )
        x = self.in_unit(self.center(ops.cast(rows, self.compute_dtype)))
        features = self._features(x, self.correct(x))
        found = ops.convert_to_numpy(ops.cast(features, "float32"))
        self.feature_mean.assign(found.mean(axis=0))
        self.feature_deviation.assign(np.maximum(found.std(axis=0), 1e-6))
        usual = np.mean(self.l1) / self.unit * ops.convert_to_numpy(self.step_size)
        if usual > 0:
            self.threshold_scale.assign(found[:, 1].mean() / self.n_atoms / usual)

    def is_adapted(self) -> bool:
        """Whether mean and deviation are others than those that it starts from."""
        return bool(np.any(ops.convert_to_numpy(self.feature_mean) != 0))

    @staticmethod
    def _features(residual: Tensor, correction: Tensor) -> Tensor:
        norms = [ops.sum(ops.abs(r), axis=-1) for r in (residual, correction)]
        return ops.stack(norms, axis=-1)

    def support_count(self, t: int) -> int:
        """How many entries step t, from 0 on, selects."""
        last = self.max_support * self.n_atoms
        first = whole_part(last / self.n_steps)
        counts = np.linspace(first, last, self.n_steps)
        return max(whole_part(counts[t]) - 1, 0)

    def initial_state(self, prepared: Tensor) -> tuple[None, None]:
        return None, None

    def step(self, prepared: Tensor, state: Any, t: int) -> tuple[Tensor, list[Tensor]]:
        codes, memory = state
        residual = self.residual(prepared, codes)
        correction = self.correct(residual)
        features = self._features(residual, correction) - self.feature_mean
        features = features / self.feature_deviation
        # The cell takes rows.
        rows = ops.reshape(features, (-1, 2))
        if memory is None:
            zeros = ops.zeros_like(rows[:, :1])
            memory = [zeros + self.first_hidden, zeros + self.first_cell]
        _, memory = self.lstm(rows, memory)
        numbers = self.numbers(self.hidden(memory[1]))
        numbers = ops.reshape(numbers, ops.shape(features))
        total = numbers[..., :1] * correction
        if codes is not None:
            total = codes + total
        threshold = self.threshold_of(numbers[..., 1:] * self.threshold_scale)
        shrunk = self.shrink(total, threshold)
        count = self.support_count(t)
        sign = self.nonnegative
        return support_selection(total, shrunk, count, False, sign), memory

    def get_config(self) -> dict[str, Any]:
        config = {"n_units": self.n_units, "max_support": self.max_support}
        return {**super().get_config(), **config}


def _orthogonal(shape: Shape, dtype: Any = None) -> Tensor:
    """Keras's start of a recurrent kernel, which has no form in half precision."""
    return ops.cast(keras.initializers.Orthogonal()(shape, "float32"), dtype)
