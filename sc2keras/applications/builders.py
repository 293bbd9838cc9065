"""Builders of the paper's methods, as in `keras.applications`."""

import os
from collections.abc import Callable
from typing import Any

from sc2keras.applications.building import build
from sc2keras.models import SparseCoder
from sc2keras.validation import Tensor


def SC2Net(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "auto",
    name: str = "sc2net",
    **kwargs: Any,
) -> SparseCoder:
    """SC2Net: sparse codes by `n_steps` steps of a Sparse LSTM.

    `activation="double_tanh"` is that of the paper's eq. 17, whose codes are small
    where those of the default, the soft threshold, are exactly zero.

    The arguments are those of `build`, and of `sc2keras.layers.SLSTM`.

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.SC2Net(n_atoms=20, input_shape=(8, 8, 1))
    >>> model.compile()
    >>> x = np.random.default_rng(0).random((64, 8, 8, 1), dtype="float32")
    >>> history = model.fit(x, verbose=0)
    >>> model.encode(x).shape
    (64, 20)

    Reference:
        Zhou et al., An End-to-End Sparse Coding, section 3.
    """
    shared = (n_atoms, input_shape, weights, classes, classifier_activation, name)
    return build("SC2Net", *shared, **kwargs)


def LISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "auto",
    name: str = "lista",
    **kwargs: Any,
) -> SparseCoder:
    """LISTA: sparse codes by `n_steps` steps of learned ISTA.

    It is trained on the objective, as the paper's baseline is, or as its authors do on
    codes computed beforehand: pass the dictionary they belong to with
    `trainable_dictionary=False`, compile with a regression loss and
    `objective_weight=0`, and `fit(x, codes)`.

    The arguments are those of `build`, and of `sc2keras.layers.LISTABlock`.

    Example:

    >>> import numpy as np, sc2keras
    >>> x = np.random.default_rng(0).random((64, 9), dtype="float32")
    >>> shape = {"n_atoms": 4, "input_shape": (9,)}
    >>> exact = sc2keras.applications.FISTA(**shape)
    >>> model = sc2keras.applications.LISTA(
    ...     **shape, dictionary=exact.dictionary, trainable_dictionary=False)
    >>> model.compile(loss="mse", objective_weight=0.0)
    >>> history = model.fit(x, exact.encode(x), verbose=0)

    References:
        Gregor and LeCun, Learning Fast Approximations of Sparse Coding, 2010. Zhou et
        al., An End-to-End Sparse Coding, section 2.
    """
    shared = (n_atoms, input_shape, weights, classes, classifier_activation, name)
    return build("LISTA", *shared, **kwargs)


def LFISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "auto",
    name: str = "lfista",
    **kwargs: Any,
) -> SparseCoder:
    """LFISTA: sparse codes by `n_steps` steps of learned FISTA.

    It is trained in either of the two ways of `LISTA`.

    The arguments are those of `build`, and of `sc2keras.layers.LFISTABlock`.

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.LFISTA(n_atoms=20, input_shape=(8, 8, 1))
    >>> model.encode(np.zeros((3, 8, 8, 1), "float32")).shape
    (3, 20)

    References:
        Moreau and Bruna, Understanding Neural Sparse Coding with Matrix Factorization,
        2017. Zhou et al., An End-to-End Sparse Coding, section 4.1.
    """
    shared = (n_atoms, input_shape, weights, classes, classifier_activation, name)
    return build("LFISTA", *shared, **kwargs)


def AdaptiveISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "auto",
    name: str = "adaptive_ista",
    **kwargs: Any,
) -> SparseCoder:
    """Adaptive ISTA: sparse codes by `n_steps` steps with trained momentum vectors.

    The arguments are those of `build`, and of `sc2keras.layers.AdaptiveISTA`.

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.AdaptiveISTA(n_atoms=20, input_shape=(8, 8, 1))
    >>> model.encode(np.zeros((3, 8, 8, 1), "float32")).shape
    (3, 20)

    Reference:
        Zhou et al., An End-to-End Sparse Coding, section 3.1.
    """
    shared = (n_atoms, input_shape, weights, classes, classifier_activation, name)
    return build("AdaptiveISTA", *shared, **kwargs)


def ISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "auto",
    name: str = "ista",
    **kwargs: Any,
) -> SparseCoder:
    """ISTA: sparse codes for a given dictionary, solved for each sample.

    It has nothing to train: it encodes with the dictionary that it is given.

    The arguments are those of `build`, and of `sc2keras.layers.ISTA`.

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.ISTA(
    ...     n_atoms=4, input_shape=(4,), dictionary=np.eye(4), l1=0.5)
    >>> float(model.encode(np.ones((1, 4), "float32"))[0, 0])
    0.5

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 4 to 6.
    """
    shared = (n_atoms, input_shape, weights, classes, classifier_activation, name)
    return build("ISTA", *shared, **kwargs)


def FISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "auto",
    name: str = "fista",
    **kwargs: Any,
) -> SparseCoder:
    """FISTA: sparse codes for a given dictionary, solved for each sample.

    It has nothing to train: it encodes with the dictionary that it is given.

    The arguments are those of `build`, and of `sc2keras.layers.FISTA`.

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.FISTA(
    ...     n_atoms=4, input_shape=(4,), dictionary=np.eye(4), l1=0.5, tol=1e-5)
    >>> float(model.encode(np.ones((1, 4), "float32"))[0, 0])
    0.5

    Reference:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear
        Inverse Problems, 2009.
    """
    shared = (n_atoms, input_shape, weights, classes, classifier_activation, name)
    return build("FISTA", *shared, **kwargs)
