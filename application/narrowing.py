"""Which events, runs and ids a key sees that is narrowed to projects.

An event does not say its project: its root does. A run is of one project for ever, and the run's first event names the
project. So with a schedule.
"""

import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.reading.channels import Batch
from application.engine.reading.event_pages import Sees
from application.engine.reading.history_keeper import HistoryKeeper
from application.find_ids import Named
from domain import projects, runs, schedules
from domain.event_registry import EventRegistry, UnknownEvent
from domain.kernel import RecordedEvent

MOST_KNOWN = 50_000
"""Roots whose project a process remembers."""
AT_ONCE = 100
"""Roots of one query. The start of a run has the input of the run, so it may be large."""
WITH_PROJECT = frozenset({runs.RunStarted.TOPIC, schedules.ScheduleCreated.TOPIC})
"""First events of roots that name their project."""
OF_PROJECTS = frozenset({projects.ProjectCreated.TOPIC, projects.ProjectRemoved.TOPIC})


class ProjectsOfRoots:
    """The project of each root that narrowed keys have asked about: of a run its project, of a project itself, of all else none.

    A root without events is not remembered, since it may begin.
    """

    def __init__(self, feed: EventFeed, registry: EventRegistry, histories: HistoryKeeper) -> None:
        self._feed = feed
        self._registry = registry
        self._histories = histories
        self._changes = histories.changes
        self._known: dict[tuple[UUID, UUID], UUID | None] = {}

    def learn(self, events: Sequence[RecordedEvent]) -> None:
        """The first event of a root costs no query."""
        for event in events:
            if event.stream_id == event.root_id and event.version == 1 and (event.tenant_id, event.root_id) not in self._known:
                self._keep(event)

    async def of(self, tenant_id: UUID, roots: Iterable[UUID]) -> Mapping[UUID, UUID | None]:
        """The project of each root that has events. Raises Unavailable."""
        if self._changes != self._histories.changes:  # in a new history a root may be of another project
            self._changes = self._histories.changes
            self._known.clear()
        wanted = set(roots)
        found = {root: self._known[tenant_id, root] for root in wanted if (tenant_id, root) in self._known}
        asked = sorted(wanted - found.keys())
        for begin in range(0, len(asked), AT_ONCE):
            part = asked[begin : begin + AT_ONCE]
            places = [(tenant_id, root, 0) for root in part]
            for event in await self._feed.read_roots(places, limit=1, tenant_id=tenant_id):
                found[event.root_id] = self._keep(event)
        return found

    def _keep(self, first: RecordedEvent) -> UUID | None:
        """`first`: the first event of its root."""
        project_id: UUID | None = None
        if first.topic in WITH_PROJECT:
            try:
                started = self._registry.decoded(first)
            except (UnknownEvent, ValueError):  # of a later release, or damaged: no key sees it that is not for all projects
                return None
            assert isinstance(started, runs.RunStarted | schedules.ScheduleCreated)
            project_id = started.project_id
        elif first.topic in OF_PROJECTS:
            project_id = first.root_id
        if len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[first.tenant_id, first.root_id] = project_id
        return project_id


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What a key sees that is narrowed to projects of a tenant."""

    tenant_id: UUID
    projects: Collection[UUID]
    of_roots: ProjectsOfRoots
    feed: EventFeed

    async def has(self, root_id: UUID) -> bool:
        """Whether the root is one of the projects, or a run of one of them. Raises Unavailable."""
        return (await self.of_roots.of(self.tenant_id, [root_id])).get(root_id) in self.projects

    async def only(self, events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
        """The events that the key sees, in their order. Raises Unavailable."""
        self.of_roots.learn(events)
        found = await self.of_roots.of(self.tenant_id, {event.root_id for event in events})
        return [event for event in events if found.get(event.root_id) in self.projects]

    async def named(self, found: Sequence[Named]) -> list[Named]:
        """The things that the key sees among those that an id names. Raises Unavailable."""
        positions = sorted({named.position for named in found})
        events = await self.feed.at(positions, tenant_id=self.tenant_id) if positions else []
        seen = {event.position for event in await self.only(events)}
        return [named for named in found if named.position in seen]


async def only_seen(source: AsyncGenerator[Batch, None], sees: Sees, silence_s: float) -> AsyncGenerator[Batch, None]:
    """The batches of a stream, with what a reader sees. After a silence the reader gets an empty batch, as in any stream; also if
    events come meanwhile that the reader does not see.
    """
    told = time.monotonic()
    async with aclosing(source) as batches:
        async for batch in batches:
            seen = Batch(await sees(batch)) if batch else batch
            now = time.monotonic()
            if seen or not batch or now - told >= silence_s:
                told = now
                yield seen
