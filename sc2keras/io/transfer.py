"""From one file to another, through a model."""

import contextlib
import dataclasses
import functools
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from sc2keras import signals
from sc2keras.applications import preprocess_input
from sc2keras.files import check_target, put_file, real_path
from sc2keras.io import errors
from sc2keras.io.errors import (
    InputChangedError,
    InputError,
    ModelError,
    OutputError,
    failing_as,
)
from sc2keras.io.models import load_model
from sc2keras.io.progress import Unfinished
from sc2keras.io.sources import Progress, Source, kind_of_input
from sc2keras.io.stores import kind_of_output
from sc2keras.io.work import kept_in, locked, unfinished_folder
from sc2keras.layers.double_tanh import is_never_zero
from sc2keras.models import SparseCoder
from sc2keras.models.proven import check_provable
from sc2keras.validation import check_positive, check_positive_integer

PathLike = str | os.PathLike[str]

# Progress that a kill may lose, in seconds.
SAVE_EVERY = 2
# What the signals and codes of a chunk take by default, in bytes of float32.
CHUNK_BYTES = 2**24
REMEDIES = {
    "encoding": "Give uint8, which is scaled by 1/255, or floats, scaled as those that "
    "the model was trained on.",
    "decoding": "Give codes as floats, those that this model made.",
}
# What is called before a signal ends the program.
UNSAVED: list[Callable[[], None]] = []


class Result(NamedTuple):
    """What a transfer wrote; `n_before` of the `n_rows` are of an earlier run."""

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
    tol: float | None = None,
    batch_rows: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Result:
    """The codes of any number of signals, from one file into another.

    Memory does not grow with their number. A call that is stopped, by a kill too, is
    taken up by the same call where it was, also if images were added at the end, or if
    all of it was moved to another folder with the dates of the files (`cp -p`).
    `target` is there only once it is whole, and only if `source` did not change.

    Args:
        model: `SparseCoder`, its path, or the name of weights such as `"SC2Net/mnist"`.
        source: Path of an array of samples, `.npy` or `.npz` (a SciPy CSR array too);
            of a folder of images, the folders in it included, in sorted order, turned
            as their EXIF says and converted to grey or colour as the model takes them;
            `"digits"`; or the name of a prepared dataset of TensorFlow Datasets, of
            which the feature `image` is read. uint8 is scaled to [0, 1], floats are
            taken as they are. Samples may be flattened.
        target: Path that ends in `.npy`, for all codes `(n_samples, n_atoms)`, float32;
            or in `.npz`, for a SciPy CSR array of those that are not zero.
        threshold: Float, the magnitude up to which entries are left out of a CSR array.
        tol: Float, the largest relative duality gap, as in `SparseCoder.encode`; not
            together with `threshold`.
        batch_rows: Integer, the samples that are held at a time; None: 16 MB of them.
        overwrite: Boolean, whether a file at `target` is replaced.
        progress: Function that is called with what is done (`"encoding"`), how many of
            that are done, and how many there are or None.
        **options: `key`, the array of an `.npz` that holds several; `split` (`"test"`)
            and `data_dir` of a dataset; `resize`, whether images are made to fit.

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
    asked = batch_rows, overwrite, progress, options, threshold, tol
    return Transfer("encoding", model, os.fspath(source), Path(target), *asked).run()


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

    It can be stopped, and goes on, as `encode_file` does, with the same errors.

    Args:
        source: Path of codes, `.npy` or `.npz`, as `encode_file` writes them.
        target: Path that ends in `.npy`, for float32 in the shape of the model's input.
        model, batch_rows, overwrite, progress, **options: As in `encode_file`.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> codes = encode_file("SC2Net/digits", "digits", folder + "/codes.npz").path
    >>> decode_file("SC2Net/digits", codes, folder + "/images.npy").description
    'float32 of shape (360, 8, 8, 1)'
    """
    asked = batch_rows, overwrite, progress, options
    return Transfer("decoding", model, os.fspath(source), Path(target), *asked).run()


