"""Builders of ready models, as in `keras.applications`."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from sc2keras import layers as sc_layers
from sc2keras.applications.saved_weights import check_input_shape, open_weights
from sc2keras.layers.unfolded import Activation
from sc2keras.models import SparseCoder
from sc2keras.validation import Tensor, at_least_float32, check_positive_integer

_Builder = TypeVar("_Builder", bound=Callable[..., SparseCoder])

_DEFAULTS = {"n_atoms": 100, "l1": 0.1, "n_steps": 5}
# The layer of each builder, and what it has for defaults.
_ENCODERS: dict[str, tuple[type[keras.layers.Layer], dict[str, Any]]] = {
    "SC2Net": (sc_layers.SLSTM, {**_DEFAULTS, "activation": "double_tanh"}),
    "LISTA": (sc_layers.LISTABlock, {**_DEFAULTS, "activation": "shrinkage"}),
    "LFISTA": (sc_layers.LFISTABlock, {**_DEFAULTS, "activation": "shrinkage"}),
    "AdaptiveISTA": (sc_layers.AdaptiveISTA, {**_DEFAULTS, "activation": "shrinkage"}),
    "ISTA": (sc_layers.ISTA, {**_DEFAULTS, "n_steps": 300}),
    "FISTA": (sc_layers.FISTA, {**_DEFAULTS, "n_steps": 300}),
}

_ARGUMENTS = """
    Args:
        n_atoms: Integer, k, the number of atoms and the size of a code, 100 by default.
        input_shape: Tuple, the shape of one sample, (28, 28, 1) by default. It is
            flattened inside.
        n_steps: Integer, T, the number of steps{n_steps}.
        l1: Float >= 0, λ, the weight of the ℓ1 term, 0.1 by default.
        activation: {activation}
        dictionary: Array `(n_atoms, n_features)`, where the dictionary starts; for
            instance of `sc2keras.learn_dictionary`. None: random atoms of unit norm.
        weights: {weights}
        classes: Integer or None. If given, a dense layer of that many classes stands on
            the codes, and the model's outputs are `[codes, predictions]`. Train it with
            `compile(loss=...)` and `fit(x, y)`.
        classifier_activation: The activation of that layer, such as `"softmax"`, or
            None for logits.
        name: String, the name of the model.
        **kwargs: Further arguments of the layer, `{layer}`, such as {extra} or
            `dtype="mixed_bfloat16"`.

    Returns:
        A `sc2keras.SparseCoder`, not compiled.

    Raises:
        ValueError: If an argument is unusable, or contradicts the weights.
        OSError: If the file of the weights is truncated or altered.
"""

_PATH = """None, or the path of a `.keras` or `.weights.h5` file of such a model.
            All arguments that are left open, those of the classifier included, follow
            the file; one that contradicts it is an error. (A `.weights.h5` file of
            before version 0.2 tells nothing but its shapes.)"""
_NAME = """ Or a name of `list_weights()`, such
            as `"mnist"`: weights that ship with the package, with a card
            (`weights_card`). A classifier on top of these starts untrained."""
_ACTIVATION = """`"double_tanh"` (codes small) or `"shrinkage"` (codes exactly
            zero); `"{default}"` by default."""
_SOLVER = '`"shrinkage"`: the soft threshold belongs to the algorithm.'


def _documented(
    layer: str, extra: str = "`tied`, `trainable_dictionary`"
) -> Callable[[_Builder], _Builder]:
    """Puts the arguments, which all builders share, into the builder's docstring."""
    solver = layer in ("ISTA", "FISTA")
    n_steps = (
        ", or their cap where `tol` is given, 300 by default"
        if solver
        else ", 5 by default"
    )
    activation = _ACTIVATION.format(
        default="double_tanh" if layer == "SLSTM" else "shrinkage"
    )

    def decorate(builder):
        arguments = _ARGUMENTS.format(
            layer=layer,
            n_steps=n_steps,
            activation=_SOLVER if solver else activation,
            weights=_PATH + ("" if solver else _NAME),
            extra=extra,
        )
        builder.__doc__ = builder.__doc__.replace("\n    ARGUMENTS\n", arguments)
        return builder

    return decorate


@_documented("SLSTM", extra="`use_bias`, `tied`, `trainable_dictionary`")
def SC2Net(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    n_steps: int | None = None,
    l1: float | None = None,
    activation: Activation | None = None,
    dictionary: ArrayLike | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "softmax",
    name: str = "sc2net",
    **kwargs: Any,
) -> SparseCoder:
    """SC2Net: sparse codes by `n_steps` steps of a Sparse LSTM.

    ARGUMENTS

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.SC2Net(n_atoms=20, input_shape=(8, 8, 1))
    >>> model.compile()
    >>> x = np.random.default_rng(0).random((64, 8, 8, 1), dtype="float32")
    >>> history = model.fit(x, verbose=0)
    >>> model.encode(x).shape
    (64, 20)

    Reference:
        Zhou et al., An End-to-End Sparse Coding, section 3.
    """
    return _build(
        "SC2Net",
        {"n_atoms": n_atoms, "n_steps": n_steps, "l1": l1, "activation": activation},
        kwargs,
        input_shape,
        dictionary,
        weights,
        classes,
        classifier_activation,
        name,
    )


