"""What leaves as a SavedModel, LiteRT, ONNX, OpenVINO or `.pt2` gives the codes."""

import functools
import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from experiments import support
from experiments.exported import RUNNERS, export
from helpers import (
    ENTRIES,
    EXHAUSTIVE,
    SOLVERS,
    VARIANTS,
    load_program,
    perturb,
    signals,
    to_numpy,
    unit_atoms,
)

from sc2keras import applications, backend, layers

N_ATOMS, N_FEATURES = 8, 12
BUILDERS = {
    entry.layer: functools.partial(applications.build, entry.name) for entry in ENTRIES
}
BACKEND = keras.backend.backend()
FEW = ("SC2Net", "StepLFISTA", "FISTA")
PUBLISHED = Path(__file__).parents[1] / "results/support"


def needs(format):
    """A mark that skips where what writes a format, or what runs it, is missing."""
    packages = *backend.EXPORTS.get(format, ()), RUNNERS[format][-1]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed")


def marks_of(name, way):
    format = support.EXPORTS.get(way)
    marks = [*EXHAUSTIVE * (name not in FEW)]
    return [needs(format), *marks] if format in backend.EXPORTS else marks


FORMATS = [pytest.param(name, marks=needs(name)) for name in backend.EXPORTS]
CASES = [
    pytest.param(name, way, marks=marks_of(name, way))
    for name in support.ENCODERS
    for way in support.WAYS
]
if BACKEND == "torch":
    # It warns of every size that Python looks at.
    pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


@pytest.mark.parametrize(("name", "way"), CASES)
def test_what_works_is_what_the_table_says(name, way, tmp_path):
    found = json.loads((PUBLISHED / "table.json").read_text())[BACKEND]
    assert found[name][way] == support.works(name, way, tmp_path)


@pytest.mark.parametrize(
    ("name", "options"), [("table", ["--tables"]), ("int8", ["--tables", "--int8"])]
)
def test_a_table_is_of_its_figures(name, options, tmp_path):
    content = (PUBLISHED / f"{name}.json").read_text()
    (tmp_path / f"{name}.json").write_text(content)
    load_program("scripts/support.py").main([*options, "--output", str(tmp_path)])
    published = (PUBLISHED / f"{name}.md").read_text()
    assert (tmp_path / f"{name}.md").read_text() == published


def test_the_table_leaves_out_nothing():
    found = json.loads((PUBLISHED / "table.json").read_text())
    assert list(found) == list(support.BACKENDS)
    for encoders in found.values():
        assert list(encoders) == list(support.ENCODERS)
        assert all(list(ways) == list(support.WAYS) for ways in encoders.values())


def build(cls, seed=3, **options):
    if cls in SOLVERS:
        dictionary = unit_atoms(options.pop("n_atoms", N_ATOMS), N_FEATURES, seed)
        options = {"n_steps": 30, "dictionary": dictionary, **options}
    else:
        dictionary = None
        options = {"n_steps": 3, **options}
    n_atoms = N_ATOMS if dictionary is None else len(dictionary)
    model = BUILDERS[cls](n_atoms=n_atoms, input_shape=(N_FEATURES,), **options)
    if dictionary is None:
        perturb(model.encoder)
    return model


def check(model, format, folder, n_rows=5):
    run = export(model, format, folder)
    for x in (signals(1, N_FEATURES), 2 * signals(n_rows, N_FEATURES, seed=8)):
        expected = to_numpy(model(x))
        assert (expected != 0).any()
        if getattr(model.encoder, "tol", None):
            difference = np.abs(run(x) - expected).max(axis=1)
            # A row whose gap is `tol` to rounding may stop a check earlier or later.
            assert (difference > 1e-5).sum() <= 2
            assert difference.max() < 0.02
        else:
            support.agree(run(x), expected)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("cls", "options"), VARIANTS)
