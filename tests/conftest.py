import os

import keras
import pytest

from sc2keras import datasets


def pytest_configure():
    """Before the processes that run the tests: of theirs, BLAS takes one core each."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, in whatever order they run."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def require_dataset():
    """A function that loads a dataset, or skips the test where it is absent."""
    loaded = {}

    def require(name):
        if name not in loaded:
            try:
                loaded[name] = datasets.load(name, download=False)
            except datasets.DatasetUnavailableError as error:
                pytest.skip(str(error))
        return loaded[name]

    return require
