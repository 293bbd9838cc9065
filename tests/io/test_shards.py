"""A shard is encoded once: by whoever asks, as often as asked, and after kills."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy import sparse
from transfers import (
    BATCH_ROWS,
    N_SAMPLES,
    assert_nothing_unfinished,
    before_encode,
    expected_codes,
    floats,
    interrupt_after,
    save_npy,
    small_model,
    write_anew,
)

import sc2keras
from sc2keras import io
from sc2keras.io import (
    OutputError,
    TransferWarning,
    UnfinishedError,
    encode_shard,
    shards,
    transfer,
)
from sc2keras.io.sources import arrays

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shard(saved, tmp_path):
    """A model, a source, and a target that is to be."""
    return saved[0], save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"


def run(shard, **options):
    return encode_shard(*shard, batch_rows=BATCH_ROWS, **options)


def fail_to_encode(monkeypatch):
    def encode(*args, **kwargs):
        pytest.fail("encoded again")

    monkeypatch.setattr(sc2keras.SparseCoder, "encode", encode)


def test_a_shard_is_what_encode_file_writes_and_is_encoded_once(shard, monkeypatch):
    model, source, target = shard
    rows, seconds, was_done = run(shard)
    assert (rows, was_done) == (N_SAMPLES, False)
    assert seconds > 0
    expected = target.with_name("expected.npy")
    io.encode_file(model, source, expected, batch_rows=BATCH_ROWS)
    assert target.read_bytes() == expected.read_bytes()
    before = target.stat()
    fail_to_encode(monkeypatch)
    for options in ({}, {"overwrite": True}):
        assert run(shard, **options)[::2] == (N_SAMPLES, True)
    assert target.stat() == before
    assert_nothing_unfinished(target.parent)


@pytest.mark.filterwarnings("ignore:57% of the entries")
def test_a_target_may_be_sparse(shard, monkeypatch):
    model, source, target = shard
    shard = model, source, target.with_suffix(".npz")
    assert not run(shard).was_done
    codes = sparse.load_npz(shard[2]).toarray()
    np.testing.assert_array_equal(codes, expected_codes(model, floats()))
    fail_to_encode(monkeypatch)
    assert run(shard).was_done


def test_a_model_is_what_its_weights_are(shard, saved, tmp_path, monkeypatch):
    _, source, target = shard
    run(shard)
    fail_to_encode(monkeypatch)
    assert run((saved[1], source, target)).was_done
    # Saved again, a file has other bytes.
    keras.saving.load_model(saved[1]).save(tmp_path / "again.keras")
    assert run((tmp_path / "again.keras", source, target)).was_done


def test_a_folder_of_shards_may_be_moved(shard, tmp_path, monkeypatch):
    model, source, target = shard
    run(shard)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for path in (source, target, Path(f"{target}.json")):
        path.rename(folder / path.name)
    fail_to_encode(monkeypatch)
    assert run((model, folder / source.name, folder / target.name)).was_done


def test_a_copy_without_dates_is_done(shard, tmp_path, monkeypatch):
    model, source, target = shard
    run(shard)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for path in (source, target, Path(f"{target}.json")):
        shutil.copy(path, folder / path.name)
    os.utime(source, (0, 0))
    os.utime(folder / source.name, (1, 1))
    fail_to_encode(monkeypatch)
    assert run(shard).was_done
    assert run((model, folder / source.name, folder / target.name)).was_done


def test_of_another_date_all_of_a_source_counts(shard, monkeypatch):
    def no_sample(path):
        return {"bytes": os.path.getsize(path), "sample_sha256": "of none"}

    monkeypatch.setattr(arrays, "file_sample", no_sample)
    run(shard)
    save_npy(shard[1], floats()[::-1])
    with pytest.raises(OutputError, match=r"input_sha256 was.*overwrite=True"):
        run(shard)
    assert not run(shard, overwrite=True).was_done
    assert run(shard).was_done


@pytest.mark.parametrize("is_folder", [False, True])
def test_unfinished_work_goes_on_in_another_folder(
    shard, numbered, tmp_path, monkeypatch, is_folder
):
    model, source, _ = shard
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    source = (numbered[0] if is_folder else source).rename(here / source.name)
    calls = interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run((model, source, here / "codes.npy"))
    here.rename(there)
    run((model, there / source.name, there / "codes.npy"))
    n_rows = len(np.load(there / "codes.npy"))
    # One was done, and one was interrupted.
    assert len(calls) == 1 + -(-n_rows // BATCH_ROWS)
    assert_nothing_unfinished(there)


def stopped(shard, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run(shard)
    return shard[2].with_name(f"unfinished-{shard[2].name}") / "progress.json"


@pytest.mark.parametrize("damage", [False, True])
def test_unfinished_work_gives_way_to_what_may_replace_it(shard, monkeypatch, damage):
    progress = stopped(shard, monkeypatch)
    if damage:
        progress.write_text("{")
    else:
        shard, _ = other_model(shard)
    before = progress.read_bytes()
    with pytest.raises(UnfinishedError):
        run(shard)
    assert progress.read_bytes() == before
    assert not run(shard, overwrite=True).was_done
    codes = expected_codes(shard[0], floats())
    np.testing.assert_array_equal(np.load(shard[2]), codes)
    assert_nothing_unfinished(shard[2].parent)


def test_a_target_that_is_done_leaves_the_work_of_others(shard, monkeypatch):
    run(shard)
    target = shard[2]
    kept = target.with_name("kept.npy")
    target.rename(kept)
    progress = stopped((other_model(shard)[0][0], *shard[1:]), monkeypatch)
    kept.rename(target)
    before = progress.read_bytes()
    assert run(shard, overwrite=True).was_done
    assert progress.read_bytes() == before


def other_model(shard):
    model = small_model(shard[1].with_name("other.keras"), l1=0.05)
    return (model, *shard[1:]), "model_sha256 was"


def other_source(shard):
    write_anew(shard[1])
    return shard, "input_sample_sha256 was"


def changed_target(shard):
    with open(shard[2], "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x77")
    return shard, "target_sample_sha256 was"


def nobodys_target(shard):
    Path(f"{shard[2]}.json").unlink()
    return shard, r"codes\.npy exists"


def damaged_record(shard):
    Path(f"{shard[2]}.json").write_text("{")
    return shard, r"what .*codes\.npy is of cannot be read from .*codes\.npy\.json"


@pytest.mark.parametrize(
    "change",
    [
        other_model,
        other_source,
        changed_target,
        nobodys_target,
        damaged_record,
    ],
)
def test_a_target_of_something_else_stays_unless_it_may_be_replaced(shard, change):
    run(shard)
    shard, said = change(shard)
    before = shard[2].read_bytes()
    with pytest.raises(OutputError, match=rf"{said}.*overwrite=True"):
        run(shard)
    assert shard[2].read_bytes() == before
    assert not run(shard, overwrite=True).was_done
    codes = expected_codes(shard[0], np.load(shard[1]))
    np.testing.assert_array_equal(np.load(shard[2]), codes)
    assert run(shard).was_done


@pytest.mark.filterwarnings("ignore:57% of the entries")
def test_a_threshold_is_another_target(shard):
    shard = *shard[:2], shard[2].with_suffix(".npz")
    run(shard, threshold=0.01)
    assert run(shard, threshold=0.01).was_done
    with pytest.raises(OutputError, match=r"threshold was 0\.01 and is None"):
        run(shard)


def test_images_that_were_added_make_another_source(saved, numbered, tmp_path):
    folder, x = numbered
    shard = saved[0], folder, tmp_path / "codes.npy"
    assert run(shard).rows == len(x)
    assert run(shard).was_done
    (folder / "last.bmp").write_bytes((folder / "00.bmp").read_bytes())
    with pytest.raises(OutputError, match=rf"rows was {len(x)} and is {len(x) + 1}"):
        run(shard)


def test_an_interrupted_shard_goes_on_where_it_was(shard, monkeypatch):
    calls = interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(shard)
    assert not shard[2].exists()
    assert not run(shard).was_done
    assert len(calls) == 3 + 1
    assert_nothing_unfinished(shard[2].parent)


@pytest.mark.filterwarnings("error::sc2keras.io.TransferWarning")
@pytest.mark.parametrize("moment", ["record", "target", "end"])
def test_a_kill_around_the_end_leaves_what_the_next_call_completes(
    shard, monkeypatch, moment
):
    """As a kill does it, no handler runs thereafter."""

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "record":
            patch.setattr(shards, "whole_file", killed)
        elif moment == "target":
            patch.setattr(transfer, "put_file", killed)
        else:
            patch.setattr(transfer.Unfinished, "discard", killed)
        with pytest.raises(KeyboardInterrupt):
            run(shard)
    target = shard[2]
    assert target.exists() == (moment == "end")
    assert Path(f"{target}.json").exists() == (moment != "record")
    fail_to_encode(monkeypatch)  # The rows are done.
    assert run(shard).was_done == (moment == "end")
    assert_nothing_unfinished(target.parent)
    record = json.loads(Path(f"{target}.json").read_text())
    assert record["rows"] == len(np.load(target)) == N_SAMPLES


def test_a_replacement_that_is_killed_leaves_nothing_that_counts_as_done(
    shard, monkeypatch
):
    """The record is that of the new model by then, the target that of the old one."""
    run(shard)
    shard, _ = other_model(shard)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "put_file", killed)
        with pytest.raises(KeyboardInterrupt):
            run(shard, overwrite=True)
    with pytest.raises(OutputError, match="target_sample_sha256 was"):
        run(shard)
    assert not run(shard, overwrite=True).was_done
    codes = expected_codes(shard[0], floats())
    np.testing.assert_array_equal(np.load(shard[2]), codes)


def test_who_comes_second_waits_for_the_first(shard, monkeypatch):
    monkeypatch.setattr(shards, "_PATIENCE", 0.01)
    found, others = [], []

    def second():
        with pytest.warns(TransferWarning, match="another run works in .* waits"):
            found.append(run(shard))

    def begin():
        others.append(threading.Thread(target=second))
        others[0].start()
        time.sleep(0.3)  # The other one is at the lock.
        assert not found

    before_encode(1, monkeypatch, begin)
    assert not run(shard).was_done
    others[0].join(60)
    assert [each.was_done for each in found] == [True]


def test_who_finds_the_target_just_done_takes_it(shard, monkeypatch):
    """Between its look at the target and its lock another run came to its end."""
    is_done, looks = shards._Shard.is_done, []

    def look(self):
        found = is_done(self)
        looks.append(found)
        if len(looks) == 1:
            run(shard)
        return found

    monkeypatch.setattr(shards._Shard, "is_done", look)
    assert run(shard).was_done
    assert looks == [False, False, True]


RACE = """
import sys
from sc2keras import io
model, source, target, n_rows = sys.argv[1:]
print(io.encode_shard(model, source, target, batch_rows=int(n_rows)).was_done)
"""


@pytest.mark.slow
def test_of_three_processes_one_encodes(saved, tmp_path):
    source = save_npy(tmp_path / "x.npy", floats(3001))
    target = tmp_path / "codes.npy"
    command = [sys.executable, "-W", "ignore", "-c", RACE]
    command += [str(saved[1]), str(source), str(target), str(BATCH_ROWS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=300)[0].split()[-1] for process in processes]
    assert sorted(said) == ["False", "True", "True"]
    codes = saved[0].encode(floats(3001), batch_size=BATCH_ROWS)
    np.testing.assert_allclose(np.load(target), codes, atol=1e-6)
    assert_nothing_unfinished(tmp_path)
