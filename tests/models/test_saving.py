import io
import json
import os

import keras
import numpy as np
import pytest
from coders import build as build_coder
from coders import images
from helpers import to_numpy
from mishaps import KILLS, full_disk, killed_again_and_again

from sc2keras import SparseCoder
from sc2keras.applications import LISTA, SC2Net
from sc2keras.layers import SLSTM, LISTABlock
from sc2keras.models import saving
from sc2keras.models.description import describe

X = np.random.default_rng(0).random((40, 6), dtype="float32")
SAVES = {"a.keras": "save", "a.weights.h5": "save_weights"}


def build(n_atoms=4, **kwargs):
    return LISTA(n_atoms, input_shape=(6,), n_steps=2, **kwargs)


def trained():
    """A model after seven updates, as far as a file is concerned."""
    model = build()
    model.compile()
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(7)
    return model


def state(model):
    variables = [*model.weights, *model.optimizer.variables]
    return [np.array(to_numpy(variable)) for variable in variables]


def check_state(model, expected):
    for value, other in zip(state(model), expected, strict=True):
        np.testing.assert_array_equal(value, other)


def poison(model):
    """One NaN, in the last weight."""
    weight = model.weights[-1]
    value = np.array(to_numpy(weight))
    value.flat[-1] = np.nan
    weight.assign(value)
    return weight.path


def save(model, path):
    getattr(model, SAVES[path.name])(path)


@pytest.fixture(params=SAVES)
def path(tmp_path, request):
    return tmp_path / request.param


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_saved_file_loads(path, kind):
    model = trained()
    getattr(model, SAVES[path.name])(kind(path))
    assert os.listdir(path.parent) == [path.name]
    other = build()
    other.compile()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(kind(path))
    check_state(other, state(model))


