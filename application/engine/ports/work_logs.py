"""The lines that agents and tools log while they work: beside the log of events, bounded, and kept for some days."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

Level = Literal["debug", "info", "warning", "error", "critical"]
LEVELS: Mapping[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""As in Python's logging."""
MOST_LINES = 10_000
"""Lines of one run that are kept. Later ones are counted."""
MOST_BYTES = 16 * 1024
"""Bytes of the text of one line."""
KEPT_DAYS = 30
PAGE_BYTES = 1024 * 1024
"""Bytes of text after which a page takes no more lines."""


@dataclass(frozen=True, slots=True)
class Author:
    """Whose line it is: an agent's, or that of a tool which the agent has called."""

    tenant_id: UUID
    run_id: UUID
    step: str
    agent: str
    attempt: int
    """Of the agent run, or of the call."""
    tool: str | None = None
    invocation_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class WorkLine:
    author: Author
    written_at: datetime
    """By the clock of the worker."""
    level: int
    """One of `LEVELS`."""
    text: str
    """At most `MOST_BYTES`, without NUL and half surrogate pairs."""


@dataclass(frozen=True, slots=True)
class NewLines:
    """What is new of one run."""

    tenant_id: UUID
    run_id: UUID
    lines: Sequence[WorkLine]
    beyond: int = 0
    """Further lines, which nobody kept because the run had all the lines that it may have."""
    lost: int = 0
    """Further lines, for which somebody had no room."""


@dataclass(frozen=True, slots=True)
class LinePage:
    lines: Sequence[tuple[int, WorkLine]]
    """Each with its number within the run."""
    more: bool
    """Whether others follow."""
    beyond: int
    lost: int
    """Of the whole run, as in `NewLines`; known on the last page."""
    changed_at: datetime | None
    """When something was last written for the run; known on the last page."""


class WorkLogs(Protocol):
    """All methods raise Unavailable."""

    async def write(self, news: Sequence[NewLines]) -> Collection[tuple[UUID, UUID]]:
        """Records lines, up to `MOST_LINES` of each run. A run is named once. Returns tenant and id of the runs that are full.

        The lines may be lost when the database crashes within the next second.
        """
        ...

    async def page(
        self,
        tenant_id: UUID,
        run_id: UUID,
        *,
        after: int,
        limit: int,
        level: int = 0,
        agent: str | None = None,
        step: str | None = None,
    ) -> LinePage:
        """Lines of a run behind a number, in the order of recording. `level`: only lines of this level or a higher one."""
        ...

    async def keep(self) -> int:
        """Drops the lines of days that are over, and makes room for the days to come. Returns about how many lines were dropped."""
        ...
