"""What all encoders share: the dictionary, its step size and the reverse call."""

import random
import warnings
from collections.abc import Iterable
from typing import Any, Literal, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from sc2keras import backend
from sc2keras.layers.rebuilding import (
    FiniteWeights,
    FixedArguments,
    Given,
    GivenDictionary,
    RememberedFreezing,
    remake,
)
from sc2keras.layers.shrinkage import DoubleTanh, Shrinkage
from sc2keras.signals import as_array
from sc2keras.validation import (
    Shape,
    Tensor,
    check_non_negative,
    check_positive,
    check_positive_integer,
)

Activation = Literal["double_tanh", "shrinkage"]
ACTIVATIONS = ("double_tanh", "shrinkage")
Recurrent = Literal["auto", "full", "factored"]
_RECURRENTS = ("auto", "full", "factored")
_MIN_ATOMS_TO_FACTOR = 2048
_USUAL_BATCH = 256


class DictionaryLayer(FixedArguments, RememberedFreezing, FiniteWeights):
    """Base of every layer that owns a dictionary D, `(n_atoms, n_features)`.

    It holds D with its atoms in the unit ball, the step size τ = 1/L, with
    L = λ_max(D Dᵀ) when the layer is built, and the decoder x̂ = s D. Subclasses call
    `build_dictionary` from `build`.

    Args:
        n_atoms: Integer, k, the number of atoms.
        l1: Float >= 0, λ, the weight of the ℓ1 term.
        dictionary: Array `(n_atoms, n_features)`, where D starts; its atoms have a norm
            of at most 1. None: random atoms of unit norm, drawn from the generator that
            `keras.utils.set_random_seed` seeds. It is an initial value: a file holds it
            in the weights alone.
        trainable_dictionary: Boolean. If False, D stays as it is given: an encoder is
            trained for a given dictionary.
        tied: Boolean. If True, one matrix encodes and decodes, W_d = τDᵀ, as in the
            paper. If False, or if D is not trainable, W_d is a weight of its own that
            starts at τDᵀ.
        trainable_step_size: Boolean. If True, τ is trained from 1/L on.
        unit: Float > 0, the unit c that signals and codes are computed in,
            s(x) = c · s₁(x/c) with l1/c: for pixels of 0 to 255, with l1 as large, 255
            gives what 1 gives for pixels of 0 to 1.
        **kwargs: Of `keras.layers.Layer`, such as `name`, `trainable`, `dtype`.
    """

    def __init__(
        self,
        n_atoms: int,
        l1: float = 0.1,
        dictionary: ArrayLike | None = None,
        trainable_dictionary: bool = True,
        tied: bool = True,
        trainable_step_size: bool = False,
        unit: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_has_dtype(self.dtype_policy)
        self.n_atoms = check_positive_integer("n_atoms", n_atoms)
        self.l1 = check_non_negative("l1", l1)
        self.trainable_dictionary = bool(trainable_dictionary)
        self.tied = bool(tied)
        self.trainable_step_size = bool(trainable_step_size)
        self.unit = check_positive("unit", unit)
        self._is_given = dictionary is not None
        # From a config: words where it came from a file, and an array otherwise.
        is_words = isinstance(dictionary, str) and "in the weights" in dictionary
        self._is_to_be_loaded = is_words and not hasattr(dictionary, "array")
        if is_words:
            array = getattr(dictionary, "array", None)
            self._initial_dictionary = None if array is None else array.astype(float)
        else:
            self._initial_dictionary = check_dictionary(dictionary, self.n_atoms)
        self.dictionary: keras.Variable = None
        self.n_features: int | None = None

    def build_dictionary(
        self, n_features: int, n_kernels: int = 0
    ) -> tuple[float, NDArray]:
        """Creates D and τ, and a `kernel` that holds `n_kernels` W_d/τ side by side.

        Returns:
            `(tau, D)`: a float and an array in float64, for the initial values of what
            the layer adds.
        """
        initial = self._initial_dictionary
        self._initial_dictionary = None
        if self._is_to_be_loaded and initial is None:
            initial = np.full((self.n_atoms, n_features), np.nan)
        elif initial is None:
            initial = random_dictionary(self.n_atoms, n_features)
        if initial.shape[1] != n_features:
            raise ValueError(
                f"dictionary must have shape (n_atoms, n_features) = ({self.n_atoms}, "
                f"{n_features}) for inputs of {n_features} features; received "
                f"dictionary.shape={initial.shape}."
            )
        step_size = 1.0 / lipschitz_constant(initial)
        self.n_features = n_features
        self.dictionary = self.add_weight(
            name="dictionary",
            shape=initial.shape,
            initializer=Given(initial),
            constraint=keras.constraints.MaxNorm(1.0, axis=1),
            trainable=self.trainable_dictionary,
        )
        self.step_size = self.add_weight(
            name="step_size",
            shape=(),
            initializer=keras.initializers.Constant(step_size),
            constraint=keras.constraints.NonNeg(),
            trainable=self.trainable_step_size,
        )
        self.kernel = None
        if n_kernels:
            # W_d over τ: its entries have the size of D's, whatever τ is, and an
            # optimizer's first steps do not wipe them out where τ is small.
            kernel = np.tile(initial.T, (1, n_kernels))
            self.kernel = self.add_weight(
                name="kernel", shape=kernel.shape, initializer=Given(kernel)
            )
        return step_size, initial

    def project(self, inputs: Tensor) -> Tensor:
        """W_d x for every sample, the part of a step that depends on x alone."""
        kernel = self.kernel
        if kernel is None:
            kernel = ops.transpose(self.dictionary)
        return self.step_size * ops.matmul(inputs, kernel)

    def recurrent_product(self) -> Tensor:
        """The matrices that the factored form stands for: W_e = I − D W_d."""
        product = DictionaryLayer.project(self, self.dictionary)
        return ops.eye(self.n_atoms, dtype=product.dtype) - product

    @property
    def shows_non_finite(self) -> bool:
        """Whether a NaN or an infinity in a signal is sure to make its code one.

        It is where nothing after the product with W_d is bounded.
        """
        return getattr(self, "activation", None) == "shrinkage"

    def decode(self, codes: Tensor) -> Tensor:
        """x̂ = (1/τ) W_dᵀ s = s D (eq. 7 of the paper)."""
        return ops.matmul(codes, self.dictionary)

    def check_call(self, inputs: Tensor, reverse: bool) -> None:
        """Raises a ValueError if a call's last axis is not n_features (n_atoms)."""
        name = "n_atoms" if reverse else "n_features"
        expected = self.n_atoms if reverse else self.n_features
        if inputs.shape[-1] != expected:
            raise ValueError(
                f"{type(self).__name__} expects inputs of shape (..., {name}) with "
                f"{name}={expected} when reverse={reverse}; received "
                f"inputs.shape={tuple(inputs.shape)}."
            )

    def build_activation(
        self, activation: Activation, step_size: float, name: str = "activation"
    ) -> Shrinkage | DoubleTanh:
        """The activation of that kind, built; a `Shrinkage` starts at l1·τ."""
        layer: Shrinkage | DoubleTanh
        if activation == "shrinkage":
            # A dictionary that is to be loaded has no step size yet.
            threshold = np.nan_to_num(self.l1 / self.unit * step_size)
            layer = Shrinkage(
                threshold, dtype=self.dtype_policy, name=name, trainable=self.trainable
            )
        else:
            layer = DoubleTanh(
                dtype=self.dtype_policy, name=name, trainable=self.trainable
            )
        layer.build((None, self.n_atoms))
        for variable in layer.weights:
            self.watch(f"{name}/{variable.name}", variable, by_default=True)
        return layer

    def in_unit(self, x: Tensor) -> Tensor:
        """x/c, signals or codes in the unit that the layer computes in."""
        return x if self.unit == 1.0 else x / self.unit

    def out_of_unit(self, codes: Tensor) -> Tensor:
        """c·s, codes in the unit of the signals."""
        return codes if self.unit == 1.0 else codes * self.unit

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "n_atoms": self.n_atoms,
            "l1": self.l1,
            "trainable_dictionary": self.trainable_dictionary,
            "tied": self.tied,
            "trainable_step_size": self.trainable_step_size,
            "unit": self.unit,
            **self._dictionary_in_config(),
        }

    def _dictionary_in_config(self) -> dict[str, str]:
        """That it was given, or is never trained, and what it is."""
        if self.trainable_dictionary and not self._is_given:
            return {}
        array = self._initial_dictionary
        if self.built:
            array = np.array(ops.convert_to_numpy(self.dictionary))
        if array is not None:
            return {"initial_dictionary": GivenDictionary.of(array)}
        return {"initial_dictionary": "in the weights"} if self._is_given else {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        layer, overrides = remake(cls, config)
        layer.override_trainable(overrides)
        return layer

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        if not self.built and self._initial_dictionary is not None:
            store["dictionary"] = self._initial_dictionary  # Of a pickle or a copy.

    def load_own_variables(self, store: Any) -> None:
        if not self.built and "dictionary" in set(store.keys()):
            self._initial_dictionary = np.array(store["dictionary"])
        else:
            super().load_own_variables(store)


class UnfoldedEncoder(DictionaryLayer):
    """Base of the encoders that unfold an iteration for `n_steps` steps.

    A subclass gives `build` and `unfold(inputs)`, which yields the code after each
    step.

    Args:
        n_atoms: Integer, k, the number of atoms.
        n_steps: Integer, T, the number of steps.
        return_sequences: Boolean. If True, the codes after every step are returned,
            `(..., n_steps, n_atoms)`; if False, those after the last.

    The other arguments are those of `DictionaryLayer`.

    Call arguments:
        inputs: Tensor `(..., n_features)`, signals; with `reverse=True` codes,
            `(..., n_atoms)`.
        reverse: Boolean. If True, decode: x̂ = s D, with the same weights.
    """

    def __init__(
        self,
        n_atoms: int,
        n_steps: int,
        l1: float = 0.1,
        dictionary: ArrayLike | None = None,
        return_sequences: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_atoms, l1=l1, dictionary=dictionary, **kwargs)
        self.n_steps = check_positive_integer("n_steps", n_steps)
        self.return_sequences = bool(return_sequences)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        check_built(self, kwargs)
        return super().__call__(*args, **kwargs)

    def call(self, inputs: Tensor, reverse: bool = False) -> Tensor:
        self.check_call(inputs, reverse)
        if reverse:
            return self.decode(inputs)
        steps = self.unfold(self.in_unit(inputs))
        return self.out_of_unit(collect_steps(steps, self.return_sequences))

    def compute_output_spec(
        self, inputs: Tensor, reverse: bool = False
    ) -> keras.KerasTensor:
        self.check_call(inputs, reverse)
        if reverse:
            shape = (*inputs.shape[:-1], self.n_features)
        else:
            shape = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        steps = (self.n_steps,) if self.return_sequences else ()
        return (*input_shape[:-1], *steps, self.n_atoms)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "n_steps": self.n_steps,
            "return_sequences": self.return_sequences,
        }


