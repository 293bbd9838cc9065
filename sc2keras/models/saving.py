"""Files of a model, which appear whole or not at all, and what is read of them."""

import contextlib
import errno
import io
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from sc2keras import backend
from sc2keras.files import whole_export, whole_file
from sc2keras.models.description import describe
from sc2keras.models.exportable import check_exportable, has_loop
from sc2keras.models.variables import (
    all_or_nothing,
    check_finite_weights,
    first_not_finite,
)

# The attribute, or the dataset, of a file of weights that holds what `describe` gives.
_DESCRIPTION = "sc2keras"
_LONGEST_ATTRIBUTE = 60_000
# The file in a `.keras` archive that says where the training stands.
_TRAINING = "training.json"
# Where Keras sees no local file, unless such a folder is mounted.
_REMOTE = re.compile("/(cns|cfs|gcs|hdfs|readahead|placer|tfhub)")
_HUB = "hf://"
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

FilePath = str | os.PathLike[str] | io.IOBase
Method = Callable[..., Any]


def save(
    model: keras.Model,
    write: Method,
    filepath: FilePath,
    overwrite: bool = True,
    zipped: bool | None = None,
    **kwargs: Any,
) -> None:
    """`SparseCoder.save`, by way of `whole_file`; `write` is Keras's own method."""
    check_finite_weights(model, "nothing was saved")
    path = _local_path(filepath)
    if path is None:
        write(filepath, overwrite=overwrite, zipped=zipped, **kwargs)
        return
    others = "save_weights('x.weights.h5') saves the weights, export('x') a SavedModel."
    check_suffix(path, ".keras", others)
    if zipped is not None and not zipped:
        raise ValueError(
            "The many files of a folder cannot appear at once; received zipped="
            f"{zipped!r}. Save one .keras file, which is an ordinary zip archive, and "
            "unpack it if a folder is wanted."
        )
    with _full_disk_named(path), whole_file(path, overwrite) as temporary:
        write(temporary, **kwargs)


def save_weights(
    model: keras.Model,
    write: Method,
    filepath: FilePath,
    overwrite: bool = True,
    max_shard_size: float | None = None,
) -> None:
    """`SparseCoder.save_weights`, by way of `whole_file`, with a description inside."""
    check_finite_weights(model, "nothing was saved")
    path = _local_path(filepath)
    if path is None:
        write(filepath, overwrite=overwrite, max_shard_size=max_shard_size)
        return
    if max_shard_size is not None:
        raise ValueError(
            "Several files cannot appear at once; received max_shard_size="
            f"{max_shard_size!r}. Leave it out: one .weights.h5 file takes any size."
        )
    whole = "save('x.keras') saves the whole model with its optimizer."
    check_suffix(path, ".weights.h5", whole)
    with _full_disk_named(path), whole_file(path, overwrite) as temporary:
        # In memory: HDF5 that meets a full disk brings down the process later on.
        memory = _NamedMemory(temporary.name)
        write(memory)
        with h5py.File(memory, "r+") as file:
            _write_description(file, json.dumps(describe(model)))
        temporary.write_bytes(memory.getbuffer())


def read_weights_config(filepath: FilePath) -> dict[str, Any] | None:
    """What `describe` gave of the weights in a file; None if nobody wrote it there."""
    if not isinstance(filepath, (str, os.PathLike)) or not h5py.is_hdf5(filepath):
        return None
    with h5py.File(filepath, "r") as file:
        text = file.attrs.get(_DESCRIPTION)
        if text is None and _DESCRIPTION in file:
            text = file[_DESCRIPTION][()]
    return None if text is None else json.loads(text)


def _write_description(file: h5py.File, text: str) -> None:
    if len(text) < _LONGEST_ATTRIBUTE:
        file.attrs[_DESCRIPTION] = text
    else:  # Of many weights.
        file[_DESCRIPTION] = text


