"""Triggers over the ports in memory: the matcher beside an engine, and what people do with triggers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from application.cached_results import CachedResults
from application.calls import ClientCalls
from application.chains import Chains
from application.engine.background import end
from application.engine.ports.positions import PositionCalls
from application.engine.reading.cloudevents import CloudEventEncoder
from application.reads import StoredTrigger
from application.tool_schemas import ToolSchemas
from application.triggers.firing import Firing
from application.triggers.matcher import CHECKPOINT, TriggerMatcher
from application.triggers.roots import Roots
from application.triggers.starting import Starter
from application.triggers.trying import TryOut
from application.workflows import Workflows
from domain import agents, tools, triggers
from domain.kernel import Event, Json, RecordedEvent
from domain.projects import default_project_id
from domain.triggers import Trigger, TriggerDefinition, trigger_id_of
from domain.workflows import WorkflowPublished
from tests.kit.engine import EXPRESSIONS, Engine
from tests.kit.memory import MemoryCachedCalls, MemoryLog, MemoryNames
from tests.kit.waiting import TENANT, until


class MemoryTriggers:
    """Implements `application.reads.AllTriggers`: a fold of the log. `at`: how far it has come; None: as far as the log."""

    def __init__(self, log: MemoryLog, registry: Any) -> None:
        self.log, self._registry = log, registry
        self.at: int | None = None

    async def all(self) -> tuple[Sequence[StoredTrigger], int]:
        self.log.reach()
        position = self.log.head if self.at is None else self.at
        states: dict[UUID, Trigger] = {}
        since: dict[UUID, int] = {}
        first: dict[UUID, RecordedEvent] = {}
        names: dict[UUID, str] = {}
        shaping = (triggers.TriggerFired, triggers.TriggerMisfired, triggers.TriggerLimited)
        for recorded in self.log.events[:position]:
            if recorded.topic.startswith("trigger."):
                event: Any = self._registry.decoded(recorded)
                id = recorded.stream_id
                states[id] = triggers.evolve(states.get(id, Trigger()), event)
                names[id] = event.name
                if isinstance(event, triggers.TriggerCreated):
                    first[id] = recorded
                if not isinstance(event, shaping):
                    since[id] = recorded.position
        found = [
            StoredTrigger(
                first[id].tenant_id, id, names[id], str(state.status), state.definition, state.hook_id, state.within, since[id],
                first[id].position,
            )
            for id, state in states.items()
            if state.exists
        ]  # fmt: skip
        return found, position


class PublishedVersions:
    """Implements `application.workflows.versions.StoredVersions`: the log itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def definition(self, tenant_id: UUID, workflow_id: UUID, version: int) -> Json | None:
        for recorded in self._engine.log.streams.get(workflow_id, ()):
            event = self._engine.commands.registry.decoded(recorded)
            if isinstance(event, WorkflowPublished) and event.version == version and recorded.tenant_id == tenant_id:
                return event.definition
        return None

    async def names(self, tenant_id: UUID) -> list[str]:
        return []


@dataclass
class Triggers:
    """Triggers of one process."""

    engine: Engine
    stored: MemoryTriggers = field(init=False)
    starter: Starter = field(init=False)
    firing: Firing = field(init=False)
    roots: Roots = field(init=False)
    encoder: CloudEventEncoder = field(init=False)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        engine = self.engine
        registry, known = engine.commands.registry, MemoryNames(engine.log, tools.ToolRegistered)
        chains, cache = Chains(engine.commands, EXPRESSIONS, known), CachedResults(engine.commands, MemoryCachedCalls(engine.log))
        calls = ClientCalls(engine.commands, ToolSchemas(), known, chains, cache, engine.workers.budgets)
        workflows = Workflows(engine.commands, PublishedVersions(engine))
        self.starter = starter = Starter(
            engine.commands, MemoryNames(engine.log, agents.AgentRegistered), engine.admission, workflows, lambda: calls
        )
        self.stored = MemoryTriggers(engine.log, registry)
        self.firing = Firing(engine.commands, starter, engine.catalog.functions)
        self.roots = Roots(engine.feed, engine.store, registry, engine.histories)
        self.encoder = CloudEventEncoder(registry.events)

    def matcher(self, calls: PositionCalls | None = None, **options: Any) -> TriggerMatcher:
        engine = self.engine
        return TriggerMatcher(
            engine.commands, engine.subscription, engine.checkpoints, self.stored, engine.feed, self.roots, self.firing,
            self.encoder, engine.catalog.functions, calls, **{"lag_s": 0.01, "limited_s": 0.0, **options},
        )  # fmt: skip

    @property
    def tries(self) -> TryOut:
        engine = self.engine
        return TryOut(engine.feed, engine.commands.registry, self.roots, self.encoder, engine.catalog.functions)

    @asynccontextmanager
    async def matching(self, **options: Any) -> AsyncIterator["Triggers"]:
        """A matcher runs until the end of the block."""
        self.task = asyncio.create_task(self.matcher(**options).run())
        try:
            yield self
        finally:
            await end(self.task)

    async def settled(self) -> None:
        """Waits until the matcher and the sagas have nothing left to do."""

        def at_rest() -> bool:
            assert self.task is not None
            assert not self.task.done(), f"the matcher ended: {self.task}"
            row = self.engine.checkpoints.rows.get(CHECKPOINT)
            return row is not None and row.position == self.engine.log.head

        head = -1
        while head != self.engine.log.head:
            head = self.engine.log.head
            await self.engine.settled()
            await until(at_rest, "the matcher at rest")

    async def create(self, name: str, *, tenant_id: UUID = TENANT, **fields: Any) -> UUID:
        given = {"project_id": default_project_id(tenant_id), **fields}
        within, hook_id = given.pop("within", None), given.pop("hook_id", None)
        id = trigger_id_of(tenant_id, name)
        definition = TriggerDefinition.model_validate(given)
        command = triggers.CreateTrigger(trigger_id=id, name=name, definition=definition, within=within, hook_id=hook_id)
        await self.engine.give(command, tenant_id=tenant_id)
        return id

    def told(self, name: str, *kinds: type[Event], tenant_id: UUID = TENANT) -> list[Any]:
        """The events of a trigger, of these kinds or all."""
        stream = self.engine.log.streams.get(trigger_id_of(tenant_id, name), ())
        events: list[Any] = [self.engine.commands.registry.decoded(recorded) for recorded in stream]
        return [event for event in events if not kinds or isinstance(event, kinds)]

    def started(self, actor: str) -> list[RecordedEvent]:
        """The first events of the runs and calls that one has started, in the order of the log."""
        wanted = f'"actor":"{actor}"'
        topics = ("run.started", "invocation.requested")
        return [event for event in self.engine.log.events if event.topic in topics and wanted in event.metadata]
