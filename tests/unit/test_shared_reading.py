"""One reader of the log for all readers of a process: who reads with the others, who reads alone, and who comes back when."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from application.engine.background import TaskEnded, end
from application.engine.reading import shared
from application.engine.reading.histories import HistoryEnded
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.shared import SharedSubscription
from domain.kernel import RecordedEvent
from tests.kit.memory import MemoryHistories, MemoryLog
from tests.kit.waiting import TENANT, new_id, turns, until

COMMON = "readers"


class Source:
    """A log of which every reader is known by its name. Batches are as large as what was appended at once."""

    def __init__(self, histories: HistoryKeeper) -> None:
        self._histories = histories
        self.batches_of: list[list[RecordedEvent]] = []
        self.head = 0
        self.readers: list[str] = []
        """Who reads now."""
        self.begun: list[tuple[str, int]] = []
        """Who began, after which position."""
        self.read: dict[str, int] = {}
        """Position that each name has read up to."""
        self.error: Exception | None = None
        self.is_deaf = False
        """Hears of no new history while it waits, as a database that does not answer."""
        self._changed = asyncio.Event()

    def append(self, count: int, size: int = 2) -> None:
        batch = []
        for _ in range(count):
            self.head += 1
            id = new_id()
            batch.append(RecordedEvent(self.head, TENANT, id, 1, id, "thing.happened", 1, b"x" * size, "{}", datetime.now(UTC)))
        self.batches_of.append(batch)
        self.wake()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def batches(self, *, after: int, name: str) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        changes = self._histories.changes
        self.readers.append(name)
        self.begun.append((name, after))
        position = after
        try:
            while True:
                self._histories.check_unchanged(changes)
                if self.error is not None:
                    raise self.error
                found = next((batch for batch in self.batches_of if batch[-1].position > position), None)
                if found is None:
                    with contextlib.nullcontext() if self.is_deaf else self._histories.on_change(self.wake):
                        await self._changed.wait()
                    continue
                batch = [event for event in found if event.position > position] if found[0].position <= position else found
                position = batch[-1].position
                self.read[name] = position
                yield batch
        finally:
            self.readers.remove(name)


class Reader:
    """Takes batches as long as it is not held."""

    def __init__(self, subscription: SharedSubscription, name: str, after: int = 0) -> None:
        self.name, self.after = name, after
        self.events: list[RecordedEvent] = []
        self.held = False
        self._subscription = subscription
        self._released = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with contextlib.aclosing(self._subscription.batches(after=self.after, name=self.name)) as batches:
            async for batch in batches:
                assert batch
                self.events += batch
                while self.held:
                    self._released.clear()
                    await self._released.wait()

    def release(self) -> None:
        self.held = False
        self._released.set()

    @property
    def position(self) -> int:
        return self.events[-1].position if self.events else self.after

    def check(self) -> None:
        assert [event.position for event in self.events] == list(range(self.after + 1, self.position + 1))


async def reached(reader: Reader, position: int) -> None:
    await until(lambda: reader.position == position)


class Process:
    """The readers of a process over one source."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.histories = HistoryKeeper(MemoryHistories(self.log))
        self.source = Source(self.histories)
        self.subscription = SharedSubscription(self.source, self.histories, first_alone_s=0.0)
        self._readers: list[Reader] = []

    def reader(self, name: str, after: int = 0) -> Reader:
        self._readers.append(reader := Reader(self.subscription, name, after))
        return reader

    async def all_at(self, position: int) -> None:
        await until(lambda: all(reader.position == position for reader in self._readers if not reader.task.done()))
        for reader in self._readers:
            reader.check()

    async def leave(self, reader: Reader) -> None:
        await end(reader.task)

    async def close(self) -> None:
        await end(*(reader.task for reader in self._readers))


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    process = Process()
    yield process
    await process.close()
    assert process.source.readers == []
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "log-reader"], "nothing is left behind"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test reaches quickly."""
    monkeypatch.setattr(shared, "QUEUE_EVENTS", 20)
    monkeypatch.setattr(shared, "AHEAD_EVENTS", 5)
    monkeypatch.setattr(shared, "NEAR_EVENTS", 4)


async def test_readers_read_the_source_once_and_get_the_same_events(process: Process) -> None:
    process.source.append(3)
    readers = [process.reader(name) for name in ("one", "two", "three")]
    await process.all_at(3)
    process.source.append(1)
    await process.all_at(4)
    assert process.source.begun == [(COMMON, 0)]
    assert len({id(event) for reader in readers for event in reader.events}) == 4, "decoded once"


async def test_the_source_is_read_as_long_as_somebody_reads(process: Process) -> None:
    one, two = process.reader("one"), process.reader("two")
    process.source.append(1)
    await process.all_at(1)
    await process.leave(one)
    process.source.append(1)
    await process.all_at(2)
    await process.leave(two)
    assert process.source.readers == []
    process.source.append(1)
    again = process.reader("again", 1)
    await process.all_at(3)
    assert again.position == 3 and process.source.begun == [(COMMON, 0), (COMMON, 1)]


async def test_newcomers_get_what_is_kept(process: Process, small: None) -> None:
    process.reader("one")
    for _ in range(6):
        process.source.append(1)
    await process.all_at(6)
    for after in (2, 3, 6):
        process.reader(f"after {after}", after)
    await process.all_at(6)
    process.source.append(2)
    await process.all_at(8)
    assert process.source.begun == [(COMMON, 0)]


async def test_a_newcomer_within_a_batch_gets_the_rest_of_the_batch(process: Process) -> None:
    process.reader("one")
    process.source.append(5)
    await process.all_at(5)
    process.reader("two", 3)
    await process.all_at(5)
    assert process.source.begun == [(COMMON, 0)]


async def test_who_is_further_behind_reads_alone_until_it_is_near(process: Process, small: None) -> None:
    process.reader("ahead", 30)
    for _ in range(40):
        process.source.append(1)
    await process.all_at(40)
    late = process.reader("late", 2)
    await process.all_at(40)
    assert process.source.begun == [(COMMON, 30), ("late", 2)] and process.source.readers == [COMMON]
    assert process.source.read["late"] == 36, "what is kept comes from the others' reader"
    process.source.append(1)
    await process.all_at(41)
    assert late.position == 41 and process.source.read["late"] == 36


async def test_who_is_a_little_ahead_joins_and_gets_no_event_twice(process: Process, small: None) -> None:
    process.reader("one")
    process.source.append(1)
    await process.all_at(1)
    process.reader("two", 5)
    for _ in range(5):
        process.source.append(1)
    await process.all_at(6)
    assert process.source.begun == [(COMMON, 0)]


async def test_who_is_far_ahead_reads_at_once_and_the_others_catch_up(process: Process, small: None) -> None:
    """A reader from the beginning of the log must not hold up one that is at its end."""
    for _ in range(30):
        process.source.append(1)
    rear = process.reader("rear")
    rear.held = True
    await until(lambda: rear.position == 1)
    front = process.reader("front", 28)
    await until(lambda: front.position == 30)
    assert process.source.begun[-1] == (COMMON, 28)
    rear.release()
    await process.all_at(30)
    await until(lambda: process.source.readers == [COMMON])
    process.source.append(1)
    await process.all_at(31)


async def test_a_slow_reader_holds_up_nobody_and_comes_back(process: Process, small: None) -> None:
    slow, quick = process.reader("slow"), process.reader("quick")
    process.source.append(1)
    await process.all_at(1)
    slow.held = True
    for position in range(2, 102):
        process.source.append(1)
        await reached(quick, position)
    assert slow.position == 2 and process.source.begun == [(COMMON, 0)]
    slow.release()
    await process.all_at(101)
    [_, (name, after)] = process.source.begun
    assert name == "slow" and 20 <= after <= 24, "what had waited in its queue came first"
    await until(lambda: process.source.readers == [COMMON])
    process.source.append(1)
    await process.all_at(102)
    assert len(process.source.begun) == 2, "it reads with the others again"


@pytest.mark.parametrize("much", ["events", "bytes"])
async def test_a_queue_is_bounded(process: Process, monkeypatch: pytest.MonkeyPatch, much: str) -> None:
    monkeypatch.setattr(shared, "NEAR_EVENTS", 4)
    monkeypatch.setattr(shared, "QUEUE_EVENTS", 10 if much == "events" else 10_000)
    monkeypatch.setattr(shared, "QUEUE_BYTES", 10 * 12 if much == "bytes" else 10_000_000)
    slow, quick = process.reader("slow"), process.reader("quick")
    slow.held = True
    for position in range(1, 30):
        process.source.append(1, size=10)
        await reached(quick, position)
    slow.release()
    await process.all_at(29)
    assert process.source.begun == [(COMMON, 0), ("slow", 11)], "ten waited beside the one that it had taken"


@pytest.mark.parametrize("much", ["events", "bytes"])
async def test_the_fastest_reader_sets_the_pace_and_never_loses_its_place(
    process: Process, monkeypatch: pytest.MonkeyPatch, much: str
) -> None:
    monkeypatch.setattr(shared, "AHEAD_EVENTS", 5 if much == "events" else 10_000)
    monkeypatch.setattr(shared, "AHEAD_BYTES", 5 * 12 if much == "bytes" else 10_000_000)
    for _ in range(100):
        process.source.append(1, size=10)
    reader = process.reader("one")
    reader.held = True
    await until(lambda: reader.position == 1)
    await turns()
    assert process.source.read[COMMON] == 7, "one taken, five and one more wait"
    reader.release()
    await process.all_at(100)
    assert process.source.begun == [(COMMON, 0)]


async def test_a_newcomer_gets_what_stopped_for_the_others(process: Process, small: None) -> None:
    for _ in range(20):
        process.source.append(1)
    slow = process.reader("slow")
    slow.held = True
    await until(lambda: process.source.read.get(COMMON) == 7)
    await turns()
    quick = process.reader("quick", 7)
    await until(lambda: quick.position == 20)
    assert slow.position == 1


async def test_the_end_of_who_was_quick_lets_the_slow_one_set_the_pace(process: Process, small: None) -> None:
    quick, slow = process.reader("quick"), process.reader("slow")
    process.source.append(1)
    await process.all_at(1)
    quick.held = slow.held = True
    for _ in range(20):
        process.source.append(1)
    await until(lambda: quick.position == 2)
    quick.release()
    await process.leave(quick)
    slow.release()
    await process.all_at(21)
    assert process.source.begun == [(COMMON, 0)]


async def test_a_large_batch_has_room_in_an_empty_queue(process: Process, small: None) -> None:
    process.reader("one")
    process.source.append(500)
    await process.all_at(500)
    process.source.append(500)
    await process.all_at(1_000)
    assert process.source.begun == [(COMMON, 0)]


async def test_who_is_slow_again_and_again_reads_alone_for_longer(process: Process, small: None) -> None:
    clock = 0.0
    loop = asyncio.get_running_loop()
    real = loop.time
    process.subscription = SharedSubscription(process.source, process.histories, first_alone_s=10.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", lambda: real() + clock)
        slow, quick = process.reader("slow"), process.reader("quick")

        async def fall_behind() -> None:
            slow.held = True
            for _ in range(60):
                process.source.append(1)
                await until(lambda: quick.position == process.source.head)
            slow.release()
            await process.all_at(process.source.head)
            assert process.source.readers == [COMMON, "slow"], "it is near, but has just been slow"

        for alone_s in (10.0, 20.0, 40.0, 60.0, 60.0):
            await fall_behind()
            clock += alone_s - 5.0
            process.source.append(1)
            await process.all_at(process.source.head)
            assert process.source.readers == [COMMON, "slow"], alone_s
            clock += 5.1
            process.source.append(1)
            await process.all_at(process.source.head)
            await until(lambda: process.source.readers == [COMMON])
        clock += 61.0
        await fall_behind()
        clock += 10.1
        process.source.append(1)
        await until(lambda: process.source.readers == [COMMON])


async def test_who_was_slow_reads_alone_although_it_is_near(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a reader that is a little too slow would fall out and come back all the time."""
    monkeypatch.setattr(shared, "QUEUE_EVENTS", 20)
    process.subscription = SharedSubscription(process.source, process.histories, first_alone_s=3_600.0)
    slow, quick = process.reader("slow"), process.reader("quick")
    slow.held = True
    for position in range(1, 61):
        process.source.append(1)
        await reached(quick, position)
    slow.release()
    await process.all_at(60)
    assert process.source.begun == [(COMMON, 0), ("slow", 21)]
    assert process.source.readers == [COMMON, "slow"]


