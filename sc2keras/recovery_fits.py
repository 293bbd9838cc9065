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
from sc2keras.analytic import coarser, epsilon
from sc2keras.layers import ALISTABlock, HyperLISTABlock
from sc2keras.layers.encoder import Encoder
from sc2keras.layers.recovery import log_size, mean_magnitude
from sc2keras.losses import RecoveryLoss
from sc2keras.models import SparseCoder
from sc2keras.models.variables import assign, centered, offset_of, value, values
from sc2keras.validation import Tensor, at_least_float32, in_words

_TINY = 1e-30
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

    Args:
        encoder: `Encoder`.
        measure: Function that gives its error as it is now.
        whole: `BestWeights` by another measure, which is offered as much; or None.
    """

    def __init__(
        self,
        encoder: Encoder,
        measure: Callable[[], float],
        whole: "BestWeights | None" = None,
    ) -> None:
        self.encoder, self.error = encoder, measure()
        self._measure, self._whole = measure, whole
        self._weights = values(encoder.weights)

    def offer(self) -> bool:
        """Takes the weights as they are now, if their error is smaller."""
        error = self._measure()
        is_better = error < self.error
        if is_better:
            self.error, self._weights = error, values(self.encoder.weights)
        if self._whole is not None:
            self._whole.offer()
        return is_better

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assign(self.encoder.weights, self._weights)


def fit_greedily(
    encoder: Any, task: Problem, start: SparseCoder | None, best: BestWeights
) -> None:
    """ALISTA's two numbers a step, or what makes the encoder's codes those of ALISTA.

    Of `start`, or of one that is fitted here.
    """
    if isinstance(encoder, ALISTABlock):
        alista = encoder
    else:
        alista = _alista_of(encoder) if start is None else start.encoder
    try:
        if start is None:
            _fit_numbers(alista, task)
    finally:
        # Interrupted, it has come to something as well.
        if alista is not encoder:
            encoder.take_steps(alista.coupled_steps())
        best.offer()


def _alista_of(encoder: Any) -> ALISTABlock:
    options = _options_of_alista(encoder)
    if options["error_based"]:
        del options["l1"]
    alista = ALISTABlock(encoder.n_atoms, **options)
    alista.build((None, encoder.n_features))
    return alista


def _options_of_alista(encoder: Any) -> dict[str, Any]:
    """Those with which ALISTA's codes can be the encoder's."""
    names = ("n_steps", "l1", "unit", "nonnegative")
    return {
        **{name: getattr(encoder, name) for name in names},
        # As a tensor, in the dtype that its numbers were rounded to.
        "dictionary": ops.convert_to_tensor(encoder.dictionary),
        "offset": None if encoder.offset is None else offset_of(encoder),
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
    # Numbers of the coarser dtype are both, but for a last digit.
    dtypes = encoder.variable_dtype, begun.variable_dtype
    close = max(1e-5, 2 * epsilon(coarser(*dtypes)))
    for name in ("dictionary", "offset"):
        del wanted[name]
        a, b = (_in_float32(each, name) for each in (encoder, begun))
        if a.shape != b.shape or not np.allclose(a, b, close, close * np.abs(a).max()):
            raise ValueError(
                f"start must be a model with the {name} of the one that is fitted; "
                f"received one with another. Build it with {name}=..."
            )
    for name, number in wanted.items():
        other = held[name]
        if np.shape(number) != np.shape(other) or not np.allclose(number, other):
            words = [in_words(v) if name == "l1" else repr(v) for v in (number, other)]
            raise ValueError(
                f"start must be a model with the {name} of the one that is fitted, "
                f"{words[0]}; received {words[1]}. Build it with {name}=..."
            )


def _in_float32(encoder: Any, name: str) -> NDArray:
    if name == "offset":
        return offset_of(encoder).astype("float32")
    return value(ops.cast(encoder.dictionary, "float32"))


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
            # Where all samples are exact already, any threshold does.
            size = max(float(magnitude.mean()), _TINY)
            usual[1] += math.log(size / max(float(unit), _TINY))
        starts = [usual] if t == 0 else [usual, best]
        best = _lowest(lambda n: float(step(n)[1].mean()), starts, _GREEDY_EVALUATIONS)
        found, errors = step(best)
        codes = found.copy()
        # Thresholds that do not follow the error do better as the last one until they
        # are fitted, which an interrupted fit leaves.
        end = t + 1 if encoder.error_based else encoder.n_steps
        _assign_entries(encoder.log_step, t, end, best[0])
        _assign_entries(encoder.log_threshold, t, end, best[1])
        share = max(errors.mean(), _TINY) / np.mean(truth**2)
        task.bar.set_postfix_str(f"{10 * np.log10(share):.1f} dB")
        task.bar.update()


def _assign_entries(
    weight: keras.Variable, first: int, end: int, number: float
) -> None:
    (entries,) = values([weight])
    entries[first:end] = number
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


def search(
    encoder: HyperLISTABlock, task: Problem, forward: Forward, best: BestWeights
) -> None:
    """The constants of the smallest error: at random, and on from the best."""
    # Next to constants that are good are such that fail for one sample in a thousand.
    x, truth = map(np.concatenate, zip(task.train, task.validation, strict=True))
    start = ops.convert_to_numpy(encoder.log_constants).astype(float)
    # By how many samples, by what error below zero, and which constants.
    chosen = (0, -np.inf, start)

    def error(numbers: NDArray, n_samples: int) -> float:
        nonlocal chosen
        encoder.log_constants.assign(numbers)
        found = float(task.measure(truth[:n_samples], forward(x[:n_samples])))
        found = found if math.isfinite(found) else np.inf
        # Of what more samples chose, the smallest.
        new = (min(n_samples, len(x)), -found, np.array(numbers))
        chosen = max(chosen, new, key=lambda each: each[:2])
        task.bar.update()
        return found

    shift = np.log([log_size(encoder.n_atoms), 1, 1])
    low, high = (side + shift for side in _SEARCH_BOX.T)
    draws = np.random.default_rng(task.seed).uniform(low, high, (_N_DRAWS, 3))
    task.bar.reset(_N_DRAWS + 1 + _N_FINALISTS + _SEARCH_EVALUATIONS)
    try:
        by_few = sorted([start, *draws], key=lambda c: error(c, _SEARCH_SAMPLES))
        finalist = min(by_few[:_N_FINALISTS], key=lambda c: error(c, len(x)))
        _lowest(lambda c: error(c, len(x)), [finalist], _SEARCH_EVALUATIONS)
    finally:
        encoder.log_constants.assign(chosen[-1])
        best.offer()


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
