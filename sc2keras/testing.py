"""The laws that every encoder obeys, as checks for encoders of your own."""

import os
import tempfile
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from sc2keras.applications import build
from sc2keras.layers.encoder import Encoder
from sc2keras.models import SparseCoder
from sc2keras.models.variables import offset_of
from sc2keras.registry import get_entry

_N_ATOMS, _N_FEATURES = 6, 8


def check_encoder(name: str, **kwargs: Any) -> None:
    """Checks that a registered encoder obeys the laws of all encoders.

    Among them: a row's code depends on that row alone; the reverse call is `synthesis`,
    whose adjoint is `correlation`; the last of the codes of every step is the code; a
    layer made again from its config, and a model from its file, give the same codes;
    training keeps the atoms in the unit ball, and reaches every trainable weight.

    Args:
        name: String, the name of `sc2keras.register_encoder`.
        **kwargs: Of the encoder, such as `activation`.

    Raises:
        AssertionError: If a law does not hold; it says which.

    Example:

    >>> check_encoder("LISTA", activation="top_k")
    """
    x = np.random.default_rng(0).random((12, _N_FEATURES), dtype="float32")
    arguments = {"n_steps": 3, "l1": 0.1, **kwargs}

    def coder(**more: Any) -> SparseCoder:
        keras.utils.set_random_seed(0)
        return build(name, _N_ATOMS, (_N_FEATURES,), **{**arguments, **more})

    model = coder()
    _check_codes(model, x)
    _check_dictionary(model.encoder, model.encode(x))
    twice = {"l1": np.multiply(2, arguments["l1"]), "unit": 2.0}
    if arguments.get("offset") is not None:
        twice["offset"] = np.multiply(2, arguments["offset"])
    scaled = coder(**twice).encode(2 * x)
    _agree(scaled, 2 * model.encode(x), "unit=c with c·x and c·l1 gives c·s")
    _check_sequences(name, model, x, arguments)
    _check_files(model, x)
    if get_entry(name).is_trained:
        _check_training(coder(), x)


def _check_codes(model: SparseCoder, x: NDArray) -> None:
    codes = model.encode(x)
    _hold(codes.shape == (len(x), _N_ATOMS), f"codes have shape {codes.shape}")
    _hold(bool(np.isfinite(codes).all()), "codes are finite")
    alone = np.concatenate([model.encode(row[None]) for row in x])
    _agree(codes, alone, "a row's code does not depend on the other rows")
    _agree(ops.convert_to_numpy(model(x)), codes, "encode is the call")


def _check_dictionary(encoder: Encoder, codes: NDArray) -> None:
    dictionary = ops.convert_to_numpy(encoder.dictionary)
    signals = ops.convert_to_numpy(encoder(codes, reverse=True))
    moved = codes @ dictionary + offset_of(encoder)
    _agree(signals, moved, "the reverse call is s D, and the offset")
    signals = ops.convert_to_numpy(encoder.synthesis(codes))
    _agree(signals, codes @ dictionary, "synthesis is s D")
    residual = np.random.default_rng(1).random(signals.shape, dtype="float32")
    adjoint = ops.convert_to_numpy(encoder.correlation(residual))
    left, right = np.sum(signals * residual), np.sum(codes * adjoint)
    _agree(left, right, "correlation is the adjoint of synthesis")
    largest = np.linalg.norm(dictionary, ord=2) ** 2
    _agree(encoder.lipschitz(), largest, "lipschitz is the largest eigenvalue of D Dᵀ")
    penalty = ops.convert_to_numpy(encoder.penalty(codes))
    _hold(penalty.shape == (len(codes),), "penalty is one figure a sample")
    zeros = ops.convert_to_numpy(encoder.penalty(np.zeros_like(codes)))
    _hold(bool((penalty >= 0).all() and not zeros.any()), "penalty is >= 0, and 0 of 0")


def _check_sequences(
    name: str, model: SparseCoder, x: NDArray, arguments: dict[str, Any]
) -> None:
    layer = get_entry(name).layer(_N_ATOMS, return_sequences=True, **arguments)
    layer.build((None, _N_FEATURES))
    layer.set_weights(model.encoder.get_weights())
    steps = ops.convert_to_numpy(layer(x))
    shape = (len(x), arguments["n_steps"], _N_ATOMS)
    _hold(steps.shape == shape, f"return_sequences=True gives {shape}")
    _agree(steps[:, -1], model.encode(x), "the last of all steps is the code")


def _check_files(model: SparseCoder, x: NDArray) -> None:
    codes, encoder = model.encode(x), model.encoder
    again = type(encoder).from_config(encoder.get_config())
    again.build((None, _N_FEATURES))
    again.set_weights(encoder.get_weights())
    _agree(ops.convert_to_numpy(again(x)), codes, "get_config keeps every argument")
    with tempfile.TemporaryDirectory() as folder:
        model.save(os.path.join(folder, "model.keras"))
        loaded = keras.saving.load_model(os.path.join(folder, "model.keras"))
    _agree(loaded.encode(x), codes, "a loaded file gives the same codes")


def _check_training(model: SparseCoder, x: NDArray) -> None:
    # As large a rate as moves every weight, and the atoms out of the ball.
    model.compile(keras.optimizers.Adam(0.1), run_eagerly=True)
    before = model.get_weights()
    model.fit(x, epochs=2, verbose=0)
    norms = np.linalg.norm(model.dictionary, axis=1)
    _hold(norms.max() <= 1 + 1e-5, "training keeps atoms in the unit ball")
    for weight, old in zip(model.weights, before, strict=True):
        moved = bool(np.any(old != ops.convert_to_numpy(weight.value)))
        moves = weight.trainable or weight.name in model.encoder.updated_weights
        _hold(moved == moves, f"training moves {weight.path}, or does not")
    _agree(model.encode(x), ops.convert_to_numpy(model(x)), "encode follows training")


def _hold(is_true: bool, law: str) -> None:
    if not is_true:
        raise AssertionError(f"It should hold that {law}.")


def _agree(found: Any, expected: Any, law: str) -> None:
    np.testing.assert_allclose(
        found, expected, rtol=1e-4, atol=1e-5, err_msg=f"It should hold that {law}."
    )
