import keras
import numpy as np
import pytest
from helpers import signals, to_numpy, unit_atoms

import sc2keras
from sc2keras import layers
from sc2keras.applications import (
    FISTA,
    ISTA,
    LFISTA,
    LISTA,
    AdaptiveISTA,
    SC2Net,
)

LAYERS = {
    SC2Net: layers.SLSTM,
    LISTA: layers.LISTABlock,
    LFISTA: layers.LFISTABlock,
    AdaptiveISTA: layers.AdaptiveISTA,
    ISTA: layers.ISTA,
    FISTA: layers.FISTA,
}

SOLVERS = [ISTA, FISTA]

TRAINED = [builder for builder in LAYERS if builder not in SOLVERS]

SMALL = {"n_atoms": 5, "input_shape": (2, 2, 2), "n_steps": 3}


def images(n_samples):
    return signals(n_samples, 8).reshape(-1, 2, 2, 2)


@pytest.fixture(params=LAYERS, ids=lambda builder: builder.__name__)
def builder(request):
    return request.param


def test_builders_share_one_signature(builder):
    names = builder.__code__.co_varnames[: builder.__code__.co_argcount]
    reference = SC2Net.__code__.co_varnames[: SC2Net.__code__.co_argcount]
    assert names == reference


def test_n_atoms_alone_is_enough(builder):
    model = builder(n_atoms=7)
    assert type(model) is sc2keras.SparseCoder
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 7)
    assert model.encoder.l1 == 0.1


def test_the_model_holds_the_layer_with_the_arguments_of_the_builder(builder):
    dictionary = unit_atoms(5, 8)
    model = builder(**SMALL, l1=0.3, dictionary=dictionary, name="mine")
    assert type(model.encoder) is LAYERS[builder]
    assert (model.encoder.n_atoms, model.encoder.n_steps) == (5, 3)
    assert model.encoder.l1 == 0.3
    assert model.name == "mine"
    np.testing.assert_allclose(model.dictionary, dictionary, atol=1e-7)
    x = images(4)
    layer = LAYERS[builder](5, n_steps=3, l1=0.3)
    layer.build((None, 8))
    layer.set_weights(model.get_weights())
    expected = to_numpy(layer(x.reshape(4, 8)))
    np.testing.assert_allclose(model.encode(x), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(8,), (2, 4), (2, 2, 2), [4, 2]])
def test_any_input_shape_is_flattened_inside(builder, shape):
    keras.utils.set_random_seed(0)
    model = builder(n_atoms=5, input_shape=shape, n_steps=3)
    flat = builder(n_atoms=5, input_shape=(8,), n_steps=3)
    flat.set_weights(model.get_weights())
    x = signals(4, 8)
    shaped = x.reshape(4, *shape)
    np.testing.assert_allclose(model.encode(shaped), flat.encode(x), atol=1e-6)
    assert model.reconstruct(shaped).shape == shaped.shape


@pytest.mark.parametrize("trained", TRAINED)
def test_activation_chooses_between_exact_zeros_and_smoothness(trained):
    x = images(20)
    for activation, has_zeros in [("shrinkage", True), ("double_tanh", False)]:
        codes = trained(**SMALL, l1=0.5, activation=activation).encode(x)
        assert (codes == 0).any() == has_zeros
    assert trained(**SMALL).encoder.get_config()["activation"] == "shrinkage"


def test_keywords_reach_the_layer():
    assert not SC2Net(**SMALL, use_bias=False).encoder.cell.use_bias
    assert not LISTA(**SMALL, shared=False).encoder.shared
    assert not LFISTA(**SMALL, trainable_dictionary=False).encoder.dictionary.trainable
    assert FISTA(**SMALL, tol=0.1).encoder.tol == 0.1
    mixed = AdaptiveISTA(**SMALL, classes=2, dtype="mixed_bfloat16")
    for output in mixed.outputs:
        assert output.dtype == "bfloat16"


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_have_nothing_to_train_and_take_no_argument_of_networks(solver):
    assert solver(**SMALL).trainable_weights == []
    for argument in ({"activation": "double_tanh"}, {"tied": False}):
        with pytest.raises(ValueError, match=f"Unrecognized.*{next(iter(argument))}"):
            solver(**SMALL, **argument)


def test_classes_puts_a_classifier_on_the_codes(builder):
    model = builder(**SMALL, classes=3)
    assert model.output_shape == [(None, 5), (None, 3)]
    x = images(4)
    codes, probabilities = model.predict(x, verbose=0)
    np.testing.assert_allclose(codes, model.encode(x), atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    head = model.get_layer("predictions")
    logits = codes @ to_numpy(head.kernel) + to_numpy(head.bias)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    raw = builder(**SMALL, classes=3, classifier_activation=None)
    raw.set_weights(model.get_weights())
    np.testing.assert_allclose(raw.predict(x, verbose=0)[1], logits, atol=1e-5)


def test_a_classifier_on_the_codes_learns_beside_the_objective():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=60)
    x = images(60)
    x[y == 1, 0] += 1
    model = LISTA(**SMALL, classes=2)
    model.compile(
        keras.optimizers.Adam(0.02),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    history = model.fit(x, y, epochs=30, batch_size=20, verbose=0).history
    assert history["accuracy"][-1] > 0.95
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("name", ["n_atoms", "n_steps", "classes"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_counts_that_are_not_positive_integers_are_named(builder, name, value):
    match = rf"{name} must be an integer >= 1; received {name}={value}"
    with pytest.raises(ValueError, match=match):
        builder(**{**SMALL, name: value})


def test_an_unusable_l1_or_dictionary_is_named(builder):
    with pytest.raises(ValueError, match=r"l1 must be .*received l1=-0.1"):
        builder(**SMALL, l1=-0.1)
    with pytest.raises(ValueError, match=r"dictionary must have shape .*\(5, 7\)"):
        builder(**SMALL, dictionary=unit_atoms(5, 7))
    with pytest.raises(ValueError, match=r"dictionary must have no zero atom"):
        builder(**SMALL, dictionary=np.zeros((5, 8)))


@pytest.mark.parametrize("shape", [8, (), (0, 4), (None, 8), (2.0, 4), "8"])
def test_an_unusable_input_shape_is_named(builder, shape):
    match = r"input_shape must be a tuple of positive integers.*received input_shape="
    with pytest.raises(ValueError, match=match):
        builder(n_atoms=5, input_shape=shape)


def test_the_order_of_axes_does_not_depend_on_a_global_setting(builder):
    shape = (2, 3, 4)
    x = images(24).reshape(8, *shape)
    model = builder(5, shape, n_steps=2)
    codes = model.encode(x)
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        other = builder(5, shape, n_steps=2)
        other.set_weights(model.get_weights())
        np.testing.assert_array_equal(other.encode(x), codes)
        np.testing.assert_allclose(
            other.reconstruct(x), (codes @ model.dictionary).reshape(x.shape), atol=1e-6
        )
    finally:
        keras.config.set_image_data_format(before)
