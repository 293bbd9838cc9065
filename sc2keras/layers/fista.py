"""FISTA: the accelerated exact solver of the LASSO, for a given dictionary."""

import keras
from keras import ops

from sc2keras.layers.proximal_gradient import ProximalGradient
from sc2keras.registry import register_encoder
from sc2keras.validation import Tensor


@register_encoder(
    "FISTA", reference="Beck and Teboulle 2009", defaults={"n_steps": 300}
)
@keras.saving.register_keras_serializable(package="sc2keras")
class FISTA(ProximalGradient):
    """The fast iterative shrinkage-thresholding algorithm, for a given dictionary.

    Solves min_s ½‖x − sD‖² + l1·‖s‖₁ for every sample by ISTA's step at an
    extrapolated point,

        y_t = s_{t−1} + m_t·(s_{t−1} − s_{t−2}),   s_t = sh_(l1·τ)(y_t W_e + τ x Dᵀ)

    where m_t = (q_{t−1} − 1)/q_t, q_t = (1 + √(1 + 4q²_{t−1}))/2 and q_1 = 1, so that
    the first two steps are ISTA's. The objective falls at a rate of 1/t².

    With `tol` the momentum of a sample starts anew (q = 1, so that m = 0) whenever its
    last step went against the extrapolation, (y_t − s_t)·(s_t − s_{t−1}) > 0: the
    objective then falls linearly, and a gap of 1e-4 takes a third of the steps. Without
    `tol` the algorithm is the plain one.

    The arguments, the call and the errors are those of `ISTA`.

    Example:

    >>> import numpy as np
    >>> fista = FISTA(2, tol=1e-6, l1=0.5, dictionary=np.eye(2))
    >>> codes = fista(np.array([[2.0, 0.1]]))
    >>> [float(x) for x in fista(codes, reverse=True)[0]]
    [1.5, 0.0]

    References:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear
        Inverse Problems, 2009, section 4. O'Donoghue and Candès, Adaptive Restart for
        Accelerated Gradient Schemes, 2015, section 3.2, the gradient scheme.
    """

    def extrapolate(
        self, codes: Tensor, previous: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        t_next = next_momentum_term(t)
        return codes + ((t - 1.0) / t_next) * (codes - previous), t_next

    def restart(self, t: Tensor, overshoot: Tensor) -> Tensor:
        return ops.where(overshoot > 0.0, 1.0, t)


def next_momentum_term(t: Tensor) -> Tensor:
    """q_t = (1 + √(1 + 4q²_{t−1}))/2 of FISTA, for a tensor or a float."""
    return 0.5 * (1.0 + (1.0 + 4.0 * t * t) ** 0.5)


def extrapolated(codes: Tensor, previous: Tensor, momentum: Tensor) -> Tensor:
    """codes + m·(codes − previous), for a trained m.

    So each of the codes has two uses: the sum of three gradients is not reproducible.
    """
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
