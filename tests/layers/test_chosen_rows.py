"""Codes decoded from the rows that they choose, beside products with all of D."""

import keras
import numpy as np
import pytest
from helpers import EXHAUSTIVE, perturb, signals, to_numpy, unit_atoms, with_slow
from keras import ops

from sc2keras import applications
from sc2keras.layers import SparseAutoencoderBlock, chosen_rows
from sc2keras.layers.autoencoder_rules import kept

N_ATOMS, N_FEATURES, N_SAMPLES, K = 40, 8, 20, 3


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="takes any of equal entries"
)
@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("n_values", [4, 1000])
def test_the_largest_entries_are_those_of_a_sort(count, n_values):
    """Of equal ones the first."""
    x = np.random.default_rng(1).integers(-n_values, n_values, (50, 300))
    x = x.astype("float32")
    x[0] = 0
    x[1, 5:] = 0
    expected = np.zeros_like(x)
    places = np.argsort(-np.abs(x), axis=1, kind="stable")[:, :count]
    np.put_along_axis(expected, places, np.take_along_axis(x, places, 1), 1)
    codes = to_numpy(chosen_rows.keep_largest(ops.array(x), count))
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(to_numpy(kept(ops.array(x), count)), expected)


def models_of(**options):
    """Two of the same weights, that decode densely and sparsely."""
    options = {"k": K, "aux_weight": 0.0, **options}
    models = [
        applications.SparseAutoencoder(
            N_ATOMS, (N_FEATURES,), decoding=decoding, **options
        )
        for decoding in ("dense", "sparse")
    ]
    encoder = models[0].encoder
    perturb(encoder)
    encoder.dictionary.assign(unit_atoms(N_ATOMS, N_FEATURES, seed=5))
    if encoder.weight_of_aux():
        silent = np.zeros(N_ATOMS)
        silent[10:] = 100
        encoder.silent.assign(silent)
    models[1].set_weights(models[0].get_weights())
    return models


CASES = {
    "plain": {},
    "signed": {"nonnegative": False},
    "aux": {"aux_weight": 0.25, "aux_k": 4, "dead_after": 100},
    "aux-signed": {
        **{"aux_weight": 0.25, "aux_k": 4, "dead_after": 100},
        "nonnegative": False,
    },
    "none dead": {"aux_weight": 0.25, "dead_after": 10_000},
    "nested": {"nested": [4, 17]},
    "fixed": {"trainable_dictionary": False},
    "unit": {"unit": 2.0, "aux_weight": 0.25, "aux_k": 4, "dead_after": 100},
    "own kernels": {"n_steps": 3, "shared": False},
    "steps": {"n_steps": 3, "aux_weight": 0.25, "aux_k": 4, "dead_after": 100},
}


CHECKED = [("plain", "auto"), ("aux", "auto"), ("steps", "auto")]


