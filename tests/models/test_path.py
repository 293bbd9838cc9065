import keras
import pytest
from coders import L1, compiled, per_sample
from helpers import signals

from sc2keras import SparseCoder
from sc2keras.layers import LISTABlock


def test_models_of_the_wrong_form_are_refused():
    x = keras.Input((8,))
    encoder = LISTABlock(6, n_steps=2)
    codes = encoder(x)
    head = keras.layers.Dense(3)
    with pytest.raises(ValueError, match=r"received 1 inputs and 3 outputs"):
        SparseCoder(x, [codes, head(codes), head(codes)])
    with pytest.raises(ValueError, match=r"received 2 inputs and 1 outputs"):
        other = keras.Input((6,))
        SparseCoder([x, other], encoder(x))
    with pytest.raises(ValueError, match=r"output of an encoder of sc2keras.layers"):
        SparseCoder(x, keras.layers.Dense(6)(x))
    with pytest.raises(ValueError, match=r"output of an encoder of sc2keras.layers"):
        SparseCoder(x, [head(codes), codes])
    with pytest.raises(ValueError, match=r"only Flatten and Reshape .*Dense"):
        SparseCoder(x, LISTABlock(6)(keras.layers.Dense(8)(x)))
    with pytest.raises(ValueError, match=r"return_sequences=False"):
        SparseCoder(x, LISTABlock(6, return_sequences=True)(x))
    image = keras.Input((4, 2))
    with pytest.raises(ValueError, match=r"shape \(batch, n_atoms\).*flatten the"):
        SparseCoder(image, LISTABlock(6)(image))


def test_reshape_may_stand_before_the_encoder():
    x = keras.Input((8,))
    reshaped = keras.layers.Flatten()(keras.layers.Reshape((2, 4))(x))
    model = SparseCoder(x, LISTABlock(6, n_steps=2, l1=L1)(reshaped))
    data = signals(4, 8)
    result = compiled(model).evaluate(data, verbose=0, return_dict=True)
    assert result["loss"] == pytest.approx(per_sample(model, data)[0].mean(), rel=1e-5)
