"""Fitting encoders to recover sparse codes, on samples that are drawn meanwhile."""

import contextlib
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from tqdm import tqdm

from sc2keras import backend
from sc2keras.evaluation import RecoveryQuality, recovery_quality
from sc2keras.layers import HyperLISTABlock, NAALISTABlock
from sc2keras.layers.encoder import Encoder
from sc2keras.layers.recovery import ScalarSteps, log_size, mean_magnitude
from sc2keras.losses import RecoveryKind, RecoveryLoss
from sc2keras.models import SparseCoder, compile_forward
from sc2keras.models.variables import centered
from sc2keras.synthetic import sparse_recovery
from sc2keras.validation import Tensor, check_positive_integer

Method = Literal["auto", "greedy", "search", "joint", "stages"]

_FEW_WEIGHTS = 1000
_GREEDY_SAMPLES, _GREEDY_EVALUATIONS = 500, 40
_N_DRAWS, _SEARCH_SAMPLES, _N_FINALISTS, _SEARCH_EVALUATIONS = 120, 256, 6, 45
# Of c₁ over ln k, c₂ and c₃.
_SEARCH_BOX = np.log([[0.2, 1.0], [0.1, 4.0], [0.03, 0.6]])
# Rates of the stages of a step, after Chen et al.: its own weights, then all so far.
_STAGES = (("own", 5e-4), ("all", 1e-4), ("all", 1e-5))


class _Problem(NamedTuple):
    """Samples to fit on and to choose on, and where more come from."""

    draw: Callable[[int], tuple[NDArray, NDArray]]
    train: tuple[NDArray, NDArray]
    validation: tuple[NDArray, NDArray]
    loss: RecoveryLoss
    batch_size: int
    seed: int
    bar: tqdm

    def error(self, codes: NDArray) -> float:
        """The loss of codes of the samples to choose on; what is no number is worst."""
        value = float(self.loss(self.validation[1], codes))
        return value if math.isfinite(value) else np.inf


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
        method: `"greedy"`: the two numbers of each step of `ALISTA` or `TiLISTA`, step
            after step, without a gradient. `"search"`: the three constants of
            `HyperLISTA`, at random, and on from the best. `"joint"`: all weights by the
            gradient through all steps (Adam, cosine, clipped). `"stages"`: step after
            step by the gradient, the step's own weights first and then all so far, as
            the authors of LISTA-CP train; of use where each step has a matrix of its
            own, and slow. `"auto"`: greedy, then joint; search; stages; or joint, as
            suits the model.
        loss: `"mse"` or `"log"`, see `RecoveryLoss`; None: `"mse"` with noise, `"log"`
            without. Greedy fits always take the first, which gives up no sample.
        n_updates: Integer, the updates of a joint fit, or at most of each stage.
        learning_rate: Float, of a joint fit; None: 0.02 where a few numbers, mostly
            logarithms, are all that is trained, and 0.001 where there are matrices.
        batch_size: Integer, the samples of an update.
        n_samples: Integer, the samples to search on, and again those to choose on.
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
    loss = loss or ("log" if problem.get("snr") is None else "mse")
    seeds = np.random.default_rng(seed)
    problem = {"nonnegative": encoder.nonnegative, **problem}
    offset = 0.0 if encoder.offset is None else encoder.offset

    def draw(n: int) -> tuple[NDArray, NDArray]:
        how = {"seed": int(seeds.integers(2**62)), **problem}
        found = sparse_recovery(n_samples=n, dictionary=atoms, **how)
        return (found.x + ops.convert_to_numpy(offset)).astype("float32"), found.codes

    methods = _methods(method, encoder)
    with tqdm(desc="Recovery", disable=not verbose) as bar, _frozen(encoder.dictionary):
        drawn = draw(n_samples), draw(n_samples)
        task = _Problem(draw, *drawn, RecoveryLoss(loss), batch_size, seed, bar)
        x, truth = task.validation
        x = x.reshape(-1, *model.input_shape[1:])
        if isinstance(encoder, NAALISTABlock) and not encoder.is_adapted():
            encoder.adapt(task.train[0])
        for each in methods:
            before, kept = task.error(model.encode(x)), encoder.get_weights()
            _fit(encoder, each, task, n_updates, learning_rate)
            # A fit by another measure, or of few samples, may be worse than the start.
            if task.error(model.encode(x)) > before:
                encoder.set_weights(kept)
        return recovery_quality(model.encode(x), truth)


