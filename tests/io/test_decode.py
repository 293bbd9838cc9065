import json

import keras
import numpy as np
import pytest
from scipy import sparse
from transfers import (
    BATCH_ROWS,
    N_ATOMS,
    N_SAMPLES,
    assert_nothing_unfinished,
    encode,
    floats,
    images,
    save_npy,
    small_model,
)

from sc2keras import SparseCoder, io
from sc2keras.applications import preprocess_input
from sc2keras.io import TransferError


@pytest.fixture
def codes(saved):
    return saved[0].encode(floats(), batch_size=BATCH_ROWS)


def decode(model, x, output, *, batch_rows=BATCH_ROWS, **options):
    io.decode_file(model, x, output, batch_rows=batch_rows, **options)
    return output


def write(path, codes):
    """The same codes in every kind of file that is read."""
    kind = path.stem
    if kind == "dense":
        np.save(path, codes)
    elif kind == "csr":
        sparse.save_npz(path, sparse.csr_array(codes), compressed=True)
    elif kind == "double":
        sparse.save_npz(path, sparse.csr_array(codes.astype("float64")))
    else:
        np.savez_compressed(path, codes)
    return path


@pytest.mark.parametrize("name", ["dense.npy", "csr.npz", "double.npz", "array.npz"])
def test_decoded_codes_are_those_of_decode(saved, tmp_path, codes, name):
    model, path = saved
    output = decode(path, write(tmp_path / name, codes), tmp_path / "x.npy")
    found = np.load(output)
    assert found.dtype == "float32" and found.shape == (N_SAMPLES, 4, 4, 1)
    np.testing.assert_allclose(found, model.decode(codes), atol=1e-6)
    assert_nothing_unfinished(tmp_path)


def test_what_is_encoded_comes_back(saved, tmp_path):
    model, path = saved
    x = save_npy(tmp_path / "x.npy", images())
    for suffix in (".npy", ".npz"):
        codes = encode(path, x, tmp_path / f"codes{suffix}")
        found = np.load(decode(path, codes, tmp_path / f"decoded{suffix[2:]}.npy"))
        expected = model.reconstruct(preprocess_input(images()))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("n_rows", [0, 1, 8])
def test_any_number_of_codes(saved, tmp_path, codes, n_rows):
    x = write(tmp_path / "csr.npz", codes[:n_rows])
    found = np.load(decode(saved[1], x, tmp_path / "x.npy"))
    np.testing.assert_allclose(found, saved[0].decode(codes[:n_rows]), atol=1e-6)


