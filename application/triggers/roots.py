"""Of which project an event is, and how deep in a chain of causes: its root says both.

A run that a trigger started is one deeper than the event that the trigger fired on. So is a call without a run, and a run to which
a trigger has sent a signal, from then on. A run that follows from an event in another way, such as a child run, is as deep as that
event.
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
WORK = frozenset({"run", "agent_run", "invocation"})
"""How the topics of work begin from which a request may follow."""
BY_TRIGGER = "trigger:"
"""How the actor of what a trigger started begins."""


SIGNALLED = runs.RunSignalled.TOPIC


class RootFacts(NamedTuple):
    project_id: UUID | None = None
    """Of a run: its project. Of a project: itself."""
    depth: int = 0


class CausingWork(NamedTuple):
    """Work from which a request follows."""

    name: str
    """Of the first event of its stream, as others name their cause."""
    root_id: UUID


class _Step(NamedTuple):
    """A root on the way to a cause."""

    root_id: UUID
    project_id: UUID | None
    more: int
    """What it adds to the depth."""
    least: int
    """The depth that its start was given, such as by the schedule of an agent: the server has written it."""


class Roots:
    """Knows the roots that triggers have asked about."""

    def __init__(self, feed: EventFeed, store: EventStore, registry: EventRegistry, histories: HistoryKeeper) -> None:
        self._feed = feed
        self._store = store
        self._registry = registry
        self._histories = histories
        self._changes = histories.changes
        self._known: OrderedDict[tuple[UUID, UUID], RootFacts] = OrderedDict()

    async def of(self, tenant_id: UUID, root_id: UUID, *, signals: bool = False) -> RootFacts:
        """`signals`: triggers may have sent signals to runs of the tenant. Raises Unavailable."""
        if self._changes != self._histories.changes:
            self._changes = self._histories.changes
            self._known.clear()
        steps: list[_Step] = []
        """Roots on the way to a cause that is known."""
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
            project_id, known_depth = self._said_by(first)
            if signals and first.topic == runs.RunStarted.TOPIC:
                known_depth = max(known_depth, await self._signalled(tenant_id, root_id))
            steps.append(_Step(root_id, project_id, int(by_trigger), known_depth))
            following = None if cause is None else await self._root_of(tenant_id, *cause)
            if following is None or following == root_id:
                break
            root_id = following
        facts = known or RootFacts()
        for step in reversed(steps):
            depth = max(depth + step.more, step.least)
            facts = RootFacts(step.project_id, depth)
            self._keep(tenant_id, step.root_id, facts)
        return facts

    def forget(self, tenant_id: UUID, root_id: UUID) -> None:
        """A run has got a signal."""
        self._known.pop((tenant_id, root_id), None)

    async def _signalled(self, tenant_id: UUID, run_id: UUID) -> int:
        """How deep the signals are that triggers have sent to a run. The newest one knows."""
        found = await self._feed.read_tenant(
            tenant_id, after=0, until=None, limit=1, root_id=run_id, topics=[SIGNALLED], newest_first=True, rooted=True
        )
        try:
            return max((self._registry.decoded(event).depth for event in found), default=0)
        except (UnknownEvent, ValueError):
            return 0

    async def cause(self, tenant_id: UUID, work_id: UUID) -> CausingWork | None:
        """The run, the agent run or the call of an id. None: the tenant has none. Raises Unavailable."""
        found = await self._store.read_stream(tenant_id, work_id, limit=1)
        if not found or found[0].topic.partition(".")[0] not in WORK:
            return None
        return CausingWork(found[0].name, found[0].root_id)

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

    def _said_by(self, first: RecordedEvent) -> tuple[UUID | None, int]:
        """The project of a root, and the depth that its start was given."""
        if first.topic == projects.ProjectCreated.TOPIC:
            return first.root_id, 0
        if first.topic != runs.RunStarted.TOPIC:
            return None, 0
        try:
            started = self._registry.decoded(first)
        except (UnknownEvent, ValueError):  # of a later release, or damaged: of no project that a trigger can name
            return None, 0
        assert isinstance(started, runs.RunStarted)
        return started.project_id, 0 if started.origin is None else started.origin.depth


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
