"""The contract of the port `Checkpoints`, in memory and on PostgreSQL."""

import asyncio

import pytest
from uuid_utils.compat import uuid7

from application.engine.ports.checkpoints import Checkpoint, Checkpoints, LostOwnership
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from domain.kernel import RecordedEvent
from tests.contract.conftest import LogSide


@pytest.fixture
def checkpoints(log: LogSide) -> Checkpoints:
    return log.checkpoints


async def an_event(log: LogSide) -> RecordedEvent:
    tenant, stream = uuid7(), uuid7()
    append = StreamAppend(stream, stream, 0, (NewEvent("thing.happened", 1, b"{}"),))
    result = await log.store.append(one_command(tenant, uuid7(), (append,), "{}"))
    [event] = await log.store.read_append(tenant, result)
    return event


async def test_a_consumer_begins_before_the_first_event(checkpoints: Checkpoints) -> None:
    assert await checkpoints.take(["a", "b"]) == {"a": Checkpoint(0, 1), "b": Checkpoint(0, 1)}


async def test_each_owner_has_an_epoch_of_its_own_and_goes_on_from_the_position(checkpoints: Checkpoints) -> None:
    await checkpoints.advance(await checkpoints.take(["a", "b"]), 7)
    assert await checkpoints.take(["a", "c"]) == {"a": Checkpoint(7, 2), "c": Checkpoint(0, 1)}
    assert await checkpoints.take(["a"]) == {"a": Checkpoint(7, 3)}
    assert await checkpoints.take(["b"]) == {"b": Checkpoint(7, 2)}


async def test_all_move_to_one_position(checkpoints: Checkpoints) -> None:
    known = await checkpoints.take(["a", "b"])
    known |= await checkpoints.advance({"a": known["a"]}, 3)
    assert known == {"a": Checkpoint(3, 1), "b": Checkpoint(0, 1)}
    assert await checkpoints.advance(known, 9) == {"a": Checkpoint(9, 1), "b": Checkpoint(9, 1)}
    assert await checkpoints.take(["a", "b"]) == {"a": Checkpoint(9, 2), "b": Checkpoint(9, 2)}


async def test_an_earlier_owner_is_refused_before_and_after_the_later_one_moved(checkpoints: Checkpoints) -> None:
    before = await checkpoints.take(["a"])
    after = await checkpoints.take(["a"])
    with pytest.raises(LostOwnership):
        await checkpoints.advance(before, 1)
    after = await checkpoints.advance(after, 2)
    for position in (1, 2, 3):
        with pytest.raises(LostOwnership):
            await checkpoints.advance(before, position)
    assert await checkpoints.take(["a"]) == {"a": Checkpoint(2, 3)}


async def test_who_lost_one_of_several_is_told_and_moves_not_that_one(checkpoints: Checkpoints) -> None:
    known = await checkpoints.take(["a", "b"])
    await checkpoints.take(["b"])
    with pytest.raises(LostOwnership):
        await checkpoints.advance(known, 5)
    assert (await checkpoints.take(["b"]))["b"].position == 0


async def test_a_move_whose_answer_was_lost_can_be_tried_again(checkpoints: Checkpoints) -> None:
    known = await checkpoints.take(["a"])
    moved = await checkpoints.advance(known, 4)
    assert await checkpoints.advance(known, 4) == moved
    with pytest.raises(LostOwnership):
        await checkpoints.advance(known, 5)
    assert await checkpoints.advance(moved, 5) == {"a": Checkpoint(5, 1)}


async def test_a_consumer_that_nobody_took_has_no_position_to_move(checkpoints: Checkpoints) -> None:
    with pytest.raises(LostOwnership):
        await checkpoints.advance({"a": Checkpoint(0, 1)}, 1)


async def test_of_many_that_take_at_once_the_last_one_owns(checkpoints: Checkpoints) -> None:
    taken = await asyncio.gather(*(checkpoints.take(["a"]) for _ in range(10)))
    assert sorted(each["a"].epoch for each in taken) == list(range(1, 11))
    moves = await asyncio.gather(*(checkpoints.advance(each, 1) for each in taken), return_exceptions=True)
    assert [type(move) for each, move in zip(taken, moves, strict=True) if each["a"].epoch < 10] == [LostOwnership] * 9
    assert {"a": Checkpoint(1, 10)} in moves


async def test_an_event_is_put_aside_once_for_each_consumer(log: LogSide, checkpoints: Checkpoints) -> None:
    event, other = await an_event(log), await an_event(log)
    for name, one, error in (("a", event, "first"), ("a", event, "again"), ("b", event, "b's"), ("a", other, "other")):
        await checkpoints.park(name, one, error)
    assert await log.parked() == [("a", 1, "first"), ("a", 2, "other"), ("b", 1, "b's")]


async def test_any_error_can_be_put_down(log: LogSide, checkpoints: Checkpoints) -> None:
    """Error texts have any length, and characters that a database refuses."""
    event = await an_event(log)
    await checkpoints.park("a", event, "a\x00b" + "x" * 20_000)
    [(_, _, error)] = await log.parked()
    assert error.startswith("abxxx") and 9_000 < len(error) <= 10_000
