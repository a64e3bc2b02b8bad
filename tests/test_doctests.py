"""Examples in docstrings of the public interface run, and give what they show."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "name", ["ldae", "ldae.codes", "ldae.data.manifest", "ldae.tasks.probe.evaluate", "ldae.volume"]
)
def test_examples_give_what_they_show(name: str) -> None:
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
