"""The page of a model in a file, and of the samples in another."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras.applications import preprocess_input
from sc2keras.explorer.facts import card_of
from sc2keras.explorer.page import explorer
from sc2keras.files import check_target
from sc2keras.io.errors import InputError, OutputError, failing_as
from sc2keras.io.models import load_model
from sc2keras.io.sources import Progress, Source, kind_of_input
from sc2keras.io.transfer import Direction
from sc2keras.models import SparseCoder

# Of the samples that are read: as many as give figures of two digits, in 512 MB.
_MOST_SAMPLES = 10_000
_MOST_BYTES = 2**29

PathLike = str | os.PathLike[str]


def view_file(
    model: SparseCoder | PathLike,
    source: PathLike | None,
    target: PathLike,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Writes the page of `explorer` for a model and samples in files.

    Args:
        model: `SparseCoder`; path of one; or the name of weights that ship, such as
            `"SC2Net/mnist"`.
        source: Samples, all that `sc2keras.io.encode_file` reads; of more than 10,000
            as many evenly spread ones. None: a page of the model alone.
        target: Path that ends in `.html`. The file appears whole or not at all.
        overwrite: Boolean, whether a file at `target` is replaced.
        progress: Function that is called with what is done, how many of that are done,
            and how many there are or None.
        **options: Of `encode_file`: `key`, `split`, `data_dir`, `resize`.

    Returns:
        `pathlib.Path` of the page.

    Raises:
        TransferError: If it cannot be done as asked.
        OSError: If a file cannot be read or written.

    Example:

    >>> import tempfile
    >>> target = tempfile.mkdtemp() + "/page.html"
    >>> view_file("SC2Net/digits", "digits", target).name
    'page.html'
    """
    target = Path(target)
    if target.suffix.lower() != ".html":
        raise OutputError(f"the output {target} must end in .html. Name it so.")
    check_target(target, overwrite)
    options = {key: value for key, value in options.items() if value is not None}
    if source is None and options:
        name = next(iter(options))
        raise InputError(f"{name}= needs samples. Give an input, or leave it out.")
    loaded, sha256 = load_model(model)
    name = loaded.name if isinstance(model, SparseCoder) else os.fspath(model)
    facts, x, image_shape = {"model": name}, None, None
    if source is not None:
        x, facts["samples"], found = read_samples(loaded, source, progress, options)
        image_shape = _image_shape(loaded, found)
    what, remedy = f"{source} cannot be shown", "Give samples as the model takes them."
    with failing_as(InputError, what, remedy):
        page = explorer(
            loaded,
            x,
            title=name,
            image_shape=image_shape,
            facts=facts,
            card=card_of(sha256),
        )
    page.save(target, overwrite)
    return target


def read_samples(
    model: SparseCoder, source: PathLike, progress: Progress | None, options: Any
) -> tuple[NDArray, str, Source]:
    """Samples of a file, as many as can be held, which these are, and the source.

    Args:
        model, source, progress: As in `view_file`.
        options: Mapping, those of `encode_file`; None where one is not given.
    """
    name = os.fspath(source)
    given = {key: value for key, value in options.items() if value is not None}
    found = _open(model, name, progress, given)
    x = _read(model, name, found, progress)
    return x, _which(name, len(x), found.n_rows), found


def _open(
    model: SparseCoder, name: str, progress: Progress | None, options: dict[str, Any]
) -> Source:
    report = progress or (lambda task, n_done, n_rows: None)
    way = Direction("encoding", model)
    source = kind_of_input(name, options, False)(name, way.takes, report, **options)
    way.check(name, source)
    if not source.n_rows:
        raise InputError(
            f"the input {name} holds no sample. Leave it out for a page of the model "
            "alone."
        )
    return source


def _read(
    model: SparseCoder, name: str, source: Source, progress: Progress | None
) -> NDArray:
    """Samples that are evenly spread over the input, few enough to be held."""
    n_features = model.encoder.n_features
    n_held = max(1, min(_MOST_SAMPLES, source.n_rows, _MOST_BYTES // (4 * n_features)))
    wanted = np.linspace(0, source.n_rows - 1, n_held).round().astype(int)
    n_at_a_time = max(1, 2**22 // n_features)
    kept, start = [], 0
    what, remedy = f"the input {name} cannot be read", "Write it anew: it is damaged."
    report = progress or (lambda task, n_done, n_rows: None)
    report("reading samples", 0, source.n_rows)
    with failing_as(InputError, what, remedy):
        for rows in source.chunks(0, n_at_a_time):
            inside = wanted[(wanted >= start) & (wanted < start + len(rows))] - start
            kept.append(rows[inside])
            start += len(rows)
            report("reading samples", start, source.n_rows)
        source.check()
        x = np.concatenate(kept)
    x = preprocess_input(x) if x.dtype == np.uint8 else x
    return x.reshape(len(x), *model.input_shape[1:])


def _which(name: str, n_held: int, n_rows: int) -> str:
    if n_held == n_rows:
        return f"{name}, {n_rows:,}"
    return f"{name}, {n_held:,} of {n_rows:,}, evenly spread"


def _image_shape(model: SparseCoder, source: Source) -> tuple[int, ...] | None:
    """That of the input, where the model takes images as vectors."""
    shape = tuple(source.shape)
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    flat = len(model.input_shape) == 2
    fits = is_image and math.prod(shape) == model.encoder.n_features
    return shape if flat and fits else None
