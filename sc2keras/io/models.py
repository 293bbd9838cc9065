"""The model of a transfer: a file, weights that ship or of the Hub, or a model."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import keras
from keras import ops

from sc2keras.applications import list_weights, weights_path
from sc2keras.applications.pretrained import file_sha256
from sc2keras.io.errors import ModelError, failing_as
from sc2keras.models import SparseCoder, saving


def model_path(name: str | os.PathLike[str]) -> Path:
    """A path, that of the weights `BUILDER/WEIGHTS`, or a ModelError."""
    if os.path.isfile(name):
        return Path(name)
    builder, _, weights = str(name).partition("/")
    known = list_weights()
    if weights in known.get(builder, []):
        return weights_path(builder, weights)
    like = {builder: known[builder]} if builder in known else known
    ship = ", ".join(f"{key}/{name}" for key, names in like.items() for name in names)
    raise ModelError(
        f"the model {name} is not a file, and no weights of that name ship. Check the "
        f"path, or give one of {ship}."
    )


def load_model(model: SparseCoder | str | os.PathLike[str]) -> tuple[SparseCoder, str]:
    if isinstance(model, SparseCoder):
        return model, _sha256(model)
    if not isinstance(model, str | os.PathLike):
        what = f"the model is a {type(model).__name__}"
        raise ModelError(f"{what}. Give a SparseCoder, its path, or a name of weights.")
    if saving.is_preset(str(model)):
        try:
            loaded = saving.load_preset(str(model))
        except (ImportError, OSError, ValueError) as error:
            raise ModelError(str(error)) from error
        loaded = _checked(loaded, model)
        return loaded, _sha256(loaded)
    path = model_path(model)
    remedy = (
        "Give a .keras file that model.save wrote, and save it anew if it was cut off; "
        "an encoder of your own is known once its module is imported."
    )
    with failing_as(ModelError, f"{path} cannot be loaded", remedy):
        sha256 = file_sha256(path)
        loaded = keras.saving.load_model(path, compile=False)
        if file_sha256(path) != sha256:
            raise ValueError("it was replaced meanwhile")
    return _checked(loaded, path), sha256


def _checked(loaded: Any, name: str | os.PathLike[str]) -> SparseCoder:
    if not isinstance(loaded, SparseCoder):
        raise ModelError(
            f"{name} holds a {type(loaded).__name__}. Give a SparseCoder, for instance "
            "a model of sc2keras.applications."
        )
    return loaded


def _sha256(model: SparseCoder) -> str:
    """Of what the codes of a model depend on."""
    config = {**model.encoder.get_config(), "name": None}
    config["input"] = model.input_shape
    # Encoders of the same arguments and weights may make other steps of them.
    kind = keras.saving.get_registered_name(type(model.encoder))
    weights = [(w.name, ops.convert_to_numpy(w)) for w in model.weights]
    held = [(name, value.shape, value.dtype.name) for name, value in weights]
    content = json.dumps([kind, config, held], sort_keys=True, default=str).encode()
    digest = hashlib.sha256(content)
    for _, value in weights:
        digest.update(value.tobytes())
    return digest.hexdigest()
