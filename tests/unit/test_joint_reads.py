"""Joint reads: callers of the same moment share a statement, each gets its own answer, and nobody depends on another caller."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from application.engine.background import end
from application.engine.commands.joint_reads import AT_ONCE, JointReads
from application.engine.commands.loop import CommandLoop
from application.engine.ports.log import StreamPlace
from application.engine.ports.snapshots import SnapshotPlace, StreamSince
from application.workers.hosting.messages import WorkForAgent
from domain import context
from domain.errors import NotFound, Unavailable
from domain.kernel import RecordedEvent
from tests.kit.commands import elsewhere, put
from tests.kit.engine import CATALOG, Engine
from tests.kit.hosting import KEY, hosting, issue_keys
from tests.kit.memory import MemoryEventStore, MemoryLog, MemorySnapshots
from tests.kit.waiting import TENANT, new_id, request_of, turns, until


class Source:
    """Answers with the tenfold of a key, once the gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.statements: list[list[int]] = []
        self.under_way = self.most = 0
        self.error: Exception | None = None

    async def one(self, key: int) -> int:
        return (await self._answer([key]))[0]

    async def many(self, keys: Sequence[int]) -> list[int]:
        assert len(keys) > 1, "one key is read by the statement for one"
        return await self._answer(keys)

    async def _answer(self, keys: Sequence[int]) -> list[int]:
        self.statements.append(list(keys))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.error is not None:
            raise self.error
        return [10 * key for key in keys]


@pytest.fixture
def source() -> Source:
    return Source()


def asking(reads: JointReads[int, int], *keys: int, in_company: bool = False) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(reads.read(key, in_company=in_company)) for key in keys]


async def test_who_comes_while_statements_are_under_way_goes_together(source: Source) -> None:
    reads = JointReads(source.one, source.many)
    tasks = asking(reads, *range(10), 4)
    await turns()
    assert source.statements == [[0], [1]] and AT_ONCE == 2
    source.gate.set()
    assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 40]
    assert source.statements == [[0], [1], [2, 3, 4, 5, 6, 7, 8, 9]], "a key that is wanted twice is read once"
    assert source.most == AT_ONCE


async def test_who_is_alone_reads_at_once(source: Source) -> None:
    reads = JointReads(source.one, source.many)
    source.gate.set()
    reading = reads.read(3)
    with pytest.raises(StopIteration) as answer:  # the coroutine ends in its first step: it has not waited for a turn of the loop
        reading.send(None)
    assert answer.value.value == 30


async def test_who_is_one_of_many_waits_for_the_others_of_the_same_turn(source: Source) -> None:
    reads = JointReads(source.one, source.many)
    source.gate.set()
    assert await asyncio.gather(*asking(reads, 1, 2, 3, in_company=True)) == [10, 20, 30]
    assert source.statements == [[1, 2, 3]]
    assert await asyncio.gather(*asking(reads, 4, in_company=True)) == [40]
    assert source.statements[1:] == [[4]]


async def test_a_statement_reads_so_many_and_the_next_takes_the_others(source: Source) -> None:
    reads = JointReads(source.one, source.many, together=3, at_once=1)
    tasks = asking(reads, 0, 1, 2, 3, 4, 3, 5)
    await turns()
    source.gate.set()
    assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40, 30, 50]
    assert source.statements == [[0], [1, 2, 3], [4, 3, 5]]


async def test_a_read_sees_what_was_there_when_it_was_asked_for(source: Source) -> None:
    reads = JointReads(source.one, source.many, at_once=1)
    first = asking(reads, 7)
    await turns()
    later = asking(reads, 7)
    await turns()
    source.gate.set()
    await asyncio.gather(*first, *later)
    assert source.statements == [[7], [7]], "a statement that has begun may be too old for who comes later"


async def test_an_error_is_that_of_all_and_each_has_its_own(source: Source) -> None:
    reads = JointReads(source.one, source.many)
    source.gate.set()
    source.error = Unavailable("away")
    found = await asyncio.gather(*asking(reads, 1, 2, 3, in_company=True), return_exceptions=True)
    assert [str(error) for error in found] == ["away"] * 3
    assert all(type(error) is Unavailable for error in found) and len({id(error) for error in found}) == 3
    source.error = NotFound("none")
    found = await asyncio.gather(*asking(reads, 1, 2, in_company=True), return_exceptions=True)
    assert [type(error) for error in found] == [NotFound, NotFound]
    source.error = None
    assert await asyncio.gather(*asking(reads, 1, 2, in_company=True)) == [10, 20], "the next callers ask anew"


