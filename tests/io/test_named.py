import numpy as np
import pytest
from transfers import (
    N_SAMPLES,
    SHAPE,
    assert_nothing_unfinished,
    before_encode,
    dense,
    encode,
    expected_codes,
    images,
    interrupt_after,
    small_model,
)

from sc2keras import datasets
from sc2keras.applications import preprocess_input
from sc2keras.io import TransferError


@pytest.mark.parametrize("split", ["train", "test"])
def test_codes_of_the_digits(tmp_path, split):
    model = small_model(tmp_path / "model.keras", shape=(8, 8, 1))
    output = tmp_path / "codes.npy"
    options = {} if split == "test" else {"split": split}
    encode(tmp_path / "model.keras", "digits", output, batch_rows=256, **options)
    data = datasets.load("digits")
    x = data.x_test if split == "test" else data.x_train
    np.testing.assert_array_equal(dense(output), model.encode(x, batch_size=256))


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """Two datasets prepared by TensorFlow Datasets, one of them without images."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Prepared(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(3),
                "test": self._generate_examples(N_SAMPLES),
            }

    class TinyImages(Prepared):
        def _info(self):
            feature = tfds.features.Image(shape=SHAPE)
            features = tfds.features.FeaturesDict({"image": feature})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _generate_examples(self, n_samples):
            for i, image in enumerate(images(n_samples)):
                yield i, {"image": image}

    class TinyTexts(Prepared):
        def _info(self):
            features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _generate_examples(self, n_samples):
            for i in range(n_samples):
                yield i, {"text": str(i)}

    folder = tmp_path_factory.mktemp("tfds")
    # Several files, which TensorFlow Datasets reads in turns.
    config = tfds.download.DownloadConfig(num_shards=3, try_download_gcs=False)
    for cls in (TinyImages, TinyTexts):
        cls(data_dir=folder).download_and_prepare(download_config=config)
    return folder


def test_codes_of_a_tensorflow_dataset(saved, tmp_path, tfds_folder, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    model, path = saved
    output = tmp_path / "codes.npy"
    options = {"data_dir": tfds_folder}
    interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(path, "tiny_images", output, **options)
    encode(path, "tiny_images", output, **options)
    test = tfds.load("tiny_images", split="test", data_dir=tfds_folder)
    x = np.stack([example["image"] for example in tfds.as_numpy(test)])
    assert len(x) == N_SAMPLES
    expected = expected_codes(model, preprocess_input(x))
    np.testing.assert_array_equal(dense(output), expected)

    options |= {"split": "train[1:]", "overwrite": True}
    encode(path, "tiny_images", output, **options)
    train = tfds.load("tiny_images", split="train[1:]", data_dir=tfds_folder)
    x = np.stack([example["image"] for example in tfds.as_numpy(train)])
    np.testing.assert_array_equal(dense(output), model.encode(preprocess_input(x)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tiny_images", {"split": "dev"}, r"split='dev'.*'train'"),
        ("tiny_texts", {}, "'tiny_texts' has no feature 'image', only text"),
        ("mnist", {}, r"mnist.* holds no prepared copy.*data_dir=FOLDER"),
        ("no_such", {}, "the input no_such is neither a file, a folder, nor a dataset"),
        ("no/such/x.npy", {}, r"the input no/such/x\.npy is not a file"),
    ],
)
def test_a_dataset_that_cannot_be_read_is_an_error(
    saved, tmp_path, tfds_folder, name, options, message
):
    if not name.endswith(".npy"):
        options = {**options, "data_dir": tfds_folder}
    with pytest.raises(TransferError, match=message):
        encode(saved[1], name, tmp_path / "codes.npy", **options)


def test_a_tensorflow_dataset_that_changes_is_an_error(
    saved, tmp_path, tfds_folder, monkeypatch
):
    shard = next(tfds_folder.glob("tiny_images/*/*test*00001*"))
    output = tmp_path / "codes.npy"
    before_encode(1, monkeypatch, lambda: shard.touch())
    with pytest.raises(TransferError, match=r"tiny_images was changed.*first row"):
        encode(saved[1], "tiny_images", output, data_dir=tfds_folder)
    assert not output.exists()
    assert_nothing_unfinished(tmp_path)
