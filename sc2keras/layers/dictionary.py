"""Dense dictionaries: the weight D, its start, its constraint, its products."""

import random
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from sc2keras import backend
from sc2keras.layers.penalised import PenalisedCodes
from sc2keras.layers.rebuilding import (
    FiniteWeights,
    Given,
    GivenDictionary,
    MadeFromConfig,
    RememberedFreezing,
)
from sc2keras.signals import as_array
from sc2keras.validation import (
    Tensor,
    check_positive,
)

_BALL = keras.constraints.MaxNorm(1.0, axis=1)


class DictionaryLayer(
    PenalisedCodes, MadeFromConfig, RememberedFreezing, FiniteWeights
):
    """Base of every layer that owns a dictionary D, `(n_atoms, n_features)`.

    It holds D with its atoms in the unit ball, and the step size τ = 1/L, with
    L = λ_max(D Dᵀ) when the layer is built. Subclasses call `build_dictionary` from
    `build`.

    Args:
        n_atoms, l1, l2, nonnegative: See `PenalisedCodes`.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm, drawn from the generator that
            `keras.utils.set_random_seed` seeds. It is an initial value: a file holds it
            in the weights alone.
        nonnegative_dictionary: Boolean. If True, the entries of D are >= 0, and stay so
            in training: each atom is projected on the non-negative part of the ball.
        offset: Float, or array of n_features numbers, b, in the unit of the signals:
            codes are of x − b, and the reverse call gives s D + b. A mean that all
            signals share would else take atoms, and steps. None: none, or one that
            starts at zero where it is trained.
        trainable_offset: Boolean, whether b is trained.
        unit: Float > 0, the unit c that signals and codes are computed in,
            s(x) = c · s₁(x/c) with l1/c: for pixels of 0 to 255, with l1 as large, 255
            gives what 1 gives for pixels of 0 to 1.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.
    """

    trainable_dictionary: bool = False
    trainable_step_size: bool = False
    # Whether the weight b is in the layer's unit, as what is trained beside it is.
    offset_in_unit: ClassVar[bool] = False

    def __init__(
        self,
        n_atoms: int,
        *,
        dictionary: ArrayLike | None = None,
        nonnegative_dictionary: bool = False,
        offset: float | ArrayLike | None = None,
        trainable_offset: bool = False,
        unit: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, **kwargs)
        check_has_dtype(self.dtype_policy)
        self.nonnegative_dictionary = bool(nonnegative_dictionary)
        self.trainable_offset = bool(trainable_offset)
        self._initial_offset = check_offset(0.0 if offset is None else offset)
        self._has_offset = offset is not None or self.trainable_offset
        self.refuse(self.refuses)
        self.unit = check_positive("unit", unit)
        self._is_given = dictionary is not None
        # From a config: words where it came from a file, and an array otherwise.
        is_words = isinstance(dictionary, str) and "in the weights" in dictionary
        initial = getattr(dictionary, "array", None)
        self._is_to_be_loaded = is_words and initial is None
        if not is_words:
            initial = check_dictionary(
                dictionary, self.n_atoms, self.nonnegative_dictionary
            )
        self._initial_dictionary = initial
        self.dictionary: keras.Variable = None
        self.offset: keras.Variable = None
        self.n_features: int | None = None

    def build_dictionary(self, n_features: int) -> tuple[float, NDArray]:
        """Creates the weights D and τ, and returns where they start, `(tau, D)`."""
        initial = self.add_dictionary(n_features)
        self.add_offset()
        step_size = 1.0 / lipschitz_constant(initial)
        self.step_size = self.add_freezable(
            name="step_size",
            shape=(),
            initializer=Given(step_size),
            constraint=keras.constraints.NonNeg(),
            trainable=self.trainable_step_size,
        )
        return step_size, initial

    def add_dictionary(self, n_features: int) -> NDArray:
        """Creates the weight D, and returns where it starts."""
        initial = self._initial_dictionary
        self._initial_dictionary = None
        if self._is_to_be_loaded and initial is None:
            initial = np.full((self.n_atoms, n_features), np.nan)
        elif initial is None:
            initial = random_dictionary(self.n_atoms, n_features)
            if self.nonnegative_dictionary:
                initial = np.abs(initial)
        if initial.shape[1] != n_features:
            raise ValueError(
                f"dictionary must have shape (n_atoms, n_features) = ({self.n_atoms}, "
                f"{n_features}) for inputs of {n_features} features; received "
                f"dictionary.shape={initial.shape}."
            )
        backend.check_divisible(f"{self.path}/dictionary", self.n_atoms)
        self.n_features = n_features
        self.dictionary = self.add_freezable(
            name="dictionary",
            shape=initial.shape,
            initializer=Given(initial),
            constraint=NonNegativeBall() if self.nonnegative_dictionary else _BALL,
            trainable=self.trainable_dictionary,
        )
        return initial

    def add_offset(self) -> None:
        """Creates the weight b, if the layer has one."""
        start, n_features = self._initial_offset, self.n_features
        if not self._has_offset or n_features is None:
            return
        if start.size not in (1, n_features):
            raise ValueError(
                f"offset must be a number, or n_features={n_features} numbers; received"
                f" {start.size}."
            )
        unit = self.unit if self.offset_in_unit else 1.0
        self.offset = self.add_freezable(
            name="offset",
            shape=(n_features,),
            initializer=Given(np.broadcast_to(start / unit, (n_features,))),
            trainable=self.trainable_offset,
        )

    def assign_step_size(self, dictionary: NDArray) -> None:
        """Gives τ its value for a dictionary, 1/L; of zeros a number, too."""
        self.step_size.assign(1 / max(lipschitz_constant(dictionary), 1e-30))

    def follow_dictionary(self, update: Callable[[NDArray], Any]) -> None:
        """Has `update(D)` called, in float64, whenever D is assigned other atoms."""
        assign, followed = self.dictionary.assign, np.zeros(0)

        def assign_and_follow(value: Any) -> Any:
            nonlocal followed
            result = assign(value)
            value = self.dictionary.value
            if backend.is_traced(value):
                return result  # Within a training nothing is known of its values.
            dictionary = ops.convert_to_numpy(value).astype(float)
            # Keras on JAX also assigns what is there already.
            if not np.array_equal(dictionary, followed):
                followed = dictionary
                update(dictionary)
            return result

        self.dictionary.assign = assign_and_follow

    def add_weight_from(self, name: str, value: ArrayLike) -> keras.Variable:
        """A weight that starts at an array."""
        start = Given(value)
        return self.add_weight(name=name, shape=start.value.shape, initializer=start)

    def synthesis(self, codes: Tensor) -> Tensor:
        """s D, the signals that codes stand for (eq. 7 of the paper)."""
        return ops.matmul(codes, self.dictionary)

    def correlation(self, residual: Tensor) -> Tensor:
        """r Dᵀ, the adjoint of `synthesis`."""
        return ops.matmul(residual, ops.transpose(self.dictionary))

    def lipschitz(self) -> float:
        """L = λ_max(D Dᵀ) of the dictionary as it is now."""
        return lipschitz_constant(ops.convert_to_numpy(self.dictionary).astype(float))

    def check_call(self, inputs: Tensor, reverse: bool) -> None:
        """Raises a ValueError if a call's last axis is not n_features (n_atoms)."""
        name = "n_atoms" if reverse else "n_features"
        expected = getattr(self, name)
        if inputs.shape[-1] != expected:
            raise ValueError(
                f"{type(self).__name__} expects inputs of shape (..., {name}) with "
                f"{name}={expected} when reverse={reverse}; received "
                f"inputs.shape={tuple(inputs.shape)}."
            )

    def in_unit(self, x: Tensor) -> Tensor:
        """x/c, signals or codes in the unit that the layer computes in."""
        return x if self.unit == 1.0 else x / self.unit

    def out_of_unit(self, codes: Tensor) -> Tensor:
        """c·s, codes in the unit of the signals."""
        return codes if self.unit == 1.0 else codes * self.unit

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "nonnegative_dictionary": self.nonnegative_dictionary,
            "offset": self._offset_in_config(),
            "trainable_offset": self.trainable_offset,
            "unit": self.unit,
            **self._dictionary_in_config(),
        }

    def _offset_in_config(self) -> list[float] | None:
        if not self._has_offset:
            return None
        if self.built:
            unit = self.unit if self.offset_in_unit else 1.0
            return (unit * ops.convert_to_numpy(self.offset).astype(float)).tolist()
        return self._initial_offset.tolist()

    def _dictionary_in_config(self) -> dict[str, str]:
        """That it was given, or is never trained, and what it is."""
        if self.trainable_dictionary and not self._is_given:
            return {}
        array = self._initial_dictionary
        if self.built:
            array = np.array(ops.convert_to_numpy(self.dictionary), float)
        if array is not None:
            return {"initial_dictionary": GivenDictionary.of(array)}
        return {"initial_dictionary": "in the weights"} if self._is_given else {}

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        if not self.built and self._initial_dictionary is not None:
            store["dictionary"] = self._initial_dictionary  # Of a pickle or a copy.

    def load_own_variables(self, store: Any) -> None:
        if not self.built and "dictionary" in set(store.keys()):
            self._initial_dictionary = np.array(store["dictionary"])
        else:
            super().load_own_variables(store)


