"""Files and folders that appear whole or not at all."""

import contextlib
import glob
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# What has not been written to for so long, in seconds, a kill left behind.
_ABANDONED_AFTER = 3600


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], overwrite: bool = True) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` once all is written.

    Until the block ends without an error, and the content is on the disk, `path` is
    what it was, whatever happens: an exception, a full disk, a kill. What a kill leaves
    is a file `unfinished-…` beside it, which a later write of the same file removes
    after an hour. A symbolic link is followed, and the permissions of a file that is
    replaced are kept.

    Args:
        path: Path of the file. Its folder exists.
        overwrite: Boolean. If False, a file of that name is never replaced, one that
            appears while the block runs included.

    Yields:
        `pathlib.Path` in the same folder, with a name that ends as `path` does.

    Raises:
        FileExistsError: If `overwrite` is False and `path` exists.
        OSError: If the file cannot be written: its folder does not exist, `path` is a
            folder or must not be written to, the disk is full.

    Example:

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "figures.txt")
    >>> with whole_file(target) as path:
    ...     _ = path.write_text("1 2 3")
    >>> target.read_text()
    '1 2 3'
    """
    target = check_target(path, overwrite)
    _remove_abandoned(target)
    temporary = _beside(target, "unfinished")
    try:
        yield temporary
        put_file(temporary, target, overwrite)
    finally:
        temporary.unlink(missing_ok=True)


def put_file(
    finished: Path, path: str | os.PathLike[str], overwrite: bool = True
) -> None:
    """Moves a file to its place, as `whole_file` does at the end of its block.

    `finished` lies on the file system of `path`; it stays where it is if an error is
    raised, a FileExistsError or another OSError as of `whole_file`.
    """
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


def replace_file(
    path: str | os.PathLike[str],
    write: Callable[[Path], object],
    overwrite: bool = True,
) -> None:
    """`whole_file` around a function that writes to the path that it is given."""
    with whole_file(path, overwrite) as temporary:
        write(temporary)


@contextlib.contextmanager
def whole_export(path: str | os.PathLike[str]) -> Iterator[Path]:
    """As `whole_file`, for what may be a folder, or a file with others beside it.

    A folder takes the place of a folder whose entries it has all, so that nothing is
    lost but an earlier export. (Two names change then: a kill just between the two
    leaves the earlier one as `replaced-…` beside it.)

    Args:
        path: Path of the file or folder. The folder that it is in exists.

    Yields:
        `pathlib.Path` with the name of `path`, in an empty folder beside it. All that
        is written to that folder is put beside `path`, and `path` itself last.

    Raises:
        FileExistsError: If something else than an earlier export would be replaced, or
            one of several files, which cannot change at once.
        OSError: If it cannot be written.
    """
    target = Path(os.path.realpath(path))
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


def check_target(path: str | os.PathLike[str], overwrite: bool = True) -> Path:
    """`path` with its links followed, or an OSError if no file can be written there."""
    target = Path(os.path.realpath(path))
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
    if entry.is_dir() != target.is_dir():
        kinds = ("file", "folder")
        raise FileExistsError(
            f"{target} is a {kinds[target.is_dir()]}, and the export a "
            f"{kinds[entry.is_dir()]}. Name another path."
        )
    if n_entries > 1:
        raise FileExistsError(
            f"{target} exists, and the {n_entries} files of this export cannot be "
            "replaced at once. Name another path, or delete them first."
        )
    if entry.is_file():
        check_target(target)
        return
    others = sorted(set(os.listdir(target)) - set(os.listdir(entry)))
    if others:
        raise FileExistsError(
            f"{target} holds {others[0]!r}, which is not of an earlier export and would"
            " be lost. Name another folder."
        )


def _put_entry(entry: Path, target: Path) -> None:
    replaces_folder = entry.is_dir() and target.exists()
    if target.exists():
        shutil.copymode(target, entry)
    if not replaces_folder:
        os.replace(entry, target)
        return
    aside = _beside(target, "replaced")
    os.rename(target, aside)
    try:
        os.rename(entry, target)
    except BaseException:
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
    name = target.name
    while len(os.fsencode(name)) > 200:
        name = name[1:]
    return name


def _remove_abandoned(target: Path) -> None:
    token = "[0-9a-f]" * 16
    for path in target.parent.glob(
        f"unfinished-{token}-{glob.escape(_ending(target))}"
    ):
        with contextlib.suppress(OSError):  # Another process was faster.
            if path.stat().st_mtime >= time.time() - _ABANDONED_AFTER:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
