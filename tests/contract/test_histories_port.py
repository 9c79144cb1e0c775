"""The contract of the port `HistoryStore`, in memory and on PostgreSQL."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from uuid_utils.compat import uuid7

from application.engine.ports.log import NewEvent, StreamAppend, one_command
from tests.contract.conftest import LogSide


async def fill(log: LogSide, count: int) -> None:
    for _ in range(count):
        stream = uuid7()
        append = StreamAppend(stream, stream, 0, (NewEvent("thing.happened", 1, b"{}"),))
        await log.store.append(one_command(uuid7(), uuid7(), (append,), "{}"))


async def current(log: LogSide) -> str:
    return (await log.histories.read()).histories.current.history_id


async def begin(log: LogSide, last_common: int, *, after: str | None = None, replaces: str | None = None) -> bool:
    now = await current(log)
    return await log.histories.begin(
        after=after or now, replaces=replaces or now, last_common=last_common, cause="reader", reason="a test"
    )


async def test_a_log_has_a_history_from_the_beginning(log: LogSide) -> None:
    state = await log.histories.read()
    [first] = state.histories.all
    assert (state.head, first.number, first.replaces, first.last_common, first.cause) == (0, 1, None, 0, "installed")
    assert len(first.history_id) == 12 and first.seal_key


async def test_the_head_is_read_with_the_histories(log: LogSide) -> None:
    await fill(log, 3)
    assert (await log.histories.read()).head == 3


async def test_a_history_begins_after_the_current_one(log: LogSide) -> None:
    await fill(log, 5)
    before = await current(log)
    assert await begin(log, 4)
    state = await log.histories.read()
    _, now = state.histories.all
    assert (now.number, now.replaces, now.last_common, now.cause, now.reason) == (2, before, 4, "reader", "a test")
    assert state.histories.current == now and now.history_id != before and now.seal_key != state.histories.all[0].seal_key
    assert state.head == 5, "the log itself stays as it is"


async def test_the_last_common_position_is_bounded_by_the_head(log: LogSide) -> None:
    await fill(log, 2)
    assert await begin(log, 99)
    assert (await log.histories.read()).histories.current.last_common == 2


async def test_a_history_can_replace_one_that_the_database_does_not_know(log: LogSide) -> None:
    assert await begin(log, 0, replaces="0123456789ab")
    assert (await log.histories.read()).histories.current.replaces == "0123456789ab"


async def test_who_comes_too_late_begins_none(log: LogSide) -> None:
    first = await current(log)
    assert await begin(log, 0)
    assert not await begin(log, 0, after=first)
    assert len((await log.histories.read()).histories.all) == 2


async def test_of_several_at_once_one_begins(log: LogSide) -> None:
    first = await current(log)
    assert sorted(await asyncio.gather(*(begin(log, 0, after=first) for _ in range(8)))) == [False] * 7 + [True]
    assert len((await log.histories.read()).histories.all) == 2


async def test_the_mark_knows_nobody_before_somebody_looked(log: LogSide) -> None:
    mark, server = await log.histories.server()
    assert (mark.server, mark.position, mark.earlier_position) == (None, 0, 0)
    assert server.log_id and (await log.histories.server())[1] == server


async def test_the_mark_moves_with_the_head(log: LogSide) -> None:
    _, server = await log.histories.server()
    await fill(log, 2)
    await log.histories.note(server)
    assert (await log.histories.server())[0].position == 2
    await fill(log, 1)
    await log.histories.note(server)
    mark, _ = await log.histories.server()
    assert (mark.server, mark.position, mark.earlier_position) == (server, 3, 0)


async def test_a_server_that_is_no_more_moves_no_mark(log: LogSide) -> None:
    _, server = await log.histories.server()
    await fill(log, 2)
    await log.histories.note(replace(server, started_at=server.started_at - timedelta(seconds=1)))
    assert (await log.histories.server())[0].position == 0


async def test_a_new_history_begins_with_a_mark_of_its_own(log: LogSide) -> None:
    """The position before the start of a history is the last certain one: later events belonged to the history that ended."""
    await fill(log, 5)
    assert await begin(log, 3)
    mark, server = await log.histories.server()
    assert (mark.server, mark.position, mark.earlier_position) == (server, 5, 3)
