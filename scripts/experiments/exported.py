"""Exported models, run by what they are exported for: their codes, the first output."""

import warnings

import keras


def saved_model(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda x: keras.tree.flatten(loaded.serve(x))[0].numpy()


def litert(path):
    import tensorflow as tf

    with warnings.catch_warnings():
        # It recommends the package ai_edge_litert, which has the same interpreter.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(path)
    # Outputs have their order in the signature alone.
    serve = interpreter.get_signature_runner()
    (source,) = serve.get_input_details()
    target = min(serve.get_output_details())
    return lambda x: serve(**{source: x})[target]


def onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def openvino(path):
    import openvino

    # Where a processor has bfloat16, it would compute in that.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", exact)
    return lambda x: compiled(x)[0]


def torch(path):
    import torch

    module = torch.export.load(path).module()

    def run(x):
        with torch.no_grad():
            return keras.tree.flatten(module(torch.from_numpy(x)))[0].numpy()

    return run


# Of each format, what runs it, the ending of its files, and the package for it.
RUNNERS = {
    "tf_saved_model": (saved_model, "", "tensorflow"),
    "litert": (litert, ".tflite", "tensorflow"),
    "onnx": (onnx, ".onnx", "onnxruntime"),
    "openvino": (openvino, ".xml", "openvino"),
    "torch": (torch, ".pt2", "torch"),
}


def export(model, format, folder, **kwargs):
    """A function from signals to codes that runs what `model.export` wrote."""
    runner, suffix, _ = RUNNERS[format]
    path = str(folder / f"model{suffix}")
    model.export(path, format=format, verbose=False, **kwargs)
    return runner(path)
