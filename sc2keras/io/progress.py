"""Unfinished work: what of it is whole, and how a later run goes on with it."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from sc2keras.io.errors import OutputError, UnfinishedError, failing_as, tell
from sc2keras.io.stores import Sizes, Store
from sc2keras.io.work import opened, write_new

Listing = Callable[[int], str | None]


class Unfinished:
    """Rows that a store holds in a locked folder, and the record of those done.

    What a kill left beyond that is cut off when the next run of these settings goes on.
    """

    def __init__(self, store: Store, settings: dict, batch_rows: int, listing: Listing):
        self.store, self.folder, self.settings = store, store.folder, settings
        self.batch_rows, self.listing = batch_rows, listing
        self.names = ("progress.json", "progress.part", *store.files, store.finished)
        for name in self.names:
            with contextlib.suppress(FileNotFoundError):
                opened(self.folder / name).close()
        self.n_done = self._found()
        if not self.n_done:
            for name, content in store.start().items():
                write_new(self.folder / name, content)
        for name, size in self.sizes.items():
            with opened(self.folder / name, os.O_RDWR) as file:
                file.truncate(size)

    @property
    def sizes(self) -> Sizes:
        return self.store.sizes_at(self.n_done)

    def _found(self) -> int:
        """The rows of an earlier run that are whole."""
        path = self.folder / "progress.json"
        try:
            with opened(path) as file:
                content = file.read(2**20)
        except FileNotFoundError:
            return 0
        remedy = f"Delete {self.folder} to start from the first row."
        with failing_as(UnfinishedError, f"{path} is damaged", remedy):
            digest, record = json.loads(content)
            if digest != _digest(record):
                raise ValueError("its checksum is another")
            self._check(record)
            n_done, sizes = record["n_done"], record["sizes"]
            if n_done not in range(1, self.store.shape[0] + 1):
                raise ValueError(f"{n_done} of {self.store.shape[0]} rows are done")
            for name, size in sizes.items():
                held = self.folder / name
                if not held.exists() or held.stat().st_size < size:
                    tell(f"{held} is gone or was cut off: starting from the first row")
                    return 0
            if sizes != self.store.sizes_at(n_done):
                raise ValueError(f"{sizes} are not those of {n_done} rows")
        # More images may have come since: the last chunk was perhaps a smaller one.
        all_done = n_done == self.store.shape[0]
        return n_done if all_done else n_done - n_done % self.batch_rows

    def _check(self, record: dict[str, Any]) -> None:
        found, asked, n_done = record["settings"], self.settings, record["n_done"]
        differences = [
            f"{name} was {found.get(name)!r} and is {asked.get(name)!r}"
            for name in {**asked, **found}
            if found.get(name) != asked.get(name)
        ]
        if record["listing"] != self.listing(n_done):
            what = f"one of the first {n_done:,} images"
            differences.append(f"{what} was changed, inserted or removed")
        if differences:
            raise UnfinishedError(
                f"{self.folder} holds unfinished work of other settings: "
                f"{'; '.join(differences)}. Give those again, or delete that folder to "
                "start from the first row."
            )

    def check_disk(self) -> None:
        free = shutil.disk_usage(self.folder).free
        missing = self.store.n_bytes() - sum(self.sizes.values())
        if missing > free:
            raise OutputError(
                f"the rows need {missing / 1e9:.2f} GB more in {self.folder.parent}, "
                f"where {free / 1e9:.2f} GB are free. Make room, or name an output "
                "elsewhere."
            )

    def append(self, rows: NDArray) -> None:
        sizes = self.sizes
        for name, content in self.store.parts(rows, sizes).items():
            path = self.folder / name
            with opened(path, os.O_RDWR) as file:
                if file.seek(0, os.SEEK_END) < sizes[name]:
                    raise OSError(f"{path} was cut off by another program")
                file.seek(sizes[name])
                file.write(content.data)
            sizes[name] += content.nbytes
        self.n_done += len(rows)

    def save(self) -> None:
        """Records what is done, once it is on the disk."""
        if not self.n_done:
            return
        for name in self.sizes:
            with opened(self.folder / name, os.O_RDWR) as file:
                os.fsync(file.fileno())
        record = {"settings": self.settings, "n_done": self.n_done, "sizes": self.sizes}
        record["listing"] = self.listing(self.n_done)
        part = self.folder / "progress.part"
        write_new(part, json.dumps([_digest(record), record], indent=1).encode())
        os.replace(part, self.folder / "progress.json")

    def keep(self, n_rows: int) -> None:
        if n_rows < self.n_done:
            self.n_done = n_rows - n_rows % self.batch_rows
        self.save()

    def discard(self) -> None:
        self.n_done = 0
        for name in self.names:
            (self.folder / name).unlink(missing_ok=True)


def _digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
