"""What Keras's loops leave to warn of: dead atoms, and rows that are not solved."""

import warnings
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.convergence import gaps_of, warn_of
from sc2keras.metrics import NonzeroFraction
from sc2keras.models.variables import values
from sc2keras.validation import Tensor, depth_of_caller, in_words

# An atom counts as dead after 130 batches that do not use it: what its entries were, at
# their largest, is then a millionth.
_MEMORY = 0.9
_FORGOTTEN = 1e-6
_MOST_DEAD = 0.5


class Activity(NonzeroFraction):
    """The fraction of entries that are not zero, which atoms they are of, and the rows
    that a solver left above its tolerance.

    In a metric, since every backend carries the state of one through its steps.

    Args:
        n_atoms: Integer, the size of a code.
    """

    def __init__(self, n_atoms: int) -> None:
        super().__init__()
        self.recent = self.add_variable((n_atoms,), "zeros", name="recent")
        # How many rows are open, of how many, and their largest gap.
        self.open = self.add_variable((3,), "zeros", name="open")
        self._kept: NDArray | None = None

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

    def reset_state(self) -> None:
        super().reset_state()
        self.open.assign(ops.zeros(3, self.open.dtype))
        self.recent.assign(ops.zeros(self.recent.shape, self.recent.dtype))

    def forget(self) -> None:
        """An epoch begins."""
        self._kept = None

    def keep(self) -> None:
        """The batches of an epoch are over; those of a validation may follow."""
        if self._kept is None:
            (self._kept,) = values([self.recent])

    def warn_of_open(self, solver: Any) -> None:
        n_open, n_rows, largest = values([self.open])[0].tolist()
        warn_of(int(n_open), int(n_rows), largest, solver)

    def warn(self, encoder: Any) -> None:
        """Warns, after a training, of codes of zeros or of mostly dead atoms."""
        if self._kept is None:
            return
        kept, self._kept = self._kept, None
        n_dead, n_atoms = int(np.sum(kept <= _FORGOTTEN * kept.max())), len(kept)
        if n_dead <= _MOST_DEAD * n_atoms:
            return
        what = f"with {n_dead} of {n_atoms} atoms dead: no code uses them"
        if n_dead == n_atoms:
            what = "with codes that are all zero"
        warnings.warn(
            f"Training ended {what}. {remedy(encoder)} sc2keras.diagnose(model, x) "
            "says more.",
            stacklevel=depth_of_caller(),
        )


def remedy(encoder: Any) -> str:
    """What revives dead atoms, a sentence."""
    smaller = "fewer atoms"
    if encoder.solves == "lasso":
        smaller = f"a smaller l1 than {in_words(encoder.l1)}, or fewer atoms"
    rate = ""
    if encoder.is_trained:
        rate = (
            " Or train with callbacks=[sc2keras.callbacks.ReviveAtoms(x)], or at a "
            "lower learning rate."
        )
    return (
        "Build the model anew with dictionary=sc2keras.sample_dictionary(x, "
        f"{encoder.n_atoms}), and if that is not enough with {smaller}.{rate}"
    )
