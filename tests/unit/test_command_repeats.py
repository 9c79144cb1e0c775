"""The command loop over a log in memory: repeated commands, and the condition of a caller."""

import asyncio

import pytest

from application.catalog import CATALOG
from application.engine.commands.loop import CommandLoop
from domain import runs
from domain.errors import (
    AlreadyExists,
    NotFound,
    RepeatedDifferently,
    VersionConflict,
)
from tests.kit.commands import CountingStore, create, elsewhere, put, start
from tests.kit.memory import MemoryLog
from tests.kit.waiting import new_id, request_of


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def store(log: MemoryLog) -> CountingStore:
    return CountingStore(log)


@pytest.fixture
def loop(store: CountingStore) -> CommandLoop:
    return CommandLoop(store, CATALOG)


# --- repeats --------------------------------------------------------------------------------------------------------------


async def test_a_repeated_command_gets_its_first_answer(loop: CommandLoop, log: MemoryLog) -> None:
    command, request = create(), request_of()
    first = await loop.execute(request, command)
    await loop.execute(request_of(), create())
    for process in (loop, elsewhere(log)):
        again = await process.execute(request, command)
        assert again.duplicate == (process is not loop)  # a decision on the present state finds nothing to do
        assert (again.position, again.versions) == (first.position, first.versions)


async def test_a_repeat_whose_stream_went_on_gets_the_version_of_then(loop: CommandLoop, log: MemoryLog) -> None:
    stream, request = new_id(), request_of()
    first = await loop.execute(request, put(stream, 1))
    await loop.execute(request_of(), put(stream, 2))
    again = await loop.execute(request, put(stream, 1))
    assert (again.duplicate, again.position, again.versions, again.events) == (True, 1, {stream: 1}, ())
    assert again.recorded_at == first.recorded_at
    assert [(event.stream_id, event.version) for event in again.recorded] == [(stream, 1)]
    assert log.head == 2


async def test_a_command_that_is_refused_now_gets_the_answer_of_when_it_was_not(loop: CommandLoop, log: MemoryLog) -> None:
    run_id, request = new_id(), request_of()
    command = start(run_id)
    first = await loop.execute(request, command)
    for process in (loop, elsewhere(log)):
        again = await process.execute(request, command)
        assert (again.duplicate, again.versions, again.position) == (True, {run_id: 2}, first.position)
    with pytest.raises(AlreadyExists):
        await loop.execute(request_of(), command)


async def test_a_repeat_that_says_something_else_is_refused(loop: CommandLoop, log: MemoryLog) -> None:
    command, request = create(name="first"), request_of(repeatable=True)
    await loop.execute(request, command)
    for process in (loop, elsewhere(log)):
        with pytest.raises((RepeatedDifferently, AlreadyExists)):
            await process.execute(request, create(command.project_id, "second"))
        assert (await process.execute(request, command)).duplicate


async def test_who_repeats_names_what_is_different(loop: CommandLoop) -> None:
    stream, request = new_id(), request_of(repeatable=True)
    await loop.execute(request, put(stream, 1))
    with pytest.raises(RepeatedDifferently, match=r"another value$"):
        await loop.execute(request, put(stream, 2))
    with pytest.raises(RepeatedDifferently, match=r"another name and another value$"):
        await loop.execute(request, put(stream, 2, name="m"))
    with pytest.raises(RepeatedDifferently, match=r"another value$"):
        await loop.execute(request, put(stream, True))
    assert (await loop.execute(request, put(stream, 1))).duplicate


async def test_only_what_is_said_again_by_the_caller_is_compared(loop: CommandLoop) -> None:
    """Sagas and timers of another release may repeat a command with other content.

    They get the first answer without a comparison.
    """
    stream, request = new_id(), request_of()
    await loop.execute(request, put(stream, 1))
    assert (await loop.execute(request, put(stream, 2))).duplicate


