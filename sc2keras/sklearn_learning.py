"""What a transformer learns from samples: a dictionary, or a network."""

import copy
import math
import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from tqdm import tqdm

from sc2keras.applications import build
from sc2keras.backend import make_deterministic
from sc2keras.dictionary_learners import (
    Beginning,
    OnlineLearner,
    centred,
    mean_of,
    typical_norm,
)
from sc2keras.dictionary_learning import (
    n_usable,
    sampled_atoms,
    train,
    trained_learner,
    unit_rows,
)
from sc2keras.io.models import load_model
from sc2keras.models import SparseCoder
from sc2keras.models.variables import all_or_nothing
from sc2keras.sklearn_parameters import Parameters
from sc2keras.stopping import Monitor, MonitoredEpochs
from sc2keras.training import USUAL_NORM, Batches


class LearnedModel(Parameters):
    """Base of `SparseCodeTransformer`: how it learns."""

    # Of a solver's dictionary, what more samples go on with.
    _learner: OnlineLearner | None = None

    def _random_state(self) -> np.random.RandomState:
        if self.random_state is not None:
            make_deterministic()
        return check_random_state(self.random_state)

    def _monitor(self, n_iter: int = 0) -> Monitor:
        return Monitor(self.callback, self.tol, self.max_no_improvement, n_iter)

    def _note(self, monitor: Monitor) -> None:
        self.n_iter_, self.error_ = monitor.n_iter, np.array(monitor.errors)

    def _trained_model(
        self, x: Any, weight: NDArray | None, monitor: Monitor, goes_on: bool
    ) -> SparseCoder:
        random_state = self._random_state()
        if weight is not None:
            weight = weight / weight.mean()
        if goes_on:
            self._check_goes_on(self.model_)
            model = copy.deepcopy(self.model_)
            if not self._is_trained and self._starts_by("classical"):
                self._learn_more(model, x, weight, monitor, random_state)
        else:
            offset = self._offset_of(x, weight)
            model = self._untrained_model(x, random_state, offset, weight, monitor)
        if model.trainable_weights:
            self._compile(model, len(x))
            batches = Batches(x, self._recipe().batch_size, random_state, weight)
            atoms = model.encoder.dictionary
            is_fixed = not any(each is atoms for each in model.trainable_weights)
            monitor.begin(len(x), len(x), is_fixed)
            self._fit_model(model, batches, monitor, self.epochs)
            self._compile(model)  # For `partial_fit`: the cosine has come to zero.
        return model

    def _fit_model(
        self, model: SparseCoder, batches: Batches, monitor: Monitor, epochs: int
    ) -> None:
        scale = model.encoder.unit**2
        epoch = MonitoredEpochs(monitor, len(batches), scale)
        how: dict[str, Any] = {"verbose": self.verbose, "callbacks": [epoch]}
        model.fit(batches, epochs=epochs, shuffle=False, **how)

    def _train_on_part(
        self, model: SparseCoder, x: Any, weight: NDArray | None, monitor: Monitor
    ) -> None:
        """One pass over more samples, in their order."""
        with all_or_nothing(model):
            if not self._is_trained:
                self._learn_part(model, x, weight, monitor)
                return
            recipe = self._recipe()
            if model.compiled:
                model.optimizer.learning_rate = recipe.learning_rate
            else:
                self._compile(model)
            if weight is not None:
                weight = weight / weight.mean()
            batches = Batches(x, recipe.batch_size, sample_weight=weight)
            self._fit_model(model, batches, monitor, epochs=1)

    def _learn_part(
        self, model: SparseCoder, x: Any, weight: NDArray | None, monitor: Monitor
    ) -> None:
        x = centred(x, model.encoder.offset)
        learner, batch_size = self._online_learner(model, x), self._size_of_updates
        starts = range(0, len(x), batch_size)
        for start in tqdm(starts, "Dictionary", disable=not self.verbose):
            rows = slice(start, start + batch_size)
            of_rows = None if weight is None else weight[rows]
            monitor(learner.update(x[rows], of_rows), learner.dictionary)
        self._take_over(learner, model)

    def _learn_more(
        self,
        model: SparseCoder,
        x: Any,
        weight: NDArray | None,
        monitor: Monitor,
        random_state: np.random.RandomState,
    ) -> None:
        """As many updates as a first fit makes, from the dictionary of a model on."""
        x = centred(x, model.encoder.offset)
        learner = self._online_learner(model, x)
        size = min(self._size_of_updates, len(x))
        n_updates = OnlineLearner.n_updates(len(x), size)
        rng = np.random.default_rng(random_state.randint(2**31))
        verbose = int(bool(self.verbose))
        train(learner, x, size, n_updates, rng, verbose, weight, monitor)
        self._take_over(learner, model)

    @property
    def _size_of_updates(self) -> int:
        return self.batch_size or OnlineLearner.batch_size

    def _online_learner(self, model: SparseCoder, x: Any) -> OnlineLearner:
        if self._learner is not None:
            # A copy, as a call that fails leaves the old state.
            return copy.deepcopy(self._learner)
        seed = self._random_state().randint(2**31)
        size, unit = self._size_of_updates, OnlineLearner.unit_of(x)
        signs: Any = Beginning.signs_of(self._builder_options())
        start = model.dictionary, self.l1, unit, size, 0, seed
        return OnlineLearner(Beginning(*start, **signs))

    def _take_over(self, learner: OnlineLearner, model: SparseCoder) -> None:
        model.encoder.dictionary.assign(unit_rows(learner.dictionary))
        self._learner = learner

    def _starts_by(self, name: str) -> bool:
        return isinstance(self.start, str) and self.start == name

    def _given_model(self) -> SparseCoder | None:
        model = self.model
        if model is None:
            return None
        if isinstance(model, (str, os.PathLike)):
            model, _ = load_model(model)
        if not isinstance(model, SparseCoder):
            raise ValueError(
                "model must be a sc2keras.SparseCoder, the path of its .keras file or a"
                f" name of weights; received model={self.model!r}."
            )
        return model

    def _fitting(self, model: SparseCoder) -> SparseCoder:
        """A given model, or a ValueError if it is none for these features."""
        n_features = math.prod(model.input_shape[1:])
        if n_features != self.n_features_in_:
            raise ValueError(
                f"X has {self.n_features_in_} features, but the given model takes "
                f"{n_features}: its inputs have shape {model.input_shape[1:]}. Pass "
                "such data, or train another model with model=None."
            )
        self._check_transform(model.encoder)
        return model

    def _untrained_model(
        self,
        x: Any,
        random_state: np.random.RandomState,
        offset: ArrayLike | None,
        weight: NDArray | None = None,
        monitor: Monitor | None = None,
    ) -> SparseCoder:
        """A model where it starts; of a monitored solver with its dictionary."""
        self._learner, self._found = None, self._to_be_found()
        x = centred(x, offset)
        if not isinstance(self.start, str):
            return self._build(x, self.start, offset)
        n_atoms = self._n_atoms
        dictionary = random_state.standard_normal((n_atoms, x.shape[1]))
        dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
        signs = Beginning.signs_of(self._builder_options())
        is_positive = signs["nonnegative_dictionary"]
        if is_positive:
            dictionary = np.abs(dictionary)
        # Before a dictionary is learned, so that a wrong argument shows at once.
        model = self._build(x, dictionary, offset)
        # A single feature has room for one direction.
        n_found = min(n_atoms, n_usable(x, is_positive))
        n_found = min(n_found, 1) if x.shape[1] == 1 else n_found
        if self._starts_by("random") or n_found == 0:
            return model
        seed = random_state.randint(2**31)
        # The one pass over a part is all the learning that a solver has.
        is_part = monitor is None
        if self._starts_by("samples") or (is_part and not self._is_trained):
            dictionary[:n_found] = sampled_atoms(x, n_found, seed, is_positive)
        else:
            learner = trained_learner(
                OnlineLearner,
                x,
                n_found,
                self.l1,
                batch_size=None if self._is_trained else self.batch_size,
                seed=seed,
                verbose=int(bool(self.verbose)),
                sample_weight=weight,
                monitor=None if self._is_trained else monitor,
                **signs,
            )
            dictionary[:n_found] = unit_rows(learner.dictionary)
            if n_found == n_atoms and not self._is_trained:
                self._learner = learner
        return self._build(x, dictionary, offset)

    def _offset_of(self, x: Any, weight: NDArray | None) -> ArrayLike | None:
        if self.center:
            return mean_of(x, weight)
        return (self.builder_kwargs or {}).get("offset")

    def _build(
        self, x: Any, dictionary: ArrayLike, offset: ArrayLike | None
    ) -> SparseCoder:
        kwargs = self._builder_arguments() | {"offset": offset}
        if offset is None:
            del kwargs["offset"]  # An encoder of a user's own may have none.
        if "unit" in self._to_be_found():
            # The recipe suits such signals, and so signals of any scale.
            kwargs["unit"] = typical_norm(x) / USUAL_NORM
        kwargs["dictionary"] = dictionary
        return build(self.builder, self._n_atoms, (x.shape[1],), **kwargs)

    def _compile(self, model: SparseCoder, n_samples: int | None = None) -> None:
        # The objective in the model's unit.
        weight = model.encoder.unit**-2.0
        self._recipe().compile(model, n_samples, objective_weight=weight)
        # Keras warns when it loads a pickled optimizer that was never built.
        model.optimizer.build(model.trainable_variables)
