"""Codes of any number of vectors, from a saved model into one file.

    python scripts/extract_features.py MODEL.keras x.npy codes.npy     # dense, float32
    python scripts/extract_features.py MODEL.keras x.npz codes.npz --key x  # CSR
    python scripts/extract_features.py MODEL.keras photos/ codes.npy --resize
    python scripts/extract_features.py MODEL.keras mnist codes.npy --split train

Memory does not grow with the number of vectors. A run can be stopped at any moment: the
same command goes on where it was, also if images were added behind those that are done.
OUTPUT is there only once it is whole, and only if INPUT did not change meanwhile.
"""

import argparse
import contextlib
import errno
import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
import shutil
import signal
import stat
import sys
import time
import zipfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    # The imports take seconds, in which Ctrl-C would show a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import keras
import numpy as np
from numpy.lib import format as npy_format
from reporting import positive_integer, positive_number
from tqdm import tqdm

import sc2keras
from sc2keras import datasets
from sc2keras.applications import preprocess_input
from sc2keras.applications.pretrained import file_sha256
from sc2keras.files import put_file

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
# A file is opened by its own name, without waiting for the other end of a pipe.
PLAIN = sum(getattr(os, f"O_{flag}", 0) for flag in ("NOFOLLOW", "NONBLOCK", "BINARY"))
ORIENTATION = 274  # The EXIF tag.
# What is called before Ctrl-C ends the program.
UNSAVED: list[Callable[[], None]] = []


class Source(NamedTuple):
    """An input: its samples, what tells it from another, and how it is read.

    `chunks(start, n_rows)` yields arrays of at most `n_rows` samples, from sample
    `start` on. It and `check()` raise `Changed` if the input is not what it was when
    the source was made. `listing(n_rows)` tells the first rows from others, where an
    input may grow between two runs.
    """

    n_rows: int
    shape: tuple[int, ...]
    dtype: np.dtype
    fingerprint: dict
    chunks: Callable[[int, int], Iterator[np.ndarray]]
    check: Callable[[], None] = lambda: None
    listing: Callable[[int], str | None] = lambda n_rows: None


class Changed(Exception):
    """The input is not what it was, from a row on."""

    def __init__(self, what, row=0):
        super().__init__(what)
        self.row = row


def main(argv=None):
    args = parse_arguments(argv)
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Beside the file that a link leads to: a file moves there without being copied.
    output = Path(os.path.realpath(args.output))
    folder = output.with_name("unfinished-" + output.name)
    try:
        run(args, folder)
    except OSError as error:
        where = "" if error.filename else f" ({folder})"
        remedy = (
            kept_in(folder, "once the cause is gone") or " Mend that, and try again."
        )
        sys.exit(f"error: {error}{where}.{remedy}")
    except MemoryError:
        sys.exit(
            "error: the memory does not suffice. Give a smaller --batch-rows, and "
            f"delete {folder} if it is there."
        )


def kept_in(folder, condition):
    if not os.path.lexists(folder / "progress.json"):
        return ""
    return (
        f" What is done is kept in {folder}: the same command goes on from there "
        f"{condition}."
    )


def run(args, folder):
    kind = kind_of_input(args.input)
    check_options(args, kind)
    check_output(args, folder)
    model, model_sha256 = load_model(args.model)
    shape = model.input_shape[1:]
    source = SOURCES[kind](args, shape)
    check_samples(args.input, source, shape)
    batch_size = model.batch_size_of_encode()
    batch_rows = min(args.batch_rows or default_batch_rows(model), sys.maxsize)
    settings = {
        "model_sha256": model_sha256,
        **source.fingerprint,
        "threshold": args.threshold,
        "batch_rows": batch_rows,
        "batch_size": min(batch_size, batch_rows),
        "backend": keras.backend.backend(),
    }
    make = CSRCodes if args.output.suffix == ".npz" else DenseCodes
    with locked(folder):
        check_output(args, folder)  # Again: another run may have come to its end.
        finished = folder / f"codes{args.output.suffix}"
        with contextlib.suppress(FileNotFoundError):
            if finished.samefile(args.output):
                finished.unlink()  # A kill left OUTPUT with this second name.
        shape = (source.n_rows, model.encoder.n_atoms)
        with make(folder, settings, shape, source.listing) as codes:
            codes.check_disk()
            try:
                extract(model, source, codes, args.input)
                finished = codes.whole()
                source.check()
            except Changed as change:
                sys.exit(after_change(args.input, change, codes))
            try:
                put_file(finished, args.output, args.overwrite)
            except FileExistsError:
                sys.exit(
                    f"error: OUTPUT {args.output} has appeared meanwhile, and is left "
                    f"as it is. The finished codes are kept in {folder}: the same "
                    "command with --overwrite puts them in its place."
                )
            description = codes.description()
            codes.discard()
    print(f"{args.output}: {description}")


