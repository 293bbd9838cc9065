"""The contract of encoders: a dictionary, an activation and a step rule."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import keras
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.activation import Activation
from sc2keras.layers.coupled_steps import CoupledSteps
from sc2keras.objective import elastic_net
from sc2keras.training import Recipe
from sc2keras.validation import Shape, Tensor, check_positive_integer


class Encoder(keras.layers.Layer):
    """Base of every encoder: signals to sparse codes, and back by the reverse call.

    Three parts make one:

    1. a dictionary D: `synthesis(s)` = s D, its adjoint `correlation(r)` = r Dᵀ, and
       `lipschitz()` = λ_max(D Dᵀ), as `DictionaryLayer` gives them;
    2. an activation, `activation_layer`, with its penalty;
    3. a step rule: `initial_state(x)` and `step(x, state, t)`, of states that begin
       with the codes. `prepare(x)` is what all steps on x share.

    Attributes:
        recipe: `sc2keras.Recipe`, how the encoder is trained by default.
        recovery_rate: Float, of Adam where `sc2keras.fit_recovery` trains all weights;
            None: one by the number of weights.
        is_trained: Boolean, False for solvers, which have nothing to train.
        has_thresholds_of_l1: Boolean, whether thresholds begin as multiples of `l1`.
        updated_weights: Set of the names of weights that are not trainable, but that a
            training moves.

    Example: see `UnfoldedEncoder` for one of your own.

    >>> from sc2keras.layers import LISTABlock
    >>> layer = LISTABlock(20)
    >>> layer.build((None, 8))
    >>> layer.solves, layer.is_trained, layer.recipe.optimizer
    ('lasso', True, 'adadelta')
    """

    recipe: ClassVar[Recipe] = Recipe()
    recovery_rate: ClassVar[float | None] = None
    is_trained: ClassVar[bool] = True
    has_thresholds_of_l1: bool = True
    updated_weights: ClassVar[frozenset[str]] = frozenset()
    n_steps: int
    return_sequences: bool
    activation_layer: Activation
    l1: float | NDArray
    offset: keras.Variable | None = None
    l2: float = 0.0
    nonnegative: bool = False
    nonnegative_dictionary: bool = False

    # No property: Keras would write the layer to a file a second time.
    def last_activation(self) -> Activation:
        """The activation that makes the codes."""
        return self.activation_layer

    @property
    def solves(self) -> Literal["lasso"] | None:
        """`"lasso"` where codes are to minimise ½‖x − sD‖² + λ·‖s‖₁; None otherwise.

        With `l2` and `nonnegative` it is the elastic net, and of codes >= 0.
        """
        return self.last_activation().solves

    @property
    def shows_non_finite(self) -> bool:
        """Whether a NaN or an infinity in a signal is sure to make its code one."""
        return self.last_activation().shows_non_finite

    def penalty(self, codes: Tensor) -> Tensor:
        """What codes `(batch, n_atoms)` cost in the objective, `(batch,)`."""
        penalty = self.last_activation().penalty(codes, self.l1)
        return penalty + elastic_net(codes, 0.0, self.l2) if self.l2 else penalty

    def penalty_options(self) -> dict[str, Any]:
        """The `l2` and `nonnegative` of the functions of `sc2keras.objective`."""
        return {"l2": self.l2, "nonnegative": self.nonnegative}

    def center(self, x: Tensor) -> Tensor:
        """x − b, what codes are of; x without an offset."""
        if self.offset is None:
            return x
        return x - ops.cast(self.offset, x.dtype)

    def decode(self, codes: Tensor) -> Tensor:
        """x̂ = s D + b, what the reverse call gives; s D without an offset."""
        signals = self.synthesis(codes)
        if self.offset is None:
            return signals
        return signals + ops.cast(self.offset, signals.dtype)

    def auxiliary(
        self, outputs: Tensor, x: Tensor, reconstruction: Tensor, training: bool
    ) -> Tensor | None:
        """What is added to the objective, `(batch,)`; None for nothing.

        Args:
            outputs: Tensor `(batch, n_atoms)`, the codes that a call returned.
            x, reconstruction: Tensors `(batch, n_features)`.
            training: Boolean, whether it is for an update of the weights.
        """
        return None

    def check_trainable(self) -> None:
        """Raises a ValueError if a training would not leave the encoder what it is."""

    def moderate(self, atoms: NDArray) -> None:
        """Keeps atoms that were just made anew from taking over what others code."""

    @property
    def can_take_steps(self) -> bool:
        """Whether its weights can be such that its steps are coupled ones."""
        return False

    def take_steps(self, steps: CoupledSteps) -> None:
        """Sets the weights so that the codes are those of such steps."""
        raise NotImplementedError(
            f"{type(self).__name__} has no coupled steps. Define take_steps and "
            "can_take_steps."
        )

    def prepare(self, inputs: Tensor) -> Any:
        """What the steps on x share: x itself."""
        return inputs

    def initial_state(self, prepared: Any) -> Any:
        """The state before the first step: codes of zero."""
        return (ops.zeros((*ops.shape(prepared)[:-1], self.n_atoms), prepared.dtype),)

    def step(self, prepared: Any, state: Any, t: int) -> Any:
        """The state after step t, from 0 on; its first part is the codes."""
        raise NotImplementedError(
            f"{type(self).__name__} has no step rule. Define step(prepared, state, t)."
        )

    def unfold(self, inputs: Tensor, state: Any = None) -> Iterator[Any]:
        """The states after each of the `n_steps` steps."""
        prepared = self.prepare(inputs)
        state = self.initial_state(prepared) if state is None else state
        for t in range(self.n_steps):
            state = self.step(prepared, state, t)
            yield state

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Keras would build the layer on the shape of the codes.
        if kwargs.get("reverse") and not self.built:
            raise ValueError(
                f"{type(self).__name__} was called with reverse=True before it was "
                "built. Call it on signals first, or build it with "
                "build((None, n_features))."
            )
        return super().__call__(*args, **kwargs)


class UnfoldedEncoder(Encoder):
    """Base of the encoders that unfold an iteration for `n_steps` steps.

    It stands before a layer with a dictionary: `class X(UnfoldedEncoder, NetworkLayer)`
    with `build` and `step` is an encoder.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(..., n_steps, n_atoms)`; if False, those after the last.
        **kwargs: Of the layer with the dictionary.

    Call arguments:
        inputs: Tensor `(..., n_features)`, signals; with `reverse=True` codes,
            `(..., n_atoms)`.
        reverse: Boolean. If True, decode: x̂ = s D, with the same weights.

    Returns:
        Tensor `(..., n_atoms)`, the codes; in reverse `(..., n_features)`.

    Raises:
        ValueError: If an argument, the dictionary or the shape of inputs is unusable.

    Example: two steps of ISTA with a trained relaxation.

    >>> import keras, numpy as np, sc2keras
    >>> from sc2keras.layers import NetworkLayer, UnfoldedEncoder
    >>> class RelaxedISTA(UnfoldedEncoder, NetworkLayer):
    ...     def build(self, input_shape):
    ...         step_size, _ = self.build_dictionary(input_shape[-1])
    ...         self.activation_layer = self.build_activation(step_size)
    ...         self.relaxation = self.add_weight(
    ...             name="relaxation", shape=(), initializer="ones")
    ...     def step(self, x, state, t):
    ...         codes = state[0]
    ...         gradient = self.correlation(self.synthesis(codes) - x)
    ...         step = self.relaxation * self.step_size * gradient
    ...         return (self.activation_layer(codes - step),)
    >>> layer = RelaxedISTA(20, n_steps=2)
    >>> tuple(layer(np.ones((4, 8))).shape)
    (4, 20)
    """

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        return_sequences: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, **kwargs)
        self.n_steps = check_positive_integer("n_steps", n_steps)
        self.return_sequences = bool(return_sequences)

    def call(self, inputs: Tensor, reverse: bool = False) -> Tensor:
        self.check_call(inputs, reverse)
        if reverse:
            return self.decode(inputs)
        x = self.in_unit(self.center(inputs))
        codes = [state[0] for state in self.unfold(x)]
        return self.out_of_unit(collect_steps(codes, self.return_sequences))

    def compute_output_spec(
        self, inputs: Tensor, reverse: bool = False
    ) -> keras.KerasTensor:
        self.check_call(inputs, reverse)
        shape = self.compute_output_shape(inputs.shape)
        if reverse:
            shape = (*inputs.shape[:-1], self.n_features)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        steps = (self.n_steps,) if self.return_sequences else ()
        return (*input_shape[:-1], *steps, self.n_atoms)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "n_steps": self.n_steps,
            "return_sequences": self.return_sequences,
        }


def collect_steps(steps: list[Tensor], return_sequences: bool) -> Tensor:
    """The last of the codes, or all of them on axis -2."""
    return ops.stack(steps, axis=-2) if return_sequences else steps[-1]


def minus_shared(x: Tensor, negated: Tensor) -> Tensor:
    """x − negated, for a `negated` that many steps share.

    Where a sum shares one tensor, TensorFlow adds up the gradients of the steps in an
    order that depends on which thread is first: from the third on the result is not
    reproducible. The gradient of a difference is a tensor of its own.
    """
    return x - negated
