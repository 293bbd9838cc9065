"""Fitting encoders to recover sparse codes, on samples that are drawn meanwhile."""

import math
from typing import Any, Literal, get_args

import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from sc2keras.evaluation import RecoveryQuality, recovery_quality
from sc2keras.layers import ALISTABlock, HyperLISTABlock, NAALISTABlock
from sc2keras.layers.encoder import Encoder
from sc2keras.losses import RecoveryKind, RecoveryLoss
from sc2keras.models import SparseCoder
from sc2keras.models.streaming import NonFiniteCodeError
from sc2keras.recovery_fits import (
    BestWeights,
    Problem,
    check_start,
    fit_greedily,
    search,
    truncated,
)
from sc2keras.recovery_gradients import fit_in_stages, frozen, train_jointly
from sc2keras.recovery_samples import samples_for
from sc2keras.signals import as_array
from sc2keras.validation import (
    check_non_negative_integer,
    check_positive,
    check_positive_integer,
)

Method = Literal["auto", "greedy", "search", "joint", "stages"]

_FEW_WEIGHTS = 1000
# Weights that a step does without, or that may be any where coupled steps are taken.
_BESIDE_STEPS = {"dictionary", "offset", "step_size", "gain_scale"}


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
            far, as the authors of LISTA-CP and LAMP train; slow. A matrix of all steps
            is no step's own, and where no weight is one's, all train. `"auto"`:
            greedy, if none of what it sets is frozen, then joint; search; or joint, as
            suits the model.
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
    check_non_negative_integer("seed", seed)
    if learning_rate is not None:
        check_positive("learning_rate", learning_rate)
    methods = _methods(method, encoder, start is not None)
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
    with tqdm(desc="Recovery", disable=not verbose) as bar, frozen(encoder.dictionary):
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
            with BestWeights(encoder, lambda: task.error(forward)) as best:
                is_begun = "greedy" in methods
                rate = learning_rate or _rate_for(encoder, is_begun, is_noisy)
                if each == "greedy":
                    fit_greedily(encoder, task, start, best)
                elif each == "search":
                    search(encoder, task, forward, best)
                elif each == "stages":
                    fit_in_stages(encoder, task, n_updates, rate, best)
                else:
                    train_jointly(coder, task, n_updates, rate, best)
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


def _methods(method: Method, encoder: Encoder, is_begun: bool) -> list[str]:
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
    if all(w is encoder.dictionary for w in encoder.trainable_weights):
        raise ValueError(
            f"{encoder.name!r} has no trainable weights beside its dictionary, which "
            "stays. Set model.trainable = True."
        )
    if not fits.get(method, True):
        raise ValueError(
            f"method={method!r} does not suit {type(encoder).__name__}. Use "
            "method='auto'."
        )
    if encoder.has_thresholds_of_l1 and not np.any(encoder.l1):
        raise ValueError(
            "l1 must be > 0, as thresholds begin as multiples of it; received a model "
            "with l1=0. Build it with any other: the fit is the same."
        )
    kept = _frozen_of_steps(encoder) if fits["greedy"] else []
    if kept and (method == "greedy" or is_begun):
        raise ValueError(
            f"A greedy fit sets all weights of the steps; received {kept[0]!r} with "
            "trainable=False. Use method='joint', which keeps what is frozen."
        )
    if method != "auto":
        return [method]
    if fits["greedy"] and not kept:
        return ["greedy", "joint"]
    return ["search" if fits["search"] else "joint"]


def _frozen_of_steps(encoder: Encoder) -> list[str]:
    """The weights that are not trainable, though they are by default."""
    overrides = encoder.trainable_overrides().items()
    frozen = [name for name, is_trainable in overrides if not is_trainable]
    return sorted(set(frozen) - _BESIDE_STEPS)