def check_built(layer: keras.layers.Layer, call_kwargs: dict[str, Any]) -> None:
    """Raises a ValueError if the first call would be in reverse.

    Keras would build the layer on the shape of the codes.
    """
    if call_kwargs.get("reverse") and not layer.built:
        raise ValueError(
            f"{type(layer).__name__} was called with reverse=True before it was built. "
            "Call it on signals first, or build it with build((None, n_features))."
        )


def collect_steps(steps: Iterable[Tensor], return_sequences: bool) -> Tensor:
    """The last of the codes that `steps` yields, or all of them on axis -2."""
    steps = list(steps)
    return ops.stack(steps, axis=-2) if return_sequences else steps[-1]


def minus_shared(x: Tensor, negated: Tensor) -> Tensor:
    """x − negated, for a `negated` that many steps share.

    Where a sum shares one tensor, TensorFlow adds up the gradients of the steps in an
    order that depends on which thread is first: from the third on the result is not
    reproducible. The gradient of a difference is a tensor of its own.
    """
    return x - negated


def is_factored(
    recurrent: Recurrent, n_atoms: int, n_features: int, n_products: int
) -> bool:
    """Whether products with D replace `n_products` matrices of k × k.

    "auto": where there are thousands of atoms, and a step then takes fewer operations,
    (n_products + 1)·d·k in place of n_products·k².
    """
    if recurrent != "auto":
        return recurrent == "factored"
    is_cheaper = (n_products + 1) * n_features < n_products * n_atoms
    return is_cheaper and n_atoms >= _MIN_ATOMS_TO_FACTOR


