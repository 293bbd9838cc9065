"""What the parameters of a transformer say, of its model and beside it."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from sc2keras.applications.building import build_encoder
from sc2keras.layers.encoder import Encoder
from sc2keras.models import SparseCoder
from sc2keras.models.description import differences
from sc2keras.registry import get_entry
from sc2keras.signals import as_array
from sc2keras.training import Recipe
from sc2keras.transform_algorithms import (
    TOL,
    check_algorithm,
    check_measured,
    chosen_algorithm,
)
from sc2keras.validation import (
    check_non_negative,
    check_positive_integer,
    check_weights,
)

_STARTS = ("classical", "samples", "random")
_N_ATOMS = 100
# Of a solver whose steps are not given: until the gap is at most `TOL`, or so many.
_N_STEPS = {"ISTA": 10_000, "FISTA": 10_000, "ActiveSet": 1_000}
_NOT_OF_THE_BUILDER = {"n_atoms", "input_shape", "l1", "dictionary", "classes"}
# Of the builder's arguments, those that are none of its encoder.
_OF_THE_MODEL = {"name", "weights", "classifier_activation"}
# By scikit-learn's names, the options of builders, and these by those.
_SIGNS = {"positive_code": "nonnegative", "positive_dict": "nonnegative_dictionary"}
_NAMES = {option: parameter for parameter, option in _SIGNS.items()}


class Parameters(BaseEstimator):
    """Base of `SparseCodeTransformer`, whose parameters it has."""

    n_atoms: int | None
    l1: Any
    builder: str
    n_steps: int | None
    builder_kwargs: dict[str, Any] | None
    positive_code: bool
    positive_dict: bool
    center: bool = False  # Of pickles of before it.
    start: Any
    epochs: int
    batch_size: int | None
    learning_rate: float | None
    tol: float
    max_no_improvement: int | None
    callback: Callable[[dict[str, Any]], Any] | None
    random_state: Any
    verbose: int
    model: SparseCoder | str | os.PathLike[str] | None
    transform_algorithm: str | None
    transform_n_nonzero_coefs: int | None
    transform_alpha: Any
    model_: SparseCoder
    n_features_in_: int
    # Of the arguments of `model_`, those that its data gave; None where nobody knows.
    _found: frozenset[str] | None = None

    def _check_parameters(self) -> None:
        """What the builder does not check."""
        check_positive_integer("n_atoms", self._n_atoms)
        get_entry(self.builder)
        kwargs = self.builder_kwargs or {}
        if not isinstance(kwargs, Mapping) or kwargs.keys() & _NOT_OF_THE_BUILDER:
            raise ValueError(
                "builder_kwargs must be a dict, without what parameters here say or "
                f"classes; received {kwargs!r}. Use n_atoms=, l1= and start=."
            )
        if self.center and kwargs.get("offset") is not None:
            raise ValueError(
                f"center=True and offset={kwargs['offset']!r} of builder_kwargs "
                "contradict each other. Leave one of the two out."
            )
        if isinstance(self.start, str | None) and self.start not in _STARTS:
            raise ValueError(
                f"start must be one of {_STARTS} or an array (n_atoms, n_features); "
                f"received start={self.start!r}."
            )
        check_non_negative("tol", self.tol)
        patience = self.max_no_improvement
        if patience is not None and patience != 0:
            check_positive_integer("max_no_improvement", patience)
        if self.callback is not None and not callable(self.callback):
            raise ValueError(
                "callback must be a function of one dictionary, or None; received "
                f"callback={self.callback!r}."
            )
        self._builder_options()
        self._recipe()

    def _check_transform(self, encoder: Encoder) -> None:
        """What `transform` does not do with an encoder's dictionary, or a ValueError"""
        check_algorithm(
            self.transform_algorithm,
            self.transform_n_nonzero_coefs,
            self.transform_alpha,
            encoder.is_trained,
            (encoder.n_atoms, self.n_features_in_),
        )
        self._check_measured(encoder, self.transform_alpha)

    def _check_measured(self, encoder: Encoder, alpha: Any) -> None:
        name = "l1" if self.transform_alpha is None else "transform_alpha"
        check_measured(encoder, self.transform_algorithm, name, alpha)

    @property
    def _n_atoms(self) -> int:
        if self.n_atoms is not None:
            return self.n_atoms
        if isinstance(self.start, str | None):
            return _N_ATOMS
        shape = as_array("start", self.start).shape
        return shape[0] if shape else 1

    @property
    def _is_trained(self) -> bool:
        return get_entry(self.builder).is_trained

    def _builder_options(self) -> dict[str, Any]:
        """`builder_kwargs`, and what other parameters say of the builder's options."""
        options = dict(self.builder_kwargs or {})
        for parameter, name in _SIGNS.items():
            if getattr(self, parameter) and not options.setdefault(name, True):
                raise ValueError(
                    f"{parameter}=True and builder_kwargs={self.builder_kwargs!r} "
                    f"contradict each other. Leave {name!r} out."
                )
        return options

    def _builder_arguments(self) -> dict[str, Any]:
        """What parameters alone say of the builder's arguments."""
        # Whatever the global policy is.
        kwargs: dict[str, Any] = {"dtype": "float32", **self._builder_options()}
        if self.n_steps is not None:
            kwargs["n_steps"] = self.n_steps
        elif not self._is_trained and "n_steps" not in kwargs:
            n_steps = _N_STEPS.get(self.builder, max(_N_STEPS.values()))
            kwargs = {"tol": TOL, "n_steps": n_steps} | kwargs
        return kwargs | {"l1": self.l1}

    def _to_be_found(self) -> frozenset[str]:
        """The arguments of the builder that the first data give."""
        names = {"offset"} if self.center else set()
        if self._is_trained and "unit" not in (self.builder_kwargs or {}):
            names.add("unit")
        return frozenset(names)

    def _asked_encoder(self) -> Encoder:
        """The encoder of the parameters as they are now, before it is built."""
        arguments = self._builder_arguments() | ({"offset": 0.0} if self.center else {})
        kwargs = {k: v for k, v in arguments.items() if k not in _OF_THE_MODEL}
        # With a name of its own it takes none of Keras's from others.
        return build_encoder(self.builder, self._n_atoms, name="asked", **kwargs)

    def _recipe(self) -> Recipe:
        recipe = get_entry(self.builder).layer.recipe
        if self.learning_rate is not None:
            recipe = recipe.replace(learning_rate=self.learning_rate)
        if self.batch_size is not None:
            recipe = recipe.replace(batch_size=self.batch_size)
        return recipe.replace(epochs=self.epochs)

    def _check_goes_on(self, model: SparseCoder) -> None:
        """Raises a ValueError unless the parameters are those of a model."""
        changed = differences(model.encoder, self._asked_encoder())
        now = self._to_be_found()
        before = now if self._found is None else self._found
        for key in now & before:
            if changed.get(key, (None, None))[1] is not None:
                del changed[key]  # That of the first data stays.
        if "offset" in now ^ before:
            changed = {"center": (bool(self.center), not self.center)} | changed
        for key, (value, held) in changed.items():
            name = _NAMES.get(key, key)
            raise ValueError(
                f"{name}={value!r} differs from the model that learning goes on with, "
                f"which has {name}={held!r}. Call fit with warm_start=False, or set it "
                "back."
            )

    @property
    def _name_of_l1(self) -> str:
        """The parameter that says λ of `transform`."""
        is_trained = self.model_.encoder.is_trained
        if chosen_algorithm(self.transform_algorithm, is_trained) == "network":
            return "l1"
        is_other = self.transform_alpha is not None or self.model is not None
        return "transform_alpha" if is_other else "l1"

    def _codes_wanted(self) -> dict[str, Any]:
        """λ and the sign of the codes, where they were set after `fit`."""
        alpha = self.transform_alpha
        if alpha is not None:
            n_atoms = self.model_.encoder.n_atoms
            alpha = check_weights("transform_alpha", alpha, "n_atoms", n_atoms)
        wanted: dict[str, Any] = {"alpha": alpha}
        if self.model is not None:
            return wanted
        held, asked = self.model_.encoder, self._asked_encoder()
        names = ("l1", "nonnegative")
        pairs = {name: (getattr(asked, name), getattr(held, name)) for name in names}
        changed = {key: p for key, p in pairs.items() if not np.array_equal(*p)}
        algorithm = chosen_algorithm(self.transform_algorithm, held.is_trained)
        if algorithm == "network":
            for key, (value, old) in changed.items():
                name = _NAMES.get(key, key)
                raise ValueError(
                    f"{name}={value!r} was set after the network was trained with "
                    f"{name}={old!r}. Call fit again, or choose "
                    "transform_algorithm='lasso'."
                )
        if "l1" in changed and self.transform_alpha is None:
            wanted["alpha"] = asked.l1
            self._check_measured(held, asked.l1)
        if "nonnegative" in changed:
            wanted["nonnegative"] = asked.nonnegative
        return wanted
