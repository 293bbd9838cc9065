"""LISTA and LFISTA: ISTA and FISTA unfolded, with their matrices learned."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from sc2keras.layers.ista import next_momentum_term
from sc2keras.layers.rebuilding import Given
from sc2keras.layers.unfolded import (
    Activation,
    Recurrent,
    UnfoldedEncoder,
    check_activation,
    check_recurrent,
    is_factored,
    is_product_cheaper,
    minus_shared,
)
from sc2keras.validation import Shape, Tensor


@keras.saving.register_keras_serializable(package="sc2keras")
class LISTABlock(UnfoldedEncoder):
    """Learned ISTA: `n_steps` steps of ISTA with W_e, W_d and thresholds learned.

    s_t = h(s_{t−1} W_e + x W_d), s_0 = 0, where h is the soft threshold with one
    threshold an atom. The block starts as the solver that it unfolds: W_d = τDᵀ,
    W_e = I − τ D Dᵀ, θ = l1·τ. From there on W_e and W_d are decoupled.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        l1: Float >= 0, λ, the weight of the ℓ1 term.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm.
        shared: Boolean. If True, all steps share their weights (the paper). If False,
            each step has its own W_e, W_d and thresholds, and D is trained as the
            decoder alone.
        activation: `"shrinkage"` or `"double_tanh"`, h.
        trainable_dictionary: Boolean. If False, D stays as it is given: a LISTA for a
            given dictionary, as Gregor and LeCun train it.
        tied: Boolean. If True, W_d = τDᵀ is one matrix with the decoder, as in the
            paper. If False, or if D is not trainable, W_d is a weight of its own that
            starts at τDᵀ: the codes come much closer to the optimum.
        recurrent: `"full"`: W_e is a matrix of its own, k × k. `"factored"`:
            W_e = I − D W_d, so that s W_e + x W_d = s + (x − s D) W_d; computed as it
            stands, or by W_e, whichever takes fewer operations. `"auto"`: factored
            from 2,048 atoms on where it takes fewer operations, 2·d·k in place of k².
        trainable_step_size: Boolean. If True, τ, the scale of W_d, is trained from
            1/L on.
        unit: Float > 0, the unit c that signals and codes are computed in,
            s(x) = c · s₁(x/c) with l1/c: for pixels of 0 to 255, with l1 as large, 255
            gives what 1 gives for pixels of 0 to 1.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Tensor `(batch, n_features)`, or codes `(batch, n_atoms)` in reverse.
        reverse: Boolean. If True, decode: x̂ = s D, with the same weights.

    Returns:
        Tensor `(batch, n_atoms)`, the codes; in reverse `(batch, n_features)`.

    Raises:
        ValueError: If an argument or the dictionary is unusable.

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

    def __init__(
        self,
        n_atoms: int,
        n_steps: int = 10,
        l1: float = 0.1,
        dictionary: ArrayLike | None = None,
        shared: bool = True,
        activation: Activation = "shrinkage",
        trainable_dictionary: bool = True,
        tied: bool = True,
        recurrent: Recurrent = "auto",
        trainable_step_size: bool = False,
        unit: float = 1.0,
        return_sequences: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            n_atoms,
            n_steps,
            l1=l1,
            dictionary=dictionary,
            trainable_dictionary=trainable_dictionary,
            tied=tied,
            trainable_step_size=trainable_step_size,
            unit=unit,
            return_sequences=return_sequences,
            **kwargs,
        )
        # === Config ===
        self.shared = bool(shared)
        self.activation = check_activation(activation)
        self.recurrent = check_recurrent(recurrent)

    def build(self, input_shape: Shape) -> None:
        n_sets = 1 if self.shared else self.n_steps
        tied = self.shared and self.tied and self.trainable_dictionary
        step_size, dictionary = self.build_dictionary(
            input_shape[-1], n_kernels=0 if tied else n_sets
        )
        # PyTorch knows the weights by their paths: each needs one of its own.
        suffixes = [""] if self.shared else [f"_{step}" for step in range(n_sets)]
        self.factored = is_factored(self.recurrent, self.n_atoms, input_shape[-1], 1)
        self.recurrent_kernels = []
        if self.n_steps > 1 and not self.factored:
            recurrent = np.eye(self.n_atoms) - step_size * dictionary @ dictionary.T
            self.recurrent_kernels = [
                self.add_weight(
                    name=f"recurrent_kernel{suffix}",
                    shape=recurrent.shape,
                    initializer=Given(recurrent),
                )
                # The first step starts at zero and needs none.
                for suffix in (suffixes if self.shared else suffixes[1:])
            ]
        self.activations = [
            self.build_activation(self.activation, step_size, f"activation{suffix}")
            for suffix in suffixes
        ]

    def extrapolate(self, codes: Tensor, previous: Tensor, step: int) -> Tensor:
        """The point where step `step` starts, from 1: step 0 starts at zero."""
        return codes

    def unfold(self, inputs: Tensor) -> Iterator[Tensor]:
        kernels = self.recurrent_kernels
        sizes = (*self.dictionary.shape, inputs.shape[0], self.n_steps)
        if self.factored and self.n_sets == 1 and is_product_cheaper(1, *sizes):
            kernels = [self.recurrent_product()]
        # With s_0 = 0 the first step is one of x alone.
        if self.factored and not kernels:
            negated = [-self.project_set(inputs, 0)]
        else:
            negated = ops.split(-self.project(inputs), self.n_sets, axis=-1)
        previous, codes = 0.0, self.activations[0](-negated[0])
        yield codes
        for step in range(1, self.n_steps):
            y = self.extrapolate(codes, previous, step)
            i = step % self.n_sets
            if not kernels:
                total = y + self.project_set(inputs - self.decode(y), i)
            else:
                kernel = kernels[(step - 1) % len(kernels)]
                total = minus_shared(ops.matmul(y, kernel), negated[i])
            previous, codes = codes, self.activations[i](total)
            yield codes

    def project_set(self, inputs: Tensor, i: int) -> Tensor:
        """x W_d with the i-th set of weights."""
        if self.kernel is None or self.n_sets == 1:
            return self.project(inputs)
        kernel = self.kernel[:, i * self.n_atoms : (i + 1) * self.n_atoms]
        return self.step_size * ops.matmul(inputs, kernel)

    @property
    def n_sets(self) -> int:
        """The number of sets of thresholds and W_d: 1, or one a step."""
        return len(self.activations)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "shared": self.shared,
            "activation": self.activation,
            "recurrent": self.recurrent,
        }


