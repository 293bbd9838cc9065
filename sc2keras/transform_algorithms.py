"""Codes for the dictionary of a model, by the algorithms of scikit-learn's names."""

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sc2keras.applications import build
from sc2keras.models import SparseCoder
from sc2keras.models.output import collect
from sc2keras.models.variables import centered, offset_of, value
from sc2keras.pursuit import orthogonal_matching_pursuit
from sc2keras.sparse_rows import collect_sparse
from sc2keras.validation import (
    at_least_float32,
    check_positive_integer,
    check_weights,
    in_words,
)

ALGORITHMS = ("network", "lasso", "omp", "threshold")
# Of a solver whose steps are not given: until the gap is at most `TOL`, or so many.
TOL, N_STEPS = 1e-4, 1_000
_ROWS_AT_A_TIME = 1024
# The solvers beside models, by their λ and their sign.
_SOLVERS: WeakKeyDictionary[SparseCoder, dict[Any, SparseCoder]] = WeakKeyDictionary()


def chosen_algorithm(algorithm: str | None, is_trained: bool) -> str:
    """What None stands for: as the model's encoder does."""
    return algorithm or ("network" if is_trained else "lasso")


def check_algorithm(
    algorithm: str | None,
    n_nonzero: int | None,
    alpha: float | ArrayLike | None,
    is_trained: bool,
    sizes: tuple[int, int],
) -> None:
    """Raises a ValueError for what `encode_by` cannot do.

    Args:
        algorithm, n_nonzero, alpha: See `encode_by`.
        is_trained: Boolean, whether the model is a network.
        sizes: Tuple, n_atoms and n_features.
    """
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise ValueError(
            f"transform_algorithm must be None or one of {ALGORITHMS}; received "
            f"transform_algorithm={algorithm!r}. The lasso_cd and lasso_lars of "
            "scikit-learn are 'lasso'."
        )
    if algorithm == "network" and not is_trained:
        raise ValueError(
            "transform_algorithm='network' needs a network; received a solver. Choose "
            "one with builder='StepLFISTA', or transform_algorithm='lasso'."
        )
    if alpha is not None:
        check_weights("transform_alpha", alpha, "n_atoms", sizes[0])
    if n_nonzero is not None:
        name = "transform_n_nonzero_coefs"
        check_positive_integer(name, n_nonzero)
        if algorithm == "omp" and n_nonzero > min(sizes):
            raise ValueError(
                f"{name} must be at most {min(sizes)}, the smaller of the numbers of "
                f"atoms and features; received {name}={n_nonzero}."
            )


def check_measured(
    encoder: Any, algorithm: str | None, name: str, alpha: float | ArrayLike | None
) -> None:
    """Raises a ValueError where a λ of zero leaves "lasso" without a duality gap.

    Args:
        encoder: Of the model.
        algorithm: See `encode_by`.
        name: String, the parameter that says λ.
        alpha: Of a solver beside the encoder, or None.
    """
    is_beside = alpha is not None or encoder.is_trained
    has_tol = is_beside or getattr(encoder, "tol", None) is not None
    l1 = encoder.l1 if alpha is None else alpha
    is_lasso = chosen_algorithm(algorithm, encoder.is_trained) == "lasso"
    if is_lasso and has_tol and np.min(np.asarray(l1)) == 0:
        raise ValueError(
            f"{name} must be above 0 where the LASSO is solved to a duality gap, which "
            f"measures nothing of least squares; received {name}={in_words(l1)}. Raise "
            "it, choose transform_algorithm='omp', or have a solver take steps alone, "
            "with builder='FISTA', n_steps=100 and l1=0."
        )


