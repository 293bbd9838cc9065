import os
import time

import pytest

from sc2keras.files import put_file, whole_export, whole_file


def replace_file(path, write, **options):
    with whole_file(path, **options) as temporary:
        write(temporary)


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


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_finished_file_moves_to_its_place(tmp_path, overwrite):
    (tmp_path / "finished").write_text("new")
    put_file(tmp_path / "finished", tmp_path / "a.txt", overwrite)
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_finished_file_stays_where_it_would_replace_another(tmp_path):
    for name, mode in (("finished", 0o600), ("a.txt", 0o444)):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(mode)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        put_file(tmp_path / "finished", tmp_path / "a.txt", overwrite=False)
    for name, mode in (("finished", 0o600), ("a.txt", 0o444)):
        assert (tmp_path / name).read_text() == name
        assert (tmp_path / name).stat().st_mode & 0o777 == mode


def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.txt").write_text("old")
    (tmp_path / "store" / "a.txt").chmod(0o640)
    (tmp_path / "a.txt").symlink_to(tmp_path / "store" / "a.txt")
    replace_file(tmp_path / "a.txt", lambda path: path.write_text("new"))
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "store" / "a.txt").read_text() == "new"
    assert (tmp_path / "store" / "a.txt").stat().st_mode & 0o777 == 0o640


def test_what_a_kill_left_is_removed_after_an_hour_and_nothing_else(tmp_path):
    token = "0123456789abcdef"
    names = [f"unfinished-{token}-{name}" for name in ("a.txt", "b.txt")]
    names += ["unfinished-essay-a.txt", f"unfinished-{token[::-1]}-a.txt"]
    for name in names:
        (tmp_path / name).write_text("half")
    for name in names[:3]:
        os.utime(tmp_path / name, (time.time() - 4000,) * 2)
    replace_file(tmp_path / "a.txt", lambda path: path.write_text("new"))
    assert sorted(os.listdir(tmp_path)) == sorted(["a.txt", *names[1:]])


def test_what_cannot_be_replaced_is_refused_before_the_work(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    os.mkfifo(tmp_path / "pipe")
    for name, error in [
        ("missing/a.txt", FileNotFoundError),
        ("file/a.txt", NotADirectoryError),
        ("folder", IsADirectoryError),
        ("pipe", OSError),
    ]:
        with pytest.raises(error, match=name.split("/")[0]):
            replace_file(tmp_path / name, pytest.fail)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "pipe"]


def test_a_file_that_is_protected_against_writing_stays(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old")
    # To the superuser every file is writable.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError, match=r"a\.txt"):
        replace_file(tmp_path / "a.txt", pytest.fail)


@pytest.mark.parametrize("write", [whole_file, whole_export])
@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_no_file_can_be_called_is_named(tmp_path, write, name):
    with pytest.raises(OSError, match=r"is no path: .*Name another"), write(name):
        pass


def test_a_name_of_any_length_that_a_file_may_have(tmp_path):
    name = "ä" * 120 + ".keras"
    replace_file(tmp_path / name, lambda path: path.write_text("new"))
    assert os.listdir(tmp_path) == [name]


def write_export(path, names=("graph", "values")):
    path.mkdir()
    for name in names:
        (path / name).write_text(f"new {name}")


def test_a_folder_takes_the_place_of_an_earlier_one(tmp_path):
    for _ in range(2):
        with whole_export(tmp_path / "model") as path:
            write_export(path)
        assert os.listdir(tmp_path) == ["model"]
        assert (tmp_path / "model" / "graph").read_text() == "new graph"
        (tmp_path / "model" / "graph").write_text("old graph")


def test_an_empty_folder_is_replaced(tmp_path):
    (tmp_path / "model").mkdir()
    with whole_export(tmp_path / "model") as path:
        write_export(path)
    assert sorted(os.listdir(tmp_path / "model")) == ["graph", "values"]


@pytest.mark.parametrize("moment", ["write", "rename"])
def test_an_error_leaves_the_old_folder(tmp_path, monkeypatch, moment):
    with whole_export(tmp_path / "model") as path:
        write_export(path)
    (tmp_path / "model" / "graph").write_text("old graph")
    rename = os.rename

    def broken(source, target):
        if os.path.basename(os.path.dirname(source)).startswith("unfinished-"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(OSError, match="no"), whole_export(tmp_path / "model") as path:
        write_export(path)
        if moment == "write":
            raise OSError("no")
    assert os.listdir(tmp_path) == ["model"]
    assert (tmp_path / "model" / "graph").read_text() == "old graph"


def test_an_export_does_not_replace_what_is_none(tmp_path, monkeypatch):
    write_export(tmp_path / "model", ["graph", "thesis"])
    (tmp_path / "file").write_text("old")
    write_export(tmp_path / "deep")
    write_export(tmp_path / "deep" / "parts", ["mine"])
    refused = [("model", "thesis"), ("file", "is a file"), ("deep", "'parts/mine'")]
    for name, what in refused:
        with (
            pytest.raises(FileExistsError, match=what),
            whole_export(tmp_path / name) as path,
        ):
            write_export(path)
            (path / "parts").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    with pytest.raises(OSError, match="in use"), whole_export(".") as path:
        pytest.fail("Unreachable.")
    assert sorted(os.listdir(tmp_path)) == ["deep", "file", "model"]
    assert (tmp_path / "model" / "thesis").exists()


def test_files_that_belong_together_appear_but_replace_nothing(tmp_path):
    def write(path):
        path.write_text("graph")
        path.with_suffix(".bin").write_text("values")

    with whole_export(tmp_path / "model.xml") as path:
        write(path)
    assert sorted(os.listdir(tmp_path)) == ["model.bin", "model.xml"]
    with (
        pytest.raises(FileExistsError, match="at once"),
        whole_export(tmp_path / "model.xml") as path,
    ):
        write(path)
    assert sorted(os.listdir(tmp_path)) == ["model.bin", "model.xml"]
