"""The begin of a history and its announcement: the proof that the log lost its end, and the last position before the loss."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict

from adapters.embedded import EmbeddedServices
from adapters.nats import LogStream
from adapters.nats.log.stream import parting
from adapters.postgres.listener import ChannelListener
from adapters.postgres.log.histories import CHANNEL, PostgresHistories
from application.engine.reading.histories import Cursor, HistoryEnded, LogState, Parting
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import HistoryReplaced, PositionBeyondHead
from tests.integration.nats_kit import (
    APPEND_ONE,
    LOG,
    Log,
    NatsProcess,
    Reader,
    connected,
    copied_database,
    eventually,
    keeper,
    new_id,
    open_log,
    relay,
    running,
    stream_content,
    subscription,
)
from tests.pace import in_time


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    async with open_log(database_url) as log:
        yield log


async def lose_the_end(log: Log, kept: int) -> None:
    async with log.pool.connection() as database, database.transaction():
        await database.execute("DELETE FROM event WHERE notification_id > %s", [kept])
        await database.execute("UPDATE log_head SET position = %s", [kept])


async def begun(log: Log) -> list[tuple[str, int]]:
    return [(each.cause, each.last_common) for each in (await log.histories.fresh()).histories.all]


async def reached(one: object, log: Log) -> None:
    head = await log.feed.head()
    await eventually(lambda: one.position == head)  # type: ignore[attr-defined]  # a relay or a reader


class Counted(PostgresHistories):
    """Counts the reads of the histories and of the head."""

    asked = 0

    async def read(self) -> LogState:
        self.asked += 1
        return await super().read()


async def test_a_thousand_who_ask_at_once_are_served_by_one_question_and_none_by_an_older_one(log: Log) -> None:
    await log.append(3)
    store = Counted(log.pool)
    one = HistoryKeeper(store)
    refused = await asyncio.gather(*(one.must_have(10) for _ in range(1_000)), return_exceptions=True)
    assert {(type(error), error.args) for error in refused} == {(PositionBeyondHead, PositionBeyondHead(10, 3).args)}  # type: ignore[union-attr]
    assert store.asked <= 2
    before = asyncio.create_task(one.fresh())
    await asyncio.sleep(0)
    await log.append(4)  # callers that were told of these come while the earlier read is under way
    await one.must_have(7)
    assert (await before).head in (3, 7)


# --- discovery ---


async def test_two_relays_find_out_and_one_history_begins_at_the_exact_event(nats: NatsProcess, log: Log) -> None:
    """The difference is in the middle of a batch: all events of a message are compared, not only the last."""
    async with connected(nats.url, "one") as connection, connected(nats.url, "two") as other:
        async with running((before := relay(connection, log)).run()):
            await log.append(20)
            await log.append(100, together=100)
            await reached(before, log)
        spans, _ = await stream_content(connection)
        assert spans[-1].first <= 77 < spans[-1].last, "the last message holds what is lost and what is not"
        await lose_the_end(log, 77)
        await log.append(90)
        one, two = relay(connection, log), relay(other, log)
        async with running(one.run(), two.run()):
            await eventually(lambda: max(one.position, two.position) == 167)
        assert await begun(log) == [("installed", 0), ("relay", 77)]
        assert (await stream_content(connection))[1] == await log.everything()


async def test_of_many_that_find_out_at_once_one_begins_a_history(log: Log) -> None:
    await log.append(30)
    keepers = [HistoryKeeper(PostgresHistories(log.pool)) for _ in range(12)]
    [first] = (await log.histories.fresh()).histories.all
    cursor = Cursor.parse(first.cursor(30))
    await lose_the_end(log, 20)

    async def finds_out(number: int, one: HistoryKeeper) -> None:
        match number % 3:
            case 0:
                await one.lost(30, first.history_id, "relay", "a copy has more")
            case 1:
                await one.lost(29, None, "fanout", "an older copy has more")
            case 2:
                with pytest.raises(HistoryReplaced):
                    await one.admit(cursor)

    await asyncio.gather(*(finds_out(number, one) for number, one in enumerate(keepers)))
    assert len(await begun(log)) == 2
    await asyncio.gather(*(finds_out(number, one) for number, one in enumerate(keepers)))
    assert len(await begun(log)) == 2, "what is known is not found out again"


async def test_a_saga_that_says_the_same_again_does_not_hide_the_loss(nats: NatsProcess, log: Log) -> None:
    """After a restore the same cause gives an event with the same id at the same position, recorded at another time."""
    async with connected(nats.url) as connection:
        async with running((before := relay(connection, log)).run()):
            await log.append(10)
            await append_one(log, name := new_id())
            await reached(before, log)
        await lose_the_end(log, 8)
        await log.append(2)
        await append_one(log, name)
        tail = (await stream_content(connection))[1][-1]
        assert (tail.position, tail.name) == (11, (await log.everything())[-1].name)
        async with running((after := relay(connection, log)).run()):
            await eventually(lambda: after.position == 11)
        assert await begun(log) == [("installed", 0), ("relay", 8)]
        assert (await stream_content(connection))[1] == await log.everything()


async def append_one(log: Log, name: object) -> None:
    async with log.pool.connection() as database:
        await database.execute("DELETE FROM command WHERE command_id = %s", [name])
        await database.execute(APPEND_ONE.encode(), {"id": name})


async def test_a_cursor_that_was_given_out_proves_a_loss_and_an_invented_one_does_not(log: Log) -> None:
    await log.append(30)
    [first] = (await log.histories.fresh()).histories.all
    await lose_the_end(log, 20)
    invented = (Cursor(30), Cursor(30, first.history_id), Cursor(30, first.history_id, "00000000"))
    for cursor in invented:
        with pytest.raises(PositionBeyondHead):
            await log.histories.admit(cursor)
    with pytest.raises(HistoryReplaced):
        await log.histories.admit(Cursor(30, "0123456789ab"))
    assert len(await begun(log)) == 1
    with pytest.raises(HistoryReplaced) as caught:
        await log.histories.admit(Cursor.parse(first.cursor(30)))
    assert await begun(log) == [("installed", 0), ("reader", 0)], "where nobody knows what was lost, nothing is certain"
    again = await log.histories.admit(Cursor.parse(caught.value.cursor))
    assert again.history_id == caught.value.history


async def test_a_process_that_has_read_more_finds_out_without_nats(nats: NatsProcess, log: Log) -> None:
    """The mark, which was made while the same server ran, gives the position up to which nothing was lost."""
    async with connected(nats.url) as connection:
        one = keeper(connection, log)
        await log.append(20)
        await one.check()
        await nats.kill()
        await log.append(10)
        changes = one.changes
        one.saw(30, changes)
        await one.check()
        assert len(await begun(log)) == 1
        await set_mark(log, 20)  # a restore sets the mark back, too
        await lose_the_end(log, 25)
        await one.check()
        assert await begun(log) == [("installed", 0), ("reader", 20)] and one.changes == changes + 1
        await one.check()
        assert len(await begun(log)) == 2


async def test_a_process_that_has_read_more_and_hears_of_the_new_history_begins_none(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one, other = keeper(connection, log), keeper(connection, log)
        await log.append(30)
        await one.check()
        one.saw(30, one.changes)
        await lose_the_end(log, 20)
        await other.restored("the same loss", 20)
        await one.check()
        await one.check()
        assert await begun(log) == [("installed", 0), ("restored", 20)] and one.changes == 1
        one.saw(30, 0)  # by a process that does not know the new history yet
        await one.check()
        assert len(await begun(log)) == 2


async def set_mark(log: Log, position: int) -> None:
    async with log.pool.connection() as database:
        await database.execute("UPDATE history_mark SET position = %s", [position])


async def test_a_history_that_is_not_in_the_database_any_more(nats: NatsProcess, log: Log) -> None:
    """A backup from before the begin of the history was restored."""
    async with connected(nats.url) as connection:
        await log.append(20)
        one = keeper(connection, log)
        await one.restored("first", 10)
        await log.append(20)
        second = (await one.fresh()).histories.current
        async with running((copying := relay(connection, log)).run()):
            await reached(copying, log)
        async with log.pool.connection() as database:
            await database.execute("DELETE FROM history WHERE number > 1")
        await lose_the_end(log, 15)
        async with running((after := relay(connection, log)).run()):
            await eventually(lambda: after.position == 15)
        histories = (await log.histories.fresh()).histories
        assert (histories.current.replaces, histories.last_common(second.history_id)) == (second.history_id, 15)
        await one.check()
        assert len(await begun(log)) == 2, "the history that the relay began tells of the one that is gone"


# --- the server ---


async def test_another_database_is_another_history(log: Log, services: EmbeddedServices) -> None:
    await log.append(20)
    await log.histories.check()
    await log.append(5)
    name = f"{conninfo_to_dict(log.url)['dbname']}_copy"
    await log.pool.close()
    async with copied_database(services, name, log) as url, open_log(url) as copy:
        await copy.append(7)
        await asyncio.gather(*(HistoryKeeper(PostgresHistories(copy.pool)).check() for _ in range(4)))
        assert await begun(copy) == [("installed", 0), ("server", 20)]
        await copy.histories.check()
        assert len(await begun(copy)) == 2


async def test_another_timeline_is_another_history(log: Log) -> None:
    await log.append(20)
    await log.histories.check()
    await log.append(5)
    async with log.pool.connection() as database:
        await database.execute("UPDATE history_mark SET timeline = '00000000'")
    await log.histories.check()
    assert await begun(log) == [("installed", 0), ("server", 20)]
    current = (await log.histories.fresh()).histories.current
    assert "timeline" in current.reason


async def test_an_operator_says_so(log: Log) -> None:
    """Without a position the mark from before the server's start counts. A history that began since is not begun again."""
    await log.append(20)
    await log.histories.check()
    await log.append(5)
    async with log.pool.connection() as database:
        await database.execute("UPDATE history_mark SET started_at = started_at - %s", [timedelta(hours=1)])
        await database.execute("UPDATE history SET began_at = began_at - %s", [timedelta(days=1)])
    await log.histories.check()  # the server has been started: the mark moves on
    before, now = await log.histories.restored("a test")
    assert (now.replaces, now.last_common, now.cause, now.reason) == (before.history_id, 20, "restored", "a test")
    again, same = await log.histories.restored("a test")
    assert again == same == now
    _, third = await log.histories.restored("more is known", 3)
    assert await begun(log) == [("installed", 0), ("restored", 20), ("restored", 3)] and third.last_common == 3
    _, fourth = await log.histories.restored("more than there is", 1_000)
    assert fourth.last_common == 25


