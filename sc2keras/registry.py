"""The methods: one entry an encoder, which builders, tests and tables go through."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import keras

if TYPE_CHECKING:
    from sc2keras.layers.encoder import Encoder

_ENTRIES: dict[str, "Entry"] = {}
# What a class has that is an `Encoder` with a dictionary.
_CONTRACT = ("recipe", "is_trained", "solves", "penalty", "synthesis", "correlation")
_Class = TypeVar("_Class", bound=type["Encoder"])


@dataclasses.dataclass(frozen=True)
class Entry:
    """One method, its attributes as `register_encoder` takes them."""

    name: str
    layer: type["Encoder"]
    reference: str
    defaults: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]

    @property
    def is_trained(self) -> bool:
        """Whether there is something to train; False for solvers."""
        return self.layer.is_trained

    @property
    def summary(self) -> str:
        """The first line of the encoder's docstring."""
        return (inspect.getdoc(self.layer) or self.layer.__name__).splitlines()[0]


def register_encoder(
    name: str,
    *,
    reference: str = "",
    defaults: Mapping[str, Any] | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[_Class], _Class]:
    """Decorator of a `sc2keras.layers.Encoder`, which makes it a method by name.

    It then stands wherever a method is named: `sc2keras.applications.build(name)`,
    `SparseCodeTransformer(builder=name)`, saved files, the command line (`--import` of
    its module). A class that is not registered with Keras is registered there, in the
    package "Custom": its file loads where its module was imported.

    Args:
        name: String, the name of the builder.
        reference: String, paper and equation.
        defaults: Mapping, arguments of the encoder that the builder has for defaults.
        variants: Mapping of names to arguments that the laws are tested with, too.

    Raises:
        ValueError: If another encoder has the name, or another class that of its class;
            or if the class is no `Encoder` with a dictionary.

    Example:

    >>> import numpy as np, sc2keras
    >>> from sc2keras.layers import NetworkLayer, UnfoldedEncoder
    >>> @sc2keras.register_encoder("OneStep", defaults={"n_steps": 1})
    ... class OneStep(UnfoldedEncoder, NetworkLayer):
    ...     '''h(x Dᵀ τ), the first step of ISTA.'''
    ...     def build(self, input_shape):
    ...         step_size, _ = self.build_dictionary(input_shape[-1])
    ...         self.activation_layer = self.build_activation(step_size)
    ...     def step(self, x, state, t):
    ...         return (self.activation_layer(self.step_size * self.correlation(x)),)
    >>> model = sc2keras.applications.build("OneStep", n_atoms=4, input_shape=(8,))
    >>> model.encode(np.ones((2, 8), "float32")).shape
    (2, 4)
    """

    def register(layer: _Class) -> _Class:
        missing = [part for part in _CONTRACT if not hasattr(layer, part)]
        if missing or not isinstance(name, str):
            raise ValueError(
                "register_encoder takes a name, and then a class of encoders; received "
                f"{name!r} and {layer!r}, which lacks {missing}. Derive it from "
                "sc2keras.layers.UnfoldedEncoder and NetworkLayer."
            )
        held = _ENTRIES[name].layer if name in _ENTRIES else layer
        # The same class again is what reloading a module gives.
        if _path(held) != _path(layer):
            raise ValueError(
                f"The name {name!r} is that of {_path(held)}; received {_path(layer)}. "
                "Choose another name."
            )
        registered_name = keras.saving.get_registered_name(layer)
        if keras.saving.get_registered_object(registered_name) is not layer:
            known = keras.saving.get_registered_object(f"Custom>{layer.__name__}")
            if known is not None and _path(known) != _path(layer):
                raise ValueError(
                    f"Files of {_path(layer)} would be read as {_path(known)}. Rename "
                    "it, or use keras.saving.register_keras_serializable(package=...)."
                )
            keras.saving.register_keras_serializable()(layer)
        _ENTRIES[name] = Entry(name, layer, reference, defaults or {}, variants or {})
        return layer

    return register


def entries() -> list[Entry]:
    """All methods that are registered, in the order of their names."""
    return sorted(_ENTRIES.values(), key=lambda entry: entry.name.lower())


def get_entry(name: str) -> Entry:
    """The method of that name, or a ValueError that lists the names."""
    if name not in _ENTRIES:
        names = ", ".join(entry.name for entry in entries())
        raise ValueError(
            f"builder must be one of {names}; received builder={name!r}. "
            "sc2keras.register_encoder adds others, once their module is imported."
        )
    return _ENTRIES[name]


def _path(layer: type) -> str:
    return f"{layer.__module__}.{layer.__qualname__}"
