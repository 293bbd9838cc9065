import os
from pathlib import Path

import keras
import numpy as np
import pytest
from transfers import (
    BATCH_ROWS,
    N_ATOMS,
    SHAPE,
    assert_nothing_unfinished,
    before_encode,
    dense,
    encode,
    expected_codes,
    floats,
    images,
    interrupt_after,
    save_npy,
    small_model,
)

import sc2keras
from sc2keras import io
from sc2keras.io import TransferError, progress, transfer, work


def test_by_default_the_codes_are_those_of_encode_too(saved, tmp_path):
    model, path = saved
    array = save_npy(tmp_path / "x.npy", floats())
    io.encode_file(path, array, tmp_path / "codes.npy")
    np.testing.assert_array_equal(dense(tmp_path / "codes.npy"), model.encode(floats()))


def test_the_classes_of_a_cascade_are_left_out(tmp_path):
    model = small_model(tmp_path / "model.keras", classes=3)
    array = save_npy(tmp_path / "x.npy", floats())
    output = encode(tmp_path / "model.keras", array, tmp_path / "codes.npy")
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


def test_an_output_that_is_there_is_an_error_before_any_work(
    saved, tmp_path, monkeypatch
):
    model, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    output = tmp_path / "codes.npy"
    output.write_text("precious")
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "load_model", lambda path: pytest.fail("worked"))
        with pytest.raises(TransferError, match=r"codes\.npy exists.*overwrite=True"):
            encode(path, x, output)
    assert output.read_text() == "precious"
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(path, x, output, overwrite=True)
    assert output.read_text() == "precious"
    encode(path, x, output, overwrite=True)
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


def test_an_input_is_never_its_own_output(saved, tmp_path):
    x = save_npy(tmp_path / "x.npy", floats())
    with pytest.raises(TransferError, match="is the input itself"):
        encode(saved[1], x, x, overwrite=True)
    (tmp_path / "unfinished-codes.npy").mkdir()
    x = save_npy(tmp_path / "unfinished-codes.npy" / "rows.npy", floats())
    with pytest.raises(TransferError, match="which the run writes to"):
        encode(saved[1], x, tmp_path / "codes.npy")
    assert x.exists()


@pytest.mark.parametrize("kind", ["npy", "npz", "images"])
def test_no_more_rows_are_held_than_asked_for(
    saved, tmp_path, folder, monkeypatch, kind
):
    x = folder[0]
    if kind == "npy":
        x = save_npy(tmp_path / "x.npy", images())
    elif kind == "npz":
        x = tmp_path / "x.npz"
        np.savez_compressed(x, images())
    held, apply = [], transfer.Direction.__call__

    def watched(way, rows, *args):
        codes = apply(way, rows, *args)
        held.extend([len(rows), len(codes)])
        return codes

    monkeypatch.setattr(transfer.Direction, "__call__", watched)
    calls = interrupt_after(100, monkeypatch)
    encode(saved[1], x, tmp_path / "codes.npz", batch_rows=3)
    assert max(held) == max(calls) == 3


def test_by_default_a_chunk_is_a_few_batches(saved):
    model, _ = saved
    n_rows = transfer.Direction("encoding", model).default_batch_rows(100)
    assert n_rows % 100 == 0
    assert n_rows * 4 * (16 + N_ATOMS) <= transfer.CHUNK_BYTES


def test_a_code_that_is_not_finite_is_an_error_that_names_the_row(
    saved, tmp_path, monkeypatch
):
    codes = np.zeros((BATCH_ROWS, N_ATOMS), dtype="float32")
    codes[1, 2] = np.nan
    monkeypatch.setattr(sc2keras.SparseCoder, "encode", lambda *args: codes)
    array = save_npy(tmp_path / "x.npy", floats())
    with pytest.raises(
        TransferError, match=r"encoding row 1 of the .*beyond float32.*scaled"
    ):
        encode(saved[1], array, tmp_path / "codes.npy")


def test_a_file_that_is_no_sparse_coder_is_an_error(saved, tmp_path):
    x = save_npy(tmp_path / "x.npy", floats())
    path = tmp_path / "other.keras"

    def refused(message):
        with pytest.raises(TransferError, match=message):
            encode(path, x, tmp_path / "codes.npy")

    refused(r"other\.keras is not a file")
    other = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()])
    other.save(path)
    refused("holds a Sequential. Give a SparseCoder")
    with pytest.raises(TransferError, match="the model is a Sequential"):
        encode(other, x, tmp_path / "codes.npy")
    content = saved[1].read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(r"other\.keras cannot be loaded")
    path.write_text("no model")
    refused(r"other\.keras cannot be loaded")


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("codes.csv", {}, r"codes\.csv must end in \.npy .* or \.npz"),
        ("codes.npy", {"threshold": 0.1}, r"threshold=0\.1 .*\.npz"),
        (
            "codes.npz",
            {"threshold": 0.1, "tol": 1e-4},
            r"threshold=0\.1 .* tol=0\.0001",
        ),
        ("codes.npy", {"key": "x"}, "key= does not apply"),
        ("codes.npy", {"split": "train"}, "split= does not apply"),
        ("codes.npy", {"resize": True}, "resize= does not apply"),
        ("codes.npy", {"data_dir": "."}, "data_dir= does not apply"),
    ],
)
def test_options_that_do_not_apply_are_errors(
    saved, tmp_path, output, options, message
):
    x = save_npy(tmp_path / "x.npy", floats())
    with pytest.raises(TransferError, match=message):
        encode(saved[1], x, tmp_path / output, **options)


