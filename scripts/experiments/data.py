"""The datasets of the experiments."""

import sys

from sc2keras import datasets


def load_data(name, data_dir=None):
    try:
        return datasets.load(name, data_dir=data_dir)
    except (datasets.DatasetUnavailableError, FileNotFoundError) as error:
        sys.exit(f"error: {error} (The dataset digits needs no files.)")


def hold_out(data):
    """The dataset with the last sixth of its training split as the test split."""
    start = len(data.x_train) * 5 // 6
    return data._replace(
        x_train=data.x_train[:start],
        y_train=data.y_train[:start],
        x_test=data.x_train[start:],
        y_test=data.y_train[start:],
    )