@_documented("LISTABlock", extra="`shared`, `tied`, `trainable_dictionary`")
def LISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    n_steps: int | None = None,
    l1: float | None = None,
    activation: Activation | None = None,
    dictionary: ArrayLike | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "softmax",
    name: str = "lista",
    **kwargs: Any,
) -> SparseCoder:
    """LISTA: sparse codes by `n_steps` steps of learned ISTA.

    It is trained on the objective, as the paper's baseline is, or as its authors do on
    codes computed beforehand: pass the dictionary they belong to with
    `trainable_dictionary=False`, compile with a regression loss and
    `objective_weight=0`, and `fit(x, codes)`.

    ARGUMENTS

    Example:

    >>> import numpy as np, sc2keras
    >>> x = np.random.default_rng(0).random((64, 9), dtype="float32")
    >>> shape = {"n_atoms": 4, "input_shape": (9,)}
    >>> exact = sc2keras.applications.FISTA(**shape)
    >>> model = sc2keras.applications.LISTA(
    ...     **shape, dictionary=exact.dictionary, trainable_dictionary=False)
    >>> model.compile(loss="mse", objective_weight=0.0)
    >>> history = model.fit(x, exact.encode(x), verbose=0)

    References:
        Gregor and LeCun, Learning Fast Approximations of Sparse Coding, 2010. Zhou et
        al., An End-to-End Sparse Coding, section 2.
    """
    return _build(
        "LISTA",
        {"n_atoms": n_atoms, "n_steps": n_steps, "l1": l1, "activation": activation},
        kwargs,
        input_shape,
        dictionary,
        weights,
        classes,
        classifier_activation,
        name,
    )


@_documented("LFISTABlock", extra="`shared`, `tied`, `trainable_dictionary`")
def LFISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    n_steps: int | None = None,
    l1: float | None = None,
    activation: Activation | None = None,
    dictionary: ArrayLike | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "softmax",
    name: str = "lfista",
    **kwargs: Any,
) -> SparseCoder:
    """LFISTA: sparse codes by `n_steps` steps of learned FISTA.

    It is trained in either of the two ways of `LISTA`.

    ARGUMENTS

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.LFISTA(n_atoms=20, input_shape=(8, 8, 1))
    >>> model.encode(np.zeros((3, 8, 8, 1), "float32")).shape
    (3, 20)

    References:
        Moreau and Bruna, Understanding Neural Sparse Coding with Matrix Factorization,
        2017. Zhou et al., An End-to-End Sparse Coding, section 4.1.
    """
    return _build(
        "LFISTA",
        {"n_atoms": n_atoms, "n_steps": n_steps, "l1": l1, "activation": activation},
        kwargs,
        input_shape,
        dictionary,
        weights,
        classes,
        classifier_activation,
        name,
    )


@_documented("AdaptiveISTA")
def AdaptiveISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    n_steps: int | None = None,
    l1: float | None = None,
    activation: Activation | None = None,
    dictionary: ArrayLike | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "softmax",
    name: str = "adaptive_ista",
    **kwargs: Any,
) -> SparseCoder:
    """Adaptive ISTA: sparse codes by `n_steps` steps with trained momentum vectors.

    ARGUMENTS

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.AdaptiveISTA(n_atoms=20, input_shape=(8, 8, 1))
    >>> model.encode(np.zeros((3, 8, 8, 1), "float32")).shape
    (3, 20)

    Reference:
        Zhou et al., An End-to-End Sparse Coding, section 3.1.
    """
    return _build(
        "AdaptiveISTA",
        {"n_atoms": n_atoms, "n_steps": n_steps, "l1": l1, "activation": activation},
        kwargs,
        input_shape,
        dictionary,
        weights,
        classes,
        classifier_activation,
        name,
    )


@_documented("ISTA", extra="`tol`")
def ISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    n_steps: int | None = None,
    l1: float | None = None,
    activation: Activation = "shrinkage",
    dictionary: ArrayLike | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "softmax",
    name: str = "ista",
    **kwargs: Any,
) -> SparseCoder:
    """ISTA: sparse codes for a given dictionary, solved for each sample.

    It has nothing to train: it encodes with the dictionary that it is given.

    ARGUMENTS

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.ISTA(
    ...     n_atoms=4, input_shape=(4,), dictionary=np.eye(4), l1=0.5)
    >>> float(model.encode(np.ones((1, 4), "float32"))[0, 0])
    0.5

    Reference:
        Zhou et al., An End-to-End Sparse Coding, eq. 4 to 6.
    """
    _check_solver_activation(activation)
    return _build(
        "ISTA",
        {"n_atoms": n_atoms, "n_steps": n_steps, "l1": l1},
        kwargs,
        input_shape,
        dictionary,
        weights,
        classes,
        classifier_activation,
        name,
    )


