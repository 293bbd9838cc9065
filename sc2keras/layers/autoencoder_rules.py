"""How sparse autoencoders make codes of a linear map: one rule an activation."""

import itertools
from typing import Any, ClassVar, Literal, get_args

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.layers.dictionary import lipschitz_constant
from sc2keras.layers.rebuilding import Given
from sc2keras.layers.top_k import top_k_mask
from sc2keras.objective import l1_norm
from sc2keras.validation import Tensor, check_positive_integer

Name = Literal["relu", "top_k", "batch_top_k", "jump_relu", "gated"]
# Of the threshold that a batch shows, in its moving average.
_THRESHOLD_RATE = 0.01


class Rule:
    """Base: T of a step, the weights that are its own, and what its codes cost.

    The weights are the layer's: a file holds them beside the others.

    Attributes:
        selects_support: Boolean, whether k alone says which entries are kept.
        repeats_bias: Boolean, whether the bias is a threshold, which every step has; of
            the others the first step alone has it.
    """

    selects_support: ClassVar[bool] = False
    repeats_bias: ClassVar[bool] = False
    updated_weights: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def build(self) -> None:
        self.bias = self.vector("bias", 0.0)

    def vector(self, name: str, start: float, **kwargs: Any) -> keras.Variable:
        """A new weight, one number an atom."""
        shape = (self.layer.n_atoms,)
        initializer = Given(np.full(shape, start))
        weight = self.layer.add_weight(
            name=name, shape=shape, initializer=initializer, **kwargs
        )
        # By its name it is found where the other weights are: `encoder.bias`.
        setattr(self.layer, name, weight)
        return weight

    def advance(
        self,
        codes: Tensor | None,
        moved: Tensor,
        size: Tensor | float,
        t: int,
        training: bool,
    ) -> tuple[Tensor, Tensor]:
        """`(codes, u)` after step t, from γ(r W_e); u is what T was applied to."""
        total = self._total(codes, moved, size)
        return self.select(total, t, training), total

    def correct(self, codes: Tensor, moved: Tensor, size: Tensor) -> Tensor:
        """The codes after a step that leaves zeros as they are."""
        total = self._total(codes, moved, size)
        return ops.where(codes != 0, self.layer.one_sided(total), nothing_of(total))

    def _total(
        self, codes: Tensor | None, moved: Tensor, size: Tensor | float
    ) -> Tensor:
        total = moved
        if codes is None or self.repeats_bias:
            total = total + size * self.bias
        return total if codes is None else codes + total

    def select(self, total: Tensor, t: int, training: bool) -> Tensor:
        """T of a step."""
        raise NotImplementedError(
            f"{type(self).__name__} has no T. Define select(total, t, training)."
        )

    def penalty(self, codes: Tensor) -> Tensor:
        """What codes cost, `(batch,)`."""
        return ops.zeros_like(codes[..., 0])

    def term(self, u: Tensor, x: Tensor) -> Tensor | None:
        """What training adds for u, `(batch,)`; None for nothing."""
        return None


class ReLU(Rule):
    """relu(u), at the cost of l1·‖z‖₁."""

    repeats_bias = True

    def select(self, total: Tensor, t: int, training: bool) -> Tensor:
        return ops.relu(total)

    def penalty(self, codes: Tensor) -> Tensor:
        return self.layer.l1 * l1_norm(codes)


class TopK(Rule):
    """The k largest entries of each sample, above zero or of any sign."""

    selects_support = True

    def select(self, total: Tensor, t: int, training: bool) -> Tensor:
        return self.layer.largest(self.layer.one_sided(total), self.layer.count())


class BatchTopK(Rule):
    """The B·k largest entries of a batch; at inference those above one threshold."""

    selects_support = True
    updated_weights = frozenset({"batch_threshold"})

    def build(self) -> None:
        super().build()
        n_steps = self.layer.n_steps
        self.threshold = self.layer.batch_threshold = self.layer.add_weight(
            name="batch_threshold",
            shape=(n_steps,),
            initializer="zeros",
            dtype="float32",  # In bfloat16 a hundredth would be lost beside it.
            trainable=False,
            aggregation="only_first_replica",
        )

    def select(self, total: Tensor, t: int, training: bool) -> Tensor:
        total = ops.relu(total)
        if not training:
            line = ops.cast(self.threshold[t], total.dtype)
            return ops.where(total > line, total, nothing_of(total))
        flat = ops.reshape(total, (1, -1))
        n_rows = ops.shape(flat)[1] // self.layer.n_atoms
        codes = ops.reshape(kept(flat, n_rows * self.layer.count()), ops.shape(total))
        self._follow(ops.stop_gradient(codes), t)
        return codes

    def _follow(self, codes: Tensor, t: int) -> None:
        """Moves the threshold of step t towards the least entry of a batch's codes."""
        dtype = self.threshold.dtype
        codes = ops.cast(codes, dtype)
        largest = ops.max(codes)
        least = ops.min(ops.where(codes > 0, codes, largest))
        held = ops.convert_to_tensor(self.threshold)
        before = held[t]
        rate = ops.where(before > 0, _THRESHOLD_RATE, 1.0)
        moved = before + ops.cast(rate, dtype) * (least - before)
        is_t = ops.convert_to_tensor(np.arange(self.layer.n_steps) == t)
        moves = ops.logical_and(is_t, largest > 0)
        self.threshold.assign(ops.where(moves, moved, held))