@pytest.mark.parametrize(
    ("case", "jit_compile"),
    [
        *with_slow(
            CHECKED,
            [("steps", True)],
        ),
        # The others, and compiled by XLA, before a release.
        *with_slow(
            [],
            [
                (case, way)
                for case in CASES
                for way in ("auto", True)
                if (case, way) not in [*CHECKED, ("steps", True)]
            ],
            EXHAUSTIVE,
        ),
    ],
)
def test_updates_are_those_of_products_with_all_of_d(case, jit_compile):
    """Two, by the recipe's Adam, which squares and clips gradients."""
    if keras.backend.backend() == "torch":
        jit_compile = "auto"
    x, results = signals(N_SAMPLES, N_FEATURES) - 0.3, []
    for model in models_of(**CASES[case]):
        codes = model.encode(x)
        model.compile(jit_compile=jit_compile)
        losses = [np.ravel(model.train_on_batch(x))[0] for _ in range(2)]
        found = np.ravel(model.test_on_batch(x))[0]
        results.append((codes, losses, found, model.get_weights()))
    dense, sparse = results
    assert np.count_nonzero(dense[0])
    np.testing.assert_array_equal(sparse[0] != 0, dense[0] != 0)
    np.testing.assert_allclose(sparse[0], dense[0], rtol=1e-6)
    np.testing.assert_allclose(sparse[1], dense[1], rtol=1e-5)
    np.testing.assert_allclose(sparse[2], dense[2], rtol=1e-5)
    for a, b in zip(sparse[3], dense[3], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("case", with_slow(["plain", "aux"], list(CASES)))
def test_gradients_are_those_of_products_with_all_of_d(case):
    """By a plain step, which is the gradient."""
    x, results = signals(N_SAMPLES, N_FEATURES) - 0.3, []
    for model in models_of(**CASES[case]):
        before = model.get_weights()
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        model.train_on_batch(x)
        results.append(
            [b - a for a, b in zip(before, model.get_weights(), strict=True)]
        )
    for sparse, dense in zip(*results[::-1], strict=True):
        np.testing.assert_allclose(sparse, dense, atol=1e-6)
    assert np.abs(results[0][0]).max() > 1e-3 or case == "fixed"


def test_rows_that_no_code_chooses_have_no_gradient():
    _, model = models_of()
    x = signals(4, N_FEATURES)
    chosen = (model.encode(x) != 0).any(axis=0)
    assert 0 < chosen.sum() < N_ATOMS
    before = to_numpy(model.encoder.dictionary).copy()
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.train_on_batch(x)
    moved = np.abs(to_numpy(model.encoder.dictionary) - before).max(axis=1)
    assert (moved[chosen] > 1e-5).all()
    assert moved[~chosen].max() < 1e-6


def products(layer, x, monkeypatch):
    """The widths of the matrices that are multiplied between a call and its inverse."""
    codes = layer(x)
    shapes, matmul = [], ops.matmul

    def noting(a, b):
        shapes.append((tuple(a.shape), tuple(b.shape)))
        return matmul(a, b)

    monkeypatch.setattr(ops, "matmul", noting)
    layer(codes, reverse=True)
    return shapes


@pytest.mark.parametrize(
    "decoding, n_atoms, k, is_sparse",
    [
        ("auto", 4 * chosen_rows._ATOMS_FOR_ONE, 4, True),
        ("auto", 4 * chosen_rows._ATOMS_FOR_ONE - 1, 4, False),
        ("sparse", 30, 10, True),
        ("dense", 4 * chosen_rows._ATOMS_FOR_ONE, 4, False),
    ],
)
def test_products_with_all_of_d_are_left_out_where_that_is_faster(
    monkeypatch, decoding, n_atoms, k, is_sparse
):
    layer, x = SparseAutoencoderBlock(n_atoms, k=k, decoding=decoding), signals(6, 8)
    widths = {a[-1] for a, _ in products(layer, x, monkeypatch)}
    assert widths == {k if is_sparse else n_atoms}


def test_codes_of_somebody_else_are_decoded_as_they_are():
    layer, x = SparseAutoencoderBlock(N_ATOMS, k=K, decoding="sparse"), signals(6, 8)
    layer(x)
    codes = signals(6, N_ATOMS)
    expected = codes @ to_numpy(layer.dictionary) + to_numpy(layer.offset)
    np.testing.assert_allclose(
        to_numpy(layer(ops.array(codes), reverse=True)), expected, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(2, 3, N_FEATURES), (4, N_FEATURES)])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_inputs_of_any_rank_and_all_steps_are_encoded(shape, return_sequences):
    x = np.random.default_rng(0).random(shape, dtype="float32")
    layers = []
    for decoding in ("dense", "sparse"):
        layer = SparseAutoencoderBlock(
            N_ATOMS, 2, k=K, decoding=decoding, return_sequences=return_sequences
        )
        layer.build((None, N_FEATURES))
        layers.append(layer)
    layers[1].set_weights(layers[0].get_weights())
    dense, sparse = (to_numpy(layer(x)) for layer in layers)
    np.testing.assert_allclose(sparse, dense, atol=1e-6)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"decoding": "rows"}, "decoding must be one of .*received decoding='rows'"),
        (
            {"decoding": "sparse", "activation": "relu"},
            "activation='top_k' alone.*received activation='relu'",
        ),
    ],
)
def test_bad_arguments_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        SparseAutoencoderBlock(12, **options)


def test_a_code_of_a_nan_shows_it():
    layer = SparseAutoencoderBlock(N_ATOMS, k=K, decoding="sparse")
    x = signals(4, N_FEATURES)
    x[1, 2] = np.nan
    codes = to_numpy(layer(x))
    assert np.isnan(codes[1]).any() and np.isfinite(codes[[0, 2, 3]]).all()