def save_training(model: keras.Model, path: Path, training: dict[str, Any]) -> None:
    """Saves a model as `save` does, and with it where its training stands."""
    with _full_disk_named(path), whole_file(path) as temporary:
        keras.saving.save_model(model, temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(_TRAINING, json.dumps(training))


def read_training(path: Path) -> dict[str, Any] | None:
    """What `save_training` wrote beside the model; None for any other `.keras` file."""
    _check_archive(path)
    with zipfile.ZipFile(path) as archive:
        if _TRAINING not in archive.namelist():
            return None
        return json.loads(archive.read(_TRAINING))


def load_weights(
    model: keras.Model, load: Method, filepath: FilePath, *args: Any, **kwargs: Any
) -> None:
    """`SparseCoder.load_weights`; `load` is Keras's own method."""
    path = _local_path(filepath)
    if path is not None and path.name.endswith(".keras"):
        _check_archive(path)
    with all_or_nothing(model) as variables:
        load(filepath, *args, **kwargs)
        damaged = first_not_finite(variables)
        if damaged is not None:
            raise ValueError(
                f"{filepath} holds a NaN or an infinity in {damaged.path!r}, so nothing"
                " was loaded. Load an earlier file, or train again."
            )


def export(
    model: keras.Model,
    write: Method,
    filepath: str | os.PathLike[str],
    format: str = "tf_saved_model",
    *args: Any,
    **kwargs: Any,
) -> Any:
    """`SparseCoder.export`, by way of `whole_export`; `write` is Keras's own method."""
    check_finite_weights(model, "nothing was exported")
    check_exportable(model, Path(filepath), format)
    # Some formats are written only of a model that was called before.
    model(np.zeros((1, *model.inputs[0].shape[1:]), model.inputs[0].dtype))
    kwargs = {**backend.export_arguments(format, has_loop(model)), **kwargs}
    path = _local_path(filepath)
    if path is None:
        return write(filepath, format, *args, **kwargs)
    with (
        _full_disk_named(path),
        whole_export(path) as temporary,
        _printed_as(temporary, path),
    ):
        return write(str(temporary), format, *args, **kwargs)


def save_preset(model: keras.Model, folder: Path, readme: str) -> None:
    """Writes a model as a folder, as Keras loads it from the Hugging Face Hub."""
    check_finite_weights(model, "nothing was saved")
    with _full_disk_named(folder), whole_export(folder) as temporary:
        keras.saving.save_model(model, temporary, zipped=False)
        (temporary / "README.md").write_text(readme, encoding="utf-8")


def is_preset(name: str) -> bool:
    """Whether it is an address of the Hub, or a folder with a model of Keras."""
    return name.startswith(_HUB) or os.path.isfile(os.path.join(name, "config.json"))


def load_preset(name: str) -> Any:
    """The model in a folder, or at an address of the Hub, not compiled.

    Raises:
        ValueError: If the address is none of the Hub, or a weight is not finite.
        ImportError: If the package that downloads is not installed.
        OSError: If there is no such model, no network, or no access.
    """
    of_hub = name.startswith(_HUB)
    if of_hub and not re.fullmatch(r"[\w.-]+/[\w.-]+", name[len(_HUB) :]):
        raise ValueError(
            f"A model of the Hugging Face Hub is hf://owner/model; received {name!r}."
        )
    try:
        return keras.saving.load_model(name, compile=False)
    except Exception as error:
        if isinstance(error, ValueError) and "NaN" in str(error):
            raise
        if of_hub and isinstance(error, ImportError):
            raise ImportError(
                f"{name} needs the package huggingface_hub. Install it with "
                "pip install 'sc2keras[hub]', and start Python again."
            ) from error
        hub = "its name, the network and your access (hf auth login), and "
        raise OSError(
            f"{name} cannot be loaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())}). Check {hub * of_hub}that it holds what "
            "sc2keras.hub.save_to_preset wrote; import the module of an encoder of "
            "your own first."
        ) from error


def portable(compile_config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `compile` as every backend can load them."""
    optimizer = compile_config["optimizer"]
    # On PyTorch Keras writes its optimizer for PyTorch, which loads nowhere else.
    if optimizer["module"].startswith("keras.src.backend."):
        own = {"module": "keras.optimizers", "registered_name": None}
        return {**compile_config, "optimizer": {**optimizer, **own}}
    return compile_config


def check_suffix(path: Path, suffix: str, remedy: str) -> None:
    """Raises a ValueError, which ends in `remedy`, if `path` ends in another suffix."""
    if not path.name.endswith(suffix):
        raise ValueError(
            f"The path must end in {suffix}; received {str(path)!r}. {remedy}"
        )


def _local_path(filepath: FilePath) -> Path | None:
    """The path, or None where Keras writes by itself: to open files, and remotely."""
    if isinstance(filepath, io.IOBase):
        return None
    text = str(filepath)
    is_mounted = os.path.isdir(os.path.dirname(text))
    is_remote = "://" in text or (_REMOTE.match(text) is not None and not is_mounted)
    return None if is_remote else Path(text)


def _check_archive(path: Path) -> None:
    """Raises a ValueError if a `.keras` file is cut short, or a bit of it is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is no whole .keras file: {error}. Load an earlier one."
        ) from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged, in {damaged!r}. Load an earlier file.")


class _NamedMemory(io.BytesIO):
    """A file in memory, with the name that Keras checks the ending of."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __str__(self) -> str:
        return self.name


@contextlib.contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Raises the OSError of a full disk with the path, also from under another."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            number = getattr(cause, "errno", None)
            if number in _FULL_DISK:
                raise OSError(number, os.strerror(number), str(path)) from error
            cause = cause.__context__
        raise


@contextlib.contextmanager
def _printed_as(temporary: Path, path: Path) -> Iterator[None]:
    """Prints what is printed meanwhile at the end, with the path that was asked for."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        sys.stdout.write(printed.getvalue().replace(str(temporary), str(path)))
