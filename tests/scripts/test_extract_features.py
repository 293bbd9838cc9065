import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import load_program
from PIL import Image
from scipy import sparse

import sc2keras
from sc2keras import applications, datasets
from sc2keras.applications import preprocess_input

SHAPE = (4, 4, 1)
N_ATOMS = 6
# So that most inputs are encoded in several chunks, the last of them cut short.
N_SAMPLES, BATCH_ROWS = 21, 8


@pytest.fixture(scope="module")
def script():
    script = load_program("scripts/extract_features.py")
    load, loaded = script.load_model, {}

    def load_once(path):
        # To load and to compile takes most of the time of a run.
        content = path.read_bytes() if path.is_file() else None
        if content not in loaded:
            loaded[content] = load(path)
        return loaded[content]

    script.load_model = load_once
    return script


def small_model(path, shape=SHAPE, **options):
    keras.utils.set_random_seed(0)
    settings = {"n_steps": 2, "l1": 0.3, "activation": "shrinkage", **options}
    model = applications.SC2Net(N_ATOMS, shape, **settings)
    model.save(path)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model and its file."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    return small_model(path), path


def images(n_samples=N_SAMPLES, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, (n_samples, *shape), "uint8")


def floats(n_samples=N_SAMPLES, shape=SHAPE):
    return np.random.default_rng(1).random((n_samples, *shape), dtype="float32")


def save_npy(path, x):
    np.save(path, x)
    return path


def extract(script, model, x, output, *more):
    batch_rows = () if "--batch-rows" in more else ("--batch-rows", str(BATCH_ROWS))
    script.main([str(model), str(x), str(output), *batch_rows, *map(str, more)])
    return output


def dense(path):
    return np.load(path)


def expected_codes(model, x):
    return model.encode(x, batch_size=BATCH_ROWS)


def assert_nothing_unfinished(folder):
    assert not list(folder.rglob("unfinished*"))


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda x: x, id="float32"),
        pytest.param(lambda x: x.astype("float64"), id="float64"),
        pytest.param(lambda x: x.astype(">f4"), id="big-endian"),
        pytest.param(np.asfortranarray, id="Fortran order"),
        pytest.param(lambda x: x.reshape(len(x), -1), id="flattened"),
        pytest.param(lambda x: x[..., 0], id="without channels"),
    ],
)
def test_codes_of_an_array_are_those_of_encode(script, saved, tmp_path, convert):
    model, path = saved
    x = floats()
    array = save_npy(tmp_path / "x.npy", convert(x))
    output = extract(script, path, array, tmp_path / "new" / "codes.npy")
    codes = dense(output)
    assert codes.dtype == "float32" and codes.shape == (N_SAMPLES, N_ATOMS)
    np.testing.assert_array_equal(codes, expected_codes(model, x))
    assert (codes == 0).any() and (codes != 0).any()
    assert_nothing_unfinished(tmp_path)


def test_by_default_the_codes_are_those_of_encode_too(script, saved, tmp_path):
    model, path = saved
    array = save_npy(tmp_path / "x.npy", floats())
    script.main([str(path), str(array), str(tmp_path / "codes.npy")])
    np.testing.assert_array_equal(dense(tmp_path / "codes.npy"), model.encode(floats()))


def test_uint8_is_scaled_to_0_1(script, saved, tmp_path):
    model, path = saved
    array = save_npy(tmp_path / "x.npy", images())
    output = extract(script, path, array, tmp_path / "codes.npy")
    expected = expected_codes(model, preprocess_input(images()))
    np.testing.assert_array_equal(dense(output), expected)


@pytest.mark.parametrize("n_samples", [0, 3, 8, 9])
def test_any_number_of_samples(script, saved, tmp_path, n_samples):
    model, path = saved
    x = floats(n_samples)
    array = save_npy(tmp_path / "x.npy", x)
    codes = dense(extract(script, path, array, tmp_path / "codes.npy"))
    np.testing.assert_array_equal(codes, expected_codes(model, x))
    found = sparse.load_npz(extract(script, path, array, tmp_path / "codes.npz"))
    np.testing.assert_array_equal(found.toarray(), codes)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_codes_of_an_npz(script, saved, tmp_path, write):
    model, path = saved
    x = floats()
    write(tmp_path / "one.npz", x)
    write(tmp_path / "two.npz", y=np.arange(3), x=x)
    one = extract(script, path, tmp_path / "one.npz", tmp_path / "one.npy")
    two = extract(
        script, path, tmp_path / "two.npz", tmp_path / "two.npy", "--key", "x"
    )
    for output in (one, two):
        np.testing.assert_array_equal(dense(output), expected_codes(model, x))


def test_the_classes_of_a_cascade_are_left_out(script, tmp_path):
    model = small_model(tmp_path / "model.keras", classes=3)
    array = save_npy(tmp_path / "x.npy", floats())
    output = extract(script, tmp_path / "model.keras", array, tmp_path / "codes.npy")
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


def test_a_model_of_vectors_takes_images(script, tmp_path):
    model = small_model(tmp_path / "model.keras", shape=(16,))
    array = save_npy(tmp_path / "x.npy", floats())
    output = extract(script, tmp_path / "model.keras", array, tmp_path / "codes.npy")
    expected = expected_codes(model, floats().reshape(N_SAMPLES, 16))
    np.testing.assert_array_equal(dense(output), expected)


