"""The samples that a fit of sparse recovery has: drawn for it, or given."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sc2keras.layers.encoder import Encoder
from sc2keras.models import SparseCoder
from sc2keras.models.variables import offset_of
from sc2keras.signals import as_array
from sc2keras.synthetic import sparse_recovery

# Of `sparse_recovery`, but what the dictionary decides.
_PROBLEM = (
    *("density", "support_size", "amplitudes", "scale", "nonnegative"),
    *("snr", "noise"),
)
# At most this share of pairs that are given is to choose on.
_CHOICE_SHARE = 0.2

Pairs = tuple[NDArray, NDArray]
Draw = Callable[[int], Pairs]


def samples_for(
    model: SparseCoder,
    atoms: NDArray,
    pairs: tuple[ArrayLike, ArrayLike] | None,
    n_samples: int,
    seed: int,
    problem: dict[str, Any],
) -> tuple[Draw, Pairs, Pairs]:
    """What draws samples, signals as rows; some to fit on; and some to choose on."""
    seeds = np.random.default_rng(seed)
    if pairs is not None:
        found = _given(model, pairs, n_samples, seeds, problem)
    else:
        found = _drawn(model.encoder, atoms, n_samples, seeds, problem)
    for _, codes in found[1:]:
        if not codes.any():
            words = ", ".join(f"{name}={value!r}" for name, value in problem.items())
            raise ValueError(
                "Samples must have codes that are not all zero, or there is nothing to "
                f"recover; received {len(codes)} of zeros, "
                f"{f'drawn with {words}' if pairs is None else 'of pairs'}. Give more "
                "of them, or denser ones."
            )
    return found


def _drawn(
    encoder: Encoder,
    atoms: NDArray,
    n_samples: int,
    seeds: np.random.Generator,
    problem: dict[str, Any],
) -> tuple[Draw, Pairs, Pairs]:
    unknown = sorted(set(problem) - set(_PROBLEM))
    if unknown:
        raise ValueError(
            f"The problem to fit for is described by {', '.join(_PROBLEM)}; received "
            f"{unknown[0]}={problem[unknown[0]]!r}. Sizes and condition are those of "
            "the model's dictionary."
        )
    problem = {"nonnegative": encoder.nonnegative, **problem}
    # Now: during a fit on JAX the weight holds nothing.
    offset = offset_of(encoder)

    def draw(n: int) -> Pairs:
        how = {"seed": int(seeds.integers(2**62)), **problem}
        found = sparse_recovery(n_samples=n, dictionary=atoms, **how)
        return (found.x + offset).astype("float32"), found.codes

    return draw, draw(n_samples), draw(n_samples)


def _given(
    model: SparseCoder,
    pairs: tuple[ArrayLike, ArrayLike],
    n_samples: int,
    seeds: np.random.Generator,
    problem: dict[str, Any],
) -> tuple[Draw, Pairs, Pairs]:
    if problem:
        raise ValueError(
            f"With pairs no problem is drawn; received {', '.join(sorted(problem))} as "
            "well. Leave out the one or the other."
        )
    if not isinstance(pairs, (tuple, list)) or len(pairs) != 2:
        raise ValueError(f"pairs must be (x, codes); received {type(pairs).__name__}.")
    x, codes = (
        as_array(f"pairs[{i}]", pair).astype("float32") for i, pair in enumerate(pairs)
    )
    wanted = model.input_shape[1:], (model.encoder.n_atoms,)
    if (x.shape[1:], codes.shape[1:]) != wanted or len(x) != len(codes) or len(x) < 5:
        raise ValueError(
            f"pairs must be (x, codes), at least five, of shapes (n, *{wanted[0]}) and "
            f"(n, *{wanted[1]}); received {x.shape} and {codes.shape}."
        )
    x = x.reshape(len(x), -1)
    for i, array in enumerate((x, codes)):
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(rows):
            raise ValueError(
                f"pairs must be finite; received a NaN or an infinity in "
                f"pairs[{i}][{rows[0]}]. Leave that pair out."
            )
    order = seeds.permutation(len(x))
    n_choice = min(n_samples, int(_CHOICE_SHARE * len(x)))
    choice, rest = order[:n_choice], order[n_choice:]

    def draw(n: int) -> Pairs:
        rows = seeds.choice(rest, n)
        return x[rows], codes[rows]

    train = rest[:n_samples]
    return draw, (x[train], codes[train]), (x[choice], codes[choice])
