"""A scikit-learn transformer around a SparseCoder."""

import copy
import math
import os
from collections.abc import Mapping
from typing import Any, Literal, Self

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from tqdm import tqdm

from sc2keras.applications import build
from sc2keras.backend import make_deterministic
from sc2keras.dictionary_learners import Beginning, OnlineLearner, centred, typical_norm
from sc2keras.dictionary_learning import (
    sample_dictionary,
    trained_learner,
    unit_rows,
)
from sc2keras.models import SparseCoder, saving
from sc2keras.models.variables import all_or_nothing, old_state_unless_done
from sc2keras.registry import check_same, get_entry
from sc2keras.signals import check_numbers
from sc2keras.training import USUAL_NORM, Recipe, ShuffledBatches
from sc2keras.validation import check_positive_integer

_STARTS = ("classical", "samples", "random")
# Of a solver whose steps are not given: until the gap is at most `tol`, or so many.
_TOL, _N_STEPS = 1e-4, {"ISTA": 10_000, "FISTA": 10_000, "ActiveSet": 1_000}
_NOT_OF_THE_BUILDER = {"n_atoms", "input_shape", "l1", "dictionary", "classes"}


class SparseCodeTransformer(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Sparse codes by a solver or a trained network, as a scikit-learn transformer.

    Stands where `sklearn.decomposition.DictionaryLearning` or `SparseCoder` would.
    `fit` learns a dictionary D, and a network s(x) if one is asked for, that

        minimise mean_i ½‖x_i − s(x_i) D‖² + l1·‖s(x_i)‖₁   with ‖d_j‖ ≤ 1

    By default `transform` solves this LASSO problem for all samples at a time, each to
    a duality gap of 1e-4. A network takes a few matrix products in its place, and needs
    thousands of samples to learn from. `n_atoms` is scikit-learn's `n_components`, and
    `l1` its `alpha`, in the units of the data: `X * c` with `l1 * c` gives `codes * c`.
    Codes are float32 whatever `X` was, unless `builder_kwargs` has another dtype.

    Parameters
    ----------
    n_atoms : int, default=100
        Number of atoms, the size of a code.
    l1 : float, default=0.1
        Weight of the ℓ1 term; above 0 where `start="classical"`.
    builder : str, default="ActiveSet"
        What makes the codes, by the name of its builder in `sc2keras.applications`: a
        solver, "ActiveSet", "FISTA" or "ISTA", for which the dictionary alone is
        learned, online as by `MiniBatchDictionaryLearning`; or a network such as
        "SC2Net" or "StepLFISTA", which is trained together with it.
    n_steps : int, default=None
        Number of steps of the network or solver. None means the builder's own for a
        network, and for a solver as many as a gap of 1e-4 takes.
    builder_kwargs : dict, default=None
        Further arguments of the builder, such as `{"trainable_dictionary": False}`, or
        `{"tol": 1e-5}` for a solver.
    start : {"classical", "samples", "random"} or array (n_atoms, n_features), \
default="classical"
        Where the dictionary starts: from `sc2keras.learn_dictionary`, from
        `sc2keras.sample_dictionary`, from random directions (as do atoms for which
        there are too few samples), or as it is given. Of a solver only a classical
        start is learned by `fit`.
    epochs : int, default=20
        Passes of the training of a network over the data.
    batch_size : int, default=None
        Samples an update. None means 256 for a network, 64 for a dictionary.
    learning_rate : float, default=None
        Learning rate; None means that of the encoder's recipe. In `fit` it falls to
        zero as a cosine; in `partial_fit` it is constant.
    random_state : int, RandomState instance or None, default=None
        Seed of the start and of the order of the samples. An int gives equal results
        at every call on one machine. On TensorFlow with a GPU `fit` then switches
        deterministic operations on, for the whole process; PyTorch and JAX have
        switches of their own.
    verbose : {0, 1, 2}, default=0
        As in `keras.Model.fit`.
    model : SparseCoder, str or path, default=None
        A trained model, or the path of its `.keras` file. If given, it makes the codes
        as it is: `fit` and `partial_fit` check the number of features, and all
        parameters above are unused.

    Attributes
    ----------
    model_ : SparseCoder
        The model that makes the codes.
    components_ : float32 ndarray of shape (n_atoms, n_features)
        The dictionary, its atoms as rows.
    n_features_in_ : int
        Number of features seen during `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where `X` has names that are strings.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sc2keras.datasets import load
    >>> from sc2keras.sklearn import SparseCodeTransformer
    >>> digits = load("digits")
    >>> train, test = (x.reshape(-1, 64) for x in (digits.x_train, digits.x_test))
    >>> coder = SparseCodeTransformer(n_atoms=32, random_state=0)
    >>> classifier = make_pipeline(coder, LogisticRegression(max_iter=1000))
    >>> classifier.fit(train, digits.y_train).score(test, digits.y_test) > 0.8
    True
    >>> coder.transform(test).shape, coder.components_.shape
    ((360, 32), (32, 64))

    """

    # Of a solver's dictionary, what `partial_fit` goes on with.
    _learner: OnlineLearner | None = None

    def __init__(
        self,
        n_atoms: int = 100,
        l1: float = 0.1,
        *,
        builder: str = "ActiveSet",
        n_steps: int | None = None,
        builder_kwargs: dict[str, Any] | None = None,
        start: Literal["classical", "samples", "random"] | ArrayLike = "classical",
        epochs: int = 20,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        model: SparseCoder | str | os.PathLike[str] | None = None,
    ) -> None:
        self.n_atoms = n_atoms
        self.l1 = l1
        self.builder = builder
        self.n_steps = n_steps
        self.builder_kwargs = builder_kwargs
        self.start = start
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose
        self.model = model

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Learn the dictionary, and train the network if there is one.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : ignored

        Raises
        ------
        ValueError
            If a parameter or `X` is unusable, or the training diverges.
        """
        self._check_parameters()
        with old_state_unless_done(self):
            x = self._signals(X)
            is_given = self.model is not None
            self.model_ = self._given_model() if is_given else self._trained_model(x)
        return self

    def _trained_model(self, x: NDArray) -> SparseCoder:
        random_state = self._random_state()
        model = self._untrained_model(x, random_state)
        if model.trainable_weights:
            self._compile(model, len(x))
            batches = ShuffledBatches(x, self._recipe().batch_size, random_state)
            model.fit(batches, epochs=self.epochs, verbose=self.verbose, shuffle=False)
            self._compile(model)  # For `partial_fit`: the cosine has come to zero.
        return model

    def partial_fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Train on a part of the data: one pass, in its order, at a constant rate.

        The first call makes the start from its samples, unless `fit` came before. The
        state of the optimizer, or of the online learner of a solver's dictionary, is
        kept from call to call. Parameters and errors are those of `fit`.
        """
        self._check_parameters()
        with old_state_unless_done(self):
            is_first = not hasattr(self, "model_")
            x = self._signals(X, reset=is_first)
            if self.model is not None:
                self.model_ = self._given_model()
                return self
            if is_first:
                model = self._untrained_model(x, self._random_state(), is_part=True)
            else:
                model = self.model_
                names = ("builder", "n_atoms", "l1", "n_steps")
                check_same(model.encoder, {name: getattr(self, name) for name in names})
            with all_or_nothing(model):
                if self._is_trained:
                    self._train_on(model, x)
                else:
                    self._learn_from(model, x)
            self.model_ = model
        return self

    def _train_on(self, model: SparseCoder, x: NDArray) -> None:
        recipe = self._recipe()
        if model.compiled:
            model.optimizer.learning_rate = recipe.learning_rate
        else:
            self._compile(model)
        model.fit(x, batch_size=recipe.batch_size, shuffle=False, verbose=self.verbose)

    def _learn_from(self, model: SparseCoder, x: NDArray) -> None:
        batch_size = self.batch_size or OnlineLearner.batch_size
        x = centred(x, self.builder_kwargs)
        # A copy, as a call that fails leaves the old state.
        learner = copy.deepcopy(self._learner)
        if learner is None:
            seed = self._random_state().randint(2**31)
            unit = OnlineLearner.unit_of(x)
            start = model.dictionary, self.l1, unit, batch_size, 0, seed
            signs: Any = Beginning.signs_of(self.builder_kwargs)
            learner = OnlineLearner(Beginning(*start, **signs))
        starts = range(0, len(x), batch_size)
        for i in tqdm(starts, "Dictionary", disable=not self.verbose):
            learner.update(x[i : i + batch_size])
        model.encoder.dictionary.assign(unit_rows(learner.dictionary))
        self._learner = learner

    @property
    def _is_trained(self) -> bool:
        return get_entry(self.builder).is_trained

    def _random_state(self) -> np.random.RandomState:
        if self.random_state is not None:
            make_deterministic()
        return check_random_state(self.random_state)

    def _signals(self, X: ArrayLike, reset: bool = True) -> NDArray[np.float32]:
        check_numbers("X", X)
        return validate_data(self, X, reset=reset, dtype="float32")

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """The sparse codes of signals, (n_samples, n_features) to (n_samples, n_atoms).

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        x = self._signals(X, reset=False)
        return self.model_.encode(x.reshape(len(x), *self.model_.input_shape[1:]))

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """The signals that codes stand for, `X @ components_`.

        Parameters
        ----------
        X : array of shape (n_samples, n_atoms)
        """
        check_is_fitted(self)
        check_numbers("X", X)
        codes: NDArray[np.float32] = check_array(X, dtype="float32")
        if codes.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {codes.shape[1]} columns, but codes of this transformer have "
                f"{self._n_features_out}, one for each atom. Pass what transform "
                "returns."
            )
        return self.model_.decode(codes).reshape(len(codes), -1)

    @property
    def components_(self) -> NDArray[np.float32]:
        return self.model_.dictionary

    @property
    def _n_features_out(self) -> int:
        return self.model_.encoder.n_atoms

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _check_parameters(self) -> None:
        """What the builder does not check."""
        check_positive_integer("n_atoms", self.n_atoms)
        get_entry(self.builder)
        kwargs = self.builder_kwargs or {}
        if not isinstance(kwargs, Mapping) or kwargs.keys() & _NOT_OF_THE_BUILDER:
            raise ValueError(
                "builder_kwargs must be a dict, without what parameters here say or "
                f"classes; received {kwargs!r}. Use n_atoms=, l1= and start=."
            )
        if isinstance(self.start, str | None) and self.start not in _STARTS:
            raise ValueError(
                f"start must be one of {_STARTS} or an array (n_atoms, n_features); "
                f"received start={self.start!r}."
            )
        self._recipe()

    def _given_model(self) -> SparseCoder:
        model = self.model
        if isinstance(model, (str, os.PathLike)):
            is_preset = saving.is_preset(str(model))
            load = saving.load_preset if is_preset else keras.saving.load_model
            model = load(str(model))
        if not isinstance(model, SparseCoder):
            raise ValueError(
                "model must be a sc2keras.SparseCoder or the path of its .keras file; "
                f"received model={self.model!r}."
            )
        n_features = math.prod(model.input_shape[1:])
        if n_features != self.n_features_in_:
            raise ValueError(
                f"X has {self.n_features_in_} features, but the given model takes "
                f"{n_features}: its inputs have shape {model.input_shape[1:]}. Pass "
                "such data, or train another model with model=None."
            )
        return model

    def _untrained_model(
        self, x: NDArray, random_state: np.random.RandomState, is_part: bool = False
    ) -> SparseCoder:
        self._learner = None
        x = centred(x, self.builder_kwargs)
        if not isinstance(self.start, str):
            return self._build(x, self.start)
        dictionary = random_state.standard_normal((self.n_atoms, x.shape[1]))
        dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
        signs = Beginning.signs_of(self.builder_kwargs)
        if signs["nonnegative_dictionary"]:
            dictionary = np.abs(dictionary)
        # Before a dictionary is learned, so that a wrong argument shows at once.
        model = self._build(x, dictionary)
        n_usable = int(x.any(axis=1).sum())
        # A single feature has room for one direction.
        n_found = min(self.n_atoms, n_usable, 1 if x.shape[1] == 1 else n_usable)
        if self.start == "random" or n_found == 0:
            return model
        seed = random_state.randint(2**31)
        # The one pass over a part is all the learning that a solver has.
        if self.start == "samples" or (is_part and not self._is_trained):
            dictionary[:n_found] = sample_dictionary(x, n_found, seed)
        else:
            batch_size = None if self._is_trained else self.batch_size
            how = (self.l1, batch_size, None, seed, int(bool(self.verbose)))
            learner = trained_learner(OnlineLearner, x, n_found, *how, **signs)
            dictionary[:n_found] = unit_rows(learner.dictionary)
            if n_found == self.n_atoms and not self._is_trained:
                self._learner = learner
        return self._build(x, dictionary)

    def _build(self, x: NDArray, dictionary: ArrayLike) -> SparseCoder:
        # Whatever the global policy is.
        kwargs: dict[str, Any] = {"dtype": "float32", **(self.builder_kwargs or {})}
        if self.n_steps is not None:
            kwargs["n_steps"] = self.n_steps
        if self._is_trained:
            # The recipe suits such signals, and so signals of any scale.
            kwargs.setdefault("unit", typical_norm(x) / USUAL_NORM)
        elif "n_steps" not in kwargs:
            n_steps = _N_STEPS.get(self.builder, max(_N_STEPS.values()))
            kwargs = {"tol": _TOL, "n_steps": n_steps} | kwargs
        own: dict[str, Any] = {"l1": self.l1, "dictionary": dictionary}
        return build(self.builder, self.n_atoms, (x.shape[1],), **own, **kwargs)

    def _recipe(self) -> Recipe:
        recipe = get_entry(self.builder).layer.recipe
        if self.learning_rate is not None:
            recipe = recipe.replace(learning_rate=self.learning_rate)
        if self.batch_size is not None:
            recipe = recipe.replace(batch_size=self.batch_size)
        return recipe.replace(epochs=self.epochs)

    def _compile(self, model: SparseCoder, n_samples: int | None = None) -> None:
        # The objective in the model's unit.
        weight = model.encoder.unit**-2.0
        self._recipe().compile(model, n_samples, objective_weight=weight)
        # Keras warns when it loads a pickled optimizer that was never built.
        model.optimizer.build(model.trainable_variables)