@pytest.fixture
def folder(tmp_path):
    """Images in a folder and in a folder in it, and the order of their rows."""
    x = images(5)
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    # Files come before those of folders, and .jpg would lose what is compared here.
    for name, image in zip(
        ["b.png", "c.BMP", "d.png", "a/a.png", "a/z.png"], x, strict=True
    ):
        Image.fromarray(image[..., 0]).save(folder / name)
    (folder / "labels.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return folder, x


@pytest.mark.parametrize("shape", [SHAPE, (4, 4), (16,)])
def test_codes_of_a_folder_of_images(script, tmp_path, folder, shape):
    folder, x = folder
    model = small_model(tmp_path / "model.keras", shape=shape)
    output = tmp_path / "codes.npy"
    extract(script, tmp_path / "model.keras", folder, output, "--batch-rows", 2)
    expected = model.encode(preprocess_input(x.reshape(-1, *shape)), batch_size=2)
    np.testing.assert_array_equal(dense(output), expected)


@pytest.mark.parametrize("shape", [(4, 4, 3), (48,)])
def test_images_are_converted_to_the_colours_of_the_model(script, tmp_path, shape):
    model = small_model(tmp_path / "model.keras", shape=shape)
    folder = tmp_path / "photos"
    folder.mkdir()
    colour, grey = images(1, (4, 4, 3))[0], images(1)[0]
    Image.fromarray(colour).save(folder / "1.png")
    Image.fromarray(grey[..., 0]).save(folder / "2.png")
    output = extract(script, tmp_path / "model.keras", folder, tmp_path / "codes.npy")
    x = np.stack([colour, np.repeat(grey, 3, axis=2)]).reshape(2, *shape)
    np.testing.assert_array_equal(dense(output), model.encode(preprocess_input(x)))


def test_images_of_another_size_need_resize(script, saved, tmp_path, folder):
    model, path = saved
    folder, x = folder
    large = Image.fromarray(images(1, (9, 7))[0])
    large.save(folder / "e.png")
    output = tmp_path / "codes.npy"
    with pytest.raises(SystemExit, match=r"e\.png is 7 × 9 .*4 × 4.*--resize"):
        extract(script, path, folder, output)
    assert_nothing_unfinished(tmp_path)
    extract(script, path, folder, output, "--resize")
    resized = np.asarray(large.resize((4, 4), Image.Resampling.BILINEAR))
    x = np.insert(x, 3, resized[..., np.newaxis], axis=0)
    expected = model.encode(preprocess_input(x), batch_size=BATCH_ROWS)
    np.testing.assert_array_equal(dense(output), expected)


@pytest.mark.parametrize("split", ["train", "test"])
def test_codes_of_the_digits(script, tmp_path, split):
    model = small_model(tmp_path / "model.keras", shape=(8, 8, 1))
    output = tmp_path / "codes.npy"
    split_options = () if split == "test" else ("--split", split)
    options = ("--batch-rows", 256, *split_options)
    extract(script, tmp_path / "model.keras", "digits", output, *options)
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


def test_codes_of_a_tensorflow_dataset(
    script, saved, tmp_path, tfds_folder, monkeypatch
):
    tfds = pytest.importorskip("tensorflow_datasets")
    model, path = saved
    output = tmp_path / "codes.npy"
    options = ("--data-dir", tfds_folder)
    interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, path, "tiny_images", output, *options)
    extract(script, path, "tiny_images", output, *options)
    test = tfds.load("tiny_images", split="test", data_dir=tfds_folder)
    x = np.stack([example["image"] for example in tfds.as_numpy(test)])
    assert len(x) == N_SAMPLES
    expected = expected_codes(model, preprocess_input(x))
    np.testing.assert_array_equal(dense(output), expected)

    options = (*options, "--split", "train[1:]", "--overwrite")
    extract(script, path, "tiny_images", output, *options)
    train = tfds.load("tiny_images", split="train[1:]", data_dir=tfds_folder)
    x = np.stack([example["image"] for example in tfds.as_numpy(train)])
    np.testing.assert_array_equal(dense(output), model.encode(preprocess_input(x)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tiny_images", ["--split", "dev"], r"--split 'dev'.*'train'"),
        ("tiny_texts", [], "'tiny_texts' has no feature 'image', only text"),
        ("mnist", [], r"mnist.* holds no prepared copy.*--data-dir"),
        ("no_such", [], "INPUT no_such is neither a file, a folder, nor a dataset"),
        ("no/such/x.npy", [], r"INPUT no/such/x\.npy is not a file"),
    ],
)
def test_a_dataset_that_cannot_be_read_is_an_error(
    script, saved, tmp_path, tfds_folder, name, options, message
):
    if not name.endswith(".npy"):
        options = [*options, "--data-dir", tfds_folder]
    with pytest.raises(SystemExit, match=message):
        extract(script, saved[1], name, tmp_path / "codes.npy", *options)


def test_an_npz_holds_the_csr_array_of_the_dense_codes(
    script, saved, tmp_path, monkeypatch
):
    _, path = saved
    array = save_npy(tmp_path / "x.npy", floats())
    codes = dense(extract(script, path, array, tmp_path / "codes.npy"))
    output = extract(script, path, array, tmp_path / "codes.npz")
    found, expected = sparse.load_npz(output), sparse.csr_array(codes)
    assert isinstance(found, sparse.csr_array)
    assert found.shape == expected.shape and found.dtype == "float32"
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert 0 < found.nnz < codes.size
    sparse.save_npz(tmp_path / "expected.npz", expected, compressed=False)
    with np.load(output) as a, np.load(tmp_path / "expected.npz") as b:
        assert a.files == b.files
        for name in a.files:
            assert a[name].dtype == b[name].dtype, name
            np.testing.assert_array_equal(a[name], b[name])
    assert_nothing_unfinished(tmp_path)


def test_indptr_is_of_int64_where_int32_is_too_small(script, tmp_path, monkeypatch):
    settings = {"threshold": None}
    codes = script.CSRCodes(tmp_path, settings, (2, 3))
    codes.append(np.eye(2, 3, dtype="float32"))
    monkeypatch.setattr(codes, "n_entries", lambda: 2**31)
    with np.load(codes.whole()) as found:
        assert (found["indptr"].dtype, found["indices"].dtype) == ("int64", "int32")


def test_dense_codes_in_a_csr_array_are_warned_of_once(script, tmp_path, capsys):
    path = tmp_path / "model.keras"
    small_model(path, activation="double_tanh")
    array = save_npy(tmp_path / "x.npy", floats())
    codes = dense(extract(script, path, array, tmp_path / "codes.npy"))
    assert "warning" not in capsys.readouterr().err
    extract(script, path, array, tmp_path / "all.npz")
    assert capsys.readouterr().err.count("--threshold") == 1
    threshold = float(np.quantile(np.abs(codes), 0.8))
    output = tmp_path / "few.npz"
    extract(script, path, array, output, "--threshold", threshold)
    assert "warning" not in capsys.readouterr().err
    expected = np.where(np.abs(codes) > threshold, codes, 0)
    np.testing.assert_array_equal(sparse.load_npz(output).toarray(), expected)


def interrupt_after(n_chunks, monkeypatch, error=KeyboardInterrupt):
    """Makes `encode` raise once, at its call after `n_chunks` calls."""
    encode, calls = sc2keras.SparseCoder.encode, []

    def interrupted(model, x, *args, **kwargs):
        calls.append(len(x))
        if len(calls) == n_chunks + 1:
            raise error
        return encode(model, x, *args, **kwargs)

    monkeypatch.setattr(sc2keras.SparseCoder, "encode", interrupted)
    return calls


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("kind", ["npy", "npz", "images"])
def test_an_interrupted_run_goes_on_and_writes_the_same_bytes(
    script, saved, tmp_path, folder, monkeypatch, kind, suffix
):
    _, path = saved
    if kind == "npy":
        x = save_npy(tmp_path / "x.npy", images())
    elif kind == "npz":
        x = tmp_path / "x.npz"
        np.savez_compressed(x, images())
    else:
        x = folder[0]
    rows = ("--batch-rows", 2 if kind == "images" else BATCH_ROWS)
    whole = extract(script, path, x, tmp_path / f"whole{suffix}", *rows)
    output = tmp_path / f"codes{suffix}"
    calls = interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, path, x, output, *rows)
    assert not output.exists()
    extract(script, path, x, output, *rows)
    # Once it was interrupted, and nothing was encoded twice.
    assert len(calls) == 3 + 1
    assert output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(tmp_path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_a_kill_leaves_half_written_is_cut_off(
    script, saved, tmp_path, monkeypatch, suffix
):
    _, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    whole = extract(script, path, x, tmp_path / f"whole{suffix}")
    output = tmp_path / f"codes{suffix}"
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, path, x, output)
    for file in (tmp_path / f"unfinished-{output.name}").iterdir():
        if file.name != "progress.json":
            file.write_bytes(file.read_bytes() + b"half a chunk")
    extract(script, path, x, output)
    assert output.read_bytes() == whole.read_bytes()


def test_a_run_starts_anew_where_its_files_are_gone(
    script, saved, tmp_path, monkeypatch
):
    model, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    output = tmp_path / "codes.npy"
    interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, path, x, output)
    (tmp_path / "unfinished-codes.npy" / "codes.npy").unlink()
    extract(script, path, x, output)
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


