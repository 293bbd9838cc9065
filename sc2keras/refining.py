"""More steps for a trained sparse autoencoder, with its dictionary as it is."""

import os
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from sc2keras.applications import build
from sc2keras.autoencoder_files import read_autoencoder
from sc2keras.layers import SparseAutoencoderBlock
from sc2keras.layers.dictionary import lipschitz_constant
from sc2keras.models import SparseCoder
from sc2keras.signals import as_samples, check_finite
from sc2keras.validation import at_least_float32

_MOST_SAMPLES = 2048
# The γ that are tried. Of a W_e that makes codes of a signal, 1 makes them of a rest.
_SIZES = np.log(np.geomspace(1e-3, 10.0, 9))
_NEAR_ENOUGH = {"xatol": 0.01}
_OF_THE_AUTOENCODER = {"n_atoms", "input_shape", "dictionary", "trainable_dictionary"}
# e to it is 0 in every dtype: a step that leaves codes as they are.
_NO_STEP = -1000.0


def refine(
    model: SparseCoder | str | os.PathLike[str],
    n_steps: int = 5,
    x: ArrayLike | None = None,
    *,
    apply_b_dec_to_input: bool | None = None,
    **kwargs: Any,
) -> SparseCoder:
    """A sparse autoencoder continued for more steps, on its own frozen dictionary.

    Its first step is the autoencoder as it was trained. Each further one corrects the
    code by what it leaves of the signal, s ← T(s + γ_t (x − b_d − s D) Dᵀ), so that
    with as many entries the code says more; of these steps every other one, from the
    first on, corrects the values of the entries that are chosen, and chooses no others.
    (Along Dᵀ the error falls on all signals. Along the autoencoder's W_e, with
    `exact_gradient=False`, it falls less, and on signals unlike those that this was
    learned on, much less.) Choose the γ_t on samples: on these the result is then never
    worse than with fewer steps. The result can be used as it is,
    and be trained further, by `compile` and `fit`; D stays what it is. (To train D as
    well, where its atoms have unit norm, set `encoder.dictionary.trainable`.)

    Args:
        model: A `SparseCoder` of a `SparseAutoencoderBlock`; or the path of a
            `.safetensors` file that SAELens, sparsify or dictionary_learning saved, or
            of its folder.
        n_steps: Integer, T, the number of steps of the result. A model that has several
            is continued as it was built.
        x: Array of samples, on at most 2,048 of which each γ_t is chosen, by the error
            that it leaves; where every γ_t would leave more, it is 0, which training
            does not change. The threshold of a `"batch_top_k"` that has none is chosen
            on them as well. None: γ_t = 1/L with L = ‖D Dᵀ‖, or 1/(t L) with
            L = ‖D W_e‖, small enough that codes stay bounded whatever W_e is.
        apply_b_dec_to_input: Boolean, of a file that does not say whether b_dec is
            subtracted from the input.
        **kwargs: Of `SparseAutoencoderBlock`, in place of those that it has, such as
            `shared=False` to train a matrix a step, from Dᵀ on; of a file what it does
            not say, such as `activation` and `k`.

    Returns:
        A new `SparseCoder`. A classifier on the codes of `model` is not taken over.

    Raises:
        ValueError: If `model` is no sparse autoencoder, or of a layout that is unknown
            or leaves open what it does, or damaged.
        OSError: If there is no such file, or it is truncated or altered.

    Example:

    >>> import sc2keras
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((200, 16)).astype("float32")
    >>> sae = sc2keras.applications.SparseAutoencoder(32, (16,), k=4)
    >>> better = refine(sae, n_steps=5, x=x)
    >>> before, after = (np.sum((m.reconstruct(x) - x) ** 2) for m in (sae, better))
    >>> bool(after < before)
    True

    References:
        O'Neill, Gumran and Klindt, Compute Optimal Inference and Provable Amortisation
        Gap in Sparse Autoencoders, 2025. Blumensath and Davies, Normalized Iterative
        Hard Thresholding, 2010. Foucart, Hard Thresholding Pursuit, 2011, section 5.
    """
    for name in _OF_THE_AUTOENCODER & kwargs.keys():
        raise ValueError(
            f"{name} is that of the autoencoder; received {name}={kwargs[name]!r}. "
            "Leave it."
        )
    if isinstance(model, SparseCoder):
        if apply_b_dec_to_input is not None:
            raise ValueError(
                "apply_b_dec_to_input is of files that do not say it; received "
                f"apply_b_dec_to_input={apply_b_dec_to_input} with a model. Leave it."
            )
        arguments, weights, shape = _of_model(model)
    else:
        arguments, weights = read_autoencoder(model, apply_b_dec_to_input, **kwargs)
        shape = weights["dictionary"].shape[1:]
    continued = {}
    if arguments.get("n_steps", 1) == 1:
        shared = kwargs.get("shared", arguments.get("shared", True))
        continued = {"exact_gradient": bool(shared), "debias": True}
    arguments = {**arguments, **continued, **kwargs, "n_steps": n_steps}
    arguments["trainable_dictionary"] = False
    n_atoms = len(weights["dictionary"])
    refined = build("SparseAutoencoder", n_atoms, shape, **arguments)
    _put(refined.encoder, weights)
    has_threshold = bool(np.any(weights.get("batch_threshold", 0)))
    if x is not None:
        x = as_samples("x", x, shape)
        if not len(x):
            raise ValueError(f"x must hold samples; received shape {x.shape}.")
        check_finite("x", x, refined.inputs[0].dtype)
        _choose(refined, x, has_threshold)
    elif refined.encoder.activation == "batch_top_k" and not has_threshold:
        raise ValueError(
            "batch_top_k keeps what is above a threshold, which the autoencoder does "
            "not hold. Pass x=..., samples to choose it on, or activation='top_k'."
        )
    return refined


