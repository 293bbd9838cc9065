"""What recurrent cells share, and the `keras.layers.RNN` around a cell."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.activation import Activation
from sc2keras.layers.encoder import Encoder, collect_steps, minus_shared
from sc2keras.layers.matrices import MatrixLayer, is_factored, is_product_cheaper
from sc2keras.layers.rebuilding import FixedArguments, remake
from sc2keras.validation import Shape, Tensor, check_positive_integer

_OF_THE_RNN = {
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "zero_output_for_mask",
    "name",
    "dtype",
    "trainable",
    "autocast",
    "activity_regularizer",
}


class MomentumCell(MatrixLayer):
    """What the cells share: candidate, cell state and activation (eq. 9 to 11).

    A subclass gives `build`; `parts`, what is computed of x alone; and `gates`, which
    makes the candidate c̃ and the gates i and f of the sums of these parts and the
    products with s_{t−1}. It counts in `n_products` the matrices of these products.
    """

    n_products: int = 1

    def __init__(self, n_atoms: int, **kwargs: Any) -> None:
        super().__init__(n_atoms, **kwargs)
        # === State ===
        self.state_size = [self.n_atoms, self.n_atoms]
        self.output_size = self.n_atoms

    def build_candidate(self, n_features: int) -> NDArray | None:
        """Adds D, W_d, and the activation; the initial W_e, if that is a weight."""
        step_size, dictionary = self.build_dictionary(n_features)
        if not (self.tied and self.trainable_dictionary):
            self.build_kernel(dictionary)
        self.activation_layer = self.build_activation(step_size)
        self.factored = is_factored(
            self.recurrent, self.n_atoms, n_features, self.n_products
        )
        if self.factored:
            return None
        return np.eye(self.n_atoms) - step_size * dictionary @ dictionary.T

    def parts(self, inputs: Tensor) -> list[Tensor]:
        """What depends on x alone: of the candidate, and of all gates side by side."""
        return [self.project(inputs)]

    def prepare(self, inputs: Tensor, n_steps: int = 1) -> tuple[Any, Tensor | None]:
        """What so many steps on x share.

        `(negated, recurrent_kernel)`: the parts of x times −1, and the matrix that
        s_{t−1} is multiplied with; or, in the factored form where D times the other
        matrices would take more operations than it spares, `(x, None)`.
        """
        kernel = None
        if not self.factored:
            kernel = self.recurrent_kernel
        else:
            sizes = (*self.dictionary.shape, inputs.shape[0], n_steps)
            if is_product_cheaper(self.n_products, *sizes):
                kernel = self.recurrent_product()
        if kernel is None:
            return inputs, None
        return [-part for part in self.parts(inputs)], kernel

    def step(
        self,
        prepared: tuple[Any, Tensor | None],
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
        if kernel is None:
            left = shared
            if codes is not None:
                left = -minus_shared(self.synthesis(codes), shared)
            parts = self.parts(left)
        elif codes is None:
            parts = [-part for part in shared]
        else:
            product = ops.matmul(codes, kernel)
            products = [product]
            if self.n_products > 1:
                # A split's gradient is one concatenation; of slices, sums of padding.
                products = ops.split(product, [self.n_atoms], axis=-1)
            parts = list(map(minus_shared, products, shared))
        candidate, input_gate, forget_gate = self.gates(*parts)
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


class RecurrentEncoder(Encoder, FixedArguments, keras.layers.RNN):
    """Base of the encoders that hold a cell.

    On a 2-D input the cell is stepped `n_steps` times on the same x, which it projects
    once. On a 3-D input this is `keras.layers.RNN` over the sequence. A call in reverse
    decodes.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps on a 2-D input.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: Of `keras.layers.RNN`, such as `return_state`, `name`, `dtype`, and of
            `cell_class`.
    """

    cell_class: ClassVar[type[MomentumCell]]

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        return_sequences: bool = False,
        **kwargs: Any,
    ) -> None:
        own = {name: kwargs.pop(name) for name in _OF_THE_RNN & kwargs.keys()}
        shared = {name: own[name] for name in ("dtype", "trainable") if name in own}
        cell = self.cell_class(n_atoms, name="cell", **shared, **kwargs)
        super().__init__(cell, return_sequences=return_sequences, **own)
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

    def last_activation(self) -> Activation:
        return self.cell.activation_layer

    def prepare(self, inputs: Tensor) -> tuple[Any, Tensor | None]:
        return self.cell.prepare(inputs, self.n_steps)

    def initial_state(self, prepared: Any) -> None:
        # Of zeros nothing needs to be computed.
        return None

    def step(self, prepared: Any, state: list[Tensor] | None, t: int) -> list[Tensor]:
        return self.cell.step(prepared, state)[1]

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
            return self.cell.synthesis(sequences)
        if len(sequences.shape) == 3:
            return super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        if initial_state is None and self.n_steps == 1:
            # With s_0 = 0 left out, the recurrent weights would have no gradient.
            initial_state = self.get_initial_state(ops.shape(sequences)[0])
        in_unit, out_of_unit = self.cell.in_unit, self.cell.out_of_unit
        state = None
        if initial_state is not None:
            state = [in_unit(ops.cast(s, self.compute_dtype)) for s in initial_state]
        states = list(self.unfold(in_unit(sequences), state))
        output = out_of_unit(
            collect_steps((codes for codes, _ in states), self.return_sequences)
        )
        if not self.return_state:
            return output
        return (output, *(out_of_unit(state) for state in states[-1]))

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

    def synthesis(self, codes: Tensor) -> Tensor:
        return self.cell.synthesis(codes)

    def correlation(self, residual: Tensor) -> Tensor:
        return self.cell.correlation(residual)

    def lipschitz(self) -> float:
        return self.cell.lipschitz()

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
