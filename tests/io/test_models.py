import itertools

import keras
import numpy as np
import pytest
from helpers import ENTRIES, takes, unit_atoms
from transfers import dense, encode, floats, interrupt_after, save_npy, small_model

from sc2keras import io
from sc2keras.applications import build, weights_path


def test_weights_that_ship_have_a_name():
    assert io.model_path("LISTA/digits") == weights_path("LISTA", "digits")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "LISTA/x.keras",
            r"LISTA/x\.keras is not .* one of LISTA/cifar10, LISTA/digits",
        ),
        ("no/such", "the model no/such is not a file.*SC2Net/mnist"),
    ],
)
def test_a_model_that_is_not_there_is_an_error(name, message):
    with pytest.raises(io.ModelError, match=message):
        io.model_path(name)


def test_a_model_in_memory_goes_on_with_its_own_work(saved, tmp_path, monkeypatch):
    model = keras.saving.load_model(saved[1])
    x, output = save_npy(tmp_path / "x.npy", floats()), tmp_path / "codes.npy"
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            encode(model, x, output)
    other = small_model(tmp_path / "other.keras", l1=0.2)
    with pytest.raises(io.UnfinishedError, match="model_sha256 was"):
        encode(other, x, output)
    encode(keras.saving.load_model(saved[1]), x, output)
    np.testing.assert_array_equal(dense(output), saved[0].encode(floats(), 8))


def of_entry(entry, **options):
    keras.utils.set_random_seed(0)
    kwargs = {"l1": 0.3, "dictionary": unit_atoms(20, 12), **options}
    if takes(entry.layer, "n_steps"):
        kwargs = {"n_steps": 4} | kwargs
    return build(entry.name, 20, (12,), **kwargs)


def sha256_of(model):
    return io.load_model(model)[1]


def test_no_two_builders_make_models_of_one_sum():
    sums = {entry.name: sha256_of(of_entry(entry)) for entry in ENTRIES}
    same = [
        pair
        for pair in itertools.combinations(sums, 2)
        if sums[pair[0]] == sums[pair[1]]
    ]
    assert not same


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_sum_is_of_the_model_and_not_of_its_name_or_file(entry, tmp_path):
    model = of_entry(entry)
    expected = sha256_of(model)
    assert sha256_of(of_entry(entry)) == expected
    model.save(tmp_path / "model.keras")
    assert sha256_of(keras.saving.load_model(tmp_path / "model.keras")) == expected
    model.encoder.dictionary.assign(unit_atoms(20, 12, seed=1))
    assert sha256_of(model) != expected


@pytest.mark.parametrize("way", ["encode_file", "encode_shard"])
def test_work_of_another_solver_of_the_same_arguments_is_not_taken(
    tmp_path, monkeypatch, way
):
    solvers = [entry for entry in ENTRIES if not entry.is_trained]
    first, *others = map(of_entry, solvers)
    x = save_npy(tmp_path / "x.npy", floats(shape=(12,)))
    stopped, done = tmp_path / "stopped.npy", tmp_path / "done.npy"
    io.encode_shard(first, x, done)
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            getattr(io, way)(first, x, stopped, batch_rows=8)
    for other in others:
        with pytest.raises(io.UnfinishedError, match="model_sha256 was"):
            getattr(io, way)(other, x, stopped, batch_rows=8)
        with pytest.raises(io.OutputError, match=r"model_sha256 was.*overwrite=True"):
            io.encode_shard(other, x, done)
