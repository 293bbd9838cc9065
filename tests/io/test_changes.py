import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transfers import (
    BATCH_ROWS,
    N_SAMPLES,
    assert_codes_of_images,
    assert_nothing_unfinished,
    before_encode,
    cut_off,
    dense,
    encode,
    expected_codes,
    floats,
    images,
    interrupt_after,
    modify,
    replace,
    save_image,
    save_npy,
    write_anew,
    write_array,
)

from sc2keras.io import TransferError


@pytest.mark.parametrize(
    ("change", "suffix", "n_chunks"),
    [
        (modify, ".npy", 0),
        (replace, ".npy", 1),
        (cut_off, ".npy", 1),
        (cut_off, ".npz", 1),
        (write_anew, ".npz", 2),
    ],
)
def test_an_input_that_changes_during_the_run_leaves_nothing(
    saved, tmp_path, monkeypatch, change, suffix, n_chunks
):
    model, path = saved
    x, output = write_array(tmp_path / f"x{suffix}", floats()), tmp_path / "codes.npy"
    before_encode(n_chunks, monkeypatch, lambda: change(x))
    with pytest.raises(TransferError, match=r"x\.np. was changed .*from the first row"):
        encode(path, x, output)
    assert not output.exists()
    assert_nothing_unfinished(tmp_path)
    write_anew(x)
    encode(path, x, output)
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()[::-1]))


def test_an_input_that_was_replaced_between_two_runs_is_an_error(
    saved, tmp_path, monkeypatch
):
    x = save_npy(tmp_path / "x.npy", floats())
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(saved[1], x, tmp_path / "codes.npy")
    replace(x)
    with pytest.raises(TransferError, match=r"input_sample_sha256 was .* and is"):
        encode(saved[1], x, tmp_path / "codes.npy")


def test_an_input_that_is_away_for_a_while_keeps_what_is_done(
    saved, tmp_path, monkeypatch
):
    model, path = saved
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    away = tmp_path / "away.npy"
    before_encode(1, monkeypatch, lambda: x.rename(away))
    with pytest.raises(FileNotFoundError, match=r"No such file.*x\.npy"):
        encode(path, x, output)
    away.rename(x)
    calls = interrupt_after(9, monkeypatch)
    encode(path, x, output)
    assert len(calls) == 1
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


