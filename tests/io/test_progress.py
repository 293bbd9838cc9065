import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from transfers import (
    BATCH_ROWS,
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

from sc2keras.io import (
    TransferError,
    TransferWarning,
    UnfinishedError,
    progress,
    work,
)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("npy", ".npz"), ("npz", ".npy"), ("images", ".npz")]
)
def test_an_interrupted_run_goes_on_and_writes_the_same_bytes(
    saved, tmp_path, folder, monkeypatch, kind, suffix
):
    _, path = saved
    if kind == "npy":
        x = save_npy(tmp_path / "x.npy", images())
    elif kind == "npz":
        x = tmp_path / "x.npz"
        np.savez_compressed(x, images())
    else:
        x = folder[0]
    rows = 2 if kind == "images" else BATCH_ROWS
    whole = encode(path, x, tmp_path / f"whole{suffix}", batch_rows=rows)
    output = tmp_path / f"codes{suffix}"
    calls = interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(path, x, output, batch_rows=rows)
    assert not output.exists()
    encode(path, x, output, batch_rows=rows)
    # Once it was interrupted, and nothing was encoded twice.
    assert len(calls) == 3 + 1
    assert output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(tmp_path)


@pytest.mark.parametrize("suffix", [".npz"])
def test_what_a_kill_leaves_half_written_is_cut_off(
    saved, tmp_path, monkeypatch, suffix
):
    _, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    whole = encode(path, x, tmp_path / f"whole{suffix}")
    output = tmp_path / f"codes{suffix}"
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(path, x, output)
    for file in (tmp_path / f"unfinished-{output.name}").iterdir():
        if file.name != "progress.json":
            file.write_bytes(file.read_bytes() + b"half a chunk")
    encode(path, x, output)
    assert output.read_bytes() == whole.read_bytes()


def test_a_run_starts_anew_where_its_files_are_gone(saved, tmp_path, monkeypatch):
    model, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    output = tmp_path / "codes.npy"
    interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(path, x, output)
    (tmp_path / "unfinished-codes.npy" / "rows.npy").unlink()
    encode(path, x, output)
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


def test_unfinished_work_of_other_settings_is_an_error(saved, tmp_path, monkeypatch):
    _, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    output = tmp_path / "codes.npy"
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(path, x, output)
    progress = tmp_path / "unfinished-codes.npy" / "progress.json"
    before = progress.read_bytes()
    assert json.loads(before)[1]["n_done"] == BATCH_ROWS

    def refused(model, x, message, **options):
        with pytest.raises(TransferError, match=message):
            encode(model, x, output, **options)
        assert progress.read_bytes() == before and not output.exists()

    refused(path, x, "batch_rows was 8 and is 4.*delete that folder", batch_rows=4)
    other = tmp_path / "other.keras"
    small_model(other, l1=0.2)
    refused(other, x, "model_sha256 was '[0-9a-f]+' and is '[0-9a-f]+'")
    refused(path, save_npy(tmp_path / "y.npy", floats()), "input_mtime_ns was")
    save_npy(x, floats() / 2)
    refused(path, x, "input_mtime_ns was")


def test_two_runs_at_a_time_are_an_error(saved, tmp_path):
    pytest.importorskip("fcntl")
    x = save_npy(tmp_path / "x.npy", floats())
    folder = tmp_path / "unfinished-codes.npy"
    folder.mkdir()
    with (
        work.locked(folder),
        pytest.raises(TransferError, match=r"another run works in .*unfinished-codes"),
    ):
        encode(saved[1], x, tmp_path / "codes.npy")


