"""Image datasets as arrays in [0, 1], and drawn problems of sparse recovery."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sc2keras.synthetic import SparseRecovery as SparseRecovery
from sc2keras.synthetic import sparse_recovery as sparse_recovery

NAMES = ("digits", "mnist", "cifar10")

# Seconds to wait for the host of a dataset before it counts as out of reach.
_TIMEOUT = 5


class DatasetUnavailableError(RuntimeError):
    """A dataset is neither on this machine nor can it be downloaded."""


class Dataset(NamedTuple):
    """A labelled image dataset, split into training and test images.

    Attributes:
        name: One of `NAMES`.
        x_train, x_test: Float32 arrays `(n, height, width, channels)` in [0, 1].
        y_train, y_test: Int64 arrays `(n,)` of class labels, from 0.
        note: What a figure measured on this copy must say of it: "JPEG copy" for a
            CIFAR-10 that was re-encoded with loss, otherwise empty.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    note: str = ""


def load(
    name: str, data_dir: str | os.PathLike[str] | None = None, download: bool = True
) -> Dataset:
    """Loads a dataset as arrays in [0, 1].

    ========= ================ ============== =======================================
    name      training / test  image          source
    ========= ================ ============== =======================================
    digits    1,437 / 360      (8, 8, 1)      scikit-learn; needs no download
    mnist     60,000 / 10,000  (28, 28, 1)    TensorFlow Datasets, official split
    cifar10   50,000 / 10,000  (32, 32, 3)    TensorFlow Datasets, official split
    ========= ================ ============== =======================================

    The digits have no official split. Here it is always
    `train_test_split(test_size=0.2, stratify=labels, random_state=0)`.

    Args:
        name: `"digits"`, `"mnist"` or `"cifar10"`.
        data_dir: Folder where TensorFlow Datasets keeps its prepared datasets; None:
            the environment variable `TFDS_DATA_DIR`, or else its default.
        download: Boolean, whether to download a dataset that is not found there.

    Raises:
        ValueError: If `name` is unknown.
        FileNotFoundError: If `data_dir` is not a directory.
        DatasetUnavailableError: If the dataset is not found and cannot be downloaded.
            Another dataset never takes its place.

    Example:

    >>> digits = load("digits")
    >>> digits.x_train.shape, digits.x_test.shape
    ((1437, 8, 8, 1), (360, 8, 8, 1))
    """
    if name not in NAMES:
        raise ValueError(
            f"name={name!r} is not a dataset. Choose one of {', '.join(NAMES)}."
        )
    if name == "digits":
        images, labels = load_digits(return_X_y=True)
        images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
        labels = labels.astype("int64")
        x_train, x_test, y_train, y_test = train_test_split(
            images, labels, test_size=0.2, stratify=labels, random_state=0
        )
        return Dataset("digits", x_train, y_train, x_test, y_test)
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise FileNotFoundError(
            f"data_dir={str(data_dir)!r} is not a directory. Create it, or give the "
            "one that holds the prepared TensorFlow Datasets."
        )
    with _quiet():
        return _load_tfds(name, data_dir, download)


def find(name: str, data_dir: str | os.PathLike[str] | None = None) -> Any:
    """The builder of a dataset of TensorFlow Datasets, prepared or not."""
    import tensorflow_datasets as tfds

    # It reads the variable only once, when it is imported.
    folder = data_dir or os.environ.get("TFDS_DATA_DIR")
    return tfds.builder(name, data_dir=folder and Path(folder).expanduser())


def _load_tfds(
    name: str, data_dir: str | os.PathLike[str] | None, download: bool
) -> Dataset:
    with _needed(name, "install it: pip install 'sc2keras[datasets]'"):
        builder = find(name, data_dir)
    if not builder.is_prepared():
        missing = f"{builder.data_path} holds no prepared copy"
        if not download:
            raise _unavailable(name, f"{missing}, and download=False")
        with _needed(name, f"{missing}, and the download failed"):
            import requests

            # Raises at once without a network, where a download retries for minutes.
            for url in list(builder.url_infos or ())[:1]:
                requests.head(url, timeout=_TIMEOUT)
            builder.download_and_prepare()
    copy = f"the copy in {builder.data_path}"
    with _needed(name, f"{copy} cannot be read; delete it, or use another"):
        return _read(builder)


@contextlib.contextmanager
def _needed(name: str, reason: str) -> Iterator[None]:
    """Network, disk and copies fail in many ways, all of them with the same remedies"""
    try:
        yield
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise _unavailable(name, f"{reason} ({what})") from error


def _read(builder: Any) -> Dataset:
    import tensorflow_datasets as tfds

    def arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
        data = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        images = data["image"].astype("float32")
        images /= 255  # In place: a copy is large.
        return images, data["label"].astype("int64")

    encoded = builder.as_dataset(
        split="train[:1]", decoders={"image": tfds.decode.SkipDecoding()}
    )
    jpeg = next(iter(tfds.as_numpy(encoded)))["image"].startswith(b"\xff\xd8")
    note = "JPEG copy" if jpeg else ""
    return Dataset(builder.name, *arrays("train"), *arrays("test"), note)


def _unavailable(name: str, reason: str) -> DatasetUnavailableError:
    return DatasetUnavailableError(
        f"The dataset {name!r} is not available: {reason}.\n"
        "Either name a directory that holds it, prepared by TensorFlow Datasets "
        "(data_dir=..., or --data-dir on the command line), or use the digits, which "
        "need no download (load('digits'), or --datasets digits)."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what TensorFlow Datasets logs when it merely looks for a dataset."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
