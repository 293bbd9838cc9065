"""What a layer keeps when Keras makes it again: from its config, or from a file."""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from sc2keras.validation import Tensor, is_finite

_ALWAYS_FREE = ("self", "args", "kwargs", "name", "trainable")


class GivenDictionary(str):
    """A dictionary in the config of a layer: words in a file, the array in memory.

    A file would hold the array twice, once as text. Within a process a clone or a
    wrapper starts from it. Read from a file it is plain words; the layer then holds NaN
    until its weights are loaded.
    """

    array: NDArray

    @classmethod
    def of(cls, array: NDArray) -> Self:
        given = cls(f"given, {array.shape[0]} x {array.shape[1]}, in the weights")
        given.array = array
        return given


class Given(keras.initializers.Initializer):
    """The initial value of a weight, an array, in whatever dtype the weight has.

    A class: of a function, Keras on JAX compiles the array into the program.
    """

    def __init__(self, value: ArrayLike) -> None:
        self.value = np.asarray(value)

    def __call__(self, shape: Any, dtype: Any = None) -> Tensor:
        dtype = keras.backend.standardize_dtype(dtype)
        # Not every backend has float64, or makes a narrower float of it.
        exact = "float64" if dtype == "float64" else "float32"
        return ops.convert_to_tensor(self.value.astype(exact), dtype=dtype)


class SideBySide(keras.initializers.Initializer):
    """The values of several initializers, as blocks of columns of one matrix."""

    def __init__(self, parts: list[tuple[keras.initializers.Initializer, int]]) -> None:
        self.parts = parts

    def __call__(self, shape: Any, dtype: Any = None) -> Tensor:
        blocks = [part((shape[0], width), dtype=dtype) for part, width in self.parts]
        return ops.concatenate(blocks, axis=1)


class FixedArguments(keras.layers.Layer):
    """A layer whose arguments cannot be changed once it is built.

    What was compiled from them would keep the old value: weights, thresholds, functions
    of `fit`, `predict` and `encode`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "built", False) and name in _arguments(type(self)):  # type: ignore[arg-type]
            raise AttributeError(
                f"{name} of {type(self).__name__} cannot be changed once the layer is "
                f"built; received {name}={value!r}. Make another layer or model with "
                f"{name}=..., and set_weights() what it shall keep."
            )
        super().__setattr__(name, value)


class MadeFromConfig(FixedArguments):
    """A layer that its config makes again."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        overrides = config.pop("trainable_overrides", {})
        given = config.pop("initial_dictionary", None)
        if config.get("dictionary") is None and given is not None:
            config["dictionary"] = given
        layer: Any = cls(**config)
        # The weights of a layer around a cell are the cell's.
        getattr(layer, "cell", layer)._freezing.overrides = overrides
        return layer


@functools.cache
def _arguments(layer_class: Any) -> frozenset[str]:
    names = {"dtype_policy"}
    # Of a layer around a cell, those of the cell, too.
    cell_class = getattr(layer_class, "cell_class", object)
    for base in (*layer_class.__mro__, *cell_class.__mro__):
        if issubclass(base, keras.layers.Layer) and base is not keras.layers.Layer:
            names |= set(inspect.signature(base).parameters)
    return frozenset(names.difference(_ALWAYS_FREE))


class RememberedFreezing(keras.layers.Layer):
    """A layer whose config tells which of its weights were frozen, one by one.

    Keras remembers `layer.trainable`, but neither that of a weight nor that of a layer
    within.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # No list of the layer's own: Keras would write its weights to a file twice.
        self._freezing = types.SimpleNamespace(weights=[], overrides={})

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        variable = super().add_weight(*args, **kwargs)
        self.watch(variable.name, variable, kwargs.get("trainable", True))
        return variable

    def add_freezable(self, trainable: bool, **kwargs: Any) -> keras.Variable:
        """A weight that may be trained later, if it is not trained by default.

        No gradient would ever reach a variable that TensorFlow makes as not trainable.
        """
        variable = super().add_weight(**kwargs)
        if not trainable:
            # Keras files a weight by what it is when it is first held.
            self._untrack_variable(variable)
            variable.trainable = False
            self._track_variable(variable)
        self.watch(variable.name, variable, trainable)
        return variable

    def watch(self, name: str, variable: keras.Variable, by_default: bool) -> None:
        """Notes a new weight, and whether it is trainable by default."""
        self._freezing.weights.append((name, variable, by_default))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        # Not before: Keras files a weight by what it is when it is first held.
        if name == "built" and value and self.trainable:
            for weight, variable, _ in self._freezing.weights:
                if weight in self._freezing.overrides:
                    variable.trainable = self._freezing.overrides[weight]

    def trainable_overrides(self) -> dict[str, bool]:
        """The weights that are not trainable as they are by default, and how."""
        if not self.built:
            return self._freezing.overrides
        return {
            name: bool(variable.trainable)
            for name, variable, by_default in self._freezing.weights
            if bool(variable.trainable) != by_default
        }

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        overrides = self.trainable_overrides() if self.trainable else {}
        return config | ({"trainable_overrides": overrides} if overrides else {})


class FiniteWeights(keras.layers.Layer):
    """A layer that refuses to load a NaN or an infinity."""

    def load_own_variables(self, store: Any) -> None:
        _load_finite(self, super().load_own_variables, store)


def load_finite_weights_only(layer: keras.layers.Layer) -> None:
    """Makes a layer of any class refuse a NaN or an infinity, as `FiniteWeights`."""
    if not isinstance(layer, FiniteWeights) and not hasattr(layer, "_refusal"):
        layer._refusal = None
        load = functools.partial(_load_finite, layer, layer.load_own_variables)
        layer.load_own_variables = load


def _load_finite(
    layer: keras.layers.Layer, load: Callable[[Any], None], store: Any
) -> None:
    keys = set(store.keys())
    refusal = getattr(layer, "_refusal", None)
    if refusal is not None and not keys:
        # Keras tries again where nothing is, and would complain of that.
        raise ValueError(refusal)
    variables = [*layer._trainable_variables, *layer._non_trainable_variables]
    for key in sorted(keys):
        if not is_finite(np.asarray(store[key])):
            is_index = key.isdigit() and int(key) < len(variables)
            name = variables[int(key)].path if is_index else key
            layer._refusal = (
                f"Weight {name!r} in the file holds a NaN or an infinity. Load an "
                "earlier file, or train the model again."
            )
            raise ValueError(layer._refusal)
    layer._refusal = None
    load(store)
