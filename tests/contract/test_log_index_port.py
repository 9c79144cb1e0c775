"""What the port `LogIndex` promises; in memory and on PostgreSQL."""

from uuid import UUID

from uuid_utils.compat import uuid7

from application.engine.ports.ids import StreamStart
from application.engine.ports.log import AppendResult, NewEvent, StreamAppend, one_command
from tests.contract.conftest import LogSide

A, B = uuid7(), uuid7()
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)


def id_of(text: str) -> UUID:
    return UUID(hex=text.ljust(32, "0"))


async def append(
    log: LogSide, tenant: UUID, stream: UUID, *topics: str, root: UUID | None = None, version: int = 0, command: UUID | None = None
) -> AppendResult:
    events = tuple(NewEvent(topic, 1, b"{}") for topic in topics)
    request = one_command(tenant, command or uuid7(), (StreamAppend(stream, root or stream, version, events),), "{}")
    return await log.store.append(request)


async def test_streams_of_a_range_of_ids(log: LogSide) -> None:
    run, step, other, beyond = id_of("aa01"), id_of("aa02"), id_of("aa03"), id_of("ab00")
    await append(log, A, step, "agent_run.requested", "agent_run.claimed", root=run)  # 1, 2
    await append(log, A, run, "run.started")  # 3
    await append(log, B, other, "run.started")  # 4
    await append(log, A, beyond, "run.started")  # 5
    await append(log, A, run, "run.completed", version=1)  # 6
    first, last = id_of("aa"), UUID(hex="aa" + "f" * 30)
    starts = [StreamStart(run, run, "run.started", 3), StreamStart(step, run, "agent_run.requested", 1)]
    assert await log.index.streams(A, first, last, limit=3) == (starts, True)
    assert await log.index.streams(A, first, last, limit=2) == (starts, False), "a stream of another tenant counts"
    assert await log.index.streams(A, first, last, limit=1) == (starts[:1], False)
    assert await log.index.streams(A, run, run, limit=1) == (starts[:1], True)
    assert await log.index.streams(B, run, step, limit=5) == ([], True)
    assert await log.index.streams(A, LOWEST, id_of("01"), limit=5) == ([], True)
    everything, complete = await log.index.streams(A, LOWEST, HIGHEST, limit=100)
    assert ([start.stream_id for start in everything], complete) == ([run, step, beyond], True)


async def test_the_events_of_a_command(log: LogSide) -> None:
    command = uuid7()
    await append(log, A, uuid7(), "run.started")
    await append(log, A, uuid7(), "run.started", "run.completed", "run.completed", command=command)
    assert await log.index.of_command(A, command) == range(2, 5)
    assert await log.index.of_command(B, command) is None
    assert await log.index.of_command(A, uuid7()) is None


async def test_an_event_by_its_place_in_its_stream(log: LogSide) -> None:
    stream = uuid7()
    await append(log, A, uuid7(), "run.started")
    await append(log, A, stream, "run.started", "run.completed")
    assert [await log.index.of_event(A, stream, version) for version in (1, 2, 3)] == [2, 3, None]
    assert await log.index.of_event(B, stream, 1) is None
    assert await log.index.of_event(A, uuid7(), 1) is None
