"""What codes cost, and which are allowed: ℓ1 weights, an ℓ2 weight, signs."""

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from numpy.typing import ArrayLike

from sc2keras.objective import l1_in_dtype
from sc2keras.validation import (
    Tensor,
    check_non_negative,
    check_positive_integer,
    check_weights,
)

# Of encoders whose steps have no ℓ2 term.
NO_ELASTIC_NET = {"l2": "its steps are not those of the elastic net. Use StepLISTA."}


class PenalisedCodes(keras.layers.Layer):
    """Base of the layers that make codes: the penalty Σ_j l1_j·|s_j| + ½·l2·‖s‖².

    Args:
        n_atoms: Integer, k, the number of atoms.
        l1: Float >= 0, λ, the weight of the ℓ1 term; or an array `(n_atoms,)`, one
            weight an atom.
        l2: Float >= 0, the weight of ½‖s‖². Above 0 the problem is the elastic net.
            scikit-learn's `ElasticNet(alpha, l1_ratio)` divides by its number of
            samples, here n_features: l1 = n_features · alpha · l1_ratio,
            l2 = n_features · alpha · (1 − l1_ratio).
        nonnegative: Boolean. If True, codes are >= 0.

    Attributes:
        refuses: Mapping from those of these options that mean nothing for a class to
            why, and what to use.
    """

    refuses: ClassVar[Mapping[str, str]] = {}
    unit: float = 1.0

    def __init__(
        self,
        n_atoms: int,
        *,
        l1: float | ArrayLike = 0.1,
        l2: float = 0.0,
        nonnegative: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.n_atoms = check_positive_integer("n_atoms", n_atoms)
        self.l1 = check_weights("l1", l1, "n_atoms", self.n_atoms)
        self.l2 = check_non_negative("l2", l2)
        self.nonnegative = bool(nonnegative)
        self.refuse(self.refuses)

    def refuse(self, options: Mapping[str, str]) -> None:
        """Raises a ValueError if one of the options is given, with the reason."""
        given = {
            "l1": not isinstance(self.l1, float),
            "l2": self.l2 > 0.0,
            "nonnegative": self.nonnegative,
            "nonnegative_dictionary": getattr(self, "nonnegative_dictionary", False),
            "offset": getattr(self, "_has_offset", False),
        }
        for name, reason in options.items():
            if given.get(name):
                what = "l1, one weight an atom," if name == "l1" else name
                raise ValueError(f"{what} is not for {type(self).__name__}: {reason}")

    def l1_in_unit(self) -> float | Tensor:
        """λ in the layer's unit: a float, or a tensor with a weight an atom."""
        return l1_in_dtype(self.l1 / self.unit, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "n_atoms": self.n_atoms,
            "l1": self.l1 if isinstance(self.l1, float) else self.l1.tolist(),
            "l2": self.l2,
            "nonnegative": self.nonnegative,
        }