def _fit(
    encoder: Any, method: str, task: _Problem, n_updates: int, rate: float | None
) -> None:
    if method == "greedy":
        _fit_greedily(encoder, task)
    elif method == "search":
        _search(encoder, task)
    elif method == "stages":
        _fit_in_stages(encoder, task, n_updates)
    else:
        if rate is None:
            n_weights = sum(math.prod(w.shape) for w in encoder.trainable_weights)
            rate = 0.02 if n_weights <= _FEW_WEIGHTS else 0.001
        _train(encoder, encoder.n_steps, task, n_updates, rate)


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
        "greedy": isinstance(encoder, ScalarSteps),
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
    return [next((name for name in ("search", "stages") if fits[name]), "joint")]


@contextlib.contextmanager
def _frozen(weight: keras.Variable) -> Iterator[None]:
    before = weight.trainable
    weight.trainable = False
    try:
        yield
    finally:
        weight.trainable = before


def _fit_greedily(encoder: Any, task: _Problem) -> None:
    """The numbers of each step that leave the smallest error after it."""
    x, truth = (a[:_GREEDY_SAMPLES] for a in task.train)
    trainer = _truncated(encoder, encoder.n_steps)

    def correct(x, codes):
        correction = encoder.correct(encoder.residual(x, codes))
        return correction, mean_magnitude(correction)

    def advance(codes, correction, truth, numbers, count):
        size, scale = ops.split(ops.exp(numbers), 2, axis=-1)
        found = encoder.advance(codes, correction, size, scale, count)
        return found, ops.mean(ops.square(found - truth), axis=-1)

    correct = backend.compile_function(trainer, correct, True)
    advance = backend.compile_function(trainer, advance, True)
    unit = float(ops.convert_to_numpy(encoder.threshold(ops.ones((1, 1)), 1.0)).max())
    scales = np.log(encoder.error_scales())
    pair = centered(encoder, x), truth
    x, truth = (encoder.in_unit(each).astype("float32") for each in pair)
    codes, best = np.zeros_like(truth), np.zeros(2)
    task.bar.reset(encoder.n_steps)
    for t in range(encoder.n_steps):
        correction, magnitude = (a.copy() for a in correct(x, codes))
        count = np.full((len(x), 1), encoder.support_count(t), "int32")

        def step(numbers, codes=codes, correction=correction, count=count):
            rows = np.tile(np.float32(numbers), (len(x), 1))
            return advance(codes, correction, truth, rows, count)

        usual = np.array([0.0, scales[t]])
        if not encoder.error_based:
            usual[1] += math.log(float(magnitude.mean()) / max(unit, 1e-30))
        starts = [usual] if t == 0 else [usual, best]
        best = _lowest(lambda n: float(step(n)[1].mean()), starts, _GREEDY_EVALUATIONS)
        found, errors = step(best)
        codes = found.copy()
        _assign_entry(encoder.log_step, t, best[0])
        _assign_entry(encoder.log_threshold, t, best[1])
        task.bar.set_postfix_str(
            f"{10 * np.log10(errors.mean() / np.mean(truth**2)):.1f} dB"
        )
        task.bar.update()


def _assign_entry(weight: keras.Variable, index: int, value: float) -> None:
    values = np.array(ops.convert_to_numpy(weight))
    values[index] = value
    weight.assign(values)


def _lowest(
    function: Callable[[NDArray], float], starts: list[NDArray], n_evaluations: int
) -> NDArray:
    """The best of Nelder and Mead's searches; what is no number is the worst."""

    def finite(numbers: NDArray) -> float:
        value = function(numbers)
        return value if math.isfinite(value) else np.finfo(float).max

    found = []
    for start in starts:
        # By a third in each direction, which all are logarithms.
        simplex = np.vstack([start, start + 0.3 * np.eye(len(start))])
        options = {"maxfev": n_evaluations, "initial_simplex": simplex}
        found.append(minimize(finite, start, method="Nelder-Mead", options=options))
    return min(found, key=lambda each: each.fun).x


