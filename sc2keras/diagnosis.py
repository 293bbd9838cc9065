"""Whether training worked: what a model's codes of some samples look like."""

import dataclasses
import math
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sc2keras import signals
from sc2keras.evaluation import code_quality
from sc2keras.explorer.facts import sparse_coder
from sc2keras.explorer.figures import sample_figures
from sc2keras.findings import AT_LIMIT, SHARE, findings_of
from sc2keras.models import SparseCoder
from sc2keras.models.variables import centered
from sc2keras.validation import check_positive

# Of the samples that are looked at: figures of two digits, in 256 MB.
_MOST_SAMPLES = 2048
_MOST_NUMBERS = 2**25
# Of those whose optimum is found; its time grows with the square of the atoms.
_MOST_OPTIMA = 256
_OPTIMA_TIMES_ATOMS_SQUARED = 10_000_000
_SMALL = 0.01
# Beyond that a square is no number of float32.
_LARGEST = 1e15


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; printed, a table of at most 80 columns.

    Attributes:
        samples: String, which samples were looked at.
        n_samples, n_atoms: Integers, how many samples and atoms.
        n_optima: Integer, the samples that `objective` is the mean of.
        l1, l1_share: λ, and λ as a share of the median of max |x Dᵀ|, from which on a
            code is zero. None where codes are not to solve the LASSO; so the next two.
        optimum, gap: Mean objective of the best codes for the same dictionary, and how
            far `objective` is above it, relative to it.
        objective: Mean of ½‖x − x̂‖² and what the code costs.
        error: Σ‖x − x̂‖² / Σ‖x‖², the share of the signal that is lost.
        zero: Share of the entries that are exactly zero.
        small: Share that are not, but below a hundredth of the largest of their code.
        n_dead: Integer, the atoms that no code uses.
        n_at_limit: Integer, the atoms of norm 1, to a hundredth.
        findings: Tuple of strings: what is off, and what helps.
    """

    samples: str
    n_samples: int
    n_atoms: int
    n_optima: int
    l1: float | None
    l1_share: float | None
    optimum: float | None
    gap: float | None
    objective: float
    error: float
    zero: float
    small: float
    n_dead: int
    n_at_limit: int
    findings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All figures by name, as plain JSON."""
        return dataclasses.asdict(self) | {"findings": list(self.findings)}

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table, `(name, words)`."""
        yield "samples", self.samples
        if self.l1 is not None:
            yield "l1", f"{self.l1:.3g}, {_share(self.l1_share)} max |x Dᵀ|"
        objective = f"{self.objective:.4g}"
        if self.gap is not None:
            how_far = f"{self.gap:z.1%} above" if self.gap < 10 else self._times()
            objective += f", {how_far} the optimum {self.optimum:.4g}"
            objective += f" (of {self.n_optima:,} samples)"
        yield "objective", objective
        yield "error", f"{self.error:.1%} of the signal"
        small = f"{self.small:.1%} small (below 1 % of the largest of their code)"
        yield "entries", f"{self.zero:.1%} zero, {small}"
        atoms = f"{self.n_dead:,} dead, {self.n_at_limit:,} at the limit of norm 1"
        yield "atoms", f"{self.n_atoms:,}: {atoms}"
        for number, finding in enumerate(self.findings or ["nothing"]):
            yield "" if number else "off", finding

    def _times(self) -> str:
        """The objective in optima."""
        times = 1 + (self.gap or 0.0)
        return f"{times:,.0f} times" if times < 1e6 else f"{times:.2g} times"

    def __str__(self) -> str:
        return "\n".join(line(*row) for row in self.rows())


def diagnose(model: Any, x: Any, seed: int = 0) -> Diagnosis:
    """Looks whether training worked, and says what helps where it did not.

    Time and memory are bounded: of more than 2,048 samples a random choice is looked
    at, or of a stream the first ones; the optimum is found for 256 of them or fewer.

    Args:
        model: `SparseCoder`, trained or not, with predictions or without; or a
            `SparseCodeTransformer` that was fitted, of whose `transform` the codes are.
        x: Samples, as `SparseCoder.encode` takes them.
        seed: Integer, of the choice.

    Returns:
        `Diagnosis`: figures as attributes, and what is off in `findings`.

    Raises:
        ValueError: If `x` holds no samples, none that the model takes, only zeros, or
            numbers whose squares float32 cannot hold.

    Example:

    >>> import sc2keras
    >>> model = sc2keras.applications.SC2Net(weights="digits")
    >>> found = diagnose(model, sc2keras.datasets.load("digits").x_test)
    >>> found.n_samples, found.zero > 0.5, found.n_dead < 20, found.gap < 0.15
    (360, True, True, True)
    """
    name = getattr(model, "_name_of_l1", "l1")
    model = sparse_coder(model)
    signals.warn_of_integers(x)
    x, samples = _choose(model, x, np.random.default_rng(seed), seed)
    codes = model.encode(x)
    found = _figures(model, x, codes, samples)
    off = findings_of(model, x, codes, found)
    # Of a transformer another parameter may say λ.
    named = tuple(re.sub(r"\bl1\b", name, finding) for finding in off)
    return dataclasses.replace(found, findings=named)


def l1_from(x: ArrayLike, dictionary: ArrayLike, share: float = SHARE) -> float:
    """λ as a share of what the data give: of the median of max_j |(x Dᵀ)_j|.

    A code is zero if and only if λ is at least max_j |(x Dᵀ)_j| of its signal, so that
    a share means the same for data of every scale: 0.01 to 0.05 keeps most of the
    signal, 0.1 to 0.3 gives sparse features, above 0.5 one or two atoms are left.

    Args:
        x: Array `(n_samples, ...)`. Samples that are all zero are left out.
        dictionary: Array `(n_atoms, n_features)`, such as `sample_dictionary(x, 50)`.
        share: Float > 0.

    Returns:
        Float, for `l1=`.

    Raises:
        ValueError: If `x` and `dictionary` are not finite, do not fit, or have nothing
            in common.

    Example:

    >>> l1_from(np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]), np.eye(2), share=0.5)
    1.5
    """
    check_positive("share", share)
    x, dictionary = signals.as_array("x", x), signals.as_array("dictionary", dictionary)
    fits = dictionary.ndim == 2 and len(dictionary) > 0
    if not fits or math.prod(x.shape[1:]) != dictionary.shape[1]:
        raise ValueError(
            f"x of shape {x.shape} must be (n_samples, ...), and dictionary of shape "
            f"{dictionary.shape} (n_atoms, n_features), with the features of a sample. "
            "Make one of x with sc2keras.sample_dictionary(x, n_atoms)."
        )
    signals.check_finite("x", x, x.dtype.name)
    signals.check_finite("dictionary", dictionary, dictionary.dtype.name)
    limit = _usual_limit(x, dictionary) if len(x) else 0.0
    if limit == 0.0:
        raise ValueError(
            f"x of shape {x.shape} holds no sample that the dictionary has a part in. "
            "Give samples that are not zero, and atoms that were made of such."
        )
    return share * limit


def line(name: str, words: str) -> str:
    """A row of a table, in as many lines of 80 columns as it takes."""
    lines = textwrap.wrap(words, 79 - 14)
    if len(name) >= 14:  # It stands above the words.
        lines.insert(0, "")
    return f"{name:<14}" + ("\n" + 14 * " ").join(lines)


def _choose(
    model: SparseCoder, x: Any, rng: np.random.Generator, seed: int
) -> tuple[NDArray, str]:
    """Samples of `x`, and which these are."""
    shape = model.input_shape[1:]
    n_most = min(_MOST_SAMPLES, _MOST_NUMBERS // max(model.dictionary.shape))
    x = signals.open_samples("x", x, shape)
    if hasattr(x, "shape"):
        n = x.shape[0]
        rows = np.arange(n)
        if n > n_most:
            rows = np.sort(rng.choice(n, n_most, replace=False))
        # What is no array of NumPy may take no list of rows.
        parts = [x[rows]] if isinstance(x, np.ndarray) else [x[i : i + 1] for i in rows]
        which = f"{len(rows):,} of {n:,}, drawn with seed {seed}"
        which = f"all {n:,}" if n <= n_most else which
    else:
        parts = list(_first(signals.batches("x", x, shape, n_most), n_most))
        rows = np.arange(sum(map(len, parts)))
        which = f"the first {len(rows):,}"
    if not len(rows):
        raise ValueError("x holds no samples. Give some that the model encodes.")
    chosen = np.concatenate([signals.as_samples("x", part, shape) for part in parts])
    row = signals.first_not_finite(chosen)
    if row is not None:
        raise signals.not_finite("x", int(rows[row]))
    largest = float(np.abs(chosen).max(initial=0.0))
    if not largest:
        raise ValueError(
            f"x is zero in all of {len(rows):,} samples, whose codes say nothing. Give "
            "others."
        )
    if not 1 / _LARGEST < largest < _LARGEST:
        raise ValueError(
            f"x has entries up to {largest:.2g}, whose squares float32 does not hold. "
            "Divide it by that, train anew, and diagnose what comes of it."
        )
    return chosen, which


def _first(parts: Iterator[NDArray], n_most: int) -> Iterator[NDArray]:
    """The first rows of batches."""
    n = 0
    for part in parts:
        yield part[: n_most - n]
        n += len(part)
        if n >= n_most:
            return


def _figures(model: SparseCoder, x: NDArray, codes: NDArray, samples: str) -> Diagnosis:
    encoder, dictionary = model.encoder, model.dictionary
    n_atoms, sizes = len(dictionary), np.abs(codes)
    each = sample_figures(model, x, codes)
    n_optima, l1, share, objective, optimum, gap = len(x), None, None, None, None, None
    if encoder.solves == "lasso":
        n_affordable = max(8, _OPTIMA_TIMES_ATOMS_SQUARED // n_atoms**2)
        n_optima = min(len(x), _MOST_OPTIMA, n_affordable)
        rows = np.flatnonzero(x.reshape(len(x), -1).any(axis=1))
        # Evenly spread: samples may be in an order.
        rows = rows[np.linspace(0, len(rows) - 1, n_optima).round().astype(int)]
        quality = code_quality(model, x[rows], codes[rows])
        objective, optimum, gap = quality.objective, quality.optimum, quality.gap
        l1 = float(np.mean(encoder.l1))
        # Of weights an atom, that of atoms in units of theirs.
        weighted = dictionary
        if isinstance(encoder.l1, np.ndarray):
            weighted = dictionary * (l1 / np.maximum(encoder.l1, 1e-30))[:, None]
        limit = _usual_limit(centered(encoder, x), weighted, encoder.nonnegative)
        share = l1 / limit if limit else math.inf
    not_zero = codes != 0
    is_small = not_zero & (sizes < _SMALL * sizes.max(axis=1, keepdims=True))
    return Diagnosis(
        samples=samples,
        n_samples=len(x),
        n_atoms=n_atoms,
        n_optima=n_optima,
        l1=l1,
        l1_share=share,
        optimum=optimum,
        gap=gap,
        objective=float(np.mean(each.objective)) if objective is None else objective,
        error=float(np.sum(each.error) / max(1e-30, np.sum(each.energy))),
        zero=float(1 - np.mean(not_zero)),
        small=float(np.mean(is_small)),
        n_dead=int(np.sum(~not_zero.any(axis=0))),
        n_at_limit=int(np.sum(np.linalg.norm(dictionary, axis=1) >= AT_LIMIT)),
    )


def _usual_limit(x: NDArray, dictionary: NDArray, nonnegative: bool = False) -> float:
    """The median of max_j |(x Dᵀ)_j| over the samples where it is not zero, or 0."""
    size = np.asarray if nonnegative else np.abs
    parts = np.array_split(x.reshape(len(x), -1), 1 + len(x) // 4096)
    largest = np.concatenate([size(p @ dictionary.T).max(axis=1) for p in parts])
    largest = largest[largest > 0]
    return float(np.median(largest)) if len(largest) else 0.0


def _share(share: float | None) -> str:
    share = share or 0.0
    if share == 0.0 or 1e-3 <= share < 10 or share == math.inf:
        return f"{share:.1%} of"
    return f"{share:.2g} times"
