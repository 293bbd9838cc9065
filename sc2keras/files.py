"""Files and folders that appear whole or not at all."""

import contextlib
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

PathLike = str | os.PathLike[str]
# What has not been written to for so long, in seconds, a kill left behind.
_ABANDONED_AFTER = 3600


@contextlib.contextmanager
def whole_file(path: PathLike, overwrite: bool = True) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` once all is written.

    Until then `path` is what it was, whatever happens; what a kill leaves beside it, a
    later write removes after an hour. Links are followed, and permissions kept. Without
    `overwrite`, a file that is there or appears meanwhile is a FileExistsError.
    """
    target = check_target(path, overwrite)
    _remove_abandoned(target)
    temporary = _beside(target, "unfinished")
    try:
        yield temporary
        put_file(temporary, target, overwrite)
    finally:
        temporary.unlink(missing_ok=True)


def put_file(finished: Path, path: PathLike, overwrite: bool = True) -> None:
    """Moves a file to its place on its file system, with the errors of `whole_file`."""
    target = check_target(path, overwrite)
    _flush(finished)
    if overwrite:
        if target.exists():
            shutil.copymode(target, finished)
        os.replace(finished, target)
    else:
        try:
            os.link(finished, target)  # Unlike a rename it never replaces a file.
        except OSError as error:
            check_target(target, overwrite)
            if isinstance(error, FileExistsError):
                raise
            os.rename(finished, target)  # A file system without hard links.
    finished.unlink(missing_ok=True)  # It may have both names.
    _flush_folder(target.parent)


@contextlib.contextmanager
def whole_export(path: PathLike) -> Iterator[Path]:
    """As `whole_file`, for what may be a folder, or a file with others beside it.

    All that is written to the folder of the path is put beside `path`. A folder takes
    the place of one whose entries it has all: nothing but an earlier export is lost.
    (A kill between two renames leaves it as `replaced-…`.)
    """
    target = real_path(path)
    _check_folder(target)
    if os.path.ismount(target) or Path.cwd().is_relative_to(target):
        raise OSError(f"The folder {target} is in use. Name a new folder in it.")
    _remove_abandoned(target)
    work = _beside(target, "unfinished")
    work.mkdir()
    try:
        yield work / target.name
        for entry in work.rglob("*"):
            (_flush_folder if entry.is_dir() else _flush)(entry)
        written = sorted(work.iterdir(), key=lambda entry: entry.name == target.name)
        for entry in written:
            _check_replaceable(entry, target.with_name(entry.name), len(written))
        for entry in written:
            _put_entry(entry, target.with_name(entry.name))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _flush_folder(target.parent)


def real_path(path: PathLike) -> Path:
    """`path` with its links followed, or an OSError if no file can have that name."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:
        raise OSError(
            f"{os.fspath(path)!r} is no path: {error}. Name another."
        ) from error


def check_target(path: PathLike, overwrite: bool = True) -> Path:
    """`path` with its links followed, or an OSError if no file can be written there."""
    target = real_path(path)
    _check_folder(target)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder. Name a file in it.")
    if target.exists() or target.is_symlink():  # A link to itself.
        if not target.is_file():
            raise OSError(f"{target} is no ordinary file. Name another one.")
        if not overwrite:
            raise FileExistsError(
                f"{target} exists. Name another file, or allow it to be replaced with "
                "overwrite=True."
            )
        if not os.access(target, os.W_OK):
            raise PermissionError(
                f"{target} is protected against writing. Name another file, or allow "
                "it with chmod."
            )
    return target


def _check_folder(target: Path) -> None:
    if target.parent.exists() and not target.parent.is_dir():
        raise NotADirectoryError(f"{target.parent} is a file. Name a folder.")
    if not target.parent.exists():
        raise FileNotFoundError(
            f"There is no folder {target.parent} to write {target.name} to. Make it "
            f"first, with os.makedirs({str(target.parent)!r})."
        )


def _check_replaceable(entry: Path, target: Path, n_entries: int) -> None:
    """Raises an OSError if putting `entry` there would lose something."""
    if not target.exists():
        return
    kinds = ["folder" if path.is_dir() else "file" for path in (target, entry)]
    if kinds[0] != kinds[1]:
        what = f"{target} is a {kinds[0]}, and the export a {kinds[1]}"
        raise FileExistsError(f"{what}. Name another path.")
    if n_entries > 1:
        raise FileExistsError(
            f"{target} exists, and the {n_entries} files of this export cannot be "
            "replaced at once. Name another path, or delete them first."
        )
    if entry.is_dir():
        held, new = ({p.relative_to(f) for p in f.rglob("*")} for f in (target, entry))
        for other in sorted(held - new):
            raise FileExistsError(
                f"{target} holds {str(other)!r}, which is not of an earlier export and "
                "would be lost. Name another folder."
            )


def _put_entry(entry: Path, target: Path) -> None:
    if entry.is_file():
        put_file(entry, target)
        return
    aside = _beside(target, "replaced")
    if target.exists():
        shutil.copymode(target, entry)
        os.rename(target, aside)
    try:
        os.rename(entry, target)
    except BaseException:
        if aside.exists():
            os.rename(aside, target)
        raise
    _flush_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _flush(path: Path) -> None:
    """Brings a file to the disk, so that a rename cannot overtake it."""
    # Windows flushes only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    # Neither Windows nor every file system flushes folders.
    with contextlib.suppress(OSError):
        _flush(path)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f"{what}-{secrets.token_hex(8)}-{_ending(target)}")


def _ending(target: Path) -> str:
    """The name, or its end if a prefix would make it longer than names may be."""
    return os.fsencode(target.name)[-200:].decode(errors="ignore")


def _remove_abandoned(target: Path) -> None:
    pattern = f"unfinished-{'[0-9a-f]' * 16}-{glob.escape(_ending(target))}"
    for path in target.parent.glob(pattern):
        with contextlib.suppress(OSError):  # Another process was faster.
            if path.stat().st_mtime < time.time() - _ABANDONED_AFTER:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
