"""Two positions of a run, or two runs, side by side: where they first differ, what each has said, and what became of each."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.looking_back.divergence import SHOWN, Event, RunComparison, compare
from application.reads import RunReads
from application.runs.replay_at import pages_of_run
from application.views.runs import RunView
from domain import values
from domain.errors import NotFound
from domain.kernel import Json, RecordedEvent

MOST_CHANGES = 500
"""Changes of the state that are told."""
TURN = 100
"""Events between two turns of other tasks."""
NOT_COMPARED = frozenset({
    "run_id", "agent_run_id", "invocation_id", "execution_id", "worker_id", "position", "version", "event_count", "at",
    "created_at", "updated_at", "started_at", "scheduled_at", "finished_at", "waits_until", "large", "unreadable",
})  # fmt: skip
"""Ids, times and places differ always, and say nothing. Where a value is large, its own difference is told by the events."""
NAMES = ("key", "number", "name")
"""What an entry of a list is found by on the other side."""


class Side(NamedTuple):
    """A run, up to a position."""

    run_id: UUID
    at: int


class RunChange(NamedTuple):
    """A place in the document of a run, and what stands there on each side. None: nothing."""

    path: str
    before: str | None
    after: str | None


class Differing(NamedTuple):
    events: RunComparison
    """What the runs say differently, the first difference in front."""
    state: list[RunChange]
    """What differs between the documents of the two sides."""


async def difference(reads: RunReads, feed: EventFeed, tenant_id: UUID, one: Side, other: Side) -> Differing:
    """Raises NotFound if the tenant had no such run at the position, PayloadTooLarge, Unavailable."""
    sides = _Side(reads, feed, tenant_id, one), _Side(reads, feed, tenant_id, other)
    comparison = await compare(*(side.events() for side in sides))
    return Differing(comparison, changes(*(side.document() for side in sides)))


class _Side:
    def __init__(self, reads: RunReads, feed: EventFeed, tenant_id: UUID, wanted: Side) -> None:
        self._reads = reads
        self._feed = feed
        self._tenant_id = tenant_id
        self._wanted = wanted
        self._view: RunView | None = None

    async def events(self) -> AsyncIterator[Event]:
        number = 0
        async for page in pages_of_run(self._feed, self._tenant_id, self._wanted.run_id, after=0, until=self._wanted.at):
            for recorded in page:
                number += 1
                if number % TURN == 0:
                    await asyncio.sleep(0)
                self._view = self._reads.evolve(self._view, recorded)
                if self._view is None:
                    break
                yield _event(recorded)
        if self._view is None:
            raise NotFound(f"there is no run {self._wanted.run_id} at position {self._wanted.at}")

    def document(self) -> Json:
        assert self._view is not None
        return self._view.model_dump(mode="json")


def _event(recorded: RecordedEvent) -> Event:
    said: Any = values.read(recorded.state)
    return {"type": recorded.topic, "subject": str(recorded.stream_id), "position": recorded.position, "data": said}


def changes(before: Json, after: Json) -> list[RunChange]:
    """Where two documents of runs differ, in the order of the first. Steps and calls are found by their keys."""
    one, other = dict(_places(before, "")), dict(_places(after, ""))
    found: list[RunChange] = []
    for path in [*one, *(path for path in other if path not in one)]:
        if one.get(path) != other.get(path) and len(found) < MOST_CHANGES:
            found.append(RunChange(path, one.get(path), other.get(path)))
    return found


def _places(value: Json, path: str) -> Iterator[tuple[str, str]]:
    """Each place below, with a short text of what stands there. What is null or empty says nothing."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            if name not in NOT_COMPARED:
                yield from _places(below, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        for number, entry in enumerate(value):
            named = next((entry[name] for name in NAMES if name in entry), number)
            yield from _places(entry, f"{path}[{named}]")
    elif value is not None and value != []:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False)
        yield path, text if len(text) <= SHOWN else text[:SHOWN] + "…"
