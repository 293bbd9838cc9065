"""Pictures of dictionaries, reconstructions and convergence, with matplotlib.

`explorer` makes a page to look inside a model with.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray
from PIL import Image

from sc2keras.evaluation import mean_objective, step_codes
from sc2keras.explorer import explorer as explorer
from sc2keras.files import whole_file
from sc2keras.metrics import NONZERO_THRESHOLD
from sc2keras.models import SparseCoder
from sc2keras.models.variables import centered
from sc2keras.signals import as_array

# What a repository can keep many of.
_MAX_BYTES = 300_000
# Dots an inch and colours, from the best to the smallest.
_QUALITIES = ((110, 256), (95, 256), *((dpi, 64) for dpi in (110, 90, 80, 70, 60, 50)))


def plot_atoms(
    dictionary: NDArray | SparseCoder,
    image_shape: tuple[int, ...],
    n_atoms: int = 100,
    ax: Axes | None = None,
) -> Axes:
    """Draws atoms as a grid of images, each scaled to its own range.

    Grey atoms are drawn about zero (blue below, red above); atoms of three channels as
    colour images.

    Args:
        dictionary: Array `(n_atoms, n_features)`, or a `SparseCoder`.
        image_shape: Tuple, `(height, width)` or `(height, width, channels)`.
        n_atoms: Integer, the most atoms to draw, the first ones.
        ax: Matplotlib axes that are drawn on and returned; None: new ones.

    Raises:
        ValueError: If `image_shape` does not hold the features of an atom.

    Example:

    >>> ax = plot_atoms(np.eye(16), (4, 4))
    >>> plt.close(ax.figure)
    """
    atoms = getattr(dictionary, "dictionary", dictionary)
    atoms = as_array("dictionary", atoms)[:n_atoms]
    images = _as_images("atoms", atoms, image_shape)
    flat = np.abs(images).reshape(len(images), -1).max(axis=1)
    images = images / np.maximum(flat, 1e-12)[:, None, None, None]
    colour = images.shape[-1] == 3
    # A colour atom's zero is mid-grey.
    grid = tile_images(0.5 + 0.5 * images if colour else images, fill=np.nan)
    ax = ax or _new_axes(5, 5)
    ax.imshow(grid.squeeze(), cmap="RdBu_r", vmin=-1, vmax=1)
    return _without_ticks(ax)


def plot_reconstructions(
    x: NDArray,
    reconstructions: Mapping[str, NDArray | SparseCoder],
    image_shape: tuple[int, ...],
    ax: Axes | None = None,
) -> Axes:
    """Draws samples above their reconstructions, one row a method.

    Args:
        x: Array `(n_samples, ...)` in [0, 1].
        reconstructions: Dictionary from a label to an array of the shape of `x`, or to
            a `SparseCoder` that reconstructs `x`.
        image_shape: Tuple, `(height, width)` or `(height, width, channels)`.
        ax: Matplotlib axes that are drawn on and returned; None: new ones.

    Example:

    >>> x = np.random.default_rng(0).random((3, 16))
    >>> ax = plot_reconstructions(x, {"itself": x}, (4, 4))
    >>> plt.close(ax.figure)
    """
    rows = {"original": x} | {
        label: value.reconstruct(x) if isinstance(value, SparseCoder) else value
        for label, value in reconstructions.items()
    }
    images = np.concatenate(
        [_as_images(label, row, image_shape) for label, row in rows.items()]
    )
    n_samples = len(images) // len(rows)
    grid = tile_images(np.clip(images, 0, 1), fill=1.0, n_columns=n_samples)
    ax = ax or _new_axes(2 + 0.7 * n_samples, 0.8 * len(rows))
    ax.imshow(grid.squeeze(), cmap="gray", vmin=0, vmax=1)
    step = (grid.shape[0] + 1) / len(rows)
    _without_ticks(ax).tick_params(length=0)
    ax.set_yticks([step * (row + 0.5) - 0.5 for row in range(len(rows))], list(rows))
    return ax


def plot_convergence(
    curves: Mapping[
        str, Sequence[float] | Sequence[tuple[int, float]] | NDArray | SparseCoder
    ],
    ylabel: str = "objective",
    ax: Axes | None = None,
    x: NDArray | None = None,
) -> Axes:
    """Draws figures against the number of steps, both on log scales.

    Args:
        curves: Dictionary from a label to an array `(n_steps,)`, the figure after each
            step, or points `(step, figure)`, or to a `SparseCoder`, whose objective on
            `x` is drawn. A curve of at most 30 steps, a network's, has markers.
        ylabel: String.
        ax: Matplotlib axes that are drawn on and returned; None: new ones.
        x: Array `(n_samples, ...)`, needed where a curve is a model.

    Example:

    >>> ax = plot_convergence({"ISTA": 1 / np.arange(1, 101), "SLSTM": [0.5, 0.1]})
    >>> plt.close(ax.figure)
    """
    ax = ax or _new_axes(6.4, 4.2)
    for label, values in curves.items():
        if isinstance(values, SparseCoder):
            signals, model = _signals(label, x), values
            moved = centered(model.encoder, signals)
            values = [
                mean_objective(
                    moved,
                    codes,
                    model.dictionary,
                    model.encoder.l1,
                    l2=model.encoder.l2,
                )
                for codes in step_codes(model, signals)
            ]
        points = np.asarray(values)
        if points.ndim == 1:
            points = np.stack([np.arange(1, len(points) + 1), points], axis=1)
        network = len(points) <= 30
        ax.plot(
            *points.T,
            marker="o" if network else None,
            markersize=4,
            linestyle="-" if network else "--",
            label=label,
        )
    ax.loglog()
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(LogFormatter())
    # Minor labels only where the axis spans less than a decade or two.
    ax.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    ax.set(xlabel="steps", ylabel=ylabel)
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    return ax


def plot_tradeoff(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    xlabel: str,
    ylabel: str,
    ax: Axes | None = None,
) -> Axes:
    """Draws what is traded for what: points joined in their order, a curve a method.

    Args:
        curves: Dictionary from a label to points `(x, y)`, such as the nonzero fraction
            and the accuracy as λ varies.
        xlabel, ylabel: Strings.
        ax: Matplotlib axes that are drawn on and returned; None: new ones.

    Example:

    >>> ax = plot_tradeoff({"SLSTM": [(0.9, 91.0), (0.2, 95.0)]}, "nonzero", "accuracy")
    >>> plt.close(ax.figure)
    """
    ax = ax or _new_axes(6.4, 4.6)
    # Ten markers and thirteen colours: no two of a hundred curves look alike.
    colours = [*color_sequences["tab10"], "black", "lime", "gold"]
    styles = zip(cycle("osD^vP*X<>"), cycle(colours), strict=False)
    for (label, points), (marker, colour) in zip(curves.items(), styles, strict=False):
        x, y = zip(*points, strict=True)
        ax.plot(x, y, marker=marker, markersize=5, color=colour, label=label)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")
    return ax


def plot_nonzeros(
    codes: Mapping[str, NDArray | SparseCoder] | NDArray | SparseCoder,
    x: NDArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws how many entries of a code are not zero: a histogram over samples.

    Args:
        codes: Array `(n_samples, n_atoms)`, or a `SparseCoder`, or a dictionary from a
            label to either. An entry counts above 1e-3 in magnitude.
        x: Array `(n_samples, ...)` that is encoded, where `codes` is a model.
        ax: Matplotlib axes that are drawn on and returned; None: new ones.

    Example:

    >>> ax = plot_nonzeros(np.eye(5))
    >>> plt.close(ax.figure)
    """
    groups = codes if isinstance(codes, Mapping) else {"": codes}
    ax = ax or _new_axes(6.4, 4.2)
    for label, values in groups.items():
        if isinstance(values, SparseCoder):
            values = values.encode(_signals(label, x))
        values = as_array("codes", values)
        counts = np.count_nonzero(np.abs(values) > NONZERO_THRESHOLD, axis=1)
        bins = (np.arange(np.shape(values)[1] + 2) - 0.5).tolist()
        ax.hist(counts, bins, alpha=0.5, label=label or None)
    ax.set(xlabel="nonzero entries of a code", ylabel="samples")
    if list(groups) != [""]:
        ax.legend()
    return ax