def test_unfinished_work_of_other_settings_is_an_error(
    script, saved, tmp_path, monkeypatch
):
    _, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    output = tmp_path / "codes.npy"
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, path, x, output)
    progress = tmp_path / "unfinished-codes.npy" / "progress.json"
    before = progress.read_bytes()
    assert json.loads(before)["n_done"] == BATCH_ROWS

    def refused(model, x, message, *more):
        with pytest.raises(SystemExit, match=message):
            extract(script, model, x, output, *more)
        assert progress.read_bytes() == before and not output.exists()

    refused(path, x, "batch_rows was 8 and is 4.*delete that folder", "--batch-rows", 4)
    other = tmp_path / "other.keras"
    small_model(other, l1=0.2)
    refused(other, x, "model_sha256 was '[0-9a-f]+' and is '[0-9a-f]+'")
    refused(path, save_npy(tmp_path / "y.npy", floats()), r"input was '.*x\.npy'")
    save_npy(x, floats() / 2)
    refused(path, x, "input_mtime_ns was")


def test_two_runs_at_a_time_are_an_error(script, saved, tmp_path):
    pytest.importorskip("fcntl")
    x = save_npy(tmp_path / "x.npy", floats())
    folder = tmp_path / "unfinished-codes.npy"
    folder.mkdir()
    with (
        script.locked(folder),
        pytest.raises(SystemExit, match=r"another run works in .*unfinished-codes"),
    ):
        extract(script, saved[1], x, tmp_path / "codes.npy")


def test_an_output_that_is_there_is_an_error_before_any_work(
    script, saved, tmp_path, monkeypatch
):
    model, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    output = tmp_path / "codes.npy"
    output.write_text("precious")
    with monkeypatch.context() as patch:
        patch.setattr(script, "load_model", lambda path: pytest.fail("worked"))
        with pytest.raises(SystemExit, match=r"codes\.npy is there.*--overwrite"):
            extract(script, path, x, output)
    assert output.read_text() == "precious"
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, path, x, output, "--overwrite")
    assert output.read_text() == "precious"
    extract(script, path, x, output, "--overwrite")
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


def test_an_input_is_never_its_own_output(script, saved, tmp_path):
    x = save_npy(tmp_path / "x.npy", floats())
    with pytest.raises(SystemExit, match="is INPUT itself"):
        extract(script, saved[1], x, x, "--overwrite")


@pytest.mark.parametrize("kind", ["npy", "npz", "images"])
def test_no_more_rows_are_held_than_asked_for(
    script, saved, tmp_path, folder, monkeypatch, kind
):
    x = folder[0]
    if kind == "npy":
        x = save_npy(tmp_path / "x.npy", images())
    elif kind == "npz":
        x = tmp_path / "x.npz"
        np.savez_compressed(x, images())
    held = []

    def watch(function):
        def watched(*args):
            result = function(*args)
            arrays = [a for a in (*args, result) if isinstance(a, np.ndarray)]
            held.extend(len(array) for array in arrays)
            return result

        monkeypatch.setattr(script, function.__name__, watched)

    watch(script.prepare)
    watch(script.encode)
    calls = interrupt_after(100, monkeypatch)
    extract(script, saved[1], x, tmp_path / "codes.npz", "--batch-rows", 3)
    assert max(held) == max(calls) == 3


def test_by_default_a_chunk_is_a_few_batches(script, saved):
    model, _ = saved
    n_rows = script.default_batch_rows(model)
    assert n_rows % model.batch_size_of_encode() == 0
    assert n_rows * 4 * (16 + N_ATOMS) <= script.CHUNK_BYTES


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_value_that_is_not_finite_is_an_error_that_names_the_row(
    script, saved, tmp_path, value
):
    x = floats().astype("float64")
    x[13, 2, 1] = value
    array = save_npy(tmp_path / "x.npy", x)
    with pytest.raises(SystemExit, match=r"row 13 of INPUT .*nan_to_num"):
        extract(script, saved[1], array, tmp_path / "codes.npy")
    assert not (tmp_path / "codes.npy").exists()


def test_a_code_that_is_not_finite_is_an_error_that_names_the_row(
    script, saved, tmp_path, monkeypatch
):
    codes = np.zeros((BATCH_ROWS, N_ATOMS), dtype="float32")
    codes[1, 2] = np.nan
    monkeypatch.setattr(sc2keras.SparseCoder, "encode", lambda *args: codes)
    array = save_npy(tmp_path / "x.npy", floats())
    with pytest.raises(SystemExit, match=r"the code of row 1 .*Scale"):
        extract(script, saved[1], array, tmp_path / "codes.npy")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (floats(shape=(5, 5)), r"samples of shape \(5, 5\).*\(4, 4, 1\)"),
        (floats(shape=(15,)), r"samples of shape \(15,\).*vectors of 16 values"),
        # As many values, but in another order.
        (floats(shape=(2, 8)), r"samples of shape \(2, 8\)"),
        (floats(1).ravel(), r"shape \(16,\).*newaxis"),
        (images().astype("int64"), "dtype int64.*uint8"),
        (floats() > 0.5, "dtype bool"),
        (np.array([{}, {}]), "cannot be read as .npy .*objects"),
    ],
)
def test_an_array_that_does_not_fit_is_an_error(script, saved, tmp_path, x, message):
    array = save_npy(tmp_path / "x.npy", x)
    with pytest.raises(SystemExit, match=message):
        extract(script, saved[1], array, tmp_path / "codes.npy")
    assert_nothing_unfinished(tmp_path)


def test_an_npz_that_cannot_be_read_is_an_error(script, saved, tmp_path):
    path = tmp_path / "x.npz"
    output = tmp_path / "codes.npy"

    def refused(message, *more):
        with pytest.raises(SystemExit, match=message):
            extract(script, saved[1], path, output, *more)

    np.savez(path, a=floats(), b=floats())
    refused("holds 2 arrays.*--key: a, b")
    refused("and none named 'c'.*--key: a, b", "--key", "c")
    np.savez(path, np.asfortranarray(floats(shape=(4, 4))))
    refused("Fortran order.*ascontiguousarray")
    path.write_bytes(path.read_bytes()[:-10])
    refused("cannot be read as .npz.*numpy.savez")
    path.write_text("")
    refused("cannot be read as .npz")


def test_a_damaged_array_in_an_npz_is_an_error(script, saved, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, images(900))
    content = bytearray(path.read_bytes())
    content[-1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"cannot be read from row 600 on .*CRC"):
        extract(script, saved[1], path, tmp_path / "codes.npy", "--batch-rows", 300)


def test_a_truncated_npy_is_an_error(script, saved, tmp_path):
    path = save_npy(tmp_path / "x.npy", floats())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SystemExit, match=r"x\.npy cannot be read as \.npy"):
        extract(script, saved[1], path, tmp_path / "codes.npy")


