"""From one file to another, through a model."""

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
from numpy.typing import NDArray

from sc2keras.files import check_target, put_file
from sc2keras.io.directions import Direction, decoding, encoding
from sc2keras.io.errors import InputChangedError, InputError, OutputError, failing_as
from sc2keras.io.models import load_model
from sc2keras.io.progress import Unfinished
from sc2keras.io.sources import Progress, kind_of_input
from sc2keras.io.stores import kind_of_output
from sc2keras.io.work import kept_in, locked, unfinished_folder
from sc2keras.models import SparseCoder
from sc2keras.validation import check_positive, check_positive_integer

PathLike = str | os.PathLike[str]

# Progress that a kill may lose, in seconds.
SAVE_EVERY = 2
# What is called before a signal ends the program.
UNSAVED: list[Callable[[], None]] = []


class Result(NamedTuple):
    """What a transfer wrote.

    Attributes:
        path: `pathlib.Path` of the output.
        n_rows: Integer, the rows that it holds.
        n_before: Integer, those that an earlier run had done.
        description: String, its kind, shape and size.
    """

    path: Path
    n_rows: int
    n_before: int
    description: str


def encode_file(
    model: SparseCoder | PathLike,
    source: PathLike,
    target: PathLike,
    *,
    threshold: float | None = None,
    batch_rows: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """The codes of any number of signals, from one file into another.

    The memory that it takes does not grow with their number. A call that is stopped at
    any moment, by a kill too, is taken up by the same call where it was, also if images
    were added behind those that are done. `target` is there only once it is whole, and
    only if `source` did not change meanwhile.

    Args:
        model: `SparseCoder`; path of one; or the name of weights that ship, such as
            `"SC2Net/mnist"`.
        source: Path of an array of samples, `.npy` or `.npz` (a SciPy CSR array too);
            of a folder of images, the folders in it included, in sorted order, turned
            as their EXIF says and converted to grey or colour as the model takes them;
            `"digits"`; or the name of a prepared dataset of TensorFlow Datasets, of
            which the feature `image` is read. uint8 is scaled to [0, 1], floats are
            taken as they are. Samples may be flattened.
        target: Path that ends in `.npy`, for all codes `(n_samples, n_atoms)`, float32;
            or in `.npz`, for a SciPy CSR array of those that are not zero.
        threshold: Float, the magnitude up to which entries are left out of a CSR array.
        batch_rows: Integer, the samples that are held at a time; None: as many as take
            16 MB with their codes.
        overwrite: Boolean, whether a file at `target` is replaced.
        progress: Function that is called with what is done (`"encoding"`), how many of
            that are done, and how many there are or None.
        **options: `key`, the array of an `.npz` that holds several; `split` of the
            digits or a dataset (`"test"`); `data_dir` of TensorFlow Datasets; `resize`,
            whether images are resized to the input of the model.

    Returns:
        A `Result` with `path`, `n_rows`, `n_before` and `description`.

    Raises:
        TransferError: If it cannot be done as asked: a `ModelError`, `InputError`,
            `InputChangedError`, `OutputError` or `UnfinishedError`.
        OSError: If a file cannot be read or written. What is done is kept.

    Example:

    >>> import tempfile
    >>> target = tempfile.mkdtemp() + "/codes.npy"
    >>> encode_file("SC2Net/digits", "digits", target).description
    'float32 of shape (360, 100)'
    """
    asked = batch_rows, overwrite, progress, options, threshold
    return _Transfer(encoding, model, os.fspath(source), Path(target), *asked).run()


def decode_file(
    model: SparseCoder | PathLike,
    source: PathLike,
    target: PathLike,
    *,
    batch_rows: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """x̂ = s D for any number of codes, from one file into another.

    It can be stopped, and goes on, as `encode_file` does.

    Args:
        model: As in `encode_file`.
        source: Path of codes, `.npy` or `.npz`, as `encode_file` writes them.
        target: Path that ends in `.npy`, for float32 in the shape of the model's input.
        batch_rows, overwrite, progress: As in `encode_file`.
        **options: `key`, the array of an `.npz` that holds several.

    Returns:
        A `Result`, as `encode_file`.

    Raises:
        TransferError, OSError: As in `encode_file`.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> codes = encode_file("SC2Net/digits", "digits", folder + "/codes.npz").path
    >>> decode_file("SC2Net/digits", codes, folder + "/images.npy").description
    'float32 of shape (360, 8, 8, 1)'
    """
    asked = batch_rows, overwrite, progress, options
    return _Transfer(decoding, model, os.fspath(source), Path(target), *asked).run()


@dataclasses.dataclass
class _Transfer:
    """What is asked, and the work between a source and a target."""

    direction: Callable[[SparseCoder], Direction]
    model: SparseCoder | PathLike
    name: str
    target: Path
    batch_rows: int | None
    overwrite: bool
    progress: Progress | None
    options: dict[str, Any]
    threshold: float | None = None

    def run(self) -> Result:
        self.folder = unfinished_folder(self.target)
        self.report = self.progress or (lambda task, n_done, n_rows: None)
        of_codes = self.direction is decoding
        options = {
            key: value for key, value in self.options.items() if value is not None
        }
        with failing_as(OutputError, "a number is out of range", "Give another one."):
            if self.threshold is not None:
                check_positive("threshold", self.threshold)
            if self.batch_rows is not None:
                check_positive_integer("batch_rows", self.batch_rows)
        kind = kind_of_input(self.name, options, of_codes)
        kind_of_store = kind_of_output(self.target, self.threshold, not of_codes)
        self._check_target()
        model, sha256 = load_model(self.model)
        self.way = self.direction(model)
        self.source = kind(self.name, self.way.takes, self.report, **options)
        self.way.check(self.name, self.source)
        usual = model.batch_size_of_encode()
        batch_rows = self.batch_rows or self.way.default_batch_rows(usual)
        batch_rows = min(batch_rows, sys.maxsize)
        self.batch_size = min(usual, batch_rows)
        settings = {
            "task": self.way.task,
            "model_sha256": sha256,
            **self.source.fingerprint,
            "threshold": self.threshold,
            "batch_rows": batch_rows,
            "batch_size": self.batch_size,
            "backend": keras.backend.backend(),
        }
        shape = (self.source.n_rows, *self.way.gives)
        store = kind_of_store(self.folder, shape, self.threshold)
        with locked(self.folder):
            self._check_target()  # Again: another run may have come to its end.
            second_name = self.folder / store.finished
            with contextlib.suppress(FileNotFoundError):
                if os.path.samefile(second_name, self.target):
                    second_name.unlink()  # A kill left it.
            work = Unfinished(store, settings, batch_rows, self.source.listing)
            with contextlib.closing(work):
                work.check_disk()
                n_before = work.n_done
                try:
                    self._fill(work)
                    finished = store.finish(work.done.sizes)
                    self.source.check()
                except InputChangedError as change:
                    raise self._after(change, work) from change
                try:
                    put_file(finished, self.target, self.overwrite)
                except FileExistsError as error:
                    raise self._refusal(error) from error
                description = store.description(work.done.sizes)
                work.discard()
        return Result(self.target, self.source.n_rows, n_before, description)

    def _check_target(self) -> None:
        if not os.path.lexists(os.path.realpath(self.target)):
            return
        with contextlib.suppress(OSError):
            if os.path.samefile(self.name, self.target):
                raise OutputError(
                    f"the output {self.target} is the input itself. Name another."
                )
        try:
            check_target(self.target, self.overwrite)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> OutputError:
        kept = kept_in(self.folder, "with overwrite=True")
        return OutputError(f"the output cannot be written: {error}{kept}")

    def _fill(self, work: Unfinished) -> None:
        """Does what is not yet done, a chunk at a time."""
        n_rows, saved = self.source.n_rows, time.monotonic()
        chunks = self.source.chunks(work.n_done, work.batch_rows)
        UNSAVED.append(work.save)
        try:
            self.report(self.way.task, work.n_done, n_rows)
            while work.n_done < n_rows:
                rows = self._next(chunks, work.n_done)
                work.append(self.way(rows, work.n_done, self.batch_size, n_rows))
                self.report(self.way.task, work.n_done, n_rows)
                if time.monotonic() > saved + SAVE_EVERY:
                    work.save()
                    saved = time.monotonic()
        finally:
            work.save()
            UNSAVED.remove(work.save)

    def _next(self, chunks: Iterator[NDArray], start: int) -> NDArray:
        what = f"the input {self.name} cannot be read from row {start} on"
        remedy = "Write it anew: it is damaged or was changed."
        try:
            return next(chunks)
        except Exception as error:
            self.source.check()  # A change is the cause of many errors.
            with failing_as(InputError, what, remedy):
                raise error

    def _after(self, change: InputChangedError, work: Unfinished) -> InputChangedError:
        """Drops the rows that may not be those of the input, and tells what is left."""
        work.keep(change.row)
        left = "Nothing of it is kept: the same call starts from the first row."
        if work.n_done:
            kept = f"The {work.n_done:,} rows before that are kept"
            left = f"{kept}, and the same call goes on after them."
        what = f"the input {self.name} was changed while it was read ({change})"
        return InputChangedError(f"{what}. {left}", change.row)
