import keras
import numpy as np
import pytest
from helpers import double_tanh, shrink, signals, to_numpy
from keras.src import testing

from sc2keras.layers import DoubleTanh, Shrinkage

ACTIVATIONS = [Shrinkage, DoubleTanh]
THRESHOLDS = np.array([0, 0.1, 0.5, 2], "float32")


@pytest.fixture
def x():
    return 4 * signals(20, 4) - 2


@pytest.mark.parametrize("threshold", [0.0, 0.25, 1.0])
def test_shrinkage_equals_soft_shrink_of_keras(x, threshold):
    expected = to_numpy(keras.ops.soft_shrink(x, threshold))
    np.testing.assert_allclose(to_numpy(Shrinkage(threshold)(x)), expected, atol=1e-6)


def test_shrinkage_has_a_threshold_an_atom(x):
    layer = Shrinkage()
    layer.build(x.shape)
    layer.threshold.assign(THRESHOLDS)
    y = to_numpy(layer(x))
    np.testing.assert_allclose(y, shrink(x, THRESHOLDS), atol=1e-6)
    assert (y[np.abs(x) <= THRESHOLDS] == 0).all()


def test_double_tanh_is_equation_17(x):
    layer = DoubleTanh()
    layer.build(x.shape)
    scale = np.array([1, -2, 0.5, 3], "float32")
    layer.threshold.assign(THRESHOLDS)
    layer.scale.assign(scale)
    expected = double_tanh(x.astype("float64"), THRESHOLDS, scale)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)


def test_double_tanh_is_small_but_not_zero_where_shrinkage_is_zero():
    x = np.array([[0.05, -0.05]], "float32")
    assert (to_numpy(Shrinkage(0.1)(x)) == 0).all()
    y = np.abs(to_numpy(DoubleTanh()(x)))
    assert (y > 0).all()
    assert (y < 0.05).all()


@pytest.mark.parametrize("cls", ACTIVATIONS)
def test_arguments_are_initial_values(x, cls):
    layer = cls(threshold=0.75)
    layer(x)
    np.testing.assert_array_equal(to_numpy(layer.threshold), 0.75)


@pytest.mark.parametrize("cls", ACTIVATIONS)
def test_arguments_are_not_rounded_to_float32_in_float64(cls):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("computes in float32")
    layer = cls(0.1, dtype="float64")
    layer.build((None, 4))
    assert (to_numpy(layer.threshold) == 0.1).all()


@pytest.mark.parametrize("cls", ACTIVATIONS)
def test_thresholds_are_trained_and_stay_non_negative(x, cls):
    layer = cls(threshold=0.5)
    model = keras.Sequential([keras.Input((4,)), layer])
    # The target is larger than the input, which no threshold >= 0 can give.
    model.compile(keras.optimizers.SGD(1.0), loss="mse", run_eagerly=True)
    model.fit(x, 3 * x, epochs=5, verbose=0)
    thresholds = to_numpy(layer.threshold)
    assert (thresholds != 0.5).all()
    assert (thresholds >= 0).all()


@pytest.mark.parametrize("cls", ACTIVATIONS)
def test_passes_the_layer_test_of_keras(cls):
    testing.TestCase().run_layer_test(
        cls,
        init_kwargs={"threshold": 0.2},
        input_shape=(3, 5, 4),
        expected_output_shape=(3, 5, 4),
        expected_num_trainable_weights=1 if cls is Shrinkage else 2,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=True,
    )


def test_config_round_trip_keeps_the_arguments():
    layer = DoubleTanh(threshold=0.3, scale=0.7, name="h", dtype="mixed_bfloat16")
    config = DoubleTanh.from_config(layer.get_config()).get_config()
    assert config == layer.get_config()
    assert (config["threshold"], config["scale"]) == (0.3, 0.7)


@pytest.mark.parametrize("cls", ACTIVATIONS)
def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(x, cls):
    layer = cls(0.1, dtype="mixed_bfloat16")
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(layer.threshold.dtype) == "float32"
    exact = to_numpy(cls(0.1)(x))
    y = to_numpy(keras.ops.cast(y, "float32"))
    np.testing.assert_allclose(y, exact, atol=0.03)


@pytest.mark.parametrize("cls", ACTIVATIONS)
@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_an_unusable_threshold_is_named(cls, threshold):
    with pytest.raises(ValueError, match=f"received threshold={threshold}"):
        cls(threshold=threshold)
