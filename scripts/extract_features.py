"""Codes of any number of vectors, from a saved model into one file.

    python scripts/extract_features.py MODEL.keras x.npy codes.npy     # dense, float32
    python scripts/extract_features.py MODEL.keras x.npz codes.npz --key x  # CSR
    python scripts/extract_features.py MODEL.keras photos/ codes.npy --resize
    python scripts/extract_features.py MODEL.keras mnist codes.npy --split train

Memory does not grow with the number of vectors. A run can be stopped at any moment: the
same command goes on where it was, and OUTPUT is there only once it is whole.
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import logging
import math
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from numpy.lib import format as npy_format
from reporting import positive_integer, positive_number, write_json
from tqdm import tqdm

import sc2keras
from sc2keras import datasets
from sc2keras.applications import preprocess_input
from sc2keras.applications.pretrained import file_sha256

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
IMAGE_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# What the signals and codes of a chunk take by default, in bytes of float32.
CHUNK_BYTES = 2**24
# Progress that a kill may lose, in seconds.
SAVE_EVERY = 2
# The kinds of INPUT that an option is for.
OPTION_FOR = {
    "key": ("npz",),
    "resize": ("images",),
    "split": ("digits", "tfds"),
    "data_dir": ("tfds",),
}


class Source(NamedTuple):
    """An input: its samples, what tells it from another, and how it is read.

    `chunks(start, n_rows)` yields arrays of at most `n_rows` samples, from sample
    `start` on.
    """

    n_rows: int
    shape: tuple[int, ...]
    dtype: np.dtype
    fingerprint: dict
    chunks: Callable[[int, int], Iterator[np.ndarray]]


def main(argv=None):
    args = parse_arguments(argv)
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    kind = kind_of_input(args.input)
    check_options(args, kind)
    check_output(args)
    model = load_model(args.model)
    shape = model.input_shape[1:]
    source = SOURCES[kind](args, shape)
    check_samples(args.input, source, shape)
    batch_size = model.batch_size_of_encode()
    batch_rows = args.batch_rows or default_batch_rows(model)
    batch_size = min(batch_size, batch_rows)
    settings = {
        "model_sha256": file_sha256(args.model),
        **source.fingerprint,
        "n_rows": source.n_rows,
        "threshold": args.threshold,
        "batch_rows": batch_rows,
        "batch_size": batch_size,
        "backend": keras.backend.backend(),
    }
    make = CSRCodes if args.output.suffix == ".npz" else DenseCodes
    folder = args.output.with_name("unfinished-" + args.output.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            codes = make(folder, settings, (source.n_rows, model.encoder.n_atoms))
            extract(model, source, codes, args.input)
            codes.finish(args.output)
    except OSError as error:
        sys.exit(
            f"error: {error}. What is done is kept in {folder}: the same command goes "
            "on from there once the cause is gone."
        )
    print(f"{args.output}: {codes.description()}")


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL.keras", help="a saved SparseCoder")
    add(
        "input",
        metavar="INPUT",
        help="array of samples (.npy, or .npz, compressed or not); folder of png, jpg "
        "and bmp images, folders in it included, in sorted order, converted to grey or "
        "colour as the model takes them; digits; or the name of a prepared dataset of "
        "TensorFlow Datasets, of which the feature 'image' is read. uint8 is scaled to "
        "[0, 1] (x / 255); floats are taken as they are. Samples may be flattened.",
    )
    add(
        "output",
        type=Path,
        metavar="OUTPUT",
        help=".npy: all codes, (n_samples, n_atoms), float32; .npz: a SciPy CSR array "
        "of the entries that are not zero, for scipy.sparse.load_npz",
    )
    add("--split", help="of digits or a TensorFlow dataset, such as train (test)")
    add("--key", help="the array of an .npz that holds several")
    add("--data-dir", type=Path, help="where TensorFlow Datasets keeps its datasets")
    add(
        "--resize",
        action="store_true",
        default=None,
        help="resize images (bilinear) to the model's input; otherwise another size is "
        "an error",
    )
    add(
        "--threshold",
        type=positive_number,
        metavar="T",
        help="leave entries of magnitude <= T out of the CSR array too",
    )
    add(
        "--batch-rows",
        type=positive_integer,
        metavar="N",
        help="samples that are held at a time (by default as many as take 16 MB with "
        "their codes)",
    )
    add("--overwrite", action="store_true", help="replace OUTPUT once all is done")
    return parser.parse_args(argv)


def kind_of_input(text):
    path = Path(text)
    suffix = path.suffix.lower()
    if path.is_dir():
        return "images"
    if suffix in (".npy", ".npz") and path.is_file():
        return suffix[1:]
    if path.exists():
        sys.exit(
            f"error: INPUT {text} is no .npy, .npz or folder. Save samples with "
            "numpy.save, or give the folder that an image is in."
        )
    if suffix in (".npy", ".npz"):
        sys.exit(f"error: INPUT {text} is not a file. Check the path.")
    return "digits" if text == "digits" else "tfds"


def check_options(args, kind):
    for name, kinds in OPTION_FOR.items():
        if getattr(args, name) is not None and kind not in kinds:
            sys.exit(
                f"error: --{name.replace('_', '-')} does not apply to INPUT "
                f"{args.input}; leave it out."
            )
    if args.threshold is not None and args.output.suffix != ".npz":
        sys.exit(
            f"error: --threshold {args.threshold:g} leaves entries out of a CSR array. "
            f"Name an OUTPUT that ends in .npz; received {args.output}."
        )


def check_output(args):
    output = args.output
    if output.suffix not in (".npy", ".npz"):
        sys.exit(
            f"error: OUTPUT {output} must end in .npy (all codes) or .npz (a CSR array)"
        )
    if not output.exists():
        return
    if not output.is_file():
        sys.exit(f"error: OUTPUT {output} is not a file. Name another.")
    if Path(args.input).exists() and output.samefile(args.input):
        sys.exit(f"error: OUTPUT {output} is INPUT itself. Name another.")
    if not args.overwrite:
        sys.exit(
            f"error: OUTPUT {output} is there. Name another, or replace it with "
            "--overwrite."
        )


def load_model(path):
    if not path.is_file():
        sys.exit(f"error: MODEL.keras {path} is not a file. Check the path.")
    try:
        model = keras.saving.load_model(path, compile=False)
    # A damaged or foreign file fails in many ways, all of them with the same remedy.
    except Exception as error:
        sys.exit(
            f"error: {path} cannot be loaded ({one_line(error)}). Give a .keras file "
            "that model.save wrote, and save it anew if it was cut off."
        )
    if not isinstance(model, sc2keras.SparseCoder):
        sys.exit(
            f"error: {path} holds a {type(model).__name__}. Give a SparseCoder, for "
            "instance a model of sc2keras.applications."
        )
    return model


def one_line(error):
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) < 300 else text[:297] + "..."


def file_fingerprint(path):
    status = os.stat(path)
    return {
        "input": str(Path(path).resolve()),
        "input_bytes": status.st_size,
        "input_mtime_ns": status.st_mtime_ns,
    }


def npy_source(args, _):
    def mapped():
        return np.load(args.input, mmap_mode="r")

    def chunks(start, n_rows):
        for first in range(start, shape[0], n_rows):
            # Mapped anew: what was read does not stay in the process.
            yield mapped()[first : first + n_rows]

    try:
        shape, dtype = mapped().shape, mapped().dtype
    except (OSError, ValueError, EOFError, AttributeError) as error:
        sys.exit(
            f"error: INPUT {args.input} cannot be read as .npy ({one_line(error)}). "
            "Write it anew with numpy.save."
        )
    return array_source(args.input, shape, dtype, file_fingerprint(args.input), chunks)


def npz_source(args, _):
    path, key = args.input, args.key

    def chunks(start, n_rows):
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(f"{key}.npy") as member,
        ):
            read_header(member)
            row_bytes = dtype.itemsize * math.prod(shape[1:])
            member.seek(start * row_bytes, os.SEEK_CUR)
            for first in range(start, shape[0], n_rows):
                n_held = min(n_rows, shape[0] - first)
                content = member.read(n_held * row_bytes)
                yield np.frombuffer(content, dtype).reshape(n_held, *shape[1:])

    try:
        with zipfile.ZipFile(path) as archive:
            names = [name[:-4] for name in archive.namelist() if name[-4:] == ".npy"]
            if key is None and len(names) == 1:
                key = names[0]
            if key not in names:
                asked = "" if key is None else f" and none named {key!r}"
                sys.exit(
                    f"error: INPUT {path} holds {len(names)} arrays{asked}. Choose one "
                    f"with --key: {', '.join(names) or 'there is none'}."
                )
            with archive.open(f"{key}.npy") as member:
                shape, fortran_order, dtype = read_header(member)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        sys.exit(
            f"error: INPUT {path} cannot be read as .npz ({one_line(error)}). Write it "
            "anew with numpy.savez."
        )
    if fortran_order and len(shape) > 1:
        sys.exit(
            f"error: array {key!r} of INPUT {path} is in Fortran order, so its rows do "
            "not follow one another. Save numpy.ascontiguousarray of it."
        )
    fingerprint = {**file_fingerprint(path), "key": key}
    return array_source(path, shape, dtype, fingerprint, chunks)


def read_header(member):
    """Shape, whether in Fortran order, and dtype of the array that a stream begins."""
    if npy_format.read_magic(member) == (1, 0):
        return npy_format.read_array_header_1_0(member)
    return npy_format.read_array_header_2_0(member)


def array_source(name, shape, dtype, fingerprint, chunks):
    if len(shape) < 2:
        sys.exit(
            f"error: INPUT {name} has shape {shape}, but needs (n_samples, ...). Save "
            "a single sample as x[numpy.newaxis]."
        )
    return Source(shape[0], shape[1:], dtype, fingerprint, chunks)


def image_source(args, shape):
    images = Images(Path(args.input), shape, args.resize)
    listing, n_images = hashlib.sha256(), 0
    # All headers first: an image that does not fit shows before hours of work.
    for path in tqdm(images.paths(), "checking images", unit="image", leave=False):
        images.check(path)
        status = path.stat()
        name = path.relative_to(images.folder).as_posix()
        listing.update(repr((name, status.st_size, status.st_mtime_ns)).encode())
        n_images += 1
    if not n_images:
        sys.exit(
            f"error: INPUT {images.folder} holds no image. Give a folder of "
            f"{', '.join(IMAGE_SUFFIXES)} files."
        )
    fingerprint = {
        "input": str(images.folder.resolve()),
        "files_sha256": listing.hexdigest(),
        "resize": bool(args.resize),
    }
    width, height = images.size
    channels = () if images.mode == "L" else (len(images.mode),)
    shape = (height, width, *channels)
    return Source(n_images, shape, np.dtype("uint8"), fingerprint, images.chunks)


class Images:
    """The images in a folder, in the mode and the size that a model takes."""

    def __init__(self, folder, shape, resize):
        self.folder, self.shape, self.resize = folder, shape, resize
        self.mode = self.size = None
        if len(shape) == 1:
            if resize:
                sys.exit(
                    f"error: --resize needs height and width, but the model takes "
                    f"vectors of {shape[0]} values. Resize the images beforehand."
                )
            return  # The first image decides.
        channels = shape[2] if len(shape) == 3 else 1
        if len(shape) > 3 or channels not in IMAGE_MODES:
            sys.exit(
                f"error: the model takes inputs of shape {shape}, which no image has. "
                "Save the samples as .npy."
            )
        self.mode, self.size = IMAGE_MODES[channels], (shape[1], shape[0])

    def paths(self):
        """The images of a folder, sorted, and then those of the folders in it."""
        for parent, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                    yield Path(parent, name)

    def check(self, path):
        with opened_image(path) as image:
            mode, size = image.mode, image.size
        if mode.startswith(("I", "F")):
            sys.exit(
                f"error: {path} has more than 8 bits a sample (Pillow's mode {mode}). "
                "Convert it to 8 bits, or save the samples as .npy of floats."
            )
        if self.size is None:
            modes = {math.prod(size): "L", 3 * math.prod(size): "RGB"}
            if self.shape[0] not in modes:
                sys.exit(
                    f"error: {path} is {size[0]} × {size[1]}, but the model takes "
                    f"vectors of {self.shape[0]} values. Resize the images."
                )
            self.mode, self.size = modes[self.shape[0]], size
        if size != self.size and not self.resize:
            remedy = ", or give --resize" if len(self.shape) > 1 else ""
            sys.exit(
                f"error: {path} is {size[0]} × {size[1]} (width × height), but "
                f"{self.size[0]} × {self.size[1]} is needed. Resize the images{remedy}."
            )

    def read(self, path):
        with opened_image(path) as image:
            image = image.convert(self.mode)
            if image.size != self.size:
                image = image.resize(self.size, pillow().Resampling.BILINEAR)
            return np.asarray(image)

    def chunks(self, start, n_rows):
        paths = itertools.islice(self.paths(), start, None)
        while held := [self.read(path) for path in itertools.islice(paths, n_rows)]:
            yield np.stack(held)


@contextlib.contextmanager
def opened_image(path):
    try:
        with pillow().open(path) as image:
            yield image
    except (OSError, pillow().DecompressionBombError) as error:
        sys.exit(
            f"error: {path} cannot be read as an image ({one_line(error)}). Replace or "
            "delete it."
        )


def pillow():
    try:
        from PIL import Image
    except ImportError as error:
        sys.exit(f"error: images need Pillow ({error}). Install it: pip install pillow")
    return Image


def digits_source(args, _):
    data = datasets.load("digits")
    splits = {"test": data.x_test, "train": data.x_train}
    split = args.split or "test"
    if split not in splits:
        sys.exit(f"error: --split {split!r} is not one of train, test.")
    x = splits[split]

    def chunks(start, n_rows):
        for first in range(start, len(x), n_rows):
            yield x[first : first + n_rows]

    fingerprint = {"input": "digits", "split": split}
    return Source(len(x), x.shape[1:], x.dtype, fingerprint, chunks)


def tfds_source(args, _):
    name, split = args.input, args.split or "test"
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        sys.exit(
            f"error: INPUT {name} is neither a file nor a folder, and as the name of a "
            f"dataset it needs TensorFlow Datasets ({error}). Check the path, or pip "
            "install 'sc2keras[datasets]'."
        )
    data_dir = args.data_dir or os.environ.get("TFDS_DATA_DIR")
    if args.data_dir is not None and not args.data_dir.is_dir():
        sys.exit(f"error: --data-dir {args.data_dir} is not a folder. Check the path.")
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        sys.exit(
            f"error: INPUT {name} is neither a file, a folder, nor a dataset of "
            f"TensorFlow Datasets ({one_line(error)[:100]}). Check the name."
        )
    if not builder.is_prepared():
        sys.exit(
            f"error: {builder.data_path} holds no prepared copy, and nothing is "
            "downloaded here. Give the --data-dir that holds one, or prepare it: "
            f"python -c \"import tensorflow_datasets as t; t.load('{name}')\""
        )
    try:
        n_rows = builder.info.splits[split].num_examples
    except (ValueError, KeyError) as error:
        sys.exit(f"error: --split {split!r} of {name!r}: {one_line(error)}")
    features = builder.info.features
    if "image" not in features:
        sys.exit(
            f"error: dataset {name!r} has no feature 'image', only "
            f"{', '.join(features)}. Save what is to be encoded as .npy."
        )
    shape = features["image"].shape
    if None in shape:
        sys.exit(
            f"error: the images of {name!r} differ in size. Save them as files of one "
            "size, or as files for --resize."
        )

    def chunks(start, n_rows):
        read = tfds.ReadConfig(try_autocache=False)
        data = builder.as_dataset(split, shuffle_files=False, read_config=read)
        images = data.map(lambda example: example["image"])
        # A split that begins at `start` would read the shards in another order.
        yield from images.skip(start).batch(n_rows).as_numpy_iterator()

    fingerprint = {
        "input": builder.info.full_name,
        "data_path": str(builder.data_path),
        "split": split,
    }
    dtype = np.dtype(features["image"].np_dtype)
    return Source(n_rows, shape, dtype, fingerprint, chunks)


SOURCES = {
    "npy": npy_source,
    "npz": npz_source,
    "images": image_source,
    "digits": digits_source,
    "tfds": tfds_source,
}


def check_samples(name, source, shape):
    """Only whole samples, flattened samples and missing axes of size 1 are reshaped."""
    if source.dtype != np.uint8 and source.dtype.kind != "f":
        sys.exit(
            f"error: INPUT {name} has dtype {source.dtype}. Give uint8, which is "
            "scaled by 1/255, or floats, scaled as those that the model was trained on."
        )
    same_size = math.prod(source.shape) == math.prod(shape)
    one_is_flat = min(len(source.shape), len(shape)) == 1
    long_axes = [[size for size in s if size != 1] for s in (source.shape, shape)]
    if not (same_size and one_is_flat) and long_axes[0] != long_axes[1]:
        sys.exit(
            f"error: INPUT {name} has samples of shape {source.shape}, but the model "
            f"takes {shape} or vectors of {math.prod(shape)} values. Reshape them, or "
            "give the model that was trained on such samples."
        )


def default_batch_rows(model):
    """As many batches of `encode` as `CHUNK_BYTES` hold, one at least."""
    n_values = math.prod(model.input_shape[1:]) + model.encoder.n_atoms
    batch_size = model.batch_size_of_encode()
    return batch_size * max(1, CHUNK_BYTES // (4 * n_values * batch_size))


def extract(model, source, codes, name):
    """Encodes what is not yet done, a chunk at a time."""
    batch_rows = codes.settings["batch_rows"]
    batch_size = codes.settings["batch_size"]
    if codes.n_done:
        print(f"going on after {codes.n_done:,} of {source.n_rows:,} vectors")
    chunks = source.chunks(codes.n_done, batch_rows)
    saved = time.monotonic()
    with tqdm(
        total=source.n_rows, initial=codes.n_done, unit="vector", unit_scale=True
    ) as bar:
        try:
            while codes.n_done < source.n_rows:
                start = codes.n_done
                samples = next_samples(chunks, start, name)
                samples = prepare(samples, start, model.input_shape[1:], name)
                codes.append(encode(model, samples, batch_size, source.n_rows, start))
                bar.update(len(samples))
                if time.monotonic() > saved + SAVE_EVERY:
                    codes.save()
                    saved = time.monotonic()
        finally:
            codes.save()


def next_samples(chunks, start, name):
    try:
        return next(chunks)
    # Files, archives, images and TensorFlow fail in many ways, with one remedy.
    except Exception as error:
        sys.exit(
            f"error: INPUT {name} cannot be read from row {start} on "
            f"({one_line(error)}). Write it anew: it is damaged or was changed."
        )


def prepare(samples, start, shape, name):
    """Samples as finite float32 in the shape of the model's input."""
    if samples.dtype == np.uint8:
        return preprocess_input(samples).reshape(-1, *shape)
    with np.errstate(over="ignore"):  # It makes an infinity, which is found below.
        samples = samples.astype("float32").reshape(-1, *shape)
    row = first_non_finite(samples)
    if row is not None:
        sys.exit(
            f"error: row {start + row} of INPUT {name} holds a NaN, an infinity or a "
            "value beyond float32. Drop or fill such rows, for instance with "
            "numpy.nan_to_num."
        )
    return samples


