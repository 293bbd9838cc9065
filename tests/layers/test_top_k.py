"""TopK beside a sort in NumPy, and in encoders of every kind."""

import keras
import numpy as np
import pytest
from helpers import WITH_ACTIVATION, signals, to_numpy, unit_atoms, with_slow

from sc2keras import SparseCoder, applications, backend
from sc2keras.layers import SLSTM, LISTABlock, TopK
from sc2keras.layers.top_k import top_k_mask


def sorted_top_k(x, k):
    codes = np.zeros_like(x)
    for row, code in zip(x, codes, strict=True):
        kept = np.argsort(-np.abs(row), kind="stable")[:k]
        code[kept] = row[kept]
    return codes


@pytest.fixture(params=[False, True], ids=["sort", "halvings"])
def way(request, monkeypatch):
    """How the entry of rank k is found: where values are there, or while traced."""
    monkeypatch.setattr(backend, "is_traced", lambda x: request.param, raising=False)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("k", [1, 7, 50, 100])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e30])
def test_it_keeps_what_a_sort_keeps(k, scale):
    rng = np.random.default_rng(k)
    # Of magnitudes over six decades, so that the threshold is far below the maximum.
    x = rng.standard_normal((200, 100)) * 10.0 ** rng.uniform(-6, 0, (200, 100))
    x = (x * scale).astype("float32")
    np.testing.assert_array_equal(to_numpy(TopK(k)(x)), sorted_top_k(x, k))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_entries_of_all_magnitudes_are_told_apart(dtype):
    if dtype == "float64" and keras.backend.backend() != "tensorflow":
        pytest.skip("computes in float32")
    rng = np.random.default_rng(0)
    n_decades = 4 if dtype == "float16" else 30
    x = 10.0 ** rng.uniform(-n_decades, n_decades, (50, 20))
    x[:, 0] = x[:, 1:].max(axis=1) * 6
    x = keras.ops.cast(keras.ops.convert_to_tensor(x, dtype="float64"), dtype)
    values = np.array(to_numpy(x), "float64")
    codes = np.array(to_numpy(TopK(7, dtype=dtype)(x)), "float64")
    np.testing.assert_array_equal(codes, sorted_top_k(values, 7))


@pytest.mark.usefixtures("way")
def test_neighbours_far_below_the_largest_are_told_apart():
    above = np.nextafter(np.float32(0.1), np.float32(1.0))
    x = np.array([[1000.0, 0.1, above, 0.05]], "float32")
    np.testing.assert_array_equal(to_numpy(TopK(2)(x)), [[1000.0, 0.0, above, 0.0]])


@pytest.mark.usefixtures("way")
def test_of_equal_entries_the_first_are_kept():
    x = np.array([[2.0, 2.0, 2.0, 2.0], [0.0, 1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 5.0]])
    expected = [[2, 2, 0, 0], [0, 1, -1, 0], [0, 0, 0, 5]]
    np.testing.assert_array_equal(to_numpy(TopK(2)(x)), expected)


def test_negative_entries_count_as_zeros_if_asked_to():
    x = np.array([[-3.0, 0.5, 2.0, 1.0], [-1.0, -2.0, 0.5, -3.0]])
    found = to_numpy(TopK(2, nonnegative=True)(x))
    np.testing.assert_array_equal(found, [[0, 0, 2, 1], [0, 0, 0.5, 0]])
    assert not np.signbit(to_numpy(TopK(1)(x)))[0, 1:].any()


@pytest.mark.usefixtures("way")
def test_counts_may_differ_from_row_to_row():
    x = keras.ops.array(4 * [[3.0, 1.0, 2.0]])
    mask = to_numpy(top_k_mask(x, keras.ops.array([[1], [2], [0], [7]])))
    assert mask.sum(axis=1).tolist() == [1, 2, 0, 3]


@pytest.mark.usefixtures("way")
def test_a_value_that_is_no_number_shows():
    for value in (np.nan, np.inf, -np.inf):
        x = np.array([[1.0, value, 2.0, 3.0]], "float32")
        assert not np.isfinite(to_numpy(TopK(2)(x))).all()


def test_a_sample_that_is_not_finite_is_refused_without_negative_entries():
    inputs = keras.Input((8,))
    atoms = np.abs(unit_atoms(6, 8))
    layer = LISTABlock(6, dictionary=atoms, activation=TopK(2, nonnegative=True))
    x = signals(5, 8)
    x[3, 2] = -np.inf
    with pytest.raises(ValueError, match=r"received a NaN, an infinity.* in x\[3\]"):
        SparseCoder(inputs, layer(inputs)).encode(x)


def test_its_arguments_cannot_be_changed_once_codes_were_compiled():
    model = applications.LISTA(6, (8,), activation=TopK(2))
    for name, value in [("k", 4), ("nonnegative", True)]:
        with pytest.raises(AttributeError, match=f"{name} of TopK cannot be changed"):
            setattr(model.encoder.last_activation(), name, value)


@pytest.mark.parametrize("k", [0, 2.5, "two"])
def test_a_k_that_is_no_count_is_refused(k):
    with pytest.raises(ValueError, match="k must be an integer >= 1"):
        TopK(k)


def test_more_than_there_are_atoms_is_refused():
    with pytest.raises(ValueError, match=r"at most n_atoms=6; received k=7"):
        LISTABlock(6, activation=TopK(7)).build((None, 8))


@pytest.mark.parametrize("cls", with_slow([SLSTM], WITH_ACTIVATION))
def test_every_encoder_takes_it_by_name_and_as_an_instance(cls, tmp_path):
    x = signals(40, 8)
    by_name = cls(20, n_steps=2, activation="top_k", dictionary=unit_atoms(20, 8))
    assert (np.count_nonzero(to_numpy(by_name(x)), axis=1) == 2).all()
    inputs = keras.Input((8,))
    layer = cls(20, n_steps=2, activation=TopK(3, nonnegative=True))
    model = SparseCoder(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.01))
    assert model.encoder.solves is None
    model.fit(x, epochs=1, verbose=0)
    codes = model.encode(x)
    assert (np.count_nonzero(codes, axis=1) <= 3).all()
    assert codes.min() >= 0 < codes.max()
    # The objective is the error alone: the activation has no penalty.
    error = 0.5 * np.square(x - codes @ model.dictionary).sum(axis=1).mean()
    assert model.evaluate(x, verbose=0, return_dict=True)["loss"] == pytest.approx(
        error, rel=1e-4
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.encode(x), codes)


def test_there_is_no_duality_gap_of_codes_that_do_not_solve_the_lasso():
    model = applications.SC2Net(8, (4,), activation="top_k")
    with pytest.raises(ValueError, match=r"solve the LASSO.*solves=None"):
        model.compile(duality_gap=True)
