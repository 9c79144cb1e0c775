"""A pytest plugin for `make mutants`: each mutant meets the same examples, in bounded time, and nothing from before it.

mutmut runs the tests once, then forks a process for each mutant. A constant of a test module, or an answer in a cache, that the
first run made would hide the mutant. The modules of the tests are therefore imported anew, and the caches are emptied. The modules
of the server stay, which saves most of the time: a mutant of code that only runs while they are imported is not noticed.
"""

import functools
import importlib
import json
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings

ROOMS = ("domain", "application", "projections")
DURATIONS = Path("mutmut-stats.json")
"""Of the first run. mutmut writes it into the folder that the tests run in."""


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
    """Comes after tests/conftest.py, which loads another profile. One failing example is enough, so nothing is shrunk."""
    settings.register_profile("mutants", derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutants")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A broken loop may wait for ever: a test gets 3 s and twenty times what it took before, and waits 1 s for a condition."""
    if DURATIONS.exists():
        importlib.import_module("tests.kit.waiting").PATIENCE_S = 1.0
        took = json.loads(DURATIONS.read_text())["duration_by_test"]
        for item in items:
            item.add_marker(pytest.mark.timeout(3 + 20 * took.get(item.nodeid, 0)), append=False)
