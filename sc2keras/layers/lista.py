"""LISTA: ISTA unfolded, with its matrices learned."""

from typing import Any

import keras
import numpy as np
from keras import ops

from sc2keras.layers.activation import Activation
from sc2keras.layers.coupled_steps import CoupledSteps, are_shrinkages
from sc2keras.layers.encoder import UnfoldedEncoder, minus_shared
from sc2keras.layers.matrices import MatrixLayer, is_factored, is_product_cheaper
from sc2keras.registry import register_encoder
from sc2keras.training import Recipe
from sc2keras.validation import Shape, Tensor

# The weights of the steps, −x W_d of each set, or x where these are factored.
_Prepared = tuple[list[Tensor], list[Tensor], Tensor | None]


@register_encoder(
    "LISTA", reference="Gregor and LeCun 2010", variants={"unshared": {"shared": False}}
)
@keras.saving.register_keras_serializable(package="sc2keras")
class LISTABlock(UnfoldedEncoder, MatrixLayer):
    """Learned ISTA: `n_steps` steps of ISTA with W_e, W_d and thresholds learned.

    s_t = h(s_{t−1} W_e + x W_d), s_0 = 0, where h is the soft threshold with one
    threshold an atom. The block starts as the solver that it unfolds: W_d = τDᵀ,
    W_e = I − τ D Dᵀ, θ = l1·τ. From there on W_e and W_d are decoupled.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        shared: Boolean. If True, all steps share their weights (the paper). If False,
            each step has its own W_e, W_d and thresholds, and D is trained as the
            decoder alone.
        l1: Float >= 0, λ, the weight of the ℓ1 term, or an array, one weight an atom.
        l2, nonnegative, nonnegative_dictionary, offset, trainable_offset: What codes
            are wanted; see `DictionaryLayer`.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        activation: `"shrinkage"`, `"double_tanh"` or an `Activation`, h.
        trainable_dictionary, tied, recurrent, trainable_step_size, unit: See
            `MatrixLayer`.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> lista = LISTABlock(20, n_steps=3)
    >>> codes = lista(np.ones((4, 8)))
    >>> tuple(codes.shape), tuple(lista(codes, reverse=True).shape)
    ((4, 20), (4, 8))

    References:
        Gregor and LeCun, Learning Fast Approximations of Sparse Coding, 2010. Zhou et
        al., An End-to-End Sparse Coding, eq. 6.
    """

    recipe = Recipe("adadelta")

    def __init__(
        self, n_atoms: int, n_steps: int = 10, *, shared: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(n_atoms, n_steps, **kwargs)
        self.shared = bool(shared)

    def build(self, input_shape: Shape) -> None:
        n_features = input_shape[-1]
        step_size, dictionary = self.build_dictionary(n_features)
        # Of thresholds and W_d.
        self.n_sets = 1 if self.shared else self.n_steps
        if not (self.shared and self.tied and self.trainable_dictionary):
            self.build_kernel(dictionary, self.n_sets)
        # PyTorch knows the weights by their paths: each needs one of its own.
        suffixes = [""] if self.shared else [f"_{t}" for t in range(self.n_sets)]
        self.factored = is_factored(self.recurrent, self.n_atoms, n_features, 1)
        self.recurrent_kernels = []
        if self.n_steps > 1 and not self.factored:
            recurrent = np.eye(self.n_atoms) - step_size * dictionary @ dictionary.T
            self.recurrent_kernels = [
                self.add_weight_from(f"recurrent_kernel{suffix}", recurrent)
                # The first step starts at zero and needs none.
                for suffix in (suffixes if self.shared else suffixes[1:])
            ]
        self.activations = [
            self.build_activation(step_size, f"activation{suffix}")
            for suffix in suffixes
        ]

    def last_activation(self) -> Activation:
        return self.activations[-1]

    def extrapolate(self, codes: Tensor, previous: Tensor, step: int) -> Tensor:
        """The point where step `step` starts, from 1: step 0 starts at zero."""
        return codes

    def prepare(self, inputs: Tensor) -> _Prepared:
        kernels = self.recurrent_kernels
        sizes = (*self.dictionary.shape, inputs.shape[0], self.n_steps)
        if self.factored and self.n_sets == 1 and is_product_cheaper(1, *sizes):
            kernels = [self.recurrent_product()]
        if self.factored and not kernels:
            return kernels, [], inputs
        return kernels, ops.split(-self.project(inputs), self.n_sets, axis=-1), None

    def initial_state(self, prepared: _Prepared) -> tuple[None, None]:
        # Of zeros nothing needs to be computed.
        return None, None

    def step(
        self, prepared: _Prepared, state: tuple[Any, Any], t: int
    ) -> tuple[Tensor, Any]:
        kernels, negated, inputs = prepared
        codes, previous = state
        i = t % self.n_sets
        if codes is None:
            total = self.project_set(inputs, 0) if inputs is not None else -negated[0]
        else:
            y = self.extrapolate(codes, 0.0 if previous is None else previous, t)
            if inputs is not None:
                total = y + self.project_set(inputs - self.synthesis(y), i)
            else:
                kernel = kernels[(t - 1) % len(kernels)]
                total = minus_shared(ops.matmul(y, kernel), negated[i])
        return self.activate(total, t), codes

    @property
    def can_take_steps(self) -> bool:
        # Tied, W_d is no weight of its own.
        is_free = self.n_sets == self.n_steps and self.kernel is not None
        return is_free and are_shrinkages(self.activations)

    def take_steps(self, steps: CoupledSteps) -> None:
        kernels = [steps.kernel_of(t) for t in range(self.n_steps)]
        step_size, dictionary = map(
            ops.convert_to_numpy, (self.step_size, self.dictionary)
        )
        self.kernel.assign(np.concatenate(kernels, axis=1) / step_size)
        for recurrent, kernel in zip(self.recurrent_kernels, kernels[1:], strict=False):
            recurrent.assign(np.eye(self.n_atoms) - dictionary @ kernel)
        steps.assign_thresholds(self.activations)

    def activate(self, total: Tensor, t: int) -> Tensor:
        """h(s), with the activation of step t."""
        return self.activations[t % self.n_sets](total)

    def project_set(self, inputs: Tensor, i: int) -> Tensor:
        """x W_d with the i-th set of weights."""
        if self.kernel is None or self.n_sets == 1:
            return self.project(inputs)
        kernel = self.kernel[:, i * self.n_atoms : (i + 1) * self.n_atoms]
        return self.step_size * ops.matmul(inputs, kernel)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shared": self.shared}
