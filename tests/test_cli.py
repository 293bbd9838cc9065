import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import sc2keras
from sc2keras import applications, cli, io, registry
from sc2keras.feature_sign import relative_gaps
from sc2keras_command import parse_arguments

ROOT = Path(__file__).parents[1]
ENDINGS = (b".keras", b".npy", b"c.npy", b".html")
START = "from sc2keras_command import start; start()"


def run(*arguments):
    cli.run(parse_arguments([str(argument) for argument in arguments]))


def run_apart(*arguments, start=("-c", START), cwd=None):
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model = applications.SC2Net(6, (16,), n_steps=2, l1=0.3, activation="shrinkage")
    model.save(path)
    return model, path


@pytest.fixture
def x(tmp_path):
    x = np.random.default_rng(0).random((21, 16), dtype="float32")
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "x.npy"


def test_codes_are_written_and_decoded(saved, x, tmp_path, capsys):
    model, path = saved
    codes, decoded = tmp_path / "codes.npz", tmp_path / "decoded.npy"
    run("encode", path, x, codes, "--batch-rows", 8, "--threshold", 1e-6)
    assert capsys.readouterr().out.startswith(f"{codes}: float32 CSR of shape (21, 6)")
    run("decode", path, codes, decoded, "--batch-rows", 8)
    out = capsys.readouterr().out
    assert out == f"{decoded}: float32 of shape (21, 16)\n"
    expected = model.reconstruct(np.load(x))
    np.testing.assert_allclose(np.load(decoded), expected, atol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["codes.npz", "decoded.npy", "x.npy"]


def test_codes_are_taken_on_to_a_tolerance(saved, x, tmp_path):
    model, path = saved
    run("encode", path, x, tmp_path / "codes.npy", "--tol", 1e-4)
    rows = np.load(x).reshape(-1, 16)
    codes, rest = np.load(tmp_path / "codes.npy"), (model.dictionary, model.encoder.l1)
    assert relative_gaps(rows, codes, *rest).max() < 1.0001e-4
    plain = model.encode(np.load(x).reshape(-1, *model.input_shape[1:]))
    assert relative_gaps(rows, plain, *rest).max() > 1e-3


def test_weights_that_ship_are_named(tmp_path):
    output = tmp_path / "codes.npy"
    run("encode", "SC2Net/digits", "digits", output, "--split", "train")
    model = applications.SC2Net(weights="digits")
    x = sc2keras.datasets.load("digits").x_train
    np.testing.assert_array_equal(np.load(output), model.encode(x))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--key", "a"], "--key does not apply to the input .*; leave it out"),
        (["--resize"], "--resize does not apply"),
        (["--data-dir", "."], "--data-dir does not apply"),
        (["--threshold", "0.1"], r"--threshold 0\.1 leaves"),
        (
            ["--import", "no_such_module"],
            r"--import no_such_module fails \(ModuleNotFound",
        ),
    ],
)
def test_an_error_is_in_the_words_of_the_command_and_leaves_no_file(
    saved, x, tmp_path, more, message, monkeypatch
):
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        run("encode", saved[1], x, tmp_path / "codes.npy", *more)
    assert os.listdir(tmp_path) == ["x.npy"]


def test_options_are_translated_and_file_names_are_not():
    message = "the input /data/split=train/x.npz: give key=NAME, or (resize=True)."
    expected = "the input /data/split=train/x.npz: give --key NAME, or (--resize)."
    assert cli.as_command(message) == expected


