"""One of many files of signals, encoded once however often it is asked for."""

import contextlib
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from sc2keras.applications.pretrained import file_sha256
from sc2keras.files import real_path, whole_file
from sc2keras.io.errors import (
    InUseError,
    OutputError,
    TransferError,
    TransferWarning,
    failing_as,
    tell,
)
from sc2keras.io.models import load_model
from sc2keras.io.sources.arrays import file_sample
from sc2keras.io.transfer import PathLike, Transfer
from sc2keras.io.work import locked
from sc2keras.models import SparseCoder

# Between two looks at what another run is writing, in seconds.
_PATIENCE = 0.5
# The date of a source in one file, and what tells whether another date means much.
_DATE, _WHOLE = "input_mtime_ns", "input_sha256"
_REMEDY = "Name another target, or have it replaced with overwrite=True."


class ShardResult(NamedTuple):
    """The rows of a shard, the seconds that the call took, and whether it was done."""

    rows: int
    seconds: float
    was_done: bool


def encode_shard(
    model: SparseCoder | PathLike,
    source: PathLike,
    target: PathLike,
    *,
    threshold: float | None = None,
    tol: float | None = None,
    batch_rows: int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> ShardResult:
    """The codes of one file into another, once: a target that is done stays as it is.

    It is `encode_file` for work in many shards, each of which may be asked for again
    and again, by several workers, and after kills:

    - `target` appears whole, and before it a record beside it, `target` + `".json"`,
      of the model's weights, the source, and what the target holds;
    - a call finds the target done where the record is of this very model, source and
      options, and the target is what was recorded;
    - a call whose shard another one is writing waits for it (where the file system has
      locks: `flock`);
    - what was killed goes on where it was.

    A target of another model, source or option is an error, unless `overwrite`. An
    array is another source if its content is: with the same date its size and a sample
    of it are compared, with another, as of a copy or a touched file, all of it. Where
    it lies does not count. Of images the name, the size and the date of each file do.
    What is unfinished goes on only beside a source of the same date, as `mv` and
    `cp -p` leave it.

    Args:
        model: As in `encode_file`. Workers of many shards load it once, and pass the
            `SparseCoder`: to find a shard done takes the content of its weights.
        source: As in `encode_file`.
        target: Path that ends in `.npy`, for all codes `(n_samples, n_atoms)`, float32;
            or in `.npz`, for a SciPy CSR array of those that are not zero.
        threshold, tol, batch_rows, **options: As in `encode_file`.
        overwrite: Boolean, whether a target of another model, source or option is
            replaced, unfinished or not. One that is done is not encoded again.

    Returns:
        A `ShardResult`, `(rows, seconds, was_done)`.

    Raises:
        TransferError: As `encode_file`; an `OutputError` if the target is of another
            model or source, or if nothing says of which.
        OSError: If a file cannot be read or written. What is done is kept.

    Example:

    >>> import tempfile
    >>> target = tempfile.mkdtemp() + "/codes.npy"
    >>> encode_shard("SC2Net/digits", "digits", target).was_done
    False
    >>> again = encode_shard("SC2Net/digits", "digits", target)
    >>> again.rows, again.was_done
    (360, True)
    """
    began = time.monotonic()
    asked = batch_rows, overwrite, None, options, threshold, tol
    shard = _Shard("encoding", model, os.fspath(source), Path(target), *asked)
    was_done = shard.settle()
    return ShardResult(shard.source.n_rows, time.monotonic() - began, was_done)


class _Shard(Transfer):
    replaces_work = True

    def settle(self) -> bool:
        """Sees to it that the target is done; whether it was."""
        self.check()
        self.record = real_path(self.target)
        self.record = self.record.with_name(self.record.name + ".json")
        if not (self.overwrite or self.record.exists()):
            self.check_target()
        # A file of a model has a sum of its own: the same weights saved again differ.
        self.model, _ = load_model(self.model)
        self.open()
        was_done, waits = self.is_done(), False
        while not was_done:
            try:
                self.write()
                return False
            except InUseError as error:
                if not waits:
                    tell(f"{error} This one waits.")
                waits = True
                time.sleep(_PATIENCE)
                was_done = self.is_done()
            except OutputError:
                was_done = self.is_done()  # Another run may just have come to its end.
                if not was_done:
                    raise
        self._tidy()
        return True

    def is_done(self) -> bool:
        """Whether the target is there and is what is asked for, or an OutputError."""
        if not self.target.exists():
            return False
        try:
            found = self._recorded()
        except OutputError:
            if self.overwrite:
                return False
            raise
        asked = self._content(self.target)
        if _DATE in asked:
            has_date = found.pop(_DATE, None) == asked.pop(_DATE)
            asked[_WHOLE] = found.get(_WHOLE) if has_date else file_sha256(self.name)
        differences = [
            f"{name} was {found.get(name)!r} and is {asked.get(name)!r}"
            for name in {**asked, **found}
            if found.get(name) != asked.get(name)
        ]
        if differences and not self.overwrite:
            what = f"the target {self.target} is not what is asked for"
            raise OutputError(f"{what}: {'; '.join(differences)}. {_REMEDY}")
        return not differences

    def _recorded(self) -> dict[str, Any]:
        what = f"what {self.target} is of cannot be read from {self.record}"
        with failing_as(OutputError, what, _REMEDY):
            return dict(json.loads(self.record.read_bytes()))

    def _content(self, target: Path) -> dict[str, Any]:
        """What the record of a target says that is what is asked for."""
        content = {**self.identity, "rows": self.source.n_rows}
        content["listing"] = self.source.listing(self.source.n_rows)
        sample = file_sample(target)
        return content | {f"target_{name}": value for name, value in sample.items()}

    def put(self, finished: Path) -> None:
        # First: a target without its record would be nobody's. One that is not there,
        # or is another than the record says, is not done.
        content = self._content(finished)
        if _DATE in content:
            content[_WHOLE] = file_sha256(self.name)
            self.source.check()
        with whole_file(self.record) as path:
            path.write_text(json.dumps(content, indent=1) + "\n")
        super().put(finished)

    def _tidy(self) -> None:
        """Deletes what a kill left between the target's appearance and its own end."""
        if not self.folder.exists():
            return
        # Work of other settings stays. The rows may be gone, to the target.
        with contextlib.suppress(TransferError, OSError), warnings.catch_warnings():
            warnings.simplefilter("ignore", TransferWarning)
            with locked(self.folder):
                self.unfinished().discard()
