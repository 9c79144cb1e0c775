"""Of which project an event is, and how deep in a chain of causes: its root says both.

A run that a trigger started is one deeper than the event that the trigger fired on. So is a call without a run. A run that
follows from an event in another way, such as a child run, is as deep as that event.
"""

from collections import OrderedDict
from typing import NamedTuple
from uuid import UUID

from application.engine.ports.log import EventFeed, EventStore
from application.engine.reading.history_keeper import HistoryKeeper
from domain import projects, runs
from domain.event_registry import EventRegistry, UnknownEvent
from domain.kernel import Metadata, RecordedEvent

MOST_KNOWN = 10_000
DEEPEST = 64
"""Causes that are followed. A trigger refuses much earlier."""
BY_TRIGGER = "trigger:"
"""How the actor of what a trigger started begins."""


class RootFacts(NamedTuple):
    project_id: UUID | None = None
    """Of a run: its project. Of a project: itself."""
    depth: int = 0


class Roots:
    """Knows the roots that triggers have asked about."""

    def __init__(self, feed: EventFeed, store: EventStore, registry: EventRegistry, histories: HistoryKeeper) -> None:
        self._feed = feed
        self._store = store
        self._registry = registry
        self._histories = histories
        self._changes = histories.changes
        self._known: OrderedDict[tuple[UUID, UUID], RootFacts] = OrderedDict()

    async def of(self, tenant_id: UUID, root_id: UUID) -> RootFacts:
        """Raises Unavailable."""
        if self._changes != self._histories.changes:
            self._changes = self._histories.changes
            self._known.clear()
        steps: list[tuple[UUID, UUID | None, int]] = []
        """Roots on the way to a cause that is known, each with its project and what it adds to the depth."""
        depth = 0
        while len(steps) < DEEPEST:
            known = self._known.get((tenant_id, root_id))
            if known is not None:
                depth = known.depth
                break
            first = await self._first(tenant_id, root_id)
            if first is None:
                break
            cause, by_trigger = _cause_of(first)
            steps.append((root_id, self._project_of(first), int(by_trigger)))
            following = None if cause is None else await self._root_of(tenant_id, *cause)
            if following is None or following == root_id:
                break
            root_id = following
        facts = known or RootFacts()
        for id, project_id, more in reversed(steps):
            depth += more
            facts = RootFacts(project_id, depth)
            self._keep(tenant_id, id, facts)
        return facts

    def _keep(self, tenant_id: UUID, root_id: UUID, facts: RootFacts) -> None:
        self._known[tenant_id, root_id] = facts
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    async def _first(self, tenant_id: UUID, root_id: UUID) -> RecordedEvent | None:
        found = await self._feed.read_roots([(tenant_id, root_id, 0)], limit=1, tenant_id=tenant_id)
        return found[0] if found else None

    async def _root_of(self, tenant_id: UUID, stream_id: UUID, version: int) -> UUID | None:
        found = await self._store.read_stream(tenant_id, stream_id, after_version=version - 1, limit=1)
        return found[0].root_id if found else None

    def _project_of(self, first: RecordedEvent) -> UUID | None:
        if first.topic == projects.ProjectCreated.TOPIC:
            return first.root_id
        if first.topic != runs.RunStarted.TOPIC:
            return None
        try:
            started = self._registry.decoded(first)
        except (UnknownEvent, ValueError):  # of a later release, or damaged: of no project that a trigger can name
            return None
        project_id: UUID = started.project_id
        return project_id


def _cause_of(first: RecordedEvent) -> tuple[tuple[UUID, int] | None, bool]:
    """The stream and version of the event from which a root followed, and whether a trigger stood between them."""
    try:
        metadata = Metadata.model_validate_json(first.metadata)
    except ValueError:  # of a program that only uses the log
        return None, False
    by_trigger = metadata.actor.startswith(BY_TRIGGER)
    stream, colon, version = metadata.causation_id.rpartition(":")
    try:
        return ((UUID(stream), int(version)) if colon else None), by_trigger
    except ValueError:
        return None, by_trigger
