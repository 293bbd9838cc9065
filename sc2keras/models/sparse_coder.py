"""The Keras model around an encoder."""

import os
import warnings
from collections.abc import Iterable
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from sc2keras import signals
from sc2keras.backend import ArrayFunction
from sc2keras.layers.convergence import gaps_of
from sc2keras.layers.encoder import Encoder
from sc2keras.layers.rebuilding import load_finite_weights_only
from sc2keras.models import fitting, forward, path, saving, streaming
from sc2keras.models.divergence import check_batch, guarded
from sc2keras.models.objective import Objective, metrics_of
from sc2keras.models.task import Task
from sc2keras.models.variables import check_finite_weights, kept, value
from sc2keras.validation import Tensor, at_least_float32, check_non_negative


@keras.saving.register_keras_serializable(package="sc2keras")
class SparseCoder(fitting.QuickSteps):
    """A functional model whose output is sparse codes.

    Trained by plain `compile` and `fit(x)`, it minimises over its weights

        mean over samples of ½‖x − s(x) D‖² + penalty(s(x)),   ‖d_j‖ ≤ 1 for every atom

    where s(x), D and the penalty are its encoder's: l1·‖s‖₁, unless its activation has
    another. The progress bar shows the loss, `reconstruction` (½‖x − x̂‖²), `l1` (‖s‖₁,
    without its weight) and `nonzero` (the fraction of entries above 1e-3).

    With `compile(loss=...)` and `fit(x, y)` the loss of a task is added: of the
    predictions, where the model has a second output, or else of the codes (a regression
    on codes computed beforehand, as Gregor and LeCun train LISTA).

    Args:
        inputs: `keras.Input` of any shape.
        outputs: The codes, as an encoder of `sc2keras.layers` returns them, or
            `[codes, predictions]`. Between the input and the encoder there may be
            `keras.layers.Reshape`, and `keras.layers.Flatten` with channels last.
        name: String, optional.

    Raises:
        ValueError: If `outputs` is not as described.

    Example:

    >>> from sc2keras.layers import SLSTM
    >>> x = keras.Input((8, 8, 1))
    >>> model = SparseCoder(x, SLSTM(20, n_steps=3)(keras.layers.Flatten()(x)))
    >>> model.compile()
    >>> data = np.random.default_rng(0).random((64, 8, 8, 1), dtype="float32")
    >>> history = model.fit(data, epochs=2, verbose=0)
    >>> sorted(history.history)
    ['l1', 'loss', 'nonzero', 'reconstruction']
    >>> model.encode(data).shape, model.reconstruct(data).shape
    ((64, 20), (64, 8, 8, 1))

    Reference:
        Zhou et al., An End-to-End Sparse Coding, section 3 and eq. 8.
    """

    _returns_gaps = False

    # Keras restores a functional subclass only where it has this signature.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._forwards: dict[Any, ArrayFunction] = {}
        self._compile_arguments: dict[str, Any] = {}
        path.check_path(self)
        self._task = Task(self.output_names)
        # Asked at every call of `encode`, which may be for a single vector.
        self._usual_batch_size = streaming.usual_batch_size(self.encoder)
        # Of codes and signals in NumPy: float32, or float64 where the model is.
        self._result_dtype = at_least_float32(self.outputs[0].dtype)

    def call(
        self, inputs: Any, training: Any = None, mask: Any = None, **kwargs: Any
    ) -> Any:
        outputs = super().call(inputs, training, mask, **kwargs)
        if self._returns_gaps:
            codes = keras.tree.flatten(outputs)[0]
            return {"outputs": outputs, "gaps": gaps_of(codes)}
        return outputs

    @property
    def encoder(self) -> Encoder:
        """The layer that makes the codes, and decodes them when called in reverse."""
        return self.outputs[0]._keras_history.operation

    @property
    def dictionary(self) -> NDArray:
        """D as a NumPy array, `(n_atoms, n_features)`."""
        # A copy: on PyTorch it would be the weight itself.
        return np.array(value(self.encoder.dictionary))

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        objective_weight: float = 1.0,
        duality_gap: bool = False,
        jit_compile: bool | Literal["auto"] = "auto",
        **kwargs: Any,
    ) -> None:
        """Configures the model for training.

        Args:
            optimizer: A Keras optimizer; None: that of the encoder's `recipe`.
            loss: Loss of a task, added to the objective; None for the objective alone.
                Losses, metrics, weights and targets are of the predictions, if there
                are any. As in Keras they may also be a list with one an output, or a
                dictionary by their names; the codes may then have theirs, too. (Of
                metrics `[["mae"], ["accuracy"]]`: a plain list is of the predictions.)
            objective_weight: Float >= 0, the weight of the objective beside the loss.
            duality_gap: Boolean, whether `fit` and `evaluate` also report the mean of
                `sc2keras.metrics.DualityGap` for the model's own dictionary.
            jit_compile: Boolean, whether XLA compiles on TensorFlow; auto: if it pays.
            **kwargs: Of `keras.Model.compile`. `steps_per_execution=20` spares small
                models much of Keras's work; callbacks then see every twentieth batch.
        """
        if optimizer is None:
            optimizer = self.encoder.recipe.make_optimizer()
        elif isinstance(optimizer, str) and optimizer.lower() == "adadelta":
            warnings.warn(
                "optimizer='adadelta' has Keras's learning rate of 0.001, which hardly "
                "moves the weights. The paper's is compile() without an optimizer, or "
                "keras.optimizers.Adadelta(learning_rate=1.0, epsilon=1e-6).",
                stacklevel=2,
            )
        weight = check_non_negative("objective_weight", objective_weight)
        self._compile_arguments = {
            "objective_weight": weight,
            "duality_gap": bool(duality_gap),
            # Keras would store what "auto" meant here; another backend differs.
            "jit_compile": jit_compile,
        }
        # Keras would keep what is left of them once those of codes are taken out.
        self._compile_arguments |= metrics_of(kwargs)
        self._objective = Objective(self.encoder, kwargs, duality_gap)
        self._task = Task(self.output_names, loss, kwargs)
        super().compile(optimizer, jit_compile=jit_compile, **self._task.arguments)

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        own = keras.saving.serialize_keras_object(self._compile_arguments)
        return config and {**saving.portable(config), **own}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return super().metrics + (self._objective.metrics if self.compiled else [])

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        task, loss = self._task, 0.0
        task.check_targets(y)
        # The encoder forgets the penalties of its forward call when it is called again.
        if task.has_loss or self.losses:
            of_task = task.data(y, y_pred, sample_weight, task.loss_of_codes)
            loss = super().compute_loss(x, *of_task, training)
        x = signals.first_of("x", x, self.inputs[0].name)
        data = x, keras.tree.flatten(y_pred)[0], task.weight(sample_weight)
        objective = self._objective(self, *data, training)
        return loss + self._compile_arguments["objective_weight"] * objective

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        task = self._task
        of_task = task.data(y, y_pred, sample_weight, task.metrics_of_codes)
        with task.naming_missing_targets(y):
            return super().compute_metrics(x, *of_task)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: list[keras.callbacks.Callback] | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains on the objective, and on the loss of `compile(loss=...)` if there is.

        Args:
            x: Array `(n_samples, *input_shape)` of floats, scaled to about [0, 1]; or a
                `tf.data.Dataset`, a `keras.utils.PyDataset`, a data loader, or an
                iterable of batches.
            y: Targets of the loss of `compile`, if there is one.
            batch_size, epochs, verbose, callbacks, **kwargs: Of `keras.Model.fit`.

        Raises:
            ValueError: If `x` is not finite numbers of the model's shape (it names the
                row), or if there is nothing to train.
            DivergenceError: A ValueError, if the loss or a weight becomes a NaN or an
                infinity. Weights and optimizer are then those of an earlier epoch.
        """
        x, y = fitting.data_of_fit(self, x, y, batch_size, epochs, kwargs)
        self._initial_epoch = None  # Where a callback of an earlier fit went on.
        with (
            streaming.warns_once(self),
            guarded(self, callbacks) as watched,
            fitting.floats_of(self),
        ):
            history = super().fit(
                x, y, batch_size, epochs, verbose, callbacks=watched, **kwargs
            )
        self._objective.activity.warn(self.encoder)
        return history

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.evaluate`, which also takes `sample_weight` without `y`."""
        weight = kwargs.get("sample_weight")
        if not isinstance(kwargs.get("callbacks"), keras.callbacks.CallbackList):
            # Within `fit` these are the data that it has looked at.
            fitting.check_batch_size(args, kwargs)
            check_finite_weights(self, "nothing was evaluated")
            x, y, weight = fitting.data(self, x, y, weight)
            if weight is not None:
                kwargs["sample_weight"] = weight
        y = self._task.targets_beside(x, y, weight)
        with streaming.warns_once(self), fitting.floats_of(self), kept(self):
            return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.predict`; `encode` is several times as fast for the codes."""
        fitting.check_batch_size(args, kwargs)
        check_finite_weights(self, "nothing was predicted")
        x = fitting.samples(self, x)
        with fitting.floats_of(self), kept(self):
            return streaming.predicted(self, super().predict, x, *args, **kwargs)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """`keras.Model.train_on_batch`, with data as `fit` takes them.

        Raises:
            DivergenceError: If the loss is not finite. The weights may be ruined: other
                than `fit`, one batch is too short to keep a copy of them.
        """
        data = fitting.data(self, x, y, sample_weight)
        with streaming.warns_once(self), fitting.floats_of(self):
            return check_batch(super().train_on_batch(*data, **kwargs))

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """`keras.Model.test_on_batch`, with data as `fit` takes them."""
        data = fitting.data(self, x, y, sample_weight)
        with streaming.warns_once(self), fitting.floats_of(self):
            return super().test_on_batch(*data, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        x = fitting.samples(self, x)
        with fitting.floats_of(self):
            return streaming.predicted(self, super().predict_on_batch, x)

    def encode(
        self,
        x: NDArray | Iterable[Any],
        batch_size: int | None = None,
        out: NDArray | None = None,
        tol: float | None = None,
        sparse: bool = False,
    ) -> Any:
        """The codes of any number of samples, in bounded memory.

        Where there is a full batch, XLA compiles what encodes it and the rows after it
        (on JAX, and on TensorFlow unless `compile(jit_compile=False)`). With `tol` rows
        with a larger relative duality gap are where a solver starts: every code, as it
        is returned, is proven in float64 to cost at most `tol` more than the least.

        Args:
            x: Array `(n_samples, *input_shape)`, a memory map, SciPy's sparse; or an
                iterable of batches, or tuples that begin with one: a `tf.data.Dataset`.
            batch_size: Integer, the rows that are encoded at a time; None: as suits.
            out: Array `(n_samples, n_atoms)` to write to and to return, such as a
                memory map from `numpy.lib.format.open_memmap`; None: a new array.
            tol: Float > 0, the largest `objective.relative_duality_gap`; None: of any.
            sparse: Boolean, whether codes are a canonical `scipy.sparse.csr_matrix`.

        Raises:
            ValueError: If `x` is not finite numbers of the model's shape, or a code is
                not finite (with the row's number); if `out` cannot hold the codes,
                shares memory with `x`, or is given with `sparse`; if its dtype cannot
                prove a row's `tol`, or the codes are not the LASSO's.

        Warns:
            sklearn.exceptions.ConvergenceWarning: If a solver with a `tol` of its own
                reached its `n_steps` first, once for all rows.
        """
        return streaming.encode(self, x, batch_size, out, tol, sparse)

    def batch_size_of_encode(self) -> int:
        """The rows that `encode` takes at a time by itself, from the model's sizes."""
        return self._usual_batch_size

    def _forward(self, use_xla: bool) -> ArrayFunction:
        use_xla = use_xla and (fitting.may_choose_xla(self) or self.jit_compile)
        if use_xla not in self._forwards:
            self._forwards[use_xla] = forward.compile_codes(self, use_xla)
        return self._forwards[use_xla]

    def _synthesis(self) -> ArrayFunction:
        if "synthesis" not in self._forwards:
            self._forwards["synthesis"] = forward.compile_synthesis(self)
        return self._forwards["synthesis"]

    def decode(
        self,
        codes: NDArray | Iterable[Any],
        batch_size: int = 4096,
        out: NDArray | None = None,
    ) -> NDArray:
        """x̂ = s D for any number of codes, in the shape of the model's input.

        Codes are `(n_samples, n_atoms)`; the arguments are as those of `encode`.
        """
        return streaming.decode(self, codes, batch_size, out)

    def reconstruct(
        self,
        x: NDArray | Iterable[Any],
        batch_size: int | None = None,
        out: NDArray | None = None,
    ) -> NDArray:
        """decode(encode(x)), a batch at a time."""
        return streaming.reconstruct(self, x, batch_size, out)

    def save(self, filepath: saving.FilePath, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.save` to one `.keras` file, which appears whole or not at all.

        Args:
            filepath: Path that ends in `.keras`, in a folder that exists; or a remote
                path or an open file, as Keras takes them.
            overwrite: Boolean. If False, a file that is there is never replaced.

        Raises:
            ValueError: If a weight is not finite, or no load could read the format.
            FileExistsError: If `overwrite` is False and the file exists.
            OSError: If the file cannot be written.
        """
        saving.save(self, super().save, filepath, *args, **kwargs)

    def save_weights(
        self, filepath: saving.FilePath, *args: Any, **kwargs: Any
    ) -> None:
        """`keras.Model.save_weights` to one `.weights.h5` file, as `save` does."""
        saving.save_weights(self, super().save_weights, filepath, *args, **kwargs)

    def load_own_variables(self, store: Any) -> None:
        # Keras loads those of the model first, and its layers thereafter.
        for layer in self._flatten_layers(include_self=False):
            load_finite_weights_only(layer)
        super().load_own_variables(store)

    def load_weights(
        self, filepath: saving.FilePath, *args: Any, **kwargs: Any
    ) -> None:
        """`keras.Model.load_weights`, which loads weights that are finite, or nothing.

        Raises:
            ValueError: If the file holds a NaN or an infinity, is damaged, or does not
                fit. The model is then what it was.
        """
        saving.load_weights(self, super().load_weights, filepath, *args, **kwargs)

    def export(
        self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """`keras.Model.export`, whose file or folder appears whole or not at all.

        An earlier export is replaced once the new one is written. Batches are of any
        size. What would not give the model's codes is refused before any work.

        Raises:
            ValueError: If a weight holds a NaN or an infinity, or if the backend does
                not write the format, or does not write this model in it.
            ImportError: If a package that the format needs is not installed.
            FileExistsError: If something else than an earlier export would be replaced.
        """
        saving.export(self, super().export, filepath, *args, **kwargs)
