"""Names that a misspelt name may have meant, for the texts of refusals."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol
from uuid import UUID

from domain.errors import TidelogError

MOST_COMPARED = 200
"""A comparison of two names takes up to 0.2 ms."""
MOST_NAMED = 3
LIKENESS = 0.75
PATIENCE_S = 1.0


class KnownNames(Protocol):
    async def names(self, tenant_id: UUID) -> Sequence[str]:
        """The registered names, a bounded number of them. Raises Unavailable."""
        ...


async def names_of(known: KnownNames, tenant_id: UUID) -> Sequence[str]:
    """The registered names. Empty if they cannot be read now: an outage must not turn a refusal into another error."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await known.names(tenant_id)
    except (TidelogError, TimeoutError):
        return ()


def similar_names(name: str, known: Iterable[str]) -> Sequence[str]:
    """The known names most like this one, the likest first."""
    from difflib import get_close_matches  # needed for refusals only

    comparable = sorted(known, key=lambda other: (abs(len(other) - len(name)), other))[:MOST_COMPARED]
    return get_close_matches(name, comparable, MOST_NAMED, LIKENESS)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the known names most like this one. Empty if no name is like it."""
    found = similar_names(name, known)
    return f"; did you mean {' or '.join(repr(other) for other in found)}?" if found else ""