class NonNegativeBall(keras.constraints.Constraint):
    """The projection of atoms on the non-negative part of the unit ball.

    Of a cone and a ball around its tip: first on the one, then on the other.
    """

    def __call__(self, w: Tensor) -> Tensor:
        return _BALL(ops.relu(w))


def gram_product(dictionary: Tensor, l2: float = 0.0) -> Callable[[Tensor], Tensor]:
    """s ↦ s D Dᵀ + l2·s. With many atoms two products with D take fewer operations."""
    if l2:
        product = gram_product(dictionary)
        return lambda codes: product(codes) + l2 * codes
    n_atoms, n_features = dictionary.shape
    transposed = ops.transpose(dictionary)
    if n_atoms > 2 * n_features:
        return lambda codes: ops.matmul(ops.matmul(codes, dictionary), transposed)
    gram = ops.matmul(dictionary, transposed)
    return lambda codes: ops.matmul(codes, gram)


def lipschitz_constant(dictionary: NDArray) -> float:
    """L = λ_max(D Dᵀ), from the smaller of the two Gram matrices."""
    n_atoms, n_features = dictionary.shape
    rows = dictionary if n_atoms <= n_features else dictionary.T
    # Of a dictionary that is to be loaded, NaN, nothing is known yet.
    return np.linalg.eigvalsh(rows @ rows.T)[-1] if np.isfinite(rows).all() else np.nan


