"""Fits to recover codes by the gradient: through all steps, or step after step."""

import contextlib
import itertools
import re
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.models import compile_forward
from sc2keras.recovery_fits import BestWeights, Problem, truncated

# Stages of a step, after Chen et al., and their shares of the rate: its own weights,
# then all so far.
_STAGES = (("own", 1.0), ("all", 0.2), ("all", 0.02))
# Weights with an entry a step. Where they have one fewer, the first step has none.
_OVER_STEPS = {
    *("log_step", "log_threshold", "log_width", "momentum"),
    *("overshoot", "gain_gate", "gain_scale"),
}
# `{id(weight): ones at the entries of it that are a step's own}`.
_Own = dict[int, NDArray]


@contextlib.contextmanager
def frozen(*weights: keras.Variable) -> Iterator[None]:
    before = [weight.trainable for weight in weights]
    for weight in weights:
        weight.trainable = False
    try:
        yield
    finally:
        for weight, is_trainable in zip(weights, before, strict=True):
            weight.trainable = is_trainable


class _Fresh(keras.utils.PyDataset):
    """Batches that are drawn when they are asked for, and never again."""

    def __init__(self, task: Problem, n_batches: int) -> None:
        super().__init__()
        self._task, self._n_batches = task, n_batches

    def __len__(self) -> int:
        return self._n_batches

    def __getitem__(self, index: int) -> tuple[NDArray, NDArray]:
        return self._task.draw(self._task.batch_size)


class PartialAdam(keras.optimizers.Adam):
    """Adam on a part of the entries of weights, `(weights, own)`: a mask of each."""

    def __init__(self, rate: Any, weights: list[keras.Variable], own: _Own) -> None:
        super().__init__(rate, global_clipnorm=1.0)
        self._masks = [own.get(id(weight)) for weight in weights]

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        # An entry whose gradients all are zero stays where it is.
        parts = [
            g if g is None or mask is None else g * ops.cast(mask, g.dtype)
            for g, mask in zip(grads, self._masks, strict=True)
        ]
        return super().apply(parts, trainable_variables)


def train_jointly(
    trainer: keras.Model,
    task: Problem,
    n_updates: int,
    learning_rate: float,
    best: BestWeights,
    patience: int | None = None,
    own: _Own | None = None,
) -> None:
    """Adam on the codes after so many steps, whose weights are offered to `best`."""
    every = min(25, n_updates)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, n_updates)
    optimizer = PartialAdam(schedule, trainer.trainable_variables, own or {})
    trainer.compile(optimizer, loss=task.loss)
    # Else TensorFlow traces the first update twice.
    optimizer.build(trainer.trainable_variables)
    waited = 0
    task.bar.reset(n_updates)
    for done in range(0, n_updates, every):
        n_batches = min(every, n_updates - done)
        with warnings.catch_warnings():
            # A step that is not there yet has weights without gradients.
            warnings.filterwarnings("ignore", "Gradients do not exist")
            trainer.fit(_Fresh(task, n_batches), shuffle=False, verbose=0)
        waited = 0 if best.offer() else waited + 1
        task.bar.update(n_batches)
        task.bar.set_postfix_str(f"{task.measure.kind} {best.error:.3g}")
        if patience is not None and waited > patience:
            break


def fit_in_stages(
    encoder: Any, task: Problem, n_updates: int, rate: float, best: BestWeights
) -> None:
    """One step more after the other; its own weights first, and then all so far."""
    n_steps, trained = encoder.n_steps, encoder.trainable_weights
    owned = [own_of_step(encoder, t) for t in range(n_steps)]
    for t in range(n_steps):
        trainer = truncated(encoder, t + 1)
        forward = compile_forward(trainer)
        # Of later steps alone.
        unused = set(itertools.chain.from_iterable(owned[t + 1 :]))
        unused -= set(itertools.chain.from_iterable(owned[: t + 1]))
        for scope, share in _STAGES:
            own = owned[t] if scope == "own" else {}
            chosen = set(own) or {id(w) for w in trained} - unused
            with (
                frozen(*(w for w in trained if id(w) not in chosen)),
                BestWeights(encoder, partial(task.error, forward), best) as stage,
            ):
                how = n_updates, share * rate, stage
                train_jointly(trainer, task, *how, patience=2, own=own)


def own_of_step(encoder: Any, t: int) -> _Own:
    """What step t alone uses of the trainable weights, by their names."""
    # After the name of the encoder, which may end in a number as well.
    pattern = re.compile(rf"[^/]+/(.*_{t}|.*_{t}/\w+)$")
    own = {}
    for weight in encoder.trainable_weights:
        mask = np.zeros(weight.shape, "float32")
        if pattern.match(weight.path):
            mask[:] = 1
        elif weight.name in _OVER_STEPS:
            entry = t - (encoder.n_steps - len(mask))
            mask[max(entry, 0) : max(entry + 1, 0)] = 1
        elif weight.name == "kernel" and getattr(encoder, "n_sets", 1) > 1:
            # LISTA's matrices, side by side.
            mask[:, t * encoder.n_atoms : (t + 1) * encoder.n_atoms] = 1
        elif weight.name == "first_kernel" and t == 0:
            mask[:] = 1
        if mask.any():
            own[id(weight)] = mask
    return own
