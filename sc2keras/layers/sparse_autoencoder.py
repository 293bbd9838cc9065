"""Sparse autoencoders, and their encoder continued for several steps."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras import backend
from sc2keras.layers.autoencoder_rules import (
    RULES,
    Name,
    Rule,
    check_count,
    check_name,
    check_nested,
    kept,
    spread,
    step_size,
)
from sc2keras.layers.chosen_rows import (
    Decoding,
    check_decoding,
    is_sparse,
    keep_largest,
    pass_on_chosen,
    product_of_chosen,
)
from sc2keras.layers.dictionary import DictionaryLayer
from sc2keras.layers.encoder import UnfoldedEncoder, collect_steps
from sc2keras.layers.notes import note, noted
from sc2keras.layers.penalised import NO_ELASTIC_NET
from sc2keras.objective import reconstruction_error
from sc2keras.registry import register_encoder
from sc2keras.training import Recipe
from sc2keras.validation import (
    Shape,
    Tensor,
    check_non_negative,
    check_positive,
    check_positive_integer,
)

_USUAL_K = 32
_AUX_WEIGHT = 1 / 32
# Of the norm of a column of W_e: that of an atom made anew beside the usual one.
_SHARE_OF_NEW = 0.5
_U = "autoencoder_u"


@register_encoder(
    "SparseAutoencoder",
    reference="Gao et al. 2024; Cunningham et al. 2023",
    defaults={"n_steps": 1},
    variants={
        "relu": {"activation": "relu"},
        "batch_top_k": {"activation": "batch_top_k"},
        "jump_relu": {"activation": "jump_relu"},
        "gated": {"activation": "gated"},
        "nested": {"nested": [2, 4]},
        "unshared": {"shared": False},
    },
)
@keras.saving.register_keras_serializable(package="sc2keras")
class SparseAutoencoderBlock(UnfoldedEncoder, DictionaryLayer):
    """Sparse autoencoder: a linear map, an activation T, and a decoder with an offset.

        u = (x − b_d) W_e + b_e,  s_1 = T(u),  x̂ = s D + b_d
        s_{t+1} = T(s_t + γ_t (x − b_d − s_t D) W_e)

    With `n_steps=1` it is the autoencoder of the papers. Further steps are the same
    encoder continued: they correct the code by what it leaves of the signal, with one
    trained number γ_t each, and with `shared=False` a W_e of their own. It starts with
    W_e = Dᵀ, b_d = `offset`, b_e = 0. Atoms have unit norm, and the part of their
    gradient that would change it is left out. Every weight is an attribute of its name,
    such as `kernel`, `bias` (b_e), `offset` (b_d), `jump_threshold` (θ).

    The objective is ½‖x − x̂‖² + penalty, half of what papers write. `activation` is

    - `"relu"`: relu(u), at l1·‖s‖₁.
    - `"top_k"`: the k largest of each sample, at no penalty.
    - `"batch_top_k"`: the B·k largest of a batch of B samples; at inference those above
      a threshold, the moving average of the least that was kept. No penalty.
    - `"jump_relu"`: u·1[u > θ] with one θ an atom, at l1·‖s‖₀; the gradients of both by
      θ are straight-through estimates.
    - `"gated"`: 1[π > 0]·relu(μ), π = u + b_g, μ = e^ρ u + b_m, without b_e, at
      l1·‖relu(π)‖₁ + ½‖x − relu(π) D − b_d‖² with D and b_d held fixed.

    The bias of `"relu"` is a threshold: each step has it, times γ_t. In training, three
    terms may be added. `nested` widths m (Matryoshka): ½‖x − s_{1:m} D_{1:m} − b_d‖²
    for each. `aux_weight` w (AuxK): atoms that were silent for `dead_after` samples
    reconstruct, by the `aux_k` largest entries of u among theirs, what the code leaves,
    e = x − x̂: ½w·V·‖e − ê‖²/V_e, where V and V_e are the mean squared distances of a
    batch's x and e from their means.

    Args:
        n_atoms: Integer, k, the number of atoms (features, latents).
        n_steps: Integer, T, the number of steps.
        shared: Boolean. If True, all steps have one W_e; if False, each has its own.
        activation: String, one of the table's.
        k: Integer, the entries that `"top_k"` and `"batch_top_k"` keep of a sample (on
            average). None: 32, and at most a quarter of the atoms.
        nonnegative: Boolean. If False, `"top_k"` keeps the largest magnitudes.
        nested: Integers, the widths of inner dictionaries, increasing.
        aux_weight: Float >= 0, w. None: 1/32 where k says how many entries are kept,
            else 0.
        aux_k: Integer. None: half of the features.
        dead_after: Integer, samples. (Papers on language models: ten million.)
        threshold: Float >= 0, where the θ of `"jump_relu"` start.
        bandwidth: Float > 0, ε, the width of the window of its estimate.
        trainable_dictionary, trainable_offset: Booleans. If False, D, or b_d, stays as
            it is given.
        decoding: `"sparse"`: what a call with `"top_k"` returned is decoded from the k
            rows of D alone that each code chooses, and no gradient is of more entries.
            `"dense"`: by products with D. The results are the same. `"auto"`: sparse
            where that is faster, from 128 atoms on for each entry that is kept.
        offset: Float, or array of n_features numbers, in the unit of the signals, where
            b_d starts; None: zero. Atoms die while it learns a mean that is large: let
            it start there, `offset=np.median(x, axis=0)`.
        l1, dictionary, unit, return_sequences, **kwargs: See `UnfoldedEncoder` and
            `DictionaryLayer`.

    The call and the errors are those of `UnfoldedEncoder`. In training a call also
    moves the counts of silent samples and the thresholds of `"batch_top_k"`.

    Example:

    >>> import numpy as np
    >>> layer = SparseAutoencoderBlock(20, k=3)
    >>> codes = layer(np.random.default_rng(0).random((4, 8)))
    >>> int((ops.convert_to_numpy(codes) > 0).sum(axis=1).max())
    3

    References:
        Gao et al., Scaling and Evaluating Sparse Autoencoders, 2024. Bussmann, Leask
        and Nanda, BatchTopK Sparse Autoencoders, 2024. Rajamanoharan et al., Jumping
        Ahead, 2024, and Improving Dictionary Learning with Gated Sparse Autoencoders,
        2024. Bussmann et al., Learning Multi-Level Features with Matryoshka Sparse
        Autoencoders, 2025.
    """

    recipe = Recipe("adam", learning_rate=1.5e-3, clipnorm=1.0)
    updated_weights = frozenset({"silent", "batch_threshold"})
    refuses = NO_ELASTIC_NET | {
        "l1": "its penalty has one weight. Use LISTA, or StepLISTA.",
        "nonnegative_dictionary": "its atoms have unit norm alone. Use StepLISTA.",
    }
    offset_in_unit = True
    solves = None
    shows_non_finite = False

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 1,
        *,
        shared: bool = True,
        activation: Name = "top_k",
        k: int | None = None,
        nonnegative: bool = True,
        nested: Sequence[int] = (),
        aux_weight: float | None = None,
        aux_k: int | None = None,
        dead_after: int = 10_000,
        threshold: float = 0.01,
        bandwidth: float = 0.05,
        trainable_dictionary: bool = True,
        decoding: Decoding = "auto",
        trainable_offset: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, trainable_offset=trainable_offset, **kwargs)
        self._has_offset = True
        self.shared = bool(shared)
        self.activation = check_name(activation)
        self.k = check_count(k, self.n_atoms)
        self.nonnegative = bool(nonnegative)
        if not self.nonnegative and activation != "top_k":
            raise ValueError(
                "nonnegative=False is of activation='top_k' alone; received "
                f"activation={activation!r}, whose codes are never negative."
            )
        self.nested = check_nested(nested, self.n_atoms)
        if aux_weight is not None:
            aux_weight = check_non_negative("aux_weight", aux_weight)
        self.aux_weight = aux_weight
        self.aux_k = None if aux_k is None else check_positive_integer("aux_k", aux_k)
        self.dead_after = check_positive_integer("dead_after", dead_after)
        self.threshold = check_non_negative("threshold", threshold)
        self.bandwidth = check_positive("bandwidth", bandwidth)
        self.trainable_dictionary = bool(trainable_dictionary)
        self.decoding = check_decoding(decoding, activation)
        self._rule: Rule = RULES[activation](self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        if "name" in config and config.get("offset") is None:
            # Of a file from before `offset=` was an argument: b_d was always trained.
            config = {**config, "trainable_offset": True}
        return super().from_config(config)

    def count(self) -> int:
        """k, the entries that are kept of a sample."""
        return self.k or min(_USUAL_K, max(1, self.n_atoms // 4))

    def weight_of_aux(self) -> float:
        """w, the weight of what dead atoms reconstruct."""
        if self.aux_weight is not None:
            return self.aux_weight
        return _AUX_WEIGHT if self._rule.selects_support else 0.0

    def build(self, input_shape: Shape) -> None:
        dictionary = self.add_dictionary(input_shape[-1])
        self.dictionary.constraint = keras.constraints.UnitNorm(axis=1)
        self.kernel = self.add_weight_from("kernel", dictionary.T)
        later = range(1, 1 if self.shared else self.n_steps)
        self.kernels = [
            self.add_weight_from(f"kernel_{t}", dictionary.T) for t in later
        ]
        self.add_offset()
        self._rule.build()
        if self.n_steps > 1:
            size = np.log(step_size(dictionary, dictionary.T, self.count()))
            self.log_step = self.add_weight_from(
                "log_step", np.full(self.n_steps - 1, size)
            )
        if self.weight_of_aux():
            self.silent = self.add_weight(
                name="silent",
                shape=(self.n_atoms,),
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
            )

    def atoms(self) -> Tensor:
        """D, with the gradient of its atoms as directions."""
        if not self.dictionary.trainable:
            return self.dictionary
        squared = ops.sum(ops.square(self.dictionary), axis=1, keepdims=True)
        norm = ops.sqrt(ops.maximum(squared, 1e-24))
        return self.dictionary * (ops.stop_gradient(norm) / norm)

    def synthesis(self, codes: Tensor) -> Tensor:
        product = product_of_chosen(codes, self.dictionary)
        return ops.matmul(codes, self.atoms()) if product is None else product

    def center(self, x: Tensor) -> Tensor:
        return x - self.out_of_unit(ops.cast(self.offset, x.dtype))

    def decode(self, codes: Tensor) -> Tensor:
        return self.synthesis(codes) + self.out_of_unit(self.offset)

    def reconstruction(self, codes: Tensor, atoms: Tensor, offset: Tensor) -> Tensor:
        """s D + b_d, in the unit of the signals."""
        return ops.matmul(codes, atoms) + self.out_of_unit(offset)

    def one_sided(self, total: Tensor) -> Tensor:
        """u, without its negative entries where codes are non-negative."""
        return ops.relu(total) if self.nonnegative else total

    def largest(self, x: Tensor, count: int) -> Tensor:
        """The `count` entries of the largest magnitude of each row, and zeros."""
        is_plain = len(x.shape) == 2 and is_sparse(self.decoding, count, self.n_atoms)
        return keep_largest(x, count) if is_plain else kept(x, count)

    def penalty(self, codes: Tensor) -> Tensor:
        return self._rule.penalty(codes)

    def last_activation(self) -> Any:
        return self._rule

    def initial_state(self, prepared: Any) -> Any:
        # Of zeros nothing needs to be computed.
        return (None,)

    def prepare(self, inputs: Tensor, training: bool = False) -> Any:
        return inputs - self.offset, training

    def step(self, prepared: Any, state: Any, t: int) -> tuple[Tensor, Tensor]:
        centred, training = prepared
        codes, residual, size = state[0], centred, 1.0
        kernel = self.kernels[t - 1] if t and not self.shared else self.kernel
        if codes is not None:
            residual = centred - self.synthesis(codes)
            size = ops.exp(self.log_step[t - 1])
        moved = size * ops.matmul(residual, kernel)
        return self._rule.advance(codes, moved, size, t, training)

    def states(self, inputs: Tensor, training: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """`(codes, u)` after each step, in the layer's unit."""
        prepared = self.prepare(inputs, training)
        state = self.initial_state(prepared)
        for t in range(self.n_steps):
            state = self.step(prepared, state, t)
            yield state

    def call(
        self, inputs: Tensor, reverse: bool = False, training: bool | None = None
    ) -> Tensor:
        self.check_call(inputs, reverse)
        if reverse:
            return self.decode(inputs)
        states = list(self.states(self.in_unit(inputs), bool(training)))
        codes = self.out_of_unit(
            collect_steps([codes for codes, _ in states], self.return_sequences)
        )
        if not self.return_sequences:
            pass_on_chosen(states[-1][0], codes)
        if training:
            self._count_silent(states[-1][0])
            note(codes, _U, states[-1][1])
        return codes

    def compute_output_spec(
        self, inputs: Tensor, reverse: bool = False, training: bool | None = None
    ) -> keras.KerasTensor:
        return super().compute_output_spec(inputs, reverse)

    def _count_silent(self, codes: Tensor) -> None:
        if not self.weight_of_aux():
            return
        rows = ops.reshape(codes, (-1, self.n_atoms))
        fired = ops.any(ops.not_equal(rows, 0), axis=0)
        n_rows = ops.cast(ops.shape(rows)[0], self.silent.dtype)
        self.silent.assign(ops.where(fired, 0.0, self.silent + n_rows))

    def auxiliary(
        self, outputs: Tensor, x: Tensor, reconstruction: Tensor, training: bool
    ) -> Tensor | None:
        codes = ops.cast(outputs, x.dtype)
        terms = [self._error_of_first(m, outputs, codes, x) for m in self.nested]
        u = self._u_of(outputs, x) if training or self.activation == "gated" else None
        if u is not None:
            terms.append(self._rule.term(u, x))
            if training and self.weight_of_aux():
                terms.append(self._error_of_dead(u, x, reconstruction))
        terms = [term for term in terms if term is not None]
        return sum(terms[1:], terms[0]) if terms else None

    def _u_of(self, outputs: Tensor, x: Tensor) -> Tensor:
        u = noted(outputs, _U)
        if u is None:
            *_, (_, u) = self.states(self.in_unit(x), training=False)
        return ops.cast(u, x.dtype)

    def _error_of_first(
        self, width: int, outputs: Tensor, codes: Tensor, x: Tensor
    ) -> Tensor:
        product = product_of_chosen(outputs, self.dictionary, width)
        if product is None:
            product = ops.matmul(codes[:, :width], self.atoms()[:width])
        offset = self.out_of_unit(self.offset)
        return reconstruction_error(x, ops.cast(product, x.dtype) + offset)

    def _error_of_dead(self, u: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
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

    def moderate(self, atoms: NDArray) -> None:
        # Of a sample's own direction u is larger than that of any atom which is shared.
        for weight in (self.kernel, *self.kernels):
            kernel = np.array(ops.convert_to_numpy(weight))
            norms = np.maximum(np.linalg.norm(kernel, axis=0), 1e-30)
            others = np.delete(norms, atoms)
            if len(others):
                scale = _SHARE_OF_NEW * np.median(others) / norms[atoms]
                kernel[:, atoms] *= np.minimum(scale, 1.0)
                weight.assign(kernel)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "shared": self.shared,
            "activation": self.activation,
            "k": self.k,
            "nonnegative": self.nonnegative,
            "nested": self.nested,
            "aux_weight": self.aux_weight,
            "aux_k": self.aux_k,
            "dead_after": self.dead_after,
            "threshold": self.threshold,
            "bandwidth": self.bandwidth,
            "trainable_dictionary": self.trainable_dictionary,
            "decoding": self.decoding,
        }
