"""The task that a model is compiled for beside the objective."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from sc2keras import signals


class Task:
    """Losses, metrics, targets and weights, and the outputs that they are about.

    They may be given as Keras takes them for several outputs. The first is the codes,
    the last what the task is about. What is given for the codes is passed to Keras only
    where there is something.
    """

    def __init__(
        self, names: list[str], loss: Any = None, options: dict[str, Any] | None = None
    ) -> None:
        self.names = names
        loss = _join(*self.split("loss", loss))
        self.has_loss = any(part is not None for part in keras.tree.flatten(loss))
        self.loss_of_codes = isinstance(loss, list)
        # What `keras.Model.compile` takes.
        self.arguments = {**(options or {}), "loss": loss if self.has_loss else None}
        if "loss_weights" in self.arguments:
            weights = self.split("loss_weights", self.arguments["loss_weights"])
            chosen = list(weights) if self.loss_of_codes else weights[-1]
            self.arguments["loss_weights"] = chosen
        self.metrics_of_codes = False
        for name in ("metrics", "weighted_metrics"):
            of_codes, of_task = self._split_metrics(self.arguments.get(name))
            self.arguments[name] = _join(of_codes or None, of_task)
            self.metrics_of_codes |= bool(of_codes)

    def split(self, what: str, value: Any) -> tuple[Any, Any]:
        """`(of the codes, of the task)` of a loss, a target, or a weight."""
        n_outputs = len(self.names)
        if isinstance(value, dict):
            unknown = sorted(set(value) - set(self.names))
            if unknown:
                raise ValueError(
                    f"{what} must be named after the outputs {self.names}; received "
                    f"{what} for {unknown}."
                )
            parts = [value.get(name) for name in self.names]
        elif (what in ("loss_weights", "metrics") or _is_per_output(value)) and (
            isinstance(value, (list, tuple)) and len(value) in (1, n_outputs)
        ):
            parts = [None] * (n_outputs - len(value)) + list(value)
        else:
            parts = [None] * (n_outputs - 1) + [value]
        return (parts[0] if n_outputs > 1 else None), parts[-1]

    def _split_metrics(self, metrics: Any) -> tuple[Any, Any]:
        """`(of the codes, of the task)`; a plain list is all of the task."""
        is_nested = isinstance(metrics, dict) or (
            isinstance(metrics, (list, tuple))
            and len(metrics) == len(self.names) > 1
            and any(part is None or isinstance(part, (list, tuple)) for part in metrics)
        )
        if not is_nested:
            return None, metrics
        of_codes, of_task = self.split("metrics", metrics)
        return _listed(of_codes), _listed(of_task)

    def check_targets(self, y: Any) -> None:
        if self.has_loss and y is None:
            raise ValueError(
                "The model was compiled with a loss, which needs targets; received "
                "y=None. Use fit(x, y), or compile() without a loss to train on "
                "the objective alone."
            )

    @contextlib.contextmanager
    def naming_missing_targets(self, y: Any) -> Iterator[None]:
        """Metrics fail in many ways without targets; a few do without."""
        try:
            yield
        except (AttributeError, TypeError, ValueError) as error:
            if y is not None:
                raise
            raise ValueError(
                "The metrics of compile(metrics=...) need targets; received y=None. "
                "Use fit(x, y), or the metrics of sc2keras.metrics, which need none."
            ) from error

    def data(
        self, y: Any, outputs: Any, sample_weight: Any, with_codes: bool
    ) -> tuple[Any, Any, Any]:
        """Targets, outputs and weights for Keras; those of the codes on wish."""
        targets = self.split("targets", y)
        outputs = keras.tree.flatten(outputs)
        weight = self.weight(sample_weight)
        if with_codes:
            return list(targets), [outputs[0], outputs[-1]], weight
        return targets[-1], outputs[-1], weight

    def weight(self, sample_weight: Any) -> Any:
        return self.split("sample_weight", sample_weight)[-1]

    def arrays(self, y: Any) -> Any:
        """The targets that are read, with lists and frames as arrays."""
        if y is None:
            return y
        of_codes, of_task = self.split("y", y)
        needs_codes = self.loss_of_codes or self.metrics_of_codes
        parts = [of_codes, of_task] if needs_codes else [of_task]
        parts = [part if part is None else numbers("y", part) for part in parts]
        return parts if needs_codes else parts[0]

    def targets_beside(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """`y`, or zeros: without targets Keras drops the weights of the samples."""
        if y is not None or sample_weight is None or self.has_loss:
            return y
        return np.zeros(len(x), dtype="float32")


def numbers(name: str, y: Any) -> Any:
    """Arrays, lists and frames as arrays of numbers, or a ValueError."""
    # Keras would take a list for many targets, and read under a mask.
    if isinstance(y, dict) or _is_per_output(y):
        return y
    is_array = isinstance(y, (list, tuple, np.ndarray)) or hasattr(y, "to_numpy")
    return signals.as_array(name, y) if is_array else y


def _join(of_codes: Any, of_task: Any) -> Any:
    """The task's part alone, or both in a list, where the codes have one too."""
    return of_task if of_codes is None else [of_codes, of_task]


def _listed(metrics: Any) -> Any:
    """The metrics of an output, which among those of several may stand alone."""
    return metrics if isinstance(metrics, (list, tuple, type(None))) else [metrics]


def _is_per_output(value: Any) -> bool:
    """Whether a list has a part for each output, and no numbers or rows of numbers."""
    return isinstance(value, (list, tuple)) and not all(
        (np.isscalar(part) and not isinstance(part, str))
        or isinstance(part, (list, tuple))
        for part in value
    )
