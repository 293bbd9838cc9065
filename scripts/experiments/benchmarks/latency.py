"""The time that one vector takes, by every way there is to run a model."""

import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from sc2keras import applications
from sc2keras.backend import aligned_empty
from sc2keras.models import compile_forward

from . import measure
from .measure import seconds_of


def latency(x, args):
    n_calls = 200 if args.quick else 2000
    row = aligned_empty((1, x.shape[1]), "float32")
    row[:] = x[:1]
    records = []
    for n_steps in measure.STEPS:
        model = applications.SC2Net(args.n_atoms, x.shape[1:], n_steps=n_steps)
        expected = model.encode(row)
        with tempfile.TemporaryDirectory() as folder:
            calls = _calls(model, row, Path(folder)).items()
            for way, call in tqdm(calls, f"latency, T = {n_steps}", leave=False):
                # What is fast and wrong is not fast.
                np.testing.assert_allclose(call(), expected, atol=1e-4)
                n = n_calls // 10 if way == "model(x)" else n_calls
                seconds = [seconds_of(call) for _ in range(n + 20)][20:]
                median, p99 = (1e6 * np.percentile(seconds, (50, 99))).tolist()
                figures = {"n_steps": n_steps, "way": way}
                records.append(figures | {"median_us": median, "p99_us": p99})
    return records


def _calls(model, row, folder):
    forward = compile_forward(model)
    calls = {
        "model(x)": lambda: keras.ops.convert_to_numpy(model(row, training=False)),
        "model.encode(x)": lambda: model.encode(row),
        "compile_forward(model)(x)": lambda: forward(row),
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        model.export(folder / "saved", verbose=False)
        loaded = tf.saved_model.load(folder / "saved")
        calls["exported SavedModel"] = lambda: loaded.serve(row).numpy()
        calls["exported LiteRT, one thread"] = _litert(model, row, folder / "m.tflite")
    return calls


def _litert(model, row, path):
    import tensorflow as tf

    model.export(path, format="litert", verbose=False)
    with warnings.catch_warnings():
        # It recommends the package ai_edge_litert, which has the same interpreter.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()

    def call():
        interpreter.set_tensor(source["index"], row)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return call
