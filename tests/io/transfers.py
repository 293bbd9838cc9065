"""Small models, inputs, and what happens to them while they are encoded."""

import functools
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import sc2keras
from sc2keras import applications, io
from sc2keras.applications import preprocess_input

SHAPE = (4, 4, 1)
N_ATOMS = 6
# So that most inputs are encoded in several chunks, the last of them cut short.
N_SAMPLES, BATCH_ROWS = 21, 8


def small_model(path, shape=SHAPE, **options):
    """A model in a file; models of the same options are one, compiled once."""
    model, content = _made(shape, **options)
    path.write_bytes(content)
    return model


@functools.cache
def _made(shape, **options):
    keras.utils.set_random_seed(0)
    settings = {"n_steps": 2, "l1": 0.3, "activation": "shrinkage", **options}
    model = applications.SC2Net(N_ATOMS, shape, **settings)
    with tempfile.TemporaryDirectory() as folder:
        model.save(path := Path(folder, "model.keras"))
        return model, path.read_bytes()


def images(n_samples=N_SAMPLES, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, (n_samples, *shape), "uint8")


def floats(n_samples=N_SAMPLES, shape=SHAPE):
    return np.random.default_rng(1).random((n_samples, *shape), dtype="float32")


def save_npy(path, x):
    np.save(path, x)
    return path


def encode(model, x, output, *, batch_rows=BATCH_ROWS, **options):
    io.encode_file(model, x, output, batch_rows=batch_rows, **options)
    return output


def told(recorded):
    """The warnings of transfers since it was last called."""
    found = [w for w in recorded if w.category is io.TransferWarning]
    recorded.clear()
    return found


def dense(path):
    return np.load(path)


def expected_codes(model, x):
    return model.encode(x, batch_size=BATCH_ROWS)


def assert_nothing_unfinished(folder):
    assert not list(folder.rglob("unfinished*"))


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


def save_image(path, image):
    """One file for each image, of the same size for all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0]).save(path)
    return path


def assert_codes_of_images(model, output, x):
    np.testing.assert_array_equal(
        dense(output), expected_codes(model, preprocess_input(np.asarray(x)))
    )
