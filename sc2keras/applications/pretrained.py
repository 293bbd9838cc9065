"""Trained weights that ship with the package, each with a card."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "weights"


def list_weights() -> dict[str, list[str]]:
    """The names that `weights=` takes, by builder.

    Returns:
        Dictionary `{builder: [name, ...]}`.

    Example:

    >>> list_weights()["SC2Net"]
    ['cifar10', 'digits', 'mnist']
    """
    found: dict[str, list[str]] = {}
    for path in sorted(_FOLDER.glob("*.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(card["builder"], []).append(card["weights"])
    return found


def weights_card(builder: str, weights: str) -> dict[str, Any]:
    """The card of trained weights: what they are, and what they reach.

    Args:
        builder: String, the name of a builder, such as `"SC2Net"`.
        weights: String, the name of weights of it, such as `"mnist"`.

    Returns:
        Dictionary with the `data` (name, split, licence), the `settings` and `seed` of
        the training, the versions (`environment`), the `command` that makes the weights
        again, the `sha256` of the file, and under `test` and `train` what was measured
        on these splits, as `sc2keras.evaluation` says: the `objective`, its `gap` to
        the `optimum`, the fraction of `nonzero` entries, and the accuracies by the
        `full` and the `paper` protocol.

    Raises:
        ValueError: If there are no such weights.

    Example:

    >>> card = weights_card("SC2Net", "digits")
    >>> card["settings"]["n_atoms"], 0 < card["test"]["nonzero"] < 1
    (100, True)
    """
    path = _FOLDER / f"{_stem(builder, weights)}.json"
    if not path.is_file():
        others = ", ".join(
            f"{name}: {', '.join(map(repr, names))}"
            for name, names in list_weights().items()
        )
        raise ValueError(
            f"weights must be None, the path of an existing .keras or .weights.h5 file,"
            f" or a name; received weights={weights!r}, but {builder} has no weights "
            f"of that name. There are {others} (sc2keras.applications.list_weights())."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def weights_path(builder: str, weights: str) -> Path:
    """The `.keras` file of trained weights, once its SHA-256 is that of its card.

    Args:
        builder, weights: As in `weights_card`.

    Returns:
        `pathlib.Path`, for `keras.saving.load_model`.

    Raises:
        ValueError: If there are no such weights.
        OSError: If the file is missing, truncated or altered.

    Example:

    >>> weights_path("LISTA", "digits").name
    'lista-digits.keras'
    """
    card = weights_card(builder, weights)
    path = _FOLDER / f"{_stem(builder, weights)}.keras"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Install sc2keras again.")
    found = file_sha256(path)
    if found != card["sha256"]:
        raise OSError(
            f"{path} is truncated or altered: its SHA-256 is {found}, that of its card "
            f"{card['sha256']}. Install sc2keras again."
        )
    return path


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stem(builder: str, weights: str) -> str:
    return f"{builder.lower()}-{weights}"