class JumpReLU(Rule):
    """u where it is above a threshold of its atom, at the cost of l1·‖z‖₀.

    The threshold's gradient is a straight-through estimate, of entries within half of
    `bandwidth` around it.
    """

    def build(self) -> None:
        super().build()
        # No logarithm: steps of Adam would hardly move a small threshold.
        self.threshold = self.vector(
            "jump_threshold",
            self.layer.threshold,
            constraint=keras.constraints.NonNeg(),
        )

    def select(self, total: Tensor, t: int, training: bool) -> Tensor:
        line = ops.cast(self.threshold, total.dtype)
        codes = ops.where(total > line, total, nothing_of(total))
        return codes + ops.stop_gradient(line) * self._estimate(total, line)

    def _estimate(self, u: Tensor, line: Tensor) -> Tensor:
        """Zero, with the gradient −1/ε by θ where |u − θ| < ε/2."""
        fixed, width = ops.stop_gradient(line), self.layer.bandwidth
        distance = ops.abs(ops.stop_gradient(u) - fixed)
        is_near = ops.cast(distance < 0.5 * width, u.dtype)
        return is_near * ((fixed - line) / width)

    def penalty(self, codes: Tensor) -> Tensor:
        return self.layer.l1 * ops.sum(ops.cast(codes != 0, codes.dtype), axis=-1)

    def term(self, u: Tensor, x: Tensor) -> Tensor:
        line = ops.cast(self.threshold, u.dtype)
        return self.layer.l1 * ops.sum(self._estimate(u, line), axis=-1)


class Gated(Rule):
    """A gate, 1[π > 0], and a magnitude, relu(μ), of one map with scales of its own.

    π = u + b_g, μ = e^ρ u + b_m. The gate learns by l1·‖relu(π)‖₁, and by having to
    reconstruct the signal on a decoder that does not learn from it.
    """

    def build(self) -> None:
        self.gate_bias = self.vector("gate_bias", 0.0)
        self.bias = self.vector("magnitude_bias", 0.0)
        self.log_scale = self.vector("log_scale", 0.0)

    def advance(
        self,
        codes: Tensor | None,
        moved: Tensor,
        size: Tensor | float,
        t: int,
        training: bool,
    ) -> tuple[Tensor, Tensor]:
        gate = moved + self.gate_bias
        if codes is not None:
            gate = gate + codes / self._scale(moved)
        total = self._total(codes, moved, size)
        return ops.where(gate > 0, ops.relu(total), nothing_of(total)), gate

    def _total(
        self, codes: Tensor | None, moved: Tensor, size: Tensor | float
    ) -> Tensor:
        return super()._total(codes, self._scale(moved) * moved, size)

    def _scale(self, moved: Tensor) -> Tensor:
        return ops.exp(ops.cast(self.log_scale, moved.dtype))

    def term(self, u: Tensor, x: Tensor) -> Tensor:
        layer, opened = self.layer, self.layer.out_of_unit(ops.relu(u))
        fixed = layer.reconstruction(
            opened, *map(ops.stop_gradient, (layer.dictionary, layer.offset))
        )
        error = 0.5 * ops.sum(ops.square(x - fixed), axis=-1)
        return layer.l1 * l1_norm(opened) + error


RULES: dict[Name, type[Rule]] = {
    "relu": ReLU,
    "top_k": TopK,
    "batch_top_k": BatchTopK,
    "jump_relu": JumpReLU,
    "gated": Gated,
}


def check_name(activation: Any) -> Name:
    if activation in get_args(Name):
        return activation
    raise ValueError(
        f"activation must be one of {get_args(Name)}; received {activation!r}. Other "
        "activations are of sc2keras.layers.LISTABlock and its like."
    )


def check_count(k: Any, n_atoms: int) -> int | None:
    if k is None or check_positive_integer("k", k) <= n_atoms:
        return k if k is None else int(k)
    raise ValueError(f"k must be at most n_atoms={n_atoms}; received k={k}.")


def check_nested(nested: Any, n_atoms: int) -> list[int]:
    if np.ndim(nested) != 1:
        raise ValueError(f"nested must be integers; received {nested=!r}. Use [m, …].")
    widths = [check_positive_integer("nested", width) for width in nested]
    if any(a >= b for a, b in itertools.pairwise([*widths, n_atoms])):
        raise ValueError(
            f"nested must be increasing widths below n_atoms={n_atoms}; received "
            f"nested={widths}. The whole dictionary is always among them."
        )
    return widths


def kept(x: Tensor, count: Any) -> Tensor:
    """The `count` entries of the largest magnitude of each row, and zeros."""
    mask = top_k_mask(ops.stop_gradient(ops.abs(x)), count)
    return ops.where(mask, x, nothing_of(x))


def nothing_of(x: Tensor) -> Tensor:
    """Zeros, but for a NaN or an infinity, which show."""
    return x - x


def spread(x: Tensor) -> Tensor:
    """The mean squared distance of rows from their mean, without a gradient."""
    centred = x - ops.mean(x, axis=0, keepdims=True)
    return ops.stop_gradient(ops.mean(ops.sum(ops.square(centred), axis=-1)))


def step_size(dictionary: NDArray, kernel: NDArray, count: int) -> float:
    """A γ that suits codes of `count` entries: 1/L, of as many atoms.

    L = λ_max of D W_e grows with the atoms in use; between one atom and all of them
    evenly, as it does where all share a direction.
    """
    one = np.abs(np.einsum("ij,ji->i", dictionary, kernel)).mean()
    whole = np.sqrt(lipschitz_constant(dictionary) * lipschitz_constant(kernel.T))
    share = (count - 1) / max(len(dictionary) - 1, 1)
    return float(1 / max(one + share * max(whole - one, 0.0), 1e-30))