async def test_nothing_to_do_under_the_id_of_a_command_that_was_recorded_is_a_repeat(loop: CommandLoop) -> None:
    command = create()
    request = request_of(repeatable=True)
    first = await loop.execute(request, command)
    again = await loop.execute(request, command)
    assert (again.duplicate, again.recorded_at, len(again.recorded)) == (True, first.recorded_at, 1)


async def test_a_repeat_of_several_commands_tells_the_version_of_each(loop: CommandLoop, log: MemoryLog) -> None:
    one, other, request = create(), start(new_id()), request_of()
    await loop.execute(request_of(), one)
    first = await loop.execute(request, one, other)  # nothing was to be done for the project
    assert first.versions == {one.project_id: 1, other.run_id: 2}
    again = await elsewhere(log).execute(request, one, other)
    assert (again.duplicate, again.versions) == (True, first.versions)


async def test_repeats_at_the_same_moment_are_one(loop: CommandLoop, log: MemoryLog) -> None:
    stream, request = new_id(), request_of()
    pair = (loop, elsewhere(log))
    outcomes = await asyncio.gather(*(pair[n % 2].execute(request, put(stream, 1)) for n in range(10)))
    assert log.head == 1
    assert sorted(outcome.duplicate for outcome in outcomes) == [False] + [True] * 9
    assert {outcome.position for outcome in outcomes} == {1}


# --- the caller's own condition -------------------------------------------------------------------------------------------


async def test_the_callers_own_condition(loop: CommandLoop, log: MemoryLog) -> None:
    stream = new_id()
    await loop.execute(request_of(), put(stream, 1), expected_version=0)
    await loop.execute(request_of(), put(stream, 2), expected_version=1)
    for expected in (0, 1, 3):
        with pytest.raises(VersionConflict) as caught:
            await loop.execute(request_of(), put(stream, 3), expected_version=expected)
        assert (caught.value.stream_id, caught.value.expected, caught.value.current) == (stream, expected, 2)
    assert log.head == 2


async def test_a_condition_on_what_another_process_wrote_is_looked_at_again(loop: CommandLoop, log: MemoryLog) -> None:
    stream = new_id()
    await loop.execute(request_of(), put(stream, 1))
    await elsewhere(log).execute(request_of(), put(stream, 2))
    assert (await loop.execute(request_of(), put(stream, 3), expected_version=2)).versions == {stream: 3}


async def test_a_condition_that_the_cache_believes_and_the_log_does_not_is_refused(loop: CommandLoop, log: MemoryLog) -> None:
    stream = new_id()
    await loop.execute(request_of(), put(stream, 1))
    await elsewhere(log).execute(request_of(), put(stream, 2))
    with pytest.raises(VersionConflict) as caught:
        await loop.execute(request_of(), put(stream, 3), expected_version=1)
    assert caught.value.current == 2


async def test_of_a_thing_that_is_not_there_it_is_said_that_it_is_not(loop: CommandLoop) -> None:
    with pytest.raises(NotFound):
        await loop.execute(request_of(), runs.CancelRun(run_id=new_id()), expected_version=3)
    with pytest.raises(VersionConflict) as caught:
        await loop.execute(request_of(), put(new_id()), expected_version=3)
    assert caught.value.current == 0


async def test_a_repeat_need_not_fulfil_its_condition_again(loop: CommandLoop) -> None:
    stream, request = new_id(), request_of()
    await loop.execute(request, put(stream, 1), expected_version=0)
    again = await loop.execute(request, put(stream, 1), expected_version=0)
    assert again.duplicate and again.versions == {stream: 1}


async def test_the_condition_is_on_the_first_commands_stream_only(loop: CommandLoop) -> None:
    one, other = new_id(), new_id()
    await loop.execute(request_of(), put(other))
    outcome = await loop.execute(request_of(), put(one), put(other), expected_version=0)
    assert outcome.versions == {one: 1, other: 2}
