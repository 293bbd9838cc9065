import numpy as np
import pytest
from helpers import (
    DECODERS,
    double_tanh,
    fista,
    ista,
    perturb,
    shrink,
    signals,
    to_numpy,
    unit_atoms,
)
from keras.src import testing

from sc2keras.layers import LFISTABlock, LISTABlock

BLOCKS = [LISTABlock, LFISTABlock]
SOLVER = {LISTABlock: ista, LFISTABlock: fista}


@pytest.mark.parametrize("cls", BLOCKS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("n_atoms", [5, 12])
def test_untrained_equals_the_solver_that_it_unfolds(cls, shared, decoder, n_atoms):
    x, dictionary = signals(4, 8), unit_atoms(n_atoms, 8)
    block = cls(
        n_atoms,
        n_steps=15,
        l1=0.1,
        dictionary=dictionary,
        shared=shared,
        **decoder,
        return_sequences=True,
    )
    expected = SOLVER[cls](x, dictionary, 0.1, n_steps=15)
    np.testing.assert_allclose(to_numpy(block(x)), expected, atol=2e-5)


def recursion(block, x):
    """The block's steps in NumPy, from its weights."""
    weights = {}
    for weight in block.weights:
        name = weight.name.rstrip("_0123456789")
        weights.setdefault(name, []).append(to_numpy(weight).astype("float64"))
    n_steps, n_atoms = block.n_steps, block.n_atoms
    kernel = weights["kernel"][0] if "kernel" in weights else weights["dictionary"][0].T
    kernels = np.split(weights["step_size"][0] * kernel, block.n_sets, axis=1)
    activations = (
        [(shrink, (threshold,)) for threshold in weights["threshold"]]
        if "scale" not in weights
        else [
            (double_tanh, arguments)
            for arguments in zip(weights["threshold"], weights["scale"], strict=True)
        ]
    )
    momentum = [0, *weights.get("momentum", [np.zeros(n_steps - 1)])[0]]
    previous = codes = np.zeros((len(x), n_atoms))
    history = []
    for t in range(n_steps):
        i = 0 if block.shared else t
        y = codes + momentum[t] * (codes - previous)
        # The first step starts at zero.
        kernel = (t - 1) % len(weights["recurrent_kernel"])
        recurrent = y @ weights["recurrent_kernel"][kernel]
        function, arguments = activations[i]
        previous, codes = (
            codes,
            function(recurrent + x @ kernels[i], *arguments),
        )
        history.append(codes)
    return np.stack(history, axis=1)


@pytest.mark.parametrize("cls", BLOCKS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("activation", ["shrinkage", "double_tanh"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_steps_with_any_weights_equal_the_recursion(cls, shared, activation, decoder):
    x = signals(4, 8)
    block = cls(
        6,
        n_steps=4,
        shared=shared,
        activation=activation,
        **decoder,
        return_sequences=True,
    )
    block.build(x.shape)
    perturb(block)
    np.testing.assert_allclose(to_numpy(block(x)), recursion(block, x), atol=2e-5)


@pytest.mark.parametrize("cls", BLOCKS)
def test_unshared_blocks_have_one_set_of_weights_a_step(cls):
    names = {}
    for shared in (True, False):
        block = cls(6, n_steps=4, shared=shared)
        block.build((None, 8))
        names[shared] = [w.name.rstrip("_0123456789") for w in block.weights]
    for name, count in {"recurrent_kernel": 3, "threshold": 4, "dictionary": 1}.items():
        assert names[True].count(name) == 1
        assert names[False].count(name) == count
    assert "kernel" not in names[True]
    assert block.kernel.shape == (8, 4 * 6)


@pytest.mark.parametrize("cls", BLOCKS)
@pytest.mark.parametrize("shared", [True, False])
def test_passes_the_layer_test_of_keras(cls, shared):
    per_set = 2 if shared else 2 + 3
    momentum = 1 if cls is LFISTABlock else 0
    kernel = 0 if shared else 1
    testing.TestCase().run_layer_test(
        cls,
        init_kwargs={"n_atoms": 5, "n_steps": 3, "shared": shared},
        input_shape=(3, 4),
        expected_output_shape=(3, 5),
        expected_num_trainable_weights=1 + per_set + momentum + kernel,
        expected_num_non_trainable_weights=1,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=False,
    )


@pytest.mark.parametrize("cls", BLOCKS)
@pytest.mark.parametrize("shared", [True, False])
def test_a_single_step_has_no_weight_that_it_does_not_use(cls, shared):
    block = cls(5, n_steps=1, shared=shared)
    x = signals(3, 4)
    codes = block(x)
    expected = block.activations[0](block.project(x))
    np.testing.assert_allclose(to_numpy(codes), to_numpy(expected), atol=1e-6)
    names = {w.name.rstrip("_0123456789") for w in block.trainable_weights}
    assert names == {"dictionary", "threshold"} | (set() if shared else {"kernel"})


@pytest.mark.parametrize("cls", BLOCKS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("decoder", DECODERS)
def test_the_factored_form_is_the_full_one_with_coupled_matrices(cls, shared, decoder):
    x, dictionary = signals(4, 8), unit_atoms(6, 8)
    options = {
        "n_steps": 4,
        "shared": shared,
        "dictionary": dictionary,
        **decoder,
        "return_sequences": True,
    }
    factored = cls(6, recurrent="factored", **options)
    expected = SOLVER[cls](x, dictionary, 0.1, n_steps=4)
    np.testing.assert_allclose(to_numpy(factored(x)), expected, atol=2e-5)

    perturb(factored)
    full = cls(6, recurrent="full", **options)
    full.build(x.shape)
    others = [w for w in full.weights if "recurrent_kernel" not in w.name]
    for weight, twin in zip(factored.weights, others, strict=True):
        twin.assign(weight)
    d = to_numpy(full.dictionary)
    for i, weight in enumerate(full.recurrent_kernels):
        kernel = d.T
        if full.kernel is not None:
            step = 0 if shared else i + 1
            kernel = to_numpy(full.kernel)[:, 6 * step : 6 * (step + 1)]
        weight.assign(np.eye(6) - d @ (to_numpy(full.step_size) * kernel))
    np.testing.assert_allclose(to_numpy(factored(x)), to_numpy(full(x)), atol=2e-5)


@pytest.mark.parametrize("cls", BLOCKS)
def test_an_unknown_activation_is_named(cls):
    with pytest.raises(ValueError, match=r"one of .*received activation='relu'"):
        cls(5, activation="relu")