def test_an_error_while_saving_leaves_the_old_file(path, monkeypatch):
    model = trained()
    save(model, path)
    old = path.read_bytes()

    def fail(self, store):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(type(model.encoder), "save_own_variables", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        save(model, path)
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


def test_without_overwrite_no_file_is_replaced_and_nobody_is_asked(path):
    model = trained()
    getattr(model, SAVES[path.name])(path, overwrite=False)
    old = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        getattr(model, SAVES[path.name])(path, overwrite=False)
    assert path.read_bytes() == old


def test_a_missing_folder_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing"):
        save(trained(), path.parent / "missing" / path.name)


def test_a_link_is_followed(path, tmp_path_factory):
    target = tmp_path_factory.mktemp("store") / path.name
    path.symlink_to(target)
    save(trained(), path)
    assert path.is_symlink() and target.is_file()
    build().load_weights(path)


def test_weights_that_are_not_finite_are_not_saved(path):
    model = trained()
    save(model, path)
    old = path.read_bytes()
    name = poison(model)
    for write in (model.save, model.save_weights, model.export):
        with pytest.raises(ValueError, match=f"{name}.*NaN"):
            write(path)
    assert path.read_bytes() == old


@pytest.mark.parametrize(
    "method, name, kwargs, match",
    [
        ("save", "a.h5", {}, r"\.keras.*'a\.h5'"),
        ("save", "a", {}, r"\.keras"),
        ("save", "a.weights.h5", {}, "save_weights"),
        ("save", "a.keras", {"zipped": False}, "zipped=False"),
        ("save_weights", "a.h5", {}, r"\.weights\.h5"),
        ("save_weights", "a.keras", {}, r"\.weights\.h5"),
        ("save_weights", "a.weights.h5", {"max_shard_size": 1}, "max_shard_size=1"),
    ],
)
def test_what_no_load_reads_is_not_written(
    tmp_path, monkeypatch, method, name, kwargs, match
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=match):
        getattr(build(), method)(name, **kwargs)
    assert os.listdir() == []


def test_remote_paths_and_open_files_are_left_to_keras(monkeypatch):
    received = []
    monkeypatch.setattr(
        keras.Model, "save", lambda self, path, **kwargs: received.append(path)
    )
    file = io.BytesIO()
    paths = ["gs://bucket/a.keras", "hf://user/model", "/gcs/bucket/a.keras", file]
    for path in paths:
        build().save(path)
    assert received == paths


def test_a_file_of_weights_says_what_they_are_of(tmp_path):
    model = SC2Net(4, input_shape=(2, 3), n_steps=3, classes=5)
    model.save_weights(tmp_path / "a.weights.h5")
    found = saving.read_weights_config(tmp_path / "a.weights.h5")
    assert found == json.loads(json.dumps(describe(model)))
    assert found["encoder"] == "sc2keras>SLSTM" and found["input_shape"] == [2, 3]
    # Keras by itself reads the file as before.
    other = SC2Net(4, input_shape=(2, 3), n_steps=3, classes=5)
    keras.Model.load_weights(other, tmp_path / "a.weights.h5")
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_a_file_that_keras_wrote_by_itself_has_no_description(tmp_path):
    model = build()
    keras.saving.save_weights(model, tmp_path / "a.weights.h5")
    model.save(tmp_path / "a.keras")
    for name in ("a.weights.h5", "a.keras", "missing.weights.h5"):
        assert saving.read_weights_config(tmp_path / name) is None


def test_a_file_with_a_nan_is_not_loaded(path):
    bad, model = trained(), trained()
    name = poison(bad)
    # The functions of Keras do not look.
    is_model = path.suffix == ".keras"
    (keras.saving.save_model if is_model else keras.saving.save_weights)(bad, path)
    before = state(model)
    with pytest.raises(ValueError, match=name.split("/")[-1]):
        model.load_weights(path)
    check_state(model, before)


def test_a_nan_behind_the_codes_is_refused_by_keras_own_load(tmp_path):
    codes = LISTABlock(6, n_steps=2)(x := keras.Input((8,)))
    hidden = keras.Sequential([keras.layers.Dense(5, "relu"), keras.layers.Dense(3)])
    SparseCoder(x, [codes, hidden(codes)]).save(tmp_path / "a.keras")
    model = keras.saving.load_model(tmp_path / "a.keras")
    model.save(tmp_path / "b.keras")
    model = keras.saving.load_model(tmp_path / "b.keras")
    bias = model.layers[-1].layers[0].bias
    bias.assign([0, 0, np.nan, 0, 0])
    keras.saving.save_model(model, tmp_path / "bad.keras")
    with pytest.raises(ValueError, match=r"dense\w*/bias' in the file holds a"):
        keras.saving.load_model(tmp_path / "bad.keras")


def test_a_file_that_is_cut_short_leaves_the_model(path):
    model = trained()
    save(build(), path)
    before, whole = state(model), path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises((ValueError, OSError)):
            model.load_weights(path)
        check_state(model, before)


def test_a_wrong_bit_in_a_keras_file_is_found(tmp_path):
    model = trained()
    model.save(tmp_path / "a.keras")
    content = bytearray((tmp_path / "a.keras").read_bytes())
    value = to_numpy(model.weights[0]).tobytes()
    content[content.index(value) + 5] ^= 1
    (tmp_path / "a.keras").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged, in 'model\.weights\.h5'"):
        model.load_weights(tmp_path / "a.keras")


def test_weights_of_another_model_leave_the_model(path):
    model = trained()
    save(build(n_atoms=5), path)
    before = state(model)
    with pytest.raises(ValueError, match="could not be loaded"):
        model.load_weights(path)
    check_state(model, before)
    with pytest.warns(UserWarning, match="could not be loaded"):
        model.load_weights(path, skip_mismatch=True)


def test_the_callbacks_of_keras_write_whole_files(tmp_path, monkeypatch):
    replaced = []
    rename = os.replace
    monkeypatch.setattr(
        os,
        "replace",
        lambda source, target: replaced.append(target.name) or rename(source, target),
    )
    model = build()
    model.compile()
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "a.keras"),
        keras.callbacks.ModelCheckpoint(
            tmp_path / "a.weights.h5", save_weights_only=True
        ),
        keras.callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False),
    ]
    model.fit(X, epochs=2, callbacks=callbacks, verbose=0)
    assert replaced == 2 * ["a.keras", "a.weights.h5", "latest.weights.h5"]
    again = build()
    again.compile()
    again.fit(X, epochs=2, callbacks=callbacks[2:], verbose=0)
    check_state(again, state(model))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras's own error.")
