"""Unfinished work: what of it is whole, and how a later run goes on with it."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from sc2keras.io.errors import OutputError, UnfinishedError, one_line, tell
from sc2keras.io.stores import Store
from sc2keras.io.work import opened, write_new


class Done(NamedTuple):
    """The rows that are done, and the bytes of them in each file."""

    n_rows: int
    sizes: dict[str, int]


class Unfinished:
    """Rows that a store holds in a folder, and the record of those that are whole.

    `progress.json` tells how much of them is on the disk; what a kill left beyond that
    is cut off when the next run goes on.

    Args:
        store: `Store` in a folder that is locked.
        settings: Dictionary of what a run must share with the one that it goes on with.
        batch_rows: Integer, the rows of a chunk.
        listing: Function that tells the first rows from others.
    """

    def __init__(
        self,
        store: Store,
        settings: dict[str, Any],
        batch_rows: int,
        listing: Callable[[int], str | None],
    ) -> None:
        self.store, self.folder, self.settings = store, store.folder, settings
        self.batch_rows, self.listing = batch_rows, listing
        self.names = ("progress.json", "progress.part", *store.files, store.finished)
        for name in self.names:
            with contextlib.suppress(FileNotFoundError):
                opened(self.folder / name).close()
        self.done = self._found() or self._started()
        for name, size in self.done.sizes.items():
            with opened(self.folder / name, os.O_RDWR) as file:
                file.truncate(size)

    def close(self) -> None:
        if not self.n_done:
            self.discard()

    @property
    def n_done(self) -> int:
        return self.done.n_rows

    def _started(self) -> Done:
        start = self.store.start()
        for name, content in start.items():
            write_new(self.folder / name, content)
        return Done(0, {name: len(content) for name, content in start.items()})

    def _found(self) -> Done | None:
        """What an earlier run did, or None."""
        path = self.folder / "progress.json"
        try:
            with opened(path) as file:
                digest, record = json.loads(file.read(2**20))
            if digest != _digest(record):
                raise ValueError("its checksum is another")
            self._check(record)
            n_done, sizes = record["n_done"], record["sizes"]
            for name, size in sizes.items():
                held = self.folder / name
                if not held.exists() or held.stat().st_size < size:
                    tell(f"{held} is gone or was cut off: starting from the first row")
                    return None
            if sizes != self.store.sizes_at(n_done):
                raise ValueError(f"{sizes} are not those of {n_done} rows")
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, RecursionError) as error:
            raise UnfinishedError(
                f"{path} is damaged ({one_line(error)}). Delete {self.folder} to start "
                "from the first row."
            ) from error
        # More images may have come since: the last chunk was perhaps a smaller one.
        all_done = n_done == self.store.shape[0]
        return Done(n_done, sizes) if all_done else self._first(n_done)

    def _check(self, record: dict[str, Any]) -> None:
        """Raises an UnfinishedError if other settings made what is done."""
        found, n_done = record["settings"], record["n_done"]
        differences = [
            f"{name} was {found.get(name)!r} and is {self.settings.get(name)!r}"
            for name in {**self.settings, **found}
            if found.get(name) != self.settings.get(name)
        ]
        if record["listing"] != self.listing(n_done):
            differences.append(
                f"one of the first {n_done:,} images was changed, inserted or removed"
            )
        if differences:
            raise UnfinishedError(
                f"{self.folder} holds unfinished work of other settings: "
                f"{'; '.join(differences)}. Give those again, or delete that folder to "
                "start from the first row."
            )

    def _first(self, n_rows: int) -> Done:
        """The whole chunks of so many rows; a run that goes on makes the same again."""
        n_rows -= n_rows % self.batch_rows
        return Done(n_rows, self.store.sizes_at(n_rows))

    def check_disk(self) -> None:
        free = shutil.disk_usage(self.folder).free
        missing = self.store.n_bytes() - sum(self.done.sizes.values())
        if missing > free:
            raise OutputError(
                f"the rows need {missing / 1e9:.2f} GB more in {self.folder.parent}, "
                f"where {free / 1e9:.2f} GB are free. Make room, or name an output "
                "elsewhere."
            )

    def append(self, rows: NDArray) -> None:
        sizes = dict(self.done.sizes)
        for name, content in self.store.parts(rows, sizes).items():
            path = self.folder / name
            with opened(path, os.O_RDWR) as file:
                if file.seek(0, os.SEEK_END) < sizes[name]:
                    raise OSError(f"{path} was cut off by another program")
                file.seek(sizes[name])
                file.write(content.data)
            sizes[name] += content.nbytes
        # At once: Ctrl-C may come between any two lines.
        self.done = Done(self.n_done + len(rows), sizes)

    def save(self) -> None:
        """Records what is done, once it is on the disk."""
        n_done, sizes = self.done
        if not n_done:
            return
        for name in sizes:
            with opened(self.folder / name, os.O_RDWR) as file:
                os.fsync(file.fileno())
        record = {"settings": self.settings, "n_done": n_done, "sizes": sizes}
        record["listing"] = self.listing(n_done)
        part = self.folder / "progress.part"
        write_new(part, json.dumps([_digest(record), record], indent=1).encode())
        os.replace(part, self.folder / "progress.json")

    def keep(self, n_rows: int) -> None:
        """Only so many rows at most."""
        if n_rows < self.n_done:
            self.done = self._first(n_rows)
        self.save() if self.n_done else self.discard()

    def discard(self) -> None:
        self.done = Done(0, {})
        for name in self.names:
            (self.folder / name).unlink(missing_ok=True)


def _digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
