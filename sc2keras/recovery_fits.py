"""Fits to recover codes without a gradient: step after step, or by a search."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy.optimize import minimize
from tqdm import tqdm

from sc2keras import backend
from sc2keras.layers import ALISTABlock, HyperLISTABlock
from sc2keras.layers.encoder import Encoder
from sc2keras.layers.recovery import (
    log_size,
    mean_magnitude,
)
from sc2keras.losses import RecoveryLoss
from sc2keras.models import SparseCoder
from sc2keras.models.variables import assign, centered, values
from sc2keras.validation import Tensor, at_least_float32

_GREEDY_SAMPLES, _GREEDY_EVALUATIONS = 500, 40
_N_DRAWS, _SEARCH_SAMPLES, _N_FINALISTS, _SEARCH_EVALUATIONS = 120, 256, 6, 45
# Of c₁ over ln k, c₂ and c₃.
_SEARCH_BOX = np.log([[0.2, 1.0], [0.1, 4.0], [0.03, 0.6]])


Forward = Callable[[NDArray], NDArray]


class Problem(NamedTuple):
    """Samples to fit on and to choose on, and where more come from."""

    draw: Callable[[int], tuple[NDArray, NDArray]]
    train: tuple[NDArray, NDArray]
    validation: tuple[NDArray, NDArray]
    # Of gradients, and of what is kept.
    loss: RecoveryLoss
    measure: RecoveryLoss
    batch_size: int
    seed: int
    bar: tqdm

    def error(self, forward: Forward) -> float:
        """The loss on the samples to choose on; what is no number is the worst."""
        x, truth = self.validation
        value = float(self.measure(truth, forward(x)))
        return value if math.isfinite(value) else np.inf


class BestWeights:
    """The weights of an encoder's smallest error, which it gets at a block's end.

    Also where a block is interrupted, which on JAX leaves nothing of the weights.
    """

    def __init__(self, encoder: Encoder, error: float) -> None:
        self.encoder, self.error = encoder, error
        self._weights = values(encoder.weights)

    def offer(self, error: float) -> bool:
        """Takes the weights as they are now, if their error is smaller."""
        is_better = error < self.error
        if is_better:
            self.error, self._weights = error, values(self.encoder.weights)
        return is_better

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assign(self.encoder.weights, self._weights)


def fit_greedily(encoder: Any, task: Problem, start: SparseCoder | None) -> None:
    """ALISTA's two numbers a step, or what makes the encoder's codes those of ALISTA.

    Of `start`, or of one that is fitted here.
    """
    if isinstance(encoder, ALISTABlock):
        _fit_numbers(encoder, task)
        return
    if start is None:
        options = _options_of_alista(encoder)
        if options["error_based"]:
            del options["l1"]
        alista = ALISTABlock(encoder.n_atoms, **options)
        alista.build((None, encoder.n_features))
        x = centered(encoder, task.train[0])
        _fit_numbers(alista, task._replace(train=(x, task.train[1])))
    else:
        alista = start.encoder
    encoder.take_steps(alista.coupled_steps())


def _options_of_alista(encoder: Any) -> dict[str, Any]:
    """Those with which ALISTA's codes can be the encoder's."""
    names = ("n_steps", "l1", "unit", "nonnegative")
    return {
        **{name: getattr(encoder, name) for name in names},
        "dictionary": ops.convert_to_numpy(encoder.dictionary),
        "support_step": getattr(encoder, "support_step", 0.0),
        "max_support": getattr(encoder, "max_support", 0.0),
        "error_based": getattr(encoder, "error_based", False),
    }


def check_start(encoder: Encoder, start: Any) -> None:
    """Raises a ValueError unless the encoder can begin with the steps of `start`."""
    begun = getattr(start, "encoder", None)
    if not encoder.can_take_steps or not isinstance(begun, ALISTABlock):
        kind = type(begun or start).__name__
        raise ValueError(
            "start must be a model of ALISTA, for an encoder whose weights can be such "
            f"that its codes are ALISTA's; received one of {kind} for "
            f"{type(encoder).__name__}. Leave start out."
        )
    wanted, held = _options_of_alista(encoder), _options_of_alista(begun)
    if not wanted["max_support"]:
        del wanted["support_step"]
    if held["error_based"]:
        del wanted["l1"]
    for name, value in wanted.items():
        if np.shape(value) != np.shape(held[name]) or not np.allclose(
            value, held[name]
        ):
            raise ValueError(
                f"start must be a model with the {name} of the one that is fitted, "
                f"{value!r}; received {held[name]!r}. Build it with {name}=..."
            )


def _fit_numbers(encoder: ALISTABlock, task: Problem) -> None:
    """The numbers of each step that leave the smallest error after it."""
    x, truth = (a[:_GREEDY_SAMPLES] for a in task.train)
    trainer = truncated(encoder, encoder.n_steps)

    # Outside of a call weights are not cast to another dtype.
    dtype = encoder.variable_dtype
    wide = at_least_float32(dtype)

    def correct(x, codes):
        x, codes = (ops.cast(a, dtype) for a in (x, codes))
        correction = ops.cast(encoder.correct(encoder.residual(x, codes)), wide)
        return correction, mean_magnitude(correction)

    def advance(codes, correction, truth, numbers, count):
        sizes = ops.split(ops.exp(numbers), 2, axis=-1)
        codes, correction, size, scale = (
            ops.cast(a, dtype) for a in (codes, correction, *sizes)
        )
        found = encoder.advance(codes, correction, size, scale, count)
        found = ops.cast(found, wide)
        return found, ops.mean(ops.square(found - ops.cast(truth, wide)), axis=-1)

    correct = backend.compile_function(trainer, correct, True)
    advance = backend.compile_function(trainer, advance, True)
    one = ops.ones((1, 1), dtype)
    unit = ops.convert_to_numpy(ops.cast(encoder.threshold(one, 1.0), "float32")).max()
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
            usual[1] += math.log(float(magnitude.mean()) / max(float(unit), 1e-30))
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
    (entries,) = values([weight])
    entries[index] = value
    weight.assign(entries)


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


def search(encoder: HyperLISTABlock, task: Problem, forward: Forward) -> None:
    """The constants of the smallest error: at random, and on from the best."""
    # Next to constants that are good are such that fail for one sample in a thousand.
    x, truth = map(np.concatenate, zip(task.train, task.validation, strict=True))

    def error(numbers: NDArray, n_samples: int) -> float:
        encoder.log_constants.assign(numbers)
        value = float(task.measure(truth[:n_samples], forward(x[:n_samples])))
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


def truncated(encoder: Any, n_steps: int) -> keras.Model:
    inputs = keras.Input((encoder.n_features,))
    return keras.Model(inputs, _FirstSteps(encoder, n_steps)(inputs))