def test_images_that_cannot_be_read_are_errors(script, saved, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    output = tmp_path / "codes.npy"

    def refused(message, model=saved[1], *more):
        with pytest.raises(SystemExit, match=message):
            extract(script, model, folder, output, *more)
        assert_nothing_unfinished(tmp_path)

    refused("holds no image")
    image = folder / "a.png"
    image.write_text("no image")
    refused(r"a\.png cannot be read as an image")
    Image.fromarray(images(1)[0, ..., 0].astype("uint16")).save(image)
    refused(r"a\.png has more than 8 bits")
    Image.fromarray(images(1, (5, 4))[0]).save(image)
    vectors = tmp_path / "vectors.keras"
    small_model(vectors, shape=(16,))
    refused(r"a\.png is 4 × 5, but the model takes vectors of 16 values", vectors)
    refused("--resize needs height and width", vectors, "--resize")
    many = tmp_path / "many.keras"
    small_model(many, shape=(4, 4, 2))
    refused(r"inputs of shape \(4, 4, 2\), which no image has", many)


def test_an_image_that_is_cut_off_is_an_error_that_names_it(script, saved, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(images(1)[0, ..., 0]).save(folder / "a.bmp")
    content = (folder / "a.bmp").read_bytes()
    (folder / "a.bmp").write_bytes(content[:-8])
    with pytest.raises(SystemExit, match=r"a\.bmp cannot be read as an image.*trunc"):
        extract(script, saved[1], folder, tmp_path / "codes.npy")


def test_a_file_that_is_no_sparse_coder_is_an_error(script, saved, tmp_path):
    x = save_npy(tmp_path / "x.npy", floats())
    path = tmp_path / "other.keras"

    def refused(message):
        with pytest.raises(SystemExit, match=message):
            extract(script, path, x, tmp_path / "codes.npy")

    refused(r"other\.keras is not a file")
    keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()]).save(path)
    refused("holds a Sequential. Give a SparseCoder")
    content = saved[1].read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(r"other\.keras cannot be loaded")
    path.write_text("no model")
    refused(r"other\.keras cannot be loaded")


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("codes.csv", [], r"codes\.csv must end in \.npy .* or \.npz"),
        ("codes.npy", ["--threshold", "0.1"], r"--threshold 0\.1 .*\.npz"),
        ("codes.npy", ["--key", "x"], "--key does not apply"),
        ("codes.npy", ["--split", "train"], "--split does not apply"),
        ("codes.npy", ["--resize"], "--resize does not apply"),
        ("codes.npy", ["--data-dir", "."], "--data-dir does not apply"),
    ],
)
def test_options_that_do_not_apply_are_errors(
    script, saved, tmp_path, output, options, message
):
    x = save_npy(tmp_path / "x.npy", floats())
    with pytest.raises(SystemExit, match=message):
        extract(script, saved[1], x, tmp_path / output, *options)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--batch-rows=0", "0 is not an integer >= 1"),
        ("--threshold=-1", "-1.0 is not a number > 0"),
    ],
)
def test_bad_options_name_the_value(script, capsys, option, message):
    with pytest.raises(SystemExit):
        script.main(["model.keras", "x.npy", "codes.npy", option])
    assert message in capsys.readouterr().err


def test_too_little_room_on_the_disk_is_an_error_before_any_work(
    script, saved, tmp_path, monkeypatch
):
    x = save_npy(tmp_path / "x.npy", floats())
    usage = script.shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(script.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SystemExit, match=r"need .* GB more .* where 0\.00 GB are free"):
        extract(script, saved[1], x, tmp_path / "codes.npy")


def test_a_disk_that_fails_keeps_what_is_done(script, saved, tmp_path, monkeypatch):
    model, path = saved
    x = save_npy(tmp_path / "x.npy", floats())
    output = tmp_path / "codes.npy"
    interrupt_after(1, monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(SystemExit, match=r"No space left.*kept in .*unfinished-codes"):
        extract(script, path, x, output)
    extract(script, path, x, output)
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


def before_encode(n_chunks, monkeypatch, action):
    """Does something when so many chunks are done and the next one is read."""
    encode, calls = sc2keras.SparseCoder.encode, []

    def acting(*args, **kwargs):
        calls.append(1)
        if len(calls) == n_chunks + 1:
            action()
        return encode(*args, **kwargs)

    monkeypatch.setattr(sc2keras.SparseCoder, "encode", acting)
    return calls


def write_array(path, x):
    np.save(path, x) if path.suffix == ".npy" else np.savez(path, x)
    return path


def modify(path):
    """Another content in the same file, of the same size and date."""
    status, content = path.stat(), bytearray(path.read_bytes())
    for i in range(200, len(content) - 300):
        content[i] ^= 1
    with open(path, "r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path):
    """Another file of the same size and date."""
    status, other = path.stat(), path.with_name("other" + path.suffix)
    write_array(other, floats()[::-1])
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def write_anew(path):
    write_array(path, floats()[::-1])


def cut_off(path):
    os.truncate(path, 300)


@pytest.mark.parametrize("change", [modify, replace, write_anew, cut_off])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("n_chunks", [0, 1, 2])
def test_an_input_that_changes_during_the_run_leaves_nothing(
    script, saved, tmp_path, monkeypatch, change, suffix, n_chunks
):
    model, path = saved
    x, output = write_array(tmp_path / f"x{suffix}", floats()), tmp_path / "codes.npy"
    before_encode(n_chunks, monkeypatch, lambda: change(x))
    with pytest.raises(SystemExit, match=r"x\.np. was changed .*from the first row"):
        extract(script, path, x, output)
    assert not output.exists()
    assert_nothing_unfinished(tmp_path)
    write_anew(x)
    extract(script, path, x, output)
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()[::-1]))


def test_an_input_that_was_replaced_between_two_runs_is_an_error(
    script, saved, tmp_path, monkeypatch
):
    x = save_npy(tmp_path / "x.npy", floats())
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, saved[1], x, tmp_path / "codes.npy")
    replace(x)
    with pytest.raises(SystemExit, match=r"input_sample_sha256 was .* and is"):
        extract(script, saved[1], x, tmp_path / "codes.npy")


def test_an_input_that_is_away_for_a_while_keeps_what_is_done(
    script, saved, tmp_path, monkeypatch
):
    model, path = saved
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    away = tmp_path / "away.npy"
    before_encode(1, monkeypatch, lambda: x.rename(away))
    with pytest.raises(SystemExit, match=r"No such file.*x\.npy.*kept in"):
        extract(script, path, x, output)
    away.rename(x)
    calls = interrupt_after(9, monkeypatch)
    extract(script, path, x, output)
    assert len(calls) == 1
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


def test_a_tensorflow_dataset_that_changes_is_an_error(
    script, saved, tmp_path, tfds_folder, monkeypatch
):
    shard = next(tfds_folder.glob("tiny_images/*/*test*00001*"))
    output = tmp_path / "codes.npy"
    before_encode(1, monkeypatch, lambda: shard.touch())
    with pytest.raises(SystemExit, match=r"tiny_images was changed.*first row"):
        extract(script, saved[1], "tiny_images", output, "--data-dir", tfds_folder)
    assert not output.exists()
    assert_nothing_unfinished(tmp_path)


