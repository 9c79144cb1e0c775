"""Reading the log in memory: by position, live, and cut into ranges."""

import bisect
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime
from uuid import UUID

from adapters.memory.log import MemoryLog
from application.engine.ports.log import HEAD_BYTES, AskedBy, FoundEvents, StreamRange, StreamRow
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import NotFound
from domain.kernel import RecordedEvent

PAGE = 1_000
LAST_ID = UUID(int=2**128 - 1)


class MemoryEventFeed:
    """Implements `application.engine.ports.log.EventFeed`."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.looked_at = 2_000
        self.reads = 0
        """The number of calls of any kind."""

    def _ask(self) -> list[RecordedEvent]:
        self.reads += 1
        self.log.reach()
        return self.log.events

    async def read(self, *, after: int, limit: int) -> list[RecordedEvent]:
        return self._ask()[after : after + limit]

    async def at(self, positions: Sequence[int], *, tenant_id: UUID | None = None) -> list[RecordedEvent]:
        events = self._ask()
        if missing := [position for position in positions if not 1 <= position <= len(events)]:
            raise NotFound(f"the log has no event at position {min(missing)}")
        return [events[position - 1] for position in sorted(set(positions))]

    async def read_tenant(
        self,
        tenant_id: UUID,
        *,
        after: int,
        limit: int,
        until: int | None = None,
        root_id: UUID | None = None,
        topics: Sequence[str] | None = None,
        newest_first: bool = False,
        rooted: bool = False,
    ) -> list[RecordedEvent]:
        found = [
            event
            for event in self._ask()[after:until]
            if event.tenant_id == tenant_id
            and (root_id is None or event.root_id == root_id)
            and (topics is None or event.topic in topics)
        ]
        return (found[::-1] if newest_first else found)[:limit]

    async def look_through(
        self,
        tenant_id: UUID,
        asked: AskedBy,
        *,
        after: int,
        limit: int,
        until: int | None = None,
        root_id: UUID | None = None,
        topics: Sequence[str] | None = None,
    ) -> FoundEvents:
        looked = await self.read_tenant(tenant_id, after=after, limit=self.looked_at, until=until, root_id=root_id)
        found = [event for event in looked if asked(event) and (topics is None or event.topic in topics)]
        return FoundEvents(found[:limit], looked[-1].position if len(looked) == self.looked_at else None)

    async def read_roots(
        self, roots: Sequence[tuple[UUID, UUID, int]], *, limit: int, tenant_id: UUID | None = None
    ) -> list[RecordedEvent]:
        found: list[RecordedEvent] = []
        for owner, root_id, after in roots:
            assert tenant_id in (None, owner)
            found += await self.read_tenant(owner, after=after, limit=limit, root_id=root_id)
        return sorted(found)

    async def rows(
        self,
        tenant_id: UUID,
        root_id: UUID | None,
        *,
        after: int,
        limit: int,
        until: int | None = None,
        skip: int = 0,
        topics: Sequence[str] | None = None,
    ) -> list[RecordedEvent]:
        wanted = await self.read_tenant(
            tenant_id, after=after, until=until, limit=skip + limit, root_id=root_id, topics=topics, rooted=True
        )
        return [event._replace(state=event.state[:HEAD_BYTES]) for event in wanted[skip:]]

    async def named(self, tenant_id: UUID, names: Sequence[tuple[UUID, int]]) -> list[RecordedEvent]:
        wanted = set(names)
        return [
            event._replace(state=event.state[:HEAD_BYTES])
            for event in self._ask()
            if event.tenant_id == tenant_id and (event.stream_id, event.version) in wanted
        ]

    async def count(
        self,
        tenant_id: UUID,
        root_id: UUID,
        *,
        after: int,
        every: int,
        limit: int,
        until: int | None = None,
        topics: Sequence[str] | None = None,
    ) -> tuple[int, list[int]]:
        found = await self.read_tenant(tenant_id, after=after, until=until, limit=limit, root_id=root_id, topics=topics)
        return len(found), [event.position for event in found[every - 1 :: every]]

    async def head(self) -> int:
        return len(self._ask())

    async def position_at(self, tenant_id: UUID, at: datetime, *, root_id: UUID | None = None) -> int:
        until = bisect.bisect_right(self._ask(), at, key=lambda event: event.recorded_at)
        newest = await self.read_tenant(tenant_id, after=0, until=until, limit=1, root_id=root_id, newest_first=True)
        return newest[0].position if newest else 0


class MemorySubscription:
    """Implements `application.engine.ports.log.Subscription`. With `histories`, a reader learns that its history has ended."""

    def __init__(self, log: MemoryLog, histories: HistoryKeeper | None = None, *, page: int = PAGE) -> None:
        self.log = log
        self._histories = histories
        self._page = page
        self.readers = 0
        """The number of present readers."""
        self.away = False
        """Whether the source of the live log is out of reach; the log itself is not. Call `log.wake` when the source is back."""

    async def batches(self, *, after: int, name: str) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Reads as the port says. Raises HistoryEnded when the log has a new history, as the real adapter does."""
        changes = self._histories.changes if self._histories is not None else 0
        position = after
        self.readers += 1
        try:
            while True:
                if self._histories is not None:
                    self._histories.check_unchanged(changes)
                batch = [] if self.log.away or self.away else self.log.events[position : position + self._page]
                if not batch:
                    await self._moved()
                    continue
                position = batch[-1].position
                if self._histories is not None:
                    self._histories.saw(position, changes)
                yield batch
        finally:
            self.readers -= 1

    async def _moved(self) -> None:
        if self._histories is None:
            await self.log.moved()
        else:
            with self._histories.on_change(self.log.wake):
                await self.log.moved()


class MemoryStreamRanges:
    """Implements `application.engine.ports.log.StreamRanges`."""

    def __init__(self, log: MemoryLog, *, page: int = PAGE) -> None:
        self.log = log
        self._page = page

    def cut(self, *, size: int) -> tuple[int, list[StreamRange]]:
        self.log.reach()
        head = self.log.head
        borders = sorted({self.log.events[place - 1].stream_id for place in range(size, head, size)})
        return head, [StreamRange(*pair) for pair in zip([None, *borders], [*borders, LAST_ID], strict=True)]

    def pages(self, part: StreamRange, *, until: int, tenant_id: UUID | None = None) -> Iterator[list[StreamRow]]:
        self.log.reach()
        rows: list[StreamRow] = [
            (event.stream_id.bytes, event.version, event.topic, event.schema_version, event.state)
            for stream_id in sorted(self.log.streams)
            if (part.after is None or stream_id > part.after) and stream_id <= part.last
            for event in self.log.streams[stream_id]
            if event.position <= until and (tenant_id is None or event.tenant_id == tenant_id)
        ]
        for start in range(0, len(rows), self._page):
            yield rows[start : start + self._page]
