"""What Keras rebuilds or reloads is what it was."""

import copy
import pickle

import keras
import numpy as np
import pytest
from helpers import (
    ENTRIES,
    EXHAUSTIVE,
    FEW_ENCODERS,
    FEW_TRAINED,
    KIN,
    TRAINABLE_VARIANTS,
    VARIANTS,
    WITH_ACTIVATION,
    WITH_MATRICES,
    assert_same,
    signals,
    takes,
    to_numpy,
    unit_atoms,
    with_slow,
)

from sc2keras import SparseCoder, applications
from sc2keras.layers import SLSTM, AdaptiveISTACell, LISTABlock, Shrinkage, SLSTMCell

DICTIONARY = unit_atoms(6, 8)


def model_of(layer):
    x = keras.Input((8,))
    return SparseCoder(x, layer(x))


def trainable_names(layer):
    return [w.path.split("/", 1)[-1] for w in layer.trainable_weights]


REBUILT = {
    "config": lambda layer: type(layer).from_config(layer.get_config()),
    "serialized": lambda layer: keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    ),
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
}


@pytest.mark.parametrize("way", REBUILT)
@pytest.mark.parametrize("cls", FEW_ENCODERS)
@pytest.mark.parametrize("built", [False, True])
def test_a_layer_that_is_made_again_keeps_the_given_dictionary(cls, way, built):
    check_keeps_the_dictionary(cls, {}, way, built)


@pytest.mark.slow
@pytest.mark.parametrize("way", REBUILT)
@pytest.mark.parametrize("cls, options", VARIANTS)
@pytest.mark.parametrize("built", [False, True])
def test_every_variant_that_is_made_again_keeps_it(cls, options, way, built):
    check_keeps_the_dictionary(cls, options, way, built)


def check_keeps_the_dictionary(cls, options, way, built):
    layer = cls(6, dictionary=DICTIONARY, n_steps=2, **options)
    if built:
        layer.build((None, 8))
    again = REBUILT[way](layer)
    if not again.built:
        again.build((None, 8))
    np.testing.assert_allclose(to_numpy(again.dictionary), DICTIONARY, atol=1e-6)


@pytest.mark.parametrize("cell", [SLSTMCell, AdaptiveISTACell])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda cell: keras.layers.RNN.from_config(keras.layers.RNN(cell).get_config()),
        lambda cell: copy.deepcopy(keras.layers.RNN(cell)),
    ],
)
def test_an_rnn_that_is_made_again_keeps_the_dictionary_of_its_cell(cell, wrap):
    rnn = wrap(cell(6, dictionary=DICTIONARY))
    rnn.build((None, 3, 8))
    np.testing.assert_allclose(to_numpy(rnn.cell.dictionary), DICTIONARY, atol=1e-6)


def test_both_directions_start_from_the_given_dictionary():
    layer = keras.layers.Bidirectional(SLSTM(6, dictionary=DICTIONARY))
    layer(signals(6, 8).reshape(2, 3, 8))
    for part in (layer.forward_layer, layer.backward_layer):
        np.testing.assert_allclose(to_numpy(part.dictionary), DICTIONARY, atol=1e-6)