def leading_direction(dictionary: NDArray) -> NDArray:
    """The unit vector v of n_features for which ‖v Dᵀ‖² = L = λ_max(D Dᵀ)."""
    if not np.isfinite(dictionary).all():
        # As `lipschitz_constant`.
        return np.full(dictionary.shape[1], np.nan)
    return np.linalg.svd(dictionary, full_matrices=False)[2][0]


def random_dictionary(n_atoms: int, n_features: int) -> NDArray:
    """Gaussian atoms of unit norm, seeded by `keras.utils.set_random_seed`."""
    generator = np.random.default_rng(random.getrandbits(63))
    atoms = generator.standard_normal((n_atoms, n_features))
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def check_has_dtype(policy: keras.DTypePolicy) -> None:
    """Raises a ValueError if the backend computes in another dtype than float64."""
    if policy.compute_dtype != "float64":
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns, and takes float32.
        x = ops.convert_to_tensor(np.ones((1, 1)), dtype="float64")
        results = (x, ops.matmul(x, x), ops.maximum(x, x))
        found = {keras.backend.standardize_dtype(result.dtype) for result in results}
    if found != {"float64"}:
        raise ValueError(
            f"dtype={policy.name!r} is not what {keras.backend.backend()} would compute"
            f" in. {backend.FLOAT64_REMEDY} float32."
        )


def check_offset(value: ArrayLike) -> NDArray:
    """`value` as a flat float64 array of finite numbers, or a ValueError."""
    if ops.is_tensor(value) or isinstance(value, keras.Variable):
        value = ops.convert_to_numpy(value)
    array = as_array("offset", value).astype("float64").ravel()
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"offset must be finite; received offset[{bad[0]}]={array[bad[0]]:g}."
        )
    return array


def check_dictionary(
    value: ArrayLike | None, n_atoms: int, nonnegative: bool = False
) -> NDArray | None:
    """`value` as a float64 array of `n_atoms` usable atoms, or a ValueError."""
    if value is None:
        return None
    if ops.is_tensor(value) or isinstance(value, keras.Variable):
        value = ops.convert_to_numpy(value)
    array = as_array("dictionary", value).astype("float64")
    if array.ndim != 2 or array.shape[0] != n_atoms:
        raise ValueError(
            "dictionary must have shape (n_atoms, n_features) with "
            f"n_atoms={n_atoms}; received dictionary.shape={array.shape}. Its atoms "
            "are its rows, as in scikit-learn's components_."
        )
    norms = np.linalg.norm(array, axis=1)
    if not np.isfinite(norms).all():
        raise ValueError(
            "dictionary must be finite; received a NaN or an infinity in atom "
            f"{int(np.argmax(~np.isfinite(norms)))}."
        )
    if norms.min() < 1e-8:
        raise ValueError(
            f"dictionary must have no zero atom; received norm {norms.min():.1e} in "
            f"atom {int(norms.argmin())}. Replace it, for instance with a sample "
            "divided by its norm."
        )
    if nonnegative and array.min() < 0:
        raise ValueError(
            "dictionary must be >= 0 with nonnegative_dictionary=True; received "
            f"{array.min():.4g} in atom {int(array.min(axis=1).argmin())}. Clip it at "
            "zero, or learn one with sc2keras.learn_dictionary(..., "
            "nonnegative_dictionary=True)."
        )
    # Rounded to bfloat16, an entry is up to 2⁻⁹ too large.
    if norms.max() > 1 + 2e-3:
        raise ValueError(
            "dictionary must have atoms of norm at most 1; received norm "
            f"{norms.max():.4g} in atom {int(norms.argmax())}. Divide each row by its "
            "norm."
        )
    return array
