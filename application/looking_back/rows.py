"""The events of a run in short, by number: any window of many rows costs as much as the first one.

A row tells what an event is about, without its data. It is made from the beginning of the data: what is large stands at the end of
an event, and is not read. To find the row of a number, the positions of each thousandth event are kept in memory. The log never
changes behind them, so they are found once, and the next events of the run are counted on from there.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json

from application.engine.ports.log import HEAD_BYTES, EventFeed
from application.engine.reading.history_keeper import HistoryKeeper
from domain.kernel import RecordedEvent, who_asked
from domain.runs import RunStarted

EVERY = 1_000
"""Events between two marks."""
COUNTED_AT_ONCE = 100_000
MOST_RUNS = 1_000
"""Runs, and types of events in them, whose marks a process keeps."""
MOST_WORK = 20_000
"""Agent runs and calls of which a process remembers what they are."""
LONGEST = 200
"""Characters of a text."""
SAID = ("reason", "because", "message", "name", "outcome", "status", "condition", "code")
"""Fields of events that say in words what happened. The first one counts."""


class EventRow(NamedTuple):
    """An event in short. What it does not say is None."""

    position: int
    type: str
    time: datetime
    stream: UUID
    version: int
    actor: str | None
    step: str | None = None
    part: int | None = None
    call: str | None = None
    """The key of a call, or of an entry of a journal."""
    tool: str | None = None
    agent: str | None = None
    attempt: int | None = None
    text: str | None = None
    """What happened, in a line."""
    cut: bool = False
    """The data is larger than what was read of it."""


class Window(NamedTuple):
    """Rows beside one another, from a number on."""

    rows: Sequence[EventRow]
    first: int
    total: int
    at: int | None = None
    """The number of the row that was asked for by its position."""


class RowsWanted(NamedTuple):
    """Which rows of a run."""

    tenant_id: UUID
    run_id: UUID
    topics: frozenset[str] | None = None
    until: int | None = None
    """Only events up to this position. None: all."""


class RowPlace(NamedTuple):
    """Where rows stand in the log."""

    after: int
    skip: int
    """Events between `after` and the first of the rows."""
    until: int | None
    """A position behind the last of them, or the last of them. Without it a young table's planner may read all that follows."""


_Key = tuple[UUID, UUID, frozenset[str] | None]


class RowNumbers:
    """Numbers of rows and positions of events."""

    def __init__(self, feed: EventFeed, histories: HistoryKeeper) -> None:
        self._feed = feed
        self._histories = histories
        self._changes = histories.changes
        self._marks: OrderedDict[_Key, list[int]] = OrderedDict()

    async def total(self, wanted: RowsWanted, until: int | None) -> int:
        """How many rows there are up to a position. Raises Unavailable."""
        marks = await self._known(wanted)
        known = len(marks) if until is None else bisect_right(marks, until)
        while True:
            after = marks[known - 1] if known else 0
            count, found = await self._feed.count(
                wanted.tenant_id, wanted.run_id, after=after, until=until, every=EVERY, topics=_sorted(wanted.topics),
                limit=COUNTED_AT_ONCE,
            )  # fmt: skip
            if known == len(marks):
                marks += found
            known += len(found)
            if count < COUNTED_AT_ONCE:
                return known * EVERY + count % EVERY

    async def place(self, wanted: RowsWanted, first: int, limit: int) -> RowPlace:
        """Where rows stand, the first of which is among those of `total`."""
        marks = await self._known(wanted)
        whole, rest = divmod(first, EVERY)
        end = (first + limit - 1) // EVERY
        return RowPlace(marks[whole - 1] if whole else 0, rest, marks[end] if end < len(marks) else wanted.until)

    async def _known(self, wanted: RowsWanted) -> list[int]:
        if self._changes != self._histories.changes:  # of a new history other events are true
            self._changes = self._histories.changes
            self._marks.clear()
        key = wanted.tenant_id, wanted.run_id, wanted.topics
        marks = self._marks.setdefault(key, [])
        self._marks.move_to_end(key)
        if len(self._marks) > MOST_RUNS:
            self._marks.popitem(last=False)
        return marks


