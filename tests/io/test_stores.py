import numpy as np
import pytest
import transfers
from helpers import ENTRIES, with_slow
from scipy import sparse
from transfers import (
    assert_nothing_unfinished,
    dense,
    encode,
    floats,
    save_npy,
    small_model,
    told,
)

from sc2keras import applications
from sc2keras.io import stores
from sc2keras.io.progress import Unfinished


def test_an_npz_holds_the_csr_array_of_the_dense_codes(saved, tmp_path, monkeypatch):
    _, path = saved
    array = save_npy(tmp_path / "x.npy", floats())
    codes = dense(encode(path, array, tmp_path / "codes.npy"))
    output = encode(path, array, tmp_path / "codes.npz")
    found, expected = sparse.load_npz(output), sparse.csr_array(codes)
    assert isinstance(found, sparse.csr_array)
    assert found.shape == expected.shape and found.dtype == "float32"
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert 0 < found.nnz < codes.size
    sparse.save_npz(tmp_path / "expected.npz", expected, compressed=False)
    with np.load(output) as a, np.load(tmp_path / "expected.npz") as b:
        assert sorted(a.files) == sorted(b.files)
        for name in a.files:
            assert a[name].dtype == b[name].dtype, name
            np.testing.assert_array_equal(a[name], b[name])
    assert_nothing_unfinished(tmp_path)


def test_indptr_is_of_int64_where_int32_is_too_small(tmp_path, monkeypatch):
    store = stores.CSRStore(tmp_path, (2, 3))
    unfinished = Unfinished(store, {}, 1, lambda n_rows: None)
    unfinished.append(np.eye(2, 3, dtype="float32"))
    monkeypatch.setattr(stores, "n_entries", lambda sizes: 2**31)
    with np.load(store.finish(unfinished.sizes)) as found:
        assert (found["indptr"].dtype, found["indices"].dtype) == ("int64", "int32")


@pytest.mark.parametrize("activation", ["shrinkage", "double_tanh"])
def test_a_double_tanh_is_named_where_there_is_one(activation, tmp_path, recwarn):
    small_model(tmp_path / "model.keras", activation=activation, l1=1e-6)
    array = save_npy(tmp_path / "x.npy", floats())
    encode(tmp_path / "model.keras", array, tmp_path / "all.npz")
    (warning,) = told(recwarn)
    message = str(warning.message)
    assert "threshold=T leaves out those of magnitude <= T" in message
    assert ("double tanh" in message) == (activation == "double_tanh")


FEW = ["StepLFISTA", "ALISTA", "SparseAutoencoder"]
OTHERS = [entry.name for entry in ENTRIES if entry.name not in FEW]


@pytest.mark.parametrize("name", with_slow(FEW, OTHERS))
def test_codes_of_every_encoder_make_a_csr_array(name, tmp_path):
    model = applications.build(name, 6, (4, 4, 1), n_steps=2)
    array = save_npy(tmp_path / "x.npy", floats())
    codes = dense(encode(model, array, tmp_path / "codes.npy"))
    output = encode(model, array, tmp_path / "codes.npz")
    np.testing.assert_array_equal(sparse.load_npz(output).toarray(), codes)


def test_dense_codes_in_a_csr_array_are_warned_of_once(tmp_path, recwarn):
    path = tmp_path / "model.keras"
    small_model(path, activation="double_tanh")
    array = save_npy(tmp_path / "x.npy", floats())
    codes = dense(encode(path, array, tmp_path / "codes.npy"))
    assert not told(recwarn)
    encode(path, array, tmp_path / "all.npz")
    (warning,) = told(recwarn)
    assert (
        "threshold=" in str(warning.message) and warning.filename == transfers.__file__
    )
    threshold = float(np.quantile(np.abs(codes), 0.8))
    output = tmp_path / "few.npz"
    encode(path, array, output, threshold=threshold)
    assert not told(recwarn)
    expected = np.where(np.abs(codes) > threshold, codes, 0)
    np.testing.assert_array_equal(sparse.load_npz(output).toarray(), expected)