@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_a_clone_starts_from_the_given_dictionary(cls, tmp_path):
    model = model_of(cls(6, dictionary=DICTIONARY, n_steps=2))
    clone = keras.models.clone_model(model)
    np.testing.assert_allclose(clone.dictionary, DICTIONARY, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(loaded)
    np.testing.assert_array_equal(clone.dictionary, model.dictionary)


@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_what_json_cannot_hold_is_nan_until_weights_are_set(cls):
    model = model_of(cls(6, dictionary=DICTIONARY, n_steps=2))
    x = signals(3, 8)
    again = keras.models.model_from_json(model.to_json())
    assert np.isnan(again.dictionary).all()
    with pytest.raises(ValueError, match=r"code of x\[0\] holds a NaN"):
        again.encode(x)
    if again.trainable_weights:
        again.compile(run_eagerly=True)
        with pytest.raises(ValueError, match=r"holds a NaN .*nothing was trained"):
            again.fit(x, verbose=0)
    again.set_weights(model.get_weights())
    assert_same(again.encode(x), model.encode(x), cls)


def test_a_dictionary_that_nobody_gave_is_drawn_anew():
    model = model_of(LISTABlock(6, n_steps=2))
    clone = keras.models.clone_model(model)
    assert np.abs(clone.dictionary - model.dictionary).max() > 0.1


@pytest.mark.parametrize(
    "cls, options",
    [
        *((cls, {"tied": False}) for cls in WITH_MATRICES if cls not in KIN),
        *with_slow([], TRAINABLE_VARIANTS),
    ],
)
def test_what_was_frozen_one_by_one_is_so_after_a_reload(cls, options, tmp_path):
    whole = model_of(cls(6, n_steps=2, **options))
    for name in trainable_names(whole):
        model = model_of(cls(6, n_steps=2, **options))
        for weight in model.trainable_weights:
            if weight.path.split("/", 1)[-1] == name:
                weight.trainable = False
        expected = trainable_names(model)
        assert name not in expected
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        again = keras.models.clone_model(model)
        assert trainable_names(loaded) == trainable_names(again) == expected
        for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        # And it can be freed.
        loaded.encoder.trainable = False
        loaded.encoder.trainable = True
        assert trainable_names(loaded) == trainable_names(whole)


def test_layers_within_that_were_frozen_are_so_after_a_reload(tmp_path):
    slstm, lista = model_of(SLSTM(6)), model_of(LISTABlock(6, shared=False, n_steps=2))
    slstm.encoder.cell.activation_layer.trainable = False
    lista.encoder.activations[1].trainable = False
    cell = model_of(SLSTM(6))
    cell.encoder.cell.trainable = False
    for model in (slstm, lista, cell):
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert trainable_names(loaded) == trainable_names(model)
    assert not cell.trainable_weights


def test_frozen_weights_stay_as_they_are_when_a_loaded_model_goes_on(tmp_path):
    model = model_of(LISTABlock(6, n_steps=2))
    model.encoder.recurrent_kernels[0].trainable = False
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit(signals(8, 8), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = to_numpy(loaded.encoder.recurrent_kernels[0]).copy()
    loaded.fit(signals(8, 8), verbose=0)
    np.testing.assert_array_equal(to_numpy(loaded.encoder.recurrent_kernels[0]), before)
    assert (loaded.dictionary != model.dictionary).any()


FIXED = {
    "l1": 1.0,
    "n_steps": 7,
    "n_atoms": 3,
    "unit": 2.0,
    "return_sequences": True,
    "tol": 0.1,
    "shared": False,
    "tied": False,
    "activation": "double_tanh",
    "recurrent": "factored",
    "dictionary": DICTIONARY,
    "dtype_policy": "mixed_bfloat16",
    "trainable_dictionary": False,
}


@pytest.mark.parametrize(
    "name",
    with_slow(["n_steps", "tol", "tied", "dictionary"], list(FIXED), EXHAUSTIVE),
)
@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_arguments_are_fixed_once_a_layer_is_built(cls, name):
    layer = cls(6, n_steps=2)
    x = signals(3, 8)
    codes = to_numpy(layer(x))
    owners = [layer, getattr(layer, "cell", layer)] if takes(cls, name) else []
    owners = [owner for owner in owners if hasattr(owner, name)]
    for owner in owners:
        with pytest.raises(AttributeError, match=name):
            setattr(owner, name, FIXED[name])
    np.testing.assert_array_equal(to_numpy(layer(x)), codes)


def test_the_error_says_what_to_do():
    layer = LISTABlock(6)
    layer.l1 = 0.2  # It is not built yet, and follows.
    layer.build((None, 8))
    assert to_numpy(layer.activations[0].threshold)[0] == pytest.approx(
        0.2 * float(layer.step_size.value)
    )
    with pytest.raises(AttributeError, match=r"received l1=1\.0.*another layer"):
        layer.l1 = 1.0
    layer.trainable = False


@pytest.mark.parametrize("cls", FEW_ENCODERS)
def test_a_nan_in_a_file_is_refused_on_every_way(cls, tmp_path):
    model = model_of(cls(6, n_steps=2))
    bad = model_of(cls(6, n_steps=2))
    dictionary = bad.dictionary
    dictionary[0, 0] = np.nan
    bad.encoder.dictionary.assign(dictionary)
    before = model.get_weights()
    # Keras's own functions, which look at nothing.
    keras.saving.save_model(bad, tmp_path / "bad.keras")
    keras.saving.save_weights(bad, tmp_path / "bad.weights.h5")
    with pytest.raises(ValueError, match=r"dictionary.*in the file holds a NaN"):
        keras.saving.load_model(tmp_path / "bad.keras")
    for name in ("bad.keras", "bad.weights.h5"):
        with pytest.raises(ValueError, match="holds a NaN"):
            model.load_weights(tmp_path / name)
        builder = next(entry.name for entry in ENTRIES if entry.layer is cls)
        with pytest.raises(ValueError, match="holds a NaN"):
            applications.build(
                builder, 6, (8,), n_steps=2, l1=0.1, weights=tmp_path / name
            )
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_order_of_axes_that_no_model_has_is_refused():
    x = keras.Input((2, 4, 3))
    for layer in (
        keras.layers.Flatten(data_format="channels_first"),
        type("Mine", (keras.layers.Flatten,), {})(),
        type("Mine", (keras.layers.Reshape,), {})((24,)),
        keras.layers.Permute((2, 1, 3)),
    ):
        flat = layer(x)
        if len(flat.shape) > 2:
            flat = keras.layers.Reshape((24,))(flat)
        with pytest.raises(ValueError, match=r"only Flatten and Reshape"):
            SparseCoder(x, LISTABlock(6)(flat))
    SparseCoder(x, LISTABlock(6)(keras.layers.Reshape((24,))(x)))


def test_an_encoder_of_sequences_is_no_sparse_coder():
    x = keras.Input((5, 8))
    with pytest.raises(ValueError, match=r"8 features of inputs of shape \(5, 8\)"):
        SparseCoder(x, SLSTM(6)(x))


@pytest.mark.parametrize("cls", FEW_TRAINED)
def test_what_was_freed_is_so_after_a_reload(cls, tmp_path):
    name = "trainable_dictionary"
    options = {name: False} if takes(cls, name) else {}
    model = model_of(cls(6, n_steps=2, **options))
    model.encoder.dictionary.trainable = True
    owner = getattr(model.encoder, "cell", model.encoder)
    if hasattr(owner, "step_size"):
        owner.step_size.trainable = True
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert sorted(trainable_names(loaded)) == sorted(trainable_names(model))
    x = signals(3, 8)
    assert_same(loaded.encode(x), model.encode(x), cls)
    # And it is trained: codes are not all that D is for.
    before = loaded.dictionary
    loaded.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    loaded.fit(signals(20, 8), verbose=0)
    assert np.abs(loaded.dictionary - before).max() > 1e-5


@pytest.mark.parametrize("way", ["file", "clone", "pickle", "new"])
@pytest.mark.parametrize("cls", FEW_TRAINED)
def test_an_encoder_that_is_frozen_is_so_when_it_is_made_again(cls, way, tmp_path):
    model = model_of(cls(6, n_steps=2, trainable=way != "new"))
    model.encoder.trainable = False
    if way == "file":
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    elif way == "clone":
        model = keras.models.clone_model(model)
    elif way == "pickle":
        model = pickle.loads(pickle.dumps(model))
    assert not model.trainable_weights
    model.encoder.trainable = True
    assert trainable_names(model) == trainable_names(model_of(cls(6, n_steps=2)))


def test_what_is_no_dictionary_is_refused():
    for bad in (
        np.ma.masked_array(DICTIONARY, DICTIONARY > 0.5),
        DICTIONARY.astype(complex),
        DICTIONARY.astype(str),
        "samples",
        "",
    ):
        with pytest.raises(ValueError, match=r"^dictionary "):
            LISTABlock(6, dictionary=bad)


@pytest.mark.parametrize("cls", WITH_ACTIVATION)
def test_an_activation_that_was_frozen_stays_so(cls):
    layer = cls(6, n_steps=2, activation=Shrinkage(0.05, trainable=False))
    again = cls.from_config(layer.get_config())
    for one in (layer, again):
        one.build((None, 8))
        assert one.trainable_weights
        assert not any("threshold" in v.path for v in one.trainable_weights)
    layer.last_activation().trainable = True
    again = cls.from_config(layer.get_config())
    again.build((None, 8))
    assert len(again.trainable_weights) == len(layer.trainable_weights)
