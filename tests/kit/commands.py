"""For tests of the command loop: commands that need no product, a store that counts its calls, and another process."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from application.catalog import CATALOG
from application.engine.commands.loop import CommandLoop
from application.engine.ports.log import AppendRequest, AppendResult, NewEvent, StreamAppend, one_command
from domain import context, projects, runs
from domain.kernel import RecordedEvent
from tests.kit.memory import MemoryEventStore, MemoryLog
from tests.kit.waiting import TENANT, new_id


class CountingStore(MemoryEventStore):
    """Counts the calls, and lets a test act before an append."""

    def __init__(self, log: MemoryLog, **options: Any) -> None:
        super().__init__(log, **options)
        self.reads: list[tuple[UUID, int]] = []
        self.appends = 0
        self.before_append: Callable[[AppendRequest], None] | None = None

    async def append(self, request: AppendRequest) -> AppendResult:
        self.appends += 1
        if self.before_append is not None:
            self.before_append(request)
        return await super().append(request)

    async def read_stream(self, tenant_id: UUID, stream_id: UUID, **bounds: Any) -> list[RecordedEvent]:
        self.reads.append((stream_id, bounds.get("after_version", 0)))
        return await super().read_stream(tenant_id, stream_id, **bounds)


def elsewhere(log: MemoryLog) -> CommandLoop:
    """Another process on the same log."""
    return CommandLoop(MemoryEventStore(log), CATALOG)


def create(project_id: UUID | None = None, name: str = "p") -> projects.CreateProject:
    return projects.CreateProject(project_id=project_id or new_id(), name=name)


def put(stream: UUID, value: Any = 1, *, name: str = "n", expect: int | None = None) -> context.SetContextValue:
    return context.SetContextValue(context_id=stream, run_id=stream, agent_run_id=stream, name=name, value=value, expect=expect)


def start(run_id: UUID) -> runs.StartRun:
    return runs.StartRun(run_id=run_id, project_id=new_id(), plan=runs.sequential(("alpha",)))


async def foreign(log: MemoryLog, stream: UUID, *topics: str, tenant: UUID = TENANT) -> None:
    """An event of a user who uses only the log."""
    events = tuple(NewEvent(topic, 1, b"{}") for topic in topics)
    await MemoryEventStore(log).append(one_command(tenant, new_id(), (StreamAppend(stream, stream, 0, events),), "{}"))