def test_an_output_that_is_there_needs_overwrite(saved, x, tmp_path):
    output = tmp_path / "codes.npy"
    output.write_text("precious")
    with pytest.raises(
        SystemExit, match=r"codes\.npy exists.*replaced with --overwrite"
    ):
        run("encode", saved[1], x, output)
    assert output.read_text() == "precious"
    run("encode", saved[1], x, output, "--overwrite")
    assert np.load(output).shape == (21, 6)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left"), r"No space left.*kept in .*the same command"),
        (MemoryError(), "memory does not suffice. Give a smaller --batch-rows"),
    ],
)
def test_a_run_that_fails_says_how_it_goes_on(
    saved, x, tmp_path, monkeypatch, capsys, error, message
):
    encode, calls = sc2keras.SparseCoder.encode, []

    def fail_once(*args):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return encode(*args)

    monkeypatch.setattr(sc2keras.SparseCoder, "encode", fail_once)
    arguments = ("encode", saved[1], x, tmp_path / "codes.npy", "--batch-rows", 8)
    with pytest.raises(SystemExit, match=message):
        run(*arguments)
    run(*arguments)
    assert "going on after 8 of 21 rows" in capsys.readouterr().out
    assert len(calls) == 4


def test_a_warning_is_one_line(x, tmp_path, capsys):
    model = applications.SC2Net(6, (16,), n_steps=2, activation="double_tanh")
    model.save(tmp_path / "model.keras")
    run("encode", tmp_path / "model.keras", x, tmp_path / "codes.npz")
    (line,) = [s for s in capsys.readouterr().err.splitlines() if "warning" in s]
    assert line.startswith("warning: 100% of the entries are kept")
    assert "--threshold T leaves out" in line


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--batch-rows=0", "integer >= 1; received --batch-rows 0"),
        ("--threshold=-1", "received --threshold -1.0"),
        ("--tol=0", "received --tol 0"),
    ],
)
def test_bad_options_name_the_value(saved, x, tmp_path, option, message):
    with pytest.raises(SystemExit, match=rf"^error: .*{message}"):
        run("encode", saved[1], x, tmp_path / "codes.npz", option)
    assert os.listdir(tmp_path) == ["x.npy"]


def narrow(out):
    assert max(map(len, out.splitlines())) <= 80
    return out


def test_info_of_weights_that_ship_has_the_figures_of_their_card(capsys):
    run("info", "SC2Net/mnist")
    out = narrow(capsys.readouterr().out)
    card = applications.weights_card("SC2Net", "mnist")
    for text in (
        "SLSTM(n_atoms=100, l1=0.5",
        "(28, 28, 1)",
        "float32",
        f"{card['test']['objective']:.4f} on test",
        f"{card['test']['full']:.1%} (full)",
        "CC BY-SA 3.0",
        f"{io.model_path('SC2Net/mnist').stat().st_size:,} bytes",
    ):
        assert text in " ".join(out.split()), text
    n_weights = sum(w.size for w in applications.SC2Net(weights="mnist").get_weights())
    assert f"{n_weights:,} numbers" in out


def test_info_of_a_file_has_no_card(saved, capsys):
    run("info", saved[1])
    out = narrow(capsys.readouterr().out)
    assert "SLSTM(n_atoms=6" in out and "model.keras" in out
    assert "objective" not in out


def test_info_with_data_says_whether_training_worked(saved, x, capsys):
    run("info", saved[1], x)
    out = narrow(capsys.readouterr().out)
    found = sc2keras.diagnose(saved[0], np.load(x))
    assert out.rstrip().endswith(str(found))
    assert f"data          {x}, 21" in out.replace("\n" + 14 * " ", "")


def test_info_of_digits_reads_them_as_encode_does(capsys):
    run("info", "SC2Net/digits", "digits", "--split", "test")
    out = narrow(capsys.readouterr().out)
    assert "samples       all 360" in out and "above the optimum" in out


def test_info_of_data_that_does_not_fit_is_an_error(saved, tmp_path):
    np.save(tmp_path / "other.npy", np.ones((3, 5), "float32"))
    with pytest.raises(SystemExit, match=r"^error: .*other\.npy"):
        run("info", saved[1], tmp_path / "other.npy")


def test_info_of_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: the model .*no\.keras is not a"):
        run("info", tmp_path / "no.keras")


