"""What the command `sc2keras` does; `sc2keras_command` reads its arguments."""

import argparse
import contextlib
import importlib
import logging
import os
import re
import sys
import warnings
from typing import Any

from tqdm import tqdm

from sc2keras import applications, io
from sc2keras.diagnosis import diagnose, line
from sc2keras.explorer import view_file
from sc2keras.explorer.facts import card_facts, card_of, model_facts
from sc2keras.explorer.files import read_samples
from sc2keras.io import transfer
from sc2keras.io.errors import failing_as
from sc2keras.io.work import kept_in, unfinished_folder
from sc2keras.models import saving
from sc2keras.registry import entries

OPTIONS = (
    *("key", "split", "data_dir", "resize"),
    *("threshold", "tol", "batch_rows", "overwrite"),
)


def run(args: argparse.Namespace) -> None:
    """Runs a command, or raises a SystemExit with a message for the user."""
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    remedy = "Give the name of a module in this folder, or of one that is installed."
    if args.modules:
        sys.path.insert(0, os.getcwd())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", io.TransferWarning)
            warnings.showwarning = show_warning
            for name in args.modules:
                with failing_as(io.ModelError, f"--import {name} fails", remedy):
                    importlib.import_module(name)
            others = {"view": view, "info": info, "list": list_all}
            others.get(args.command, run_transfer)(args)
    except BrokenPipeError:
        raise
    except (io.TransferError, OSError) as error:
        sys.exit(f"error: {as_command(str(error))}")


def show_warning(message: Any, *_: Any, **__: Any) -> None:
    """In a line, without the place in the code."""
    tqdm.write(f"warning: {as_command(str(message))}", file=sys.stderr)


def run_transfer(args: argparse.Namespace) -> None:
    options = {name: value for name, value in vars(args).items() if name in OPTIONS}
    transfer_file = io.encode_file if args.command == "encode" else io.decode_file
    files = args.model, args.input, args.output
    folder = unfinished_folder(args.output)
    try:
        with contextlib.closing(Bar()) as bar:
            result = transfer_file(*files, progress=bar, **options)
    except OSError as error:
        where = "" if error.filename else f" ({folder})"
        kept = kept_in(folder, "once the cause is gone")
        remedy = as_command(kept) or " Mend that, and try again."
        sys.exit(f"error: {error}{where}.{remedy}")
    except MemoryError:
        sys.exit(
            "error: the memory does not suffice. Give a smaller --batch-rows, and "
            f"delete {folder} if it is there."
        )
    print(f"{result.path}: {result.description}")


class Bar:
    task: str | None = None
    bar: Any = None

    def __call__(self, task: str, n_done: int, n_rows: int | None) -> None:
        if task != self.task:
            self.close()
            if n_done and n_rows:
                print(f"going on after {n_done:,} of {n_rows:,} rows", flush=True)
            keys = dict(unit="row", unit_scale=True, leave=n_rows is not None)
            self.bar = tqdm(desc=task, total=n_rows, initial=n_done, **keys)
            self.task = task
        self.bar.update(n_done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def view(args: argparse.Namespace) -> None:
    options = {name: value for name, value in vars(args).items() if name in OPTIONS}
    with contextlib.closing(Bar()) as bar:
        path = view_file(args.model, args.data, args.output, progress=bar, **options)
    print(f"{path}: open it in a browser, {path.stat().st_size:,} bytes")


def info(args: argparse.Namespace) -> None:
    model, sha256 = io.load_model(args.model)
    card = card_of(sha256)
    tell("model", args.model)
    if not saving.is_preset(args.model):
        path = io.model_path(args.model)
        tell("file", f"{path.name}, {path.stat().st_size:,} bytes")
    known = {**model_facts(model), **(card_facts(card) if card else {})}
    for name, value in known.items():
        tell(name, value)
    if args.data is None:
        return
    options = {name: value for name, value in vars(args).items() if name in OPTIONS}
    with contextlib.closing(Bar()) as bar:
        x, samples, _ = read_samples(model, args.data, bar, options)
    tell("", "")
    tell("data", samples)
    print(diagnose(model, x))


def list_all(args: argparse.Namespace) -> None:
    weights = applications.list_weights()
    for entry in entries():
        tell(entry.name, entry.summary)
        ship = ", ".join(f"{entry.name}/{name}" for name in weights.get(entry.name, ()))
        if ship:
            tell("", f"weights: {ship}")


def tell(name: str, value: object) -> None:
    """A line of a table, or several, of 80 columns at most."""
    print(line(name, str(value)).rstrip())


def as_command(message: str) -> str:
    """A message of the library in the words of the command line."""
    names = "|".join(OPTIONS)
    message = re.sub(
        rf"(?<![^\s(])({names})=(True\b|(?= ))?",
        lambda found: f"--{found[1].replace('_', '-')}" + " " * (found[2] is None),
        message,
    )
    return message.replace("the same call", "the same command")


def interrupted(number: int, _: object) -> None:
    """Ends the program: an exception would not pass through TensorFlow as it is."""
    goes_on = b"; the same command goes on where this one stopped"
    # Not by print: it may be that which was interrupted.
    os.write(2, b"\ninterrupted" + (goes_on if transfer.UNSAVED else b"") + b"\n")
    with contextlib.suppress(OSError, io.TransferError):
        for save in transfer.UNSAVED:
            save()
    os._exit(128 + number)
