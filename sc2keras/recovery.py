"""Fitting encoders to recover sparse codes, on samples that are drawn meanwhile."""

import contextlib
import itertools
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from sc2keras.evaluation import RecoveryQuality, recovery_quality
from sc2keras.layers import ALISTABlock, HyperLISTABlock, NAALISTABlock
from sc2keras.layers.encoder import Encoder
from sc2keras.losses import RecoveryKind, RecoveryLoss
from sc2keras.models import SparseCoder, compile_forward
from sc2keras.models.streaming import NonFiniteCodeError
from sc2keras.recovery_fits import (
    BestWeights,
    Forward,
    Problem,
    check_start,
    fit_greedily,
    search,
    truncated,
)
from sc2keras.recovery_samples import samples_for
from sc2keras.signals import as_array
from sc2keras.validation import check_positive, check_positive_integer

Method = Literal["auto", "greedy", "search", "joint", "stages"]

_FEW_WEIGHTS = 1000
# Stages of a step, after Chen et al., and their shares of the rate: its own weights,
# then all so far.
_STAGES = (("own", 1.0), ("all", 0.2), ("all", 0.02))


def fit_recovery(
    model: SparseCoder,
    dictionary: ArrayLike | None = None,
    *,
    pairs: tuple[ArrayLike, ArrayLike] | None = None,
    method: Method = "auto",
    loss: RecoveryKind | None = None,
    n_updates: int = 250,
    learning_rate: float | None = None,
    batch_size: int = 256,
    n_samples: int = 1000,
    start: SparseCoder | None = None,
    seed: int = 0,
    verbose: int = 1,
    **problem: Any,
) -> RecoveryQuality:
    """Fits a model to recover the sparse codes that signals were made of.

    Its dictionary is known, and stays. Samples are drawn from it, fresh ones for every
    update, so that nothing can be overfitted; what is best on others, drawn once, is
    kept, also where the fit is interrupted. With `pairs` they are drawn from those. It
    is Keras's way as well, with its callbacks and its history: `compile` with
    `loss=sc2keras.losses.RecoveryLoss("log"), objective_weight=0`, and `fit(x, codes)`,
    of a model that is built with `trainable_dictionary=False`.

    Args:
        model: A `SparseCoder`, with the dictionary of the problem.
        dictionary: Array `(n_atoms, n_features)`, to be sure that it is the model's.
        pairs: Signals `(n, ...)` of your own and their codes `(n, n_atoms)`, in place
            of samples that are drawn. A fifth of them, at most `n_samples`, are to
            choose on.
        method: `"greedy"`: the two numbers of each step of `ALISTA`, step after step,
            without a gradient; encoders with matrices, whose weights can be such that
            their codes are ALISTA's, come to be that. `"search"`: the three constants
            of `HyperLISTA`, at random, and on from the best. `"joint"`: all weights by
            the gradient through all steps (Adam, cosine, clipped). `"stages"`: step
            after step by the gradient, the step's own weights first and then all so
            far, as the authors of LISTA-CP and LAMP train; slow. `"auto"`: greedy,
            then joint; search; or joint, as suits the model.
        loss: `"mse"` or `"log"`, see `RecoveryLoss`, what is smallest of what is kept.
            None: `"mse"` if `snr` is given, which gives up no sample, else `"log"`. A
            gradient is then of `"log"` all the same, which leads to smaller errors by
            both, as few samples do not rule it. Greedy fits always take `"mse"`.
        n_updates: Integer, the updates of a joint fit, or at most of each stage.
        learning_rate: Float, of a gradient; None: the encoder's own, where one matrix
            serves all steps (0.01 for LAMP and TiLISTA, 0.04 for ELISTA, 0.004 for
            NA-ALISTA); else 0.1, with `snr` 0.03, where a few numbers, mostly
            logarithms, are all that is trained, and with a matrix a step 0.0005, or
            0.0001 after a greedy fit.
        batch_size: Integer, the samples of an update.
        n_samples: Integer, the samples to search on, and again those to choose on.
        start: A fitted `ALISTA`, in place of the one, without a ridge, that a greedy
            fit of an encoder with matrices makes for itself.
        seed: Integer.
        verbose: Integer, 1 for a progress bar, 0 for none.
        **problem: Of ``sc2keras.datasets.sparse_recovery``: `density`, `support_size`,
            `amplitudes`, `scale`, `nonnegative`, `snr`, `noise`.

    Returns:
        The `sc2keras.evaluation.RecoveryQuality` on the samples to choose on.

    Raises:
        ValueError: If the dictionary is not the model's, if a method does not suit the
            model, or if an argument is unusable.

    Example:

    >>> import sc2keras
    >>> data = sc2keras.datasets.sparse_recovery(20, 40, 200, seed=7)
    >>> model = sc2keras.applications.build(
    ...     "ALISTA", 40, (20,), n_steps=4, dictionary=data.dictionary,
    ...     error_based=True)
    >>> measure = sc2keras.evaluation.recovery_quality
    >>> before = measure(model.encode(data.x), data.codes)
    >>> quality = fit_recovery(model, method="greedy", n_samples=200, verbose=0)
    >>> quality.ratio < before.ratio
    True

    References:
        Chen, Liu, Wang and Yin, Theoretical Linear Convergence of Unfolded ISTA and its
        Practical Weights and Thresholds, 2018. Chen, Liu, Wang and Yin, Hyperparameter
        Tuning is All You Need for LISTA, 2021.
    """
    if not isinstance(model, SparseCoder):
        raise ValueError(f"model must be a SparseCoder; received {model!r}.")
    encoder = model.encoder
    atoms = _dictionary_of(model, dictionary)
    check_positive_integer("n_updates", n_updates)
    check_positive_integer("batch_size", batch_size)
    check_positive_integer("n_samples", n_samples)
    if learning_rate is not None:
        check_positive("learning_rate", learning_rate)
    methods = _methods(method, encoder)
    if start is not None:
        check_start(encoder, start)
        if "greedy" not in methods:
            raise ValueError(
                f"start is of a greedy fit; received {method=!r}. Use method='auto'."
            )
    trained = RecoveryLoss(loss or "log")
    is_noisy = problem.get("snr") is not None
    measure = RecoveryLoss(loss or ("mse" if is_noisy else "log"))
    draw, train, choice = samples_for(model, atoms, pairs, n_samples, seed, problem)
    with tqdm(desc="Recovery", disable=not verbose) as bar, _frozen(encoder.dictionary):
        losses = trained, measure
        task = Problem(draw, train, choice, *losses, batch_size, seed, bar)
        if isinstance(encoder, NAALISTABlock) and not encoder.is_adapted():
            encoder.adapt(train[0])
        coder = truncated(encoder, encoder.n_steps)

        def forward(x: NDArray) -> NDArray:
            # What is compiled here need not be compiled again when the model is used.
            shaped = x.reshape(-1, *model.input_shape[1:])
            try:
                codes: NDArray = model.encode(shaped)
            except NonFiniteCodeError:  # Of a fit that diverged.
                codes = np.full((len(x), encoder.n_atoms), np.nan, "float32")
            return codes

        for each in methods:
            # A fit by another measure, or of few samples, may be worse than the start.
            with BestWeights(encoder, task.error(forward)) as best:
                is_begun = "greedy" in methods
                rate = learning_rate or _rate_for(encoder, is_begun, is_noisy)
                if each == "greedy":
                    fit_greedily(encoder, task, start)
                elif each == "search":
                    search(encoder, task, forward)
                elif each == "stages":
                    _fit_in_stages(encoder, task, n_updates, rate)
                else:
                    _train(encoder, coder, forward, task, n_updates, rate)
                best.offer(task.error(forward))
        return recovery_quality(forward(choice[0]), choice[1])


