"""The sparse-recovery problem: every convention says what it draws."""

import numpy as np
import pytest

from sc2keras.datasets import sparse_recovery


def test_defaults_are_the_setting_of_the_literature():
    data = sparse_recovery()
    assert data.dictionary.shape == (500, 250)
    assert data.codes.shape == (1000, 500) and data.x.shape == (1000, 250)
    assert data.codes.dtype == data.x.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(data.dictionary, axis=1), 1)
    np.testing.assert_allclose(data.x, data.codes @ data.dictionary, atol=1e-5)
    assert not data.noise.any()
    nonzero = data.codes[data.codes != 0]
    assert np.mean(data.codes != 0) == pytest.approx(0.1, rel=0.02)
    assert nonzero.std() == pytest.approx(1, rel=0.02)
    assert nonzero.mean() == pytest.approx(0, abs=0.02)


def test_seeds_give_equal_arrays_and_others_do_not():
    a, b, c = (sparse_recovery(6, 9, 20, snr=10.0, seed=seed) for seed in (3, 3, 4))
    for one, same, other in zip(a, b, c, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


def test_a_dictionary_is_kept_and_samples_do_not_depend_on_whose_it_is():
    first = sparse_recovery(6, 9, 20)
    again = sparse_recovery(n_samples=20, dictionary=first.dictionary)
    np.testing.assert_array_equal(again.codes, first.codes)
    np.testing.assert_array_equal(again.dictionary, first.dictionary)
    larger = sparse_recovery(6, 9, 40)
    np.testing.assert_array_equal(larger.dictionary, first.dictionary)


@pytest.mark.parametrize("snr", [40.0, 10.0, -3.0])
def test_noise_is_of_the_ratio_to_each_sample(snr):
    clean, noisy = (sparse_recovery(2000, 30, 8, snr=s) for s in (None, snr))
    np.testing.assert_array_equal(clean.codes, noisy.codes)
    ratio = 20 * np.log10(clean.x.std(axis=1) / (noisy.x - clean.x).std(axis=1))
    np.testing.assert_allclose(ratio, snr, atol=0.4)
    np.testing.assert_allclose(noisy.noise, (noisy.x - clean.x).std(axis=1), rtol=0.05)


def test_fixed_noise_has_one_variance():
    options = {"normalize": False, "density": 0.2, "scale": 3.0}
    clean, noisy = (
        sparse_recovery(50, 100, 4000, snr=s, noise="fixed", **options)
        for s in (None, 20.0)
    )
    assert len(set(noisy.noise)) == 1
    assert noisy.noise[0] ** 2 == pytest.approx(0.2 * 9 * 100 / 50 / 100)
    assert (noisy.x - clean.x).std() == pytest.approx(noisy.noise[0], rel=0.02)
    # Of atoms that are not normalised the ratio is that of all signals together.
    ratio = 10 * np.log10(np.mean(clean.x**2) / np.mean((noisy.x - clean.x) ** 2))
    assert ratio == pytest.approx(20, abs=0.5)


def test_atoms_may_have_the_norms_that_they_are_drawn_with():
    norms = np.linalg.norm(sparse_recovery(normalize=False).dictionary, axis=1)
    assert norms.mean() == pytest.approx(1, rel=0.01) and norms.std() > 0.01


@pytest.mark.parametrize("shape", [(30, 60), (60, 30)])
def test_a_condition_is_that_of_the_dictionary(shape):
    options = {"condition": 50.0, "n_samples": 1}
    exact = sparse_recovery(*shape, normalize=False, **options).dictionary
    values = np.linalg.svd(exact, compute_uv=False)
    np.testing.assert_allclose(values[:-1] / values[1:], 50 ** (1 / 29), rtol=1e-6)
    assert np.sum(exact**2) == pytest.approx(shape[1])
    unit = sparse_recovery(*shape, **options).dictionary
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    assert 25 < np.linalg.cond(unit) < 100


def test_supports_may_have_one_size():
    codes = sparse_recovery(10, 40, 3000, support_size=6).codes
    assert set(np.count_nonzero(codes, axis=1)) == {6}
    shares = np.mean(codes != 0, axis=0)
    np.testing.assert_allclose(shares, 6 / 40, atol=0.04)


@pytest.mark.parametrize("amplitudes", ["normal", "signs", "uniform"])
def test_amplitudes_have_the_variance_of_the_scale(amplitudes):
    options = {"density": 1.0, "amplitudes": amplitudes, "scale": 2.0}
    codes = sparse_recovery(5, 100, 500, **options).codes
    assert codes.std() == pytest.approx(2, rel=0.02)
    largest = {"normal": np.inf, "signs": 2.0, "uniform": 2 * np.sqrt(3)}[amplitudes]
    assert 2 <= np.abs(codes).max() <= largest + 1e-6
    if amplitudes == "signs":
        assert set(np.unique(codes)) == {-2.0, 2.0}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_features": 0}, "n_features must be an integer >= 1; received n_feat.*=0"),
        ({"n_atoms": 2.5}, r"received n_atoms=2\.5"),
        ({"n_samples": -1}, "received n_samples=-1"),
        ({"density": 1.5}, r"density must be at most 1; received density=1\.5"),
        ({"density": -0.1}, r"density must be .*received density=-0\.1"),
        ({"support_size": 11}, "support_size must be at most n_atoms=10; .*size=11"),
        ({"amplitudes": "cauchy"}, "amplitudes must be one of .*'signs'.*='cauchy'"),
        ({"noise": "white"}, "noise must be one of .*'fixed'.*received noise='white'"),
        ({"condition": 0.5}, r"condition must be >= 1; received condition=0\.5"),
        ({"condition": "5"}, "condition must be a finite number; .*condition='5'"),
        ({"snr": np.nan}, "snr must be a finite number; received snr=nan"),
        ({"snr": "20"}, "snr must be a finite number; received snr='20'"),
        ({"scale": 0}, "scale must be a finite number > 0; received scale=0"),
        ({"scale": np.inf}, "scale must be a finite number .*received scale=inf"),
        ({"seed": None}, "seed must be an integer >= 0; received seed=None"),
        ({"seed": 1.5}, r"seed must be an integer >= 0; received seed=1\.5"),
        ({"dictionary": [1.0, 2.0]}, r"received dictionary\.shape=\(2,\)"),
        ({"dictionary": [[np.nan]]}, "dictionary must be a finite array"),
    ],
)
def test_what_cannot_be_drawn_is_named(options, match):
    with pytest.raises(ValueError, match=match):
        sparse_recovery(**{"n_features": 5, "n_atoms": 10, "n_samples": 3, **options})