# The chunk that is encoded meanwhile, and the image: of that chunk, before or after.
@pytest.mark.parametrize(
    ("n_chunks", "changed", "change"),
    [(1, 3, modify), (1, 9, Path.unlink), (1, 17, modify), (0, 20, Path.unlink)],
)
def test_an_image_that_changes_during_the_run(
    saved, tmp_path, numbered, monkeypatch, n_chunks, changed, change
):
    model, path = saved
    n_kept = changed - changed % BATCH_ROWS
    folder, _ = numbered
    output, image = tmp_path / "codes.npy", folder / f"{changed:02}.bmp"
    before_encode(n_chunks, monkeypatch, lambda: change(image))
    left = f"The {n_kept} rows .* goes on" if n_kept else "starts from the first row"
    with pytest.raises(TransferError, match=rf"photos was changed .*{left}"):
        encode(path, folder, output)
    assert not output.exists()
    calls = interrupt_after(9, monkeypatch)
    encode(path, folder, output)
    paths = sorted(folder.iterdir())
    assert len(calls) == -(-(len(paths) - n_kept) // BATCH_ROWS)
    x = [np.asarray(Image.open(path).convert("L"))[..., np.newaxis] for path in paths]
    assert_codes_of_images(model, output, x)
    assert_nothing_unfinished(tmp_path)


def test_an_image_that_becomes_a_pipe_is_not_waited_for(
    saved, tmp_path, numbered, monkeypatch
):
    image = numbered[0] / "17.bmp"
    before_encode(1, monkeypatch, lambda: (image.unlink(), os.mkfifo(image)))
    opened = Image.open
    monkeypatch.setattr(
        Image, "open", lambda path: opened(path if path.is_file() else "a pipe")
    )
    with pytest.raises(TransferError, match=r"was changed .*17\.bmp"):
        encode(saved[1], numbered[0], tmp_path / "codes.npy")


@pytest.mark.parametrize(
    ("suffix", "name"), [(".npy", "zz/99.bmp"), (".npz", "99.bmp")]
)
def test_an_image_that_comes_during_the_run_is_read_by_the_next(
    saved, tmp_path, numbered, monkeypatch, suffix, name
):
    folder, x = numbered
    output = tmp_path / f"codes{suffix}"
    before_encode(2, monkeypatch, lambda: save_image(folder / name, x[0]))
    with pytest.raises(TransferError, match=r"99\.bmp.* The 21 rows before"):
        encode(saved[1], folder, output)
    encode(saved[1], folder, output)
    whole = encode(saved[1], folder, tmp_path / f"whole{suffix}")
    assert output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(tmp_path)


def replace_damaged(folder, x):
    save_image(folder / "10.bmp", x[0])


def delete_damaged(folder, x):
    (folder / "10.bmp").unlink()


def replace_damaged_and_add(folder, x):
    replace_damaged(folder, x)
    for i in range(300):  # The header of an .npy is as long as for fewer.
        save_image(folder / f"{100 + i}.bmp", x[i % N_SAMPLES])
    save_image(folder / "more" / "1.bmp", x[1])


@pytest.mark.parametrize(
    ("suffix", "mend"),
    [
        (".npy", replace_damaged),
        (".npz", delete_damaged),
        (".npy", replace_damaged_and_add),
    ],
)
def test_after_a_damaged_image_is_mended_a_run_goes_on(
    saved, tmp_path, numbered, monkeypatch, suffix, mend
):
    folder, x = numbered
    output, damaged = tmp_path / f"codes{suffix}", folder / "10.bmp"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(TransferError, match=r"10\.bmp cannot be read .*delete it"):
        encode(saved[1], folder, output)
    mend(folder, x)
    calls = interrupt_after(999, monkeypatch)
    encode(saved[1], folder, output)
    n_images = len(list(folder.rglob("*.bmp")))
    assert len(calls) == -(-(n_images - BATCH_ROWS) // BATCH_ROWS)
    whole = encode(saved[1], folder, tmp_path / f"whole{suffix}")
    assert output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(tmp_path)


def test_a_folder_that_outgrows_a_batch_is_encoded_as_a_whole(
    saved, tmp_path, numbered
):
    # Fewer images than a batch are encoded by other code, with other last bits.
    folder, x = numbered
    for i in range(5, N_SAMPLES):
        (folder / f"{i:02}.bmp").unlink()
    output = tmp_path / "codes.npy"
    with pytest.MonkeyPatch.context() as patch:
        before_encode(0, patch, lambda: save_image(folder / "05.bmp", x[5]))
        with pytest.raises(TransferError, match="The 5 rows before that are kept"):
            encode(saved[1], folder, output)
    for i in range(6, N_SAMPLES):
        save_image(folder / f"{i:02}.bmp", x[i])
    encode(saved[1], folder, output)
    whole = encode(saved[1], folder, tmp_path / "whole.npy")
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: os.utime(folder / "02.bmp"), id="touched"),
        pytest.param(lambda folder: (folder / "02.bmp").unlink(), id="removed"),
        pytest.param(
            lambda folder: (folder / "02.bmp").rename(folder / "020.bmp"), id="renamed"
        ),
        pytest.param(
            lambda folder: save_image(folder / "015.bmp", images(1)[0]), id="inserted"
        ),
        pytest.param(
            lambda folder: [p.unlink() for p in folder.glob("*[1-9].bmp")], id="few"
        ),
    ],
)
def test_a_change_of_the_images_that_are_done_is_an_error(
    saved, tmp_path, numbered, monkeypatch, change
):
    folder, _ = numbered
    output = tmp_path / "codes.npy"
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(saved[1], folder, output)
    change(folder)
    with pytest.raises(TransferError, match=r"one of the first 8 images .*delete that"):
        encode(saved[1], folder, output)
    assert not output.exists()
