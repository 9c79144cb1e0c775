"""A pytest plugin for `make mutants`: each mutant meets the same examples, in bounded time, and nothing from before it.

One process of mutmut imports the tests, then forks a process for each mutant. A constant of a test module, or an answer in a cache,
that was made before would hide the mutant. The modules of the tests are therefore imported anew, and the caches are emptied. The
modules of the server stay, which saves most of the time: a mutant of code that only runs while they are imported is not noticed.
"""

import functools
import importlib
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings

ROOMS = ("domain", "application", "projections")
DURATIONS = Path("mutmut-stats.json")
"""Durations of the first run. mutmut writes the file into the folder of the tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    for name, module in list(sys.modules.items()):
        room = name.partition(".")[0]
        if room == "tests" and not __name__.startswith(name):
            del sys.modules[name]
        elif room in ROOMS:
            for thing in list(vars(module).values()):
                if isinstance(thing, functools._lru_cache_wrapper):
                    thing.cache_clear()


def pytest_sessionstart() -> None:
    """Loads a profile after tests/conftest.py has loaded another. One failing example is enough, so nothing is shrunk."""
    settings.register_profile("mutants", derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quickest tests come first. A broken loop may wait for ever: a test of a mutant gets 5 s and twenty times what it took
    before, and waits 2 s for a condition.
    """
    if "__mutmut_" in os.environ.get("MUTANT_UNDER_TEST", ""):
        importlib.import_module("tests.kit.waiting").PATIENCE_S = 2.0
        took = json.loads(DURATIONS.read_text())["duration_by_test"]
        items.sort(key=lambda item: took.get(item.nodeid, 0))
        for item in items:
            item.add_marker(pytest.mark.timeout(5 + 20 * took.get(item.nodeid, 0)), append=False)
