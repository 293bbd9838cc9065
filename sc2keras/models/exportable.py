"""What a model can leave as; all else is refused by name before any work."""

import importlib.util
from pathlib import Path

import keras

from sc2keras import backend

# As a sentence calls them, and the ending that their files must have.
_FORMATS = {
    "tf_saved_model": ("SavedModel", ""),
    "litert": ("LiteRT", ".tflite"),
    "onnx": ("ONNX", ""),
    "openvino": ("OpenVINO", ".xml"),
    "torch": ("PyTorch's .pt2", ".pt2"),
}


def check_exportable(model: keras.Model, path: Path, format: str) -> None:
    """Raises if `model.export(path, format)` has no result with the model's codes.

    Raises:
        ValueError: If the format is unknown, or none of the backend, of a solver with a
            tolerance, or of the model's dtype; or if the path has another ending, or
            is no UTF-8.
        ImportError: If a package that writes the format is not installed.
    """
    if format not in _FORMATS:
        known = ", ".join(map(repr, _FORMATS))
        raise ValueError(f"format must be one of {known}; received format={format!r}.")
    name, suffix = _FORMATS[format]
    _check_backend(name, format)
    if has_loop(model) and format not in backend.LOOPS_IN:
        raise ValueError(
            f"On {keras.backend.backend()} as many steps would be recorded as one "
            f"input takes, for all others as well; received tol={model.encoder.tol!r}. "
            "Export a model with tol=None, or export it on TensorFlow."
        )
    dtypes = {each.dtype for each in [*model.inputs, *model.weights]}
    dtypes |= {layer.compute_dtype for layer in model.layers}
    if format != "tf_saved_model" and dtypes != {"float32"}:
        raise ValueError(
            f"As {name} models leave in float32; received a model with "
            f"{', '.join(sorted(dtypes))}. Make one with dtype='float32' and load the "
            "weights into it, or export a SavedModel."
        )
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The path of {name} must be UTF-8; received {str(path)!r}."
        ) from error
    if not path.name.endswith(suffix):
        raise ValueError(
            f"The path of {name} must end in {suffix}; received {str(path)!r}."
        )


def has_loop(model: keras.Model) -> bool:
    """Whether the number of steps depends on the input."""
    return getattr(getattr(model, "encoder", None), "tol", None) is not None


def _check_backend(name: str, format: str) -> None:
    running = keras.backend.backend()
    if format not in backend.EXPORTS:
        others = " or ".join(backend.exporting(format))
        raise ValueError(
            f"{name} is not written on {running}; received format={format!r}. Save the "
            f"model, and export it where KERAS_BACKEND is {others}."
        )
    for package in backend.EXPORTS[format]:
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"format={format!r} needs the package {package}. Install it with pip "
                f"install {package}, and start Python again."
            )