def encode(model, samples, batch_size, n_rows, start):
    """The codes of a chunk; they do not depend on where a run began."""
    n_samples = len(samples)
    if n_samples < batch_size <= n_rows:
        # So few would be encoded without XLA, whose last bits are others.
        padded = np.zeros((batch_size, *samples.shape[1:]), dtype="float32")
        padded[:n_samples] = samples
        samples = padded
    codes = model.encode(samples, batch_size)[:n_samples]
    row = first_non_finite(codes)
    if row is not None:
        sys.exit(
            f"error: the code of row {start + row} holds a NaN or an infinity. Scale "
            "the input as the model was trained, about [0, 1]."
        )
    return codes


def first_non_finite(rows):
    finite = np.isfinite(rows)
    return None if finite.all() else int(np.argwhere(~finite)[0][0])


class Codes:
    """Codes on their way to a file: raw files in a folder, which grow by chunks.

    `progress.json` tells how much of them is whole; what a kill left beyond that is cut
    off when the next run goes on.
    """

    def __init__(self, folder, settings, shape):
        self.folder, self.settings, self.shape = folder, settings, shape
        self.n_done, self.sizes = self._found()
        for name, size in self.sizes.items():
            os.truncate(folder / name, size)
        if not self.n_done:
            self.sizes = {}
            for name, content in self.start().items():
                (folder / name).write_bytes(content)
                self.sizes[name] = len(content)
        self._check_disk()

    def _found(self):
        """The rows that are done, and the sizes of the files that hold them."""
        path = self.folder / "progress.json"
        if not path.exists():
            return 0, {}
        found = json.loads(path.read_text())
        differences = [
            f"{name} was {found['settings'].get(name)!r} and is {value!r}"
            for name, value in self.settings.items()
            if found["settings"].get(name) != value
        ]
        if differences:
            sys.exit(
                f"error: {self.folder} holds unfinished work of other settings: "
                f"{'; '.join(differences)}. Give those again, or delete that folder to "
                "start from the first row."
            )
        for name, size in found["sizes"].items():
            held = self.folder / name
            if not held.exists() or held.stat().st_size < size:
                return 0, {}
        return found["n_done"], found["sizes"]

    def _check_disk(self):
        free = shutil.disk_usage(self.folder).free
        missing = self.n_bytes() - sum(self.sizes.values())
        if missing > free:
            sys.exit(
                f"error: the codes need {missing / 1e9:.2f} GB more in "
                f"{self.folder.parent}, where {free / 1e9:.2f} GB are free. Make room, "
                "or name an OUTPUT elsewhere."
            )

    def n_bytes(self):
        """The bytes that all rows need, as far as that is known beforehand."""
        return 0

    def append(self, codes):
        sizes = dict(self.sizes)
        for name, content in self.parts(codes).items():
            with open(self.folder / name, "ab") as file:
                file.write(content)
            sizes[name] += content.nbytes
        self.n_done, self.sizes = self.n_done + len(codes), sizes

    def save(self):
        """Records what is done, once it is on the disk."""
        for name in self.sizes:
            with open(self.folder / name, "ab") as file:
                os.fsync(file.fileno())
        state = {"settings": self.settings, "n_done": self.n_done, "sizes": self.sizes}
        write_json(self.folder / "progress.json", state)

    def finish(self, output):
        os.replace(self.whole(), output)
        shutil.rmtree(self.folder)


