"""Support selection beside the definitions of the papers, in NumPy."""

import keras
import numpy as np
import pytest
from helpers import by_percentile, shrink, signals, to_numpy, unit_atoms
from keras.src import testing

from sc2keras.layers import (
    LISTABlock,
    LISTACPBlock,
    LISTACPSSBlock,
    LISTASSBlock,
    NAALISTABlock,
    SupportSelection,
)
from sc2keras.layers.support_selection import support_count, support_selection

N = 50


def entries(n_samples=20, n=N):
    return np.random.default_rng(0).standard_normal((n_samples, n)).astype("float32")


def by_rank(x, threshold, fraction):
    """Behrens et al. 2021: strictly above the entry of that rank, and no threshold."""
    magnitude = np.abs(x)
    rank = max(int(fraction * x.shape[1]), 1)
    line = np.sort(magnitude, axis=1)[:, -rank][:, None]
    return np.where(magnitude > line, x, shrink(x, threshold))


def by_quantile(x, threshold, fraction):
    """Chen et al. 2021: not below the interpolated quantile, nor the threshold."""
    magnitude = np.abs(x)
    line = np.quantile(magnitude, 1 - fraction, axis=1, keepdims=True)
    # The quantile of one entry is that entry, but for the rounding of its weights.
    passes = (magnitude >= threshold) & (magnitude >= line * (1 - 1e-6))
    return np.where(passes, x, shrink(x, threshold))


DEFINITIONS = {
    "percentile": by_percentile,
    "rank": by_rank,
    "quantile": by_quantile,
}


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("fraction", [0.0, 0.012, 0.13, 0.47, 0.999])
def test_each_definition_is_that_of_its_paper(definition, fraction):
    x = entries()
    layer = SupportSelection(0.8, fraction, definition)
    expected = DEFINITIONS[definition](x, 0.8, fraction)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-6)


def test_definitions_differ_by_an_entry_and_the_threshold():
    assert [support_count(0.1, 500, kind) for kind in DEFINITIONS] == [50, 49, 50]
    x = entries()
    of_rank, of_percentile = (
        to_numpy(SupportSelection(5.0, 0.5, kind)(x)) for kind in ("rank", "percentile")
    )
    assert np.count_nonzero(of_rank) == 20 * 24
    assert not of_percentile.any()


def test_a_count_is_that_of_the_fraction_as_it_is_written():
    for n in (50, 100, 500, 1000):
        for percent in range(101):
            whole = n * percent // 100
            assert support_count(percent / 100, n, "rank") == max(whole - 1, 0)
            quantile = 1 + (n - 1) * percent // 100
            assert support_count(percent / 100, n, "quantile") == quantile
            layer = NAALISTABlock(n, n_steps=1, max_support=percent / 100)
            assert layer.support_count(0) == max(whole - 1, 0)


def test_nothing_selected_is_the_soft_threshold_and_all_the_hard_one():
    x = entries()
    soft, hard = (to_numpy(SupportSelection(0.8, f)(x)) for f in (0.0, 1.0))
    np.testing.assert_allclose(soft, shrink(x, 0.8), atol=1e-6)
    # The smallest of all entries is never above itself.
    np.testing.assert_array_equal(hard, np.where(np.abs(x) > 0.8, x, 0))


def test_counts_may_be_one_a_sample():
    x, counts = entries(3, 10), np.array([[0], [2], [7]])
    x += 0.2 * np.sign(x)  # None is below the threshold.
    tensors = [keras.ops.convert_to_tensor(a) for a in (x, shrink(x, 0.1), counts)]
    found = to_numpy(support_selection(*tensors))
    order = np.argsort(-np.abs(x), axis=1)
    for row, count in enumerate(counts[:, 0]):
        whole = found[row] == x[row]
        assert set(np.flatnonzero(whole)) == set(order[row, :count])


def test_a_choice_has_no_gradient():
    x = keras.ops.convert_to_tensor(entries(4))
    layer = SupportSelection(0.8, 0.2)
    model = keras.Sequential([keras.Input((N,)), layer])
    model.compile("sgd", loss="mse", run_eagerly=True)
    model.fit(x, np.zeros((4, N)), verbose=0)
    moved = to_numpy(layer.threshold) != np.float32(0.8)
    # Where an entry was shrunk in some sample, and nowhere else.
    values = np.abs(entries(4))
    line = np.sort(values, axis=1)[:, -11][:, None]
    shrunk = ((values > 0.8) & (values <= line)).any(axis=0)
    np.testing.assert_array_equal(moved, shrunk)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"fraction": 1.1}, r"fraction must be at most 1; received fraction=1\.1"),
        ({"fraction": -0.1}, r"fraction must be .*received fraction=-0\.1"),
        ({"definition": "best"}, "must be one of .*'rank'.*received definition='best'"),
        ({"threshold": -1.0}, r"threshold must be .*received threshold=-1\.0"),
    ],
)
def test_unusable_arguments_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        SupportSelection(**options)


def test_it_passes_the_layer_test_of_keras():
    testing.TestCase().run_layer_test(
        SupportSelection,
        init_kwargs={"threshold": 0.2, "fraction": 0.3, "definition": "rank"},
        input_shape=(3, 10),
        expected_output_shape=(3, 10),
        expected_num_trainable_weights=1,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=True,
    )


def test_an_encoder_takes_it_by_its_name():
    layer = LISTABlock(20, n_steps=2, activation="support_selection")
    layer(signals(4, 8))
    assert isinstance(layer.last_activation(), SupportSelection)


SELECTING = {"support_step": 0.2, "max_support": 0.45}


@pytest.mark.parametrize(
    ("selecting", "plain", "options"),
    [
        (LISTASSBlock, LISTABlock, {"shared": False}),
        (LISTASSBlock, LISTABlock, {"shared": True}),
        (LISTACPSSBlock, LISTACPBlock, {}),
    ],
)
def test_networks_with_it_are_those_without_where_nothing_is_selected(
    selecting, plain, options
):
    x, atoms = signals(5, 8), unit_atoms(12, 8)
    arguments = {"n_steps": 4, "l1": 0.3, "dictionary": atoms, **options}
    expected = to_numpy(plain(12, **arguments)(x))
    found = to_numpy(selecting(12, max_support=0.0, **arguments)(x))
    np.testing.assert_array_equal(found, expected)
    with_some = to_numpy(selecting(12, **SELECTING, **arguments)(x))
    assert np.abs(with_some - expected).max() > 0.01


@pytest.mark.parametrize("cls", [LISTASSBlock, LISTACPSSBlock])
def test_steps_are_those_of_ista_with_a_growing_support(cls):
    x, atoms = signals(5, 8), unit_atoms(12, 8)
    layer = cls(12, n_steps=4, l1=0.3, dictionary=atoms, **SELECTING)
    step = 1 / np.linalg.norm(atoms, 2) ** 2
    codes = np.zeros((5, 12))
    for t in range(4):
        total = codes + step * (x - codes @ atoms) @ atoms.T
        codes = by_percentile(total, 0.3 * step, min(0.2 * (t + 1), 0.45))
    np.testing.assert_allclose(to_numpy(layer(x)), codes, atol=1e-5)


def test_the_schedule_is_that_of_the_authors():
    layer = LISTACPSSBlock(500, n_steps=16)
    counts = [layer.support_count(t) for t in range(16)]
    assert counts == [6, 12, 18, 24, 30, 36, 42, 48, 54, 60] + [65] * 6
    for options in ({"support_step": 2}, {"max_support": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            LISTACPSSBlock(500, **options)