class EventRows:
    """Makes rows of events."""

    def __init__(self, feed: EventFeed, histories: HistoryKeeper) -> None:
        self._feed = feed
        self._histories = histories
        self._changes = histories.changes
        self._work: OrderedDict[UUID, Mapping[str, Any]] = OrderedDict()
        """Agent run or call → what its first event says of it."""
        self.numbers = RowNumbers(feed, histories)

    async def has(self, tenant_id: UUID, run_id: UUID) -> bool:
        """Whether the tenant has such a run. Raises Unavailable."""
        first = await self._feed.named(tenant_id, [(run_id, 1)])
        return bool(first) and first[0].topic == RunStarted.TOPIC

    async def window(self, wanted: RowsWanted, first: int, limit: int, around: int | None = None) -> Window:
        """At most `limit` rows from a number on; or those around the event at a position. Raises Unavailable."""
        total, at = await self.numbers.total(wanted, wanted.until), None
        if around is not None:
            at = await self.numbers.total(wanted, min(around - 1, around if wanted.until is None else wanted.until))
            first = max(at - limit // 2, 0)
        if first >= total:
            return Window((), first, total, at)
        limit = min(limit, total - first)
        after, skip, until = await self.numbers.place(wanted, first, limit)
        events = await self._feed.rows(
            wanted.tenant_id, wanted.run_id, after=after, until=until, skip=skip, limit=limit, topics=_sorted(wanted.topics)
        )
        return Window(await self.of(wanted.tenant_id, events), first, total, at)

    async def of(self, tenant_id: UUID, events: Sequence[RecordedEvent]) -> list[EventRow]:
        """A row of each event. Raises Unavailable."""
        if self._changes != self._histories.changes:
            self._changes = self._histories.changes
            self._work.clear()
        said = [said_by(event) for event in events]
        await self._learn(tenant_id, {event.stream_id for event in events if event.stream_id != event.root_id})
        by = {_agent_run({**self._work.get(event.stream_id, {}), **one}) for event, one in zip(events, said, strict=True)}
        await self._learn(tenant_id, by - {None})
        return [self._row(event, one) for event, one in zip(events, said, strict=True)]

    async def _learn(self, tenant_id: UUID, streams: Iterable[UUID | None]) -> None:
        if unknown := [(stream, 1) for stream in streams if stream is not None and stream not in self._work]:
            for first in await self._feed.named(tenant_id, unknown):
                self._work[first.stream_id] = _about(first)
            while len(self._work) > MOST_WORK + len(unknown):
                self._work.popitem(last=False)

    def _row(self, event: RecordedEvent, said: Mapping[str, Any]) -> EventRow:
        data = {**self._work.get(event.stream_id, {}), **{name: value for name, value in said.items() if value is not None}}
        step = data.get("step")
        if step is None and (by := _agent_run(data)) is not None:
            step = self._work.get(by, {}).get("step")
        key = None if event.topic in OF_QUEUES else _text(data.get("key"))
        return EventRow(
            event.position, event.topic, event.recorded_at, event.stream_id, event.version, _actor(event), _text(step),
            _number(data.get("part")), key, _text(data.get("tool")), _text(data.get("agent")),
            _number(said.get("attempt")), _told(said), len(event.state) >= HEAD_BYTES,
        )  # fmt: skip


OF_QUEUES = frozenset({"run.queued", "run.begun"})
"""The key of these events is that of the run, and of no call."""
_ABOUT = ("step", "agent", "key", "tool", "agent_run_id")


def _about(first: RecordedEvent) -> Mapping[str, Any]:
    said = said_by(first)
    return {name: said[name] for name in _ABOUT if isinstance(said.get(name), str)}


def said_by(event: RecordedEvent) -> Mapping[str, Any]:
    """The fields of an event, as far as what was read of it has them. A program that only uses the log may have written no JSON."""
    try:
        said = from_json(event.state.decode(errors="ignore"), allow_partial="trailing-strings", cache_strings="keys")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _told(said: Mapping[str, Any]) -> str | None:
    if isinstance(error := said.get("error"), dict):
        return _line(f"{error.get('type') or 'error'}: {error.get('message') or ''}")
    if isinstance(said.get("sender"), str) and isinstance(said.get("recipient"), str):
        return _line(f"{said['sender']} → {said['recipient']}")
    if isinstance(person := said.get("person"), dict) and isinstance(person.get("reason"), str):
        return _line(person["reason"])
    return next((_line(told) for name in SAID if isinstance(told := said.get(name), str) and told), None)


def _line(text: str) -> str:
    first = text.lstrip().split("\n", 1)[0].rstrip()
    return first if len(first) <= LONGEST else first[: LONGEST - 1] + "…"


def _actor(event: RecordedEvent) -> str | None:
    try:
        return _text(who_asked(event.metadata)[0])
    except (ValueError, AttributeError):
        return None


def _agent_run(said: Mapping[str, Any]) -> UUID | None:
    """The agent run that an event names as the one that asked, or that sent."""
    named = said.get("agent_run_id") or said.get("sender_id")
    try:
        return UUID(named) if isinstance(named, str) else None
    except ValueError:
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _sorted(topics: frozenset[str] | None) -> list[str] | None:
    return None if topics is None else sorted(topics)