class DenseCodes(Codes):
    """All entries, in an `.npy` file."""

    def start(self):
        return {"codes.npy": npy_header("<f4", self.shape)}

    def n_bytes(self):
        return 4 * math.prod(self.shape)

    def parts(self, codes):
        return {"codes.npy": np.ascontiguousarray(codes, "<f4")}

    def whole(self):
        return self.folder / "codes.npy"

    def description(self):
        return f"{self.shape[0]:,} codes of {self.shape[1]} atoms, float32"


class CSRCodes(Codes):
    """The entries that are not zero, as `scipy.sparse.save_npz` writes a CSR array."""

    warned = False

    def start(self):
        return {"data": b"", "indices": b"", "indptr": np.zeros(1, "<i8").tobytes()}

    def n_entries(self):
        return self.sizes["data"] // 4

    def parts(self, codes):
        kept = np.abs(codes) > (self.settings["threshold"] or 0)
        n_kept = np.count_nonzero(kept, axis=1)
        self._warn_if_dense(n_kept.sum() / kept.size)
        return {
            "data": codes[kept].astype("<f4", copy=False),
            "indices": np.nonzero(kept)[1].astype("<i4"),
            "indptr": self.n_entries() + np.cumsum(n_kept, dtype="<i8"),
        }

    def _warn_if_dense(self, fraction):
        if self.warned or fraction <= 0.5:
            return
        self.warned = True
        tqdm.write(
            f"warning: {fraction:.0%} of the entries are kept; above 50% a CSR array "
            "is larger than an .npy of all codes. A double tanh makes small codes, but "
            "never an exact zero: --threshold T leaves out those of magnitude <= T.",
            file=sys.stderr,
        )

    def whole(self):
        path = self.folder / "codes.npz"
        indptr = "<i4" if self.n_entries() < 2**31 else "<i8"
        with zipfile.ZipFile(path, "w") as archive:
            self._add_file(archive, "indices", "<i4", "<i4")
            self._add_file(archive, "indptr", "<i8", indptr)
            add_array(archive, "format", np.array(b"csr"))
            add_array(archive, "shape", np.array(self.shape, "<i8"))
            self._add_file(archive, "data", "<f4", "<f4")
            add_array(archive, "_is_array", np.array(True))
        return path

    def _add_file(self, archive, name, stored, dtype):
        n_values = self.sizes[name] // np.dtype(stored).itemsize
        with (
            open(self.folder / name, "rb") as file,
            add_member(archive, name) as member,
        ):
            member.write(npy_header(dtype, (n_values,)))
            while len(values := np.fromfile(file, stored, 2**20)):
                member.write(values.astype(dtype, copy=False))

    def description(self):
        n_rows, n_atoms = self.shape
        fraction = self.n_entries() / max(1, n_rows * n_atoms)
        return (
            f"{n_rows:,} codes of {n_atoms} atoms, CSR, {self.n_entries():,} entries "
            f"({fraction:.1%})"
        )


def add_member(archive, name):
    # A member that is opened by name has no date: the same codes make the same file.
    return archive.open(f"{name}.npy", "w", force_zip64=True)


def add_array(archive, name, array):
    with add_member(archive, name) as member:
        npy_format.write_array(member, array)


def npy_header(dtype, shape):
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, header)
    return file.getvalue()


@contextlib.contextmanager
def locked(folder):
    """Keeps a second run out of a folder: it would write into the same files."""
    try:
        import fcntl
    except ImportError:  # Windows.
        yield
        return
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(
                f"error: another run works in {folder}. Wait for it, or name another "
                "OUTPUT."
            )
        yield


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on where this one stopped")
