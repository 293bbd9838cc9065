"""The Keras model around an encoder."""

import contextlib
import itertools
import math
import operator
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras import metrics as sc_metrics
from sc2keras.compiled import aligned_empty, compile_forward
from sc2keras.input_pipeline import batches_of_arrays
from sc2keras.layers.slstm import UnfoldedRNN
from sc2keras.layers.unfolded import UnfoldedEncoder
from sc2keras.losses import SparseCodingLoss, flatten_samples
from sc2keras.validation import Tensor, check_non_negative, check_positive_integer

# What is held of the signals and codes of a chunk of rows: large enough for the matrix
# products to run at full rate, small enough for a step's tensors to stay in cache.
_CHUNK_BYTES = 2**22
_N_BATCHES_AT_A_TIME = 3
_CHUNK = 4096

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
            layers that only change the shape, such as `keras.layers.Flatten`.
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
        self._forwards: dict[bool, Callable[[NDArray], NDArray]] = {}
        if len(self.inputs) != 1 or len(self.outputs) not in (1, 2):
            raise ValueError(
                "SparseCoder takes one input, and as outputs the codes or "
                f"[codes, predictions]; received {len(self.inputs)} inputs and "
                f"{len(self.outputs)} outputs."
            )
        self._check_path_to_encoder()

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
            if tensor is not self.outputs[0] and not isinstance(
                operation, (keras.layers.Flatten, keras.layers.Reshape)
            ):
                raise ValueError(
                    "Between the input of a SparseCoder and its encoder only Flatten "
                    f"and Reshape may stand; received {operation!r}. The objective "
                    "compares the input with its reconstruction: transform the data "
                    "before the model."
                )
            tensor = operation._inbound_nodes[node_index].input_tensors[0]

    @property
    def encoder(self) -> UnfoldedEncoder | UnfoldedRNN:
        """The layer that makes the codes, and decodes them when called in reverse."""
        return self.outputs[0]._keras_history.operation

    @property
    def dictionary(self) -> NDArray:
        """D as a NumPy array, `(n_atoms, n_features)`."""
        return ops.convert_to_numpy(self.encoder.dictionary.value)

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
        self._has_task_loss = loss is not None
        self._objective = _Objective(self.encoder.l1, duality_gap)
        super().compile(
            optimizer=optimizer, loss=loss, jit_compile=jit_compile, **kwargs
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
            loss = super().compute_loss(x, y, predictions, sample_weight, training)
        (signals,) = keras.tree.flatten(x)
        signals = flatten_samples(ops.cast(signals, "float32"))
        reconstruction = ops.cast(self.encoder(codes, reverse=True), "float32")
        objective = self._objective(
            signals,
            reconstruction,
            ops.cast(codes, "float32"),
            self.encoder.dictionary,
            sample_weight,
        )
        return loss + self._compile_arguments["objective_weight"] * objective

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        _, predictions = self._split_outputs(y_pred)
        return super().compute_metrics(x, y, predictions, sample_weight)

    def _split_outputs(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """`(codes, what a task's loss is about)`."""
        outputs = keras.tree.flatten(outputs)
        return outputs[0], outputs[-1]

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
                `tf.data.Dataset`, a `keras.utils.PyDataset` or a data loader.
            y: Targets of the loss of `compile`, if there is one.
            callbacks: List of `keras.callbacks.Callback`. One that raises a ValueError
                when the loss is NaN or infinite is added in front.
            batch_size, epochs, verbose, **kwargs: Of `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If `x` holds a NaN or an infinity, if the loss becomes one, or
                if there is nothing to train.
        """
        if not self.trainable_weights:
            raise ValueError(
                f"{self.encoder.name!r} has no trainable weights: it solves for the "
                "dictionary that it is given. Learn one with "
                "sc2keras.learn_dictionary(x, n_atoms) and pass dictionary=..., or "
                "train LISTA or SC2Net."
            )
        _warn_of_integers(x)
        _check_finite("x", x)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [_StopOnNonFiniteLoss(), *keras.tree.flatten(callbacks or [])]
        y = self._unread_targets(x, y, kwargs.get("sample_weight"))
        held_out = kwargs.get("validation_data")
        if isinstance(held_out, tuple) and len(held_out) == 3:
            x_held_out, y_held_out, weight = held_out
            y_held_out = self._unread_targets(x_held_out, y_held_out, weight)
            kwargs["validation_data"] = (x_held_out, y_held_out, weight)
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
                ),
                None,
            )
            kwargs["shuffle"] = False  # It is; Keras would warn that it cannot.
        return super().fit(
            x, y, batch_size, epochs, verbose, callbacks=callbacks, **kwargs
        )

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
        y = self._unread_targets(x, y, kwargs.get("sample_weight"))
        return super().evaluate(x, y, *args, **kwargs)

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
        """
        _warn_of_integers(x)
        if batch_size is None:
            batch_size = self.batch_size_of_encode()
        return _collect(self._codes(x, batch_size), x, (self.encoder.n_atoms,), out)

    def batch_size_of_encode(self) -> int:
        """The rows that `encode` takes at a time by itself, from the model's sizes."""
        n_values = math.prod(self.inputs[0].shape[1:]) + 3 * self.encoder.n_atoms
        return max(64, min(4096, 2 ** round(math.log2(_CHUNK_BYTES / 4 / n_values))))

    def _codes(self, x: Any, batch_size: int) -> Iterator[NDArray]:
        """The codes of a batch after the other; each may be lost at the next."""
        check_positive_integer("batch_size", batch_size)
        staged = self._staged(x, batch_size)
        rows, n_held = next(staged, (None, 0))
        if rows is None:
            return
        if n_held < batch_size:
            # So few rows do not earn back the second that XLA takes to compile.
            yield self._forward(use_xla=False)(rows[:n_held])
            return
        forward = self._forward(use_xla=True)
        yield forward(rows)  # Compiles, before there are threads.
        # Batches side by side fill the gaps that one leaves on some of the cores.
        with ThreadPoolExecutor(_N_BATCHES_AT_A_TIME) as pool:
            running: deque = deque()
            for rows, n_held in staged:
                running.append((pool.submit(forward, rows), n_held))
                if len(running) > _N_BATCHES_AT_A_TIME:
                    codes, n_held = running.popleft()
                    yield codes.result()[:n_held]
            for codes, n_held in running:
                yield codes.result()[:n_held]

    def _staged(self, x: Any, batch_size: int) -> Iterator[tuple[NDArray, int]]:
        """Batches in aligned memory, and how many of their rows hold samples.

        The memory is used again when as many batches as run side by side have followed.
        """
        n_rows = min(batch_size, x.shape[0]) if hasattr(x, "shape") else batch_size
        shape = (n_rows, *self.inputs[0].shape[1:])
        buffers = itertools.cycle(
            aligned_empty(shape, self.inputs[0].dtype)
            for _ in range(_N_BATCHES_AT_A_TIME + 1)
        )
        rows, n_held = next(buffers), 0
        for part in _batches(x, batch_size):
            part = _check_shape(np.asarray(part), shape[1:])
            n_read = 0
            while n_read < len(part):
                n_next = min(n_rows - n_held, len(part) - n_read)
                rows[n_held : n_held + n_next] = part[n_read : n_read + n_next]
                n_held, n_read = n_held + n_next, n_read + n_next
                if n_held == batch_size:
                    yield rows, n_held
                    rows, n_held = next(buffers), 0
        if n_held:
            rows[n_held:] = 0
            yield rows, n_held

    def _forward(self, use_xla: bool) -> Callable[[NDArray], NDArray]:
        use_xla = use_xla and (self._may_choose_xla() or self.jit_compile)
        if use_xla not in self._forwards:
            self._forwards[use_xla] = compile_forward(self, use_xla)
        return self._forwards[use_xla]

    def decode(
        self,
        codes: NDArray | Iterable[Any],
        batch_size: int = _CHUNK,
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
        shape, dictionary = self.inputs[0].shape[1:], self.dictionary
        signals = (
            np.reshape(np.asarray(batch) @ dictionary, (-1, *shape))
            for batch in _batches(codes, batch_size)
        )
        return _collect(signals, codes, shape, out)

    def reconstruct(
        self,
        x: NDArray | Iterable[Any],
        batch_size: int | None = None,
        out: NDArray | None = None,
    ) -> NDArray:
        """decode(encode(x)), a batch at a time."""
        _warn_of_integers(x)
        if batch_size is None:
            batch_size = self.batch_size_of_encode()
        signals = (self.decode(codes) for codes in self._codes(x, batch_size))
        return _collect(signals, x, self.inputs[0].shape[1:], out)

    def save(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """`keras.Model.save`, which refuses weights that are not finite.

        Raises:
            ValueError: If a weight holds a NaN or an infinity. A file that is there
                stays as it is.
        """
        self._check_finite_weights()
        super().save(filepath, *args, **kwargs)

    def save_weights(
        self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> None:
        """`keras.Model.save_weights`, which refuses weights that are not finite."""
        self._check_finite_weights()
        super().save_weights(filepath, *args, **kwargs)

    def _check_finite_weights(self) -> None:
        for weight in self.weights:
            if not np.isfinite(ops.convert_to_numpy(weight.value)).all():
                raise ValueError(
                    f"Weight {weight.path!r} holds a NaN or an infinity, so nothing "
                    "was saved. Load the last good file, and check the data and the "
                    "learning rate."
                )


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


class _StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Raises a ValueError when the epoch's mean loss is NaN or infinite.

    The mean stays so once a batch made it so: a look now and then is enough, and does
    not make an accelerator wait after every batch.
    """

    _PERIOD = 50

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._next_look = 0

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # With steps_per_execution the numbers of the batches have gaps.
        if batch >= self._next_look:
            self._next_look = batch + self._PERIOD
            self._check(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check(logs)

    def _check(self, logs: dict[str, Any] | None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise ValueError(
                f"The loss became {float(loss)}, and training was stopped. Look for a "
                "NaN in the data or the targets, or lower the learning rate. The "
                "model's weights are of no use; load the last good file."
            )


def _warn_of_integers(x: Any) -> None:
    dtypes = [getattr(x, "dtype", None)]
    if hasattr(x, "element_spec"):
        signals = x.element_spec
        dtypes = [(signals[0] if isinstance(signals, tuple) else signals).dtype]
    for dtype in dtypes:
        if "int" in str(getattr(dtype, "name", dtype)):
            warnings.warn(
                f"x has dtype {getattr(dtype, 'name', dtype)}, but the models expect "
                "floats in [0, 1]. Scale images with "
                "sc2keras.applications.preprocess_input(x).",
                stacklevel=3,
            )


def _check_finite(name: str, x: Any) -> None:
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        return
    for start in range(0, len(x), _CHUNK):
        finite = np.isfinite(x[start : start + _CHUNK])
        if not finite.all():
            row = start + int(np.argwhere(~finite)[0][0])
            raise ValueError(
                f"{name} must be finite; received a NaN or an infinity in {name}[{row}]"
                f". Drop or fill such samples, for instance with numpy.nan_to_num."
            )


def _check_shape(batch: NDArray, shape: tuple[int, ...]) -> NDArray:
    if batch.shape[1:] != shape:
        raise ValueError(
            f"x must have shape (n_samples, {', '.join(map(str, shape))}), the input "
            f"of the model; received samples of shape {batch.shape[1:]}."
        )
    return batch


def _batches(x: Any, batch_size: int) -> Iterator[Any]:
    """Batches of an array's rows, or the first parts of an iterable's elements."""
    check_positive_integer("batch_size", batch_size)
    if hasattr(x, "shape"):
        for start in range(0, x.shape[0], batch_size):
            yield x[start : start + batch_size]
    else:
        for element in x:
            yield element[0] if isinstance(element, (tuple, list)) else element


def _collect(
    parts: Iterable[NDArray], source: Any, shape: tuple[int, ...], out: NDArray | None
) -> NDArray:
    """Writes the parts one after the other to `out`, or to a new array."""
    if out is None and not hasattr(source, "shape"):
        parts = [np.asarray(part, dtype="float32") for part in parts]
        empty = np.zeros((0, *shape), dtype="float32")
        return np.concatenate(parts) if parts else empty
    if out is None:
        out = np.empty((source.shape[0], *shape), dtype="float32")
    if tuple(out.shape[1:]) != tuple(shape):
        raise _bad_out(out, shape, "n_samples")
    if hasattr(source, "shape") and len(out) != source.shape[0]:
        raise _bad_out(out, shape, source.shape[0])
    start = 0
    for part in parts:
        if start + len(part) > len(out):
            raise _bad_out(out, shape, f"at least {start + len(part)}")
        out[start : start + len(part)] = part
        start += len(part)
    if start != len(out):
        raise _bad_out(out, shape, start)
    return out


def _bad_out(out: NDArray, shape: tuple[int, ...], n_samples: int | str) -> ValueError:
    return ValueError(
        f"out must have shape ({n_samples}, {', '.join(map(str, shape))}), with a row "
        f"for each sample; received out.shape={out.shape}."
    )
