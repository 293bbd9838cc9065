"""What trained layers share: the activation, and a dictionary that may be trained."""

from typing import Any

import numpy as np

from sc2keras.layers.activation import (
    Activation,
    check_activation,
    has_option,
    make_activation,
)
from sc2keras.layers.dictionary import DictionaryLayer


class NetworkLayer(DictionaryLayer):
    """Base of the layers that are trained.

    A subclass gives `build`, which calls `build_dictionary` and `build_activation`.

    Args:
        n_atoms, l1, l2, nonnegative, dictionary, unit, **kwargs: See `DictionaryLayer`.
        activation: h, a name such as `"shrinkage"` (codes exactly zero) or
            `"double_tanh"` (codes small), or an `Activation`. By its name, the soft
            threshold starts at l1·τ.
        trainable_dictionary: Boolean. If False, D stays as it is given: an encoder is
            trained for a given dictionary, as Gregor and LeCun train LISTA.

    Example: see `UnfoldedEncoder`.

    >>> from sc2keras.layers import SLSTMCell
    >>> issubclass(SLSTMCell, NetworkLayer)
    True
    """

    def __init__(
        self,
        n_atoms: int,
        *,
        activation: str | Activation = "shrinkage",
        trainable_dictionary: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, **kwargs)
        self.activation = check_activation(activation)
        self.trainable_dictionary = bool(trainable_dictionary)
        self._check_activation_options()

    def _check_activation_options(self) -> None:
        """Raises a ValueError if the activation is not of the codes that are wanted."""
        for option in ("nonnegative", "l2"):
            value = getattr(self, option)
            if value and not has_option(self.activation, option):
                raise ValueError(
                    f"{option}={value!r} needs an activation that has it; received "
                    f"activation={self.activation!r}. Use 'shrinkage', or give an "
                    f"Activation with {option}=... of its own."
                )
        if isinstance(self.activation, dict):
            self.nonnegative |= has_option(self.activation, "nonnegative")

    def build_activation(
        self, step_size: float, name: str = "activation"
    ) -> Activation:
        """A new activation, built; by its name, the proximal step of l1·τ."""
        # A dictionary that is to be loaded has no step size yet.
        threshold = np.nan_to_num(self.l1 / self.unit * step_size)
        options: dict[str, Any] = {
            "dtype": self.dtype_policy,
            "trainable": self.trainable,
        }
        if isinstance(self.activation, str):
            # An instance has its own.
            if self.nonnegative:
                options["nonnegative"] = True
            if self.l2:
                options["l2"] = float(np.nan_to_num(self.l2 * step_size))
        layer = make_activation(self.activation, threshold, name=name, **options)
        layer.build((None, self.n_atoms))
        for variable in layer.weights:
            by_default = layer.trainable and variable.trainable
            self.watch(f"{name}/{variable.name}", variable, by_default)
        return layer

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": self.activation,
            "trainable_dictionary": self.trainable_dictionary,
        }
