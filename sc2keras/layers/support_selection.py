"""Support selection: the largest entries stay as they are, the others are shrunk."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import keras
from keras import ops
from numpy.typing import ArrayLike

from sc2keras.layers.activation import register_activation
from sc2keras.layers.penalised import NO_ELASTIC_NET
from sc2keras.layers.shrinkage import Shrinkage
from sc2keras.layers.top_k import top_k_mask
from sc2keras.validation import Tensor, check_non_negative

Definition = Literal["percentile", "rank", "quantile"]


def support_selection(
    x: Tensor,
    shrunk: Tensor,
    count: Tensor,
    tested: bool = True,
    nonnegative: bool = False,
) -> Tensor:
    """`x` at the `count` entries of the largest magnitude, `shrunk` elsewhere.

    The choice of entries has no gradient.

    Args:
        x: Tensor `(..., n_atoms)`.
        shrunk: Tensor of the same shape, x after its threshold.
        count: Integer, or integers `(..., 1)`, one a sample.
        tested: Boolean. If True, entries that the threshold made zero stay zero.
        nonnegative: Boolean. If True, entries below zero are not selected.

    Example:

    >>> x, shrunk = ops.array([[3.0, -2.0, 0.5]]), ops.array([[2.0, -1.0, 0.0]])
    >>> ops.convert_to_numpy(support_selection(x, shrunk, 1)).tolist()
    [[3.0, -1.0, 0.0]]
    """
    if isinstance(count, int) and count == 0:
        return shrunk
    if not isinstance(count, int):
        count = ops.cast(count, "int32")
    magnitude = ops.relu(x) if nonnegative else ops.abs(x)
    mask = top_k_mask(ops.stop_gradient(magnitude), count)
    if tested:
        mask = ops.logical_and(mask, ops.not_equal(shrunk, 0.0))
    return ops.where(mask, x, shrunk)


def support_count(fraction: float, n_atoms: int, definition: Definition) -> int:
    """How many entries each of the definitions in use selects of n_atoms.

    Args:
        fraction: Float from 0 to 1.
        n_atoms: Integer.
        definition: `"percentile"`: what is above the percentile 100·(1 − fraction), the
            nearest entry (Chen et al. 2018). `"rank"`: what is above the entry of rank
            fraction · n_atoms (Behrens et al. 2021). `"quantile"`: what is not below
            the interpolated quantile 1 − fraction (Chen et al. 2021).

    Example:

    >>> [support_count(0.1, 500, kind) for kind in ("percentile", "rank", "quantile")]
    [50, 49, 50]
    """
    if definition == "percentile":
        return round((n_atoms - 1) * fraction)
    if definition == "rank":
        return max(whole_part(n_atoms * fraction) - 1, 0)
    return 1 + whole_part((n_atoms - 1) * fraction)


def whole_part(x: float) -> int:
    """How many whole ones are in a product whose factors were rounded.

    Example:

    >>> 100 * 0.29, whole_part(100 * 0.29)
    (28.999999999999996, 29)
    """
    return int(x + 1e-9)


@register_activation("support_selection")
@keras.saving.register_keras_serializable(package="sc2keras")
class SupportSelection(Shrinkage):
    """Soft threshold that leaves the largest entries of each sample as they are.

    A soft threshold also shrinks the entries that are surely nonzero, by θ. Here those
    of the largest magnitude pass unshrunk, a fixed fraction of the atoms. Papers draw
    the line in three ways, which `definition` names; they differ by an entry, and in
    whether an entry has to be above the threshold to pass.

    Args:
        threshold: Float >= 0, where every θ_j starts, or an array `(n_atoms,)`.
        fraction: Float from 0 to 1, of the atoms: 0 is the soft threshold, 1 the hard
            one. In the papers it grows from step to step: see `LISTACPSSBlock`.
        definition: `"percentile"` or `"quantile"`, where an entry must be above its
            threshold as well, or `"rank"`, where it need not. See `support_count`.
        **kwargs: `nonnegative`, as of `Shrinkage`, and those of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is unusable.

    Example:

    >>> import numpy as np
    >>> y = SupportSelection(1.0, fraction=0.5)(np.array([[-3.0, 0.5, 2.0]]))
    >>> [float(v) for v in y[0]]
    [-3.0, 0.0, 1.0]

    References:
        Chen, Liu, Wang and Yin, Theoretical Linear Convergence of Unfolded ISTA and its
        Practical Weights and Thresholds, 2018, section 3.2. Behrens, Sauder and Jung,
        Neurally Augmented ALISTA, 2021. Chen, Liu, Wang and Yin, Hyperparameter Tuning
        is All You Need for LISTA, 2021.
    """

    takes = frozenset({"nonnegative"})

    def __init__(
        self,
        threshold: float | ArrayLike = 0.1,
        fraction: float = 0.1,
        definition: Definition = "percentile",
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold, **kwargs)
        self.fraction = check_fraction("fraction", fraction)
        if definition not in get_args(Definition):
            raise ValueError(
                f"definition must be one of {get_args(Definition)}; received "
                f"{definition=!r}."
            )
        self.definition: Definition = definition

    def call(self, inputs: Tensor) -> Tensor:
        count = support_count(self.fraction, inputs.shape[-1], self.definition)
        is_tested = self.definition != "rank"
        shrunk = super().call(inputs)
        return support_selection(inputs, shrunk, count, is_tested, self.nonnegative)

    def get_config(self) -> dict[str, Any]:
        config = {"fraction": self.fraction, "definition": self.definition}
        return {**super().get_config(), **config}


class SelectsSupport(keras.layers.Layer):
    """What encoders share whose steps select a support that grows with them.

    Step t, from 0 on, selects min((t + 1) · support_step, max_support) of the atoms.

    Args:
        support_step: Float from 0 to 1, by how much the fraction grows a step.
        max_support: Float from 0 to 1, the largest; a little above the fraction of
            nonzero entries. 0: no support is selected.
    """

    refuses: ClassVar[Mapping[str, str]] = NO_ELASTIC_NET
    n_atoms: int
    nonnegative: bool

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        *,
        support_step: float = 0.012,
        max_support: float = 0.13,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.support_step = check_fraction("support_step", support_step)
        self.max_support = check_fraction("max_support", max_support)

    def support_count(self, t: int) -> int:
        """How many entries step t selects."""
        fraction = min((t + 1) * self.support_step, self.max_support)
        return support_count(fraction, self.n_atoms, "percentile")

    def select(self, x: Tensor, shrunk: Tensor, t: int) -> Tensor:
        """`shrunk`, but x where step t selects it."""
        count = self.support_count(t)
        return support_selection(x, shrunk, count, nonnegative=self.nonnegative)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "support_step": self.support_step,
            "max_support": self.max_support,
        }


def check_fraction(name: str, value: float) -> float:
    """`value` as a float from 0 to 1, or a ValueError that names it."""
    if check_non_negative(name, value) > 1:
        raise ValueError(f"{name} must be at most 1; received {name}={value!r}.")
    return float(value)
