"""What leaves as SavedModel, LiteRT or ONNX gives the codes of the model."""

import functools
import importlib.util

import keras
import numpy as np
import pytest
from helpers import (
    ENCODERS,
    ENTRIES,
    SOLVERS,
    VARIANTS,
    perturb,
    signals,
    to_numpy,
    unit_atoms,
)

from sc2keras import applications, layers

N_ATOMS, N_FEATURES = 8, 12
BUILDERS = {
    entry.layer: functools.partial(applications.build, entry.name) for entry in ENTRIES
}
BACKEND = keras.backend.backend()
# What a backend exports to, and the packages that write and run it.
FORMATS = {
    "tensorflow": {
        "tf_saved_model": [],
        "litert": [],
        "onnx": ["tf2onnx", "onnxruntime"],
    },
    "jax": {"tf_saved_model": ["tensorflow"]},
    "torch": {"onnx": ["onnx", "onnxruntime"]},
}[BACKEND]
SUFFIXES = {"tf_saved_model": "", "litert": ".tflite", "onnx": ".onnx"}

# LiteRT recommends the package ai_edge_litert, which has the same interpreter. PyTorch
# warns of every size that Python looks at.
IGNORED = [".*tf.lite.Interpreter is deprecated"]
if BACKEND == "torch":
    IGNORED.append(":torch.jit.TracerWarning")
pytestmark = [pytest.mark.filterwarnings(f"ignore:{what}") for what in IGNORED]


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


def exported(model, format, folder, **kwargs):
    """A function from signals to codes that runs what `model.export` wrote."""
    for package in FORMATS[format]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    path = str(folder / f"model{SUFFIXES[format]}")
    model(signals(1, N_FEATURES))  # Keras exports no model that was never called.
    model.export(path, format=format, verbose=False, **kwargs)
    return {"tf_saved_model": _saved_model, "litert": _litert, "onnx": _onnx}[format](
        path
    )


def _saved_model(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda x: loaded.serve(x).numpy()


def _litert(path):
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(path)
    source, *_ = interpreter.get_input_details()
    target, *_ = interpreter.get_output_details()

    def run(x):
        interpreter.resize_tensor_input(source["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def _onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def check(model, format, folder, n_rows=5):
    kwargs = {}
    if BACKEND == "jax" and getattr(model.encoder, "tol", None):
        # JAX has no gradient of a loop without a fixed length.
        kwargs = {"jax2tf_kwargs": {"with_gradient": False}}
    run = exported(model, format, folder, **kwargs)
    for x in (signals(1, N_FEATURES), 2 * signals(n_rows, N_FEATURES, seed=8)):
        expected = to_numpy(model(x))
        assert (expected != 0).any()
        difference = np.abs(run(x) - expected).max(axis=1)
        if getattr(model.encoder, "tol", None):
            # A row whose gap is `tol` to rounding may stop a check earlier or later.
            assert (difference > 1e-5).sum() <= 2
            assert difference.max() < 0.02
        else:
            assert difference.max() < 1e-5


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cls", ENCODERS)
def test_what_leaves_gives_the_codes_of_the_model(cls, format, tmp_path):
    check(build(cls), format, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("cls", "options"), VARIANTS)
def test_every_variant_leaves_as_it_is(cls, options, format, tmp_path):
    check(build(cls, **options), format, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "cls", [layers.LISTABlock, layers.LFISTABlock, layers.AdaptiveISTA, layers.SLSTM]
)
@pytest.mark.parametrize(
    "options", [{"activation": "double_tanh"}, {"recurrent": "factored"}]
)
def test_every_activation_and_form_leaves_as_it_is(cls, options, format, tmp_path):
    check(build(cls, **options), format, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("cls", [layers.AdaptiveISTA, layers.SLSTM])
def test_a_cell_that_is_not_unrolled_leaves_as_it_is(cls, format, tmp_path):
    check(build(cls, unroll=False), format, tmp_path)


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
    if BACKEND == "torch" and "tol" in options:
        pytest.skip("refused, see below")
    check(build(cls, **options), format, tmp_path, n_rows=80)


@pytest.mark.skipif(BACKEND != "torch", reason="others export loops as loops")
@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_loop_that_pytorch_would_record_is_refused(batch_size, tmp_path):
    layer = layers.FISTA(N_ATOMS, tol=1e-3)
    inputs = keras.Input((N_FEATURES,), batch_size=batch_size)
    model = keras.Model(inputs, layer(inputs))
    with pytest.raises(ValueError, match=r"received tol=0\.001. Export a layer with"):
        exported(model, "onnx", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="shown in the layer's own tests")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_row_that_is_not_finite_leaves_the_others_alone(format, tmp_path):
    model = build(layers.FISTA, tol=1e-3, n_steps=2000)
    x = signals(9, N_FEATURES)
    expected = to_numpy(model(x))
    x[::4] = np.nan
    codes = exported(model, format, tmp_path)(x)
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
    np.testing.assert_allclose(
        exported(model, "tf_saved_model", tmp_path)(x), to_numpy(model(x)), atol=1e-5
    )
    # At the latest when it is loaded; in any case before there are codes.
    with pytest.raises(Exception, match=r"Select TensorFlow op|Invalid tensor|sequen"):
        exported(model, format, tmp_path)(x)