async def test_a_new_history_reaches_readers_whose_source_does_not_notice(process: Process) -> None:
    process.source.is_deaf = True
    process.source.append(1)
    readers = [process.reader("one"), process.reader("two")]
    await process.all_at(1)
    await process.histories.fresh()
    await process.histories.restored("a test", 0)
    for reader in readers:
        await until(reader.task.done)
        assert isinstance(reader.task.exception(), HistoryEnded)
    await until(lambda: process.source.readers == [], "the end of the reader of the last history")


async def test_all_are_told_that_the_history_ended_also_who_has_events_to_take(process: Process) -> None:
    process.source.append(1)
    busy, idle = process.reader("busy"), process.reader("idle")
    await process.all_at(1)
    busy.held = True
    process.source.append(1)
    process.source.append(1)
    await until(lambda: idle.position == 3)
    await process.histories.fresh()
    await process.histories.restored("a test", 0)
    await until(idle.task.done)
    busy.release()
    await until(busy.task.done)
    for reader in (busy, idle):
        assert isinstance(reader.task.exception(), HistoryEnded)
    assert busy.position == 2, "an event of the ended history is given to nobody any more"


async def test_a_reader_of_the_next_history_does_not_wait_for_the_reader_of_the_last(process: Process) -> None:
    process.source.append(1)
    before = process.reader("before")
    await process.all_at(1)
    before.held = True
    process.source.append(1)
    await until(lambda: before.position == 2)
    await process.histories.fresh()
    await process.histories.restored("a test", 0)
    after = process.reader("after")
    await until(lambda: after.position == 2)
    assert process.source.begun == [(COMMON, 0), (COMMON, 0)]
    before.release()
    await until(before.task.done)
    process.source.append(1)
    await until(lambda: after.position == 3)


