"""What is off with a model's codes, and what helps, as `diagnose` says it."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sc2keras.layers.double_tanh import is_never_zero
from sc2keras.models import SparseCoder
from sc2keras.models.activity import count_of, remedy, shares_mean
from sc2keras.models.variables import centered

if TYPE_CHECKING:
    from sc2keras.diagnosis import Diagnosis

# λ as a share of max |x Dᵀ|, and norms that are at their limit.
SHARE = 0.2
AT_LIMIT = 0.99
# From where on a figure is off.
_MOST_DEAD = 0.1
_MOST_GAP = 0.2
_LEAST_ZERO = 0.5
_MOST_SMALL = 0.2
_MOST_ERROR = 0.5
_MOST_SHORT = 0.1
# Of the largest feature over the usual one, and of the error of codes of zeros.
_MOST_UNEQUAL = 10.0
_NO_ERROR_OF_TRAINING = 1.05


def findings_of(
    model: SparseCoder, x: NDArray, codes: NDArray, found: "Diagnosis"
) -> Iterator[str]:
    """What is off with codes of samples, and what helps.

    Args:
        model: `SparseCoder`.
        x: Array `(n_samples, *input_shape)`.
        codes: Array `(n_samples, n_atoms)`.
        found: `Diagnosis`, the figures.
    """
    yield from _of_features(model, x)
    cure = remedy(model.encoder, shares_mean(model.encoder, x))
    yield from _findings(model, found, codes, cure)


def _of_features(model: SparseCoder, x: NDArray) -> Iterator[str]:
    """Of columns in different units, the largest rules the objective."""
    left = centered(model.encoder, x)
    if x.ndim != 2 or not left.any():
        return
    sizes = np.sqrt(np.mean(np.square(left, dtype="float64"), axis=0))
    largest, usual = int(np.argmax(sizes)), float(np.median(sizes[sizes > 0]))
    if sizes[largest] > _MOST_UNEQUAL * usual:
        yield (
            f"Feature {largest} is {sizes[largest] / usual:.2g} times as large as the "
            "usual one, so that it rules the objective. Standardise the columns "
            "(sklearn.preprocessing.StandardScaler), and train anew."
        )


def _findings(
    model: SparseCoder, found: "Diagnosis", codes: NDArray, cure: str
) -> Iterator[str]:
    """What is off, and what helps, the worst first; `cure` of dead atoms."""
    encoder: Any = model.encoder
    sparser, less = _sparser_and_less(found, encoder)
    if found.zero == 1.0:
        # A trained dictionary that is random yet tells nothing of the scale of l1.
        is_large = 1.0 <= (found.l1_share or 0.0) < math.inf
        other = " Or scale these samples as those of the training." if is_large else ""
        is_solver = is_large and not encoder.is_trained
        yield f"All codes are zero. {sparser if is_solver else cure + other}"
        return
    if found.error > _NO_ERROR_OF_TRAINING:
        yield (
            f"The error is {found.error:.0%} of the signal, more than codes of zeros "
            "have. Scale these samples as those of the training, or train anew."
        )
    if found.n_dead > _MOST_DEAD * found.n_atoms:
        few = "Look at more samples first. " if found.n_samples < found.n_atoms else ""
        yield (
            f"{found.n_dead:,} of {found.n_atoms:,} atoms are dead: no code of these "
            f"samples uses them. {few}{cure}"
        )
    if found.gap is not None and found.gap > _MOST_GAP:
        longer = "Train for more updates" if encoder.is_trained else "Give tol=1e-3"
        cost = f"{found.gap:.0%} more than" if found.gap < 10 else found._times()
        yield (
            f"The codes cost {cost} the best ones. {longer}, take "
            f"more steps than n_steps={encoder.n_steps}, or subtract the mean that all "
            "samples share."
        )
    if is_never_zero(encoder):
        smooth = "Entries are small where others' are zero, since the activation is"
        yield f'{smooth} smooth. For zeros take activation="shrinkage".'
    elif found.zero < _LEAST_ZERO:
        yield f"Only {found.zero:.0%} of the entries are zero. {sparser}"
    elif found.small > _MOST_SMALL:
        yield f"{found.small:.0%} of the entries do next to nothing. {sparser}"
    if _MOST_ERROR < found.error <= _NO_ERROR_OF_TRAINING:
        # Codes that are far from sparse lost it by something else.
        less = less if found.zero >= _LEAST_ZERO else ""
        yield (
            f"{found.error:.0%} of the signal is lost. To keep more of it, {less}take "
            "more atoms."
        )
    used = (codes != 0).any(axis=0)
    n_short = np.sum(used & (np.linalg.norm(model.dictionary, axis=1) < AT_LIMIT))
    if found.l1 is not None and n_short > _MOST_SHORT * found.n_atoms:
        yield (
            f"{n_short} atoms that codes use are shorter than 1, so that their entries "
            "cost more than they need to. Train for more updates, or divide the rows "
            "of a given dictionary by their norms."
        )


def _sparser_and_less(found: "Diagnosis", encoder: Any) -> tuple[str, str]:
    """What makes codes sparser, a sentence, and less sparse, the begin of one."""
    count = count_of(encoder)
    if count is not None:
        sparser = f"Take a smaller k than k={count}, or more atoms."
        return sparser, f"raise k={count}, or "
    if not found.l1:
        return "Take other arguments of the activation, or a larger l1.", ""
    return _of_l1(found, encoder), f"lower l1={found.l1:.3g}, or "


def _of_l1(found: "Diagnosis", encoder: Any) -> str:
    """How to change λ for sparse features."""
    l1, share = found.l1 or 0.0, found.l1_share or 0.0
    if 0.15 <= share < 1.0 or share == math.inf:
        return f"Train for more updates, or change l1={l1:.3g}."
    verb, start = "Raise" if share < SHARE else "Lower", ""
    if verb == "Raise" and encoder.is_trained and encoder.dictionary.trainable:
        atoms = f"sc2keras.sample_dictionary(x, {found.n_atoms})"
        start = f", in a model with dictionary={atoms}: there random atoms die"
    return (
        f"{verb} l1={l1:.3g}, for instance to {SHARE * l1 / share:.2g}, a fifth of "
        f"max |x Dᵀ| (sc2keras.l1_from){start}."
    )