def test_every_variant_leaves_as_it_is(cls, options, format, tmp_path):
    check(build(cls, **options), format, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "cls", [layers.LISTABlock, layers.LFISTABlock, layers.AdaptiveISTA, layers.SLSTM]
)
@pytest.mark.parametrize(
    "options",
    [
        {"activation": "double_tanh"},
        {"activation": "top_k"},
        {"recurrent": "factored"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_every_activation_and_form_leaves_as_it_is(cls, options, format, tmp_path):
    check(build(cls, **options), format, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cls", [layers.AdaptiveISTA, layers.SLSTM])
def test_a_cell_that_is_not_unrolled_leaves_as_it_is(cls, format, tmp_path):
    check(build(cls, unroll=False), format, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cls", SOLVERS)
@pytest.mark.parametrize(
    "options",
    [
        {"n_steps": 1},
        {"n_atoms": 30},
        {"tol": 1e-3, "n_steps": 2000},
        {"tol": 1e-3, "n_steps": 2000, "n_atoms": 30},
        {"tol": 1e-3, "n_steps": 13},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_form_of_a_solver_leaves_as_it_is(cls, options, format, tmp_path):
    if "tol" in options and format not in backend.LOOPS_IN:
        pytest.skip("refused, as the table says")
    check(build(cls, **options), format, tmp_path, n_rows=80)


@pytest.mark.parametrize("format", FORMATS)
def test_pictures_and_their_classes_leave_together(format, tmp_path):
    model = applications.SC2Net(N_ATOMS, (4, 3), n_steps=2, classes=3)
    x = signals(5, 12).reshape(5, 4, 3)
    # The codes come first, whatever else there is.
    found = export(model, format, tmp_path)(x)
    np.testing.assert_allclose(found, model.encode(x), atol=1e-5)


def test_what_is_refused_leaves_no_trace(tmp_path):
    model = build(layers.LISTABlock)
    narrow = applications.LISTA(N_ATOMS, (N_FEATURES,), dtype="mixed_bfloat16")
    known = "one of 'tf_saved_model', 'litert', 'onnx', 'openvino', 'torch'; received"
    others = [name for name in RUNNERS if name not in backend.EXPORTS]
    cases = [
        (model, "keras", "model.keras", known),
        (model, next(iter(backend.EXPORTS)), "\udc80", r"must be UTF-8; received"),
        *(
            (model, name, "model", rf"not written on {BACKEND}.*KERAS_BACKEND is \w+")
            for name in others
        ),
    ]
    if BACKEND != "jax":
        cases += [
            (narrow, "onnx", "model.onnx", "leave in float32; received .*bfloat16"),
            (model, "openvino", "model.onnx", r"must end in \.xml; received"),
        ]
    for refused, format, name, message in cases:
        with pytest.raises(ValueError, match=message):
            refused.export(tmp_path / name, format=format)
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(backend_module().EXPORTS, "tf_saved_model", ("no_such_one",))
    with pytest.raises(ImportError, match="pip install no_such_one"):
        build(layers.LISTABlock).export(tmp_path / "model")


def backend_module():
    return importlib.import_module(f"sc2keras.backend.{BACKEND}")


@pytest.mark.skipif(BACKEND != "torch", reason="others export loops as loops")
@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("format", FORMATS)
def test_a_loop_in_a_model_of_keras_is_refused_where_it_is_recorded(
    batch_size, format, tmp_path
):
    inputs = keras.Input((N_FEATURES,), batch_size=batch_size)
    model = keras.Model(inputs, layers.FISTA(N_ATOMS, tol=1e-3)(inputs))
    model(signals(1, N_FEATURES))  # Keras exports none that was never called.
    with pytest.raises(Exception, match=r"received tol=0\.001. Export a layer with"):
        export(model, format, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="shown in the layer's own tests")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_row_that_is_not_finite_leaves_the_others_alone(format, tmp_path):
    model = build(layers.FISTA, tol=1e-3, n_steps=2000)
    x = signals(9, N_FEATURES)
    expected = to_numpy(model(x))
    x[::4] = np.nan
    codes = export(model, format, tmp_path)(x)
    assert np.isnan(codes[::4]).all()
    clean = np.arange(9) % 4 != 0
    np.testing.assert_allclose(codes[clean], expected[clean], atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others collect them")
@pytest.mark.parametrize("format", ["litert", "onnx"])
@pytest.mark.parametrize("cls", SOLVERS)
def test_sequences_of_a_solver_are_refused_where_no_loop_collects_them(
    cls, format, tmp_path
):
    layer = cls(N_ATOMS, 5, dictionary=unit_atoms(N_ATOMS, N_FEATURES))
    layer.return_sequences = True
    inputs = keras.Input((N_FEATURES,))
    model = keras.Model(inputs, layer(inputs))
    x = signals(3, N_FEATURES)
    expected = to_numpy(model(x))
    found = export(model, "tf_saved_model", tmp_path)(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # At the latest when it is loaded; in any case before there are codes.
    with pytest.raises(Exception, match=r"Select TensorFlow op|Invalid tensor|sequen"):
        export(model, format, tmp_path)(x)
