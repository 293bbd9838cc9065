import importlib.metadata

import pytest

import sc2keras


def test_the_version_is_that_of_the_installed_package():
    assert [part.isdigit() for part in sc2keras.__version__.split(".")] == [True] * 3
    try:
        installed = importlib.metadata.version("sc2keras")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("sc2keras is not installed, but on the path")
    assert installed == sc2keras.__version__
