"""Why something happened, and what came of it: the events of a log as links from causes to effects.

An event names its cause in its metadata: another event, or the request that asked for it. What a worker reports is asked for by a
request, too; it is about work that an event began, and that event is its cause here. So a chain of causes leads from any event back
to the request of a person, a program, a schedule or a trigger, through all runs on the way. Both directions follow one rule.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.reading.event_pages import Sees
from application.looking_back.rows import EventRow, EventRows, said_by
from domain.errors import NotFound
from domain.kernel import Metadata, RecordedEvent

By = Literal["event", "work", "request", "unknown"]
LOOKED_AT = 2_000
"""Events inside the root that a page of effects looks at."""
LOOKED_BESIDE = 1_000
BESIDE = 5_000
"""Positions behind an event in which its effects in other roots are looked for: what begins in another root follows soon."""
WORK = frozenset({"agent_run", "invocation"})
"""How the topics of streams begin whose first event asks a worker for something."""
OF_WORKERS: Mapping[str, str] = {"message.sent": "sender_id", "context.value_set": "agent_run_id"}
"""Topic → the field that names the agent run whose worker has reported the event."""
_NAME = re.compile(r"([0-9a-f-]{36}):([1-9][0-9]{0,17})")


class AskedRequest(NamedTuple):
    """A request, as the events that it brought about know it."""

    command_id: UUID
    actor: str
    on_behalf_of: str | None
    trace_id: str | None
    at: datetime


class FoundCause(NamedTuple):
    by: By
    event: tuple[UUID, int] | None
    """Stream and version of the event that is the cause. None: a request, or nobody knows."""
    request: AskedRequest | None


class CausalLink(NamedTuple):
    """An event on a chain of causes. Its cause is the next event of the chain."""

    row: EventRow
    root_id: UUID
    by: By
    request: AskedRequest | None


class CausalChain(NamedTuple):
    links: Sequence[CausalLink]
    """The event itself, its cause, and so on."""
    next: int | None
    """Position of the next event. None: the chain is complete."""
    origin: CausalLink | None
    """The first event of the run, or of another root, in which the event is."""


class CausedEvent(NamedTuple):
    row: EventRow
    root_id: UUID
    by: By


class CausedEvents(NamedTuple):
    effects: Sequence[CausedEvent]
    reached: int | None
    """Position up to which events were looked at. None: there are no more."""


def cause_of(event: RecordedEvent, first: RecordedEvent | None) -> FoundCause:
    """What an event follows from. `first`: the first event of its root."""
    try:
        metadata = Metadata.model_validate_json(event.metadata)
    except ValueError:  # of a program that only uses the log
        return FoundCause("unknown", None, None)
    if (named := _named(metadata.causation_id)) is not None:
        return FoundCause("event", named, None)
    request = AskedRequest(
        metadata.command_id, metadata.actor, metadata.on_behalf_of, _trace_id(metadata.traceparent), event.recorded_at
    )
    if (work := _work_of(event)) is not None:
        return FoundCause("work", work, request)
    if first is not None and event.version > 1 and event.stream_id == first.stream_id and event.metadata == first.metadata:
        return FoundCause("event", (first.stream_id, first.version), None)  # what began the run has scheduled its first steps, too
    return FoundCause("request", None, request)


def _named(text: str) -> tuple[UUID, int] | None:
    if (found := _NAME.fullmatch(text)) is None:
        return None
    try:
        return UUID(found[1]), int(found[2])
    except ValueError:
        return None


def _work_of(event: RecordedEvent) -> tuple[UUID, int] | None:
    """The event that began the work which a worker reports about."""
    if (field := OF_WORKERS.get(event.topic)) is not None:
        named: Any = said_by(event).get(field)
        return _named(f"{named}:1")
    if event.version > 1 and event.topic.partition(".")[0] in WORK:
        return event.stream_id, 1
    return None


def _trace_id(traceparent: str | None) -> str | None:
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else None


@dataclass(frozen=True, slots=True)
class Causation:
    """Follows causes. `sees`: the events that the caller sees; None for all."""

    feed: EventFeed
    rows: EventRows
    tenant_id: UUID
    sees: Sees | None = None

    async def chain(self, position: int, limit: int) -> CausalChain:
        """From an event back to the request that began it. Raises NotFound, Unavailable."""
        event, found = await self._at(position), list[tuple[RecordedEvent, FoundCause]]()
        firsts: dict[UUID, RecordedEvent | None] = {}
        seen: set[int] = set()
        following: RecordedEvent | None = event
        while following is not None and len(found) < limit and following.position not in seen:
            seen.add(following.position)
            if following.root_id not in firsts:
                firsts[following.root_id] = await self._find((following.root_id, 1))
            cause = cause_of(following, firsts[following.root_id])
            found.append((following, cause))
            following = await self._find(cause.event)
            if following is None and cause.event is not None:
                found[-1] = found[-1][0], cause._replace(by="unknown")
        more = following if following is not None and following.position not in seen else None
        first = firsts[event.root_id]
        events = [each for each, _ in found] + ([] if first is None else [first])
        rows = await self.rows.of(self.tenant_id, events)
        links = [CausalLink(row, each.root_id, cause.by, cause.request) for row, (each, cause) in zip(rows, found, strict=False)]
        origin = None
        if first is not None:
            cause = cause_of(first, first)
            origin = CausalLink(rows[-1], first.root_id, cause.by, cause.request)
        return CausalChain(links, None if more is None else more.position, origin)

    async def effects(self, position: int, after: int | None, limit: int) -> CausedEvents:
        """Events that follow from an event directly, in order, after a position. Raises NotFound, Unavailable."""
        event, start = await self._at(position), max(position, after or 0)
        looked, reached = await self._look(event.root_id, start, None, LOOKED_AT)
        if start < position + BESIDE:
            beside, beside_reached = await self._look(None, start, position + BESIDE, LOOKED_BESIDE)
            reached = min((place for place in (reached, beside_reached) if place is not None), default=None)
            looked = sorted({each.position: each for each in (*looked, *beside)}.values())
        if reached is not None:
            looked = [each for each in looked if each.position <= reached]
        name = event.stream_id, event.version
        found = [(each, cause.by) for each in looked if _may_follow(each, name) and (cause := cause_of(each, event)).event == name]
        if self.sees is not None:
            visible = {each.position for each in await self.sees([each for each, _ in found])}
            found = [(each, by) for each, by in found if each.position in visible]
        if len(found) > limit:
            found = found[:limit]
            reached = found[-1][0].position
        rows = await self.rows.of(self.tenant_id, [each for each, _ in found])
        return CausedEvents([CausedEvent(row, each.root_id, by) for row, (each, by) in zip(rows, found, strict=True)], reached)

    async def _look(self, root_id: UUID | None, after: int, until: int | None, most: int) -> tuple[list[RecordedEvent], int | None]:
        """The next events, and the last position of them if there may be more."""
        looked = await self.feed.rows(self.tenant_id, root_id, after=after, until=until, limit=most)
        return looked, looked[-1].position if len(looked) == most else None

    async def _at(self, position: int) -> RecordedEvent:
        found = await self.feed.rows(self.tenant_id, None, after=position - 1, until=position, limit=1) if position > 0 else []
        if not await self._seen(found):
            raise NotFound(f"there is no event at position {position}")
        return found[0]

    async def _find(self, name: tuple[UUID, int] | None) -> RecordedEvent | None:
        found = [] if name is None else await self.feed.named(self.tenant_id, [name])
        return found[0] if await self._seen(found) else None

    async def _seen(self, found: Sequence[RecordedEvent]) -> bool:
        return bool(found if self.sees is None else await self.sees(found))


def _may_follow(event: RecordedEvent, name: tuple[UUID, int]) -> bool:
    """Whether it is worth reading what an event says of its cause."""
    stream = str(name[0])
    return event.stream_id == name[0] or stream in event.metadata or (name[1] == 1 and event.topic in OF_WORKERS)
