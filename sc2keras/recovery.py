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
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from sc2keras.evaluation import RecoveryQuality, recovery_quality
from sc2keras.layers import ALISTABlock, HyperLISTABlock, NAALISTABlock
from sc2keras.layers.encoder import Encoder
from sc2keras.losses import RecoveryKind, RecoveryLoss
from sc2keras.models import SparseCoder, compile_forward
from sc2keras.models.streaming import NonFiniteCodeError
from sc2keras.models.variables import offset_of
from sc2keras.recovery_fits import (
    Forward,
    Problem,
    check_start,
    fit_greedily,
    search,
    truncated,
)
from sc2keras.synthetic import sparse_recovery
from sc2keras.validation import check_positive_integer

Method = Literal["auto", "greedy", "search", "joint", "stages"]

_FEW_WEIGHTS = 1000
# Rates of the stages of a step, after Chen et al.: its own weights, then all so far.
_STAGES = (("own", 5e-4), ("all", 1e-4), ("all", 1e-5))


def fit_recovery(
    model: SparseCoder,
    dictionary: ArrayLike | None = None,
    *,
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
    kept. For pairs of your own, of whatever operator, it is Keras's way: `compile` with
    `loss=sc2keras.losses.RecoveryLoss(), objective_weight=0`, and `fit(x, codes)`.

    Args:
        model: A `SparseCoder`, with the dictionary of the problem.
        dictionary: Array `(n_atoms, n_features)`, to be sure that it is the model's.
        method: `"greedy"`: the two numbers of each step of `ALISTA`, step after step,
            without a gradient; encoders with matrices, whose weights can be such that
            their codes are ALISTA's, come to be that. `"search"`: the three constants
            of `HyperLISTA`, at random, and on from the best. `"joint"`: all weights by
            the gradient through all steps (Adam, cosine, clipped). `"stages"`: step
            after step by the gradient, the step's own weights first and then all so
            far, as the authors of LISTA-CP train; slow. `"auto"`: greedy, then joint;
            search; or joint, as suits the model.
        loss: `"mse"` or `"log"`, see `RecoveryLoss`; None: `"mse"` with noise, `"log"`
            without, and for `NAALISTA`, which by the other one stalls where all samples
            have the same numbers. Greedy fits always take `"mse"`, which gives up no
            sample.
        n_updates: Integer, the updates of a joint fit, or at most of each stage.
        learning_rate: Float, of a joint fit; None: 0.02 where a few numbers, mostly
            logarithms, are all that is trained; where there are matrices 0.001, 0.004
            for the network of `NAALISTA`, or 0.0001 after a greedy fit.
        batch_size: Integer, the samples of an update.
        n_samples: Integer, the samples to search on, and again those to choose on.
        start: A fitted `ALISTA`, in place of the one, without a ridge, that a greedy
            fit of an encoder with matrices makes for itself.
        seed: Integer.
        verbose: Integer, 1 for a progress bar, 0 for none.
        **problem: Of ``sc2keras.datasets.sparse_recovery``, such as `density`, `snr`.

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
    encoder = model.encoder
    atoms = _dictionary_of(model, dictionary)
    check_positive_integer("n_updates", n_updates)
    check_positive_integer("batch_size", batch_size)
    check_positive_integer("n_samples", n_samples)
    if loss is None:
        has_log = problem.get("snr") is None or isinstance(encoder, NAALISTABlock)
        loss = "log" if has_log else "mse"
    seeds = np.random.default_rng(seed)
    problem = {"nonnegative": encoder.nonnegative, **problem}
    # Now: during a fit on JAX the weight holds nothing.
    offset = offset_of(encoder)

    def draw(n: int) -> tuple[NDArray, NDArray]:
        how = {"seed": int(seeds.integers(2**62)), **problem}
        found = sparse_recovery(n_samples=n, dictionary=atoms, **how)
        return (found.x + offset).astype("float32"), found.codes

    methods = _methods(method, encoder)
    if start is not None:
        check_start(encoder, start.encoder)
        if "greedy" not in methods:
            raise ValueError(
                f"start is of a greedy fit; received {method=!r}. Use method='auto'."
            )
    with tqdm(desc="Recovery", disable=not verbose) as bar, _frozen(encoder.dictionary):
        drawn = draw(n_samples), draw(n_samples)
        task = Problem(draw, *drawn, RecoveryLoss(loss), batch_size, seed, bar)
        if isinstance(encoder, NAALISTABlock) and not encoder.is_adapted():
            encoder.adapt(task.train[0])
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
            before, kept = task.error(forward), encoder.get_weights()
            if each == "greedy":
                fit_greedily(encoder, task, start)
            elif each == "search":
                search(encoder, task, forward)
            elif each == "stages":
                _fit_in_stages(encoder, task, n_updates)
            else:
                rate = learning_rate
                if rate is None:
                    rate = _rate_for(encoder, "greedy" in methods)
                _train(encoder, coder, forward, task, n_updates, rate)
            # A fit by another measure, or of few samples, may be worse than the start.
            if task.error(forward) > before:
                encoder.set_weights(kept)
        x, truth = task.validation
        return recovery_quality(forward(x), truth)


def _rate_for(encoder: Encoder, is_begun: bool) -> float:
    n_weights = sum(math.prod(w.shape) for w in encoder.trainable_weights)
    if n_weights <= _FEW_WEIGHTS:
        return 0.02
    if isinstance(encoder, NAALISTABlock):
        return 4e-3
    return 1e-4 if is_begun else 1e-3


def _dictionary_of(model: SparseCoder, dictionary: ArrayLike | None) -> NDArray:
    atoms = model.dictionary.astype("float64")
    given = atoms if dictionary is None else np.asarray(dictionary, "float64")
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
        "stages": bool(_weights_of_step(encoder, encoder.n_steps - 1)),
    }
    if not encoder.is_trained or not fits.get(method, True):
        raise ValueError(
            f"method={method!r} does not suit {type(encoder).__name__}. Use "
            "method='auto', and no solver."
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
    best, kept, waited = task.error(forward), encoder.get_weights(), 0
    task.bar.reset(n_updates)
    for done in range(0, n_updates, every):
        n_batches = min(every, n_updates - done)
        with warnings.catch_warnings():
            # A step that is not there yet has weights without gradients.
            warnings.filterwarnings("ignore", "Gradients do not exist")
            trainer.fit(_Fresh(task, n_batches), shuffle=False, verbose=0)
        value, waited = task.error(forward), waited + 1
        if value < best:
            best, kept, waited = value, encoder.get_weights(), 0
        task.bar.update(n_batches)
        task.bar.set_postfix_str(f"{task.loss.kind} {best:.3g}")
        if patience is not None and waited > patience:
            break
    encoder.set_weights(kept)


def _fit_in_stages(encoder: Any, task: Problem, n_updates: int) -> None:
    """One step more after the other; its own weights first, and then all so far."""
    n_steps = encoder.n_steps
    later = [_weights_of_step(encoder, t) for t in range(n_steps)]
    trained = encoder.trainable_weights
    for t in range(n_steps):
        trainer = truncated(encoder, t + 1)
        forward = compile_forward(trainer)
        unused = list(itertools.chain.from_iterable(later[t + 1 :]))
        for scope, rate in _STAGES:
            own = later[t] if scope == "own" else trained
            chosen = {id(w) for w in own} - {id(w) for w in unused}
            idle = [w for w in trained if id(w) not in chosen]
            with contextlib.ExitStack() as stack:
                for weight in idle:
                    stack.enter_context(_frozen(weight))
                _train(encoder, trainer, forward, task, n_updates, rate, patience=2)


def _weights_of_step(encoder: Encoder, t: int) -> list[keras.Variable]:
    """The trainable weights that step t alone uses, by their names."""
    # After the name of the encoder, which may end in a number as well.
    pattern = re.compile(rf"[^/]+/(.*_{t}|.*_{t}/\w+)$")
    return [w for w in encoder.trainable_weights if pattern.match(w.path)]