def after_change(name, change, codes):
    """Drops the rows that may not be those of the input, and tells what is left."""
    codes.keep(change.row)
    goes_on = (
        f"The {codes.n_done:,} rows before that are kept, and the same command goes on "
        "after them."
        if codes.n_done
        else "Nothing of it is kept: the same command starts from the first row."
    )
    return f"error: INPUT {name} was changed while it was read ({change}). {goes_on}"


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
        "and bmp images, folders and links to folders in it included, in sorted order, "
        "turned as their EXIF says and converted to grey or colour as the model takes "
        "them; digits; or the name of a prepared dataset of TensorFlow Datasets, of "
        "which the feature 'image' is read. uint8 is scaled to [0, 1] (x / 255); "
        "floats are taken as they are. Samples may be flattened.",
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


def check_output(args, folder):
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
            f"--overwrite.{kept_in(folder, 'with --overwrite')}"
        )
    if not os.access(output, os.W_OK):
        sys.exit(
            f"error: OUTPUT {output} is protected against writing. Name another, or "
            "allow it with chmod."
        )


def load_model(path):
    if not path.is_file():
        sys.exit(f"error: MODEL.keras {path} is not a file. Check the path.")
    try:
        sha256 = file_sha256(path)
        model = keras.saving.load_model(path, compile=False)
        if file_sha256(path) != sha256:
            raise ValueError("it was replaced meanwhile")
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
    return model, sha256


def one_line(error):
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) < 300 else text[:297] + "..."


def file_state(path):
    """What changes with a file, and with the file that a name stands for."""
    status = os.stat(path)
    # The last of them cannot be set, but a copy of the file has another.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def watch(state):
    """A function that raises `Changed` once `state()` is not what it is now."""
    before = state()

    def check():
        if state() != before:
            raise Changed("its size or a date is another")

    return check


def checked(chunks, check):
    """Chunks that were read before the input changed."""

    def checked_chunks(start, n_rows):
        for samples in chunks(start, n_rows):
            check()
            yield samples

    return checked_chunks