class Direction:
    """What a model makes of rows, of signals or of codes."""

    def __init__(self, task: str, model: SparseCoder, tol: float | None = None) -> None:
        self.task, self.remedy = task, REMEDIES[task]
        self.takes, self.gives = model.input_shape[1:], (model.encoder.n_atoms,)
        self.apply: Callable[[NDArray, int], NDArray] = model.encode
        if tol is not None:
            self.apply = functools.partial(self._proven, model, tol)
        if task == "decoding":
            self.takes, self.gives = self.gives, self.takes
            self.apply = model.decode

    def _proven(
        self, model: SparseCoder, tol: float, rows: NDArray, batch_size: int
    ) -> NDArray:
        # What is proven is what the file holds.
        out = np.empty((len(rows), *self.gives), dtype="float32")
        return model.encode(rows, batch_size, out=out, tol=tol)

    def default_batch_rows(self, batch_size: int) -> int:
        """As many batches as `CHUNK_BYTES` hold, one at least."""
        n_values = math.prod(self.takes) + math.prod(self.gives)
        return batch_size * max(1, CHUNK_BYTES // (4 * n_values * batch_size))

    def check(self, name: str, source: Source) -> None:
        """Only whole rows, flattened rows and missing axes of size 1 are reshaped."""
        is_pixels = self.task == "encoding" and source.dtype == np.uint8
        if not is_pixels and source.dtype.kind != "f":
            dtype = f"the input {name} has dtype {source.dtype}"
            raise InputError(f"{dtype}. {self.remedy}")
        same_size = math.prod(source.shape) == math.prod(self.takes)
        one_is_flat = min(len(source.shape), len(self.takes)) == 1
        long_axes = [[n for n in s if n != 1] for s in (source.shape, self.takes)]
        if not (same_size and one_is_flat) and long_axes[0] != long_axes[1]:
            raise InputError(
                f"the input {name} has rows of shape {source.shape}, but the model "
                f"takes {self.takes} or vectors of {math.prod(self.takes)} values here."
                " Reshape them, or give the model that was trained on such samples."
            )

    def __call__(self, rows: NDArray, start: int, batch_size: int, n: int) -> NDArray:
        n_held = len(rows)
        if rows.dtype == np.uint8:
            rows = preprocess_input(rows)
        rows = rows.reshape(n_held, *self.takes)
        if n_held < batch_size <= n:
            # So few would be encoded without XLA, whose last bits are others.
            rows = np.concatenate([rows, rows[-1:].repeat(batch_size - n_held, axis=0)])
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # It is found below.
                made = self.apply(rows, batch_size)[:n_held]
                made = made.astype("float32", copy=False)
        except ValueError as error:
            named = re.sub(
                r"\b(?:x|codes)\[(\d+)\]",
                lambda found: f"row {start + int(found[1])} of the input",
                errors.one_line(error),
            )
            raise InputError(
                f"{self.task} rows {start} to {start + n_held - 1} fails ({named}). "
                f"{self.remedy}"
            ) from error
        row = signals.first_not_finite(made)
        if row is not None:
            raise InputError(
                f"{self.task} row {start + row} of the input gives what is beyond "
                f"float32. {self.remedy}"
            )
        return made


@dataclasses.dataclass
class Transfer:
    """A call of `encode_file` or `decode_file`: `open` reads, `write` does the rest."""

    task: str
    model: SparseCoder | PathLike
    name: str
    target: Path
    batch_rows: int | None
    overwrite: bool
    progress: Progress | None
    options: dict[str, Any]
    threshold: float | None = None
    tol: float | None = None
    # Whether `overwrite` is of unfinished work as well as of what is at the target.
    replaces_work: ClassVar[bool] = False

    def run(self) -> Result:
        self.check()
        self.check_target()
        self.open()
        return self.write()

    def check(self) -> None:
        """What can be told before a model is loaded, or an error."""
        self.folder = unfinished_folder(self.target)
        self.report = self.progress or (lambda task, n_done, n_rows: None)
        self.given = {key: v for key, v in self.options.items() if v is not None}
        with failing_as(OutputError, "a number is out of range", "Give another one."):
            for name in ("threshold", "tol"):
                if getattr(self, name) is not None:
                    check_positive(name, getattr(self, name))
            if self.batch_rows is not None:
                check_positive_integer("batch_rows", self.batch_rows)
        if self.threshold is not None and self.tol is not None:
            raise OutputError(
                f"threshold={self.threshold:g} leaves out entries that the gap of "
                f"tol={self.tol:g} was proven with. Give one of the two."
            )
        of_codes = self.task == "decoding"
        self.kind = kind_of_input(self.name, self.given, of_codes)
        self.kind_of_store = kind_of_output(self.target, self.threshold, not of_codes)

    def open(self) -> None:
        """The model, the source and the store, and what tells them from others."""
        model, sha256 = load_model(self.model)
        if self.tol is not None:
            with failing_as(ModelError, "tol does not apply", "Leave it out."):
                check_provable(model.encoder, self.tol)
        self.way = Direction(self.task, model, self.tol)
        self.source = self.kind(self.name, self.way.takes, self.report, **self.given)
        self.way.check(self.name, self.source)
        usual = model.batch_size_of_encode()
        batch_rows = self.batch_rows or self.way.default_batch_rows(usual)
        self.rows_held = min(batch_rows, sys.maxsize)
        self.batch_size = min(usual, self.rows_held)
        # What the rows are of; how they are made may differ in their last bits.
        self.identity = {
            "task": self.task,
            "model_sha256": sha256,
            **self.source.fingerprint,
            "threshold": self.threshold,
            **({} if self.tol is None else {"tol": self.tol}),
        }
        if self.source.known_by_content:
            del self.identity["input"]  # Files may be moved.
        shape = (self.source.n_rows, *self.way.gives)
        self.store = self.kind_of_store(self.folder, shape, self.threshold)
        self.store.is_never_zero = is_never_zero(model.encoder)

    def write(self) -> Result:
        """All rows, or those that an earlier run left, into the target."""
        with locked(self.folder):
            self.check_target()  # Again: another run may have come to its end.
            second_name = self.folder / self.store.finished
            with contextlib.suppress(FileNotFoundError):
                if os.path.samefile(second_name, self.target):
                    second_name.unlink()  # A kill left it.
            work = self.unfinished(self.replaces_work and self.overwrite)
            try:
                work.check_disk()
                n_before = work.n_done
                self._fill(work)
                finished = self.store.finish(work.sizes)
                self.source.check()
                self.put(finished)
                description = self.store.description(work.sizes)
                work.discard()
            except InputChangedError as change:
                raise self._after(change, work) from change
            except FileExistsError as error:
                raise self._refusal(error) from error
            finally:
                if not work.n_done:
                    work.discard()
        return Result(self.target, self.source.n_rows, n_before, description)

    def unfinished(self, anew: bool = False) -> Unfinished:
        """What is done of it, in a folder that is locked; `anew` as in `Unfinished`."""
        settings = {
            **self.identity,
            "batch_rows": self.rows_held,
            "batch_size": self.batch_size,
            "backend": keras.backend.backend(),
        }
        listing = self.source.listing
        return Unfinished(self.store, settings, self.rows_held, listing, anew)

    def put(self, finished: Path) -> None:
        put_file(finished, self.target, self.overwrite)

    def check_target(self) -> None:
        if real_path(self.name).is_relative_to(self.folder):
            what = f"the input {self.name} is in {self.folder}, which the run writes to"
            raise InputError(f"{what}. Name another output.")
        try:
            with contextlib.suppress(OSError):
                if os.path.samefile(self.name, self.target):
                    what = f"the output {self.target} is the input itself"
                    raise OutputError(f"{what}. Name another.")
            if os.path.lexists(os.path.realpath(self.target)):
                check_target(self.target, self.overwrite)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> OutputError:
        kept = kept_in(self.folder, "with overwrite=True")
        return OutputError(f"the output cannot be written: {error}{kept}")

    def _fill(self, work: Unfinished) -> None:
        n_rows, saved = self.source.n_rows, time.monotonic()
        chunks = self.source.chunks(work.n_done, work.batch_rows)
        UNSAVED.append(work.save)
        try:
            self.report(self.task, work.n_done, n_rows)
            while work.n_done < n_rows:
                rows = self._next(chunks, work.n_done)
                work.append(self.way(rows, work.n_done, self.batch_size, n_rows))
                self.report(self.task, work.n_done, n_rows)
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
