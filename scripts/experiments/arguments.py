"""What the programs' command lines share."""

import argparse
import math
import sys


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