def file_fingerprint(path):
    """What tells a file from another, between two runs and after a copy of it."""
    status = os.stat(path)
    # A sample of the content too: a date can be set.
    content, n_bytes = hashlib.sha256(), 2**14
    with open(path, "rb") as file:
        for block in range(64):
            file.seek(block * max(0, status.st_size - n_bytes) // 63)
            content.update(file.read(n_bytes))
    return {
        "input": str(Path(path).resolve()),
        "input_bytes": status.st_size,
        "input_mtime_ns": status.st_mtime_ns,
        "input_sample_sha256": content.hexdigest(),
    }


def npy_source(args, _):
    path = args.input
    check = watch(lambda: file_state(path))

    def read(file, first, n_rows):
        n_values = math.prod(shape[1:])
        if not fortran_order:
            file.seek(offset + first * n_values * dtype.itemsize)
            return np.fromfile(file, dtype, n_rows * n_values).reshape(n_rows, -1)
        columns = []
        for column in range(n_values):
            file.seek(offset + (column * shape[0] + first) * dtype.itemsize)
            columns.append(np.fromfile(file, dtype, n_rows))
        return np.stack(columns, axis=1)

    def chunks(start, n_rows):
        # Not mapped: a file that is cut short would end the process.
        with open(path, "rb") as file:
            for first in range(start, shape[0], n_rows):
                rows = read(file, first, min(n_rows, shape[0] - first))
                order = "F" if fortran_order else "C"
                yield rows.reshape((-1, *shape[1:]), order=order)

    try:
        with open(path, "rb") as file:
            shape, fortran_order, dtype = read_header(file)
            offset = file.tell()
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        missing = offset + dtype.itemsize * math.prod(shape) - os.stat(path).st_size
        if missing > 0:
            raise ValueError(f"{missing} bytes are missing")
    except Exception as error:
        sys.exit(
            f"error: INPUT {path} cannot be read as .npy ({one_line(error)}). "
            "Write it anew with numpy.save."
        )
    return array_source(path, shape, dtype, file_fingerprint(path), chunks, check)


def npz_source(args, _):
    path, key = args.input, args.key
    check = watch(lambda: file_state(path))

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
    except Exception as error:
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
    return array_source(path, shape, dtype, fingerprint, chunks, check)


def read_header(member):
    """Shape, whether in Fortran order, and dtype of the array that a stream begins."""
    if npy_format.read_magic(member) == (1, 0):
        return npy_format.read_array_header_1_0(member)
    return npy_format.read_array_header_2_0(member)


def array_source(name, shape, dtype, fingerprint, chunks, check):
    if len(shape) < 2 or min(shape) < 0:
        sys.exit(
            f"error: INPUT {name} has shape {shape}, but needs (n_samples, ...). Save "
            "a single sample as x[numpy.newaxis]."
        )
    chunks = checked(chunks, check)
    return Source(shape[0], shape[1:], dtype, fingerprint, chunks, check)


def image_source(args, shape):
    images = Images(Path(args.input), shape, args.resize)
    # All headers first: an image that does not fit shows before hours of work.
    for path in tqdm(images.paths(), "checking images", unit="image", leave=False):
        images.add(path)
    if images.n_left_out:
        print(
            f"note: {images.n_left_out:,} other files are left out, the first is "
            f"{images.first_left_out}. Read are {', '.join(IMAGE_SUFFIXES)} files that "
            "are not hidden.",
            file=sys.stderr,
        )
    if not images.listed:
        sys.exit(
            f"error: INPUT {images.folder} holds no image. Give a folder of "
            f"{', '.join(IMAGE_SUFFIXES)} files."
        )
    fingerprint = {
        "input": str(images.folder.resolve()),
        "resize": bool(args.resize),
    }
    width, height = images.size
    channels = () if images.mode == "L" else (len(images.mode),)
    shape = (height, width, *channels)
    return Source(
        len(images.listed),
        shape,
        np.dtype("uint8"),
        fingerprint,
        images.chunks,
        images.check,
        images.listing,
    )


class Images:
    """The images in a folder, in the mode and the size that a model takes."""

    def __init__(self, folder, shape, resize):
        self.folder, self.shape, self.resize = folder, shape, resize
        # 16 bytes an image: name, size and date as a hash, and the time of any change.
        self.listed, self.changed = array("Q"), array("q")
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
        """The images of a folder, sorted, and then those of the folders in it.

        Linked folders are followed, but not back to a folder that they are in.
        """
        self.n_left_out, self.first_left_out = 0, None
        pending = [(self.folder, frozenset())]
        while pending:
            folder, above = pending.pop()
            status = os.stat(folder)
            here = (status.st_dev, status.st_ino)
            if here in above:
                self._leave_out(folder)
                continue
            folders = []
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
            for path in (Path(folder, name) for name in names):
                if path.name.startswith("."):
                    self._leave_out(path)
                elif os.path.isdir(path):
                    folders.append((path, above | {here}))
                elif not path.name.lower().endswith(IMAGE_SUFFIXES):
                    self._leave_out(path)
                else:
                    yield path
            pending += reversed(folders)

    def _leave_out(self, path):
        self.n_left_out += 1
        self.first_left_out = self.first_left_out or path

    def add(self, path):
        """Lists an image, after a look at its header."""
        try:
            state = self.state(path)
        except OSError as error:
            sys.exit(cannot_be_read(path, one_line(error)))
        with opened_image(path) as image:
            self._check_kind(path, image)
            size = upright_size(image, self.size is None)
            if size != self.size and not self.resize:
                size = upright_size(image, True)
            self._check_size(path, size)
        self.listed.append(state[0])
        self.changed.append(state[1])

    def state(self, path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a file")
        name = path.relative_to(self.folder).as_posix()
        listed = repr((name, status.st_size, status.st_mtime_ns)).encode()
        digest = hashlib.blake2b(listed, digest_size=8).digest()
        return int.from_bytes(digest, "big"), status.st_ctime_ns

    def listing(self, n_rows):
        first = self.listed[:n_rows]
        return hashlib.sha256(first).hexdigest() if len(first) == n_rows else None

    def check(self):
        """All images: that none was changed, removed or added."""
        row = -1
        for row, path in enumerate(self.paths()):
            self._check_image(row, path)
        if row < 0:  # A disk that was unplugged, for instance.
            raise FileNotFoundError(f"no image is left in {self.folder}")
        if row + 1 < len(self.listed):
            raise Changed("there are fewer images", row + 1)

    def _check_image(self, row, path):
        before = (*self.listed[row : row + 1], *self.changed[row : row + 1])
        try:
            if self.state(path) == before:
                return
        except FileNotFoundError:
            pass
        raise Changed(path, row)

    def _check_kind(self, path, image):
        n_frames = getattr(image, "n_frames", 1)
        if n_frames > 1:
            sys.exit(
                f"error: {path} holds {n_frames} images, as an animation does. Save "
                "the one that is meant as a file of one image, and delete this one."
            )
        # Pillow cuts some kinds of 16 bits down to 8; BGR;16 is 16 bits a pixel.
        modes = [image.mode, *re.findall(r"\b[RGBAL]+;16\w?", str(image.tile))]
        many_bits = [
            m for m in modes if m[0] in "IF" or ("16" in m and not m.startswith("BGR"))
        ]
        if many_bits:
            sys.exit(
                f"error: {path} has more than 8 bits a sample (mode {many_bits[0]} in "
                "Pillow). Convert it to 8 bits, or save the samples as .npy of floats."
            )

    def _check_size(self, path, size):
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

    def read(self, row, path):
        self._check_image(row, path)
        with opened_image(path) as image:
            image = pillow().ImageOps.exif_transpose(image)
            self._check_size(path, image.size)
            if self.mode != "RGBA" and image.has_transparency_data:
                if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                    sys.exit(
                        f"error: {path} is transparent in places, but the model takes "
                        f"images of Pillow's mode {self.mode}. Flatten it onto a "
                        "background, for instance with PIL.Image.alpha_composite."
                    )
                image.info.pop("transparency", None)
            image = image.convert(self.mode)
            if image.size != self.size:
                image = image.resize(self.size, pillow().Image.Resampling.BILINEAR)
            samples = np.asarray(image)
        self._check_image(row, path)
        return samples

    def chunks(self, start, n_rows):
        images = itertools.islice(enumerate(self.paths()), start, None)
        while held := [self.read(*image) for image in itertools.islice(images, n_rows)]:
            yield np.stack(held)


def upright_size(image, thorough):
    """Width and height once the image is turned as its EXIF says."""
    # In a PNG it may follow the pixels, which are decoded to get there.
    early = "exif" in image.info or image.format != "PNG"
    exif = image.getexif() if early or thorough else {}
    return image.size[::-1] if exif.get(ORIENTATION) in (5, 6, 7, 8) else image.size


@contextlib.contextmanager
def opened_image(path):
    try:
        with pillow().Image.open(path) as image:
            yield image
    # A damaged image fails in many ways.
    except Exception as error:
        sys.exit(cannot_be_read(path, one_line(error)))


def cannot_be_read(path, why):
    return f"error: {path} cannot be read as an image ({why}). Replace or delete it."


def pillow():
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        sys.exit(f"error: images need Pillow ({error}). Install it: pip install pillow")
    return PIL


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

    def states():
        """Of the files that hold it, where they are not on a server."""
        paths = sorted(Path(str(builder.data_path)).glob("*"))
        return [(path.name, *file_state(path)) for path in paths]

    check = watch(states)
    try:
        n_rows = builder.info.splits[split].num_examples
    except Exception as error:
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

    files = hashlib.sha256(repr([state[:-1] for state in states()]).encode())
    fingerprint = {
        "input": builder.info.full_name,
        "data_path": str(builder.data_path),
        "files_sha256": files.hexdigest(),
        "split": split,
        "n_rows": n_rows,
    }
    dtype = np.dtype(features["image"].np_dtype)
    chunks = checked(chunks, check)
    return Source(n_rows, shape, dtype, fingerprint, chunks, check)


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
        done = f"{codes.n_done:,} of {source.n_rows:,} vectors"
        print(f"going on after {done}", flush=True)
    chunks = source.chunks(codes.n_done, batch_rows)
    saved = time.monotonic()
    with tqdm(
        total=source.n_rows, initial=codes.n_done, unit="vector", unit_scale=True
    ) as bar:
        UNSAVED.append(codes.save)
        try:
            while codes.n_done < source.n_rows:
                start = codes.n_done
                samples = next_samples(chunks, start, name, source.check)
                samples = prepare(samples, start, model.input_shape[1:], name)
                codes.append(encode(model, samples, batch_size, source.n_rows, start))
                bar.update(len(samples))
                if time.monotonic() > saved + SAVE_EVERY:
                    codes.save()
                    saved = time.monotonic()
        finally:
            codes.save()
            UNSAVED.clear()


def next_samples(chunks, start, name, check):
    try:
        return next(chunks)
    # Files, archives, images and TensorFlow fail in many ways, with one remedy.
    except Exception as error:
        check()  # A change is the cause of many of them, perhaps of a row before.
        if isinstance(error, (Changed, MemoryError)):
            raise
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
        n_missing = batch_size - n_samples
        samples = np.concatenate([samples, samples[-1:].repeat(n_missing, axis=0)])
    try:
        codes = model.encode(samples, batch_size)[:n_samples]
        row = first_non_finite(codes)
    except ValueError as error:
        named = re.search(r"\b(?:row |x\[)(\d+)", str(error))
        if named is None:
            sys.exit(
                f"error: rows {start} to {start + n_samples - 1} cannot be encoded "
                f"({one_line(error)})."
            )
        row = int(named[1])
    if row is not None:
        sys.exit(
            f"error: the code of row {start + row} holds a NaN or an infinity. Scale "
            "the input as the model was trained, about [0, 1]."
        )
    return codes


def first_non_finite(rows):
    finite = np.isfinite(rows)
    return None if finite.all() else int(np.argwhere(~finite)[0][0])


class Done(NamedTuple):
    """The rows that are done, and the bytes of them in each file."""

    n_rows: int
    sizes: dict


class Codes:
    """Codes on their way to a file: raw files in a folder, which grow by chunks.

    `progress.json` tells how much of them is whole; what a kill left beyond that is cut
    off when the next run goes on. As a context, they leave no file if nothing is done.
    """

    names: tuple[str, ...]

    def __init__(self, folder, settings, shape, listing=lambda n_rows: None):
        self.folder, self.settings, self.shape = folder, settings, shape
        self.listing = listing
        for name in (*self.names, "progress.json", "progress.part"):
            with contextlib.suppress(FileNotFoundError):
                opened(folder / name).close()
        self.done = self._found()
        if self.done is None:
            self.done = Done(0, {})
            for name, content in self.start().items():
                self._create(name, content)
                self.sizes[name] = len(content)
        for name, size in self.sizes.items():
            with opened(folder / name, os.O_RDWR) as file:
                file.truncate(size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self.n_done:
            self.discard()

    @property
    def n_done(self):
        return self.done.n_rows

    @property
    def sizes(self):
        return self.done.sizes

    def _create(self, name, content):
        (self.folder / name).unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        with opened(self.folder / name, flags) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _found(self):
        """What an earlier run did, or None."""
        try:
            with opened(self.folder / "progress.json") as file:
                found = json.loads(file.read(2**20))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            self._refuse_damaged(one_line(error))
        kinds = {"settings": dict, "n_done": int, "n_entries": int, "sizes": dict}
        for name, kind in kinds.items():
            if not isinstance(found, dict) or type(found.get(name)) is not kind:
                self._refuse_damaged(f"it holds no {name}")
        n_done, n_entries = found["n_done"], found["n_entries"]
        differences = [
            f"{name} was {found['settings'].get(name)!r} and is {value!r}"
            for name, value in self.settings.items()
            if found["settings"].get(name) != value
        ]
        if n_done > 0 and found.get("listing") != self.listing(n_done):
            differences.append(
                f"one of the first {n_done:,} images was changed, inserted or removed"
            )
        if differences:
            sys.exit(
                f"error: {self.folder} holds unfinished work of other settings: "
                f"{'; '.join(differences)}. Give those again, or delete that folder to "
                "start from the first row."
            )
        sizes = self.sizes_of(n_done, n_entries)
        if (
            not 0 < n_done <= self.shape[0]
            or not 0 <= n_entries <= n_done * self.shape[1]
            or found["sizes"] != sizes
        ):
            self._refuse_damaged(f"n_done {n_done} and {found['sizes']} do not fit")
        for name, size in sizes.items():
            held = self.folder / name
            if not held.exists() or held.stat().st_size < size:
                tqdm.write(
                    f"note: {held} is gone or was cut off: starting from the first row",
                    file=sys.stderr,
                )
                return None
        # More images may have come since: the last chunk was perhaps a smaller one.
        done = Done(n_done, sizes) if n_done == self.shape[0] else self._first(n_done)
        if self.n_entries_at(n_done) != n_entries or not all(
            0 <= done.sizes[name] <= size for name, size in sizes.items()
        ):
            self._refuse_damaged(f"n_entries {n_entries} do not fit indptr")
        return done

    def _first(self, n_rows):
        """The whole chunks of so many rows; a run that goes on makes the same again."""
        n_rows -= n_rows % self.settings["batch_rows"]
        return Done(n_rows, self.sizes_of(n_rows, self.n_entries_at(n_rows)))

    def _refuse_damaged(self, why):
        sys.exit(
            f"error: {self.folder / 'progress.json'} is damaged ({why:.300}). Delete "
            f"{self.folder} to start from the first row."
        )

    def check_disk(self):
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
            with opened(self.folder / name, os.O_RDWR) as file:
                if file.seek(0, os.SEEK_END) < sizes[name]:
                    raise OSError(
                        f"{self.folder / name} was cut off by another program"
                    )
                file.seek(sizes[name])
                file.write(content)
            sizes[name] += content.nbytes
        # At once: Ctrl-C may come between any two lines.
        self.done = Done(self.n_done + len(codes), sizes)

    def save(self):
        """Records what is done, once it is on the disk."""
        n_done, sizes = self.done
        if not n_done:
            return
        for name in sizes:
            with opened(self.folder / name, os.O_RDWR) as file:
                os.fsync(file.fileno())
        state = {
            "settings": self.settings,
            "n_done": n_done,
            "n_entries": self.n_entries(),
            "sizes": sizes,
            "listing": self.listing(n_done),
        }
        self._create("progress.part", json.dumps(state, indent=1).encode())
        os.replace(self.folder / "progress.part", self.folder / "progress.json")

    def keep(self, n_rows):
        """Only so many rows at most."""
        if n_rows < self.n_done:
            self.done = self._first(n_rows)
        self.save() if self.n_done else self.discard()

    def discard(self):
        self.done = Done(0, {})
        for name in ("progress.json", "progress.part", *self.names):
            (self.folder / name).unlink(missing_ok=True)


class DenseCodes(Codes):
    """All entries, in an `.npy` file."""

    names = ("codes.npy",)

    def start(self):
        return {"codes.npy": npy_header("<f4", self.shape)}

    def sizes_of(self, n_rows, n_entries):
        return {"codes.npy": len(npy_header("<f4", self.shape)) + 4 * n_entries}

    def n_entries(self):
        return self.n_entries_at(self.n_done)

    def n_entries_at(self, n_rows):
        return n_rows * self.shape[1]

    def n_bytes(self):
        return 4 * math.prod(self.shape)

    def parts(self, codes):
        return {"codes.npy": np.ascontiguousarray(codes, "<f4")}

    def whole(self):
        path = self.folder / "codes.npy"
        with opened(path, os.O_RDWR) as file:
            # Again: there may be more images than at the start.
            file.write(npy_header("<f4", self.shape))
        return path

    def description(self):
        return f"{self.shape[0]:,} codes of {self.shape[1]} atoms, float32"


class CSRCodes(Codes):
    """The entries that are not zero, as `scipy.sparse.save_npz` writes a CSR array."""

    names = ("data", "indices", "indptr", "codes.npz")
    warned = False

    def start(self):
        return {"data": b"", "indices": b"", "indptr": np.zeros(1, "<i8").tobytes()}

    def sizes_of(self, n_rows, n_entries):
        n_bytes = 4 * n_entries
        return {"data": n_bytes, "indices": n_bytes, "indptr": 8 * (n_rows + 1)}

    def n_entries(self):
        return self.sizes["data"] // 4

    def n_entries_at(self, n_rows):
        with opened(self.folder / "indptr") as file:
            file.seek(8 * n_rows)
            return int.from_bytes(file.read(8), "little", signed=True)

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
        self._create("codes.npz", b"")
        try:
            with opened(path, os.O_RDWR) as file, zipfile.ZipFile(file, "w") as archive:
                self._add_file(archive, "indices", "<i4", "<i4")
                self._add_file(archive, "indptr", "<i8", indptr)
                add_array(archive, "format", np.array(b"csr"))
                add_array(archive, "shape", np.array(self.shape, "<i8"))
                self._add_file(archive, "data", "<f4", "<f4")
                add_array(archive, "_is_array", np.array(True))
        except BaseException:
            path.unlink()  # The disk may be full of it.
            raise
        return path

    def _add_file(self, archive, name, stored, dtype):
        n_values = self.sizes[name] // np.dtype(stored).itemsize
        with (
            opened(self.folder / name) as file,
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


def opened(path, flags=os.O_RDONLY):
    """A file of a run, by no link: that would lead to a file of somebody else."""
    try:
        descriptor = os.open(path, flags | PLAIN, 0o666)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            return os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "r+b")
        os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
    sys.exit(
        f"error: {path} is a link, or no file at all; no run made it. Delete "
        f"{path.parent} to start from the first row."
    )


def make_folder(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(
            f"error: the folder {folder} cannot be made ({one_line(error)}). Name an "
            "OUTPUT where files can be written, or delete what is there."
        )
    if folder.is_symlink():
        sys.exit(f"error: {folder} is a link; no run made it. Delete it.")


@contextlib.contextmanager
def locked(folder):
    """Makes a folder, and keeps a second run out of it, which would write there too."""
    try:
        import fcntl
    except ImportError:  # Windows.
        make_folder(folder)
        yield
        return
    path = folder / "lock"
    while True:
        make_folder(folder)
        # A run that ends takes the folder away, or the file once it is opened here.
        with contextlib.suppress(FileNotFoundError):
            file = opened(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.exit(
                    f"error: another run works in {folder}. Wait for it, or name "
                    "another OUTPUT."
                )
            if os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                break
    with file:
        try:
            yield
        finally:
            # It may be gone, or another run in it once the lock is off.
            with contextlib.suppress(OSError):
                if os.listdir(folder) == ["lock"]:
                    path.unlink()
                    folder.rmdir()


def interrupted(number, _):
    """Ends the program: an exception would not pass through TensorFlow as it is."""
    with contextlib.suppress(OSError, SystemExit):
        for save in UNSAVED:
            save()
    # Not by print: it may be that which was interrupted.
    os.write(2, b"\ninterrupted; the same command goes on where this one stopped\n")
    os._exit(128 + number)


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupted)
    # A name may hold bytes that are no text.
    sys.stdout.reconfigure(errors="backslashreplace")
    main()