@pytest.mark.parametrize("name", ["dense.npy", "csr.npz"])
def test_an_interrupted_run_goes_on(saved, tmp_path, codes, name, monkeypatch):
    x = write(tmp_path / name, codes)
    whole = decode(saved[1], x, tmp_path / "whole.npy")
    plain, calls = SparseCoder.decode, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(SparseCoder, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(saved[1], x, tmp_path / "x.npy")
    record = (tmp_path / "unfinished-x.npy" / "progress.json").read_text()
    assert json.loads(record)[1]["n_done"] == BATCH_ROWS
    # The codes of another array would go to the same folder.
    with pytest.raises(io.UnfinishedError, match="task was 'decoding' and is 'encod"):
        encode(saved[1], save_npy(tmp_path / "y.npy", floats()), tmp_path / "x.npy")
    result = io.decode_file(saved[1], x, tmp_path / "x.npy", batch_rows=BATCH_ROWS)
    assert (result.n_before, result.n_rows, len(calls)) == (BATCH_ROWS, N_SAMPLES, 4)
    assert (tmp_path / "x.npy").read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(tmp_path)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 5), "float32"), r"rows of shape \(5,\).*\(6,\)"),
        (np.zeros((3, 6), "uint8"), "dtype uint8. Give codes as floats"),
        (np.full((3, 6), np.nan, "float32"), "a NaN.* in row 0 of the input"),
        (np.zeros(6, "float32"), r"shape \(6,\)"),
    ],
)
def test_codes_that_do_not_fit_are_errors(saved, tmp_path, x, message):
    array = save_npy(tmp_path / "codes.npy", x)
    with pytest.raises(io.InputError, match=message):
        decode(saved[1], array, tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()
    assert_nothing_unfinished(tmp_path)


def test_codes_that_decode_beyond_float32_are_an_error(saved, tmp_path):
    x = np.zeros((3, N_ATOMS), "float32")
    x[1] = 3e38
    model = keras.saving.load_model(saved[1])
    model.encoder.dictionary.assign(10 * np.ones((N_ATOMS, 16)))
    with pytest.raises(
        io.InputError, match=r"row 1 of the input gives .*beyond float32"
    ):
        decode(model, save_npy(tmp_path / "codes.npy", x), tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("name", "output", "options", "message"),
    [
        ("codes.npy", "x.npz", {}, r"x\.npz must end in \.npy \(all entries\)\."),
        ("codes.npy", "x.npy", {"key": "x"}, "key= does not apply"),
        ("digits", "x.npy", {}, "the input digits is not a file"),
        (".", "x.npy", {}, "no .npy or .npz. Save samples"),
        ("codes.npy", "codes.npy", {"overwrite": True}, "is the input itself"),
    ],
)
def test_only_files_of_codes_are_decoded_and_only_to_npy(
    saved, tmp_path, codes, name, output, options, message, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    save_npy("codes.npy", codes)
    with pytest.raises(TransferError, match=message):
        decode(saved[1], name, output, **options)


def damage_format(parts):
    parts["format"] = np.array(b"csc")


def damage_indices(parts):
    parts["indices"] = parts["indices"] + N_ATOMS


def damage_indptr(parts):
    parts["indptr"] = parts["indptr"][::-1].copy()


def damage_first(parts):
    parts["indptr"] = np.array([1, *parts["indptr"][1:]])


def damage_shape(parts):
    parts["shape"] = parts["shape"] - [1, 0]


def damage_numbers(parts):
    parts["shape"] = np.array([np.nan, N_ATOMS])


def damage_dtype(parts):
    parts["indices"] = parts["indices"] + 0.5


def damage_data(parts):
    parts["data"] = parts["data"][:-1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_format, r"cannot be read as \.npz.*csc.*tocsr"),
        (damage_indices, "cannot be read from row 0 on"),
        (damage_indptr, r"cannot be read as \.npz.*its arrays are not those of"),
        (damage_first, r"cannot be read as \.npz.*its arrays are not those of"),
        (damage_shape, r"cannot be read as \.npz.*its arrays are not those of"),
        (damage_numbers, r"cannot be read as \.npz.*NaN"),
        (damage_dtype, r"cannot be read as \.npz.*its arrays are not those of"),
        (damage_data, r"cannot be read as \.npz.*its arrays are not those of"),
    ],
)
def test_a_damaged_csr_array_is_an_error(saved, tmp_path, codes, damage, message):
    path = write(tmp_path / "csr.npz", codes)
    with np.load(path) as held:
        parts = dict(held)
    damage(parts)
    np.savez(path, **parts)
    with pytest.raises(io.InputError, match=message):
        decode(saved[1], path, tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()


def test_sparse_signals_are_encoded(tmp_path):
    model = small_model(tmp_path / "model.keras", shape=(16,))
    x = np.where(floats(shape=(16,)) > 0.7, floats(shape=(16,)), 0)
    path = tmp_path / "x.npz"
    sparse.save_npz(path, sparse.csr_array(x))
    found = np.load(encode(tmp_path / "model.keras", path, tmp_path / "codes.npy"))
    np.testing.assert_array_equal(found, model.encode(x, batch_size=BATCH_ROWS))


@pytest.mark.parametrize("kind", ["coo", "csc", "bsr", "dia"])
@pytest.mark.parametrize("options", [{}, {"key": "data"}])
def test_sparse_arrays_of_another_format_are_named(tmp_path, kind, options):
    small_model(tmp_path / "model.keras", shape=(16,))
    path = tmp_path / "x.npz"
    sparse.save_npz(path, sparse.eye_array(16).asformat(kind))
    message = rf"'{kind}' format: convert it with tocsr\(\)|key= does not apply"
    with pytest.raises(io.InputError, match=message):
        encode(tmp_path / "model.keras", path, tmp_path / "codes.npy", **options)


def test_arrays_of_those_names_are_no_sparse_array(tmp_path):
    model = small_model(tmp_path / "model.keras", shape=(16,))
    path, x = tmp_path / "x.npz", floats(shape=(16,))
    np.savez(path, data=x, format=np.arange(3), shape=x)
    found = encode(tmp_path / "model.keras", path, tmp_path / "c.npy", key="data")
    np.testing.assert_array_equal(
        np.load(found), model.encode(x, batch_size=BATCH_ROWS)
    )
