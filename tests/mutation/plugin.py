"""A pytest plugin for `make mutants`: each mutant meets the same examples, and no answer that the unbroken code gave before.

mutmut runs the tests once, then forks a process for each mutant. What the first run left in a cache would hide the mutant.
"""

import functools
import sys

from hypothesis import Phase, settings

ROOMS = ("domain", "application", "projections")


def pytest_sessionstart() -> None:
    """The profile comes after the one of tests/conftest.py. One failing example is enough, so nothing is shrunk."""
    settings.register_profile("mutants", derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutants")
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ROOMS:
            for thing in list(vars(module).values()):
                if isinstance(thing, functools._lru_cache_wrapper):
                    thing.cache_clear()