def _of_model(
    model: SparseCoder,
) -> tuple[dict[str, Any], dict[str, NDArray], tuple[int, ...]]:
    encoder = model.encoder
    if not isinstance(encoder, SparseAutoencoderBlock):
        raise ValueError(
            "refine continues sparse autoencoders; received a model with the encoder "
            f"{type(encoder).__name__}. Build it with a larger n_steps."
        )
    config = encoder.get_config()
    for name in ("n_atoms", "initial_dictionary", "trainable_overrides", "name"):
        config.pop(name, None)
    weights = {w.name: ops.convert_to_numpy(w) for w in encoder.weights}
    return config, weights, model.input_shape[1:]


def _put(encoder: Any, weights: dict[str, NDArray]) -> None:
    """The weights of an autoencoder; of steps that it has not, such as are safe."""
    made = {"log_step", "batch_threshold", "jump_threshold", "silent"}
    missing = [
        w.name
        for w in encoder.weights
        if w.name not in {*made, *weights} and not w.name.startswith("kernel_")
    ]
    if missing:
        raise ValueError(
            f"activation={encoder.activation!r} has weights that the autoencoder has "
            f"not: {', '.join(missing)}. Leave it, or build another and train it."
        )
    for weight in encoder.weights:
        if weight.name == "log_step":
            continue
        if weight.name == "batch_threshold":
            old = np.atleast_1d(weights.get("batch_threshold", 0.0))[: weight.shape[0]]
            fill = np.full(weight.shape[0] - len(old), old[-1])
            weight.assign(np.concatenate([old, fill]))
        elif weight.name in weights:
            weight.assign(weights[weight.name])
        elif weight.name.startswith("kernel_"):
            weight.assign(weights["dictionary"].T)
    if encoder.n_steps > 1:
        old = np.asarray(weights.get("log_step", np.zeros(0)))[: encoder.n_steps - 1]
        encoder.log_step.assign(np.concatenate([old, _safe_steps(encoder)[len(old) :]]))


