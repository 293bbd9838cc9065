"""What Keras's loops leave to warn of: dead atoms, and rows that are not solved."""

import warnings
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers import SparseAutoencoderBlock, TopK
from sc2keras.layers.convergence import gaps_of, warn_of
from sc2keras.metrics import NonzeroFraction
from sc2keras.models.variables import centered, values
from sc2keras.validation import Tensor, depth_of_caller, in_words

# An atom counts as dead after 130 batches that do not use it: what its entries were, at
# their largest, is then a millionth.
_MEMORY = 0.9
_FORGOTTEN = 1e-6
_MOST_DEAD = 0.5
# Of the mean ‖x − b‖², what is ‖mean‖²: from there on the mean is larger than what the
# samples differ by.
_MOST_SHARED = 0.5


class Activity(NonzeroFraction):
    """The fraction of entries that are not zero, which atoms they are of, the rows that
    a solver left above its tolerance, and what of signals is a mean that they share.

    In a metric, since every backend carries the state of one through its steps.

    Args:
        n_atoms: Integer, the size of a code.
    """

    def __init__(self, n_atoms: int) -> None:
        super().__init__()
        self.recent = self.add_variable((n_atoms,), "zeros", name="recent")
        # How many rows are open, of how many, and their largest gap.
        self.open = self.add_variable((3,), "zeros", name="open")
        # Sums over batches of ‖mean‖² and of the mean ‖x − b‖².
        self.shared = self.add_variable((2,), "zeros", name="shared")
        self._kept: list[NDArray] | None = None

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        super().update_state(y_true, y_pred, sample_weight)
        largest = ops.cast(ops.max(ops.abs(y_pred), axis=0), self.recent.dtype)
        self.recent.assign(ops.maximum(_MEMORY * self.recent, largest))

    def note_gaps(self, codes: Tensor, encoder: Any) -> None:
        """Notes the rows of a solver's codes, before its tolerance is lost of them."""
        gaps = gaps_of(codes)
        if gaps is None:
            return
        gaps = ops.cast(gaps, self.open.dtype)
        left = ops.where(gaps > encoder.tol, gaps, 0.0)
        n_open, n_rows = ops.sum(ops.sign(left)), ops.sum(ops.ones_like(left))
        largest = ops.maximum(self.open[2], ops.max(left, initial=0.0))
        counted = ops.stack([self.open[0] + n_open, self.open[1] + n_rows, largest])
        self.open.assign(counted)

    def note_mean(self, x: Tensor, encoder: Any) -> None:
        """Notes how much of signals `(batch, n_features)` is a mean that b may take."""
        if not _learns_offset(encoder):
            return
        left = ops.cast(encoder.center(x), self.shared.dtype)
        n = ops.cast(ops.shape(left)[0], left.dtype)
        squares = ops.sum(ops.square(left))
        # ‖Σx‖² less what it is on average for rows of mean zero: ‖mean‖², unbiased.
        total = ops.sum(ops.square(ops.sum(left, axis=0))) - squares
        total = total / ops.maximum(n * (n - 1.0), 1.0)
        self.shared.assign(self.shared + ops.stack([total, squares / n]))

    def reset_state(self) -> None:
        super().reset_state()
        self.shared.assign(ops.zeros(2, self.shared.dtype))
        self.open.assign(ops.zeros(3, self.open.dtype))
        self.recent.assign(ops.zeros(self.recent.shape, self.recent.dtype))

    def forget(self) -> None:
        """An epoch begins."""
        self._kept = None

    def keep(self) -> None:
        """The batches of an epoch are over; those of a validation may follow."""
        if self._kept is None:
            self._kept = values([self.recent, self.shared])

    def warn_of_open(self, solver: Any) -> None:
        n_open, n_rows, largest = values([self.open])[0].tolist()
        warn_of(int(n_open), int(n_rows), largest, solver)

    def warn(self, encoder: Any) -> None:
        """Warns, after a training, of codes of zeros or of mostly dead atoms."""
        if self._kept is None:
            return
        (kept, shared), self._kept = self._kept, None
        n_dead, n_atoms = int(np.sum(kept <= _FORGOTTEN * kept.max())), len(kept)
        if n_dead <= _MOST_DEAD * n_atoms:
            return
        what = f"with {n_dead} of {n_atoms} atoms dead: no code uses them"
        if n_dead == n_atoms:
            what = "with codes that are all zero"
        cure = remedy(encoder, _is_most(*shared))
        warnings.warn(
            f"Training ended {what}. {cure} sc2keras.diagnose(model, x) says more.",
            stacklevel=depth_of_caller(),
        )


def shares_mean(encoder: Any, x: NDArray) -> bool:
    """Whether samples less the encoder's offset have a mean that is most of them."""
    left = centered(encoder, x).astype("float64")
    mean = float(np.sum(left.mean(axis=0) ** 2))
    return len(x) > 1 and _is_most(mean, float(np.sum(left**2)) / len(x))


def _is_most(mean: float, squares: float) -> bool:
    """Whether ‖mean‖² is most of the mean ‖x − b‖²."""
    return bool(mean > _MOST_SHARED * squares)


def _learns_offset(encoder: Any) -> bool:
    return bool(getattr(encoder, "trainable_offset", False))


def count_of(encoder: Any) -> int | None:
    """k, where it says how many entries of a code are kept, and `l1` says nothing."""
    if isinstance(encoder, SparseAutoencoderBlock):
        return encoder.count() if "top_k" in encoder.activation else None
    layers = (each for each in encoder._flatten_layers() if isinstance(each, TopK))
    return next((layer.count(encoder.n_atoms) for layer in layers), None)


def remedy(encoder: Any, is_mean_left: bool = False) -> str:
    """What revives dead atoms, a sentence.

    Args:
        encoder: Of the model.
        is_mean_left: Boolean, whether `shares_mean` of the signals.
    """
    smaller = "fewer atoms"
    if encoder.solves == "lasso":
        smaller = f"a smaller l1 than {in_words(encoder.l1)}, or fewer atoms"
    rate = ""
    if encoder.is_trained:
        rate = (
            " Or train with callbacks=[sc2keras.callbacks.ReviveAtoms(x)], or at a "
            "lower learning rate."
        )
    first, of = "", "x"
    if is_mean_left and _learns_offset(encoder):
        # Atoms made of such samples would all be their mean.
        of = "x - offset"
        first = "offset=np.median(x, axis=0), as all samples share a mean, and with "
    return (
        f"Build the model anew with {first}dictionary=sc2keras.sample_dictionary({of}, "
        f"{encoder.n_atoms}), and if that is not enough with {smaller}.{rate}"
    )
