"""Histories of the log: the rules of cursors, and the observations of one process, over a store in memory whose server can
change."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from application.engine.background import end
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading import history_keeper
from application.engine.reading.histories import Cursor, HistoryEnded, Parting
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import HistoryReplaced, PositionBeyondHead, Unavailable
from tests.kit.memory import ManualClock, MemoryHistories, MemoryLog
from tests.kit.waiting import TENANT, new_id, turns, until
from tests.pace import within

# --- the keeper -----------------------------------------------------------------------------------------------------------


class Kept:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(self.clock)
        self.store = MemoryHistories(self.log)
        self.keeper = HistoryKeeper(self.store)

    def another(self) -> HistoryKeeper:
        """The keeper of another process."""
        return HistoryKeeper(self.store)

    def append(self, count: int = 1) -> None:
        for _ in range(count):
            stream = new_id()
            self.log.add(one_command(TENANT, new_id(), (StreamAppend(stream, stream, 0, (NewEvent("a", 1, b"{}"),)),), "{}"))

    @property
    def begun(self) -> list[tuple[str, int]]:
        return [(each.cause, each.last_common) for each in self.store.all[1:]]

    def restart(self, **changed: str) -> None:
        self.clock.advance(60)
        self.store.restart(**changed)


@pytest.fixture
def kept() -> Kept:
    return Kept()


async def test_all_who_ask_at_once_share_a_question(kept: Kept) -> None:
    kept.append(3)
    states = await asyncio.gather(*(kept.keeper.fresh() for _ in range(1_000)))
    assert {state.head for state in states} == {3}
    assert kept.store.reads <= 2


async def test_a_process_that_has_heard_of_nothing_asks_for_the_first_position_too(kept: Kept) -> None:
    with pytest.raises(PositionBeyondHead, match="position 1 is beyond the newest event, which is at 0"):
        await kept.keeper.must_have(1)
    assert kept.store.reads == 1
    await kept.keeper.must_have(0)
    assert kept.store.reads == 1


async def test_nobody_is_served_by_a_question_from_before_they_came(kept: Kept) -> None:
    first = asyncio.create_task(kept.keeper.fresh())
    await turns(1)  # the question is under way
    kept.append()
    assert (await kept.keeper.fresh()).head == 1
    await first


async def test_an_outage_is_told_to_all_who_asked(kept: Kept) -> None:
    kept.log.away = True
    answers = await asyncio.gather(*(kept.keeper.fresh() for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 5
    kept.log.away = False
    assert (await kept.keeper.fresh()).head == 0


async def test_a_position_that_was_read_needs_no_question(kept: Kept) -> None:
    kept.append(5)
    kept.keeper.saw(5, kept.keeper.changes)
    assert await kept.keeper.at_most_head(5) == 5 and kept.store.reads == 0
    kept.append()
    assert await kept.keeper.at_most_head(6) == 6 and kept.store.reads == 1
    assert await kept.keeper.at_most_head(99) == 6
    await kept.keeper.must_have(6)
    with pytest.raises(PositionBeyondHead) as caught:
        await kept.keeper.must_have(7)
    assert caught.value.head == 6


async def test_what_was_seen_in_another_history_does_not_count(kept: Kept) -> None:
    kept.append(5)
    await kept.keeper.fresh()
    before = kept.keeper.changes
    await kept.keeper.restored("a test", 2)
    kept.keeper.saw(5, before)
    reads = kept.store.reads
    await kept.keeper.at_most_head(5)
    assert kept.store.reads == reads + 1


async def test_a_new_history_is_told_to_all_who_want_to_know(kept: Kept) -> None:
    told: list[int] = []
    await kept.keeper.fresh()
    changes = kept.keeper.changes
    waiting = asyncio.create_task(kept.keeper.until_changed(changes))
    with kept.keeper.on_change(lambda: told.append(kept.keeper.changes)):
        await turns()
        assert not waiting.done()
        kept.keeper.check_unchanged(changes)
        await kept.keeper.restored("a test", 0)
        await kept.keeper.fresh()
        assert told == [changes + 1]
    await kept.keeper.restored("again", 0)
    assert told == [changes + 1], "who went is told no more"
    async with within(15):
        await waiting
        await kept.keeper.until_changed(changes)
    with pytest.raises(HistoryEnded):
        kept.keeper.check_unchanged(changes)


async def test_the_first_answer_is_no_change(kept: Kept) -> None:
    assert kept.keeper.known is None and not kept.keeper.is_current("anything")
    current = (await kept.keeper.fresh()).histories.current
    assert kept.keeper.changes == 0 and kept.keeper.is_current(current.history_id) and kept.keeper.known is not None


# --- readers with a cursor ------------------------------------------------------------------------------------------------


async def test_readers_are_let_in_at_what_the_log_has(kept: Kept) -> None:
    kept.append(5)
    current = (await kept.keeper.fresh()).histories.current
    for cursor in (None, Cursor(0), Cursor(5), Cursor.parse(current.cursor(5))):
        assert await kept.keeper.admit(cursor) == current
    assert kept.begun == []


async def test_a_cursor_that_was_given_out_proves_a_loss(kept: Kept) -> None:
    kept.append(5)
    cursor = Cursor.parse((await kept.keeper.fresh()).histories.current.cursor(5))
    kept.log.cut(3)
    with pytest.raises(HistoryReplaced) as caught:
        await kept.keeper.admit(cursor)
    assert kept.begun == [("reader", 0)] and caught.value.last_common_position == 0
    with pytest.raises(HistoryReplaced):
        await kept.another().admit(cursor)
    assert len(kept.begun) == 1


@pytest.mark.parametrize("invented", ["9", "9-{id}", "9-{id}-00000000", "9-ffffffffffff-00000000"])
async def test_an_invented_one_proves_nothing(kept: Kept, invented: str) -> None:
    kept.append(5)
    current = (await kept.keeper.fresh()).histories.current
    with pytest.raises((PositionBeyondHead, HistoryReplaced)):
        await kept.keeper.admit(Cursor.parse(invented.format(id=current.history_id)))
    assert kept.begun == []


# --- finding out ----------------------------------------------------------------------------------------------------------


async def test_nothing_has_happened_and_nothing_begins(kept: Kept) -> None:
    for _ in range(3):
        kept.append(2)
        await kept.keeper.check()
    assert kept.begun == [] and kept.store.mark.position == 6
    kept.restart()  # the same server, started again
    await kept.keeper.check()
    assert kept.begun == [] and kept.store.mark.earlier_position == 6


@pytest.mark.parametrize(("changed", "cause"), [({"log_id": "copy"}, "server"), ({"timeline": "00000002"}, "server")])
async def test_another_server_or_timeline_is_another_history(kept: Kept, changed: dict[str, str], cause: str) -> None:
    kept.append(5)
    await kept.keeper.check()
    kept.append(2)
    kept.log.cut(6)
    kept.restart(**changed)
    await kept.another().check()
    assert kept.begun == [(cause, 5)], "what the mark knew is common"
    await kept.keeper.check()
    assert len(kept.begun) == 1


async def test_a_process_that_has_read_more_finds_out(kept: Kept) -> None:
    kept.append(5)
    await kept.keeper.check()
    kept.append(4)
    kept.keeper.saw(9, kept.keeper.changes)
    kept.log.cut(7)
    await kept.keeper.check()
    assert kept.begun == [("reader", 5)], "on the server that it knows, the mark is certain"
    assert kept.keeper.changes == 1
    await kept.keeper.check()
    assert len(kept.begun) == 1


async def test_a_process_that_never_looked_at_the_server_takes_only_what_is_recorded(kept: Kept) -> None:
    kept.append(5)
    kept.keeper.saw(5, 0)
    kept.log.cut(4)
    await kept.keeper.check()
    assert kept.begun == [("reader", 0)]


async def test_a_head_that_is_what_was_read_is_no_loss(kept: Kept) -> None:
    kept.append(5)
    kept.keeper.saw(5, 0)
    await kept.keeper.check()
    assert kept.begun == []


async def test_a_history_that_the_database_does_not_know_any_more(kept: Kept) -> None:
    """The backup is older than the history."""
    kept.append(5)
    before = list(kept.store.all)
    await kept.keeper.fresh()
    await kept.keeper.restored("first", 5)
    lost = kept.store.all[-1].history_id
    kept.store.all = before
    await kept.keeper.check()
    assert [(each.replaces, each.cause) for each in kept.store.all[1:]] == [(lost, "reader")]
    await kept.keeper.check()
    assert len(kept.store.all) == 2


async def test_one_whom_we_trust_says_that_an_event_is_lost(kept: Kept) -> None:
    kept.append(5)
    current = (await kept.keeper.fresh()).histories.current.history_id
    await kept.keeper.lost(5, current, "relay", "the stream has it")
    await kept.keeper.lost(5, current, "relay", "said again")
    assert kept.begun == [("relay", 0)], "it is recorded already"
    await kept.keeper.lost(2, None, "fanout", "of before there were ids")
    assert len(kept.begun) == 1
    await kept.keeper.lost(1, "dddddddddddd", "fanout", "of a history that nobody knows")
    assert kept.store.all[-1].replaces == "dddddddddddd"


@pytest.mark.parametrize(
    ("parting", "common"),
    [(Parting(4, "first"), 4), (Parting(1, "first"), 2), (Parting(4, None), 4), (Parting(4, "dddddddddddd"), 2), (None, 2)],
)
async def test_witnesses_may_know_more_than_the_database(kept: Kept, parting: Parting | None, common: int) -> None:
    kept.append(5)
    first = (await kept.keeper.fresh()).histories.current.history_id
    if parting is not None and parting.history == "first":
        parting = Parting(parting.position, first)
    kept.keeper.witnesses.append(witness(parting))
    await kept.keeper.restored("a test", 2)
    assert kept.begun == [("restored", common)]


def witness(answer: Any) -> Callable[[], Awaitable[Any]]:
    async def tell() -> Any:
        if isinstance(answer, Exception):
            raise answer
        if answer == "silent":
            await asyncio.Event().wait()
        return answer

    return tell


async def test_a_witness_that_is_away_or_silent_holds_nobody_up(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_keeper, "WITNESS_TIMEOUT_S", 0.005)
    kept.append(5)
    first = (await kept.keeper.fresh()).histories.current.history_id
    kept.keeper.witnesses += [witness(Unavailable("away")), witness("silent"), witness(Parting(3, first))]
    await kept.keeper.restored("a test", 1)
    assert kept.begun == [("restored", 3)]


async def test_of_several_witnesses_the_one_that_knows_most_counts(kept: Kept) -> None:
    kept.append(5)
    first = (await kept.keeper.fresh()).histories.current.history_id
    kept.keeper.witnesses += [witness(Parting(4, first)), witness(Parting(3, first)), witness(None)]
    await kept.keeper.restored("a test", 1)
    assert kept.begun == [("restored", 4)]
    kept.keeper.witnesses[:] = [witness(Parting(5, None))]
    await kept.keeper.restored("a test", 2)
    assert kept.begun[1] == ("restored", 2), "without an id it is of the first history, and another one has ended"


async def test_of_many_that_find_out_at_once_one_begins_a_history(kept: Kept) -> None:
    kept.append(5)
    keepers = [kept.another() for _ in range(8)]
    for each in keepers:
        await each.check()
        each.saw(5, 0)
    kept.log.cut(3)
    await asyncio.gather(*(each.check() for each in keepers))
    assert kept.begun == [("reader", 3)]  # the mark is 5, and the log ends at 3
    assert [each.changes for each in keepers] == [1] * 8


async def test_a_history_records_what_ended_the_one_before(kept: Kept) -> None:
    """Clients see this text, and operators read it years later."""
    kept.append(5)
    cursor = Cursor.parse((await kept.keeper.fresh()).histories.current.cursor(5))
    kept.log.cut(3)
    with pytest.raises(HistoryReplaced) as replaced:
        await kept.keeper.admit(cursor)
    reasons = ["a reader had position 5, the log is at 3"]
    assert replaced.value.reason == reasons[0]

    await kept.keeper.check()
    kept.append(3)
    kept.keeper.saw(6, kept.keeper.changes)
    kept.log.cut(4)
    await kept.keeper.check()
    reasons.append("this server had read up to 6, the log is at 4")

    kept.restart(timeline="00000002")
    await kept.keeper.check()
    reasons.append("PostgreSQL was on timeline 00000001 and is on 00000002")
    kept.restart(log_id="copy")
    await kept.keeper.check()
    reasons.append("the database was memory and is copy")

    lost = (await kept.keeper.fresh()).histories.current.history_id
    await kept.keeper.lost(4, lost, "relay", "the stream has it")
    reasons.append("the stream has it")
    assert [history.reason for history in kept.store.all[1:]] == reasons

    lost = (await kept.keeper.fresh()).histories.current.history_id
    del kept.store.all[-1]
    await kept.keeper.check()
    assert kept.store.all[-1].reason == f"history {lost} is not in the database any more"


async def test_a_position_beyond_the_head_is_named(kept: Kept) -> None:
    kept.append(2)
    with pytest.raises(PositionBeyondHead, match="position 7 is beyond the newest event, which is at 2"):
        await kept.keeper.must_have(7)


async def test_what_a_question_found_need_not_be_asked_again(kept: Kept) -> None:
    kept.append(5)
    await kept.keeper.at_most_head(4)
    reads = kept.store.reads
    assert await kept.keeper.at_most_head(5) == 5 and kept.store.reads == reads
    await kept.keeper.check()
    kept.append(1)
    await kept.keeper.check()
    reads = kept.store.reads
    assert await kept.keeper.at_most_head(6) == 6 and kept.store.reads == reads


# --- what an operator says ------------------------------------------------------------------------------------------------


async def test_an_operator_says_so(kept: Kept) -> None:
    kept.append(5)
    before, now = await kept.keeper.restored("from Monday", 3)
    assert (before.number, now.number, now.last_common, now.cause, now.reason) == (1, 2, 3, "restored", "from Monday")


async def test_without_a_position_what_was_there_before_the_start_counts(kept: Kept) -> None:
    kept.append(5)
    await kept.keeper.check()
    kept.restart()
    kept.append(2)
    _, now = await kept.another().restored("restored", None)
    assert now.last_common == 5


async def test_after_somebody_looked_it_is_what_was_there_before_that_start(kept: Kept) -> None:
    kept.append(5)
    await kept.keeper.check()
    kept.restart()
    kept.append(2)
    await kept.keeper.check()
    _, now = await kept.keeper.restored("restored", None)
    assert now.last_common == 5


async def test_what_somebody_noticed_before_is_not_said_twice(kept: Kept) -> None:
    kept.append(5)
    await kept.keeper.check()
    kept.restart(timeline="00000002")
    kept.clock.advance(1)
    await kept.keeper.check()
    before, now = await kept.keeper.restored("restored", None)
    assert before == now and kept.begun == [("server", 5)]


# --- the loop -------------------------------------------------------------------------------------------------------------


async def test_the_loop_looks_sooner_again_after_an_outage(kept: Kept) -> None:
    waits: list[float] = []
    go_on = asyncio.Semaphore(0)

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await go_on.acquire()

    task = asyncio.create_task(kept.keeper.run(wait))
    try:
        await until(lambda: len(waits) == 1)
        kept.log.away = True
        go_on.release()
        await until(lambda: len(waits) == 2)
        kept.log.away = False
        go_on.release()
        await until(lambda: len(waits) == 3)
        assert waits == [history_keeper.CHECK_S, history_keeper.AGAIN_S, history_keeper.CHECK_S]
    finally:
        await end(task)