async def test_an_error_of_the_source_reaches_every_reader_and_the_next_ones_begin_anew(process: Process) -> None:
    process.source.append(1)
    readers = [process.reader("one"), process.reader("two")]
    await process.all_at(1)
    error = ValueError("broken")
    process.source.fail(error)
    for reader in readers:
        await until(reader.task.done)
        assert reader.task.exception() is error
    process.source.error = None
    again = process.reader("again", 1)
    process.source.append(1)
    await until(lambda: again.position == 2)


async def test_nobody_joins_a_reader_that_has_ended(process: Process) -> None:
    """Somebody has events of before the error to take, and so still has a place there."""
    busy, idle = process.reader("busy"), process.reader("idle")
    busy.held = True
    for position in range(1, 4):
        process.source.append(1)
        await reached(idle, position)
    process.source.fail(ValueError("broken"))
    await until(idle.task.done)
    process.source.error = None
    again = process.reader("again", 3)
    process.source.append(1)
    await until(lambda: again.position == 4 or again.task.done())
    assert again.position == 4 and process.source.begun == [(COMMON, 0), (COMMON, 3)]
    busy.release()
    await until(lambda: busy.position == 4)


async def test_the_loss_of_its_task_is_noticed(process: Process) -> None:
    reader = process.reader("one")
    await until(lambda: process.source.readers == [COMMON])
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "log-reader"]
    task.cancel()
    await until(reader.task.done)
    error = reader.task.exception()
    assert isinstance(error, TaskEnded) and "the reader of the log" in str(error)


@pytest.mark.parametrize("how", ["at once", "first", "last"])
async def test_who_leaves_while_it_is_slow_disturbs_nobody(process: Process, small: None, how: str) -> None:
    slow, quick = process.reader("slow"), process.reader("quick")
    process.source.append(1)
    await process.all_at(1)
    slow.held = True
    for position in range(2, 32):
        process.source.append(1)
        await reached(quick, position)
    if how == "at once":
        await end(slow.task, quick.task)
        assert process.source.readers == []
        return
    first, last = (slow, quick) if how == "first" else (quick, slow)
    await process.leave(first)
    last.release()
    process.source.append(1)
    await until(lambda: last.position == 32)
    last.check()
