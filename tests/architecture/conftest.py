"""What the tests about the sources share."""

from collections.abc import Iterator

import pytest

from tests.architecture.sources import parsed


@pytest.fixture(scope="module", autouse=True)
def forgotten_trees() -> Iterator[None]:
    """The trees of all modules are millions of objects. Left in memory, they would be looked at by each full collection of garbage
    in the tests after these, and a collection would stop the process for most of a second."""
    yield
    parsed.cache_clear()