def save_image(path, image):
    """One file for each image, of the same size for all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0]).save(path)
    return path


@pytest.fixture
def numbered(tmp_path):
    """A folder of images 00.bmp, 01.bmp..., and what is in them."""
    for i, image in enumerate(images()):
        save_image(tmp_path / "photos" / f"{i:02}.bmp", image)
    return tmp_path / "photos", images()


def assert_codes_of_images(model, output, x):
    np.testing.assert_array_equal(
        dense(output), expected_codes(model, preprocess_input(np.asarray(x)))
    )


# The chunk that is encoded meanwhile, and the image: of that chunk, before or after.
@pytest.mark.parametrize(
    ("n_chunks", "changed"), [(1, 3), (1, 9), (1, 17), (2, 17), (0, 20)]
)
@pytest.mark.parametrize("change", [modify, Path.unlink])
def test_an_image_that_changes_during_the_run(
    script, saved, tmp_path, numbered, monkeypatch, n_chunks, changed, change
):
    model, path = saved
    n_kept = changed - changed % BATCH_ROWS
    folder, _ = numbered
    output, image = tmp_path / "codes.npy", folder / f"{changed:02}.bmp"
    before_encode(n_chunks, monkeypatch, lambda: change(image))
    left = f"The {n_kept} rows .* goes on" if n_kept else "starts from the first row"
    with pytest.raises(SystemExit, match=rf"photos was changed .*{left}"):
        extract(script, path, folder, output)
    assert not output.exists()
    calls = interrupt_after(9, monkeypatch)
    extract(script, path, folder, output)
    paths = sorted(folder.iterdir())
    assert len(calls) == -(-(len(paths) - n_kept) // BATCH_ROWS)
    x = [np.asarray(Image.open(path).convert("L"))[..., np.newaxis] for path in paths]
    assert_codes_of_images(model, output, x)
    assert_nothing_unfinished(tmp_path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("name", ["zz/99.bmp", "99.bmp"])
def test_an_image_that_comes_during_the_run_is_read_by_the_next(
    script, saved, tmp_path, numbered, monkeypatch, suffix, name
):
    folder, x = numbered
    output = tmp_path / f"codes{suffix}"
    before_encode(2, monkeypatch, lambda: save_image(folder / name, x[0]))
    with pytest.raises(SystemExit, match=r"99\.bmp.* The 21 rows before"):
        extract(script, saved[1], folder, output)
    extract(script, saved[1], folder, output)
    whole = extract(script, saved[1], folder, tmp_path / f"whole{suffix}")
    assert output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(tmp_path)


def replace_damaged(folder, x):
    save_image(folder / "10.bmp", x[0])


def delete_damaged(folder, x):
    (folder / "10.bmp").unlink()


def replace_damaged_and_add(folder, x):
    replace_damaged(folder, x)
    for i in range(300):  # The header of an .npy is as long as for fewer.
        save_image(folder / f"{100 + i}.bmp", x[i % N_SAMPLES])
    save_image(folder / "more" / "1.bmp", x[1])


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    "mend", [replace_damaged, delete_damaged, replace_damaged_and_add]
)
def test_after_a_damaged_image_is_mended_a_run_goes_on(
    script, saved, tmp_path, numbered, monkeypatch, suffix, mend
):
    folder, x = numbered
    output, damaged = tmp_path / f"codes{suffix}", folder / "10.bmp"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(SystemExit, match=r"10\.bmp cannot be read .*delete it"):
        extract(script, saved[1], folder, output)
    mend(folder, x)
    calls = interrupt_after(999, monkeypatch)
    extract(script, saved[1], folder, output)
    n_images = len(list(folder.rglob("*.bmp")))
    assert len(calls) == -(-(n_images - BATCH_ROWS) // BATCH_ROWS)
    whole = extract(script, saved[1], folder, tmp_path / f"whole{suffix}")
    assert output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(tmp_path)


def test_a_folder_that_outgrows_a_batch_is_encoded_as_a_whole(
    script, saved, tmp_path, numbered
):
    # Fewer images than a batch are encoded by other code, with other last bits.
    folder, x = numbered
    for i in range(5, N_SAMPLES):
        (folder / f"{i:02}.bmp").unlink()
    output = tmp_path / "codes.npy"
    with pytest.MonkeyPatch.context() as patch:
        before_encode(0, patch, lambda: save_image(folder / "05.bmp", x[5]))
        with pytest.raises(SystemExit, match="The 5 rows before that are kept"):
            extract(script, saved[1], folder, output)
    for i in range(6, N_SAMPLES):
        save_image(folder / f"{i:02}.bmp", x[i])
    extract(script, saved[1], folder, output)
    whole = extract(script, saved[1], folder, tmp_path / "whole.npy")
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: os.utime(folder / "02.bmp"), id="touched"),
        pytest.param(lambda folder: (folder / "02.bmp").unlink(), id="removed"),
        pytest.param(
            lambda folder: (folder / "02.bmp").rename(folder / "020.bmp"), id="renamed"
        ),
        pytest.param(
            lambda folder: save_image(folder / "015.bmp", images(1)[0]), id="inserted"
        ),
        pytest.param(
            lambda folder: [p.unlink() for p in folder.glob("*[1-9].bmp")], id="few"
        ),
    ],
)
def test_a_change_of_the_images_that_are_done_is_an_error(
    script, saved, tmp_path, numbered, monkeypatch, change
):
    folder, _ = numbered
    output = tmp_path / "codes.npy"
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, saved[1], folder, output)
    change(folder)
    with pytest.raises(SystemExit, match=r"one of the first 8 images .*delete that"):
        extract(script, saved[1], folder, output)
    assert not output.exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_output_that_appears_meanwhile_stays_and_the_codes_are_kept(
    script, saved, tmp_path, monkeypatch, suffix
):
    x = save_npy(tmp_path / "x.npy", floats())
    whole = extract(script, saved[1], x, tmp_path / f"whole{suffix}")
    output = tmp_path / f"codes{suffix}"
    before_encode(2, monkeypatch, lambda: output.write_text("precious"))
    with pytest.raises(SystemExit, match=r"appeared.*kept in .*unfinished.*--overwri"):
        extract(script, saved[1], x, output)
    assert output.read_text() == "precious"
    with pytest.raises(SystemExit, match=r"is there.*kept in .*unfinished.*--overwri"):
        extract(script, saved[1], x, output)
    assert output.read_text() == "precious"
    calls = interrupt_after(0, monkeypatch)
    extract(script, saved[1], x, output, "--overwrite")
    assert not calls and output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(tmp_path)


def test_an_output_of_a_run_that_ended_meanwhile_stays(
    script, saved, tmp_path, monkeypatch
):
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    make = script.make_folder

    def other_run_ends(folder):
        output.write_text("of the other run")
        make(folder)

    monkeypatch.setattr(script, "make_folder", other_run_ends)
    interrupt_after(0, monkeypatch)
    with pytest.raises(SystemExit, match=r"codes\.npy is there"):
        extract(script, saved[1], x, output)
    assert output.read_text() == "of the other run"
    assert_nothing_unfinished(tmp_path)


def test_a_lock_that_was_removed_while_it_was_waited_for_is_none(
    script, tmp_path, monkeypatch
):
    fcntl = pytest.importorskip("fcntl")
    folder, flock, calls = tmp_path / "unfinished-codes.npy", fcntl.flock, []

    def slow_flock(file, operation):
        calls.append(file)
        if len(calls) == 1:  # The run that held it ends, and a third one begins.
            shutil.rmtree(folder)
        if len(calls) == 2:
            (folder / "lock").unlink()
            (folder / "lock").touch()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", slow_flock)
    with script.locked(folder):
        assert len(calls) == 3
        with pytest.raises(SystemExit, match="another run"), script.locked(folder):
            pass
    assert not folder.exists()


def test_a_kill_between_the_two_names_of_the_finished_codes(
    script, saved, tmp_path, monkeypatch
):
    model, path = saved
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    with monkeypatch.context() as patch:
        patch.setattr(script.Path, "unlink", lambda *args, **kwargs: 1 / 0)
        patch.setattr(
            script.Codes,
            "_create",
            lambda codes, name, content: (codes.folder / name).write_bytes(content),
        )
        with pytest.raises(ZeroDivisionError):
            extract(script, path, x, output)
    assert (tmp_path / "unfinished-codes.npy" / "codes.npy").samefile(output)
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))
    before = output.read_bytes()
    interrupt_after(0, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, path, x, output, "--overwrite")
    assert output.read_bytes() == before


def test_an_output_that_is_a_link_leads_to_the_codes(script, saved, tmp_path):
    model, path = saved
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.npy").write_text("old")
    output.symlink_to(tmp_path / "store" / "1.npy")
    extract(script, path, x, output, "--overwrite")
    assert output.is_symlink()
    np.testing.assert_array_equal(dense(output), expected_codes(model, floats()))


def test_an_output_that_is_protected_is_an_error_before_any_work(
    script, saved, tmp_path, monkeypatch
):
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    output.touch()
    # The permissions of a file do not keep root off.
    monkeypatch.setattr(script.os, "access", lambda path, mode: path != output)
    with pytest.raises(SystemExit, match=r"codes\.npy is protected .*chmod"):
        extract(script, saved[1], x, output, "--overwrite")
    assert_nothing_unfinished(tmp_path)


@pytest.fixture
def unfinished(script, saved, tmp_path, monkeypatch):
    """A function that makes unfinished work, and the command that goes on with it."""

    def interrupted(suffix):
        x = save_npy(tmp_path / "x.npy", floats())
        output = tmp_path / f"codes{suffix}"
        interrupt_after(1, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            extract(script, saved[1], x, output)
        folder = tmp_path / f"unfinished-codes{suffix}"
        return folder, lambda: extract(script, saved[1], x, output)

    return interrupted


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: text[:40], id="cut off"),
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: "[" * 100_000, id="deep"),
        pytest.param(lambda text: "\x00\xff", id="no text"),
        pytest.param(lambda text: "[]", id="list"),
        pytest.param(lambda text: "null", id="null"),
        pytest.param(lambda text: '{"settings": {}}', id="little"),
        *(
            {name: value}
            for name in ("n_done", "n_entries", "sizes", "settings")
            for value in (None, -1, 1.5, True, "8", [], 10**30, 16, 22)
            if (name, value) != ("n_entries", 16)
        ),
        {"sizes": {}},
        {"sizes": {"codes.npy": -1, "data": -1}},
        {"sizes": {"codes.npy": 10**30, "data": 10**30}},
        {"sizes": {"codes.npy": "1", "data": None}},
        {"sizes": {"../../precious": 0}},
        {"sizes": {"/precious": 0}},
        {"settings": {}},
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_damaged_progress_file_is_an_error(unfinished, tmp_path, suffix, damage):
    folder, go_on = unfinished(suffix)
    (tmp_path / "precious").write_text("precious")
    progress = folder / "progress.json"
    if callable(damage):
        progress.write_text(damage(progress.read_text()), encoding="latin-1")
    else:
        progress.write_text(json.dumps({**json.loads(progress.read_text()), **damage}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match=r"^error: .*[Dd]elete .*first row\.$"):
        go_on()
    for path, content in before.items():
        assert path.read_bytes() == content


def test_sizes_of_other_files_are_an_error(unfinished, tmp_path):
    folder, go_on = unfinished(".npy")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    state = json.loads((folder / "progress.json").read_text())
    for name in ("../precious", str(precious)):
        more = {**state, "sizes": {**state["sizes"], name: 0}}
        (folder / "progress.json").write_text(json.dumps(more))
        with pytest.raises(SystemExit, match=r"progress\.json is damaged"):
            go_on()
    assert precious.read_text() == "precious"


def test_an_indptr_that_was_cut_short_and_filled_is_an_error(unfinished):
    folder, go_on = unfinished(".npz")
    n_bytes = (folder / "indptr").stat().st_size
    (folder / "indptr").write_bytes(bytes(n_bytes))
    with pytest.raises(SystemExit, match=r"progress\.json is damaged.*indptr"):
        go_on()


@pytest.mark.parametrize("with_progress", [True, False])
@pytest.mark.parametrize("link", [os.symlink, os.link, "pipe", "folder"])
@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        *((".npy", name) for name in ("codes.npy", "lock", "progress.json")),
        *((".npz", name) for name in ("data", "indices", "indptr", "codes.npz")),
        (".npy", "progress.part"),
    ],
)
def test_a_planted_link_is_an_error_and_its_file_stays(
    unfinished, tmp_path, suffix, name, link, with_progress
):
    folder, go_on = unfinished(suffix)
    (tmp_path / "precious").write_bytes(bytes(100_000))
    planted = folder / name
    planted.unlink(missing_ok=True)
    if not with_progress:
        (folder / "progress.json").unlink(missing_ok=True)
    if link == "pipe":
        os.mkfifo(planted)
    elif link == "folder":
        planted.mkdir()
    else:
        link(tmp_path / "precious", planted)
    with pytest.raises(SystemExit, match=rf"{name} is a link.*Delete .*unfinished"):
        go_on()
    assert (tmp_path / "precious").read_bytes() == bytes(100_000)


def test_a_folder_of_unfinished_work_that_is_a_link_is_an_error(unfinished, tmp_path):
    folder, go_on = unfinished(".npy")
    folder.rename(tmp_path / "elsewhere")
    before = {p: p.read_bytes() for p in (tmp_path / "elsewhere").iterdir()}
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match=r"unfinished-codes\.npy is a link.*Delete it"):
        go_on()
    assert {p: p.read_bytes() for p in (tmp_path / "elsewhere").iterdir()} == before


@pytest.mark.parametrize("what", ["file", "dangling"])
def test_a_folder_that_cannot_be_made_is_an_error(script, saved, tmp_path, what):
    x, folder = (
        save_npy(tmp_path / "x.npy", floats()),
        tmp_path / "unfinished-codes.npy",
    )
    folder.touch() if what == "file" else folder.symlink_to(tmp_path / "nothing")
    with pytest.raises(SystemExit, match=r"unfinished-codes\.npy cannot be made"):
        extract(script, saved[1], x, tmp_path / "codes.npy")
    with pytest.raises(SystemExit, match=r"cannot be made .*Name an OUTPUT"):
        extract(script, saved[1], x, tmp_path / "x.npy" / "codes.npy")
    with pytest.raises(SystemExit, match=r"error: .*name too long"):
        extract(script, saved[1], x, tmp_path / ("x" * 300 + ".npy"))


def test_work_that_another_program_cuts_off_is_an_error(
    script, saved, tmp_path, monkeypatch
):
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    codes = tmp_path / "unfinished-codes.npy" / "codes.npy"
    before_encode(1, monkeypatch, lambda: os.truncate(codes, 150))
    with pytest.raises(SystemExit, match="was cut off by another program"):
        extract(script, saved[1], x, output)
    extract(script, saved[1], x, output)
    expected = expected_codes(saved[0], floats())
    np.testing.assert_array_equal(dense(output), expected)


def with_chunk(path, kind, content, after=None):
    """Adds a chunk to a PNG, before its pixels or after a chunk."""
    data, at = path.read_bytes(), path.read_bytes().index(b"IDAT") - 4
    if after is not None:
        at = data.index(after) - 4
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    crc = zlib.crc32(kind + content).to_bytes(4, "big")
    chunk = len(content).to_bytes(4, "big") + kind + content + crc
    path.write_bytes(data[:at] + chunk + data[at:])


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


TURNED = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("value", TURNED)
def test_images_are_turned_as_their_exif_says(script, tmp_path, value, late):
    model = small_model(tmp_path / "model.keras", shape=(4, 6, 1))
    upright = images(1, (4, 6))[0]
    stored = next(
        x
        for x in (turn(upright) for turn in TURNED.values())
        if np.array_equal(TURNED[value](x), upright)
    )
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    exif = orientation(value)
    if late:
        Image.fromarray(stored).save(path)
        with_chunk(path, b"eXIf", exif.tobytes()[6:], after=b"IDAT")
    else:
        Image.fromarray(stored).save(path, exif=exif)
    output = tmp_path / "codes.npy"
    extract(script, tmp_path / "model.keras", path.parent, output)
    x = preprocess_input(upright[np.newaxis, ..., np.newaxis])
    np.testing.assert_array_equal(dense(output), expected_codes(model, x))


def test_the_size_of_an_image_is_that_after_it_is_turned(script, tmp_path):
    small_model(tmp_path / "model.keras", shape=(4, 6, 1))
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    image = Image.fromarray(images(1, (4, 6))[0])
    for exif in (None, orientation(6)):
        image.save(path, **({} if exif is None else {"exif": exif}))
        if exif is None:
            with_chunk(path, b"eXIf", orientation(6).tobytes()[6:], after=b"IDAT")
        with pytest.raises(SystemExit, match=r"a\.png is 4 × 6 .*6 × 4 is needed"):
            output = tmp_path / "codes.npy"
            extract(script, tmp_path / "model.keras", path.parent, output)
        assert_nothing_unfinished(tmp_path)


def translucent(mode, alpha):
    """An image of a mode with alpha, or with a colour that is transparent."""
    grey = Image.fromarray(images(1, (4, 4))[0] // 2 * 2)
    if mode in ("L", "RGB"):
        value = int(np.asarray(grey)[0, 0]) + (alpha == 255)
        return grey.convert(mode), {
            "transparency": (value,) * 3 if mode == "RGB" else value
        }
    if mode == "P":
        image = grey.quantize(4)
        return image, {"transparency": bytes([255, 255, alpha, 255])}
    image = grey.convert(mode)
    band = np.full((4, 4), 255, "uint8")
    band[1, 2] = alpha
    image.putalpha(Image.fromarray(band))
    return image, {}


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_transparency_is_an_error_where_the_model_has_none(
    script, tmp_path, recwarn, mode, channels
):
    model = small_model(tmp_path / "model.keras", shape=(4, 4, channels))
    path, output = tmp_path / "photos" / "a.png", tmp_path / "codes.npy"
    path.parent.mkdir()

    def run():
        extract(script, tmp_path / "model.keras", path.parent, output, "--overwrite")

    opaque, options = translucent(mode, 255)
    opaque.save(path, **options)
    run()
    x = np.asarray(opaque.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    x = preprocess_input(x.reshape(1, 4, 4, channels))
    np.testing.assert_array_equal(dense(output), expected_codes(model, x))
    image, options = translucent(mode, 254)
    image.save(path, **options)
    if channels == 4:
        run()
        with Image.open(path) as image:
            x = preprocess_input(np.asarray(image.convert("RGBA"))[np.newaxis])
        assert x[..., 3].min() < 1
        np.testing.assert_array_equal(dense(output), expected_codes(model, x))
    else:
        with pytest.raises(SystemExit, match=r"a\.png is transparent .*background"):
            run()
        assert_nothing_unfinished(tmp_path)
    assert not [w for w in recwarn if "ransparen" in str(w.message)]


def test_an_animated_image_is_an_error(script, saved, tmp_path):
    path = tmp_path / "photos" / "a.png"
    frames = [Image.fromarray(x[..., 0]) for x in images(3)]
    path.parent.mkdir()
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(SystemExit, match=r"a\.png holds 3 images.*Save the one"):
        extract(script, saved[1], path.parent, tmp_path / "codes.npy")


@pytest.mark.parametrize(("kind", "n_channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_images_of_16_bits_are_errors(script, tmp_path, kind, n_channels):
    small_model(tmp_path / "model.keras", shape=(4, 4, 3))
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    header = b"\x00\x00\x00\x04\x00\x00\x00\x04\x10" + bytes([kind, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x00IDAT" + bytes(4))
    with_chunk(path, b"IHDR", header)
    rows = 4 * (b"\x00" + bytes(range(8 * n_channels)))
    content = path.read_bytes().removesuffix(b"\x00\x00\x00\x00IDAT" + bytes(4))
    path.write_bytes(content)
    for name, data in ((b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        crc = zlib.crc32(name + data).to_bytes(4, "big")
        content += len(data).to_bytes(4, "big") + name + data + crc
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"a\.png has more than 8 bits.*Convert it"):
        extract(script, tmp_path / "model.keras", path.parent, tmp_path / "codes.npy")


def test_other_kinds_of_images_are_converted(script, tmp_path):
    model = small_model(tmp_path / "model.keras", shape=(4, 4, 1))
    folder = tmp_path / "photos"
    folder.mkdir()
    colour = Image.fromarray(images(1, (4, 4, 3))[0])
    kinds = [colour.quantize(8), colour.convert("1"), colour.convert("CMYK")]
    for name, image in zip(["a.png", "b.bmp", "c.jpg"], kinds, strict=True):
        image.save(folder / name)
    x = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            x.append(np.asarray(image.convert("L"))[..., np.newaxis])
    output = tmp_path / "codes.npy"
    extract(script, tmp_path / "model.keras", folder, output)
    assert_codes_of_images(model, output, x)


def test_linked_folders_are_followed_but_not_in_circles(
    script, saved, tmp_path, folder, capsys
):
    model, path = saved
    folder, x = folder
    elsewhere = tmp_path / "elsewhere"
    save_image(elsewhere / "deep" / "1.png", x[0])
    (folder / "link").symlink_to(elsewhere)
    (folder / "link2").symlink_to(elsewhere / "deep")
    (elsewhere / "deep" / "back").symlink_to(folder)
    (folder / "a" / "itself").symlink_to(folder / "a")
    output = extract(script, path, folder, tmp_path / "codes.npy")
    # From link2 a way leads back to the folder, but not from there to link2 again.
    assert_codes_of_images(model, output, [*x, x[0], x[0]])
    assert "4 other files are left out" not in capsys.readouterr().err


def test_files_that_are_left_out_are_told(script, saved, tmp_path, folder, capsys):
    folder, _ = folder
    extract(script, saved[1], folder, tmp_path / "a.npy")
    notes = [s for s in capsys.readouterr().err.splitlines() if "left out" in s]
    assert len(notes) == 1
    assert "2 other files are left out" in notes[0] and ".hidden.png" in notes[0]
    for name in (".hidden.png", "labels.txt"):
        (folder / name).unlink()
    extract(script, saved[1], folder, tmp_path / "b.npy")
    assert "left out" not in capsys.readouterr().err
    for name in ("x.tif", "x.gif", "a/x.webp", "link"):
        (folder / name).touch() if name != "link" else (folder / name).symlink_to(
            "link"
        )
    extract(script, saved[1], folder, tmp_path / "c.npy")
    assert "4 other files are left out, the first is" in capsys.readouterr().err


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nothing")])
def test_what_has_the_name_of_an_image_but_is_none_is_an_error(
    script, saved, tmp_path, folder, make
):
    make(folder[0] / "e.png")
    with pytest.raises(SystemExit, match=r"e\.png cannot be read as an image.*Replace"):
        extract(script, saved[1], folder[0], tmp_path / "codes.npy")


@pytest.mark.parametrize(
    "message",
    ["the code of x[3] holds a NaN", "row 3 of the codes is not finite"],
)
def test_a_row_that_encode_refuses_is_told_from_the_first_on(
    script, saved, tmp_path, monkeypatch, message
):
    def encode(*args):
        raise ValueError(message)

    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(script, saved[1], x, output)
    monkeypatch.setattr(sc2keras.SparseCoder, "encode", encode)
    with pytest.raises(SystemExit, match=r"the code of row 19 .*Scale"):
        extract(script, saved[1], x, output)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no such thing"), r"rows 0 to 7 cannot be encoded .*no such thing"),
        (MemoryError(), "Give a smaller --batch-rows"),
    ],
)
def test_an_error_of_encode_is_one_line(
    script, saved, tmp_path, monkeypatch, error, message
):
    x = save_npy(tmp_path / "x.npy", floats())
    interrupt_after(0, monkeypatch, error)
    with pytest.raises(SystemExit, match=message):
        extract(script, saved[1], x, tmp_path / "codes.npy")
    assert_nothing_unfinished(tmp_path)


def test_a_model_that_is_replaced_while_it_is_loaded_is_an_error(
    script, saved, tmp_path, monkeypatch
):
    path = tmp_path / "m.keras"
    small_model(path)
    load = keras.saving.load_model

    def slow_load(*args, **kwargs):
        loaded = load(*args, **kwargs)
        small_model(path, l1=0.1)
        return loaded

    monkeypatch.setattr(keras.saving, "load_model", slow_load)
    x = save_npy(tmp_path / "x.npy", floats())
    with pytest.raises(SystemExit, match=r"m\.keras cannot be loaded .*replaced"):
        extract(script, path, x, tmp_path / "codes.npy")


def test_any_number_of_rows_may_be_asked_for(script, saved, tmp_path, folder):
    extract(script, saved[1], folder[0], tmp_path / "a.npy", "--batch-rows", 10**30)
    assert len(dense(tmp_path / "a.npy")) == 5


# Imports once; then every run is a process of its own, as a shell would start it.
RUNNER = """
import importlib.util, os, random, signal, sys, time
spec = importlib.util.spec_from_file_location("extract_features", sys.argv[1])
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
script.SAVE_EVERY = 0.01