@pytest.mark.parametrize("when", ["before the statement", "during the statement"])
async def test_a_reader_that_goes_away_leaves_the_reading_to_the_next(source: Source, when: str) -> None:
    reads = JointReads(source.one, source.many, at_once=1)
    if when == "before the statement":
        blocking = asking(reads, 0)
        await turns()
    leader, *others = asking(reads, 1, 2, 3, in_company=True)
    await turns()
    await end(leader)
    source.gate.set()
    if when == "before the statement":
        assert await blocking[0] == 0
    assert await asyncio.gather(*others) == [20, 30]
    assert leader.cancelled() and source.statements[-1] == [2, 3]
    assert await reads.read(5) == 50, "the place among the statements is free again"


async def test_a_caller_that_goes_away_is_missed_by_nobody(source: Source) -> None:
    reads = JointReads(source.one, source.many)
    one, two, three = asking(reads, 1, 2, 3, in_company=True)
    await turns()
    await end(two)
    source.gate.set()
    assert (await one, await three) == (10, 30)
    assert source.statements == [[1, 2, 3]]


# --- in the command loop ----------------------------------------------------------------------------------------------------------


class StatementsOfStore(MemoryEventStore):
    """Counts reads: the streams of each statement."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.statements: list[list[UUID]] = []
        self.broken: set[UUID] = set()

    async def read_stream(self, tenant_id: UUID, stream_id: UUID, **options: int | None) -> list[RecordedEvent]:
        self.statements.append([stream_id])
        if stream_id in self.broken:
            raise Unavailable("away")
        return await super().read_stream(tenant_id, stream_id, **options)  # type: ignore[arg-type]

    async def read_streams(self, places: Sequence[StreamPlace]) -> list[list[RecordedEvent]]:
        found = [await MemoryEventStore.read_stream(self, place.tenant_id, place.stream_id) for place in places]
        self.statements.append([place.stream_id for place in places])
        return found


async def test_unknown_streams_are_met_together_and_known_ones_not_read() -> None:
    log = MemoryLog()
    streams = [new_id() for _ in range(5)]
    for stream in streams:
        await elsewhere(log).execute(request_of(), put(stream))
    store = StatementsOfStore(log)
    loop = CommandLoop(store, CATALOG)
    await loop.meet(TENANT, {streams[0]: context.DECIDER})
    await loop.meet(TENANT, dict.fromkeys(streams, context.DECIDER))
    assert store.statements == [[streams[0]], streams[1:]]
    await loop.meet(TENANT, dict.fromkeys(streams, context.DECIDER))
    assert len(store.statements) == 2
    assert [(await loop.load(context.DECIDER, TENANT, stream, fresh=False)).version for stream in streams] == [1] * 5
    store.broken.add(lost := new_id())
    await loop.meet(TENANT, {lost: context.DECIDER})
    with pytest.raises(Unavailable):
        await loop.load(context.DECIDER, TENANT, lost)


class StatementsOfSnapshots(MemorySnapshots):
    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.statements: list[int] = []

    async def read_stream(self, *arguments: UUID, **options: str) -> StreamSince:  # type: ignore[override]
        self.statements.append(1)
        return await super().read_stream(*arguments, **options)  # type: ignore[arg-type]

    async def read_streams(self, places: Sequence[SnapshotPlace]) -> list[StreamSince]:
        found = [
            await MemorySnapshots.read_stream(self, tenant_id, stream_id, slice_name=slice_name, model=model)
            for tenant_id, stream_id, slice_name, model in places
        ]
        self.statements.append(len(places))
        return found


@pytest.mark.parametrize("snapshots", [False, True])
async def test_the_claims_of_another_process_s_work_read_all_streams_with_few_statements(snapshots: bool) -> None:
    """Two streams for each claim: of the agent run, and of its run."""
    engine = Engine()
    await engine.set_up()
    await issue_keys(engine, KEY)
    store = StatementsOfStore(engine.log)
    engine.snapshots = counted = StatementsOfSnapshots(engine.log)
    taking = engine.another(store=store, snapshot_every=200 if snapshots else 0)
    number = 20
    async with engine.running(), hosting(taking) as process:
        worker = process.connect()
        await worker.hello(["alpha"])
        started = [await engine.start("alpha") for _ in range(number)]
        await engine.settled()
        store.statements.clear()
        counted.statements.clear()
        worker.credit(agent=number)
        works = [await worker.hears(WorkForAgent) for _ in started]
        assert [work.claimed.run_id for work in works] == started
        sizes = counted.statements if snapshots else [len(streams) for streams in store.statements]
        assert sum(sizes) == 2 * number and len(sizes) <= 2, sizes
        await until(lambda: not process.host.dispatcher.claiming)
