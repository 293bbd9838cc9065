"""Inputs that have a name and no path: the digits, TensorFlow Datasets."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras import datasets
from sc2keras.io.errors import InputError, one_line
from sc2keras.io.sources.base import Progress, Source, file_state
from sc2keras.validation import Shape


class Digits(Source):
    options = ("split",)

    def __init__(
        self, name: str, shape: Shape, progress: Progress, split: str = "test"
    ) -> None:
        data = datasets.load("digits")
        splits = {"test": data.x_test, "train": data.x_train}
        if split not in splits:
            raise InputError(f"split={split!r} is not one of train, test.")
        self._x = splits[split]
        self.n_rows, self.shape = len(self._x), self._x.shape[1:]
        self.dtype = self._x.dtype
        self.fingerprint = {"input": "digits", "split": split}
        self.watch()

    @classmethod
    def reads(cls, name: str) -> bool:
        return name == "digits" and not os.path.exists(name)

    def chunks(self, start: int, n_rows: int) -> Iterator[NDArray]:
        for first in range(start, self.n_rows, n_rows):
            yield self._x[first : first + n_rows]


class TensorFlowDataset(Source):
    """The feature `image` of a prepared dataset of TensorFlow Datasets."""

    options = ("split", "data_dir")

    def __init__(
        self,
        name: str,
        shape: Shape,
        progress: Progress,
        split: str = "test",
        data_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.name, self.split = name, split
        self._builder = prepared(name, data_dir)
        self.watch()
        info = self._builder.info
        try:
            self.n_rows = info.splits[split].num_examples
        except Exception as error:
            raise InputError(
                f"split={split!r} of {name!r}: {one_line(error)}"
            ) from error
        if "image" not in info.features:
            raise InputError(
                f"dataset {name!r} has no feature 'image', only "
                f"{', '.join(info.features)}. Save what is to be encoded as .npy."
            )
        image = info.features["image"]
        self.shape, self.dtype = image.shape, np.dtype(image.np_dtype)
        if None in self.shape:
            raise InputError(
                f"the images of {name!r} differ in size. Save them as files of one "
                "size, or as files for resize=True."
            )
        files = repr([state[:-1] for state in self.state()]).encode()
        self.fingerprint = {
            "input": info.full_name,
            "data_path": str(self._builder.data_path),
            "files_sha256": hashlib.sha256(files).hexdigest(),
            "split": split,
            "n_rows": self.n_rows,
        }

    @classmethod
    def reads(cls, name: str) -> bool:
        return not os.path.exists(name) and not name.lower().endswith((".npy", ".npz"))

    def state(self) -> list[tuple[Any, ...]]:
        """Of the files that hold it, where they are not on a server."""
        paths = sorted(Path(str(self._builder.data_path)).glob("*"))
        return [(path.name, *file_state(path)) for path in paths]

    def chunks(self, start: int, n_rows: int) -> Iterator[NDArray]:
        return self.checked(self._read(start, n_rows))

    def _read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        import tensorflow_datasets as tfds

        read = tfds.ReadConfig(try_autocache=False)
        data = self._builder.as_dataset(
            self.split, shuffle_files=False, read_config=read
        )
        images = data.map(lambda example: example["image"])
        # A split that begins at `start` would read the shards in another order.
        yield from images.skip(start).batch(n_rows).as_numpy_iterator()


def prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """The builder of a dataset, of which a prepared copy is there."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError(
            f"the input {name} is neither a file nor a folder, and as the name of a "
            f"dataset it needs TensorFlow Datasets ({error}). Check the path, or pip "
            "install 'sc2keras[datasets]'."
        ) from error
    if data_dir is not None and not os.path.isdir(data_dir):
        raise InputError(f"data_dir={data_dir} is not a folder. Check the path.")
    try:
        builder = tfds.builder(
            name, data_dir=data_dir or os.environ.get("TFDS_DATA_DIR")
        )
    except Exception as error:
        raise InputError(
            f"the input {name} is neither a file, a folder, nor a dataset of "
            f"TensorFlow Datasets ({one_line(error)[:100]}). Check the name."
        ) from error
    if not builder.is_prepared():
        raise InputError(
            f"{builder.data_path} holds no prepared copy, and nothing is downloaded "
            "here. Name the folder that holds one with data_dir=FOLDER, or prepare it: "
            f"python -c \"import tensorflow_datasets as t; t.load('{name}')\""
        )
    return builder
