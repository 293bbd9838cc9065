"""Sparse autoencoders, and their encoder continued for several steps."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.autoencoder_rules import (
    RULES,
    Name,
    Rule,
    check_count,
    check_name,
    check_nested,
    kept,
    step_size,
)
from sc2keras.layers.auxiliary_loss import AuxiliaryLoss
from sc2keras.layers.chosen_rows import (
    Decoding,
    check_decoding,
    is_sparse,
    keep_largest,
    pass_on_chosen,
    product_of_chosen,
)
from sc2keras.layers.encoder import collect_steps
from sc2keras.layers.matrices import is_product_cheaper
from sc2keras.layers.notes import note, noted
from sc2keras.layers.penalised import NO_ELASTIC_NET
from sc2keras.layers.unit_atoms import UnitAtoms
from sc2keras.objective import reconstruction_error
from sc2keras.registry import register_encoder
from sc2keras.training import Recipe
from sc2keras.validation import (
    Shape,
    Tensor,
    check_non_negative,
    check_positive,
)

_USUAL_K = 32
# Of the norm of a column of W_e: that of an atom made anew beside the usual one.
_SHARE_OF_NEW = 0.5
_U = "autoencoder_u"


class _Shared(NamedTuple):
    """What all steps on x share."""

    centred: Tensor
    training: bool
    product: Tensor | None  # D Dᵀ, where it saves operations,
    correlation: Tensor | None  # and x Dᵀ beside it.


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
        "pursuit": {"exact_gradient": True, "debias": True},
    },
)
@keras.saving.register_keras_serializable(package="sc2keras")
class SparseAutoencoderBlock(AuxiliaryLoss, UnitAtoms):
    """Sparse autoencoder: a linear map, an activation T, and a decoder with an offset.

        u = (x − b_d) W_e + b_e,  s_1 = T(u),  x̂ = s D + b_d
        s_{t+1} = T(s_t + γ_t (x − b_d − s_t D) W_e)

    With `n_steps=1` it is the autoencoder of the papers. Further steps are the same
    encoder continued: they correct the code by what it leaves of the signal, with one
    trained number γ_t each. They have the first step's W_e, one of their own, or Dᵀ
    (`correction`), and every other one may keep the support (`debias`). It starts with
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
        exact_gradient: Boolean. If True, steps from the second on correct codes by Dᵀ
            in place of W_e: the gradient of the error itself, whatever W_e was learned
            to be on the samples at hand. It needs `shared=True`.
        debias: Boolean. If True, steps 2, 4, … keep the entries that the step before
            has chosen, correct their values alone, and choose no others.
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
        Autoencoders, 2025. Foucart, Hard Thresholding Pursuit, 2011, section 5, whose
        FHTP corrects the entries that are chosen in the same way.
    """

    recipe = Recipe("adam", learning_rate=1.5e-3, clipnorm=1.0)
    updated_weights = frozenset({"silent", "batch_threshold"})
    refuses = NO_ELASTIC_NET | {
        "l1": "its penalty has one weight. Use LISTA, or StepLISTA.",
        "nonnegative_dictionary": "its atoms have unit norm alone. Use StepLISTA.",
    }
    solves = None
    shows_non_finite = False

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 1,
        *,
        shared: bool = True,
        exact_gradient: bool = False,
        debias: bool = False,
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
        self.exact_gradient = bool(exact_gradient)
        self.debias = bool(debias)
        if self.exact_gradient and not self.shared:
            raise ValueError(
                "exact_gradient=True leaves later steps no W_e of their own; received "
                "shared=False with it. Leave one of the two."
            )
        self.activation = check_name(activation)
        self.k = check_count(k, self.n_atoms)
        self.nonnegative = bool(nonnegative)
        if not self.nonnegative and activation != "top_k":
            raise ValueError(
                "nonnegative=False is of activation='top_k' alone; received "
                f"activation={activation!r}, whose codes are never negative."
            )
        self.nested = check_nested(nested, self.n_atoms)
        self.set_auxiliary(aux_weight, aux_k, dead_after)
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

    def build(self, input_shape: Shape) -> None:
        dictionary = self.add_dictionary(input_shape[-1])
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
        self.build_silent()

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

    def prepare(self, inputs: Tensor, training: bool = False) -> _Shared:
        centred, product, correlation = inputs - self.offset, None, None
        sizes = (*self.dictionary.shape, inputs.shape[0], self.n_steps - 1)
        if self.exact_gradient and is_product_cheaper(1, *sizes):
            atoms = ops.transpose(self.atoms())
            product = ops.matmul(self.atoms(), atoms)
            correlation = ops.matmul(centred, atoms)
        return _Shared(centred, training, product, correlation)

    def step(self, prepared: Any, state: Any, t: int) -> tuple[Tensor, Tensor]:
        if t == 0:
            moved = ops.matmul(prepared.centred, self.kernel)
            return self._rule.advance(None, moved, 1.0, t, prepared.training)
        codes, u = state
        size = ops.exp(self.log_step[t - 1])
        if prepared.product is not None:
            correction = prepared.correlation - ops.matmul(codes, prepared.product)
        else:
            residual = prepared.centred - self.synthesis(codes)
            correction = ops.matmul(residual, self.kernel_of_step(t))
        moved = size * correction
        if not self.keeps_support(t):
            return self._rule.advance(codes, moved, size, t, prepared.training)
        corrected = self._rule.correct(codes, moved, size)
        pass_on_chosen(codes, corrected)
        return corrected, u

    def kernel_of_step(self, t: int) -> Tensor:
        """What step t, from 0 on, makes corrections of a residual with."""
        if t and self.exact_gradient:
            return ops.transpose(self.atoms())
        return self.kernel if self.shared or not t else self.kernels[t - 1]

    def keeps_support(self, t: int) -> bool:
        """Whether step t, from 0 on, chooses no entries."""
        return self.debias and t % 2 == 1

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
            self.count_silent(states[-1][0])
            note(codes, _U, states[-1][1])
        return codes

    def compute_output_spec(
        self, inputs: Tensor, reverse: bool = False, training: bool | None = None
    ) -> keras.KerasTensor:
        return super().compute_output_spec(inputs, reverse)

    def auxiliary(
        self, outputs: Tensor, x: Tensor, reconstruction: Tensor, training: bool
    ) -> Tensor | None:
        codes = ops.cast(outputs, x.dtype)
        terms = [self._error_of_first(m, outputs, codes, x) for m in self.nested]
        u = self._u_of(outputs, x) if training or self.activation == "gated" else None
        if u is not None:
            terms.append(self._rule.term(u, x))
            if training and self.weight_of_aux():
                terms.append(self.error_of_dead(u, x, reconstruction))
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
            "exact_gradient": self.exact_gradient,
            "debias": self.debias,
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