def run(arguments, seconds=None, signal_number=signal.SIGKILL):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, script.interrupted)
        try:
            script.main(arguments)
        except SystemExit as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        except BaseException:
            os._exit(99)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal_number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run_apart(code, *arguments):
    """A Python program after RUNNER, with arguments from sys.argv[2] on."""
    path = Path(__file__).parents[2] / "scripts" / "extract_features.py"
    command = [sys.executable, "-c", RUNNER + code, path, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(path.parent)}
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=environment
    )
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "suffix"), [("npy", ".npy"), ("images", ".npz")])
def test_fifty_kills_lose_and_double_nothing(saved, tmp_path, kind, suffix):
    if kind == "npy":
        x = save_npy(tmp_path / "x.npy", floats(3001))
    else:
        x = tmp_path / "photos"
        for i, image in enumerate(images(1001)):
            save_image(x / f"{i % 7}" / f"{i}.bmp", image)
    code = """
model, x, output, n_kills = *sys.argv[2:5], int(sys.argv[5])
arguments = [model, x, output, "--batch-rows", "8"]
whole = arguments[:2] + [os.path.join(os.path.dirname(output), "whole" + output[-4:])]
began = time.monotonic()
assert run(whole + arguments[3:]) == 0
seconds = time.monotonic() - began
expected, n_whole = open(whole[2], "rb").read(), 0
while n_kills:
    code = run(arguments, random.uniform(0, seconds))
    assert code in (0, -9), code
    n_kills -= code == -9
    if os.path.exists(output):
        assert open(output, "rb").read() == expected
        os.remove(output)
        n_whole += 1
assert run(arguments) == 0
assert open(output, "rb").read() == expected
print("whole", n_whole + 1)
"""
    out = run_apart(code, saved[1], x, tmp_path / f"codes{suffix}", 50)
    assert int(out.split()[-1]) > 1
    assert_nothing_unfinished(tmp_path)


