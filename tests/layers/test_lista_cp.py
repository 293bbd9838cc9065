"""LISTA-CP beside its equation in NumPy, and beside the form of LISTA that it is."""

import numpy as np
import pytest
from helpers import perturb, shrink, signals, to_numpy, unit_atoms

from sc2keras import applications
from sc2keras.layers import LISTABlock, LISTACPBlock


def test_steps_are_those_of_the_paper():
    layer = LISTACPBlock(6, n_steps=3, l1=0.3, return_sequences=True)
    x = signals(5, 8)
    layer(x)
    perturb(layer)
    dictionary, step = to_numpy(layer.dictionary), to_numpy(layer.step_size)
    codes = np.zeros((5, 6))
    for t, found in enumerate(np.moveaxis(to_numpy(layer(x)), 1, 0)):
        kernel = step * to_numpy(layer.kernels[t])
        threshold = to_numpy(layer.activations[t].threshold)
        codes = shrink(codes + (x - codes @ dictionary) @ kernel, threshold)
        np.testing.assert_allclose(found, codes, atol=1e-5)
        assert np.abs(codes).max() > 0.01


def test_untrained_it_is_the_factored_unshared_lista():
    atoms, x = unit_atoms(6, 8), signals(5, 8)
    arguments = {"n_steps": 4, "l1": 0.2, "dictionary": atoms}
    lista = LISTABlock(6, shared=False, recurrent="factored", **arguments)
    np.testing.assert_allclose(
        to_numpy(LISTACPBlock(6, **arguments)(x)), to_numpy(lista(x)), atol=1e-6
    )


def test_each_step_has_a_matrix_and_thresholds():
    layer = LISTACPBlock(50, n_steps=4)
    layer.build((None, 25))
    assert layer.count_params() == 50 * 25 + 1 + 4 * (25 * 50 + 50)


def test_its_builder_trains_and_takes_no_argument_of_lista():
    x = signals(64, 16)
    model = applications.LISTACP(8, (4, 4), n_steps=2)
    model.compile()
    losses = model.fit(x.reshape(-1, 4, 4), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert model.name == "listacp"
    assert "coupled" in applications.LISTACP.__doc__
    with pytest.raises(ValueError, match=r"Unrecognized.*tied"):
        applications.LISTACP(8, (4, 4), tied=False)
