"""The command `sc2keras`: its arguments, before Keras and its backend are imported.

It stands beside the package, since to import any part of that takes seconds.
"""

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

DESCRIPTION = """Sparse codes of files, and what is known of the models that make them.

    sc2keras encode model.keras x.npy codes.npy          # dense, float32
    sc2keras encode model.keras x.npz codes.npz --key x  # CSR
    sc2keras encode model.keras photos/ codes.npy --resize
    sc2keras encode SC2Net/mnist mnist codes.npy --split train
    sc2keras decode SC2Net/mnist codes.npy images.npy
    sc2keras info SC2Net/mnist

MODEL is a .keras file, or BUILDER/WEIGHTS of what `sc2keras list` lists.
"""

ENCODE = """Memory does not grow with the number of vectors. A run can be stopped at
any moment: the same command goes on where it was, also if images were added behind
those that are done. OUTPUT is there only once it is whole, and only if INPUT did not
change meanwhile."""

INPUT = """array of samples (.npy, or .npz, compressed or not, a SciPy CSR array too);
folder of png, jpg and bmp images, folders and links to folders in it included, in
sorted order, turned as their EXIF says and converted to grey or colour as the model
takes them; digits; or the name of a prepared dataset of TensorFlow Datasets, of which
the feature 'image' is read. uint8 is scaled to [0, 1] (x / 255); floats are taken as
they are. Samples may be flattened."""

OUTPUT = """.npy: all codes, (n_samples, n_atoms), float32; .npz: a SciPy CSR array of
the entries that are not zero, for scipy.sparse.load_npz"""


def start() -> None:
    """What the command does, from its start on."""
    handled = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
    if handled:
        # The imports take seconds, in which Ctrl-C would show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    args = parse_arguments()
    # A name may hold bytes that are no text.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with silent():
        from sc2keras import cli

    if handled:
        signal.signal(signal.SIGINT, cli.interrupted)
    cli.run(args)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps what TensorFlow tells of itself while it is imported off the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "sc2keras",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, description: str | None = None) -> Any:
        return commands.add_parser(
            name, help=summary, description=description or summary.capitalize()
        )

    encode = command("encode", "codes of a file, into a file", ENCODE)
    add_model(encode)
    encode.add_argument("input", metavar="INPUT", help=INPUT)
    encode.add_argument("output", metavar="OUTPUT", help=OUTPUT)
    add = encode.add_argument
    add("--split", help="of digits or a TensorFlow dataset, such as train (test)")
    add("--data-dir", help="where TensorFlow Datasets keeps its datasets")
    add(
        "--resize",
        action="store_true",
        default=None,
        help="resize images (bilinear) to the model's input; otherwise another size is "
        "an error",
    )
    add(
        "--threshold",
        type=positive_number,
        metavar="T",
        help="leave entries of magnitude <= T out of the CSR array too",
    )
    add_transfer(encode)
    decode = command("decode", "signals of codes, from a file into a file")
    add_model(decode)
    decode.add_argument("input", metavar="CODES", help=".npy or .npz, as encode writes")
    decode.add_argument(
        "output", metavar="OUTPUT", help=".npy: float32, in the shape of MODEL's input"
    )
    add_transfer(decode)
    add_model(command("info", "a model's encoder, sizes, and figures"))
    add_import(command("list", "the builders, and the weights that ship"))
    return parser.parse_args(argv)


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help=".keras file, or BUILDER/WEIGHTS"
    )
    add_import(parser)


def add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import it first: it registers an encoder of your own",
    )


def add_transfer(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--key", help="the array of an .npz that holds several")
    add(
        "--batch-rows",
        type=positive_integer,
        metavar="N",
        help="rows that are held at a time (by default as many as take 16 MB with "
        "their codes)",
    )
    add("--overwrite", action="store_true", help="replace OUTPUT once all is done")


def positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not an integer >= 1")
    return value


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} is not a number > 0")
    return value
