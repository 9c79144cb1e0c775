"""Port of queries: what calls have used."""

from collections.abc import Sequence
from datetime import date
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads.answers import Positioned
from application.views.budgets import UsageView

UsageBy = Literal["day", "project", "agent", "tool", "run"]


class UsageWanted(NamedTuple):
    """A page of the usage. Of runs, the days do not count."""

    by: UsageBy
    since: date
    until: date
    """The last day."""
    limit: int
    after: str | None = None
    """Only what comes after this key: a day, an id or a name. Days and runs come newest first."""
    agent: str | None = None
    tool: str | None = None
    run_id: UUID | None = None
    projects: Sequence[UUID] | None = None
    """Only usage of these projects. None: of all."""


class UsageReads(Protocol):
    async def usage(self, tenant_id: UUID, wanted: UsageWanted) -> Positioned[Page[UsageView]]: ...
