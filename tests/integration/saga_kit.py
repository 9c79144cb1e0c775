"""For tests of the saga loop and the timers: commands that must not be recorded twice, and processes that die between two steps."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from application.engine.catalog import Catalog
from application.engine.commands.loop import CommandLoop
from application.engine.ports.checkpoints import Checkpoints
from application.engine.ports.log import AppendRequest, AppendResult, CommandRecord, EventStore, StreamPlace
from application.engine.sagas.manager import PARTITIONS, SagaManager
from domain.context import ContextValueSet
from domain.kernel import RecordedEvent
from domain.projects import CreateProject
from projections.engine.checkpoints import PostgresCheckpoints
from tests.integration.system_kit import System, eventually, new_id, request_of, running
from tests.kit.budget import BUDGET_CATALOG, Stops, budget_of


class StoppingStore:
    """The real event store with a possible stop before and after each append."""

    def __init__(self, store: EventStore, stops: Stops) -> None:
        self._store, self._stops = store, stops

    async def append(self, request: AppendRequest) -> AppendResult:
        await self._stops.at("before the append")
        result = await self._store.append(request)
        await self._stops.at("after the append")
        return result

    async def read_stream(self, tenant_id: UUID, stream_id: UUID, **bounds: Any) -> list[RecordedEvent]:
        return await self._store.read_stream(tenant_id, stream_id, **bounds)

    async def read_streams(self, places: Sequence[StreamPlace]) -> list[list[RecordedEvent]]:
        return await self._store.read_streams(places)

    async def find_command(self, tenant_id: UUID, command_id: UUID) -> CommandRecord | None:
        return await self._store.find_command(tenant_id, command_id)


@dataclass
class Ledger:
    """A running relay, a log, and the parts that a saga manager needs."""

    system: System
    catalog: Catalog = BUDGET_CATALOG

    def commands(self, store: EventStore | None = None) -> CommandLoop:
        return CommandLoop(store or self.store, self.catalog)

    def manager(self, *, store: EventStore | None = None, checkpoints: Checkpoints | None = None) -> SagaManager:
        """A new manager with an empty state, like the manager of a process that was just started."""
        container = self.system.container
        commands = self.commands(store)
        checkpoints = checkpoints or PostgresCheckpoints(container.database)
        return SagaManager(commands, self.system.subscription, checkpoints, container.work_queue, self.catalog)

    @property
    def store(self) -> EventStore:
        return self.system.store

    async def project(self) -> UUID:
        project_id = new_id()
        await self.commands().execute(request_of(), CreateProject(project_id=project_id, name="p"))
        return project_id

    async def reserved(self, project_id: UUID) -> list[int]:
        """The running totals that were recorded for one project."""
        events = [e for e in await self.system.events(project_id) if e.stream_id == budget_of(project_id)]
        return [ContextValueSet.model_validate_json(event.state).value for event in events]

    async def checkpoints(self) -> list[int]:
        rows = await self.system.sql("SELECT position FROM checkpoint WHERE name = ANY (%s)", list(PARTITIONS))
        return [row[0] for row in rows]

    async def settled(self) -> int:
        """Waits until the sagas have handled the whole log, including the events that they added. Returns the head."""

        async def at_head() -> int:
            checkpoints = await self.checkpoints()  # before the head: a reaction may be appended between the two questions
            head = await self.system.container.feed.head()
            return head if checkpoints == [head] * len(PARTITIONS) else 0

        return await eventually(at_head, "the sagas at the head of the log")


@asynccontextmanager
async def ledger_on(database_url: str, nats_url: str) -> AsyncIterator[Ledger]:
    async with running(database_url, nats_url, loops=["relay"]) as system:
        yield Ledger(system)
