"""Unfinished work: what of it is whole, and how a later run goes on with it."""

import contextlib
import hashlib
import json
import os
import shutil
import zlib
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

    def __init__(
        self,
        store: Store,
        settings: dict,
        batch_rows: int,
        listing: Listing,
        anew: bool = False,
    ) -> None:
        """`anew`: work of other settings, or damaged, gives way and is no error."""
        self.store, self.folder, self.settings = store, store.folder, settings
        self.batch_rows, self.listing = batch_rows, listing
        # The record is the first that is made and the last that is deleted.
        self.names = (*store.files, store.finished, "progress.part", "progress.json")
        held = []
        for name in self.names:
            with contextlib.suppress(FileNotFoundError):
                opened(self.folder / name).close()
                held.append(name)
        if "progress.json" not in held and set(held) - {"progress.part"}:
            raise UnfinishedError(
                f"{self.folder} holds {held[0]}, which no run made. Move it out of "
                "there, or name another output."
            )
        content = store.start()
        self.starts = {name: len(content[name]) for name in content}
        self.n_done = 0
        if "progress.json" in held:
            try:
                self.n_done, self.checksums = self._found()
            except UnfinishedError:
                if not anew:
                    raise
        if not self.n_done:
            self.checksums = dict.fromkeys(content, 0)
            self._record(self.starts)
            for name in content:
                write_new(self.folder / name, content[name])
        for name, size in self.sizes.items():
            with opened(self.folder / name, os.O_RDWR) as file:
                file.truncate(size)

    @property
    def sizes(self) -> Sizes:
        return self.store.sizes_at(self.n_done)

    def _found(self) -> tuple[int, dict[str, int]]:
        """The rows of an earlier run that are whole, and their checksums."""
        path = self.folder / "progress.json"
        with opened(path) as file:
            content = file.read(2**20)
        remedy = f"Delete {self.folder} to start from the first row."
        with failing_as(UnfinishedError, f"{path} is damaged", remedy):
            digest, record = json.loads(content)
            if digest != _digest(record):
                raise ValueError("its checksum is another")
            n_done, sizes = record["n_done"], record["sizes"]
            if n_done == 0:
                return 0, {}
            self._check(record)
            if n_done not in range(1, self.store.shape[0] + 1):
                raise ValueError(f"{n_done} of {self.store.shape[0]} rows are done")
            is_whole = False
            with contextlib.suppress(FileNotFoundError):
                if sizes != self.store.sizes_at(n_done):
                    raise ValueError(f"{sizes} are not those of {n_done} rows")
                is_whole = record["crc32"] == self._checksums(n_done)
            if not is_whole:
                what = f"the rows in {self.folder} are gone, or were changed"
                tell(f"{what} by another program: starting from the first one")
                return 0, {}
        # More images may have come since: the last chunk was perhaps a smaller one.
        all_done = n_done == self.store.shape[0]
        n_done -= 0 if all_done else n_done % self.batch_rows
        return n_done, self._checksums(n_done)

    def _checksums(self, n_rows: int) -> dict[str, int]:
        """Those of the first rows, as they are in each of the files."""
        found = {}
        for name, size in self.store.sizes_at(n_rows).items():
            with opened(self.folder / name) as file:
                left, found[name] = size - file.seek(self.starts[name]), 0
                while content := file.read(min(left, 2**20)):
                    left -= len(content)
                    found[name] = zlib.crc32(content, found[name])
        return found

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
        sizes, checksums = self.sizes, self.checksums
        for name, content in self.store.parts(rows, sizes).items():
            path = self.folder / name
            with opened(path, os.O_RDWR) as file:
                if file.seek(0, os.SEEK_END) < sizes[name]:
                    raise OSError(f"{path} was cut off by another program")
                file.seek(sizes[name])
                file.write(content.data)
            sizes[name] += content.nbytes
            checksums = {**checksums, name: zlib.crc32(content.data, checksums[name])}
        # No signal, which may save, comes between the two.
        self.n_done, self.checksums = self.n_done + len(rows), checksums

    def save(self) -> None:
        """Records what is done, once it is on the disk."""
        if not self.n_done:
            return
        for name in self.sizes:
            with opened(self.folder / name, os.O_RDWR) as file:
                os.fsync(file.fileno())
        self._record(self.sizes)

    def _record(self, sizes: Sizes) -> None:
        record = {"settings": self.settings, "n_done": self.n_done, "sizes": sizes}
        record |= {"crc32": self.checksums, "listing": self.listing(self.n_done)}
        part = self.folder / "progress.part"
        write_new(part, json.dumps([_digest(record), record], indent=1).encode())
        os.replace(part, self.folder / "progress.json")

    def keep(self, n_rows: int) -> None:
        if n_rows < self.n_done:
            n_done = n_rows - n_rows % self.batch_rows
            self.n_done, self.checksums = n_done, self._checksums(n_done)
        self.save()

    def discard(self) -> None:
        self.n_done = 0
        for name in self.names:
            (self.folder / name).unlink(missing_ok=True)


def _digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
