"""What recurrent cells share, and the `keras.layers.RNN` around a cell."""

import inspect
import operator
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.activation import Activation
from sc2keras.layers.encoder import Encoder, collect_steps, minus_shared
from sc2keras.layers.matrices import MatrixLayer, is_factored, is_product_cheaper
from sc2keras.layers.rebuilding import MadeFromConfig
from sc2keras.validation import Shape, Tensor, check_positive_integer

_OF_ANY_LAYER = {"name", "dtype", "trainable", "autocast", "activity_regularizer"}
_OF_THE_RNN = _OF_ANY_LAYER | inspect.signature(keras.layers.RNN).parameters.keys()


class MomentumCell(MatrixLayer):
    """What the cells share: candidate, cell state and activation (eq. 9 to 11).

    A subclass gives `build`; `parts`, what is computed of x alone; and `gates`, which
    makes the candidate c̃ and the gates i and f of the sums of these parts and the
    products with s_{t−1}. It counts in `n_products` the matrices of these products.
    """

    def __init__(self, n_atoms: int, **kwargs: Any) -> None:
        super().__init__(n_atoms, **kwargs)
        self.state_size = [self.n_atoms, self.n_atoms]
        self.output_size = self.n_atoms

    def build_candidate(self, n_features: int) -> NDArray | None:
        """Adds D, W_d, and the activation; the initial W_e, if that is a weight."""
        step_size, dictionary = self.build_dictionary(n_features)
        if not (self.tied and self.trainable_dictionary):
            self.build_kernel(dictionary)
        self.activation_layer = self.build_activation(step_size)
        sizes = (self.n_atoms, n_features, self.n_products)
        self.factored = is_factored(self.recurrent, *sizes)
        if self.factored:
            return None
        return np.eye(self.n_atoms) - step_size * dictionary @ dictionary.T

    def parts(self, inputs: Tensor) -> list[Tensor]:
        """What depends on x alone: of the candidate, and of each gate."""
        return [self.project(inputs)]

    def prepare(self, inputs: Tensor, n_steps: int = 1) -> tuple[Any, Tensor | None]:
        """What so many steps on x share.

        `(negated, recurrent_kernel)`: the parts of x times −1, and the matrix that
        s_{t−1} is multiplied with; or, in the factored form where D times the other
        matrices would take more operations than it spares, `(x, None)`.
        """
        sizes = (*self.dictionary.shape, inputs.shape[0], n_steps)
        if not self.factored:
            kernel = self.recurrent_kernel
        elif is_product_cheaper(self.n_products, *sizes):
            kernel = self.recurrent_product()
        else:
            return inputs, None
        return [-part for part in self.parts(inputs)], kernel

    def step(
        self, prepared: tuple[Any, Tensor | None], states: Any = None
    ) -> tuple[Tensor, list[Tensor]]:
        """One step from what `prepare` returns; None for states of zeros, for speed."""
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
            # A split's gradient is one concatenation; of slices, sums of padding.
            products = ops.split(product, self.n_products, axis=-1)
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
        x = inputs if self.offset is None else inputs - self.offset
        _, states = self.step(self.prepare(self.in_unit(x)), states)
        states = [self.out_of_unit(state) for state in states]
        return states[0], states

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        shape, dtype = (batch_size, self.n_atoms), self.compute_dtype
        return [ops.zeros(shape, dtype=dtype) for _ in self.state_size]


class RecurrentEncoder(Encoder, MadeFromConfig, keras.layers.RNN):
    """Base of the encoders that hold a cell, of `cell_class`; see `SLSTM`."""

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
        shape = tuple(sequences_shape)
        if len(shape) not in (2, 3):
            raise ValueError(
                f"{type(self).__name__} expects inputs of shape (batch, n_features) or "
                f"(batch, time, n_features), with samples flattened; received {shape}."
            )
        if len(shape) == 2 and self.stateful:
            raise ValueError(
                "stateful=True is for 3-D inputs, (batch, time, features); received "
                f"inputs of shape {shape}. Pass initial_state instead."
            )
        super().build(self._with_time(shape), initial_state_shape)

    def _with_time(self, shape: Shape) -> Shape:
        return (shape[0], self.n_steps, shape[1]) if len(shape) == 2 else shape

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
            return self.decode(sequences)
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
        states = list(self.unfold(in_unit(self.center(sequences)), state))
        steps = [codes for codes, _ in states]
        output = out_of_unit(collect_steps(steps, self.return_sequences))
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
        shape = self._with_time(sequences_shape)
        return super().compute_output_shape(shape, initial_state_shape)

    dictionary = property(operator.attrgetter("cell.dictionary"))
    n_atoms = property(operator.attrgetter("cell.n_atoms"))
    n_features = property(operator.attrgetter("cell.n_features"))
    l1 = property(operator.attrgetter("cell.l1"))
    offset = property(operator.attrgetter("cell.offset"))
    l2 = property(operator.attrgetter("cell.l2"))
    nonnegative = property(operator.attrgetter("cell.nonnegative"))
    nonnegative_dictionary = property(
        operator.attrgetter("cell.nonnegative_dictionary")
    )
    unit = property(operator.attrgetter("cell.unit"))
    synthesis = property(operator.attrgetter("cell.synthesis"))
    correlation = property(operator.attrgetter("cell.correlation"))
    lipschitz = property(operator.attrgetter("cell.lipschitz"))

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