def test_list_names_every_builder_and_all_weights(capsys):
    run("list")
    out = narrow(capsys.readouterr().out)
    for name in registry._ENTRIES:
        assert re.search(rf"^{name}\s", out, re.MULTILINE)
    for name, weights in applications.list_weights().items():
        assert ", ".join(f"{name}/{w}" for w in weights) in out


OWN = """
import sc2keras


@sc2keras.register_encoder("Own")
class Own(sc2keras.layers.LISTABlock):
    '''An encoder of my own.'''
"""


@pytest.fixture
def own_model(tmp_path, monkeypatch):
    """A file with an encoder that only a module beside it registers."""
    (tmp_path / "own_encoder.py").write_text(OWN)
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    monkeypatch.delitem(sys.modules, "own_encoder", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_encoder")
    inputs = keras.Input((16,))
    model = sc2keras.SparseCoder(inputs, own.Own(6, n_steps=2)(inputs))
    model.save(tmp_path / "own.keras")
    return tmp_path / "own.keras"


@pytest.mark.slow
def test_an_encoder_of_a_module_of_the_user_is_imported_first(own_model, x, tmp_path):
    command = ("encode", own_model, x, "codes.npy", "--import", "own_encoder")
    process = run_apart(*command, start=("-m", "sc2keras"), cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert np.load(tmp_path / "codes.npy").shape == (21, 6)


def test_names_that_are_no_text_are_names(saved, x, tmp_path, capsys):
    names = [os.fsdecode(f"{tmp_path}/".encode() + b"\xff" + end) for end in ENDINGS]
    model, data, codes, page = names
    sys.stdout.reconfigure(errors="backslashreplace")  # As the command does.
    os.rename(x, data)
    saved[0].save(model)
    run("encode", model, data, codes)
    np.testing.assert_array_equal(np.load(codes), saved[0].encode(np.load(data)))
    run("view", model, data, "-o", page)
    run("info", model, data)
    with pytest.raises(SystemExit, match=r"error: '.*\\x00c\.npy' is no path"):
        run("encode", model, data, tmp_path / "\0c.npy")
    with pytest.raises(SystemExit, match=r"error: 'a\\x00b' is no path"):
        run("encode", model, "a\0b", tmp_path / "c.npy")


@pytest.mark.slow
def test_closed_streams_are_no_error_and_write_to_no_file(saved, x, tmp_path):
    command = [sys.executable, "-c", START, "encode", saved[1], x, tmp_path / "c.npy"]
    process = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == 0
    expected = saved[0].encode(np.load(x))
    np.testing.assert_allclose(np.load(tmp_path / "c.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        pytest.param(["info", "SC2Net/digits"], marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_has_enough_is_no_error(arguments):
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes) as stdout:
        done = subprocess.run(
            [sys.executable, "-c", START, *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
def test_an_encoder_that_nothing_imports_is_an_error_of_one_line(
    own_model, x, tmp_path
):
    process = run_apart("encode", own_model, x, "codes.npy", cwd=tmp_path)
    assert process.returncode == 1 and "cannot be loaded" in process.stderr
    # And one of TensorFlow where it finds no driver of a GPU.
    assert process.stderr.splitlines()[-1].startswith("error: ")
    assert len(process.stderr.splitlines()) <= 2
    assert not (tmp_path / "codes.npy").exists()


def test_list_has_the_encoders_of_a_module_too(own_model, capsys):
    run("list", "--import", "own_encoder")
    assert "\nOwn           An encoder of my own.\n" in narrow(capsys.readouterr().out)


def test_help_imports_nothing_heavy_and_fits_80_columns():
    watch = f"""
import sys
try:
    {START}
finally:
    assert not {{"keras", "numpy", "tensorflow", "sc2keras"}} & set(sys.modules)
"""
    began = time.monotonic()
    process = run_apart("--help", start=("-c", watch))
    assert process.returncode == 0 and process.stderr == ""
    assert time.monotonic() - began < 5
    assert "sc2keras encode" in narrow(process.stdout)
