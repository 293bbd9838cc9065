"""What the programs' command lines share."""

import argparse
import math
import sys
from pathlib import Path

from sc2keras import datasets


def make_parser(description, output, has_data=False):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    if has_data:
        add("--data-dir", help="where TensorFlow Datasets keeps its prepared datasets")
    add("--output", type=Path, default=Path(output), help="a folder")
    return parser


def add_experiment(parser):
    """The options of the programs that train on datasets, and keep records of it."""
    add = parser.add_argument
    add("--datasets", nargs="+", choices=datasets.NAMES, default=["digits"])
    add("--n-atoms", type=positive_integer, default=100, help="k")
    add("--epochs", type=positive_integer, help="by default the dataset's recipe")
    add("--tables", action="store_true", help="only write tables of the records again")


def load_data(name, data_dir=None):
    try:
        return datasets.load(name, data_dir=data_dir)
    except (datasets.DatasetUnavailableError, FileNotFoundError) as error:
        sys.exit(f"error: {error} (The dataset digits needs no files.)")


def positive_integer(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not an integer >= 1")
    return value


def positive_number(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} is not a number > 0")
    return value


def run_program(main):
    """Runs a program to its exit status; one that is interrupted says how to go on."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the same command goes on where this one stopped")
