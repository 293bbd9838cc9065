"""What trained layers share: the activation, and a dictionary that may be trained."""

from typing import Any

import numpy as np

from sc2keras.layers.activation import Activation, check_activation, make_activation
from sc2keras.layers.dictionary import DictionaryLayer


class NetworkLayer(DictionaryLayer):
    """Base of the layers that are trained.

    A subclass gives `build`, which calls `build_dictionary` and `build_activation`.

    Args:
        n_atoms, l1, dictionary, unit, **kwargs: See `DictionaryLayer`.
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

    def build_activation(
        self, step_size: float, name: str = "activation"
    ) -> Activation:
        """A new activation, built; by its name, the proximal step of l1·τ."""
        # A dictionary that is to be loaded has no step size yet.
        threshold = np.nan_to_num(self.l1 / self.unit * step_size)
        options = {"dtype": self.dtype_policy, "trainable": self.trainable}
        layer = make_activation(self.activation, threshold, name=name, **options)
        layer.build((None, self.n_atoms))
        for variable in layer.weights:
            self.watch(f"{name}/{variable.name}", variable, by_default=layer.trainable)
        return layer

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": self.activation,
            "trainable_dictionary": self.trainable_dictionary,
        }
