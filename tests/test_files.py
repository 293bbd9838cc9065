import os
import time

import pytest

from sc2keras.files import replace_file, whole_file


def test_a_file_appears_with_its_whole_content(tmp_path):
    with whole_file(tmp_path / "a.txt") as path:
        path.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")

    def write(path):
        path.write_text("ne")
        raise error

    with pytest.raises(error):
        replace_file(tmp_path / "a.txt", write)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_file_that_was_not_written_is_an_error_and_the_old_one_stays(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "a.txt", lambda path: None)
    assert (tmp_path / "a.txt").read_text() == "old"


def test_without_overwrite_a_file_that_appears_meanwhile_stays(tmp_path):
    with (
        pytest.raises(FileExistsError, match="overwrite=True"),
        whole_file(tmp_path / "a.txt", overwrite=False) as path,
    ):
        path.write_text("new")
        (tmp_path / "a.txt").write_text("of somebody else")
    assert (tmp_path / "a.txt").read_text() == "of somebody else"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_without_overwrite_a_file_that_is_there_stops_before_the_work(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FileExistsError, match=r"a\.txt"):
        replace_file(tmp_path / "a.txt", pytest.fail, overwrite=False)


def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.txt").write_text("old")
    (tmp_path / "store" / "a.txt").chmod(0o640)
    (tmp_path / "a.txt").symlink_to(tmp_path / "store" / "a.txt")
    replace_file(tmp_path / "a.txt", lambda path: path.write_text("new"))
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "store" / "a.txt").read_text() == "new"
    assert (tmp_path / "store" / "a.txt").stat().st_mode & 0o777 == 0o640


def test_what_a_kill_left_is_removed_after_a_day(tmp_path):
    old, recent = (tmp_path / f"unfinished-{pid}-1-a.txt" for pid in (1, 2))
    for path in (old, recent):
        path.write_text("half")
    os.utime(old, (time.time() - 90_000,) * 2)
    replace_file(tmp_path / "a.txt", lambda path: path.write_text("new"))
    assert sorted(os.listdir(tmp_path)) == ["a.txt", recent.name]
