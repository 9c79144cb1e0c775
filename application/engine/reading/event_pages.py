"""The log of a tenant in pages."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

from application.engine.ports.log import ANYBODY, EventFeed, FoundEvents
from application.engine.ports.pages import MAX_POSITION
from application.engine.reading.as_of import position_as_of
from application.engine.reading.channels import Filter
from application.engine.reading.histories import Cursor, History
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import NotFound
from domain.kernel import RecordedEvent

Sees = Callable[[Sequence[RecordedEvent]], Awaitable[Sequence[RecordedEvent]]]
"""The events that a reader sees, of some events in order."""
AT_ONCE = 500
"""Events that are read at once for a reader who does not see all of them."""
MOST_READS = 4

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order of position."""

    events: Sequence[RecordedEvent]
    position: int
    """Position of the last event, or of the last one that was looked at. Without either: at which the page begins."""
    more: bool
    """Whether further events follow, or may follow."""


class Within(NamedTuple):
    """Times of events. The log's times never decrease, so events of a span of time stand beside one another."""

    first: datetime | None = None
    """The first time that counts."""
    end: datetime | None = None
    """The first time that does not."""


EVER = Within()


async def _last_before(feed: EventFeed, wanted: Filter, time: datetime) -> int:
    """The position of the last event before a time."""
    if time <= EARLIEST:
        return 0
    return await feed.position_at(wanted.tenant_id, time - timedelta(microseconds=1), root_id=wanted.root_id)


async def _bounds(
    feed: EventFeed, histories: HistoryKeeper, wanted: Filter, as_of: str | None, within: Within
) -> tuple[int, int | None]:
    """Positions: events after the first one, up to the second one (None: to the end)."""
    until = await position_as_of(feed, histories, wanted.tenant_id, as_of) if as_of is not None else None
    after = await _last_before(feed, wanted, within.first) if within.first is not None else 0
    if within.end is not None:
        last = await _last_before(feed, wanted, within.end)
        until = last if until is None else min(until, last)
    return after, until


async def read_event_page(
    feed: EventFeed,
    histories: HistoryKeeper,
    wanted: Filter,
    start: Cursor | None,
    *,
    limit: int,
    as_of: str | None,
    within: Within = EVER,
    sees: Sees | None = None,
) -> EventPage:
    """At most `limit` wanted events after an admitted cursor and up to `as_of`, a position or an RFC 3339 time.

    `sees`: None for all of them. Else a page looks at 2,000 events at most, so it may have fewer than `limit` though more follow.

    Raises InvalidCommand if `as_of` is neither, Unavailable.
    """
    after, until = await _bounds(feed, histories, wanted, as_of, within)
    after = max(after, start.position if start is not None else 0)
    if sees is not None:
        return await _page_of_seen(partial(read_wanted, feed, wanted, until=until, limit=AT_ONCE), sees, after, limit)
    found, reached = await read_wanted(feed, wanted, after=after, until=until, limit=limit + 1)
    shown = found[:limit]
    if len(found) <= limit and reached is not None:
        return EventPage(shown, reached, True)
    return EventPage(shown, shown[-1].position if shown else after, len(found) > limit)


async def read_newest_page(
    feed: EventFeed,
    histories: HistoryKeeper,
    wanted: Filter,
    start: Cursor | None,
    *,
    before: Cursor | None,
    limit: int,
    as_of: str | None,
    within: Within = EVER,
    sees: Sees | None = None,
) -> EventPage:
    """As `read_event_page`, with the newest events first: those before `before`, the cursor of a page, and after `start`.

    Where events of somebody are wanted, too, a page looks at 2,000 events at most.
    """
    after, until = await _bounds(feed, histories, wanted, as_of, within)
    after = max(after, start.position if start is not None else 0)
    if before is not None:
        until = before.position - 1 if until is None else min(until, before.position - 1)
    topics = sorted(wanted.topics) if wanted.topics is not None else None
    looks = sees is not None or wanted.asked != ANYBODY
    most = AT_ONCE if looks else limit + 1
    shown: list[RecordedEvent] = []
    reached = after
    for _ in range(MOST_READS if looks else 1):
        if until is not None and until <= after:
            return EventPage(shown, reached, more=False)
        found = await feed.read_tenant(
            wanted.tenant_id, after=after, limit=most, until=until, root_id=wanted.root_id, topics=topics,
            newest_first=True, rooted=True,
        )  # fmt: skip
        seen = found if sees is None else await sees(found)
        shown += [event for event in seen if wanted.asked(event)]
        if len(shown) > limit:
            return EventPage(shown[:limit], shown[limit - 1].position, more=True)
        if found:
            reached = found[-1].position
            until = reached - 1
        if len(found) < most:
            return EventPage(shown, reached, more=False)
    return EventPage(shown, reached, more=True)


async def read_wanted(feed: EventFeed, wanted: Filter, *, after: int, until: int | None, limit: int) -> FoundEvents:
    """The next events that a filter lets through. Where events of somebody are wanted, a bounded number of events is looked at."""
    topics = sorted(wanted.topics) if wanted.topics is not None else None
    tenant_id, root_id = wanted.tenant_id, wanted.root_id
    if wanted.asked == ANYBODY:
        found = await feed.read_tenant(
            tenant_id, after=after, limit=limit, until=until, root_id=root_id, topics=topics, rooted=True
        )
        return FoundEvents(found, None)
    return await feed.look_through(tenant_id, wanted.asked, after=after, limit=limit, until=until, root_id=root_id, topics=topics)


async def _page_of_seen(read: Callable[..., Awaitable[FoundEvents]], sees: Sees, after: int, limit: int) -> EventPage:
    """`read`: reads `AT_ONCE` events after a position, `after=`."""
    shown: list[RecordedEvent] = []
    for _ in range(MOST_READS):
        found, reached = await read(after=after)
        shown += await sees(found)
        if len(shown) > limit:
            return EventPage(shown[:limit], shown[limit - 1].position, more=True)
        if len(found) < AT_ONCE and reached is None:
            return EventPage(shown, shown[-1].position if shown else after, more=False)
        after = found[-1].position if len(found) == AT_ONCE or reached is None else reached
    return EventPage(shown, after, more=True)


async def event_at(feed: EventFeed, histories: HistoryKeeper, tenant_id: UUID, position: int) -> tuple[RecordedEvent, History]:
    """A tenant's event at a position, and the history of the event. Raises NotFound, Unavailable."""
    history = await histories.admit(None)
    found: list[RecordedEvent] = []
    if 0 < position <= MAX_POSITION:
        found = await feed.read_tenant(tenant_id, after=position - 1, until=position, limit=1)
    if not found:
        raise NotFound(f"there is no event at position {position}")
    return found[0], history