def test_a_lock_that_was_removed_while_it_was_waited_for_is_none(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    folder, flock, calls = tmp_path / "unfinished-codes.npy", fcntl.flock, []

    def slow_flock(file, operation):
        calls.append(file)
        if len(calls) == 1:  # The run that held it ends, and a third one begins.
            shutil.rmtree(folder)
        if len(calls) == 2:
            (folder / "lock").unlink()
            (folder / "lock").touch()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", slow_flock)
    with work.locked(folder):
        assert len(calls) == 3
        with pytest.raises(TransferError, match="another run"), work.locked(folder):
            pass
    assert not folder.exists()


def test_a_kill_between_the_two_names_of_the_finished_codes(
    saved, tmp_path, monkeypatch
):
    model, path = saved
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *args, **kwargs: 1 / 0)
        patch.setattr(
            progress, "write_new", lambda path, content: path.write_bytes(content)
        )
        with pytest.raises(ZeroDivisionError):
            encode(path, x, output)
    assert (tmp_path / "unfinished-codes.npy" / "rows.npy").samefile(output)
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))
    before = output.read_bytes()
    interrupt_after(0, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(path, x, output, overwrite=True)
    assert output.read_bytes() == before


def signed(text, *removed, **changed):
    """Another record, with the checksum of its own."""
    record = {**json.loads(text)[1], **changed}
    for name in removed:
        del record[name]
    return json.dumps([progress._digest(record), record])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: text[:40], id="cut off"),
        pytest.param(lambda text: "[" * 100_000, id="deep"),
        pytest.param(lambda text: "\x00\xff", id="no text"),
        pytest.param(lambda text: "null", id="null"),
        pytest.param(lambda text: '{"settings": {}, "n_done": 8}', id="earlier"),
        pytest.param(lambda text: text.replace(": 8,", ": 16,"), id="n_done"),
        pytest.param(lambda text: text.replace("rows.npy", "../x"), id="sizes"),
        pytest.param(
            lambda text: signed(text, n_done=-8, sizes={"rows.npy": 128 - 8 * 24}),
            id="fewer rows than none",
        ),
        pytest.param(lambda text: signed(text, sizes=[152]), id="no sizes"),
        pytest.param(lambda text: signed(text, "listing"), id="no listing"),
    ],
)
def test_a_damaged_progress_file_is_an_error(unfinished, tmp_path, damage):
    folder, go_on = unfinished(".npy")
    (tmp_path / "x").write_text("precious")
    progress = folder / "progress.json"
    content = progress.read_text()
    progress.write_text(damage(content), encoding="latin-1")
    assert progress.read_text(encoding="latin-1") != content
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(TransferError, match=r"damaged .*Delete .*first row\.$"):
        go_on()
    for path, content in before.items():
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("suffix", "name"),
    [(".npy", "rows.npy"), (".npz", "data"), (".npz", "indices"), (".npz", "indptr")],
)
def test_rows_that_another_program_wrote_to_are_made_again(
    saved, unfinished, tmp_path, suffix, name
):
    x = save_npy(tmp_path / "x.npy", floats())
    whole = encode(saved[1], x, tmp_path / f"whole{suffix}")
    folder, go_on = unfinished(suffix)
    content = bytearray((folder / name).read_bytes())
    # Within the rows that are done, and with as many entries.
    content[-12] ^= 1
    (folder / name).write_bytes(content)
    with pytest.warns(TransferWarning, match=r"unfinished-codes.* changed by another"):
        output = go_on()
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("suffix", "name"), [(".npy", "rows.npy"), (".npz", "data"), (".npz", "rows.npz")]
)
def test_a_file_in_the_folder_that_no_run_made_stays(saved, tmp_path, suffix, name):
    x, folder = save_npy(tmp_path / "x.npy", floats()), f"unfinished-codes{suffix}"
    (tmp_path / folder).mkdir()
    (tmp_path / folder / name).write_text("precious")
    with pytest.raises(UnfinishedError, match=f"{folder} holds {name}, which no run"):
        encode(saved[1], x, tmp_path / f"codes{suffix}")
    assert (tmp_path / folder / name).read_text() == "precious"


