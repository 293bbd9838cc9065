"""The page itself: figures and arrays in a template, with its style and its script."""

import html
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from sc2keras import signals
from sc2keras._version import __version__
from sc2keras.explorer import figures
from sc2keras.explorer.facts import card_facts, model_facts, sparse_coder
from sc2keras.explorer.packing import pack
from sc2keras.files import whole_file
from sc2keras.metrics import NONZERO_THRESHOLD
from sc2keras.models import SparseCoder
from sc2keras.validation import Shape, in_words

# Of the samples that a page holds, before they are compressed, and how many at most.
_SAMPLE_BYTES = 1_200_000
_MOST_SAMPLES = 1000
_FEWEST_SAMPLES = 32
# 64 MB in the page: what a browser still opens without a long wait.
_MOST_NUMBERS = 24_000_000


class Page(NamedTuple):
    """A page in HTML that needs no other file and no network.

    In a notebook it shows itself.

    Example:

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/page.html"
    >>> Page("<!doctype html>…").save(path)
    >>> open(path, encoding="utf-8").read()
    '<!doctype html>…'
    """

    html: str

    def save(self, path: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Writes the page to a file, which appears whole or not at all.

        Args:
            path: Path that ends in `.html`, in a folder that exists.
            overwrite: Boolean. If False, a file that is there is never replaced.

        Raises:
            FileExistsError: If `overwrite` is False and the file exists.
            OSError: If the file cannot be written.
        """
        with whole_file(path, overwrite) as temporary:
            temporary.write_text(self.html, "utf-8", "backslashreplace")

    def _repr_html_(self) -> str:
        content = html.escape(self.html)
        return f'<iframe srcdoc="{content}" width="100%" height="900"></iframe>'


def explorer(
    model: Any,
    x: Any = None,
    *,
    title: str | None = None,
    image_shape: tuple[int, ...] | None = None,
    feature_names: Sequence[str] | None = None,
    facts: Mapping[str, str] | None = None,
    card: Mapping[str, Any] | None = None,
) -> Page:
    """One static page to look inside a model with.

    It shows every atom, sorted by how often it fires, with its strongest samples and
    the distribution of its entries; samples beside their reconstructions x̂ = s D, with
    a slider for each entry of the code; and the objective, the duality gap, nonzero
    entries and dead atoms. An atom fires where its entry exceeds 1e-3 in magnitude.

    Args:
        model: A `SparseCoder`, or a `SparseCodeTransformer` that was fitted.
        x: Array `(n_samples, *input_shape)`, scaled as `model.encode` takes it. None:
            the page shows what the model alone tells.
        title: String; None: the name of the model.
        image_shape: Tuple, `(height, width)` or `(height, width, channels)` of 1 or 3
            channels. None: the model's input shape where it is one of an image; other
            signals are drawn as bars.
        feature_names: Strings, one a feature, where signals are drawn as bars. None:
            the columns of `x` where it is a frame.
        facts: Mapping of names to what else the page says of the model.
        card: Mapping, what `sc2keras.applications.weights_card` returns.

    Returns:
        A `Page`, with `html` and `save(path)`.

    Raises:
        ValueError: If `x`, `image_shape` or `feature_names` do not fit the model, or
            the dictionary is too large for a page.

    Example:

    >>> from sc2keras.applications import SC2Net
    >>> model = SC2Net(6, input_shape=(4, 4), n_steps=2)
    >>> page = explorer(model, np.random.default_rng(0).random((20, 4, 4)))
    >>> page.html.startswith("<!doctype html>")
    True
    """
    model = sparse_coder(model)
    _check_size(model)
    names = _feature_names(model, x, feature_names)
    title = model.name if title is None else title
    known = {**(facts or {}), **model_facts(model)}
    weights = np.asarray(model.encoder.l1).tolist()
    data = {
        "image": _image_of(model, image_shape),
        "features": names,
        "threshold": NONZERO_THRESHOLD,
        "l1": weights if model.encoder.solves == "lasso" else None,
        "l2": model.encoder.l2,
        **_atoms_of(model),
        "samples": None,
    }
    tiles = _tiles_of_a_model(model)
    if x is not None:
        x = _samples(model, x)
        codes = model.encode(x)
        of_samples = figures.sample_figures(model, x, codes)
        of_atoms = figures.atom_figures(codes)
        data |= _held(x, codes, of_samples, of_atoms, data["image"])
        tiles = _tiles_of_codes(model, codes, of_samples, of_atoms)
    return Page(
        _fill(
            _file("page.html"),
            title=html.escape(title),
            style=_file("page.css"),
            tiles="".join(_tile(*tile) for tile in tiles),
            facts=_list_of(known),
            card=_section("Its card", card_facts(card)) if card else "",
            made=f"sc2keras {__version__}, Keras {keras.__version__}",
            state="with-samples" if x is not None else "model-alone",
            # Within a script of the page, "<" could end it.
            data=json.dumps(data).replace("<", "\\u003c"),
            script="\n".join(map(_file, ("draw.js", "atoms.js", "codes.js"))),
        )
    )


def _check_size(model: SparseCoder) -> None:
    shape = (model.encoder.n_atoms, model.encoder.n_features)
    if math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(
            f"the dictionary of {model.name!r} has shape {shape}, more than the "
            f"{_MOST_NUMBERS:,} numbers that a page holds. Draw some of its atoms with "
            "sc2keras.plotting.plot_atoms."
        )


def _samples(model: SparseCoder, x: Any) -> NDArray:
    shape = model.input_shape[1:]
    x = signals.as_samples("x", signals.open_samples("x", x, shape), shape)
    if not len(x):
        raise ValueError(
            f"x must hold at least one sample; received x.shape={x.shape}. Leave x out "
            "for a page of the model alone."
        )
    return x


def _image_of(model: SparseCoder, image_shape: Shape | None) -> dict[str, Any] | None:
    shape = tuple(image_shape or model.input_shape[1:])
    sizes = (*shape, 1)[:3]
    fits = len(shape) in (2, 3) and sizes[2] in (1, 3)
    fits = fits and math.prod(sizes) == model.encoder.n_features
    if not fits and image_shape is not None:
        raise ValueError(
            f"image_shape={shape} must be (height, width), or (height, width, channels)"
            f" with 1 or 3 channels, and hold the {model.encoder.n_features} features "
            "of the model."
        )
    height, width, channels = sizes if fits else (0, 0, 0)
    image = {"height": height, "width": width, "channels": channels}
    return image if fits else None


def _feature_names(model: SparseCoder, x: Any, names: Any) -> list[str] | None:
    if names is None and getattr(x, "columns", None) is not None:
        names = x.columns
    names = None if names is None else [str(name) for name in names]
    if names is not None and len(names) != model.encoder.n_features:
        raise ValueError(
            f"feature_names must have one name for each of the model's "
            f"{model.encoder.n_features} features; received {len(names)}."
        )
    return names


def _atoms_of(model: SparseCoder) -> dict[str, Any]:
    """What an entry of 1 adds to a signal, atom by atom, and what is there without."""
    n_atoms = model.encoder.n_atoms
    rows = 2048
    without = model.decode(np.zeros((1, n_atoms), "float32")).reshape(-1)
    parts = [
        model.decode(np.eye(min(rows, n_atoms - start), n_atoms, start, "float32"))
        for start in range(0, n_atoms, rows)
    ]
    atoms = np.concatenate(parts).reshape(n_atoms, -1) - without
    return {
        "atoms": pack(atoms, "float16"),
        "offset": pack(without, "float32"),
        "norm": pack(np.linalg.norm(atoms, axis=1), "float32"),
    }


def _held(
    x: NDArray,
    codes: NDArray,
    of_samples: figures.SampleFigures,
    of_atoms: figures.AtomFigures,
    image: dict[str, Any] | None,
) -> dict[str, Any]:
    """The figures of every atom, and the samples that a page has room for."""
    flat = x.reshape(len(x), -1)
    n_bytes = flat.shape[1] * (1 if image else 2) + codes.shape[1] // 2
    n_most = min(_MOST_SAMPLES, max(_FEWEST_SAMPLES, _SAMPLE_BYTES // n_bytes))
    rows, n_spread = figures.choose_samples(of_atoms.top, len(x), n_most)
    place = np.full(len(x) + 1, -1)  # The last is that of -1: no sample.
    place[rows] = np.arange(len(rows))
    of_atoms = of_atoms._replace(top=place[of_atoms.top])
    integers = {"counts", "top"}
    gap = of_samples.gap
    return {
        "range": _range(flat),
        "figures": {
            name: pack(value, "int32" if name in integers else "float32")
            for name, value in of_atoms._asdict().items()
        },
        "samples": {
            "n": len(x),
            "n_spread": n_spread,
            "rows": pack(rows, "int32"),
            "x": pack(flat[rows], "uint8" if image else "float16"),
            "codes": pack(codes[rows], "float16"),
            "objective": pack(of_samples.objective[rows], "float32"),
            "error": pack(of_samples.error[rows], "float32"),
            "gap": None if gap is None else pack(gap[rows], "float32"),
        },
    }


def _range(x: NDArray) -> tuple[float, float]:
    """What is drawn black, and white."""
    low, high = float(x.min()), float(x.max())
    if low < 0:
        return -max(-low, high), max(-low, high)
    return (0.0, 1.0) if high <= 1 else (0.0, high)


Tile = tuple[str, float, str, str]


def _tiles_of_a_model(model: SparseCoder) -> Iterator[Tile]:
    """Names, values, how a value is written, and what it means."""
    norms = np.linalg.norm(model.dictionary, axis=1)
    smallest, largest = norms.min(), norms.max()
    yield "atoms", len(norms), f"{len(norms):,}", "rows of the dictionary D"
    n = model.encoder.n_features
    yield "features", n, f"{n:,}", "numbers in a signal x"
    l1 = model.encoder.l1
    yield "λ", float(np.mean(l1)), in_words(l1), "weight of the ℓ1 term"
    text = f"{smallest:.3f} to {largest:.3f}"
    yield "norms", float(largest), text, "of the atoms, at most 1"


def _tiles_of_codes(
    model: SparseCoder,
    codes: NDArray,
    of_samples: figures.SampleFigures,
    of_atoms: figures.AtomFigures,
) -> Iterator[Tile]:
    n_samples, n_atoms = codes.shape
    objective = float(np.mean(of_samples.objective, dtype="float64"))
    error = float(np.mean(of_samples.error, dtype="float64"))
    is_lasso = model.encoder.solves == "lasso"
    terms = "½‖x − x̂‖² + λ‖s‖₁" if is_lasso else "½‖x − x̂‖² and the penalty"
    what = f"mean of {terms} over {n_samples:,} samples"
    yield "objective", objective, f"{objective:.4g}", what
    if of_samples.gap is not None:
        gap = float(np.mean(of_samples.gap, dtype="float64"))
        what = "mean bound on the distance to the optimum"
        yield "duality gap", gap, f"{gap:.2%}", what
    energy = float(np.mean(of_samples.energy, dtype="float64"))
    share = error / energy if energy else 0.0
    yield "left over", share, f"{share:.1%}", "‖x − x̂‖² as a share of ‖x‖²"
    nonzero = float(np.mean(np.abs(codes) > NONZERO_THRESHOLD))
    what = f"of the entries: {nonzero * n_atoms:.1f} of {n_atoms} in a code"
    yield "nonzero", nonzero, f"{nonzero:.1%}", what
    dead = int(np.sum(of_atoms.fires == 0))
    yield "dead atoms", dead, f"{dead:,}", f"of {n_atoms:,}: they fire for no sample"


def _tile(name: str, value: float, text: str, what: str) -> str:
    return (
        f'<div><dt>{name}</dt><dd><data value="{value!r}">{text}</data>'
        f"<small>{what}</small></dd></div>"
    )


def _section(title: str, facts: Mapping[str, str]) -> str:
    return f"<h3>{title}</h3>{_list_of(facts)}"


def _list_of(facts: Mapping[str, str]) -> str:
    rows = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _fill(template: str, **values: str) -> str:
    """The template with each `{{name}}` replaced; what replaces it is not looked at."""
    parts = template.split("{{")
    filled = [parts[0]]
    for part in parts[1:]:
        name, _, rest = part.partition("}}")
        filled += [values[name], rest]
    return "".join(filled)
