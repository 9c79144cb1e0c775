"""Names that a misspelt name of a plan may have meant.

A comparison of two long names takes up to 0.2 ms, and a plan may have a thousand misspelt names: of one check the first get
suggestions, and the others only what to do otherwise.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from application import suggestions

MOST_COMPARISONS = 4_000
"""Of one check."""
LONGEST = 100
"""Characters of a name that is compared."""

_left: ContextVar[list[int] | None] = ContextVar("comparisons that are left to a check", default=None)


@contextmanager
def bounded() -> Iterator[None]:
    """Within the block, which is one check, a bounded number of names is compared."""
    token = _left.set([MOST_COMPARISONS])
    try:
        yield
    finally:
        _left.reset(token)


def similar_names(name: str, known: Collection[str]) -> Sequence[str]:
    """The known names most like this one. None of them once too many were compared."""
    left = _left.get()
    if len(name) > LONGEST or (left is not None and left[0] <= 0):
        return ()
    if left is not None:
        left[0] -= min(len(known), suggestions.MOST_COMPARED)
    return suggestions.similar_names(name, known)
