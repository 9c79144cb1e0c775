"""Tool calls: lists, to find calls that wait for a person, and a single call as the fold of its own events.

fold        what an event changes of a call, and the replay of a call
rows        events into rows
lists       lists of calls, from rows
lists_as_of lists of calls at a position, from rows and events of the log
cached      the newest calls whose results answer further ones
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads import InvocationsWanted, Positioned
from application.views.invocations import InvocationSummary, InvocationView
from domain.kernel import RecordedEvent
from projections.engine.checkpoints import reading, reading_at
from projections.invocations.cached import newest_calls
from projections.invocations.fold import TOPICS, replay, resolution_of
from projections.invocations.lists import list_invocations
from projections.invocations.lists_as_of import list_invocations_as_of
from projections.invocations.rows import apply
from projections.kernel import Database, Projection

PROJECTION = Projection("invocations", TOPICS, ("invocation",), apply)

__all__ = [
    "PROJECTION", "InvocationQueries", "apply", "list_invocations", "list_invocations_as_of", "replay", "resolution_of",
]  # fmt: skip


class InvocationQueries:
    """The port `InvocationReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, tenant_id: UUID, wanted: InvocationsWanted) -> Positioned[Page[InvocationSummary]]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await list_invocations(connection, tenant_id, wanted), position)

    async def list_as_of(self, tenant_id: UUID, position: int, wanted: InvocationsWanted) -> Page[InvocationSummary]:
        async with reading_at(self._database, PROJECTION.name, position, tenant_id) as connection:
            return await list_invocations_as_of(connection, tenant_id, position, wanted)

    async def newest(self, tenant_id: UUID, keys: Sequence[UUID], max_age_s: float) -> Mapping[UUID, UUID]:
        """The port `CachedCalls`, too."""
        async with self._database.connection(tenant_id) as connection:
            return await newest_calls(connection, tenant_id, keys, max_age_s)

    def replay(self, events: Sequence[RecordedEvent]) -> InvocationView | None:
        return replay(events)
