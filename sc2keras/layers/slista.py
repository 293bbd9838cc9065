"""SLISTA: ISTA with a trained step size a step."""

from typing import Any

import keras

from sc2keras.layers.step_lista import StepLISTABlock
from sc2keras.registry import register_encoder

_FIXED = ("per_atom", "warm_start", "preconditioned")


@register_encoder("SLISTA", reference="Ablin, Moreau, Massias and Gramfort 2019")
@keras.saving.register_keras_serializable(package="sc2keras")
class SLISTABlock(StepLISTABlock):
    """SLISTA: ISTA with one trained number a step, its size.

    s_t = sh_(λγ_t)(s_{t−1} − γ_t (s_{t−1} D − x) Dᵀ), γ_t = τ·exp(a_t), s_0 = 0:
    `StepLISTABlock` with numbers for vectors, and none of a threshold's own. The
    optimum of the LASSO is the only code that a step leaves as it is.

    Args:
        n_atoms, n_steps, l1, dictionary, trainable_dictionary, **kwargs: See
            `StepLISTABlock`, whose `unit` and `return_sequences` it takes as well.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> layer = SLISTABlock(20, n_steps=3, trainable_dictionary=False)
    >>> tuple(layer(np.ones((4, 8))).shape), layer.count_params()
    ((4, 20), 164)

    Reference:
        Ablin, Moreau, Massias and Gramfort, Learning step sizes for unfolded sparse
        coding, 2019, section 4.
    """

    trains_thresholds = False

    def __init__(self, n_atoms: int, n_steps: int = 10, **kwargs: Any) -> None:
        for name in _FIXED:
            if kwargs.get(name):
                raise ValueError(
                    f"{name} must be False, as a step has one number; received "
                    f"{name}={kwargs[name]!r}. Use StepLISTA."
                )
        super().__init__(n_atoms, n_steps, **{**kwargs, **dict.fromkeys(_FIXED, False)})

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in _FIXED:
            del config[name]
        return config
