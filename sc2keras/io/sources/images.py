"""Folders of images."""

import contextlib
import hashlib
import itertools
import math
import os
import re
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sc2keras.io.errors import InputChangedError, InputError, failing_as, tell
from sc2keras.io.sources.base import Progress, Source
from sc2keras.validation import Shape

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 274  # The EXIF tag.


class ImageFolder(Source):
    """The images in a folder, in the mode and the size that a model takes."""

    options = ("resize",)
    known_by_content = True
    dtype = np.dtype("uint8")

    def __init__(self, name: str, shape: Shape, report: Progress, resize: bool = False):
        self.folder, self.of_model, self.resize = Path(name), shape, resize
        # 16 bytes an image: name, size and date as a hash, and the time of any change.
        self.listed, self.changed = array("Q"), array("q")
        self.mode, self.size = self._of_model()
        n_others, first, kinds = 0, self.folder, ", ".join(SUFFIXES)
        # All headers first: an image that does not fit shows before hours of work.
        for path, is_image in self._entries():
            if is_image:
                self._look(path)
                report("checking images", len(self.listed), None)
            else:
                n_others, first = n_others + 1, first if n_others else path
        if n_others:
            tell(
                f"{n_others:,} other files are left out, the first is {first}. Read "
                f"are {kinds} files that are not hidden."
            )
        if not self.listed:
            what = f"the input {name} holds no image"
            raise InputError(f"{what}. Give a folder of {kinds} files.")
        self.fingerprint = {"input": str(self.folder.resolve()), "resize": resize}
        channels = () if self.mode == "L" else (len(self.mode),)
        self.n_rows, self.shape = len(self.listed), (*self.size[::-1], *channels)

    @classmethod
    def reads(cls, name: str) -> bool:
        return os.path.isdir(name)

    def _of_model(self) -> tuple[Any, Any]:
        """The mode and the size of its inputs; None where the first image decides."""
        shape = self.of_model
        if len(shape) == 1 and self.resize:
            raise InputError(
                f"resize=True needs height and width, but the model takes vectors of "
                f"{shape[0]} values. Resize the images beforehand."
            )
        if len(shape) == 1:
            return None, None
        height, width, channels, *_ = (*shape, 1)
        if len(shape) > 3 or channels not in MODES:
            raise InputError(
                f"the model takes inputs of shape {shape}, which no image has. Save "
                "the samples as .npy."
            )
        return MODES[channels], (width, height)

    def _entries(self) -> Iterator[tuple[Path, bool]]:
        """All files, sorted, then those in folders, and whether each is an image."""
        pending: list[tuple[Path, frozenset]] = [(self.folder, frozenset())]
        while pending:
            folder, above = pending.pop()
            status = os.stat(folder)
            here = above | {(status.st_dev, status.st_ino)}
            if here == above:  # A link leads back to a folder that it is in.
                yield folder, False
                continue
            folders = []
            for name in sorted(os.listdir(folder)):
                path, is_hidden = folder / name, name.startswith(".")
                if os.path.isdir(path) and not is_hidden:
                    folders.append((path, here))
                else:
                    yield path, name.lower().endswith(SUFFIXES) and not is_hidden
            pending += reversed(folders)

    def _paths(self) -> Iterator[Path]:
        return (path for path, is_image in self._entries() if is_image)

    def _look(self, path: Path) -> None:
        with readable(path):
            listed, changed = self._state_of(path)
            with pillow().Image.open(path) as image:
                check_kind(path, image)
                size = upright_size(image, self.size is None)
                if size != self.size and not self.resize:
                    size = upright_size(image, True)
                self._check_size(path, size)
        self.listed.append(listed)
        self.changed.append(changed)

    def _state_of(self, path: Path) -> tuple[int, int]:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError("it is not a file")
        name = path.relative_to(self.folder).as_posix()
        listed = repr((name, status.st_size, status.st_mtime_ns)).encode()
        digest = hashlib.blake2b(listed, digest_size=8).digest()
        return int.from_bytes(digest, "big"), status.st_ctime_ns

    def listing(self, n_rows: int) -> str | None:
        first = self.listed[:n_rows]
        return hashlib.sha256(first).hexdigest() if len(first) == n_rows else None

    def check(self) -> None:
        row = -1
        for row, path in enumerate(self._paths()):
            self._check_image(row, path)
        if row < 0:  # A disk that was unplugged, for instance.
            raise FileNotFoundError(f"no image is left in {self.folder}")
        if row + 1 < len(self.listed):
            raise InputChangedError("there are fewer images", row + 1)

    def _check_image(self, row: int, path: Path) -> None:
        before = (*self.listed[row : row + 1], *self.changed[row : row + 1])
        with contextlib.suppress(FileNotFoundError):
            if self._state_of(path) == before:
                return
        raise InputChangedError(path, row)

    def _check_size(self, path: Path, size: tuple[int, int]) -> None:
        is_one, n_values = f"{path} is {size[0]} × {size[1]}", self.of_model[0]
        if self.size is None:
            modes = {math.prod(size): "L", 3 * math.prod(size): "RGB"}
            if n_values not in modes:
                raise InputError(
                    f"{is_one}, but the model takes vectors of {n_values} values. "
                    "Resize the images."
                )
            self.mode, self.size = modes[n_values], size
        if size != self.size and not self.resize:
            remedy = ", or give resize=True" if len(self.of_model) > 1 else ""
            raise InputError(
                f"{is_one} (width × height), but {self.size[0]} × {self.size[1]} is "
                f"needed. Resize the images{remedy}."
            )

    def read(self, start: int, n_rows: int) -> Iterator[NDArray]:
        images = itertools.islice(enumerate(self._paths()), start, None)
        while held := [self._pixels(*one) for one in itertools.islice(images, n_rows)]:
            yield np.stack(held)

    chunks = read  # It looks at the images of a chunk alone.

    def _pixels(self, row: int, path: Path) -> NDArray:
        self._check_image(row, path)  # Before too: a pipe would be waited for.
        with readable(path), pillow().Image.open(path) as image:
            image = pillow().ImageOps.exif_transpose(image)
            self._check_size(path, image.size)
            pixels = np.asarray(self._converted(path, image))
        self._check_image(row, path)
        return pixels

    def _converted(self, path: Path, image: Any) -> Any:
        if self.mode != "RGBA" and image.has_transparency_data:
            if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                raise InputError(
                    f"{path} is transparent in places, but the model takes images of "
                    f"Pillow's mode {self.mode}. Flatten it onto a background, for "
                    "instance with PIL.Image.alpha_composite."
                )
            image.info.pop("transparency", None)
        image = image.convert(self.mode)
        if image.size == self.size:
            return image
        return image.resize(self.size, pillow().Image.Resampling.BILINEAR)


