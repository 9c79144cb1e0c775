"""Filling a version of a read model from the log: big pages, the unchanged handlers, rows and checkpoint in one transaction."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from uuid import UUID

import structlog

from application.engine.background import end
from application.engine.ports.checkpoints import LostOwnership
from application.engine.ports.log import EventFeed
from application.engine.retry import persistently
from domain.errors import Unavailable
from domain.kernel import RecordedEvent
from projections.engine import checkpoints, versions
from projections.engine.kernel import Connection, Database, Projection, decoded_once
from projections.engine.rebuild import jobs
from projections.engine.rebuild.jobs import Build

FIRST_PAGE = 500
MAX_PAGE = 10_000
"""A larger page has more events for the same row, and a row is written once for a page."""
PAGE_BYTES = 8 * 1024 * 1024
"""Target size of a page. The number of events in a page follows from it, so that large events do not fill the memory."""
RATE_OVER_S = 5.0
MAX_PARKED = 1_000
"""A version with more parked events is given up: the handler is broken, not the events."""

log = structlog.get_logger(__name__)


class HandlerBroken(Exception):
    """The handler refused so many events that a version without them is of no use."""


class Filler:
    """Moves one job along the log, for one owner. Every transaction raises LostOwnership once the job has another owner."""

    def __init__(self, projection: Projection, build: Build, database: Database, feed: EventFeed) -> None:
        self.projection = projection
        self.build = build
        self._database = database
        self._feed = feed
        self._parked: set[UUID] = set()
        self._refused = 0
        self._page_size = FIRST_PAGE
        self._pace: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._read = 0

    async def load(self) -> None:
        """Roots with a parked event: their later events wait behind it."""
        async with self._database.connection() as connection:
            sql = "SELECT root_id FROM parked_event WHERE consumer = %s"
            rows = await (await connection.execute(sql, [self.build.consumer])).fetchall()
        self._parked, self._refused = {row[0] for row in rows}, len(rows)

    async def fill(self, until: int | None = None) -> None:
        """Works up to a position, or up to the present end of the log. Outages are waited out."""
        async with self._database.connection() as connection, connection.transaction():
            after = (await jobs.hold(connection, self.build)).position
        async with contextlib.aclosing(self._pages(after, until)) as pages:
            async for page, target in pages:
                with decoded_once():
                    await self._handle(page, target)

    async def _pages(self, after: int, until: int | None) -> AsyncGenerator[tuple[list[RecordedEvent], int]]:
        """Pages, each with the position that is to be reached. The next page is read while the handler works on the present one."""

        async def read(start: int) -> tuple[list[RecordedEvent], bool, int]:
            size = self._page_size if until is None else max(min(self._page_size, until - start), 0)
            page = await persistently(partial(self._feed.read, after=start, limit=size)) if size else []
            self._fit(page)
            head = until if until is not None else await persistently(self._feed.head)
            return page, len(page) == size and size > 0, head

        reading = asyncio.create_task(read(after))
        try:
            more = True
            while more:
                page, more, target = await reading
                if more:
                    reading = asyncio.create_task(read(page[-1].position))
                if page:
                    yield page, target
        finally:
            await end(reading)

    def _fit(self, page: Sequence[RecordedEvent]) -> None:
        if page:
            weight = sum(len(event.state) + len(event.metadata) for event in page) / len(page)
            self._page_size = max(min(int(PAGE_BYTES / max(weight, 1)), MAX_PAGE, self._page_size * 4), 10)

    async def _handle(self, page: Sequence[RecordedEvent], target: int) -> None:
        """Applies a page. If the handler fails, applies its halves, until the event is found that must be parked."""
        try:
            await persistently(lambda: self._write(page, target))
        except (LostOwnership, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001  # halving finds the event
            if len(page) > 1:
                middle = len(page) // 2
                await self._handle(page[:middle], target)
                await self._handle(page[middle:], target)
            else:
                await self._park(page[0], error)

    async def _write(self, page: Sequence[RecordedEvent], target: int) -> None:
        async with self._database.transaction() as connection:
            position = (await jobs.hold(connection, self.build)).position
            taken = await self.apply(connection, position, page)
            if page[-1].position > position:  # else the page was written, and the answer was lost
                rate = self._rate_after(len(page))
                last = page[-1].position
                await jobs.advance(connection, self.build, last, target=target, events=taken, rate=rate)

    async def apply(self, connection: Connection, position: int, page: Sequence[RecordedEvent]) -> int:
        """Writes the rows of a page's events after a position, in the caller's transaction.

        Answers how many events the projection took.
        """
        await versions.use(connection, self.build.schema)
        events = [e for e in page if e.position > position and e.topic in self.projection.topics]
        taken = len(events)
        if self._parked:
            for event in events:
                if event.root_id in self._parked:
                    error = "an earlier event of the same root is parked"
                    await checkpoints.park(connection, self.build.consumer, event, error)
            events = [event for event in events if event.root_id not in self._parked]
        if events and self.build.kind == "verify" and self.projection.earlier is not None:
            await self.projection.earlier.apply(connection, await versions.live_schema(connection), events)
        elif events:
            await self.projection.apply(connection, events)
        return taken

    def _rate_after(self, events: int) -> float | None:
        """Events per second, over the last seconds."""
        now = time.monotonic()
        self._read += events
        self._pace.append((now, self._read))
        while len(self._pace) > 2 and now - self._pace[0][0] > RATE_OVER_S:
            self._pace.popleft()
        began, before = self._pace[0]
        return (self._read - before) / (now - began) if now > began else None

    async def _park(self, event: RecordedEvent, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        log.error("event_parked", projection=self.build.consumer, position=event.position, topic=event.topic, error=reason)
        self._refused += 1
        if self._refused > MAX_PARKED:
            raise HandlerBroken(f"the handler refused {self._refused} events; the last one, {event.position}: {reason}")

        async def note() -> None:
            async with self._database.transaction() as connection:
                await jobs.hold(connection, self.build)
                await checkpoints.park(connection, self.build.consumer, event, reason)
                await jobs.advance(connection, self.build, event.position, target=event.position, events=1, rate=None)

        await persistently(note)
        self._parked.add(event.root_id)
