import subprocess

import pytest
from PIL import Image
from transfers import (
    encode,
    floats,
    images,
    interrupt_after,
    save_image,
    save_npy,
    small_model,
)

from sc2keras.io import transfer


@pytest.fixture(scope="session")
def loaded():
    return {}


@pytest.fixture(autouse=True)
def load_once(loaded, monkeypatch):
    """To load and to compile takes most of the time of a run."""
    load = transfer.load_model

    def load_once(model):
        is_file = hasattr(model, "is_file") and model.is_file()
        content = model.read_bytes() if is_file else None
        if content is None:
            return load(model)
        if content not in loaded:
            loaded[content] = load(model)
        return loaded[content]

    monkeypatch.setattr(transfer, "load_model", load_once)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model and its file."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    return small_model(path), path


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


@pytest.fixture
def numbered(tmp_path):
    """A folder of images 00.bmp, 01.bmp..., and what is in them."""
    for i, image in enumerate(images()):
        save_image(tmp_path / "photos" / f"{i:02}.bmp", image)
    return tmp_path / "photos", images()


@pytest.fixture
def unfinished(saved, tmp_path, monkeypatch):
    """A function that makes unfinished work, and the command that goes on with it."""

    def interrupted(suffix):
        x = save_npy(tmp_path / "x.npy", floats())
        output = tmp_path / f"codes{suffix}"
        interrupt_after(1, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            encode(saved[1], x, output)
        folder = tmp_path / f"unfinished-codes{suffix}"
        return folder, lambda: encode(saved[1], x, output)

    return interrupted


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