def tile_images(images: NDArray, fill: float, n_columns: int | None = None) -> NDArray:
    """Images `(n, height, width, channels)` as one, a pixel of `fill` between them.

    Example:

    >>> tile_images(np.zeros((4, 2, 2, 1)), fill=1.0).shape
    (5, 5, 1)
    """
    n, height, width, channels = images.shape
    n_columns = n_columns or math.ceil(math.sqrt(n))
    n_rows = math.ceil(n / n_columns)
    grid = np.full(
        (n_rows * (height + 1) - 1, n_columns * (width + 1) - 1, channels), fill
    )
    for index, image in enumerate(images):
        row, column = divmod(index, n_columns)
        top, left = row * (height + 1), column * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Saves a figure as a PNG of a palette, of at most 300 kB, and closes it.

    Args:
        figure: Matplotlib figure.
        path: Path of the file, which appears whole or not at all.

    Example:

    >>> import tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "atoms.png")
    >>> save_figure(plot_atoms(np.eye(16), (4, 4)).figure, path)
    >>> os.path.getsize(path) < 300_000
    True
    """
    for dpi, n_colours in _QUALITIES:
        drawn, content = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        image = Image.open(drawn).convert("RGB")
        # The fast method, whose colours are good where others spend all on the white.
        image = image.quantize(n_colours, method=Image.Quantize.FASTOCTREE)
        image.save(content, format="png", optimize=True)
        if content.tell() <= _MAX_BYTES:
            break
    with whole_file(path) as temporary:
        temporary.write_bytes(content.getvalue())
    plt.close(figure)


def _signals(label: str, x: NDArray | None) -> NDArray:
    if x is None:
        raise ValueError(
            f"x must be given, the samples that the model {label!r} encodes; received "
            "x=None."
        )
    return as_array("x", x)


def _as_images(name: str, x: NDArray, image_shape: tuple[int, ...]) -> NDArray:
    shape = tuple(image_shape) if len(image_shape) == 3 else (*image_shape, 1)
    x = as_array(name, x)
    if not len(x):
        raise ValueError(f"{name} of shape {x.shape} hold no image. Give some.")
    if math.prod(x.shape[1:]) != math.prod(shape) or shape[-1] not in (1, 3):
        raise ValueError(
            f"image_shape={tuple(image_shape)} must be (height, width), or (height, "
            f"width, channels) with 1 or 3 channels, and hold the "
            f"{math.prod(x.shape[1:])} features of {name}."
        )
    return x.reshape(len(x), *shape)


def _new_axes(width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _without_ticks(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax
