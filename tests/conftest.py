import pytest

from sc2keras import datasets


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
