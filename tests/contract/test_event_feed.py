"""The contracts of the ports `EventFeed` and `StreamRanges`, in memory and on PostgreSQL."""

import asyncio
import itertools
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic_core import to_json
from uuid_utils.compat import uuid7

from application.engine.ports.log import AppendResult, AskedBy, NewEvent, StreamAppend, StreamRow, one_command
from domain.errors import NotFound
from domain.kernel import RecordedEvent
from tests.contract.conftest import LogSide, positions

A, B = uuid7(), uuid7()


def new_id() -> UUID:
    return uuid7()


async def append(
    log: LogSide, tenant: UUID, *topics: str, root: UUID | None = None, stream: UUID | None = None, version: int = 0
) -> AppendResult:
    stream = stream or new_id()
    events = tuple(NewEvent(topic, 1, b"{}") for topic in topics)
    return await log.store.append(one_command(tenant, new_id(), (StreamAppend(stream, root or stream, version, events),), "{}"))


async def test_reads_are_by_position_and_by_tenant(log: LogSide) -> None:
    assert await log.feed.head() == 0 and await log.feed.read(after=0, limit=10) == []
    root = new_id()
    await append(log, A, "run.started", "run.paused", root=root)  # 1, 2
    await append(log, B, "run.started")  # 3
    await append(log, A, "message.sent", root=root)  # 4
    await append(log, A, "run.started", stream=root)  # 5

    async def read(tenant: UUID, **filters: Any) -> list[int]:
        return positions(await log.feed.read_tenant(tenant, **{"after": 0, "limit": 10} | filters))

    assert positions(await log.feed.read(after=1, limit=3)) == [2, 3, 4]
    assert positions(await log.feed.at([4, 1])) == [1, 4] and await log.feed.at([]) == []
    with pytest.raises(NotFound, match="position 6"):
        await log.feed.at([5, 6])
    assert await log.feed.head() == 5
    assert await read(A) == [1, 2, 4, 5]
    assert await read(B) == [3]
    assert await read(A, after=1, until=4) == [2, 4]
    assert await read(A, newest_first=True, limit=2) == [5, 4]
    assert await read(A, root_id=root, topics=["run.paused", "message.sent"]) == [2, 4]
    assert await read(A, topics=[]) == []
    assert await read(B, root_id=root) == []
    assert await read(A, root_id=root, rooted=True) == [1, 2, 4, 5] and await read(B, root_id=root, rooted=True) == []


async def test_ones_events_are_found_by_who_asked_and_for_whom(log: LogSide) -> None:
    root, for_whom = new_id(), 'user:"Zoë"\\'  # as JSON has it in metadata, too
    said: list[tuple[UUID, UUID, dict[str, str]]] = [
        (A, root, {"actor": "key:1"}), (A, root, {"actor": "key:2", "on_behalf_of": for_whom}), (B, new_id(), {"actor": "key:1"}),
        (A, new_id(), {"actor": "key:1", "on_behalf_of": for_whom}), (A, new_id(), {"actor": "saga", "causation_id": "key:1"}),
    ]  # fmt: skip
    roots: set[UUID] = set()
    for tenant, root_id, who in said:
        stream = root_id if root_id not in roots else new_id()
        roots.add(root_id)
        appended = StreamAppend(stream, root_id, 0, (NewEvent("run.started", 1, b"{}"),))
        await log.store.append(one_command(tenant, new_id(), (appended,), to_json(who).decode()))

    async def found(tenant: UUID, actor: str | None, on_behalf_of: str | None = None, **filters: Any) -> list[int]:
        looked = await log.feed.look_through(tenant, AskedBy(actor, on_behalf_of), **{"after": 0, "limit": 10} | filters)
        assert looked.reached is None
        return positions(looked.found)

    assert await found(A, "key:1") == [1, 4] and await found(B, "key:1") == [3]
    assert await found(A, None, for_whom) == [2, 4] and await found(A, "key:1", for_whom) == [4]
    assert await found(A, "key") == [] and await found(B, None, for_whom) == []
    assert await found(A, "key:1", after=1) == [4] and await found(A, "key:1", until=3) == [1]
    assert await found(A, "key:1", limit=1) == [1]
    assert await found(A, "key:1", root_id=root) == [1] and await found(B, "key:1", root_id=root) == []
    assert await found(A, "key:1", topics=["run.started"]) == [1, 4] and await found(A, "key:1", topics=["other"]) == []