def _rate_for(encoder: Encoder, is_begun: bool, is_noisy: bool) -> float:
    if encoder.recovery_rate is not None:
        return encoder.recovery_rate
    n_weights = sum(math.prod(w.shape) for w in encoder.trainable_weights)
    if n_weights <= _FEW_WEIGHTS:
        return 0.03 if is_noisy else 0.1
    return 1e-4 if is_begun else 5e-4


def _dictionary_of(model: SparseCoder, dictionary: ArrayLike | None) -> NDArray:
    atoms = model.dictionary.astype("float64")
    if dictionary is None:
        return atoms
    given = as_array("dictionary", dictionary).astype("float64")
    # As the model holds it, which may be in half of the bits.
    held = ops.cast(given, model.encoder.dictionary.dtype)
    given = ops.convert_to_numpy(ops.cast(held, "float32"))
    if given.shape != atoms.shape or not np.allclose(given, atoms, atol=1e-5):
        raise ValueError(
            "dictionary must be that of the model, whose matrices are made for it; "
            f"received another, of shape {given.shape}. Build the model with "
            "dictionary=..., or leave it out here."
        )
    return given


def _methods(method: Method, encoder: Encoder) -> list[str]:
    if method not in get_args(Method):
        raise ValueError(
            f"method must be one of {get_args(Method)}; received {method!r}."
        )
    fits = {
        "greedy": isinstance(encoder, ALISTABlock) or encoder.can_take_steps,
        "search": isinstance(encoder, HyperLISTABlock),
    }
    if not encoder.is_trained:
        raise ValueError(
            f"{type(encoder).__name__} is a solver, of which nothing is fitted. Use "
            "StepLISTA, or ALISTA."
        )
    if not encoder.trainable_weights:
        raise ValueError(
            f"{encoder.name!r} has no trainable weights. Set model.trainable = True."
        )
    if not fits.get(method, True):
        raise ValueError(
            f"method={method!r} does not suit {type(encoder).__name__}. Use "
            "method='auto'."
        )
    if not np.any(encoder.l1):
        raise ValueError(
            "l1 must be > 0, as the thresholds that are fitted are multiples of it; "
            "received a model with l1=0. Build it with any other: the fit is the same."
        )
    if method != "auto":
        return [method]
    if fits["greedy"]:
        return ["greedy", "joint"]
    return ["search" if fits["search"] else "joint"]


