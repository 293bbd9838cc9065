"""A scikit-learn transformer around a SparseCoder."""

import os
from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from sc2keras.models import SparseCoder
from sc2keras.models.variables import offset_of, old_state_unless_done
from sc2keras.signals import as_array, check_numbers, is_sparse
from sc2keras.sklearn_learning import LearnedModel
from sc2keras.sparse_rows import SparseRows
from sc2keras.transform_algorithms import coder_by, encode_by
from sc2keras.validation import at_least_float32, check_weights


class SparseCodeTransformer(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, LearnedModel
):
    """Sparse codes by a solver or a trained network, as a scikit-learn transformer.

    Stands where `sklearn.decomposition.DictionaryLearning` or `SparseCoder` would.
    `fit` learns a dictionary D, and a network s(x) if one is asked for, that

        minimise mean_i ½‖x_i − s(x_i) D‖² + l1·‖s(x_i)‖₁   with ‖d_j‖ ≤ 1

    By default `transform` solves this LASSO problem for all samples at a time, each to
    a duality gap of 1e-4. A network takes a few matrix products in its place, and needs
    thousands of samples to learn from. `n_atoms` is scikit-learn's `n_components`, and
    `l1` its `alpha`, in the units of the data: `X * c` with `l1 * c` gives `codes * c`.
    `X` and codes are float32, or float64 where `builder_kwargs` has that dtype. `X` may
    be sparse: what is dense of it is a batch at a time.

    As in scikit-learn `transform` looks at `l1` and `positive_code` as they are when it
    is called. They may be set after `fit`, except of a network, which codes as it was
    trained: its `transform` then asks for another `fit`.

    Parameters
    ----------
    n_atoms : int, default=None
        Number of atoms, the size of a code. None means as many as `start` has, if that
        is an array, and 100 otherwise.
    l1 : float or array (n_atoms,), default=0.1
        Weight of the ℓ1 term, of an array one of each atom; above 0 where a solver goes
        on to a gap, and a number where `start="classical"`.
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
    positive_code : bool, default=False
        Whether codes are >= 0; the builder's `nonnegative`.
    positive_dict : bool, default=False
        Whether atoms are >= 0; the builder's `nonnegative_dictionary`.
    center : bool, default=False
        Whether codes are of X less its mean, which is learned by `fit`, or by the first
        `partial_fit` of its part: the builder's `offset`. Of sparse `X` as well.
    start : {"classical", "samples", "random"} or array (n_atoms, n_features), \
default="classical"
        Where the dictionary starts: from `sc2keras.learn_dictionary`, from
        `sc2keras.sample_dictionary`, from random directions (as do atoms for which
        there are too few samples), or as it is given. Of a solver only a classical
        start is learned by `fit`.
    warm_start : bool, default=False
        Whether `fit` goes on with the dictionary or network of the `fit` or
        `partial_fit` before, in place of `start`, and with its mean. What a model is
        built with stays as it was: the parameters up to `center`.
    epochs : int, default=20
        Passes of the training of a network over the data. A dictionary is learned in
        three, but at least 300 updates.
    batch_size : int, default=None
        Samples an update. None means 256 for a network, 64 for a dictionary.
    learning_rate : float, default=None
        Learning rate; None means that of the encoder's recipe. In `fit` it falls to
        zero as a cosine; in `partial_fit` it is constant.
    tol : float, default=0.0
        `fit` ends when an update moves the dictionary by at most so much,
        ‖D − D_before‖_F / n_atoms. 0 means that it does not. Of a network the moves are
        those of epochs, and a frozen dictionary does not count.
    max_no_improvement : int, default=None
        `fit` ends when so many updates have not lowered the moving average of the
        objective; of a network so many epochs, their objective. None means that it does
        not. As in `MiniBatchDictionaryLearning` the first pass over the data, or the
        first 100 updates, do not count.
    callback : callable, default=None
        Called after every update of a dictionary, and every epoch of a network, with a
        dict of "n_iter", the updates so far; "error", as in `error_`; "components", a
        copy of the dictionary. What it raises ends `fit`, which then changes nothing.
    random_state : int, RandomState instance or None, default=None
        Seed of the start and of the order of the samples. An int gives equal results
        at every call on one machine. On TensorFlow with a GPU `fit` then switches
        deterministic operations on, for the whole process; PyTorch and JAX have
        switches of their own.
    verbose : {0, 1, 2}, default=0
        As in `keras.Model.fit`.
    model : SparseCoder, str or path, default=None
        A trained model, the path of its `.keras` file, or a name of weights such as
        `"SC2Net/digits"`. If given, it makes the codes as it is: `fit` and
        `partial_fit` check the number of features, and all parameters above are unused.
    transform_algorithm : {"network", "lasso", "omp", "threshold"}, default=None
        How `transform` makes codes for the dictionary: by the network; as minima of the
        LASSO, by a solver, to a gap of 1e-4 (`lasso_cd` and `lasso_lars` of
        scikit-learn); by orthogonal matching pursuit, or as soft thresholds of X Dᵀ.
        None means as the builder does: by a network, or the LASSO of a solver.
    transform_n_nonzero_coefs : int, default=None
        Entries of a code of "omp". None means a tenth of the features, at least one.
    transform_alpha : float or array (n_atoms,), default=None
        In place of `l1` in "lasso" (also of a solver), where it is above 0, and the
        threshold of "threshold"; one of each atom, if it is an array. Others do not use
        it. None means `l1`, or that of `model`.
    sparse_output : bool, default=False
        Whether `transform` gives a `scipy.sparse.csr_matrix`, made batch by batch. It
        fits in no frame: leave `set_output` at "default" with it.

    Attributes
    ----------
    model_ : SparseCoder
        The model that makes the codes.
    components_ : ndarray of shape (n_atoms, n_features)
        The dictionary, its atoms as rows.
    offset_ : ndarray of shape (n_features_in_,)
        What is added to `codes @ components_`, as the `mean_` of `PCA` is: the mean of
        `center`, another offset of the model, or zeros.
    n_iter_ : int
        Updates of the dictionary or network by `fit`, and by `partial_fit` since; 0 if
        there was nothing to learn.
    error_ : float64 ndarray
        What the last `fit` or `partial_fit` minimised, as means over samples in the
        units of the data: of each update of a dictionary, that of its batch before it;
        of each epoch of a network, that of all batches, each before its update.
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

    def __init__(
        self,
        n_atoms: int | None = None,
        l1: float | ArrayLike = 0.1,
        *,
        builder: str = "ActiveSet",
        n_steps: int | None = None,
        builder_kwargs: dict[str, Any] | None = None,
        positive_code: bool = False,
        positive_dict: bool = False,
        center: bool = False,
        start: Literal["classical", "samples", "random"] | ArrayLike = "classical",
        warm_start: bool = False,
        epochs: int = 20,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        tol: float = 0.0,
        max_no_improvement: int | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        model: SparseCoder | str | os.PathLike[str] | None = None,
        transform_algorithm: str | None = None,
        transform_n_nonzero_coefs: int | None = None,
        transform_alpha: float | ArrayLike | None = None,
        sparse_output: bool = False,
    ) -> None:
        self.n_atoms = n_atoms
        self.l1 = l1
        self.builder = builder
        self.n_steps = n_steps
        self.builder_kwargs = builder_kwargs
        self.positive_code = positive_code
        self.positive_dict = positive_dict
        self.center = center
        self.start = start
        self.warm_start = warm_start
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.tol = tol
        self.max_no_improvement = max_no_improvement
        self.callback = callback
        self.random_state = random_state
        self.verbose = verbose
        self.model = model
        self.transform_algorithm = transform_algorithm
        self.transform_n_nonzero_coefs = transform_n_nonzero_coefs
        self.transform_alpha = transform_alpha
        self.sparse_output = sparse_output

    def fit(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Learn the dictionary, and train the network if there is one.

        Parameters
        ----------
        X : array or sparse matrix of shape (n_samples, n_features)
        y : ignored
        sample_weight : array of shape (n_samples,), default=None
            How often each sample counts, relative to their mean. A weight of 0 leaves
            a sample out.

        Raises
        ------
        ValueError
            If a parameter, `X` or a weight is unusable, or the training diverges.
        """
        self._check_parameters()
        given = self._given_model()
        goes_on = self.warm_start and given is None and hasattr(self, "model_")
        with old_state_unless_done(self):
            x, weight = self._samples(X, sample_weight, given, reset=not goes_on)
            monitor = self._monitor()
            if given is not None:
                self.model_ = self._fitting(given)
            else:
                self._check_transform(self._asked_encoder())
                self.model_ = self._trained_model(x, weight, monitor, goes_on)
            self._note(monitor)
        return self

    def partial_fit(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train on a part of the data: one pass, in its order, at a constant rate.

        The first call makes the start from its samples, unless `fit` came before. The
        state of the optimizer, or of the online learner of a solver's dictionary, is
        kept from call to call; of the latter weights count as they are, and of a
        network relative to their mean. `tol` and `max_no_improvement` are not looked
        at. Parameters and errors are those of `fit`.
        """
        self._check_parameters()
        given = self._given_model()
        with old_state_unless_done(self):
            is_first = not hasattr(self, "model_")
            x, weight = self._samples(X, sample_weight, given, reset=is_first)
            monitor = self._monitor(0 if is_first else self.n_iter_)
            if given is not None:
                self.model_ = self._fitting(given)
            else:
                self._check_transform(self._asked_encoder())
                if is_first:
                    offset = self._offset_of(x, weight)
                    model = self._untrained_model(x, self._random_state(), offset)
                else:
                    model = self.model_
                    self._check_goes_on(model)
                self._train_on_part(model, x, weight, monitor)
                self.model_ = model
            self._note(monitor)
        return self

    def _samples(
        self,
        X: ArrayLike,
        sample_weight: ArrayLike | None,
        given: SparseCoder | None,
        reset: bool,
    ) -> tuple[Any, NDArray | None]:
        """The samples that count, and their weights."""
        encoder = self._asked_encoder() if given is None else given.encoder
        x = self._checked(X, encoder, reset)
        if sample_weight is None:
            return _rows(x), None
        n_samples = x.shape[0]
        weight: Any = as_array("sample_weight", sample_weight)
        weight = weight if weight.ndim else np.full(n_samples, weight)
        weight = check_weights("sample_weight", weight, "n_samples", n_samples)
        counts = weight > 0
        if not counts.any():
            raise ValueError(
                "sample_weight must not be zero for all samples; received weights of "
                f"{n_samples} samples, all of them zero."
            )
        return _rows(x if counts.all() else x[counts]), weight[counts]

    def _checked(self, X: ArrayLike, encoder: Any, reset: bool = False) -> Any:
        check_numbers("X", X)
        how = {"accept_sparse": "csr", "dtype": _dtype_of(encoder)}
        return validate_data(self, X, reset=reset, **how)

    def transform(self, X: ArrayLike) -> Any:
        """The sparse codes of signals, (n_samples, n_features) to (n_samples, n_atoms).

        Parameters
        ----------
        X : array or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray, or csr_matrix where `sparse_output=True`
        """
        check_is_fitted(self)
        encoder = self.model_.encoder
        self._check_transform(encoder)
        return encode_by(
            self.model_,
            _rows(self._checked(X, encoder)),
            self.transform_algorithm,
            n_nonzero=self.transform_n_nonzero_coefs,
            sparse=self.sparse_output,
            **self._codes_wanted(),
        )

    def _coder(self) -> SparseCoder:
        """What encodes as `transform` does, or a ValueError if no model does."""
        encoder = self.model_.encoder
        self._check_transform(encoder)
        wanted = self._codes_wanted()
        coder = coder_by(self.model_, self.transform_algorithm, **wanted)
        if coder is None:
            raise ValueError(
                f"transform_algorithm={self.transform_algorithm!r} makes codes that no "
                "model makes. Set transform_algorithm=None or 'lasso', or give model_ "
                "in place of the transformer."
            )
        return coder

    def inverse_transform(self, X: ArrayLike) -> NDArray:
        """The signals that codes stand for, `X @ components_ + offset_`.

        Parameters
        ----------
        X : array or sparse matrix of shape (n_samples, n_atoms)
        """
        check_is_fitted(self)
        check_numbers("X", X)
        dtype = _dtype_of(self.model_.encoder)
        codes: Any = check_array(X, dtype=dtype, accept_sparse="csr")
        if codes.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {codes.shape[1]} columns, but codes of this transformer have "
                f"{self._n_features_out}, one for each atom. Pass what transform "
                "returns."
            )
        return self.model_.decode(codes).reshape(codes.shape[0], -1)

    @property
    def components_(self) -> NDArray:
        check_is_fitted(self)
        return self.model_.dictionary

    @property
    def offset_(self) -> NDArray:
        check_is_fitted(self)
        return offset_of(self.model_.encoder)

    @property
    def _n_features_out(self) -> int:
        return self.model_.encoder.n_atoms

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _dtype_of(encoder: Any) -> str:
    """What signals and codes are rounded to: what is narrower than float32, is not."""
    return at_least_float32(encoder.compute_dtype)


def _rows(x: Any) -> Any:
    return SparseRows(x) if is_sparse(x) else x
