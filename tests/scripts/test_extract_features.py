import json

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
    return load_program("scripts/extract_features.py")


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
