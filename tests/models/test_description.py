import json

import keras
from coders import L1, build
from helpers import unit_atoms

from sc2keras.layers import FISTA, LISTABlock
from sc2keras.models.description import describe, encoder_config


def test_a_description_is_plain_json_that_names_encoder_and_head():
    model = build(classes=3)
    found = describe(model)
    assert json.loads(json.dumps(found)) == found
    assert found["encoder"] == "sc2keras>LISTABlock"
    assert found["input_shape"] == [2, 4]
    assert found["head"] == {"units": 3, "activation": "softmax"}
    assert describe(build())["head"] is None


def test_the_arguments_are_those_that_give_the_weights_their_meaning():
    layer = FISTA(6, n_steps=3, l1=L1, name="mine", dictionary=unit_atoms(6, 8))
    layer.build((None, 8))
    config = encoder_config(layer)
    assert (config["n_atoms"], config["n_steps"], config["l1"]) == (6, 3, L1)
    assert not {"name", "trainable", "initial_dictionary"} & set(config)
    other = encoder_config(FISTA(6, n_steps=3, l1=L1))
    assert other == config != encoder_config(FISTA(6, n_steps=4, l1=L1))


def test_an_initializer_is_no_argument_of_the_weights():
    plain = encoder_config(LISTABlock(6))
    assert all(not isinstance(v, keras.Initializer) for v in plain.values())
