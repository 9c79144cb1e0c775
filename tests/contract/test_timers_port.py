"""The contracts of the ports `Timers` and `OpenWork`, in memory and on PostgreSQL."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.ports.queue import WorkItem
from application.engine.ports.timers import DueTimer
from tests.contract.conftest import TableSide
from tests.pace import within


def timer(name: str = "Ring") -> DueTimer:
    return DueTimer(uuid7(), uuid7(), uuid7(), name, b'{"text": "\xc3\xbc"}', uuid7(), "test:1")


async def test_due_timers_come_whole_and_in_the_order_of_their_time(tables: TableSide) -> None:
    last, first, later = timer("Last"), timer("First"), timer("Later")
    for each, due_in_s in ((last, -1), (first, -50), (later, 3_600)):
        await tables.set(each, due_in_s)
    assert await tables.timers.due(10) == [first, last]
    assert await tables.timers.due(1) == [first]
    await tables.pass_time(3_601)
    assert await tables.timers.due(10) == [first, last, later]


async def test_a_timer_is_due_until_it_is_deleted(tables: TableSide) -> None:
    one, other, third = timer(), timer(), timer()
    for number, each in enumerate((one, other, third)):
        await tables.set(each, number - 10)
    assert await tables.timers.due(10) == await tables.timers.due(10) == [one, other, third]
    await tables.timers.delete([one.timer_id, third.timer_id])
    assert await tables.timers.due(10) == [other]
    await tables.timers.delete([one.timer_id, uuid7()])  # one timer is gone already, the other never existed
    await tables.timers.delete([])
    assert await tables.timers.due(10) == [other]


async def test_a_timer_that_is_not_due_can_be_deleted(tables: TableSide) -> None:
    one = timer()
    await tables.set(one, 60)
    await tables.timers.delete([one.timer_id])
    await tables.pass_time(61)
    assert await tables.timers.due(10) == []


async def test_seconds_until_the_next_one(tables: TableSide) -> None:
    assert await tables.timers.seconds_until_next() is None
    await tables.set(timer(), 600)
    await tables.set(timer(), 60)
    assert await tables.timers.seconds_until_next() == pytest.approx(60, abs=20)
    await tables.pass_time(100)
    assert await tables.timers.seconds_until_next() == pytest.approx(-40, abs=20)
    await tables.timers.delete([due.timer_id for due in await tables.timers.due(10)])
    assert await tables.timers.seconds_until_next() == pytest.approx(500, abs=20)


async def test_a_timer_that_is_set_wakes_who_waits_for_a_change(tables: TableSide) -> None:
    waiting = asyncio.create_task(tables.timers.wait_for_change(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    await tables.set(timer(), 30)
    async with within(15):
        await waiting


async def test_a_timer_that_was_set_before_somebody_waits_is_not_missed(tables: TableSide) -> None:
    await tables.set(timer(), 30)
    async with within(15):
        await tables.timers.wait_for_change(60)


async def test_without_a_change_the_wait_ends_with_its_time(tables: TableSide) -> None:
    waiting = asyncio.create_task(tables.timers.wait_for_change(0.05))
    await asyncio.sleep(0)
    await tables.pass_time(0.05)
    async with within(15):
        await waiting


async def test_a_timer_that_is_parked_is_gone_and_its_event_is_put_aside(tables: TableSide) -> None:
    tenant, stream = uuid7(), uuid7()
    event = NewEvent("thing.happened", 1, b"{}")
    append = one_command(tenant, uuid7(), (StreamAppend(stream, stream, 0, (event, event)),), "{}")
    last = (await tables.log.store.append(append)).last_position
    broken, other = replace(timer(), tenant_id=tenant, cause=f"{stream}:2"), timer()
    for each in (broken, other):
        await tables.set(each, -1)
    for _ in range(2):  # the answer to the first time may have been lost
        await tables.timers.park(broken, "Ring: no\x00pe")
        assert await tables.timers.due(10) == [other]
        assert await tables.parked() == [("due-timers", last, "Ring: nope")]


# --- the clock is set back ------------------------------------------------------------------------------------------------


async def test_timers_that_come_of_the_future_wait_their_own_delay(tables: TableSide) -> None:
    """The log's times stay an hour ahead of the clock, and so do those of timers that are set after the clock was set back."""
    before, after = timer("Before"), timer("After")
    await tables.set(before, 20, delay_s=20)
    await tables.set_clock_back(3_600)
    await tables.set(after, 3_600 + 50, delay_s=50)
    assert await tables.timers.due(10) == []
    assert await tables.timers.seconds_until_next() == pytest.approx(20, abs=10)
    await tables.pass_time(35)
    assert await tables.timers.due(10) == [before]
    await tables.pass_time(30)
    assert await tables.timers.due(10) == [before, after]
    assert await tables.timers.seconds_until_next() == pytest.approx(-45, abs=10)


async def test_the_clock_may_be_set_back_again(tables: TableSide) -> None:
    one = timer()
    await tables.set(one, 3_600 + 50, delay_s=50)
    assert await tables.timers.due(10) == []
    await tables.set_clock_back(86_400)
    assert await tables.timers.due(10) == []
    assert await tables.timers.seconds_until_next() == pytest.approx(50, abs=10)
    await tables.pass_time(65)
    assert await tables.timers.due(10) == [one]


async def test_a_timer_of_the_past_keeps_its_time(tables: TableSide) -> None:
    one = timer()
    await tables.set(one, 1_000, delay_s=5_000)
    await tables.set_clock_back(600)
    assert await tables.timers.due(10) == []
    assert await tables.timers.seconds_until_next() == pytest.approx(1_600, abs=10)


# --- open work ------------------------------------------------------------------------------------------------------------


def work(work_id: UUID | None = None) -> WorkItem:
    return WorkItem(uuid7(), "agent", "critic", work_id or uuid7(), 2, uuid7())


async def test_open_work_is_that_which_was_dispatched_longer_ago(tables: TableSide) -> None:
    young, old = work(), work()
    await tables.open(young, 5)
    await tables.open(old, 60)
    assert await tables.open_work.older_than(30, after=None, limit=10) == [old]
    assert await tables.open_work.older_than(120, after=None, limit=10) == []
    await tables.pass_time(60)
    assert await tables.open_work.older_than(30, after=None, limit=10) == sorted([young, old], key=lambda item: item.work_id)


async def test_work_that_was_dispatched_in_the_future_may_be_lost_as_well(tables: TableSide) -> None:
    """The clock was set back. The age of the work is not known, and an item that still waits in the queue is put there once."""
    one, soon = work(), work()
    await tables.open(one, 5)
    await tables.set_clock_back(3_600)
    await tables.open(soon, -1)
    assert await tables.open_work.older_than(30, after=None, limit=10) == [one]


async def test_open_work_comes_in_pages_by_id(tables: TableSide) -> None:
    items = sorted((work() for _ in range(5)), key=lambda item: item.work_id)
    for item in items[::-1]:
        await tables.open(item, 60)
    seen: list[WorkItem] = []
    after = None
    while page := await tables.open_work.older_than(10, after=after, limit=2):
        assert len(page) <= 2
        seen, after = seen + page, page[-1].work_id
    assert seen == items
    assert await tables.open_work.older_than(10, after=items[1].work_id, limit=10) == items[2:]