def encode_by(
    model: SparseCoder,
    x: Any,
    algorithm: str | None = None,
    *,
    n_nonzero: int | None = None,
    alpha: float | NDArray | None = None,
    nonnegative: bool | None = None,
    sparse: bool = False,
) -> Any:
    """Codes for a model's dictionary, offset and signs, `(n_samples, n_atoms)`.

    Args:
        model: `SparseCoder`.
        x: Array `(n_samples, n_features)`, or `SparseRows`.
        algorithm: String or None:

            - `"network"`: what the network gives.
            - `"lasso"`: the minimum of ½‖x − sD‖² + α·‖s‖₁, of a solver that is not the
              model's own to a relative duality gap of 1e-4.
            - `"omp"`: `sc2keras.pursuit.orthogonal_matching_pursuit`.
            - `"threshold"`: sign(x Dᵀ)·max(|x Dᵀ| − α, 0).
            - None: the model's own, network or lasso.
        n_nonzero: Integer, the entries of a code of OMP; None: a tenth of n_features,
            but at least 1 and at most n_atoms.
        alpha: Float >= 0, the α of lasso and threshold, or an array `(n_atoms,)`; None:
            the λ of the model.
        nonnegative: Boolean, whether codes are >= 0, of all but the network; None: as
            those of the model.
        sparse: Boolean, whether the codes are a `scipy.sparse.csr_matrix`.

    Example:

    >>> model = build("LISTA", 2, (2,), dictionary=np.eye(2), l1=0.5)
    >>> x = np.array([[2.0, 0.1]])
    >>> encode_by(model, x, "threshold").tolist()
    [[1.5, 0.0]]
    >>> encode_by(model, x, "omp", n_nonzero=1).tolist()
    [[2.0, 0.0]]
    """
    coder = coder_by(model, algorithm, alpha=alpha, nonnegative=nonnegative)
    if coder is not None:
        return coder.encode(x.reshape(len(x), *coder.input_shape[1:]), sparse=sparse)
    encoder = model.encoder
    l1 = encoder.l1 if alpha is None else alpha
    signs = encoder.nonnegative if nonnegative is None else nonnegative
    if algorithm == "threshold":
        return _by_parts(
            model, x, lambda rows: _thresholded(model, rows, l1, signs), sparse
        )
    size = n_nonzero
    if size is None:
        size = int(min(max(x.shape[1] / 10, 1), encoder.n_atoms))

    def pursued(rows: NDArray) -> NDArray:
        return orthogonal_matching_pursuit(rows, model, size, signs)

    return _by_parts(model, x, pursued, sparse)


def coder_by(
    model: SparseCoder,
    algorithm: str | None = None,
    *,
    alpha: float | NDArray | None = None,
    nonnegative: bool | None = None,
) -> SparseCoder | None:
    """What encodes as `encode_by` does, or None if no model does.

    It is the model itself, or a solver beside it, for its dictionary as it is now.
    """
    encoder = model.encoder
    algorithm = chosen_algorithm(algorithm, encoder.is_trained)
    if algorithm not in ("network", "lasso"):
        return None
    l1 = encoder.l1 if alpha is None else alpha
    signs = encoder.nonnegative if nonnegative is None else nonnegative
    is_own = alpha is None and signs == encoder.nonnegative and not encoder.is_trained
    return model if algorithm == "network" or is_own else _solver(model, l1, signs)


def _by_parts(
    model: SparseCoder, x: Any, codes_of: Callable[[NDArray], NDArray], sparse: bool
) -> Any:
    n_atoms, dtype = model.encoder.n_atoms, model.dictionary.dtype.name

    def parts() -> Iterator[NDArray]:
        for start in range(0, len(x), _ROWS_AT_A_TIME):
            yield codes_of(x[start : start + _ROWS_AT_A_TIME])

    if sparse:
        return collect_sparse(parts(), n_atoms, dtype)
    return collect(parts(), len(x), (n_atoms,), dtype, None)


def _thresholded(
    model: SparseCoder, x: NDArray, l1: float | NDArray, nonnegative: bool
) -> NDArray:
    products = centered(model.encoder, x) @ model.dictionary.T
    if nonnegative:
        return np.maximum(products - l1, 0.0)
    return np.sign(products) * np.maximum(np.abs(products) - l1, 0.0)


def _solver(model: SparseCoder, l1: float | NDArray, nonnegative: bool) -> SparseCoder:
    """A solver for a model's dictionary, as it is now."""
    encoder: Any = model.encoder
    shape = encoder.n_atoms, encoder.n_features
    solvers = _SOLVERS.setdefault(model, {})
    key = np.asarray(l1).tobytes(), nonnegative
    if key not in solvers:
        solvers[key] = build(
            "ActiveSet",
            shape[0],
            model.input_shape[1:],
            l1=l1,
            n_steps=N_STEPS,
            tol=getattr(encoder, "tol", None) or TOL,
            # Trained atoms may be zero, or rounded to a norm above 1: no layer is given
            # such ones.
            dictionary=np.full(shape, shape[1] ** -0.5),
            offset=None if encoder.offset is None else 0.0,
            dtype=at_least_float32(encoder.compute_dtype),
            l2=encoder.l2,
            nonnegative=nonnegative,
        )
    own: Any = solvers[key].encoder
    own.dictionary.assign(value(encoder.dictionary))
    if encoder.offset is not None:
        own.offset.assign(offset_of(encoder))
    return solvers[key]
