"""Adaptive ISTA and the Sparse LSTM: cells for `keras.layers.RNN`, and encoders."""

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from sc2keras.layers.rebuilding import (
    FixedArguments,
    Given,
    SideBySide,
    remake,
)
from sc2keras.layers.unfolded import (
    Activation,
    DictionaryLayer,
    Recurrent,
    check_activation,
    check_built,
    check_recurrent,
    collect_steps,
    is_factored,
    is_product_cheaper,
    minus_shared,
)
from sc2keras.validation import Shape, Tensor, check_positive_integer


class _MomentumCell(DictionaryLayer):
    """What the cells share: candidate, cell state and activation (eq. 9 to 11).

    A subclass gives `build`, `project`, and `gates(total)`, which returns the candidate
    c̃ and the gates i and f from the sum of the products with x and s_{t−1}, and counts
    in `n_products` the matrices that s_{t−1} is multiplied with.
    """

    n_products = 1

    def __init__(
        self,
        n_atoms: int,
        l1: float = 0.1,
        dictionary: ArrayLike | None = None,
        activation: Activation = "shrinkage",
        trainable_dictionary: bool = True,
        tied: bool = True,
        recurrent: Recurrent = "auto",
        trainable_step_size: bool = False,
        unit: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            n_atoms,
            l1=l1,
            dictionary=dictionary,
            trainable_dictionary=trainable_dictionary,
            tied=tied,
            trainable_step_size=trainable_step_size,
            unit=unit,
            **kwargs,
        )
        # === Config ===
        self.activation = check_activation(activation)
        self.recurrent = check_recurrent(recurrent)

        # === State ===
        self.state_size = [self.n_atoms, self.n_atoms]
        self.output_size = self.n_atoms

    def build_candidate(self, n_features: int) -> NDArray | None:
        """Adds D, W_d, and the activation; the initial W_e, if that is a weight."""
        step_size, dictionary = self.build_dictionary(
            n_features, n_kernels=0 if self.tied and self.trainable_dictionary else 1
        )
        self.activation_layer = self.build_activation(self.activation, step_size)
        self.factored = is_factored(
            self.recurrent, self.n_atoms, n_features, self.n_products
        )
        if self.factored:
            return None
        return np.eye(self.n_atoms) - step_size * dictionary @ dictionary.T

    def prepare(self, inputs: Tensor, n_steps: int = 1) -> tuple[Tensor, Tensor | None]:
        """What so many steps on x share.

        `(−project(x), recurrent_kernel)`, the latter the matrix that s_{t−1} is
        multiplied with; or, in the factored form where D times the other matrices
        would take more operations than it spares, `(x, None)`.
        """
        if not self.factored:
            return -self.project(inputs), self.recurrent_kernel
        sizes = (*self.dictionary.shape, inputs.shape[0], n_steps)
        if is_product_cheaper(self.n_products, *sizes):
            return -self.project(inputs), self.recurrent_product()
        return inputs, None

    def step(
        self,
        prepared: tuple[Tensor, Tensor | None],
        states: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """One step from what `prepare` returns.

        Args:
            prepared: `prepare(inputs)`.
            states: `[codes, cell]`, two tensors `(batch, n_atoms)`; None for zeros,
                which saves the products with them.

        Returns:
            `(codes, [codes, cell])`.
        """
        codes, cell = (None, None) if states is None else states
        shared, kernel = prepared
        if kernel is not None:
            total = -shared
            if codes is not None:
                total = minus_shared(ops.matmul(codes, kernel), shared)
        else:
            left = shared
            if codes is not None:
                left = -minus_shared(self.decode(codes), shared)
            total = self.project(left)
        candidate, input_gate, forget_gate = self.gates(total)
        if kernel is None and codes is not None:
            candidate = codes + candidate
        new = input_gate * candidate
        cell = new if cell is None else forget_gate * cell + new
        codes = self.activation_layer(cell)
        return codes, [codes, cell]

    def call(
        self, inputs: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        self.check_call(inputs, reverse=False)
        states = [self.in_unit(state) for state in states]
        _, states = self.step(self.prepare(self.in_unit(inputs)), states)
        states = [self.out_of_unit(state) for state in states]
        return states[0], states

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        return [
            ops.zeros((batch_size, size), dtype=self.compute_dtype)
            for size in self.state_size
        ]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": self.activation,
            "recurrent": self.recurrent,
        }


@keras.saving.register_keras_serializable(package="sc2keras")
class AdaptiveISTACell(_MomentumCell):
    """Cell of adaptive ISTA: ISTA with trainable momentum vectors.

        c̃_t = s_{t−1} W_e + x_t W_d
        c_t = f ⊙ c_{t−1} + i ⊙ c̃_t
        s_t = h(c_t)

    with one i and one f an atom, shared by all steps. It starts as ISTA: i = 1, f = 0,
    W_d = τDᵀ, W_e = I − τ D Dᵀ, and soft thresholds at l1·τ. Its states are
    `[codes, cell]`.

    Args:
        n_atoms: Integer, k, the number of atoms.
        l1: Float >= 0, λ, the weight of the ℓ1 term.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        activation: `"shrinkage"` or `"double_tanh"`, h.
        trainable_dictionary: Boolean. If False, D stays as it is given.
        tied: Boolean. If True, W_d = τDᵀ is one matrix with the decoder, as in the
            paper. If False, or if D is not trainable, W_d is a weight of its own that
            starts at τDᵀ: the codes come much closer to the optimum.
        recurrent: `"full"`: W_e is a matrix of its own, k × k. `"factored"`:
            W_e = I − D W_d, so that c̃_t = s_{t−1} + (x_t − s_{t−1} D) W_d; computed as
            it stands, or by W_e, whichever takes fewer operations. `"auto"`: factored
            from 2,048 atoms on where it takes fewer operations.
        trainable_step_size: Boolean. If True, τ, the scale of W_d, is trained from
            1/L on.
        unit: Float > 0, the unit c that signals and codes are computed in,
            s(x) = c · s₁(x/c) with l1/c: for pixels of 0 to 255, with l1 as large, 255
            gives what 1 gives for pixels of 0 to 1.
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
    >>> layer = keras.layers.RNN(AdaptiveISTACell(20))
    >>> tuple(layer(np.ones((4, 6, 8))).shape)
    (4, 20)

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 9 to 11.
    """

    def build(self, input_shape: Shape) -> None:
        recurrent = self.build_candidate(input_shape[-1])
        if recurrent is not None:
            self.recurrent_kernel = self.add_weight(
                name="recurrent_kernel",
                shape=recurrent.shape,
                initializer=Given(recurrent),
            )
        self.input_gate = self.add_weight(
            name="input_gate", shape=(self.n_atoms,), initializer="ones"
        )
        self.forget_gate = self.add_weight(
            name="forget_gate", shape=(self.n_atoms,), initializer="zeros"
        )

    def gates(self, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return total, self.input_gate, self.forget_gate


@keras.saving.register_keras_serializable(package="sc2keras")
class SLSTMCell(_MomentumCell):
    """Cell of the Sparse LSTM (SLSTM).

        i_t = σ(s_{t−1} U_i + x_t W_i + b_i)
        f_t = σ(s_{t−1} U_f + x_t W_f + b_f)
        c̃_t = s_{t−1} W_e + x_t W_d
        c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t
        s_t = h(c_t)

    There is no output gate: the paper discards it, though its eq. 14 still lists it.
    The candidate starts as ISTA's step, W_d = τDᵀ and W_e = I − τ D Dᵀ. The states are
    `[codes, cell]`. `prepare(x)` is the part that depends on x alone;
    `step(prepared, states)` is the rest; `call` composes both.

    Args:
        n_atoms: Integer, k, the number of atoms.
        l1: Float >= 0, λ, the weight of the ℓ1 term.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        activation: `"double_tanh"` (eq. 17; codes small, never exactly zero) or
            `"shrinkage"` (exact zeros), h, trainable per atom.
        use_bias: Boolean, whether the gates have biases b_i and b_f. The paper's have
            none.
        gate_initializer: Initializer of W_i, W_f, U_i and U_f. Zeros: every gate
            starts at σ(b), the same for all x, and training opens and closes it.
        bias_initializer: Initializer of b_i and b_f.
        trainable_dictionary: Boolean. If False, D stays as it is given.
        tied: Boolean. If True, W_d = τDᵀ is one matrix with the decoder, as in the
            paper. If False, or if D is not trainable, W_d is a weight of its own that
            starts at τDᵀ: the codes come much closer to the optimum.
        recurrent: `"full"`: W_e, U_i and U_f are matrices of their own, k × k.
            `"factored"`: candidate and gates are products with what is left of x,
            c̃_t = s_{t−1} + (x_t − s_{t−1} D) W_d and σ((x_t − s_{t−1} D) W_i + b_i),
            that is W_e = I − D W_d and U_i = −D W_i; computed as they stand, or by W_e
            and U_i, whichever takes fewer operations. `"auto"`: factored from 2,048
            atoms on where it takes fewer operations, 4·d·k in place of 3·k².
        trainable_step_size: Boolean. If True, τ, the scale of W_d, is trained from
            1/L on.
        unit: Float > 0, the unit c that signals and codes are computed in,
            s(x) = c · s₁(x/c) with l1/c: for pixels of 0 to 255, with l1 as large, 255
            gives what 1 gives for pixels of 0 to 1.
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
        l1: float = 0.1,
        dictionary: ArrayLike | None = None,
        activation: Activation = "double_tanh",
        use_bias: bool = True,
        gate_initializer: str | keras.initializers.Initializer = "zeros",
        bias_initializer: str | keras.initializers.Initializer = "zeros",
        trainable_dictionary: bool = True,
        tied: bool = True,
        recurrent: Recurrent = "auto",
        trainable_step_size: bool = False,
        unit: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            n_atoms,
            l1=l1,
            dictionary=dictionary,
            activation=activation,
            trainable_dictionary=trainable_dictionary,
            tied=tied,
            trainable_step_size=trainable_step_size,
            unit=unit,
            recurrent=recurrent,
            **kwargs,
        )
        # === Config ===
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

    def project(self, inputs: Tensor) -> Tensor:
        """x [W_d | W_i | W_f] with the biases: what depends on x alone."""
        gates = ops.matmul(inputs, self.gate_kernel)
        if self.gate_bias is not None:
            gates += self.gate_bias
        return ops.concatenate([super().project(inputs), gates], axis=-1)

    def recurrent_product(self) -> Tensor:
        gates = ops.matmul(self.dictionary, self.gate_kernel)
        return ops.concatenate([super().recurrent_product(), -gates], axis=1)

    def gates(self, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # A split's gradient is one concatenation; that of slices, sums of padding.
        candidate, input_gate, forget_gate = ops.split(total, 3, axis=-1)
        return candidate, ops.sigmoid(input_gate), ops.sigmoid(forget_gate)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "gate_initializer": keras.initializers.serialize(self.gate_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


class UnfoldedRNN(FixedArguments, keras.layers.RNN):
    """Base of the encoders that hold a cell.

    On a 2-D input the cell is stepped `n_steps` times on the same x, which it projects
    once. On a 3-D input this is `keras.layers.RNN` over the sequence. A call in reverse
    decodes.
    """

    def __init__(self, cell: _MomentumCell, n_steps: int, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
        self.n_steps = check_positive_integer("n_steps", n_steps)

    def build(
        self, sequences_shape: Shape, initial_state_shape: Sequence[Shape] | None = None
    ) -> None:
        if len(sequences_shape) not in (2, 3):
            raise ValueError(
                f"{type(self).__name__} expects inputs of shape (batch, n_features) or "
                "(batch, time, n_features), with samples flattened; received "
                f"{tuple(sequences_shape)}."
            )
        if len(sequences_shape) == 2:
            if self.stateful:
                raise ValueError(
                    "stateful=True is for 3-D inputs, (batch, time, features); "
                    f"received inputs of shape {tuple(sequences_shape)}. Pass "
                    "initial_state instead."
                )
            sequences_shape = (sequences_shape[0], self.n_steps, sequences_shape[1])
        super().build(sequences_shape, initial_state_shape)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        check_built(self, kwargs)
        return super().__call__(*args, **kwargs)

    def call(
        self,
        sequences: Tensor,
        initial_state: Sequence[Tensor] | None = None,
        mask: Tensor | None = None,
        training: bool = False,
        reverse: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        self.cell.check_call(sequences, reverse)
        if reverse:
            return self.cell.decode(sequences)
        if len(sequences.shape) == 3:
            return super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        if initial_state is None and self.n_steps == 1:
            # With s_0 = 0 left out, the recurrent weights would have no gradient.
            initial_state = self.get_initial_state(ops.shape(sequences)[0])
        states: Any = None
        in_unit, out_of_unit = self.cell.in_unit, self.cell.out_of_unit
        if initial_state is not None:
            states = [
                in_unit(ops.cast(state, self.compute_dtype)) for state in initial_state
            ]
        prepared = self.cell.prepare(in_unit(sequences), self.n_steps)
        steps = []
        for _ in range(self.n_steps):
            codes, states = self.cell.step(prepared, states)
            steps.append(codes)
        output = out_of_unit(collect_steps(steps, self.return_sequences))
        if not self.return_state:
            return output
        return (output, *(out_of_unit(state) for state in states))

    def compute_output_spec(
        self,
        sequences: Tensor,
        initial_state: Sequence[Tensor] | None = None,
        mask: Tensor | None = None,
        training: bool = False,
        reverse: bool = False,
    ) -> keras.KerasTensor | tuple[keras.KerasTensor, ...]:
        self.cell.check_call(sequences, reverse)
        if reverse:
            shape = (*sequences.shape[:-1], self.cell.n_features)
            return keras.KerasTensor(shape, dtype=self.compute_dtype)
        shapes = self.compute_output_shape(sequences.shape)
        if not self.return_state:
            return keras.KerasTensor(shapes, dtype=self.compute_dtype)
        return tuple(keras.KerasTensor(s, dtype=self.compute_dtype) for s in shapes)

    def compute_output_shape(
        self, sequences_shape: Shape, initial_state_shape: Sequence[Shape] | None = None
    ) -> Shape | tuple[Shape, ...]:
        if len(sequences_shape) == 2:
            sequences_shape = (sequences_shape[0], self.n_steps, sequences_shape[1])
        return super().compute_output_shape(sequences_shape, initial_state_shape)

    @property
    def dictionary(self) -> keras.Variable:
        """D, the weight `(n_atoms, n_features)` of the cell; None before `build`."""
        return self.cell.dictionary

    @property
    def n_atoms(self) -> int:
        return self.cell.n_atoms

    @property
    def n_features(self) -> int | None:
        return self.cell.n_features

    @property
    def l1(self) -> float:
        return self.cell.l1

    @property
    def unit(self) -> float:
        return self.cell.unit

    @property
    def shows_non_finite(self) -> bool:
        return self.cell.shows_non_finite

    def get_config(self) -> dict[str, Any]:
        """The arguments of `RNN`, of the cell and `n_steps`, in one flat dictionary."""
        config = super().get_config()
        del config["cell"]
        config |= {**self.cell.get_config(), **config, "n_steps": self.n_steps}
        overrides = self.cell.trainable_overrides()
        # A cell that is frozen as a whole is so weight by weight.
        if self.trainable and overrides:
            config["trainable_overrides"] = overrides
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        layer, overrides = remake(cls, config)
        layer.cell.override_trainable(overrides)
        return layer


@keras.saving.register_keras_serializable(package="sc2keras")
class AdaptiveISTA(UnfoldedRNN):
    """Adaptive ISTA: `n_steps` steps of `AdaptiveISTACell` on the same x.

    On a 2-D input `(batch, n_features)` the cell is stepped `n_steps` times on x, which
    is projected once. On a 3-D input `(batch, time, n_features)` it is stepped over the
    sequence, as in any `keras.layers.RNN`.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps on a 2-D input.
        l1, dictionary, activation, trainable_dictionary, tied, recurrent,
            trainable_step_size, unit: See `AdaptiveISTACell`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: Of `keras.layers.RNN`, such as `return_state`, `name`, `dtype`.

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
    >>> layer = AdaptiveISTA(20, n_steps=3)
    >>> codes = layer(np.ones((4, 8)))
    >>> tuple(codes.shape), tuple(layer(codes, reverse=True).shape)
    ((4, 20), (4, 8))

    Reference:
        Zhou et al., An End-to-End Sparse Coding, section 3.1.
    """

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        l1: float = 0.1,
        dictionary: ArrayLike | None = None,
        activation: Activation = "shrinkage",
        trainable_dictionary: bool = True,
        tied: bool = True,
        recurrent: Recurrent = "auto",
        trainable_step_size: bool = False,
        unit: float = 1.0,
        return_sequences: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = AdaptiveISTACell(
            n_atoms,
            l1=l1,
            dictionary=dictionary,
            activation=activation,
            trainable_dictionary=trainable_dictionary,
            tied=tied,
            trainable_step_size=trainable_step_size,
            unit=unit,
            recurrent=recurrent,
            **_cell_kwargs(kwargs),
        )
        super().__init__(cell, n_steps, return_sequences=return_sequences, **kwargs)


@keras.saving.register_keras_serializable(package="sc2keras")
class SLSTM(UnfoldedRNN):
    """The Sparse LSTM: `n_steps` steps of `SLSTMCell` on the same x.

    On a 2-D input `(batch, n_features)` the cell is stepped `n_steps` times on x, which
    is projected once, as the paper unfolds it; weights are shared over steps. On a 3-D
    input `(batch, time, n_features)` it is stepped over the sequence, as in any
    `keras.layers.RNN`.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps on a 2-D input.
        l1, dictionary, activation, use_bias, gate_initializer, bias_initializer,
            trainable_dictionary, tied, recurrent,
            trainable_step_size, unit: See `SLSTMCell`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: Of `keras.layers.RNN`, such as `return_state`, `name`, `dtype`.

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

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        l1: float = 0.1,
        dictionary: ArrayLike | None = None,
        activation: Activation = "double_tanh",
        use_bias: bool = True,
        gate_initializer: str | keras.initializers.Initializer = "zeros",
        bias_initializer: str | keras.initializers.Initializer = "zeros",
        trainable_dictionary: bool = True,
        tied: bool = True,
        recurrent: Recurrent = "auto",
        trainable_step_size: bool = False,
        unit: float = 1.0,
        return_sequences: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = SLSTMCell(
            n_atoms,
            l1=l1,
            dictionary=dictionary,
            activation=activation,
            use_bias=use_bias,
            gate_initializer=gate_initializer,
            bias_initializer=bias_initializer,
            trainable_dictionary=trainable_dictionary,
            tied=tied,
            trainable_step_size=trainable_step_size,
            unit=unit,
            recurrent=recurrent,
            **_cell_kwargs(kwargs),
        )
        super().__init__(cell, n_steps, return_sequences=return_sequences, **kwargs)


def _cell_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a layer that its cell shares."""
    return {name: kwargs[name] for name in ("dtype", "trainable") if name in kwargs} | {
        "name": "cell"
    }