@keras.saving.register_keras_serializable(package="sc2keras")
class LFISTABlock(LISTABlock):
    """Learned FISTA: `n_steps` steps of FISTA with its weights learned.

        y_t = s_{t−1} + m_t·(s_{t−1} − s_{t−2})
        s_t = h(y_t W_e + x W_d)

    with one trainable momentum m_t a step, from the second on, beside the weights of
    `LISTABlock`. The block starts as FISTA.
    (Moreau and Bruna give s_{t−2} a matrix W_m of its own, which starts at −m_t·W_e;
    here it stays a multiple of W_e, so that weights can be shared over steps that
    differ in m_t, and a step costs one product.)

    The arguments, the call and the errors are those of `LISTABlock`.

    Example:

    >>> import numpy as np
    >>> lfista = LFISTABlock(20, n_steps=3, return_sequences=True)
    >>> tuple(lfista(np.ones((4, 8))).shape)
    (4, 3, 20)

    References:
        Moreau and Bruna, Understanding Neural Sparse Coding with Matrix Factorization,
        2017, section 4. Zhou et al., An End-to-End Sparse Coding, section 4.1.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.n_steps > 1:
            self.momentum = self.add_weight(
                name="momentum",
                shape=(self.n_steps - 1,),
                initializer=Given(fista_momentum(self.n_steps)[1:]),
            )

    def extrapolate(self, codes: Tensor, previous: Tensor, step: int) -> Tensor:
        # So each code has two uses: the sum of three gradients is not reproducible.
        momentum = self.momentum[step - 1]
        return (1.0 + momentum) * codes - momentum * previous


def fista_momentum(n_steps: int) -> list[float]:
    """FISTA's m_t for t = 1 … n_steps, with m_1 = 0.

    Example:

    >>> [round(m, 3) for m in fista_momentum(4)]
    [0.0, 0.0, 0.282, 0.434]
    """
    momentum, t = [0.0], 1.0
    for _ in range(n_steps - 1):
        t_next = next_momentum_term(t)
        momentum.append((t - 1.0) / t_next)
        t = t_next
    return momentum
