"""A model and its card in one folder, as the Hugging Face Hub keeps them."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sc2keras.explorer.facts import card_facts, model_facts, sparse_coder
from sc2keras.models import SparseCoder, saving

_README = """---
library_name: keras
{licence}tags:
- sc2keras
- sparse-coding
---

# {name}

A sparse coder of sc2keras, for Keras on TensorFlow, JAX and PyTorch.

| | |
| --- | --- |
{facts}

```python
import keras
import sc2keras

model = keras.saving.load_model("hf://OWNER/{name}")
codes = model.encode(x)
```
"""


def save_to_preset(
    model: Any,
    folder: str | os.PathLike[str],
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a model, and its card as a README, to a folder for the Hugging Face Hub.

    `keras.saving.load_model`, `weights=` of a builder and `sc2keras encode` load the
    folder; and, once it is uploaded (`hf upload owner/model folder`), the address
    `hf://owner/model`.

    Args:
        model: `SparseCoder`, or a `SparseCodeTransformer` that was fitted. If it is
            compiled, its optimizer is saved as well.
        folder: Path of a folder, in one that exists. It appears whole or not at all; of
            a folder that is there nothing but an earlier export is replaced.
        card: Dictionary, what ``sc2keras.applications.weights_card`` returns; or
            names and texts of your own, such as `{"data": "...", "licence": "mit"}`.
            They are rows of the README.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ValueError: If a weight holds a NaN or an infinity, or `model` is no
            `SparseCoder`, or `card` no dictionary.
        FileExistsError: If something else than an earlier export would be replaced.

    Example:

    >>> import tempfile
    >>> from sc2keras.applications import LISTA, weights_card
    >>> folder = tempfile.mkdtemp() + "/lista-digits"
    >>> model = LISTA(weights="digits")
    >>> path = save_to_preset(model, folder, weights_card("LISTA", "digits"))
    >>> LISTA(weights=path).input_shape
    (None, 8, 8, 1)
    """
    folder, model = Path(folder), sparse_coder(model)
    if not isinstance(card, Mapping | None):
        raise ValueError(
            f"card must be a dictionary of names and texts; received card={card!r}."
        )
    saving.save_preset(model, folder, _readme(model, folder.resolve().name, card or {}))
    return folder


def _readme(model: SparseCoder, name: str, card: Mapping[str, Any]) -> str:
    # Of weights that ship the card holds more than texts.
    of_card = card_facts(card) if "sha256" in card else card
    facts = {**model_facts(model), **of_card}
    rows = [f"| {key} | {_cell(value)} |" for key, value in facts.items()]
    licence = (
        f"license: {_identifier(card['licence'])}\n" if card.get("licence") else ""
    )
    return _README.format(name=name, licence=licence, facts="\n".join(rows))


def _identifier(licence: object) -> str:
    """The Hub's name of a licence: what is none, such as a sentence, is "other"."""
    name = str(licence).strip().lower()
    return name if re.fullmatch(r"[a-z][a-z0-9.+-]*", name) else "other"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", r"\|")