async def test_a_look_through_the_log_is_bounded(log: LogSide) -> None:
    for _ in range(21):
        await append(log, A, *["thing.happened"] * 100)
    looked = await log.feed.look_through(A, AskedBy("nobody"), after=50, limit=10)
    assert looked == ([], 2_050)
    assert await log.feed.look_through(A, AskedBy("nobody"), after=2_050, limit=10) == ([], None)


async def test_beginnings_of_events_and_their_number(log: LogSide) -> None:
    root, other = new_id(), new_id()
    large = b'{"text":"' + b"x" * 5_000 + b'"}'
    for tenant, inside, stream, state in ((A, root, root, b"{}"), (B, other, other, b"{}"), (A, root, new_id(), large)):
        appended = StreamAppend(stream, inside, 0, tuple(NewEvent(topic, 1, state) for topic in ("a", "b", "a")))
        await log.store.append(one_command(tenant, new_id(), (appended,), "{}"))

    async def rows(tenant: UUID, root_id: UUID | None, **wanted: Any) -> list[int]:
        return positions(await log.feed.rows(tenant, root_id, **{"after": 0, "limit": 10} | wanted))

    assert await rows(A, root) == [1, 2, 3, 7, 8, 9] == await rows(A, None) and await rows(B, root) == []
    assert await rows(A, root, after=1, until=8, skip=1, limit=3) == [3, 7, 8]
    assert await rows(A, root, topics=["a"], skip=1) == [3, 7, 9] and await rows(A, None, after=2, skip=2, limit=1) == [8]
    cut = await log.feed.rows(A, root, after=6, limit=1)
    assert cut == [event._replace(state=large[:1_024]) for event in await log.feed.at([7])]

    async def count(tenant: UUID, **wanted: Any) -> tuple[int, list[int]]:
        return await log.feed.count(tenant, root, **{"after": 0, "every": 2, "limit": 10} | wanted)

    assert await count(A) == (6, [2, 7, 9]) and await count(B) == (0, []) and await count(A, limit=3) == (3, [2])
    assert await count(A, after=2, until=8) == (3, [7]) and await count(A, topics=["a"]) == (4, [3, 9])

    whole = await log.feed.at([2, 4, 7])
    names = [(event.stream_id, event.version) for event in reversed(whole)]
    assert positions(await log.feed.named(A, names)) == [2, 7] and positions(await log.feed.named(B, names)) == [4]
    assert (await log.feed.named(A, names))[1].state == large[:1_024] and await log.feed.named(A, [(root, 9)]) == []
    assert await log.feed.named(A, []) == []


async def test_after_is_a_complete_cursor(log: LogSide) -> None:
    """Pages of any size give each event once and in order, and nothing after the last event."""
    for _ in range(7):
        await append(log, A, "thing.happened", "thing.happened")
        await append(log, B, "thing.happened")
    for size in (1, 4, 21, 100):
        seen: list[RecordedEvent] = []
        while page := await log.feed.read(after=seen[-1].position if seen else 0, limit=size):
            assert len(page) <= size
            seen += page
        assert positions(seen) == list(range(1, 22))
    assert await log.feed.read(after=21, limit=5) == [] == await log.feed.read(after=400, limit=5)


@pytest.mark.parametrize("asked", [[0], [-1], [4], [1, 2, 99]])
async def test_a_position_that_the_log_lacks_is_not_found(log: LogSide, asked: list[int]) -> None:
    await append(log, A, "a", "b", "c")
    with pytest.raises(NotFound):
        await log.feed.at(asked)


