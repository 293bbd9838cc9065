"""The folder of unfinished work beside an output: its files, and its lock."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sc2keras.files import real_path
from sc2keras.io.errors import InUseError, OutputError, UnfinishedError, failing_as

# A file is opened by its own name, without waiting for the other end of a pipe.
_PLAIN = sum(getattr(os, f"O_{flag}", 0) for flag in ("NOFOLLOW", "NONBLOCK", "BINARY"))


def unfinished_folder(target: str | os.PathLike[str]) -> Path:
    """The folder that holds what is done of `target`, until all of it is."""
    # Beside the file that a link leads to: a file moves there without being copied.
    path = real_path(target)
    return path.with_name("unfinished-" + path.name)


def kept_in(folder: Path, condition: str) -> str:
    """What an error says of the work that is done, if there is any."""
    kept = f" What is done is kept in {folder}: the same call goes on from there "
    return f"{kept}{condition}." if os.path.lexists(folder / "progress.json") else ""


def opened(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """A file of a run, by no link: that would lead to a file of somebody else."""
    try:
        descriptor = os.open(path, flags | _PLAIN, 0o666)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            return os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "r+b")
        os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
    raise UnfinishedError(
        f"{path} is a link, or no file at all; no run made it. Delete {path.parent} to "
        "start from the first row."
    )


def created(path: Path) -> BinaryIO:
    """A new and empty file, for reading and writing, in place of one that is there."""
    path.unlink(missing_ok=True)
    return opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


def write_new(path: Path, content: bytes) -> None:
    with created(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    remedy = "Name an output where files can be written, or delete what is there."
    with failing_as(OutputError, f"the folder {folder} cannot be made", remedy):
        folder.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        raise UnfinishedError(f"{folder} is a link; no run made it. Delete it.")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes a folder, and keeps a second run out of it, which would write there too."""
    try:
        import fcntl
    except ImportError:  # Windows.
        make_folder(folder)
        yield
        return
    path = folder / "lock"
    while True:
        make_folder(folder)
        # A run that ends takes the folder away, or the file once it is opened here.
        with contextlib.suppress(FileNotFoundError):
            file = opened(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                what = f"another run works in {folder}. Wait for it, or name another"
                raise InUseError(f"{what} output.") from error
            if os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                break
    with file:
        try:
            yield
        finally:
            # It may be gone, or another run in it once the lock is off.
            with contextlib.suppress(OSError):
                if os.listdir(folder) == ["lock"]:
                    path.unlink()
                    folder.rmdir()
