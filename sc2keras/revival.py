"""Atoms that no code uses, made useful while a model trains."""

import warnings
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sc2keras.layers.support_selection import check_fraction
from sc2keras.models import SparseCoder
from sc2keras.models.variables import value
from sc2keras.signals import as_samples, check_finite
from sc2keras.validation import check_positive_integer, depth_of_caller

# An atom is dead where its entries are this small beside the largest of all.
_FORGOTTEN = 1e-6
_NORM_OF_NOTHING = 1e-8


class ReviveAtoms(keras.callbacks.Callback):
    """Makes dead atoms anew from the samples that are reconstructed worst.

    At the ends of epochs it encodes some samples. Atoms that none of them uses become
    samples, in norm one and without an offset, drawn with a probability that is the
    square of their error ‖x − x̂‖² (Bricken et al. 2023). Whatever an encoder has for
    such an atom (its columns of matrices, its threshold) becomes what it would start
    with for the new dictionary, and the optimizer forgets about it. The columns of a
    sparse autoencoder's W_e become half as large as the usual one, so that new atoms
    do not take over what others code. Where most atoms are dead, an encoder with a step
    size starts again as a whole from the new dictionary, which that must suit.

    It works for every encoder that trains its dictionary.

    Args:
        x: Array of samples, such as those of `fit`.
        every: Integer, the number of epochs from one revival to the next.
        until: Float from 0 to 1, the part of the epochs in which atoms are revived;
            those of the end train in peace.
        n_samples: Integer, how many samples are looked at, drawn anew each time.
        seed: Integer, of the draws.

    Attributes:
        revived: Dictionary, how many atoms were revived after each epoch.

    Raises:
        ValueError: If an argument is unusable; when `fit` begins, if the model trains
            no dictionary.

    Example:

    >>> import sc2keras
    >>> x = np.random.default_rng(0).random((256, 16), dtype="float32")
    >>> model = sc2keras.applications.LISTA(32, (16,), l1=0.8)
    >>> model.compile()
    >>> revive = ReviveAtoms(x)
    >>> history = model.fit(x, epochs=8, callbacks=[revive], verbose=0)
    >>> sorted(revive.revived)
    [0, 1, 2, 3, 4, 5]

    Reference:
        Bricken et al., Towards Monosemanticity, 2023, appendix on resampling.
    """

    def __init__(
        self,
        x: ArrayLike,
        every: int = 1,
        until: float = 0.75,
        n_samples: int = 10_000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.x = x
        self.every = check_positive_integer("every", every)
        self.until = check_fraction("until", until)
        self.n_samples = check_positive_integer("n_samples", n_samples)
        self.seed = seed
        self.revived: dict[int, int] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        if not isinstance(model, SparseCoder) or not model.encoder.dictionary.trainable:
            raise ValueError(
                "ReviveAtoms needs a SparseCoder that trains its dictionary; received "
                f"{model.name!r}. Leave it out, or use trainable_dictionary=True."
            )
        shape = model.input_shape[1:]
        self._samples = as_samples("x", self.x, shape)
        check_finite("x", self._samples, model.inputs[0].dtype)
        self._generator = np.random.default_rng(self.seed)
        self.revived = {}
        self._warn_of_none(self.params["epochs"])

    def _warn_of_none(self, n_epochs: int) -> None:
        if self.every <= self.until * n_epochs:
            return
        warnings.warn(
            f"No atom is revived in epochs={n_epochs} with every={self.every} and "
            f"until={self.until:g}: the first time would be after epoch {self.every}, "
            f"the last at {self.until:g} of the epochs. Train for more epochs, or set "
            "every=1 and until=1.0.",
            stacklevel=depth_of_caller(),
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        done = epoch + 1
        if done % self.every == 0 and done <= self.until * self.params["epochs"]:
            self.revived[epoch] = self._revive()

    def _revive(self) -> int:
        """Makes the dead atoms anew; how many there were."""
        model, size = self.model, min(self.n_samples, len(self._samples))
        rows = self._generator.choice(len(self._samples), size, replace=False)
        x = self._samples[np.sort(rows)]
        codes = model.encode(x)
        largest = np.abs(codes).max(axis=0)
        dead = np.flatnonzero(largest <= _FORGOTTEN * largest.max())
        left = np.reshape(x - model.decode(codes), (len(x), -1)).astype("float64")
        signals = np.reshape(x - self._offset(), (len(x), -1)).astype("float64")
        if model.encoder.nonnegative_dictionary:
            signals = np.maximum(signals, 0.0)
        new = self._directions(signals, np.sum(left**2, axis=1), len(dead))
        dead = dead[: len(new)]
        if len(dead):
            dictionary = model.dictionary.astype("float64")
            dictionary[dead] = new
            start_again(model, dictionary, dead)
        return len(dead)

    def _offset(self) -> NDArray:
        """What codes of zeros stand for."""
        nothing = np.zeros((1, self.model.encoder.n_atoms), "float32")
        return self.model.decode(nothing)

    def _directions(self, x: NDArray, errors: NDArray, n_most: int) -> NDArray:
        """At most so many rows in norm one, drawn by the squares of their errors."""
        norms = np.linalg.norm(x, axis=1)
        usable = np.flatnonzero((norms > _NORM_OF_NOTHING) & (errors > 0))
        n_atoms = min(n_most, len(usable))
        if not n_atoms:
            return np.zeros((0, x.shape[1]))
        chance = np.maximum((errors[usable] / errors.max()) ** 2, 1e-12)
        chance /= chance.sum()
        chosen = self._generator.choice(usable, n_atoms, replace=False, p=chance)
        return x[chosen] / norms[chosen, None]


def start_again(model: SparseCoder, dictionary: NDArray, atoms: NDArray) -> None:
    """Gives a model another dictionary, and all that is of some atoms its start.

    Args:
        model: A `SparseCoder`, built.
        dictionary: Float64 array `(n_atoms, n_features)`, that differs in these atoms.
        atoms: Integers, which those are.
    """
    encoder: Any = model.encoder
    fresh = _fresh(encoder, _usable(dictionary))
    is_whole = len(atoms) > len(dictionary) / 2 and hasattr(
        getattr(encoder, "cell", encoder), "step_size"
    )
    axes = _axes_of_atoms(type(encoder), _config(encoder), encoder.n_features)
    for weight, start, of_atoms in zip(
        encoder.weights, fresh.weights, axes, strict=True
    ):
        parts: list[Any] = [...]
        if not is_whole:
            parts = [_part(axis, n, len(dictionary), atoms) for axis, n in of_atoms]
        new = value(start)
        if weight is encoder.dictionary:
            new = dictionary
        for variable, source in _with_slots(model, weight, new):
            held = np.array(value(variable))
            for part in parts:
                held[part] = source[part]
            variable.assign(held)
    encoder.moderate(atoms)


def _with_slots(
    model: Any, weight: keras.Variable, new: NDArray
) -> list[tuple[Any, NDArray]]:
    """A weight with its new values, and what the optimizer holds for it with zeros."""
    optimizer = getattr(model, "optimizer", None)
    key = weight.path.replace("/", "_")
    pairs = [(weight, new)]
    for variable in optimizer.variables if optimizer is not None else []:
        if key in variable.path and tuple(variable.shape) == tuple(weight.shape):
            # The moving average of a weight is a weight.
            is_weight = variable.path.endswith("average")
            pairs.append((variable, new if is_weight else np.zeros_like(new)))
    return pairs


def _config(encoder: Any) -> dict[str, Any]:
    config = encoder.get_config()
    for name in ("initial_dictionary", "trainable_overrides"):
        config.pop(name, None)
    return config


def _fresh(encoder: Any, dictionary: NDArray) -> Any:
    """An encoder of the same arguments, as it starts for a dictionary."""
    fresh = type(encoder).from_config({**_config(encoder), "dictionary": dictionary})
    fresh.build((None, dictionary.shape[1]))
    return fresh


def _usable(dictionary: NDArray) -> NDArray:
    """The dictionary, without atoms of nothing."""
    norms = np.linalg.norm(dictionary, axis=1, keepdims=True)
    return np.where(
        norms > _NORM_OF_NOTHING, dictionary, 1 / np.sqrt(dictionary.shape[1])
    )


def _axes_of_atoms(
    cls: Any, config: dict[str, Any], n_features: int
) -> list[list[tuple[int, int]]]:
    """Of each weight the axes that have n numbers an atom, as `(axis, n)`.

    Sizes alone do not tell, as there may be as many features: those of an encoder with
    one atom more do.
    """
    shapes = []
    n_atoms = config["n_atoms"]
    for more in (0, 1):
        larger = {**_padded(config, n_atoms, more), "n_atoms": n_atoms + more}
        layer = cls.from_config(larger)
        layer.build((None, n_features))
        shapes.append([tuple(weight.shape) for weight in layer.weights])
    return [
        [(axis, b - a) for axis, (a, b) in enumerate(zip(*pair, strict=True)) if a != b]
        for pair in zip(*shapes, strict=True)
    ]


def _padded(config: Any, n_atoms: int, more: int) -> Any:
    """A configuration whose lists of a number an atom, such as λ, have more of them."""
    if isinstance(config, dict):
        return {
            name: value if name == "offset" else _padded(value, n_atoms, more)
            for name, value in config.items()
        }
    if isinstance(config, list) and len(config) == n_atoms:
        return config + more * config[-1:]
    return config


def _part(axis: int, n_blocks: int, n_atoms: int, atoms: NDArray) -> tuple[Any, ...]:
    """The index of the entries of some atoms along an axis of blocks of all atoms."""
    index = (np.arange(n_blocks)[:, None] * n_atoms + atoms).reshape(-1)
    return (slice(None),) * axis + (index,)