@_documented("FISTA", extra="`tol`")
def FISTA(
    n_atoms: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    n_steps: int | None = None,
    l1: float | None = None,
    activation: Activation = "shrinkage",
    dictionary: ArrayLike | None = None,
    weights: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None = "softmax",
    name: str = "fista",
    **kwargs: Any,
) -> SparseCoder:
    """FISTA: sparse codes for a given dictionary, solved for each sample.

    It has nothing to train: it encodes with the dictionary that it is given.

    ARGUMENTS

    Example:

    >>> import numpy as np, sc2keras
    >>> model = sc2keras.applications.FISTA(
    ...     n_atoms=4, input_shape=(4,), dictionary=np.eye(4), l1=0.5, tol=1e-5)
    >>> float(model.encode(np.ones((1, 4), "float32"))[0, 0])
    0.5

    Reference:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear
        Inverse Problems, 2009.
    """
    _check_solver_activation(activation)
    return _build(
        "FISTA",
        {"n_atoms": n_atoms, "n_steps": n_steps, "l1": l1},
        kwargs,
        input_shape,
        dictionary,
        weights,
        classes,
        classifier_activation,
        name,
    )


def preprocess_input(x: Tensor) -> Tensor:
    """Scales integer images, 0 to 255, to float32 in [0, 1].

    Args:
        x: Array or tensor of an integer dtype, such as uint8, of any shape.

    Returns:
        An array or tensor of float32, x / 255.

    Raises:
        TypeError: If `x` has a float dtype, of which the scale is not known; or a wider
            integer dtype than uint8 in a tensor that has no values yet.
        ValueError: If a value is below 0 or above 255.

    Example:

    >>> float(preprocess_input(np.array([255], dtype="uint8"))[0])
    1.0
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    if "int" not in dtype:
        raise TypeError(
            f"preprocess_input takes integer images, 0 to 255; received dtype {dtype}. "
            "Scale floats to [0, 1] by the range that they have."
        )
    if dtype != "uint8":
        _check_range(x, dtype)
    if isinstance(x, np.ndarray):
        return x.astype("float32") / np.float32(255)
    return ops.cast(x, "float32") / 255.0


def _check_range(x: Tensor, dtype: str) -> None:
    try:
        values = x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x)
    # What a tensor without values raises differs from backend to backend.
    except Exception as error:
        raise TypeError(
            f"preprocess_input cannot look at the values of a symbolic tensor of dtype "
            f"{dtype}. Cast it to uint8 if they are 0 to 255, or scale it by its range."
        ) from error
    if values.size and not 0 <= values.min() <= values.max() <= 255:
        raise ValueError(
            f"preprocess_input takes integer images, 0 to 255; received {dtype} from "
            f"{values.min()} to {values.max()}. Scale x by its own range, for instance "
            f"x.astype('float32') / {np.iinfo(dtype).max}."
        )


def _build(
    builder: str,
    given: dict[str, Any],
    kwargs: dict[str, Any],
    input_shape: tuple[int, ...] | None,
    dictionary: ArrayLike | None,
    weights: str | os.PathLike[str] | None,
    classes: int | None,
    classifier_activation: str | Callable[[Tensor], Tensor] | None,
    name: str,
) -> SparseCoder:
    """The model around an encoder, with its weights loaded.

    Where `given` arguments of the layer are None, those of the weights or the defaults
    stand; `kwargs` are taken as they are.
    """
    layer_class, defaults = _ENCODERS[builder]
    given = {k: v for k, v in given.items() if v is not None} | kwargs
    saved = None if weights is None else open_weights(builder, layer_class, weights)
    arguments = {**defaults, **given}
    if saved is not None and saved.config is not None:
        arguments = saved.config | given
    # From its config, which of weights holds more than arguments.
    layer = layer_class.from_config({**arguments, "dictionary": dictionary})
    if saved is not None:
        with saved.named_misfit(name, layer, input_shape):
            input_shape = saved.check_shape(input_shape)
            saved.check_arguments(layer, given, dictionary)
            classes, classifier_activation = saved.check_classifier(
                classes, classifier_activation
            )
    input_shape = (28, 28, 1) if input_shape is None else input_shape
    inputs = keras.Input(
        check_input_shape(input_shape),
        name="inputs",
        dtype=at_least_float32(layer.compute_dtype),
    )
    signals = inputs
    if len(inputs.shape) > 2:
        # By default the order would depend on a global setting.
        flatten = keras.layers.Flatten(
            data_format="channels_last", name="flatten", dtype=layer.dtype_policy
        )
        signals = flatten(inputs)
    outputs = layer(signals)
    if classes is not None:
        head = keras.layers.Dense(
            check_positive_integer("classes", classes),
            activation=classifier_activation,
            name="predictions",
            dtype=layer.dtype_policy,
        )
        outputs = [outputs, head(outputs)]
    model = SparseCoder(inputs, outputs, name=name)
    if saved is not None:
        saved.put_into(model)
    return model


def _check_solver_activation(activation: Activation) -> None:
    if activation != "shrinkage":
        raise ValueError(
            "activation must be 'shrinkage' for an exact solver; received activation="
            f"{activation!r}. LISTA, LFISTA, AdaptiveISTA and SC2Net take others."
        )
