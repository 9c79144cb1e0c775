"""Ports of queries: what starts runs by itself, schedules and triggers."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads.answers import Positioned
from application.views.schedules import ScheduleStatus, ScheduleSummary, ScheduleView
from application.views.triggers import TriggerView
from domain.kernel import Json


class SchedulesWanted(NamedTuple):
    """A page of the list of schedules."""

    limit: int
    after: str | None = None
    """Only schedules whose names come after this one."""
    status: ScheduleStatus | None = None
    projects: Sequence[UUID] | None = None
    """Only schedules of these projects. None: of all."""


class MadeByAgents(Protocol):
    async def made_by_agents(
        self, tenant_id: UUID, project_id: UUID, run_id: UUID, most_of_run: int, most_of_project: int
    ) -> tuple[int, int]:
        """How many schedules agents of a run have made, and agents of a project that are not finished. Counted up to a number."""
        ...


class ScheduleReads(MadeByAgents, Protocol):
    async def get(self, tenant_id: UUID, name: str) -> Positioned[ScheduleView | None]:
        """None: the tenant has no such schedule, or it was removed. Raises ValueError for stored values that cannot be read."""
        ...

    async def list(self, tenant_id: UUID, wanted: SchedulesWanted) -> Positioned[Page[ScheduleSummary]]:
        """Schedules that were not removed, in the order of their names."""
        ...


class TriggerReads(Protocol):
    async def list(
        self, tenant_id: UUID, *, limit: int, after: str | None, status: str | None = None, within: Sequence[UUID] | None = None
    ) -> Positioned[Page[TriggerView]]:
        """Triggers by name, after a name. `within`: only those of these projects."""
        ...

    async def get(self, tenant_id: UUID, name: str) -> Positioned[TriggerView | None]: ...


class StoredTrigger(NamedTuple):
    """A trigger of any tenant, for who matches events with it."""

    tenant_id: UUID
    trigger_id: UUID
    name: str
    status: str
    definition: Json
    hook_id: UUID | None
    within: tuple[UUID, ...] | None
    since: int
    """Position of the event that made it as it is."""
    first: int
    """Position of the event that created it."""


class AllTriggers(Protocol):
    async def all(self) -> tuple[Sequence[StoredTrigger], int]:
        """The triggers of all tenants, and the position that they are of. Raises Unavailable."""
        ...
