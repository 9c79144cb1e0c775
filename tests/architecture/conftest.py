"""What the tests about the sources share."""

import gc
from collections.abc import Iterator

import pytest

from tests.architecture.sources import parsed


@pytest.fixture(scope="module", autouse=True)
def trees() -> Iterator[None]:
    """The trees of all modules are millions of objects without cycles. A full collection of garbage walks over them for most of a
    second. So nothing is collected while the trees are read, and they are gone before other tests follow in the process."""
    gc.disable()
    try:
        yield
    finally:
        parsed.cache_clear()
        gc.enable()
