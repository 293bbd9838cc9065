"""What an activation is: the step that makes codes sparse, with its penalty."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

import keras
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.rebuilding import FiniteWeights, FixedArguments
from sc2keras.validation import Shape, Tensor

_BY_NAME: dict[str, type["Activation"]] = {}
_Class = TypeVar("_Class", bound=type["Activation"])


class Activation(FixedArguments, FiniteWeights):
    """Base of the activations of encoders: h, and the penalty that it belongs to.

    h is the proximal step of a penalty, or stands in for one. A subclass gives `call`,
    and `penalty` where there is one. Encoders take an instance, or the name that
    `register_activation` gives.

    Attributes:
        solves: `"lasso"` where the penalty is λ·‖s‖₁, so that the duality gap of the
            LASSO says how far codes are from the optimum; None otherwise.
        shows_non_finite: Boolean, whether h of a NaN or an infinity is one.
        nonnegative: Boolean, whether h is never below zero.
        takes: Set of the options of encoders that are arguments of the class, too:
            `"nonnegative"`, and `"l2"`, τ·l2 of the elastic net.

    Call arguments:
        inputs: Tensor `(..., n_atoms)`; the result has the same shape.

    Example: see `register_activation`.

    >>> from sc2keras.layers import Shrinkage
    >>> Shrinkage.solves
    'lasso'
    """

    solves: ClassVar[Literal["lasso"] | None] = None
    shows_non_finite: bool = False
    nonnegative: bool = False
    takes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    @classmethod
    def proximal(cls, threshold: float | NDArray, **kwargs: Any) -> "Activation":
        """The activation by name: the proximal step of λτ times the penalty.

        `threshold` is λτ, or an array of them, one an atom.
        """
        return cls(**kwargs)

    def penalty(self, codes: Tensor, l1: float | NDArray) -> Tensor:
        """What codes `(batch, n_atoms)` cost in the objective, `(batch,)`: nothing."""
        return ops.zeros_like(codes[..., 0])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


def register_activation(name: str) -> Callable[[_Class], _Class]:
    """Decorator of an `Activation`: encoders take it as `activation=name`.

    Example:

    >>> import keras, numpy as np
    >>> from sc2keras.layers import LISTABlock
    >>> @register_activation("hard")
    ... @keras.saving.register_keras_serializable(package="doctest")
    ... class Hard(Activation):
    ...     def call(self, inputs):
    ...         return inputs * keras.ops.cast(abs(inputs) > 1.0, inputs.dtype)
    >>> tuple(LISTABlock(4, n_steps=2, activation="hard")(np.ones((1, 3))).shape)
    (1, 4)
    """

    def register(activation: _Class) -> _Class:
        _BY_NAME[name] = activation
        return activation

    return register


def check_activation(value: Any) -> str | dict[str, Any]:
    """A name of an activation, or the config of an instance; else a ValueError."""
    if isinstance(value, Activation):
        value = keras.saving.serialize_keras_object(value)
    if isinstance(value, dict) or value in _BY_NAME:
        return value
    raise ValueError(
        f"activation must be one of {sorted(_BY_NAME)} or a sc2keras.layers."
        f"Activation; received activation={value!r}."
    )


def has_option(value: str | dict[str, Any], option: str) -> bool:
    """Whether what `check_activation` gives takes an option, or was made with it."""
    if isinstance(value, str):
        return option in _BY_NAME[value].takes
    return value["config"].get(option) not in (None, False)


def make_activation(
    value: str | dict[str, Any], threshold: float | NDArray, **kwargs: Any
) -> Activation:
    """A new activation, of what `check_activation` gives; by name, of λτ."""
    if isinstance(value, str):
        return _BY_NAME[value].proximal(threshold, **kwargs)
    layer = keras.saving.deserialize_keras_object(value)
    kwargs["trainable"] = layer.trainable and kwargs.get("trainable", True)
    return type(layer).from_config({**layer.get_config(), **kwargs})
