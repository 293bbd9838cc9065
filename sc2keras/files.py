"""Files that appear whole or not at all."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Nobody writes a file for so long: what is older, in seconds, a kill left behind.
_ABANDONED_AFTER = 86_400


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], overwrite: bool = True) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` once all is written.

    Until the block ends without an error, and the content is on the disk, `path` is
    what it was, whatever happens: an exception, a full disk, a kill. What a kill leaves
    is a file `unfinished-…` beside it, which a later write of the same file removes
    after a day. A symbolic link is followed, and the permissions of a file that is
    replaced are kept.

    Args:
        path: Path of the file. Its folder exists.
        overwrite: Boolean. If False, a file of that name is never replaced, one that
            appears while the block runs included.

    Yields:
        `pathlib.Path` in the same folder, with a name that ends as `path` does.

    Raises:
        FileExistsError: If `overwrite` is False and `path` exists.
        OSError: If the file cannot be written.

    Example:

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "figures.txt")
    >>> with whole_file(target) as path:
    ...     _ = path.write_text("1 2 3")
    >>> target.read_text()
    '1 2 3'
    """
    target = Path(os.path.realpath(path))
    if not overwrite:
        _check_absent(target)
    _remove_abandoned(target)
    mine = f"unfinished-{os.getpid()}-{threading.get_ident()}-{target.name}"
    temporary = target.with_name(mine)
    try:
        yield temporary
        _flush(temporary)
        if target.exists():
            shutil.copymode(target, temporary)
        _put(temporary, target, overwrite)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(target.parent)


def replace_file(
    path: str | os.PathLike[str],
    write: Callable[[Path], object],
    overwrite: bool = True,
) -> None:
    """`whole_file` around a function that writes to the path that it is given."""
    with whole_file(path, overwrite) as temporary:
        write(temporary)


def _check_absent(target: Path) -> None:
    if target.exists():
        raise FileExistsError(
            f"{target} exists. Name another file, or allow it to be replaced with "
            "overwrite=True."
        )


def _put(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # Unlike a rename it never replaces a file.
    except FileExistsError:
        _check_absent(target)
        raise
    except OSError:  # A file system without hard links.
        _check_absent(target)
        os.rename(temporary, target)


def _flush(path: Path) -> None:
    """Brings a file or folder to the disk, so that a rename cannot overtake it."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    for path in target.parent.glob("unfinished-*"):
        if path.name.endswith(f"-{target.name}") and path.is_file():
            with contextlib.suppress(OSError):  # Another process was faster.
                if path.stat().st_mtime < time.time() - _ABANDONED_AFTER:
                    path.unlink()