def check_kind(path: Path, image: Any) -> None:
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1:
        raise InputError(
            f"{path} holds {n_frames} images, as an animation does. Save the one that "
            "is meant as a file of one image, and delete this one."
        )
    # Pillow cuts some kinds of 16 bits down to 8; BGR;16 is 16 bits a pixel.
    for mode in (image.mode, *re.findall(r"\b[RGBAL]+;16\w?", str(image.tile))):
        if mode[0] in "IF" or ("16" in mode and not mode.startswith("BGR")):
            raise InputError(
                f"{path} has more than 8 bits a sample (mode {mode} in Pillow). "
                "Convert it to 8 bits, or save the samples as .npy of floats."
            )


def upright_size(image: Any, thorough: bool) -> tuple[int, int]:
    """Width and height once the image is turned as its EXIF says."""
    # In a PNG it may follow the pixels, which are decoded to get there.
    early = "exif" in image.info or image.format != "PNG"
    exif = image.getexif() if early or thorough else {}
    return image.size[::-1] if exif.get(_ORIENTATION) in (5, 6, 7, 8) else image.size


def readable(path: Path) -> contextlib.AbstractContextManager[None]:
    what = f"{path} cannot be read as an image"
    return failing_as(InputError, what, "Replace or delete it.")


def pillow() -> Any:
    with failing_as(InputError, "images need Pillow", "Install it: pip install pillow"):
        import PIL.Image
        import PIL.ImageOps

        return PIL
