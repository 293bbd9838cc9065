"""ISTA: the exact solver of the LASSO by gradient and soft threshold."""

import keras

from sc2keras.layers.proximal_gradient import ProximalGradient
from sc2keras.registry import register_encoder


@register_encoder(
    "ISTA",
    reference="Zhou et al., An End-to-End Sparse Coding, eq. 4 to 6",
    defaults={"n_steps": 300},
)
@keras.saving.register_keras_serializable(package="sc2keras")
class ISTA(ProximalGradient):
    """The iterative shrinkage-thresholding algorithm, for a given dictionary.

    Solves min_s ½‖x − sD‖² + l1·‖s‖₁ for every sample by

        s_t = sh_(l1·τ)(s_{t−1} W_e + τ x Dᵀ),  W_e = I − τ D Dᵀ,  s_0 = 0

    with τ = 1/L, L = λ_max(D Dᵀ). The objective falls at a rate of 1/t. Nothing in the
    layer is trained; in float32 also where the layer's dtype is a narrower one.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, the number of steps, or their cap where `tol` is given.
        l1: Float >= 0, λ, the weight of the ℓ1 term, or an array, one weight an atom.
        l2, nonnegative, nonnegative_dictionary, offset, trainable_offset: What codes
            are wanted; see `DictionaryLayer`.
        dictionary: Array `(n_atoms, n_features)`, its atoms of norm at most 1; for
            instance of `sc2keras.learn_dictionary`. None: random atoms, which is of
            use only before weights are loaded.
        tol: Float or None. If given, the steps of a sample end at the first check, one
            in 10 steps or a few more, that finds its relative duality gap at most
            `tol`. Each is solved in units of its own magnitude: inputs and `l1` times a
            factor, from 1e-30 to 1e30, give the codes times that factor. The code of a
            sample that is not finite is NaN. If `n_steps` end with gaps above `tol`, an
            eager call warns, with `sklearn.exceptions.ConvergenceWarning`. In float32
            1e-4 can be reached, and 1e-5 where codes are not much larger than inputs.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(batch, n_steps, n_atoms)`. Needs `tol=None`.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `dtype`.

    The call and the errors are those of `UnfoldedEncoder`.

    Example:

    >>> import numpy as np
    >>> ista = ISTA(2, n_steps=10, l1=0.5, dictionary=np.eye(2))
    >>> [float(s) for s in ista(np.array([[2.0, 0.1]]))[0]]
    [1.5, 0.0]

    References:
        Zhou et al., An End-to-End Sparse Coding, eq. 4 to 6. Daubechies, Defrise and
        De Mol, An iterative thresholding algorithm for linear inverse problems with a
        sparsity constraint, 2004.
    """