@pytest.mark.slow
def test_of_two_runs_at_a_time_one_writes_the_output(saved, tmp_path):
    x = save_npy(tmp_path / "x.npy", floats(300))
    code = """
arguments = [*sys.argv[2:5], "--batch-rows", "8"]
output = arguments[2]
assert run([*arguments[:2], output + ".whole.npy", *arguments[3:]]) == 0
expected, states = open(output + ".whole.npy", "rb").read(), []
for _ in range(20):
    pids = []
    for _ in range(3):
        pids.append(os.fork())
        if not pids[-1]:
            time.sleep(random.uniform(0, 0.3))
            os._exit(run(arguments))
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert sorted(codes) == [0, 1, 1], codes
    assert open(output, "rb").read() == expected
    os.remove(output)
"""
    run_apart(code, saved[1], x, tmp_path / "codes.npy")
    assert_nothing_unfinished(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_keeps_what_is_done(saved, tmp_path, name):
    x = save_npy(tmp_path / "x.npy", floats(3001))
    code = """
number, arguments = getattr(signal, sys.argv[5]), [*sys.argv[2:5], "--batch-rows", "8"]
output = arguments[2]
progress = os.path.join(os.path.dirname(output), "unfinished-codes.npy/progress.json")
n_kept = 0
for _ in range(15):
    code = run(arguments, random.uniform(0.3, 2), number)
    if not code:
        os.remove(output)
    assert code in (0, 130, -number), code
    n_kept += os.path.exists(progress)
print(n_kept)
"""
    assert int(run_apart(code, saved[1], x, tmp_path / "codes.npy", name)) > 0


@pytest.mark.slow
def test_ctrl_c_shows_no_traceback_whenever_it_comes(saved, tmp_path):
    x = save_npy(tmp_path / "x.npy", floats(3001))
    program = Path(__file__).parents[2] / "scripts" / "extract_features.py"
    for seconds in np.linspace(0.2, 10, 8):
        command = [sys.executable, program, saved[1], x, tmp_path / "codes.npy"]
        with subprocess.Popen(
            [*map(str, command), "--batch-rows", "8", "--overwrite"],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            error = process.communicate()[1]
        assert "Traceback" not in error
        assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT, 0)


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of a few pages, or mounts it anew."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"nothing can be mounted: {error}")
        return disk

    yield mount
    subprocess.run(["umount", str(disk)])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("n_pages", [1, 3, 5])
def test_a_disk_that_is_full_keeps_what_is_done(
    script, saved, tmp_path, monkeypatch, small_disk, suffix, n_pages
):
    x = save_npy(tmp_path / "x.npy", floats(1000))
    whole = extract(script, saved[1], x, tmp_path / f"whole{suffix}")
    output = small_disk(f"size={4096 * n_pages}") / f"codes{suffix}"
    usage = script.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(script.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(script, "SAVE_EVERY", 0)
    with pytest.raises(
        SystemExit, match=r"error: .*No space left.*the cause is gone|Mend"
    ):
        extract(script, saved[1], x, output)
    assert not output.exists()
    small_disk("remount,size=1M")
    extract(script, saved[1], x, output)
    assert output.read_bytes() == whole.read_bytes()
    assert_nothing_unfinished(output.parent)


@pytest.mark.slow
def test_a_disk_that_cannot_be_written_is_an_error(script, saved, tmp_path, small_disk):
    x = save_npy(tmp_path / "x.npy", floats())
    disk = small_disk("size=1M")
    small_disk("remount,ro")
    with pytest.raises(SystemExit, match=r"cannot be made .*Read-only.*Name an OUTPUT"):
        extract(script, saved[1], x, disk / "codes.npy")
