"""How a network is trained: the optimizer, its learning rate, epochs and batches."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import keras
import numpy as np
from numpy.typing import NDArray

from sc2keras import backend
from sc2keras.validation import check_non_negative, check_positive_integer

# Signals of this norm, as those of MNIST have, train best at the recipes' rates.
USUAL_NORM = 10.0
# Compiling several updates into one takes a third of a second more, and saves one or
# two milliseconds an update.
_MIN_UPDATES_TO_GROUP = 400
_GROUP = 20


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained, as one value that programs pass on and print.

    The learning rate falls to zero as a cosine over the training, after a linear
    warm-up from zero if one is asked for. Every encoder has a default, its `recipe`,
    whose optimizer `SparseCoder.compile()` takes: the paper's Adadelta, or its own.

    Args:
        optimizer: String, the name of a Keras optimizer in lower case, such as
            `"adadelta"` or `"adam"`.
        learning_rate: Float >= 0, the largest learning rate.
        options: Mapping, further arguments of the optimizer. Adadelta's `epsilon` is
            1e-6 unless it is given, as in the paper that proposed it; Keras's is 1e-7.
        epochs: Integer, passes over the data.
        batch_size: Integer, samples an update.
        warmup_epochs: Integer, the epochs in which the rate rises.
        clipnorm: Float or None, the largest norm of all gradients together.
        jit_compile: Of `SparseCoder.compile`.

    Raises:
        ValueError: If an argument is unusable.

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.LISTA(n_atoms=20, input_shape=(8,))
    >>> recipe = sc2keras.Recipe("adam", learning_rate=1e-3, epochs=2, batch_size=16)
    >>> history = recipe.fit(model, np.ones((64, 8), "float32"), verbose=0)
    >>> len(history.history["loss"]), float(model.optimizer.learning_rate)
    (2, 0.0)

    References:
        Zhou et al., An End-to-End Sparse Coding, section 4.1. Zeiler, ADADELTA: An
        Adaptive Learning Rate Method, 2012.
    """

    optimizer: str = "adadelta"
    learning_rate: float = 1.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 20
    batch_size: int = 256
    warmup_epochs: int = 0
    clipnorm: float | None = None
    jit_compile: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        check_non_negative("learning_rate", self.learning_rate)
        check_positive_integer("epochs", self.epochs)
        check_positive_integer("batch_size", self.batch_size)
        if self.warmup_epochs not in range(self.epochs):
            raise ValueError(
                "warmup_epochs must be an integer from 0 to epochs − 1; received "
                f"warmup_epochs={self.warmup_epochs!r} with epochs={self.epochs}."
            )

    def replace(self, **changes: Any) -> "Recipe":
        """This recipe with some of its values replaced."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def for_samples(cls, n_samples: int, **values: Any) -> Self:
        """A recipe for so many samples: small batches and many epochs where few.

        It makes at least a thousand updates, from where on small networks are near
        what more would give. Its rate suits signals of E‖x‖² ≈ 100.

        Args:
            n_samples: Integer.
            **values: Of the recipe, in place of those that it would have.

        Example:

        >>> recipe = Recipe.for_samples(200)
        >>> recipe.batch_size, recipe.epochs, recipe.n_updates(200)
        (32, 143, 1001)
        """
        check_positive_integer("n_samples", n_samples)
        batch_size = values.get("batch_size", 32 if n_samples < 12_800 else 256)
        epochs = max(20, math.ceil(1000 / math.ceil(n_samples / batch_size)))
        return cls(**{"batch_size": batch_size, "epochs": epochs, **values})

    def n_updates(self, n_samples: int) -> int:
        """The updates of a training on so many samples."""
        return self.epochs * math.ceil(n_samples / self.batch_size)

    def make_optimizer(self, n_samples: int | None = None) -> keras.Optimizer:
        """The optimizer for so many samples; None: with a constant learning rate."""
        rate: Any = self.learning_rate
        if n_samples is not None:
            n_updates = self.n_updates(n_samples)
            n_warmup = n_updates * self.warmup_epochs // self.epochs
            rate = keras.optimizers.schedules.CosineDecay(
                0.0 if n_warmup else self.learning_rate,
                max(1, n_updates - n_warmup),
                warmup_target=self.learning_rate if n_warmup else None,
                warmup_steps=n_warmup,
            )
        config = {"learning_rate": rate, "global_clipnorm": self.clipnorm}
        if self.optimizer == "adadelta":
            config["epsilon"] = 1e-6
        config |= self.options
        named = {"class_name": self.optimizer, "config": config}
        try:
            return keras.optimizers.get(named)
        except ValueError as error:
            raise ValueError(
                f"optimizer={self.optimizer!r} with options={dict(self.options)!r} is "
                "none of keras.optimizers. Use a name such as 'adadelta' or 'adam'."
            ) from error

    def compile(
        self, model: keras.Model, n_samples: int | None = None, **kwargs: Any
    ) -> None:
        """`model.compile` with `make_optimizer(n_samples)`, and `kwargs` of its own."""
        n_updates = 0 if n_samples is None else self.n_updates(n_samples)
        if n_updates >= _MIN_UPDATES_TO_GROUP and backend.HAS_STEPS_PER_EXECUTION:
            kwargs.setdefault("steps_per_execution", _GROUP)
        kwargs.setdefault("jit_compile", self.jit_compile)
        model.compile(self.make_optimizer(n_samples), **kwargs)

    def fit(
        self, model: keras.Model, x: Any, y: Any = None, **kwargs: Any
    ) -> keras.callbacks.History:
        """Compiles the model, unless it is compiled, and trains it by `model.fit`."""
        if not model.compiled:
            self.compile(model, len(x))
        kwargs = {"batch_size": self.batch_size, "epochs": self.epochs} | kwargs
        return model.fit(x, y, **kwargs)


class Batches(keras.utils.PyDataset):
    """Batches in a new order each epoch, which no global random state decides.

    Args:
        x: Array of samples, or `SparseRows`.
        batch_size: Integer.
        random_state: Of the orders; None: that of the samples.
        sample_weight: Array `(n_samples,)`, or None.
    """

    def __init__(
        self,
        x: Any,
        batch_size: int,
        random_state: np.random.RandomState | None = None,
        sample_weight: NDArray | None = None,
    ) -> None:
        super().__init__()
        self._x, self._batch_size, self._random_state = x, batch_size, random_state
        self._weight = sample_weight
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self._x) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray, ...]:
        start = index * self._batch_size
        rows = self._order[start : start + self._batch_size]
        if self._weight is None:
            return (self._x[rows],)
        # Keras takes weights beside targets alone.
        return self._x[rows], np.zeros(len(rows), "float32"), self._weight[rows]

    def on_epoch_end(self) -> None:
        n_samples = len(self._x)
        self._order = np.arange(n_samples)
        if self._random_state is not None:
            self._order = self._random_state.permutation(n_samples)
