import doctest
import importlib
import inspect
import pkgutil

import pytest

import sc2keras
from sc2keras import registry


def modules():
    for info in pkgutil.walk_packages(sc2keras.__path__, "sc2keras."):
        yield importlib.import_module(info.name)


EXAMPLES = [
    pytest.param(example, id=example.name)
    for module in modules()
    for example in doctest.DocTestFinder(exclude_empty=True).find(module)
    if example.examples
]
PUBLIC = [
    (module, name)
    for module in (sc2keras, sc2keras.layers, sc2keras.applications)
    for name in dir(module)
    if not name.startswith("_") and not inspect.ismodule(getattr(module, name))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_prints_what_it_says(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What an example registers is gone after it.
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    report = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(example, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


@pytest.mark.parametrize("module, name", PUBLIC, ids=lambda value: str(value)[:40])
def test_every_public_class_and_function_has_an_example(module, name):
    member = getattr(module, name)
    if inspect.isclass(member) or inspect.isfunction(member):
        assert ">>> " in member.__doc__
