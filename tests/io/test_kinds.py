"""A kind of input and a kind of output that the package does not know."""

import numpy as np
import pytest
from transfers import BATCH_ROWS, encode, floats, interrupt_after, save_npy

from sc2keras import io
from sc2keras.io import sources


class TextStore(io.Store):
    """A number a line, all of the same length."""

    files, finished, summary = ("rows.txt",), "rows.txt", "numbers as text"

    def start(self):
        return {"rows.txt": b""}

    def parts(self, rows, sizes):
        text = "".join(f"{value:15.7e}\n" for value in rows.ravel())
        return {"rows.txt": np.frombuffer(text.encode(), "uint8")}

    def sizes_at(self, n_rows):
        return {"rows.txt": 16 * n_rows * self.n_values}

    def finish(self, sizes):
        return self.folder / "rows.txt"

    def description(self, sizes):
        return f"{self.shape[0]} rows of text"


class CommaSource(io.Source):
    dtype = np.dtype("float64")

    def __init__(self, name, shape, progress):
        self._x = np.loadtxt(name, delimiter=",", ndmin=2)
        self.n_rows, self.shape = len(self._x), self._x.shape[1:]
        self.fingerprint = {"input": name}

    @classmethod
    def reads(cls, name):
        return name.endswith(".csv")

    def read(self, start, n_rows):
        return (self._x[part] for part in self.parts(start, n_rows))


def test_another_kind_of_output_is_a_class_and_a_suffix(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(io.STORES, ".txt", TextStore)
    model, path = saved
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.txt"
    interrupt_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(path, x, output)
    result = io.encode_file(path, x, output, batch_rows=BATCH_ROWS)
    assert result.n_before == 2 * BATCH_ROWS
    assert result.description == "21 rows of text"
    found = np.loadtxt(output).reshape(21, -1)
    np.testing.assert_allclose(found, model.encode(floats()), atol=1e-6)


def test_another_kind_of_input_is_a_class_and_a_place(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SOURCES", [CommaSource, *io.SOURCES])
    np.savetxt(tmp_path / "x.csv", floats().reshape(21, -1), delimiter=",")
    found = np.load(encode(saved[1], tmp_path / "x.csv", tmp_path / "codes.npy"))
    np.testing.assert_allclose(found, saved[0].encode(floats()), atol=1e-6)


def test_another_kind_of_input_is_known_by_its_path(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SOURCES", [CommaSource, *io.SOURCES])
    target = tmp_path / "codes.npy"
    for name in ("x.csv", "y.csv"):
        np.savetxt(tmp_path / name, floats().reshape(21, -1), delimiter=",")
    io.encode_shard(saved[0], tmp_path / "x.csv", target)
    assert io.encode_shard(saved[0], tmp_path / "x.csv", target).was_done
    with pytest.raises(io.OutputError, match=r"input was .*x\.csv' and is .*y\.csv'"):
        io.encode_shard(saved[0], tmp_path / "y.csv", target)
