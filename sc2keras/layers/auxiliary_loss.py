"""AuxK: atoms that were silent learn to reconstruct what a code leaves."""

from typing import Any

import keras
from keras import ops

from sc2keras import backend
from sc2keras.layers.autoencoder_rules import spread
from sc2keras.objective import reconstruction_error
from sc2keras.validation import Tensor, check_non_negative, check_positive_integer

_AUX_WEIGHT = 1 / 32


class AuxiliaryLoss(keras.layers.Layer):
    """What `SparseAutoencoderBlock` adds to its objective in training, for dead atoms.

    Args:
        aux_weight, aux_k, dead_after: See there.
    """

    n_atoms: int
    _rule: Any

    def set_auxiliary(
        self, aux_weight: float | None, aux_k: int | None, dead_after: int
    ) -> None:
        if aux_weight is not None:
            aux_weight = check_non_negative("aux_weight", aux_weight)
        self.aux_weight = aux_weight
        self.aux_k = None if aux_k is None else check_positive_integer("aux_k", aux_k)
        self.dead_after = check_positive_integer("dead_after", dead_after)

    def weight_of_aux(self) -> float:
        """w, the weight of what dead atoms reconstruct."""
        if self.aux_weight is not None:
            return self.aux_weight
        return _AUX_WEIGHT if self._rule.selects_support else 0.0

    def build_silent(self) -> None:
        if self.weight_of_aux():
            self.silent = self.add_weight(
                name="silent",
                shape=(self.n_atoms,),
                initializer="zeros",
                dtype="float32",  # bfloat16 counts to 256, and no further by ones.
                trainable=False,
                aggregation="only_first_replica",
            )

    def count_silent(self, codes: Tensor) -> None:
        if not self.weight_of_aux():
            return
        rows = ops.reshape(codes, (-1, self.n_atoms))
        fired = ops.any(ops.not_equal(rows, 0), axis=0)
        n_rows = ops.cast(ops.shape(rows)[0], self.silent.dtype)
        self.silent.assign(ops.where(fired, 0.0, self.silent + n_rows))

    def error_of_dead(self, u: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        dead = self.silent >= self.dead_after
        target = ops.stop_gradient(x - reconstruction)
        weight = self.weight_of_aux() * spread(x) / ops.maximum(spread(target), 1e-30)
        count = min(self.aux_k or max(1, x.shape[-1] // 2), self.n_atoms)

        def error() -> Tensor:
            candidates = ops.where(dead, self.one_sided(u), 0.0)
            codes = self.largest(candidates, count)
            product = self.out_of_unit(self.synthesis(codes))
            return weight * reconstruction_error(target, product)

        # Mostly none is dead, and then it need not be paid for.
        error = backend.recomputed(error)
        return ops.cond(ops.any(dead), error, lambda: ops.zeros_like(x[:, 0]))
