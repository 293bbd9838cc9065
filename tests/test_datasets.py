import ast
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import sc2keras
from sc2keras import datasets

SHAPES = {
    "digits": ((1437, 8, 8, 1), (360, 8, 8, 1)),
    "mnist": ((60000, 28, 28, 1), (10000, 28, 28, 1)),
    "cifar10": ((50000, 32, 32, 3), (10000, 32, 32, 3)),
}


# All of MNIST or CIFAR-10 takes seconds to read.
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("mnist", "cifar10")]


@pytest.mark.parametrize("name", ["digits", *LARGE])
def test_arrays(name, require_dataset):
    data = require_dataset(name)
    assert data.name == name
    assert (data.x_train.shape, data.x_test.shape) == SHAPES[name]
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0, 1)
        assert y.dtype == np.int64
        assert y.shape == x.shape[:1]
        assert np.array_equal(np.unique(y), np.arange(10))


@pytest.mark.slow
def test_mnist_is_the_original(require_dataset):
    data = require_dataset("mnist")
    assert data.x_train.mean(dtype="float64") * 255 == pytest.approx(33.3184, abs=1e-4)
    assert data.note == ""


@pytest.mark.slow
def test_cifar10_copy_with_loss_is_marked(require_dataset):
    data = require_dataset("cifar10")
    # The mean pixel of the original training images.
    original = abs(data.x_train.mean(dtype="float64") * 255 - 120.7076) < 0.01
    assert data.note == ("" if original else "JPEG copy")


def test_digits_are_scikit_learns_in_a_fixed_stratified_split():
    from sklearn.datasets import load_digits

    first, second = datasets.load("digits"), datasets.load("digits")
    np.testing.assert_array_equal(first.x_train, second.x_train)
    together = np.concatenate([first.x_train, first.x_test]).reshape(-1, 64) * 16
    np.testing.assert_array_equal(
        np.sort(together, axis=0), np.sort(load_digits().data, axis=0)
    )
    share = np.bincount(first.y_test) / np.bincount(
        np.concatenate([first.y_train, first.y_test])
    )
    np.testing.assert_allclose(share, 0.2, atol=0.01)


@pytest.mark.parametrize("name", ["fashion", "MNIST", "", None])
def test_unknown_name(name):
    with pytest.raises(ValueError, match="digits, mnist, cifar10") as error:
        datasets.load(name)
    assert repr(name) in str(error.value)


def test_data_dir_that_does_not_exist(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match=r"data_dir='.*missing'"):
        datasets.load("mnist", data_dir=missing)
    assert not missing.exists()


def check_message(error, name, data_dir):
    message = str(error.value)
    for part in (repr(name), str(data_dir), "--data-dir", "--datasets digits"):
        assert part in message


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_absent_without_download(name, tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(datasets.DatasetUnavailableError) as error:
        datasets.load(name, download=False)
    check_message(error, name, tmp_path)
    assert not caplog.records


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_download_without_network_fails_soon(name, tmp_path, monkeypatch, capfd):
    pytest.importorskip("tensorflow_datasets")
    # A proxy at a closed port is a network that does not answer, on any machine.
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        monkeypatch.delenv(variable.upper(), raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    start = time.perf_counter()
    with pytest.raises(datasets.DatasetUnavailableError) as error:
        datasets.load(name, data_dir=tmp_path)
    assert time.perf_counter() - start < 15
    check_message(error, name, tmp_path)
    assert "ProxyError" in str(error.value)
    assert "Downloading" not in "".join(capfd.readouterr())
    assert not list(tmp_path.iterdir())


def test_download_is_tried_when_the_host_answers(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    def fail(builder):
        raise OSError("no space\nleft")

    monkeypatch.setattr("requests.head", lambda url, timeout: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(datasets.DatasetUnavailableError, match="no space left"):
        datasets.load("mnist", data_dir=tmp_path)


def test_damaged_copy(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder("mnist", data_dir=os.environ.get("TFDS_DATA_DIR"))
    if not builder.is_prepared():
        pytest.skip(f"{builder.data_path} holds no prepared copy")
    source = builder.data_path
    copy = tmp_path / "mnist" / source.name
    copy.mkdir(parents=True)
    for file in source.iterdir():
        data = file.read_bytes()
        (copy / file.name).write_bytes(
            data[: len(data) // 2] if "train.tfrecord" in file.name else data
        )
    with pytest.raises(datasets.DatasetUnavailableError, match="cannot be read"):
        datasets.load("mnist", data_dir=tmp_path)


def test_tensorflow_datasets_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(datasets.DatasetUnavailableError, match=r"sc2keras\[datasets\]"):
        datasets.load("mnist")
    assert datasets.load("digits").name == "digits"


def test_tensorflow_datasets_is_imported_by_functions_alone():
    paths = list(Path(sc2keras.__file__).parent.rglob("*.py"))
    assert len(paths) > 50
    for path in paths:
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                assert "tensorflow_datasets" not in ast.unparse(statement), path
