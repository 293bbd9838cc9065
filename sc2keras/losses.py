"""The objective of sparse coding, and the error of codes, as Keras losses."""

import math
from typing import Any, Literal, get_args

import keras
from keras import ops

from sc2keras.objective import code_difference, l1_norm, reconstruction_error
from sc2keras.validation import Tensor, check_non_negative

RecoveryKind = Literal["mse", "log"]
# Of the squared error over the mean square of the codes: samples below −100 dB are as
# good as exact, and the logarithm no longer tells them apart.
_EXACT = 1e-10
# The logarithm of zero is not finite.
_TINY = 1e-30


@keras.saving.register_keras_serializable(package="sc2keras")
class ReconstructionLoss(keras.losses.Loss):
    """Half the squared error, summed over the features, averaged over the batch.

    loss = mean over samples of ½‖x − x̂‖². `keras.losses.MeanSquaredError` averages over
    the features too, which changes what an l1 weight means.

    Args:
        reduction, name, dtype: Of `keras.losses.Loss`.

    Call arguments:
        y_true, y_pred: Tensors `(batch, ...)`, the signals and their reconstructions.

    Example: the paper's objective in a plain functional model.

    >>> import numpy as np
    >>> from sc2keras.layers import SLSTM
    >>> x = keras.Input((8,))
    >>> slstm = SLSTM(20, n_steps=3)
    >>> codes = keras.layers.ActivityRegularization(l1=0.1)(slstm(x))
    >>> model = keras.Model(x, slstm(codes, reverse=True))
    >>> model.compile(keras.optimizers.Adadelta(1.0), loss=ReconstructionLoss())
    >>> data = np.random.default_rng(0).random((32, 8), dtype="float32")
    >>> history = model.fit(data, data, verbose=0)

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 7 (there without the ½).
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "reconstruction_loss",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return reconstruction_error(flatten_samples(y_true), flatten_samples(y_pred))


@keras.saving.register_keras_serializable(package="sc2keras")
class SparseCodingLoss(keras.losses.Loss):
    """The objective: ½‖x − x̂‖² + l1·‖s‖₁, averaged over the batch.

    It means something only while every atom has a norm of at most 1, as the layers of
    this package keep them: otherwise the codes shrink and the atoms grow.

    Args:
        l1: Float >= 0, λ, the weight of the ℓ1 term.
        reduction, name, dtype: Of `keras.losses.Loss`.

    Call arguments:
        y_true: Tensor `(batch, ...)`, the signals.
        y_pred: `(reconstruction, codes)`, the latter `(batch, n_atoms)`.

    Example:

    >>> from keras import ops
    >>> loss = SparseCodingLoss(l1=0.1)
    >>> x, codes = ops.ones((3, 4)), ops.ones((3, 2))
    >>> round(float(loss(x, (ops.zeros((3, 4)), codes))), 6)
    2.2

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 8, with the ½ of its ISTA step
        (eq. 5), of scikit-learn's `alpha`, and the norm constraint of its eq. 1.
    """

    def __init__(
        self,
        l1: float = 0.1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "sparse_coding_loss",
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.l1 = check_non_negative("l1", l1)

    def call(self, y_true: Tensor, y_pred: tuple[Tensor, Tensor]) -> Tensor:
        reconstruction, codes = y_pred
        signals = flatten_samples(y_true)
        error = reconstruction_error(signals, flatten_samples(reconstruction))
        return error + self.l1 * l1_norm(codes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l1": self.l1}


def flatten_samples(x: Tensor) -> Tensor:
    """`(batch, ...)` as `(batch, n_features)`."""
    return keras.ops.reshape(x, (-1, math.prod(x.shape[1:])))


@keras.saving.register_keras_serializable(package="sc2keras")
class RecoveryLoss(keras.losses.Loss):
    """The error of codes, as one of the two measures of recovery has it.

    Args:
        kind: `"mse"`, mean squares, what `sc2keras.metrics.NMSE` is of; `"log"`, the
            logarithm of each sample's, what `MeanNMSE` is of. A gradient of mean
            squares is that of the few samples that fail, of logarithms that of all.
        **kwargs: Of `keras.losses.Loss`.

    Example:

    >>> loss = RecoveryLoss("log")
    >>> round(float(loss(ops.ones((3, 4)), 0.9 * ops.ones((3, 4)))), 3)
    -4.605
    """

    def __init__(self, kind: RecoveryKind = "mse", **kwargs: Any) -> None:
        super().__init__(**{"name": "recovery_loss", **kwargs})
        if kind not in get_args(RecoveryKind):
            raise ValueError(
                f"the kind of loss must be one of {get_args(RecoveryKind)}; received "
                f"{kind!r}."
            )
        self.kind = kind

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        error = ops.mean(ops.square(code_difference(y_true, y_pred)), axis=-1)
        if self.kind == "mse":
            return error
        power = ops.mean(ops.square(ops.cast(y_true, error.dtype)))
        return ops.log(error + _EXACT * power + _TINY)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind}
