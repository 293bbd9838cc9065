"""The command `sc2keras`, beside the package, whose import takes seconds."""

import argparse
import os
import signal
import sys
from typing import Any

DESCRIPTION = """Sparse codes of files, and what is known of the models that make them.

    sc2keras encode model.keras x.npy codes.npy          # dense, float32
    sc2keras encode model.keras x.npz codes.npz --key x  # CSR
    sc2keras encode model.keras photos/ codes.npy --resize
    sc2keras encode SC2Net/mnist mnist codes.npy --split train
    sc2keras decode SC2Net/mnist codes.npy images.npy
    sc2keras view SC2Net/mnist mnist -o page.html        # for a browser
    sc2keras info SC2Net/mnist
    sc2keras info model.keras x.npy                      # did training work?

MODEL is a .keras file; BUILDER/WEIGHTS of what `sc2keras list` lists; a folder
of sc2keras.hub.save_to_preset; or hf://OWNER/MODEL, of the Hugging Face Hub.
"""

ENCODE = """Memory does not grow with the number of vectors. A run can be stopped at
any moment: the same command goes on where it was, also if images were added behind
those that are done. OUTPUT is there only once it is whole, and only if INPUT did not
change meanwhile. INPUT is an array of samples (.npy, or .npz, compressed or not, a
SciPy CSR array too); a folder of png, jpg and bmp images, folders and links to folders
in it included, in sorted order, turned as their EXIF says and converted to grey or
colour as the model takes them; digits; or the name of a prepared dataset of TensorFlow
Datasets, of which the feature 'image' is read. uint8 is scaled to [0, 1] (x / 255);
floats are taken as they are. Samples may be flattened. OUTPUT is .npy: all codes,
(n_samples, n_atoms), float32; or .npz: a SciPy CSR array of the entries that are not
zero, for scipy.sparse.load_npz."""

DECODE = """INPUT holds codes, .npy or .npz, as encode writes them; OUTPUT is .npy:
float32, in the shape of MODEL's input. It can be stopped, and goes on, as encode."""

VIEW = """A page to look inside MODEL with: one file of HTML that needs no network. DATA
is what encode reads; of more than 10,000 samples as many evenly spread ones are taken.
Without it the page shows the atoms, and what is known of MODEL."""

INFO = """What is known of MODEL. With DATA, which is what encode reads, also how good
its codes of them are, and what helps where something is off."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "model": {"metavar": "MODEL", "help": ".keras file, BUILDER/WEIGHTS, or hf://…"},
    "input": {"metavar": "INPUT", "help": "file, folder or name, as said above"},
    "output": {"metavar": "OUTPUT", "help": "file, as said above"},
    "data": {"metavar": "DATA", "nargs": "?", "help": "samples that MODEL encodes"},
    "-o": {
        "dest": "output",
        "metavar": "OUTPUT",
        "required": True,
        "help": "file that ends in .html",
    },
    "--split": {"help": "of digits or a TensorFlow dataset, such as train (test)"},
    "--data-dir": {"help": "where TensorFlow Datasets keeps its datasets"},
    "--resize": {
        "action": "store_true",
        "default": None,
        "help": "resize images (bilinear) to the model's input; otherwise another size "
        "is an error",
    },
    "--threshold": {
        "type": float,
        "metavar": "T",
        "help": "leave entries of magnitude <= T out of the CSR array too",
    },
    "--tol": {
        "type": float,
        "metavar": "GAP",
        "help": "take codes on to a relative duality gap of at most GAP, such as 1e-4",
    },
    "--key": {"help": "the array of an .npz that holds several"},
    "--batch-rows": {
        "type": int,
        "metavar": "N",
        "help": "rows that are held at a time (by default as many as take 16 MB with "
        "their codes)",
    },
    "--overwrite": {"action": "store_true", "help": "replace OUTPUT once all is done"},
    "--import": {
        "dest": "modules",
        "action": "append",
        "default": [],
        "metavar": "MODULE",
        "help": "import it first: it registers an encoder of your own",
    },
}
FILES = ("model", "input", "output", "--key", "--batch-rows", "--overwrite", "--import")
OF_IMAGES = ("--split", "--data-dir", "--resize")
# What each does in a line, more of it, and its arguments.
COMMANDS: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "encode": (
        "codes of a file, into a file",
        ENCODE,
        (*FILES, *OF_IMAGES, "--threshold", "--tol"),
    ),
    "decode": ("signals of codes, from a file into a file", DECODE, FILES),
    "view": (
        "a page of a model's atoms and codes, for a browser",
        VIEW,
        ("model", "data", "-o", "--key", "--overwrite", "--import", *OF_IMAGES),
    ),
    "info": (
        "a model's encoder, sizes, and figures; of DATA, whether training worked",
        INFO,
        ("model", "data", "--key", "--import", *OF_IMAGES),
    ),
    "list": ("the builders, and the weights that ship", None, ("--import",)),
}


def start() -> None:
    try:
        try:
            run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What reads, such as `head`, has enough; Python would flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def run() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # A file of codes would get the number of one that is closed, and its text.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    handled = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
    if handled:
        # The imports take seconds, in which Ctrl-C would show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    args = parse_arguments()
    # A name may hold bytes that are no text.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:  # What TensorFlow tells of itself is kept off the terminal.
        from sc2keras import cli
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    if handled:
        signal.signal(signal.SIGINT, cli.interrupted)
    cli.run(args)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("sc2keras", description=DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, description, arguments) in COMMANDS.items():
        more = description or summary.capitalize()
        command = commands.add_parser(name, help=summary, description=more)
        for argument in arguments:
            command.add_argument(argument, **ARGUMENTS[argument])
    return parser.parse_args(argv)
