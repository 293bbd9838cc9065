"""Inputs that have a name and no path: the digits, TensorFlow Datasets."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras import datasets
from sc2keras.io.errors import InputError, failing_as
from sc2keras.io.sources.base import Progress, Source, file_state
from sc2keras.validation import Shape


class Digits(Source):
    options = ("split",)

    def __init__(self, name: str, shape: Shape, _: Progress, split: str = "test"):
        if split not in ("train", "test"):
            raise InputError(f"split={split!r} is not one of train, test.")
        self._x = getattr(datasets.load("digits"), f"x_{split}")
        self.n_rows, self.shape = len(self._x), self._x.shape[1:]
        self.dtype = self._x.dtype
        self.fingerprint = {"input": "digits", "split": split}

    @classmethod
    def reads(cls, name: str) -> bool:
        return name == "digits" and not os.path.exists(name)

    def read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        return (self._x[part] for part in self.parts(start, n_rows))


class TensorFlowDataset(Source):
    """The feature `image` of a prepared dataset of TensorFlow Datasets."""

    options = ("split", "data_dir")

    def __init__(
        self, name: str, shape: Shape, _: Progress, split: str = "test", data_dir=None
    ) -> None:
        self.name, self.split = name, split
        self._builder = prepared(name, data_dir)
        self.before = self.state()
        info = self._builder.info
        known = f"Choose one of {', '.join(info.splits)}, or a part of one."
        with failing_as(InputError, f"split={split!r} of {name!r}", known):
            self.n_rows = info.splits[split].num_examples
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
        files = repr([state[:-1] for state in self.before]).encode()
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
        paths = sorted(Path(str(self._builder.data_path)).glob("*"))
        return [(path.name, *file_state(path)) for path in paths]

    def read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        import tensorflow_datasets as tfds

        options = {"read_config": tfds.ReadConfig(try_autocache=False)}
        data = self._builder.as_dataset(self.split, shuffle_files=False, **options)
        # A split that begins at `start` would read the shards in another order.
        examples = data.map(lambda example: example["image"]).skip(start)
        yield from examples.batch(n_rows).as_numpy_iterator()


def prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    if data_dir is not None and not os.path.isdir(data_dir):
        raise InputError(f"data_dir={data_dir} is not a folder. Check the path.")
    what = f"the input {name} is neither a file, a folder, nor a dataset that is known"
    remedy = "Check the name, or pip install 'sc2keras[datasets]'."
    with failing_as(InputError, what, remedy):
        builder = datasets.find(name, data_dir)
    if not builder.is_prepared():
        raise InputError(
            f"{builder.data_path} holds no prepared copy, and nothing is downloaded "
            "here. Name the folder that holds one with data_dir=FOLDER, or prepare it: "
            f"python -c \"import tensorflow_datasets as t; t.load('{name}')\""
        )
    return builder