def test_an_exported_folder_is_replaced_by_a_whole_one(tmp_path, monkeypatch, capsys):
    model = build()
    assert model.export(tmp_path / "model", verbose=True) is None
    assert f"at '{tmp_path / 'model'}'" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["model"]
    old = contents(tmp_path)

    def fail(self, path, *args, **kwargs):
        os.makedirs(path)
        raise OSError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "export", fail)
        with pytest.raises(OSError, match="in the middle"):
            model.export(tmp_path / "model")
    assert contents(tmp_path) == old
    model.export(tmp_path / "model", verbose=False)
    assert os.listdir(tmp_path) == ["model"]
    tf = pytest.importorskip("tensorflow")
    loaded = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.serve(X), model.encode(X), atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Has LiteRT.")
def test_an_exported_file_is_replaced_and_its_ending_checked(tmp_path):
    model = build()
    for _ in range(2):
        model.export(tmp_path / "a.tflite", format="litert", verbose=False)
    with pytest.raises(ValueError, match=r"\.tflite"):
        model.export(tmp_path / "a", format="litert")
    with pytest.raises(ValueError, match=r"format must be one of .*floppy"):
        model.export(tmp_path / "a", "floppy")
    assert os.listdir(tmp_path) == ["a.tflite"]


@pytest.mark.parametrize("classes", [None, 3])
def test_a_compiled_model_is_loaded_with_all_that_training_needs(tmp_path, classes):
    x = images(8)
    y = np.arange(8) % 3 if classes else None
    loss = "sparse_categorical_crossentropy" if classes else None
    model = build_coder(SLSTM, classes=classes, activation="shrinkage")
    model.compile(
        keras.optimizers.Adam(0.01),
        loss=loss,
        objective_weight=0.5,
        duality_gap=True,
        jit_compile=False,
        run_eagerly=True,
    )
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is SparseCoder
    np.testing.assert_array_equal(loaded.encode(x), model.encode(x))
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    for m in (model, loaded):
        m.fit(x, y, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_weights_that_are_not_finite_are_not_saved_over_a_good_file(tmp_path, name):
    model, path = build_coder(), tmp_path / name
    save = model.save if name.endswith(".keras") else model.save_weights
    save(path)
    good = path.read_bytes()
    recurrent = model.encoder.recurrent_kernels[0]
    recurrent.assign(to_numpy(recurrent) * np.nan)
    with pytest.raises(
        ValueError, match=r"'.*recurrent_kernel' holds a NaN.*good file"
    ):
        save(path)
    assert path.read_bytes() == good


SAVE = """
import sys
path, method = sys.argv[1:]


def work(ready):
    import itertools
    import numpy as np
    from sc2keras.applications import LISTA

    model = LISTA(40, input_shape=(60,), n_steps=2)
    for i in itertools.count(1):
        for weight in model.weights:
            weight.assign(np.full(weight.shape, i))
        getattr(model, method)(path)
        ready()
"""


@pytest.mark.parametrize("times", KILLS)
def test_after_a_kill_the_file_is_that_of_one_save(path, times):
    model = LISTA(40, input_shape=(60,), n_steps=2)
    for _ in killed_again_and_again(SAVE, path, SAVES[path.name], times=times):
        model.load_weights(path)
        if path.suffix == ".keras":
            model = keras.saving.load_model(path)
        values = {float(v) for w in model.weights for v in to_numpy(w).flat}
        assert len(values) == 1 and min(values) >= 1
    # Some kills were within a save.
    assert any(name.startswith("unfinished-") for name in os.listdir(path.parent))


@pytest.mark.slow
@pytest.mark.parametrize("name", SAVES)
def test_on_a_full_disk_the_old_file_stays(tmp_path, name):
    model = LISTA(40, input_shape=(60,), n_steps=2)
    with full_disk(tmp_path) as tries:
        save(model, tmp_path / name)
        outcomes = tries(
            tmp_path / name, lambda: save(model, tmp_path / name), times=50
        )
        model.load_weights(tmp_path / name)
    assert outcomes["failed"] > 10 < outcomes["written"]