def test_too_little_room_on_the_disk_is_an_error_before_any_work(
    saved, tmp_path, monkeypatch
):
    x = save_npy(tmp_path / "x.npy", floats())
    usage = progress.shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(progress.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(TransferError, match=r"need .* GB more .* where 0\.00 GB are"):
        encode(saved[1], x, tmp_path / "codes.npy")


def test_a_disk_that_fails_keeps_what_is_done(saved, tmp_path, monkeypatch):
    model, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    output = tmp_path / "codes.npy"
    interrupt_after(1, monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        encode(path, x, output)
    encode(path, x, output)
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_output_that_appears_meanwhile_stays_and_the_codes_are_kept(
    saved, tmp_path, monkeypatch, suffix
):
    x = save_npy(tmp_path / "x.npy", floats())
    whole = encode(saved[1], x, tmp_path / f"whole{suffix}")
    output = tmp_path / f"codes{suffix}"
    before_encode(2, monkeypatch, lambda: output.write_text("precious"))
    with pytest.raises(TransferError, match=r"exists.*kept in .*unfinished.*overwri"):
        encode(saved[1], x, output)
    assert output.read_text() == "precious"
    with pytest.raises(TransferError, match=r"exists.*kept in .*unfinished.*overwri"):
        encode(saved[1], x, output)
    assert output.read_text() == "precious"
    calls = interrupt_after(0, monkeypatch)
    encode(saved[1], x, output, overwrite=True)
    assert not calls and output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(tmp_path)


def test_an_output_of_a_run_that_ended_meanwhile_stays(saved, tmp_path, monkeypatch):
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    make = work.make_folder

    def other_run_ends(folder):
        output.write_text("of the other run")
        make(folder)

    monkeypatch.setattr(work, "make_folder", other_run_ends)
    interrupt_after(0, monkeypatch)
    with pytest.raises(TransferError, match=r"codes\.npy exists"):
        encode(saved[1], x, output)
    assert output.read_text() == "of the other run"
    assert_nothing_unfinished(tmp_path)


def test_an_output_that_is_a_link_leads_to_the_codes(saved, tmp_path):
    model, path = saved
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.npy").write_text("old")
    output.symlink_to(tmp_path / "store" / "1.npy")
    encode(path, x, output, overwrite=True)
    assert output.is_symlink()
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)]
)
def test_an_output_that_is_no_file_is_an_error_before_any_work(saved, tmp_path, make):
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    make(output)
    with pytest.raises(
        TransferError, match=r"codes\.npy is (a folder|no ordinary file)\. Name a"
    ):
        encode(saved[1], x, output, overwrite=True)
    assert_nothing_unfinished(tmp_path)


def test_an_output_that_is_protected_is_an_error_before_any_work(
    saved, tmp_path, monkeypatch
):
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    output.touch()
    # The permissions of a file do not keep root off.
    monkeypatch.setattr(transfer.os, "access", lambda path, mode: path != output)
    with pytest.raises(TransferError, match=r"codes\.npy is protected .*chmod"):
        encode(saved[1], x, output, overwrite=True)
    assert_nothing_unfinished(tmp_path)


def test_a_row_that_encode_refuses_is_told_from_the_first_on(
    saved, tmp_path, monkeypatch
):
    def refuse(*args):
        raise ValueError("The code of x[3] holds a NaN")

    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(saved[1], x, output)
    monkeypatch.setattr(sc2keras.SparseCoder, "encode", refuse)
    with pytest.raises(
        TransferError, match=r"ode of row 19 of the input holds .*scaled"
    ):
        encode(saved[1], x, output)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no such thing"), r"encoding rows 0 to 7 fails .*no such thing"),
        (MemoryError("all of it"), "all of it"),
    ],
)
def test_an_error_of_encode_is_one_line(saved, tmp_path, monkeypatch, error, message):
    x = save_npy(tmp_path / "x.npy", floats())
    interrupt_after(0, monkeypatch, error)
    with pytest.raises((TransferError, MemoryError), match=message):
        encode(saved[1], x, tmp_path / "codes.npy")
    assert_nothing_unfinished(tmp_path)


def test_a_model_that_is_replaced_while_it_is_loaded_is_an_error(
    saved, tmp_path, monkeypatch
):
    path = tmp_path / "m.keras"
    small_model(path, l1=0.7)
    load = keras.saving.load_model

    def slow_load(*args, **kwargs):
        loaded = load(*args, **kwargs)
        small_model(path, l1=0.1)
        return loaded

    monkeypatch.setattr(keras.saving, "load_model", slow_load)
    x = save_npy(tmp_path / "x.npy", floats())
    with pytest.raises(TransferError, match=r"m\.keras cannot be loaded .*replaced"):
        encode(path, x, tmp_path / "codes.npy")


def test_any_number_of_rows_may_be_asked_for(saved, tmp_path, folder):
    encode(saved[1], folder[0], tmp_path / "a.npy", batch_rows=10**30)
    assert len(dense(tmp_path / "a.npy")) == 5