async def test_bounds_of_a_tenants_events(log: LogSide) -> None:
    """`after` is exclusive and `until` is inclusive, also when the feed is read backwards."""
    await append(log, A, "a", "b", "c", "d")  # 1 to 4

    async def read(**bounds: Any) -> list[int]:
        return positions(await log.feed.read_tenant(A, **{"after": 0, "limit": 10} | bounds))

    assert [await read(after=after) for after in (0, 3, 4)] == [[1, 2, 3, 4], [4], []]
    assert [await read(until=until) for until in (0, 1, 4, 5)] == [[], [1], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert await read(after=1, until=3, newest_first=True) == [3, 2]
    assert await read(after=3, until=2) == []
    assert await read(limit=1, newest_first=True) == [4] and await read(limit=1) == [1]


async def test_several_roots_are_read_in_one_question(log: LogSide) -> None:
    """Each root is read from its own position and gives at most `limit` events. All events come in the order of the log. The root
    of
    another tenant is empty."""
    ours, other, theirs = new_id(), new_id(), new_id()
    await append(log, A, "a", "b", "c", root=ours)  # 1 to 3
    await append(log, B, "a", root=theirs)  # 4
    await append(log, A, "a", "b", root=other)  # 5, 6
    await append(log, A, "d", root=ours)  # 7
    assert positions(await log.feed.read_roots([(A, ours, 1), (A, other, 0), (A, theirs, 0)], limit=10)) == [2, 3, 5, 6, 7]
    assert positions(await log.feed.read_roots([(A, other, 5), (A, ours, 0)], limit=2)) == [1, 2, 6]
    assert positions(await log.feed.read_roots([(B, theirs, 0), (B, ours, 0)], limit=2)) == [4]
    assert await log.feed.read_roots([(A, ours, 7)], limit=2) == []


async def test_the_position_at_a_time(log: LogSide) -> None:
    root = new_id()
    assert await log.feed.position_at(A, await log.now()) == 0
    first = await append(log, A, "run.started", "run.paused", root=root)
    await append(log, B, "run.started")
    await log.time_passes()
    last = await append(log, A, "run.started")

    async def at(moment: datetime, tenant: UUID = A, root: UUID | None = None) -> int:
        return await log.feed.position_at(tenant, moment, root_id=root)

    instant = timedelta(microseconds=1)
    assert await at(first.recorded_at - instant) == 0
    assert await at(first.recorded_at) == 2
    assert await at(last.recorded_at - instant) == 2
    assert await at(last.recorded_at - instant, B) == 3
    assert await at(last.recorded_at) == 4
    assert await at(await log.now() + timedelta(days=1), root=root) == 2
    assert await at(await log.now(), new_id()) == 0


# --- ranges of streams ----------------------------------------------------------------------------------------------------


async def rows_of(log: LogSide, size: int, until: int | None = None, tenant: UUID | None = None) -> list[list[StreamRow]]:
    """The rows of each range."""

    def read() -> list[list[StreamRow]]:
        head, parts = log.ranges.cut(size=size)
        bound = head if until is None else until
        return [[row for page in log.ranges.pages(part, until=bound, tenant_id=tenant) for row in page] for part in parts]

    return await asyncio.to_thread(read)


async def test_ranges_hold_every_stream_whole_and_once(log: LogSide) -> None:
    streams = [new_id() for _ in range(12)]
    for version in range(3):
        for number, stream in enumerate(streams):
            await append(log, (A, B)[number % 2], "thing.happened", stream=stream, version=version)
    for size in (1, 5, 10, 36, 1_000):
        ranges = await rows_of(log, size)
        if size < 36:
            assert len(ranges) > 1
        rows = [row for part in ranges for row in part]
        assert [row[0] for row in rows] == sorted(row[0] for row in rows), "stream after stream"
        assert sorted(set(row[0] for row in rows)) == sorted(stream.bytes for stream in streams)
        assert [row[1] for row in rows] == [1, 2, 3] * 12
        assert all({row[0] for row in one}.isdisjoint({row[0] for row in two}) for one, two in itertools.pairwise(ranges))


async def test_ranges_end_at_a_position_and_can_be_one_tenants(log: LogSide) -> None:
    ours, theirs = new_id(), new_id()
    await append(log, A, "a", "b", stream=ours)  # 1, 2
    await append(log, B, "c", stream=theirs)  # 3
    await append(log, A, "d", stream=ours, version=2)  # 4

    def topics(ranges: list[list[StreamRow]]) -> list[str]:
        return [row[2] for part in ranges for row in part]

    assert topics(await rows_of(log, 10, tenant=A)) == ["a", "b", "d"]
    assert topics(await rows_of(log, 10, tenant=B)) == ["c"]
    assert topics(await rows_of(log, 10, until=3, tenant=A)) == ["a", "b"]
    assert topics(await rows_of(log, 10, until=1)) == ["a"]
    assert [row for part in await rows_of(log, 10, tenant=B) for row in part] == [(theirs.bytes, 1, "c", 1, b"{}")]


async def test_an_empty_log_is_one_empty_range(log: LogSide) -> None:
    head, parts = await asyncio.to_thread(log.ranges.cut, size=10)
    assert (head, len(parts)) == (0, 1)
    assert await rows_of(log, 10) == [[]]
