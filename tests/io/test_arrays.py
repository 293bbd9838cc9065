import numpy as np
import pytest
from scipy import sparse
from transfers import (
    N_ATOMS,
    N_SAMPLES,
    assert_nothing_unfinished,
    dense,
    encode,
    expected_codes,
    floats,
    images,
    save_npy,
    small_model,
)

from sc2keras.applications import preprocess_input
from sc2keras.io import TransferError


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda x: x, id="float32"),
        pytest.param(lambda x: x.astype("float64"), id="float64"),
        pytest.param(lambda x: x.astype(">f4"), id="big-endian"),
        pytest.param(np.asfortranarray, id="Fortran order"),
        pytest.param(lambda x: x.reshape(len(x), -1), id="flattened"),
        pytest.param(lambda x: x[..., 0], id="without channels"),
    ],
)
def test_codes_of_an_array_are_those_of_encode(saved, tmp_path, convert):
    model, path = saved
    x = floats()
    array = save_npy(tmp_path / "x.npy", convert(x))
    output = encode(path, array, tmp_path / "new" / "codes.npy")
    codes = dense(output)
    assert codes.dtype == "float32" and codes.shape == (N_SAMPLES, N_ATOMS)
    np.testing.assert_array_equal(codes, expected_codes(model, x))
    assert (codes == 0).any() and (codes != 0).any()
    assert_nothing_unfinished(tmp_path)


def test_uint8_is_scaled_to_0_1(saved, tmp_path):
    model, path = saved
    array = save_npy(tmp_path / "x.npy", images())
    output = encode(path, array, tmp_path / "codes.npy")
    expected = expected_codes(model, preprocess_input(images()))
    np.testing.assert_array_equal(dense(output), expected)


@pytest.mark.parametrize("n_samples", [0, 3, 8, 9])
def test_any_number_of_samples(saved, tmp_path, n_samples):
    model, path = saved
    x = floats(n_samples)
    array = save_npy(tmp_path / "x.npy", x)
    codes = dense(encode(path, array, tmp_path / "codes.npy"))
    np.testing.assert_array_equal(codes, expected_codes(model, x))
    found = sparse.load_npz(encode(path, array, tmp_path / "codes.npz"))
    np.testing.assert_array_equal(found.toarray(), codes)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_codes_of_an_npz(saved, tmp_path, write):
    model, path = saved
    x = floats()
    write(tmp_path / "one.npz", x)
    write(tmp_path / "two.npz", y=np.arange(3), x=x)
    one = encode(path, tmp_path / "one.npz", tmp_path / "one.npy")
    two = encode(path, tmp_path / "two.npz", tmp_path / "two.npy", key="x")
    for output in (one, two):
        np.testing.assert_array_equal(dense(output), expected_codes(model, x))


def test_a_model_of_vectors_takes_images(tmp_path):
    model = small_model(tmp_path / "model.keras", shape=(16,))
    array = save_npy(tmp_path / "x.npy", floats())
    output = encode(tmp_path / "model.keras", array, tmp_path / "codes.npy")
    expected = expected_codes(model, floats().reshape(N_SAMPLES, 16))
    np.testing.assert_array_equal(dense(output), expected)


@pytest.mark.parametrize("value", [np.nan, 1e39])
def test_a_value_that_is_not_finite_is_an_error_that_names_the_row(
    saved, tmp_path, value
):
    x = floats().astype("float64")
    x[13, 2, 1] = value
    array = save_npy(tmp_path / "x.npy", x)
    with pytest.raises(TransferError, match=r"in row 13 of the input.*nan_to_num"):
        encode(saved[1], array, tmp_path / "codes.npy")
    assert not (tmp_path / "codes.npy").exists()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (floats(shape=(5, 5)), r"rows of shape \(5, 5\).*\(4, 4, 1\)"),
        (floats(shape=(15,)), r"rows of shape \(15,\).*vectors of 16 values"),
        # As many values, but in another order.
        (floats(shape=(2, 8)), r"rows of shape \(2, 8\)"),
        (floats(1).ravel(), r"shape \(16,\).*newaxis"),
        (images().astype("int64"), "dtype int64.*uint8"),
        (floats() > 0.5, "dtype bool"),
        (np.array([{}, {}]), "cannot be read as .npy .*objects"),
    ],
)
def test_an_array_that_does_not_fit_is_an_error(saved, tmp_path, x, message):
    array = save_npy(tmp_path / "x.npy", x)
    with pytest.raises(TransferError, match=message):
        encode(saved[1], array, tmp_path / "codes.npy")
    assert_nothing_unfinished(tmp_path)


def test_an_npz_that_cannot_be_read_is_an_error(saved, tmp_path):
    path = tmp_path / "x.npz"
    output = tmp_path / "codes.npy"

    def refused(message, **options):
        with pytest.raises(TransferError, match=message):
            encode(saved[1], path, output, **options)

    np.savez(path, a=floats(), b=floats())
    refused("holds 2 arrays.*key=NAME: a, b")
    refused("and none named 'c'.*key=NAME: a, b", key="c")
    np.savez(path, np.asfortranarray(floats(shape=(4, 4))))
    refused("Fortran order.*ascontiguousarray")
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    refused("cannot be read as .npz.*numpy.savez")
    path.write_bytes(whole)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\1\2")] ^= 255
    path.write_bytes(content)
    refused("cannot be read as .npz.*central directory")
    path.write_text("")
    refused("cannot be read as .npz")


def test_a_damaged_array_in_an_npz_is_an_error(saved, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, images(900))
    content = bytearray(path.read_bytes())
    content[-1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(TransferError, match=r"cannot be read from row 600 on .*CRC"):
        encode(saved[1], path, tmp_path / "codes.npy", batch_rows=300)


def test_a_truncated_npy_is_an_error(saved, tmp_path):
    path = save_npy(tmp_path / "x.npy", floats())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TransferError, match=r"x\.npy cannot be read as \.npy"):
        encode(saved[1], path, tmp_path / "codes.npy")