def _search(encoder: HyperLISTABlock, task: _Problem) -> None:
    """The constants of the smallest error: at random, and on from the best."""
    forward = compile_forward(_truncated(encoder, encoder.n_steps))
    # Next to constants that are good are such that fail for one sample in a thousand.
    x, truth = map(np.concatenate, zip(task.train, task.validation, strict=True))

    def error(numbers: NDArray, n_samples: int) -> float:
        encoder.log_constants.assign(numbers)
        value = float(task.loss(truth[:n_samples], forward(x[:n_samples])))
        task.bar.update()
        return value if math.isfinite(value) else np.inf

    start = ops.convert_to_numpy(encoder.log_constants).astype(float)
    shift = np.log([log_size(encoder.n_atoms), 1, 1])
    low, high = (side + shift for side in _SEARCH_BOX.T)
    draws = np.random.default_rng(task.seed).uniform(low, high, (_N_DRAWS, 3))
    task.bar.reset(_N_DRAWS + 1 + _N_FINALISTS + _SEARCH_EVALUATIONS)
    by_few = sorted([start, *draws], key=lambda c: error(c, _SEARCH_SAMPLES))
    best = min(by_few[:_N_FINALISTS], key=lambda c: error(c, len(x)))
    found = _lowest(lambda c: error(c, len(x)), [best], _SEARCH_EVALUATIONS)
    encoder.log_constants.assign(found)


class _Fresh(keras.utils.PyDataset):
    """Batches that are drawn when they are asked for, and never again."""

    def __init__(self, task: _Problem, n_batches: int) -> None:
        super().__init__()
        self._task, self._n_batches = task, n_batches

    def __len__(self) -> int:
        return self._n_batches

    def __getitem__(self, index: int) -> tuple[NDArray, NDArray]:
        return self._task.draw(self._task.batch_size)


def _train(
    encoder: Any,
    n_steps: int,
    task: _Problem,
    n_updates: int,
    learning_rate: float,
    patience: int | None = None,
) -> None:
    """Adam on the codes after so many steps; the best of validation are kept."""
    every = min(25, n_updates)
    trainer = _truncated(encoder, n_steps)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, n_updates)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=1.0)
    trainer.compile(optimizer, loss=task.loss)
    forward = compile_forward(trainer)
    x = task.validation[0]
    best, kept, waited = task.error(forward(x)), encoder.get_weights(), 0
    task.bar.reset(n_updates)
    for done in range(0, n_updates, every):
        n_batches = min(every, n_updates - done)
        with warnings.catch_warnings():
            # A step that is not there yet has weights without gradients.
            warnings.filterwarnings("ignore", "Gradients do not exist")
            trainer.fit(_Fresh(task, n_batches), shuffle=False, verbose=0)
        value, waited = task.error(forward(x)), waited + 1
        if value < best:
            best, kept, waited = value, encoder.get_weights(), 0
        task.bar.update(n_batches)
        task.bar.set_postfix_str(f"{task.loss.kind} {best:.3g}")
        if patience is not None and waited > patience:
            break
    encoder.set_weights(kept)


def _fit_in_stages(encoder: Any, task: _Problem, n_updates: int) -> None:
    """One step more after the other; its own weights first, and then all so far."""
    n_steps = encoder.n_steps
    later = [_weights_of_step(encoder, t) for t in range(n_steps)]
    trained = encoder.trainable_weights
    for t in range(n_steps):
        unused = list(itertools.chain.from_iterable(later[t + 1 :]))
        for scope, rate in _STAGES:
            own = later[t] if scope == "own" else trained
            chosen = {id(w) for w in own} - {id(w) for w in unused}
            idle = [w for w in trained if id(w) not in chosen]
            with contextlib.ExitStack() as stack:
                for weight in idle:
                    stack.enter_context(_frozen(weight))
                _train(encoder, t + 1, task, n_updates, rate, patience=2)


def _weights_of_step(encoder: Encoder, t: int) -> list[keras.Variable]:
    """The trainable weights that step t alone uses, by their names."""
    # After the name of the encoder, which may end in a number as well.
    pattern = re.compile(rf"[^/]+/(.*_{t}|.*_{t}/\w+)$")
    return [w for w in encoder.trainable_weights if pattern.match(w.path)]


class _FirstSteps(keras.layers.Layer):
    """The codes of an encoder after so many of its steps."""

    def __init__(self, encoder: Any, n_steps: int) -> None:
        super().__init__(dtype=encoder.dtype_policy)
        self.encoder, self.n_steps = encoder, n_steps

    def call(self, inputs: Tensor) -> Tensor:
        owner = getattr(self.encoder, "cell", self.encoder)
        states = self.encoder.unfold(owner.in_unit(self.encoder.center(inputs)))
        state = next(itertools.islice(states, self.n_steps - 1, None))
        return owner.out_of_unit(state[0])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.encoder.n_atoms)


def _truncated(encoder: Any, n_steps: int) -> keras.Model:
    inputs = keras.Input((encoder.n_features,))
    return keras.Model(inputs, _FirstSteps(encoder, n_steps)(inputs))