# --- announcement ---


async def test_other_processes_hear_of_it_at_once(nats: NatsProcess, log: Log) -> None:
    """A consumer reads its own position again before any periodic check, although no event comes from the log."""
    listener = ChannelListener(log.url, CHANNEL)
    await listener.start()
    try:
        async with connected(nats.url) as connection:
            one = keeper(connection, log)
            await log.append(5)
            await one.check()
            at_rest = False

            async def wait(seconds: float) -> None:
                nonlocal at_rest
                at_rest = listener.listening.is_set()
                await listener.wait(seconds)
                at_rest = False

            async with running(one.run(wait)):
                await eventually(lambda: at_rest)
                waiting = asyncio.create_task(one.until_changed(one.changes))
                await log.histories.restored("elsewhere", 3)
                await in_time(waiting, 10)
    finally:
        await listener.close()


async def test_a_consumer_is_told_to_look_again(nats: NatsProcess, log: Log) -> None:
    """The reader is at 30 and the log at 20: the reader would get nothing for long, and then events after a hole."""
    async with connected(nats.url) as connection:
        reading = subscription(connection, log, stall_check_s=0.2)
        async with running((copying := relay(connection, log)).run()):
            await log.append(30)
            await reached(copying, log)
            reader = Reader(reading)
            task = asyncio.create_task(reader.run())
            await reader.reach(30)
            await lose_the_end(log, 20)
            with pytest.raises(HistoryEnded, match="new history"):
                await in_time(task, 20)
            again = Reader(reading)
            async with running(again.run()):
                await log.append(30)
                await again.reach(50)
            await again.check(log)


async def test_where_a_stream_and_the_log_part(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        stream = LogStream(connection, LOG)
        assert await parting(stream, log.feed) is None, "there is none"
        async with running((copying := relay(connection, log)).run()):
            for _ in range(40):
                await log.append(3, together=3)
                await reached(copying, log)
        assert await parting(stream, log.feed) is None, "it is the log"
        history = (await log.histories.fresh()).histories.current.history_id
        for kept in (119, 100, 61, 3, 1):
            await lose_the_end(log, kept)
            assert await parting(stream, log.feed) == Parting(kept, history)
        await lose_the_end(log, 0)
        assert await parting(stream, log.feed) is None, "nothing in common"


async def test_a_copy_of_an_older_history_says_nothing_of_the_one_that_ends(nats: NatsProcess, log: Log) -> None:
    """The reader has 25 events in common with the log, but the history that ends now continued from the 10th event on its own."""
    async with connected(nats.url) as connection:
        async with running((copying := relay(connection, log)).run()):
            await log.append(30)
            await reached(copying, log)
        one = keeper(connection, log)
        await log.histories.restored("nobody has renewed the stream since", 10)
        await lose_the_end(log, 25)
        _, now = await one.restored("once more", 3)
        assert now.last_common == 3
