import keras
import numpy as np
import pytest
from coders import build, images
from helpers import signals, unit_atoms
from scipy.sparse import csr_array, csr_matrix

from sc2keras import SparseCoder
from sc2keras.layers import LISTABlock


@pytest.mark.parametrize("shape", [(10, 5), (9, 6), (10, 6, 1)])
def test_an_out_of_the_wrong_shape_is_named(shape):
    model, x = build(), images(10)
    with pytest.raises(ValueError, match=r"out must have shape \(.*, 6\), .*received"):
        model.encode(x, out=np.zeros(shape, "float32"))


@pytest.mark.parametrize("n_rows", [9, 11])
def test_an_out_that_an_iterable_does_not_fill_exactly_is_named(n_rows):
    model, x = build(), images(10)
    batches = [x[:9], x[9:]]
    with pytest.raises(ValueError, match=r"out must have .*a row for each sample"):
        model.encode(batches, out=np.zeros((n_rows, 6), "float32"))


@pytest.fixture(scope="module")
def model():
    x = keras.Input((4,))
    return SparseCoder(x, LISTABlock(6, n_steps=3, dictionary=unit_atoms(6, 4))(x))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64", "O", "M8[s]"])
def test_out_of_anything_but_floats_is_refused(model, dtype):
    x, out = signals(5, 4), np.zeros((5, 6), dtype)
    with pytest.raises(ValueError, match="out must be an array of floats"):
        model.encode(x, out=out)
    with pytest.raises(ValueError, match="out must be an array of floats"):
        model.decode(signals(5, 6), out=np.zeros((5, 4), dtype))
    with pytest.raises(ValueError, match="out must be an array of floats"):
        model.reconstruct(x, out=np.zeros((5, 4), dtype))


def test_out_that_cannot_be_written_to_is_refused(model):
    out = np.zeros((5, 6), "float32")
    with pytest.raises(ValueError, match="out must be writeable"):
        model.encode(signals(5, 4), out=read_only_of(out))
    with pytest.raises(ValueError, match="array of floats"):
        model.encode(signals(5, 4), out=np.ma.masked_array(out, out == 0))
    with pytest.raises(ValueError, match="array of floats"):
        model.encode(signals(5, 4), out=out.tolist())


def read_only_of(array):
    view = array.view()
    view.flags.writeable = False
    return view


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_out_of_other_floats_holds_the_codes(model, dtype):
    x = signals(5, 4)
    out = np.zeros((5, 6), dtype)
    np.testing.assert_allclose(model.encode(x, out=out), model.encode(x), rtol=2e-3)


def test_out_of_float16_that_is_too_narrow_is_named(model):
    with pytest.raises(ValueError, match="float16, which cannot hold row 0"):
        model.encode(1e7 * signals(5, 4), out=np.zeros((5, 6), "float16"))


def overlapping(n_samples=50):
    """Arrays x and out with some memory in common, and x as it was."""
    memory = np.zeros((2 * n_samples, 6), "float32")
    x = memory.ravel()[10 : 10 + 4 * n_samples].reshape(n_samples, 4)
    x[:] = signals(n_samples, 4)
    return x, memory[:n_samples]


def test_out_that_overlaps_the_input_is_refused_on_every_way(model, tmp_path):
    x, out = overlapping()
    for way in (x, {"inputs": x}, [x[:9], x[9:]], iter([x[:9], x[9:]])):
        with pytest.raises(ValueError, match="must not share memory"):
            model.encode(way, out=out, batch_size=8)
    codes = signals(50, 6)
    with pytest.raises(ValueError, match="must not share memory"):
        model.decode(codes, out=codes[:, :4])
    with pytest.raises(ValueError, match="must not share memory"):
        model.reconstruct(x, out=x)
    np.save(tmp_path / "x.npy", x)
    first, second = (np.load(tmp_path / "x.npy", mmap_mode="r+") for _ in range(2))
    with pytest.raises(ValueError, match="must not share memory"):
        model.reconstruct(first, out=second)


def test_out_beside_the_input_in_one_array_is_allowed(model):
    both = np.zeros((50, 10), "float32")
    both[:, :4] = signals(50, 4)
    model.encode(both[:, :4], out=both[:, 4:])
    np.testing.assert_allclose(both[:, 4:], model.encode(signals(50, 4)), atol=1e-6)


@pytest.mark.parametrize("tol", [None, 1e-4])
def test_sparse_codes_are_canonical_and_the_same(model, tol):
    x = signals(50, 4)
    dense = model.encode(x, tol=tol)
    streams = [x, iter([x[:20], x[20:20], x[20:]]), csr_array(x)]
    for data in streams:
        codes = model.encode(data, batch_size=16, tol=tol, sparse=True)
        assert isinstance(codes, csr_matrix) and codes.dtype == "float32"
        assert codes.has_canonical_format and codes.data.all()
        assert codes.nnz < dense.size
        np.testing.assert_allclose(codes.toarray(), dense, atol=1e-6)
    assert model.encode(x[:0], sparse=True).shape == (0, 6)
    with pytest.raises(ValueError, match=r"sparse=True .*received out of type ndarray"):
        model.encode(x, out=np.zeros((50, 6), "float32"), sparse=True)
