"""s D from the rows of D alone that a code of k entries chooses."""

from typing import Any, Literal, get_args

import keras
from keras import ops

from sc2keras import backend
from sc2keras.layers.notes import note, noted
from sc2keras.validation import Tensor

Decoding = Literal["auto", "dense", "sparse"]
_CHOSEN = "chosen"
# From so many atoms on for each entry that is kept, an update is faster.
_ATOMS_FOR_ONE = 128


def check_decoding(decoding: Any, activation: str) -> Decoding:
    if decoding not in get_args(Decoding):
        raise ValueError(
            f"decoding must be one of {get_args(Decoding)}; received {decoding=!r}."
        )
    if decoding == "sparse" and activation != "top_k":
        raise ValueError(
            "decoding='sparse' is of activation='top_k' alone, which says how many "
            f"entries a code has; received activation={activation!r}. Use 'auto'."
        )
    return decoding


def is_sparse(decoding: Decoding, count: int, n_atoms: int) -> bool:
    """Whether codes of `count` entries are decoded from their rows of D.

    By "auto" where that is faster; where devices share D, it would be sent around.
    """
    if decoding != "auto":
        return decoding == "sparse"
    is_faster = _ATOMS_FOR_ONE * count <= n_atoms
    return is_faster and keras.distribution.distribution() is None


def keep_largest(x: Tensor, count: int) -> Tensor:
    """The `count` entries of the largest magnitude of each row `(batch, n)`, and zeros.

    Where they are is noted, for `product_of_chosen`.
    """
    magnitude = ops.stop_gradient(ops.abs(x))
    found, chosen = ops.top_k(magnitude, count)
    # No slice of a slice: XLA would sort all of the row for it.
    least = ops.min(found, axis=-1, keepdims=True)
    # Of equal entries the first are chosen: those up to the last that is.
    last = ops.max(ops.where(found == least, chosen, -1), axis=-1, keepdims=True)
    place = ops.arange(x.shape[-1], dtype=chosen.dtype)
    is_tied = ops.logical_and(magnitude == least, place <= last)
    is_kept = ops.logical_or(magnitude > least, is_tied)
    # x − x is zero, but for a NaN or an infinity, which show.
    codes = ops.where(is_kept, x, x - x)
    note(codes, _CHOSEN, chosen)
    return codes


def pass_on_chosen(codes: Tensor, scaled: Tensor) -> None:
    """Notes of a multiple of codes what was noted of them."""
    chosen = noted(codes, _CHOSEN)
    if chosen is not None and scaled is not codes:
        note(scaled, _CHOSEN, chosen)


def product_of_chosen(
    codes: Tensor, dictionary: keras.Variable, width: int | None = None
) -> Tensor | None:
    """s D, or None where it is not known which entries of s may differ from zero.

    With `width` that of so many atoms, the first. Its gradient by s has no other
    entries, and that by D no other rows; that of atoms is of their directions, as
    `SparseAutoencoderBlock.atoms` has it.
    """
    chosen = noted(codes, _CHOSEN)
    if chosen is None:
        return None
    values = ops.take_along_axis(codes, chosen, axis=-1)
    if width is not None:
        values = ops.where(chosen < width, values, 0.0)
    rows = backend.take_rows(dictionary, chosen)
    if dictionary.trainable:
        squared = ops.sum(ops.square(rows), axis=-1)
        norm = ops.sqrt(ops.maximum(squared, 1e-24))
        values = values * (ops.stop_gradient(norm) / norm)
    return ops.squeeze(ops.matmul(values[:, None, :], rows), axis=1)