@contextlib.contextmanager
def _frozen(weight: keras.Variable) -> Iterator[None]:
    before = weight.trainable
    weight.trainable = False
    try:
        yield
    finally:
        weight.trainable = before


class _Fresh(keras.utils.PyDataset):
    """Batches that are drawn when they are asked for, and never again."""

    def __init__(self, task: Problem, n_batches: int) -> None:
        super().__init__()
        self._task, self._n_batches = task, n_batches

    def __len__(self) -> int:
        return self._n_batches

    def __getitem__(self, index: int) -> tuple[NDArray, NDArray]:
        return self._task.draw(self._task.batch_size)


def _train(
    encoder: Any,
    trainer: keras.Model,
    forward: Forward,
    task: Problem,
    n_updates: int,
    learning_rate: float,
    patience: int | None = None,
) -> None:
    """Adam on the codes after so many steps; the best of validation are kept."""
    every = min(25, n_updates)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, n_updates)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=1.0)
    trainer.compile(optimizer, loss=task.loss)
    # Else TensorFlow traces the first update twice.
    optimizer.build(trainer.trainable_variables)
    waited = 0
    task.bar.reset(n_updates)
    with BestWeights(encoder, task.error(forward)) as best:
        for done in range(0, n_updates, every):
            n_batches = min(every, n_updates - done)
            with warnings.catch_warnings():
                # A step that is not there yet has weights without gradients.
                warnings.filterwarnings("ignore", "Gradients do not exist")
                trainer.fit(_Fresh(task, n_batches), shuffle=False, verbose=0)
            waited = 0 if best.offer(task.error(forward)) else waited + 1
            task.bar.update(n_batches)
            task.bar.set_postfix_str(f"{task.measure.kind} {best.error:.3g}")
            if patience is not None and waited > patience:
                break


def _fit_in_stages(encoder: Any, task: Problem, n_updates: int, rate: float) -> None:
    """One step more after the other; its own weights first, and then all so far."""
    n_steps = encoder.n_steps
    later = [_weights_of_step(encoder, t) for t in range(n_steps)]
    trained = encoder.trainable_weights
    for t in range(n_steps):
        trainer = truncated(encoder, t + 1)
        forward = compile_forward(trainer)
        unused = {id(w) for w in itertools.chain.from_iterable(later[t + 1 :])}
        for scope, share in _STAGES:
            # Numbers of all steps may be in one weight, of which none is a step's own.
            own = later[t] if scope == "own" and later[t] else trained
            chosen = {id(w) for w in own} - unused
            idle = [w for w in trained if id(w) not in chosen]
            with contextlib.ExitStack() as stack:
                for weight in idle:
                    stack.enter_context(_frozen(weight))
                how = task, n_updates, share * rate
                _train(encoder, trainer, forward, *how, patience=2)


def _weights_of_step(encoder: Encoder, t: int) -> list[keras.Variable]:
    """The trainable weights that step t alone uses, by their names."""
    # After the name of the encoder, which may end in a number as well.
    pattern = re.compile(rf"[^/]+/(.*_{t}|.*_{t}/\w+)$")
    return [w for w in encoder.trainable_weights if pattern.match(w.path)]
