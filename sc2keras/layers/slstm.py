"""The Sparse LSTM, as a cell and as an encoder."""

from typing import Any

import keras
from keras import ops

from sc2keras.layers.rebuilding import Given, SideBySide
from sc2keras.layers.recurrent import MomentumCell, RecurrentEncoder
from sc2keras.registry import register_encoder
from sc2keras.training import Recipe
from sc2keras.validation import Shape, Tensor


@keras.saving.register_keras_serializable(package="sc2keras")
class SLSTMCell(MomentumCell):
    """Cell of the Sparse LSTM (SLSTM).

        i_t = σ(s_{t−1} U_i + x_t W_i + b_i)
        f_t = σ(s_{t−1} U_f + x_t W_f + b_f)
        c̃_t = s_{t−1} W_e + x_t W_d
        c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t
        s_t = h(c_t)

    There is no output gate: the paper discards it, though its eq. 14 still lists it.
    The candidate starts as ISTA's step, W_d = τDᵀ and W_e = I − τ D Dᵀ. `prepare(x)` is
    the part that depends on x alone; `step(prepared, states)` is the rest.

    Args:
        n_atoms: Integer, k, the number of atoms.
        l1: Float >= 0, λ, the weight of the ℓ1 term, or an array, one weight an atom.
        l2, nonnegative, nonnegative_dictionary, offset, trainable_offset: What codes
            are wanted; see `DictionaryLayer`.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        activation: `"shrinkage"` (exact zeros), `"double_tanh"` (eq. 17; codes small,
            never exactly zero) or an `Activation`, h, trainable per atom.
        use_bias: Boolean, whether the gates have biases b_i and b_f. The paper's have
            none.
        gate_initializer: Initializer of W_i, W_f, U_i and U_f. Zeros: every gate
            starts at σ(b), the same for all x.
        bias_initializer: Initializer of b_i and b_f.
        recurrent: See `MatrixLayer`. Factored, the gates are of what is left of x, too:
            σ((x_t − s_{t−1} D) W_i + b_i), that is U_i = −D W_i.
        trainable_dictionary, tied, trainable_step_size, unit: See `MatrixLayer`.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Tensor `(batch, n_features)`, one time step.
        states: `[codes, cell]`, two tensors `(batch, n_atoms)`.

    Returns:
        `(codes, [codes, cell])`.

    Raises:
        ValueError: If an argument or the dictionary is unusable.

    Example:

    >>> import numpy as np
    >>> layer = keras.layers.RNN(SLSTMCell(20), return_sequences=True)
    >>> tuple(layer(np.ones((4, 6, 8))).shape)
    (4, 6, 20)

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 12 to 17.
    """

    n_products = 3

    def __init__(
        self,
        n_atoms: int,
        *,
        use_bias: bool = True,
        gate_initializer: str | keras.initializers.Initializer = "zeros",
        bias_initializer: str | keras.initializers.Initializer = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, **kwargs)
        self.use_bias = bool(use_bias)
        self.gate_initializer = keras.initializers.get(gate_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: Shape) -> None:
        n_features, n_atoms = input_shape[-1], self.n_atoms
        recurrent = self.build_candidate(n_features)
        self.gate_kernel = self.add_weight(
            name="gate_kernel",
            shape=(n_features, 2 * n_atoms),
            initializer=self.gate_initializer,
        )
        if recurrent is not None:
            # [W_e | U_i | U_f]: one product a step.
            self.recurrent_kernel = self.add_weight(
                name="recurrent_kernel",
                shape=(n_atoms, 3 * n_atoms),
                initializer=SideBySide(
                    [(Given(recurrent), n_atoms), (self.gate_initializer, 2 * n_atoms)]
                ),
            )
        self.gate_bias = None
        if self.use_bias:
            self.gate_bias = self.add_weight(
                name="gate_bias",
                shape=(2 * n_atoms,),
                initializer=self.bias_initializer,
            )

    def parts(self, inputs: Tensor) -> list[Tensor]:
        gates = ops.matmul(inputs, self.gate_kernel)
        if self.gate_bias is not None:
            gates += self.gate_bias
        return [*super().parts(inputs), *ops.split(gates, 2, axis=-1)]

    def recurrent_product(self) -> Tensor:
        gates = ops.matmul(self.dictionary, self.gate_kernel)
        return ops.concatenate([super().recurrent_product(), -gates], axis=1)

    def gates(self, candidate: Tensor, *of_gates: Tensor) -> tuple[Tensor, ...]:
        return candidate, *map(ops.sigmoid, of_gates)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "gate_initializer": keras.initializers.serialize(self.gate_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


@register_encoder(
    "SC2Net",
    reference="Zhou et al., An End-to-End Sparse Coding, section 3.2",
    variants={"unbiased": {"use_bias": False}},
)
@keras.saving.register_keras_serializable(package="sc2keras")
class SLSTM(RecurrentEncoder):
    """The Sparse LSTM: `n_steps` steps of `SLSTMCell` on the same x.

    On a 2-D input the cell is stepped `n_steps` times on x, which is projected once, as
    the paper unfolds it; weights are shared over steps. On a 3-D input it is stepped
    over the sequence, as in any `keras.layers.RNN`.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps on a 2-D input.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: Of `SLSTMCell`, such as `l1`, `dictionary` and `activation`, and of
            `keras.layers.RNN`, such as `return_state`, `name`, `dtype`.

    Call arguments:
        inputs: Tensor `(batch, n_features)` or `(batch, time, n_features)`; codes,
            `(..., n_atoms)`, in reverse.
        initial_state: `[codes, cell]`, two tensors `(batch, n_atoms)`, or None for
            zeros.
        reverse: Boolean. If True, decode: x̂ = s D, with the same weights.

    Returns:
        Tensor `(batch, n_atoms)`, the codes; in reverse `(..., n_features)`.

    Raises:
        ValueError: If an argument or the dictionary is unusable.

    Example:

    >>> import numpy as np
    >>> layer = SLSTM(20, n_steps=3)
    >>> codes = layer(np.ones((4, 8)))
    >>> tuple(codes.shape), tuple(layer(codes, reverse=True).shape)
    ((4, 20), (4, 8))

    Reference:
        Zhou et al., An End-to-End Sparse Coding, section 3.2.
    """

    recipe = Recipe("adadelta")
    cell_class = SLSTMCell