def _safe_steps(encoder: Any) -> NDArray:
    """ln γ_t, −ln L or −ln(t L), with L = ‖D W_t‖, which bounds codes.

    No T makes an entry larger, so that ‖s_t+1‖ ≤ ‖I − γ_t D W_t‖ ‖s_t‖ + γ_t ‖c‖ with a
    c of the signal and the bias. With D Dᵀ, which is symmetric, γ_t = 1/L makes it
    at most 1. Otherwise it is at most 1 + 1/t, and the product of these n_steps: with a
    constant γ it may be exponential in them.
    """
    t = np.arange(1, encoder.n_steps)
    kernels = [encoder.kernel_of_step(i) for i in (t[:1] if encoder.shared else t)]
    dictionary, *kernels = (
        np.asarray(ops.convert_to_numpy(weight), float)
        for weight in (encoder.dictionary, *kernels)
    )
    scale = 1.0  # Of the magnitudes of "gated", which its W_e does not have.
    if encoder.activation == "gated":
        scale = np.exp(ops.convert_to_numpy(encoder.log_scale).astype(float))
    elif encoder.exact_gradient:
        t = np.ones(len(t))
    root = np.linalg.qr(dictionary, "r")
    norms = [np.sqrt(lipschitz_constant(root @ (w * scale))) for w in kernels]
    return -np.log(np.maximum(norms, 1e-30) * t)


def _choose(model: SparseCoder, x: NDArray, has_threshold: bool) -> None:
    """The γ_t, one after the other, that leave the smallest error of samples.

    And the threshold of a batch, if there is none yet.
    """
    encoder: Any = model.encoder
    chosen = np.random.default_rng(0).permutation(len(x))[:_MOST_SAMPLES]
    # Outside of a call weights are not cast to another dtype.
    rows = ops.convert_to_tensor(x[chosen].reshape(len(chosen), -1))
    rows = ops.cast(rows, encoder.variable_dtype)
    prepared = encoder.prepare(encoder.in_unit(rows))
    state = encoder.step(prepared, encoder.initial_state(prepared), 0)
    if encoder.activation == "batch_top_k" and not has_threshold:
        _set_threshold(encoder, 0, _threshold_of(encoder, state))
        state = encoder.step(prepared, encoder.initial_state(prepared), 0)
    if encoder.n_steps == 1:
        return
    sizes = np.array(ops.convert_to_numpy(encoder.log_step))

    def advance(size: float, t: int) -> Any:
        sizes[t - 1] = size
        encoder.log_step.assign(sizes)
        return _after(encoder, prepared, state, t)

    def error(size: float, t: int) -> float:
        codes = encoder.out_of_unit(advance(size, t)[0])
        left = rows - encoder.decode(codes)
        left = ops.cast(left, at_least_float32(left.dtype))
        total = float(ops.convert_to_numpy(ops.sum(ops.square(left))))
        return total if np.isfinite(total) else np.inf

    for t in range(1, encoder.n_steps):
        tried = {size: error(size, t) for size in (_NO_STEP, sizes[t - 1], *_SIZES)}
        best = min(_SIZES, key=tried.__getitem__)
        near = best + (_SIZES[1] - _SIZES[0]) * np.array([-1, 1])
        found = minimize_scalar(error, bounds=near, args=(t,), options=_NEAR_ENOUGH)
        tried[found.x] = found.fun
        state = advance(min(tried, key=tried.__getitem__), t)


def _after(encoder: Any, prepared: Any, state: Any, t: int) -> Any:
    """The state after step t, in which a batch's threshold keeps as many as k says."""
    if encoder.activation != "batch_top_k":
        return encoder.step(prepared, state, t)
    _set_threshold(encoder, t, ops.convert_to_numpy(encoder.batch_threshold)[t - 1])
    after = encoder.step(prepared, state, t)
    is_left_out = ops.convert_to_numpy(encoder.log_step)[t - 1] == _NO_STEP
    if is_left_out or encoder.keeps_support(t):
        return after
    _set_threshold(encoder, t, _threshold_of(encoder, after))
    return encoder.step(prepared, state, t)


def _threshold_of(encoder: Any, state: Any) -> float:
    """The threshold above which a state has as many entries as k says."""
    entries = np.sort(ops.convert_to_numpy(state[1]), axis=None)
    count = min(encoder.count() * len(state[1]), entries.size - 1)
    return float(max(entries[-count - 1], 0.0))


def _set_threshold(encoder: Any, t: int, threshold: float) -> None:
    values = np.array(ops.convert_to_numpy(encoder.batch_threshold))
    values[t] = threshold
    encoder.batch_threshold.assign(values)
