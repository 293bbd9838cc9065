"""What 8 bits cost: shipped networks as LiteRT, on the test images of digits."""

import tempfile
from pathlib import Path

import numpy as np

from sc2keras import applications, datasets, evaluation
from sc2keras.metrics import NONZERO_THRESHOLD

from .exported import export
from .reports import markdown

BUILDERS = ("SC2Net", "LISTA", "LFISTA")
N_CALIBRATION = 200


def forms(x_train):
    """`{form: arguments of export}`."""
    import tensorflow as tf

    smaller = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    rows = x_train[:N_CALIBRATION, None]
    return {
        "float32": {},
        "8-bit weights": smaller,
        "8-bit weights and values": smaller
        | {"representative_dataset": lambda: ([row] for row in rows)},
    }


def measured():
    data = datasets.load("digits")
    return [
        {"network": builder, "form": form, **figures(builder, data, arguments)}
        for builder in BUILDERS
        for form, arguments in forms(data.x_train).items()
    ]


def figures(builder, data, arguments):
    """Size, objective and codes beside those of the model."""
    model = applications.build(builder, weights="digits")
    with tempfile.TemporaryDirectory() as folder:
        run = export(model, "litert", Path(folder), **arguments)
        size = Path(folder, "model.tflite").stat().st_size
    codes = {"train": run(data.x_train), "test": run(data.x_test)}
    expected = model.encode(data.x_test)
    error = np.linalg.norm(codes["test"] - expected) / np.linalg.norm(expected)
    accuracy = evaluation.full_accuracy(
        codes["train"], data.y_train, codes["test"], data.y_test
    )
    return {
        "kilobytes": size / 1000,
        "error": float(error),
        "objective": evaluation.mean_objective(
            data.x_test, codes["test"], model.dictionary, model.encoder.l1
        ),
        "nonzero": float(np.mean(np.abs(codes["test"]) > NONZERO_THRESHOLD)),
        "accuracy": accuracy.accuracy,
    }


def table(records):
    header = ["network", "LiteRT", "kB", "codes off by, %", "objective", "nonzero"]
    rows = [
        [
            record["network"],
            record["form"],
            f"{record['kilobytes']:.0f}",
            f"{100 * record['error']:.2f}",
            f"{record['objective']:.3f}",
            f"{record['nonzero']:.2f}",
            f"{100 * record['accuracy']:.1f}",
        ]
        for record in records
    ]
    return markdown([*header, "accuracy, %"], rows)