def is_product_cheaper(
    n_products: int, n_atoms: int, n_features: int, n_samples: int | None, n_steps: int
) -> bool:
    """Whether D W, once a batch, takes fewer operations than (s D) W at each step.

    n·k²·(d + n_rows) in place of (n + 1)·d·k·n_rows, for n matrices W of d × k.
    """
    # Nobody knows the number of a batch that is None, or a symbol of an export.
    n_rows = n_steps * (n_samples if isinstance(n_samples, int) else _USUAL_BATCH)
    product = n_products * n_atoms * (n_features + n_rows)
    return product < (n_products + 1) * n_features * n_rows


def check_recurrent(value: Recurrent) -> Recurrent:
    """`value` if it names a recurrent form, or a ValueError that lists them."""
    if value not in _RECURRENTS:
        raise ValueError(
            f"recurrent must be one of {_RECURRENTS}; received recurrent={value!r}."
        )
    return value


def lipschitz_constant(dictionary: NDArray) -> float:
    """L = λ_max(D Dᵀ), from the smaller of the two Gram matrices."""
    n_atoms, n_features = dictionary.shape
    rows = dictionary if n_atoms <= n_features else dictionary.T
    # Of a dictionary that is to be loaded, NaN, nothing is known yet.
    return np.linalg.eigvalsh(rows @ rows.T)[-1] if np.isfinite(rows).all() else np.nan


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
        found = {keras.backend.standardize_dtype(x.dtype)}
        found |= {
            keras.backend.standardize_dtype(operation(x, x).dtype)
            for operation in (ops.matmul, ops.maximum)
        }
    if found != {"float64"}:
        raise ValueError(
            f"dtype={policy.name!r} is not what {keras.backend.backend()} would compute"
            f" in. {backend.FLOAT64_REMEDY} float32."
        )


def check_activation(value: Activation) -> Activation:
    """`value` if it names an activation, or a ValueError that lists them."""
    if value not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {ACTIVATIONS}; received activation={value!r}."
        )
    return value


def check_dictionary(value: ArrayLike | None, n_atoms: int) -> NDArray | None:
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
    if norms.max() > 1 + 1e-3:
        raise ValueError(
            "dictionary must have atoms of norm at most 1; received norm "
            f"{norms.max():.4g} in atom {int(norms.argmax())}. Divide each row by its "
            "norm."
        )
    return array