def test_a_run_that_was_killed_before_its_first_rows_is_no_hindrance(
    saved, tmp_path, monkeypatch
):
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    with monkeypatch.context() as patch:
        patch.setattr(progress.Unfinished, "discard", lambda self: None)
        interrupt_after(0, patch)
        with pytest.raises(KeyboardInterrupt):
            encode(saved[1], x, output)
    assert (tmp_path / "unfinished-codes.npy" / "rows.npy").exists()
    other = small_model(tmp_path / "other.keras", l1=0.2)
    encode(tmp_path / "other.keras", x, output)
    np.testing.assert_array_equal(dense(output), expected_codes(other, floats()))
    assert_nothing_unfinished(tmp_path)


def test_an_indptr_that_was_cut_short_and_filled_is_an_error(unfinished):
    folder, go_on = unfinished(".npz")
    n_bytes = (folder / "indptr").stat().st_size
    (folder / "indptr").write_bytes(bytes(n_bytes))
    with pytest.raises(TransferError, match=r"progress\.json is damaged.*indptr"):
        go_on()


@pytest.mark.parametrize(
    ("suffix", "name", "link", "with_progress"),
    [
        *((".npy", name, os.symlink, True) for name in ("rows.npy", "lock")),
        *((".npy", name, os.link, True) for name in ("progress.json", "progress.part")),
        *((".npz", name, os.symlink, True) for name in ("data", "indptr", "rows.npz")),
        *((".npy", "rows.npy", link, False) for link in (os.link, "pipe", "folder")),
    ],
)
def test_a_planted_link_is_an_error_and_its_file_stays(
    unfinished, tmp_path, suffix, name, link, with_progress
):
    folder, go_on = unfinished(suffix)
    (tmp_path / "precious").write_bytes(bytes(100_000))
    planted = folder / name
    planted.unlink(missing_ok=True)
    if not with_progress:
        (folder / "progress.json").unlink(missing_ok=True)
    if link == "pipe":
        os.mkfifo(planted)
    elif link == "folder":
        planted.mkdir()
    else:
        link(tmp_path / "precious", planted)
    with pytest.raises(TransferError, match=rf"{name} is a link.*Delete .*unfinished"):
        go_on()
    assert (tmp_path / "precious").read_bytes() == bytes(100_000)


def test_a_folder_of_unfinished_work_that_is_a_link_is_an_error(unfinished, tmp_path):
    folder, go_on = unfinished(".npy")
    folder.rename(tmp_path / "elsewhere")
    before = {p: p.read_bytes() for p in (tmp_path / "elsewhere").iterdir()}
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TransferError, match=r"unfinished-codes\.npy is a link.*Delete"):
        go_on()
    assert {p: p.read_bytes() for p in (tmp_path / "elsewhere").iterdir()} == before


@pytest.mark.parametrize("what", ["file", "dangling"])
def test_a_folder_that_cannot_be_made_is_an_error(saved, tmp_path, what):
    x, folder = (
        save_npy(tmp_path / "x.npy", floats()),
        tmp_path / "unfinished-codes.npy",
    )
    folder.touch() if what == "file" else folder.symlink_to(tmp_path / "nothing")
    with pytest.raises(TransferError, match=r"unfinished-codes\.npy cannot be made"):
        encode(saved[1], x, tmp_path / "codes.npy")
    with pytest.raises(TransferError, match=r"cannot be made .*Name an output"):
        encode(saved[1], x, tmp_path / "x.npy" / "codes.npy")
    with pytest.raises(TransferError, match=r"name too long.*Name an output"):
        encode(saved[1], x, tmp_path / ("x" * 300 + ".npy"))


def test_work_that_another_program_cuts_off_is_an_error(saved, tmp_path, monkeypatch):
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    codes = tmp_path / "unfinished-codes.npy" / "rows.npy"
    before_encode(1, monkeypatch, lambda: os.truncate(codes, 150))
    with pytest.raises(OSError, match="was cut off by another program"):
        encode(saved[1], x, output)
    encode(saved[1], x, output)
    expected = expected_codes(saved[0], floats())
    np.testing.assert_array_equal(dense(output), expected)
