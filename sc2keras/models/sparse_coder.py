"""The Keras model around an encoder."""

import contextlib
import math
import operator
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras import metrics as sc_metrics
from sc2keras import signals
from sc2keras.compiled import compile_function
from sc2keras.input_pipeline import batches_of_arrays
from sc2keras.layers.ista import quiet_solvers, warn_if_open
from sc2keras.layers.slstm import UnfoldedRNN
from sc2keras.layers.unfolded import UnfoldedEncoder
from sc2keras.losses import SparseCodingLoss, flatten_samples
from sc2keras.models import fitting, saving, streaming
from sc2keras.objective import relative_duality_gap
from sc2keras.validation import (
    Tensor,
    at_least_float32,
    check_non_negative,
    check_positive_integer,
)

# XLA takes two seconds to compile a step of training, and saves a few milliseconds.
_MIN_BATCHES_FOR_XLA = 1000


@keras.saving.register_keras_serializable(package="sc2keras")
class SparseCoder(keras.Model):
    """A functional model whose output is sparse codes.

    Trained by plain `compile` and `fit(x)`, it minimises over its weights

        mean over samples of ½‖x − s(x) D‖² + l1·‖s(x)‖₁,   ‖d_j‖ ≤ 1 for every atom

    where s(x) is what its encoder returns, and D and l1 are the encoder's. The progress
    bar shows the loss, `reconstruction` (½‖x − x̂‖²), `l1` (‖s‖₁, without its weight)
    and `nonzero` (the fraction of entries above 1e-3 in magnitude).

    With `compile(loss=...)` and `fit(x, y)` the loss of a task is added: of the
    predictions, where the model has a second output (a cascade with a classifier), or
    else of the codes (a regression on codes computed beforehand, as Gregor and LeCun
    train LISTA).

    Args:
        inputs: `keras.Input` of any shape.
        outputs: The codes, as an encoder of `sc2keras.layers` returns them, or
            `[codes, predictions]`. Between the input and the encoder there may be
            layers that only change the shape: `keras.layers.Reshape`, and
            `keras.layers.Flatten` in the order of channels last.
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

    # Keras restores a functional subclass only where it has this signature.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._forwards: dict[bool, streaming.Forward] = {}
        if len(self.inputs) != 1 or len(self.outputs) not in (1, 2):
            raise ValueError(
                "SparseCoder takes one input, and as outputs the codes or "
                f"[codes, predictions]; received {len(self.inputs)} inputs and "
                f"{len(self.outputs)} outputs."
            )
        self._check_path_to_encoder()
        # Asked at every call of `encode`, which may be for a single vector.
        shape = self.inputs[0].shape[1:]
        self._usual_batch_size = streaming.usual_batch_size(
            math.prod(shape), self.encoder.n_atoms
        )
        # Of codes and signals in NumPy: float32, or float64 where the model is.
        self._result_dtype = at_least_float32(self.outputs[0].dtype)

    def _check_path_to_encoder(self) -> None:
        encoder = self.encoder
        if not isinstance(encoder, (UnfoldedEncoder, UnfoldedRNN)):
            raise ValueError(
                "The codes of a SparseCoder must be the output of an encoder of "
                f"sc2keras.layers; received the output of {encoder!r}."
            )
        if len(self.outputs[0].shape) != 2 or encoder.return_sequences:
            raise ValueError(
                "The codes of a SparseCoder must have shape (batch, n_atoms); received "
                f"{self.outputs[0].shape}. Use return_sequences=False and flatten the "
                "input."
            )
        tensor = self.outputs[0]
        while tensor is not self.inputs[0]:
            operation, node_index = tensor._keras_history[:2]
            source = operation._inbound_nodes[node_index].input_tensors[0]
            if tensor is not self.outputs[0] and not _keeps_order(operation, source):
                raise ValueError(
                    "Between the input of a SparseCoder and its encoder only Flatten "
                    "and Reshape of keras.layers may stand, with data_format="
                    f"'channels_last'; received {operation!r}. The objective compares "
                    "the input with its reconstruction: transform the data before the "
                    "model."
                )
            tensor = source
        n_features = math.prod(self.inputs[0].shape[1:])
        if encoder.n_features != n_features:
            raise ValueError(
                "The encoder of a SparseCoder must take a whole sample; received "
                f"{encoder.n_features} features of inputs of shape "
                f"{self.inputs[0].shape[1:]}. Flatten them, or train the encoder of a "
                "sequence in a keras.Model."
            )

    @property
    def encoder(self) -> UnfoldedEncoder | UnfoldedRNN:
        """The layer that makes the codes, and decodes them when called in reverse."""
        return self.outputs[0]._keras_history.operation

    @property
    def dictionary(self) -> NDArray:
        """D as a NumPy array, `(n_atoms, n_features)`."""
        # A copy: on PyTorch it would be the weight itself.
        return np.array(ops.convert_to_numpy(self.encoder.dictionary.value))

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
            optimizer: A Keras optimizer. None: the paper's,
                `Adadelta(learning_rate=1.0, epsilon=1e-6)`. (The string `"adadelta"`
                is Keras's, with a learning rate of 0.001, which hardly moves.)
            loss: Loss of a task, added to the objective; None for the objective alone.
                In a model with predictions it is theirs. As in Keras it may also be a
                list with a loss an output, or a dictionary by their names; the codes
                may then have one too. So may metrics, weights and targets.
            objective_weight: Float >= 0, the weight of the objective beside the loss.
                0 leaves the task alone.
            duality_gap: Boolean, whether `fit` and `evaluate` also report the mean
                relative duality gap of the codes for the model's own dictionary: at
                most so far is the objective from the LASSO optimum. It costs about one
                product with the dictionary a batch.
            jit_compile: Boolean, whether XLA compiles on TensorFlow; "auto": where the
                training or the array is long enough to earn the seconds that it takes.
            **kwargs: Of `keras.Model.compile`. `steps_per_execution=20` spares small
                models most of what Keras does around a batch; callbacks then see every
                twentieth.
        """
        if optimizer is None:
            optimizer = keras.optimizers.Adadelta(learning_rate=1.0, epsilon=1e-6)
        elif isinstance(optimizer, str) and optimizer.lower() == "adadelta":
            warnings.warn(
                "optimizer='adadelta' has Keras's learning rate of 0.001, which hardly "
                "moves the weights. The paper's is compile() without an optimizer, or "
                "keras.optimizers.Adadelta(learning_rate=1.0, epsilon=1e-6).",
                stacklevel=2,
            )
        self._compile_arguments = {
            "objective_weight": check_non_negative(
                "objective_weight", objective_weight
            ),
            "duality_gap": bool(duality_gap),
            # Keras would store what "auto" meant here; another backend differs.
            "jit_compile": jit_compile,
        }
        self._task = task = fitting.TaskOutput(self.output_names)
        loss = task.join(*task.split("loss", loss))
        self._has_task_loss = any(part is not None for part in keras.tree.flatten(loss))
        self._loss_of_codes = isinstance(loss, list)
        if "loss_weights" in kwargs:
            weights = task.split("loss_weights", kwargs["loss_weights"])
            kwargs["loss_weights"] = (
                list(weights) if self._loss_of_codes else weights[-1]
            )
        self._metrics_of_codes = False
        for name in ("metrics", "weighted_metrics"):
            of_codes, of_task = task.split_metrics(kwargs.get(name))
            kwargs[name] = task.join(of_codes or None, of_task)
            self._metrics_of_codes |= bool(of_codes)
        self._objective = _Objective(self.encoder.l1, duality_gap)
        super().compile(
            optimizer=optimizer,
            loss=loss if self._has_task_loss else None,
            jit_compile=jit_compile,
            **kwargs,
        )

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if not config:
            return config
        optimizer = config["optimizer"]
        if optimizer["module"].startswith("keras.src.backend."):
            # On PyTorch Keras writes its optimizer for PyTorch, which loads nowhere
            # else.
            config["optimizer"] = {
                **optimizer,
                "module": "keras.optimizers",
                "registered_name": None,
            }
        return {**config, **self._compile_arguments}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        own = self._objective.metrics if self.compiled else []
        return [*super().metrics, *own]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        codes, predictions = self._split_outputs(y_pred)
        if self._has_task_loss and y is None:
            raise ValueError(
                "The model was compiled with a loss, which needs targets; received "
                "y=None. Use fit(x, y), or compile() without a loss to train on "
                "the objective alone."
            )
        # The encoder forgets the penalties of its forward call when it is called again.
        loss = 0.0
        if self._has_task_loss or self.losses:
            outputs = [codes, predictions] if self._loss_of_codes else predictions
            targets = self._targets(y, self._loss_of_codes)
            loss = super().compute_loss(
                x, targets, outputs, self._weights(sample_weight), training
            )
        x = signals.first_of("x", x, self.inputs[0].name)
        # Of a narrower dtype the objective is computed in float32.
        dtype = at_least_float32(self.encoder.compute_dtype)
        reconstruction = ops.cast(self.encoder(codes, reverse=True), dtype)
        objective = self._objective(
            flatten_samples(ops.cast(x, dtype)),
            reconstruction,
            ops.cast(codes, dtype),
            self.encoder.dictionary,
            self._weights(sample_weight),
        )
        return loss + self._compile_arguments["objective_weight"] * objective

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        codes, predictions = self._split_outputs(y_pred)
        outputs = [codes, predictions] if self._metrics_of_codes else predictions
        targets = self._targets(y, self._metrics_of_codes)
        return super().compute_metrics(
            x, targets, outputs, self._weights(sample_weight)
        )

    def _split_outputs(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """`(codes, what a task's loss is about)`."""
        outputs = keras.tree.flatten(outputs)
        return outputs[0], outputs[-1]

    def _targets(self, y: Any, of_codes: bool) -> Any:
        """Targets as `_split_outputs` gives the outputs; those of the codes on wish."""
        targets = self._task.split("targets", y)
        return list(targets) if of_codes else targets[-1]

    def _weights(self, sample_weight: Any) -> Any:
        return self._task.split("sample_weight", sample_weight)[-1]

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
            x: Array `(n_samples, *input_shape)` of floats, scaled to about [0, 1], as
                `encode` takes it; or a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
                data loader, or an iterable of batches.
            y: Targets of the loss of `compile`, if there is one; as Keras takes them
                for a model of several outputs, a list or a dictionary by names.
            callbacks: List of `keras.callbacks.Callback`. One is added in front that
                stops a training whose loss or weights are not finite.
            batch_size, epochs, verbose, **kwargs: Of `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If `x` is not finite numbers of the model's shape (it names the
                row), or if there is nothing to train.
            DivergenceError: A ValueError, if the loss or a weight becomes a NaN or an
                infinity. Weights and optimizer are then what they were at the end of
                an earlier epoch, or before.
        """
        if not self.trainable_weights:
            raise ValueError(
                f"{self.encoder.name!r} has no trainable weights: it solves for the "
                "dictionary that it is given. Learn one with "
                "sc2keras.learn_dictionary(x, n_atoms) and pass dictionary=..., or "
                "train LISTA or SC2Net."
            )
        fitting.check_sizes(
            batch_size=batch_size,
            steps_per_epoch=kwargs.get("steps_per_epoch"),
            validation_batch_size=kwargs.get("validation_batch_size"),
        )
        if not isinstance(epochs, (int, np.integer)) or epochs < 0:
            raise ValueError(f"epochs must be an integer >= 0; received {epochs!r}.")
        x = self._training_data("x", x)
        y = self._arrays_of_targets(y)
        if kwargs.get("sample_weight") is not None:
            kwargs["sample_weight"] = _numbers("sample_weight", kwargs["sample_weight"])
        y = self._unread_targets(x, y, kwargs.get("sample_weight"))
        held_out = kwargs.get("validation_data")
        if isinstance(held_out, (tuple, list)) and 1 <= len(held_out) <= 3:
            kwargs["validation_data"] = self._validation_data(*held_out)
        elif held_out is not None:
            kwargs["validation_data"] = self._training_data("validation_data", held_out)
        if self._may_choose_xla() and self.train_function is None:
            n_samples = operator.length_hint(x, sys.maxsize)
            is_array = hasattr(x, "shape")
            n_batches = n_samples / (batch_size or 32) if is_array else n_samples
            self.jit_compile = n_batches * epochs >= _MIN_BATCHES_FOR_XLA
        if self.compiled and not self.optimizer.built:
            # A step that creates the optimizer's variables is traced a second time.
            strategy = getattr(self, "distribute_strategy", None)
            with strategy.scope() if strategy else contextlib.nullcontext():
                self.optimizer.build(self.trainable_variables)
        if self._may_gather(x, y, kwargs):
            arrays = [x, y, kwargs.pop("sample_weight", None)]
            x, y = (
                batches_of_arrays(
                    [array for array in arrays if array is not None],
                    batch_size or 32,
                    kwargs.pop("shuffle", True),
                    self.inputs[0].dtype,
                ),
                None,
            )
            kwargs["shuffle"] = False  # It is; Keras would warn that it cannot.
        self._initial_epoch = None  # Where a callback of an earlier fit went on.
        guard = fitting.LastGoodState()
        guard.set_model(self)
        try:
            with self._own_floats(), fitting.watched_by(guard, callbacks) as watched:
                history = super().fit(
                    x, y, batch_size, epochs, verbose, callbacks=watched, **kwargs
                )
            guard.check_end()
        except BaseException as error:
            guard.restore(diverged=isinstance(error, fitting.DivergenceError))
            raise
        return history

    def _training_data(self, name: str, x: Any) -> Any:
        signals.warn_of_integers(x, name)
        shape, dtype = self.inputs[0].shape[1:], self.inputs[0].dtype
        return fitting.training_data(name, x, shape, dtype)

    def _validation_data(self, x: Any, y: Any = None, weight: Any = None) -> tuple:
        x = self._training_data("validation_data", x)
        weight = None if weight is None else _numbers("sample_weight", weight)
        y = self._unread_targets(x, self._arrays_of_targets(y), weight)
        return (x, y) if weight is None else (x, y, weight)

    def _arrays_of_targets(self, y: Any) -> Any:
        """The targets that are read, with lists and frames as arrays."""
        if y is None or not self.compiled:
            return y
        of_codes, of_task = self._task.split("y", y)
        needs_codes = self._loss_of_codes or self._metrics_of_codes
        parts = [of_codes, of_task] if needs_codes else [of_task]
        parts = [part if part is None else _numbers("y", part) for part in parts]
        return parts if needs_codes else parts[0]

    def _may_gather(self, x: Any, y: Any, kwargs: dict[str, Any]) -> bool:
        """Whether `batches_of_arrays` gives the batches that Keras would."""
        if keras.backend.backend() != "tensorflow":
            return False
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return False
        arrays = [x, y, kwargs.get("sample_weight")]
        arrays = [array for array in arrays if array is not None]
        return (
            all(isinstance(array, np.ndarray) for array in arrays)
            and all(len(array) == len(x) > 0 for array in arrays)
            and isinstance(kwargs.get("shuffle", True), bool)
            and not any(
                kwargs.get(name)
                for name in ("validation_split", "class_weight", "steps_per_epoch")
            )
        )

    def _may_choose_xla(self) -> bool:
        """Whether XLA is there for TensorFlow and `compile` left the choice open.

        Keras's own "auto" never takes it on a CPU.
        """
        arguments = getattr(self, "_compile_arguments", {})
        return (
            keras.backend.backend() == "tensorflow"
            and arguments.get("jit_compile", "auto") == "auto"
            and all(layer.supports_jit for layer in self._flatten_layers())
        )

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.evaluate`, which also takes `sample_weight` without `y`."""
        if not isinstance(kwargs.get("callbacks"), keras.callbacks.CallbackList):
            # Within `fit` these are the data that it has looked at.
            batch_size = args[0] if args else kwargs.get("batch_size")
            fitting.check_sizes(batch_size=batch_size)
            saving.check_finite_weights(self, "nothing was evaluated")
            x = self._training_data("x", x)
            y = self._arrays_of_targets(y)
            if kwargs.get("sample_weight") is not None:
                weight = _numbers("sample_weight", kwargs["sample_weight"])
                kwargs["sample_weight"] = weight
        y = self._unread_targets(x, y, kwargs.get("sample_weight"))
        with self._own_floats(), fitting.kept(self):
            return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.predict`, with `x` as `encode` takes it.

        `encode` is several times as fast for the codes.
        """
        fitting.check_sizes(batch_size=args[0] if args else kwargs.get("batch_size"))
        saving.check_finite_weights(self, "nothing was predicted")
        x = self._training_data("x", x)
        if getattr(self.encoder, "tol", None) is None or not hasattr(x, "shape"):
            with self._own_floats(), fitting.kept(self):
                return super().predict(x, *args, **kwargs)
        # Where Keras calls the layers batch by batch, each would warn by itself.
        with self._own_floats(), quiet_solvers(), fitting.kept(self):
            outputs = super().predict(x, *args, **kwargs)
        codes, dtype = keras.tree.flatten(outputs)[0], self._result_dtype
        gaps = [
            relative_duality_gap(
                flatten_samples(ops.cast(x[rows], dtype)),
                ops.cast(codes[rows], dtype),
                ops.cast(self.encoder.dictionary, dtype),
                self.encoder.l1,
            )
            for rows in (slice(i, i + 4096) for i in range(0, len(codes), 4096))
        ]
        self._warn_of_open(np.concatenate(list(map(ops.convert_to_numpy, gaps))))
        return outputs

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """`keras.Model.train_on_batch`, with data as `fit` takes them."""
        x, y, sample_weight = self._batch(x, y, sample_weight)
        with self._own_floats():
            return super().train_on_batch(x, y, sample_weight, **kwargs)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """`keras.Model.test_on_batch`, with data as `fit` takes them."""
        x, y, sample_weight = self._batch(x, y, sample_weight)
        with self._own_floats():
            return super().test_on_batch(x, y, sample_weight, **kwargs)

    def _batch(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        if sample_weight is not None:
            sample_weight = _numbers("sample_weight", sample_weight)
        return self._training_data("x", x), self._arrays_of_targets(y), sample_weight

    def predict_on_batch(self, x: Any) -> Any:
        x = self._training_data("x", x)
        with self._own_floats():
            return super().predict_on_batch(x)

    def _own_floats(self) -> contextlib.AbstractContextManager[None]:
        return fitting.floats_of(self.inputs[0].dtype)

    def _unread_targets(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """`y`, or zeros: without targets Keras drops the weights of the samples."""
        if y is not None or sample_weight is None or self._has_task_loss:
            return y
        return np.zeros(len(x), dtype="float32")

    def encode(
        self,
        x: NDArray | Iterable[Any],
        batch_size: int | None = None,
        out: NDArray | None = None,
    ) -> NDArray:
        """The codes of any number of samples, in bounded memory.

        From the first full batch on, batches are encoded by a function that XLA
        compiles (on TensorFlow unless `compile(jit_compile=False)`, and on JAX), and
        the rest of the rows at the end by the same: in an iterable of small batches,
        rows are gathered first.

        Args:
            x: Array `(n_samples, *input_shape)`, a memory map included; or an iterable
                of batches, such as a `tf.data.Dataset`, whose elements are batches of x
                or tuples that begin with one.
            batch_size: Integer, the rows that are encoded at a time; None: as many as
                suit the sizes of the model.
            out: Array `(n_samples, n_atoms)` to write to, such as a memory map from
                `numpy.lib.format.open_memmap`; None: a new array.

        Returns:
            Array `(n_samples, n_atoms)`; `out`, if that was given.

        Raises:
            ValueError: If `x` is not finite numbers of the model's shape, or a code is
                not finite (with the number of the row); or if `out` cannot hold the
                codes, or shares memory with `x`.

        Warns:
            sklearn.exceptions.ConvergenceWarning: If a solver with `tol` reached its
                `n_steps` first, once, with the number of rows and the largest gap.
        """
        n_samples, parts = self._encoded(x, batch_size, out)
        shape, dtype = (self.encoder.n_atoms,), self._result_dtype
        return streaming.collect(parts, n_samples, shape, dtype, out)

    def batch_size_of_encode(self) -> int:
        """The rows that `encode` takes at a time by itself, from the model's sizes."""
        return self._usual_batch_size

    def _encoded(
        self, x: Any, batch_size: int | None, out: NDArray | None
    ) -> tuple[int | None, Iterator[NDArray]]:
        """The number of samples, if known, and the codes of a batch after the other."""
        signals.warn_of_integers(x)
        if batch_size is None:
            batch_size = self.batch_size_of_encode()
        check_positive_integer("batch_size", batch_size)
        shape, dtype = self.inputs[0].shape[1:], self.inputs[0].dtype
        x = streaming.apart(out, signals.open_samples("x", x, shape))
        n_samples = x.shape[0] if hasattr(x, "shape") else None
        parts = streaming.encoded(
            x, shape, dtype, batch_size, self._forward, self.encoder.shows_non_finite
        )
        return n_samples, self._warning_of_open(parts)

    def _warning_of_open(
        self, parts: Iterator[tuple[NDArray, ...]]
    ) -> Iterator[NDArray]:
        """The codes; at the end a warning, if a solver's tolerance was not reached."""
        found = []
        for codes, *gaps in parts:
            found += [gap.copy() for gap in gaps]
            yield codes
        if found:
            self._warn_of_open(np.concatenate(found))

    def _warn_of_open(self, gaps: NDArray) -> None:
        encoder: Any = self.encoder
        warn_if_open(gaps, encoder.tol, encoder.n_steps)

    def _forward(self, use_xla: bool) -> streaming.Forward:
        use_xla = use_xla and (self._may_choose_xla() or self.jit_compile)
        if use_xla not in self._forwards:
            self._forwards[use_xla] = compile_function(self, self._codes_of, use_xla)
        return self._forwards[use_xla]

    def _codes_of(self, x: Tensor) -> tuple[Tensor, ...]:
        """The codes; of a solver with a tolerance, also how far each is off."""
        encoder = self.encoder
        if getattr(encoder, "tol", None) is None:
            return (keras.tree.flatten(self(x, training=False))[0],)
        return encoder.solve(ops.reshape(x, (-1, encoder.n_features)))

    def decode(
        self,
        codes: NDArray | Iterable[Any],
        batch_size: int = 4096,
        out: NDArray | None = None,
    ) -> NDArray:
        """x̂ = s D for any number of codes, in the shape of the model's input.

        Args:
            codes: Array `(n_samples, n_atoms)`, a memory map included, or an iterable
                of batches.
            batch_size: Integer, the rows that are decoded at a time.
            out: Array `(n_samples, *input_shape)` to write to; None: a new array.

        Returns:
            Array `(n_samples, *input_shape)`; `out`, if that was given.
        """
        check_positive_integer("batch_size", batch_size)
        shape, dtype = self.inputs[0].shape[1:], self._result_dtype
        of_code = (self.encoder.n_atoms,)
        codes = streaming.apart(out, signals.open_samples("codes", codes, of_code))
        n_samples = codes.shape[0] if hasattr(codes, "shape") else None
        dictionary = self.dictionary.astype(dtype)
        decoded = (
            np.reshape(part @ dictionary, (-1, *shape))
            for part in streaming.finite_batches(
                "codes", codes, of_code, dtype, batch_size
            )
        )
        return streaming.collect(decoded, n_samples, shape, dtype, out)

    def reconstruct(
        self,
        x: NDArray | Iterable[Any],
        batch_size: int | None = None,
        out: NDArray | None = None,
    ) -> NDArray:
        """decode(encode(x)), a batch at a time."""
        n_samples, parts = self._encoded(x, batch_size, out)
        decoded = (self.decode(codes) for codes in parts)
        shape, dtype = self.inputs[0].shape[1:], self._result_dtype
        return streaming.collect(decoded, n_samples, shape, dtype, out)

    def save(self, filepath: saving.FilePath, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.save` to one `.keras` file, which appears whole or not at all.

        Args:
            filepath: Path that ends in `.keras`, in a folder that exists; or a remote
                path or an open file, as Keras takes them.
            overwrite: Boolean. If False, a file that is there is never replaced.
            zipped, **kwargs: Of `keras.Model.save`.

        Raises:
            ValueError: If a weight holds a NaN or an infinity, or the format could not
                be loaded again.
            FileExistsError: If `overwrite` is False and the file exists.
            OSError: If the file cannot be written. A file that is there stays as it is,
                whatever is raised, and after a kill at any moment.
        """
        saving.save(self, super().save, filepath, *args, **kwargs)

    def save_weights(
        self, filepath: saving.FilePath, *args: Any, **kwargs: Any
    ) -> None:
        """`keras.Model.save_weights` to one `.weights.h5` file, as `save` does.

        The file also says which encoder the weights are of.
        """
        saving.save_weights(self, super().save_weights, filepath, *args, **kwargs)

    def load_weights(
        self, filepath: saving.FilePath, *args: Any, **kwargs: Any
    ) -> None:
        """`keras.Model.load_weights`, which loads weights that are finite, or nothing.

        Raises:
            ValueError: If the file holds a NaN or an infinity, is damaged, or does not
                fit. The model is then what it was, as after any other error.
        """
        saving.load_weights(self, super().load_weights, filepath, *args, **kwargs)

    def export(
        self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """`keras.Model.export`, whose file or folder appears whole or not at all.

        Args:
            filepath: Path of the file or folder, in a folder that exists. An earlier
                export is replaced once the new one is written.
            format, verbose, **kwargs: Of `keras.Model.export`.

        Raises:
            ValueError: If a weight holds a NaN or an infinity.
            FileExistsError: If something else than an earlier export would be replaced.
        """
        saving.export(self, super().export, filepath, *args, **kwargs)


class _Objective:
    """The objective and its metrics.

    A plain object, so that Keras does not write the metrics into the model's file.
    """

    def __init__(self, l1: float, duality_gap: bool) -> None:
        self.loss = SparseCodingLoss(l1)
        self.reconstruction = sc_metrics.ReconstructionError()
        self.l1 = sc_metrics.L1Norm()
        self.nonzero = sc_metrics.NonzeroFraction()
        self.gap = sc_metrics.DualityGap(l1) if duality_gap else None

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        metrics = [self.reconstruction, self.l1, self.nonzero]
        return metrics if self.gap is None else [*metrics, self.gap]

    def __call__(
        self,
        x: Tensor,
        reconstruction: Tensor,
        codes: Tensor,
        dictionary: Tensor,
        sample_weight: Tensor | None,
    ) -> Tensor:
        self.reconstruction.update_state(x, reconstruction, sample_weight)
        self.l1.update_state(None, codes, sample_weight)
        self.nonzero.update_state(None, codes, sample_weight)
        if self.gap is not None:
            self.gap.update_state(x, codes, dictionary, sample_weight)
        return self.loss(x, (reconstruction, codes), sample_weight)


def _keeps_order(operation: Any, source: keras.KerasTensor) -> bool:
    """Whether a layer changes the shape of samples and nothing else."""
    if type(operation) is keras.layers.Flatten:
        # In the other order it transposes.
        return operation.data_format == "channels_last" or len(source.shape) < 3
    return type(operation) is keras.layers.Reshape


def _numbers(name: str, y: Any) -> Any:
    """Arrays, lists and frames as arrays of numbers, or a ValueError.

    Keras would take a list for many targets, and read under a mask.
    """
    if isinstance(y, dict) or fitting.is_per_output(y):
        return y
    is_array = isinstance(y, (list, tuple, np.ndarray)) or hasattr(y, "to_numpy")
    return signals.as_array(name, y) if is_array else y
