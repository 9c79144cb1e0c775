"""Threads of sync functions: used again when idle, never waited for, ended after a while; a crew learns of the end of its own."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import pytest_asyncio

from tests.kit.waiting import until
from tests.pace import within
from tidelog import crews
from tidelog.calling import call
from tidelog.crews import CREW, CallThread, Crew


@pytest.fixture(autouse=True)
def no_idle_threads() -> Iterator[None]:
    """Threads of other tests end by themselves."""
    CallThread.forget()
    yield
    CallThread.forget()


@pytest_asyncio.fixture
async def crew() -> Crew:
    crew = Crew()
    CREW.set(crew)
    return crew


async def ident() -> int:
    found: int = await call(threading.get_ident, (), {})
    return found


async def rests(threads: int = 1) -> None:
    await until(lambda: len(CallThread._idle) == threads, "idle threads")


async def test_a_thread_whose_function_has_ended_takes_the_next_one_of_any_call() -> None:
    found = set()
    for _ in range(3):
        CREW.set(Crew())
        found.add(await ident())
        await rests()
    assert len(found) == 1


async def test_a_function_that_hangs_holds_up_no_other_and_belongs_to_its_call() -> None:
    release, mine, other = threading.Event(), Crew(), Crew()
    CREW.set(mine)
    hangs = asyncio.ensure_future(call(release.wait, (), {}))
    await until(mine.what_runs, "a function that runs")
    CREW.set(other)
    async with within(15):
        await ident()
        await until(lambda: other.ended, "the end of the other call")
        assert not mine.ended and mine.what_runs()
        ends = asyncio.ensure_future(mine.end_within(60))
        await asyncio.sleep(0)
        release.set()
        assert await ends and await hangs


async def test_a_thread_without_a_function_ends(monkeypatch: pytest.MonkeyPatch, crew: Crew) -> None:
    monkeypatch.setattr(crews, "IDLE_S", 0.05)
    number = await ident()
    await until(lambda: number not in {thread.ident for thread in threading.enumerate()}, "the end of the thread")
    assert not CallThread._idle and crew.ended
    await ident()  # a new thread


async def test_a_thread_that_would_be_one_too_many_ends_with_its_function(monkeypatch: pytest.MonkeyPatch, crew: Crew) -> None:
    monkeypatch.setattr(crews, "MAX_IDLE", 0)
    numbers = {await ident() for _ in range(3)}
    await until(lambda: not numbers & {thread.ident for thread in threading.enumerate()}, "the end of the threads")
    assert not CallThread._idle


async def test_functions_that_begin_together_run_side_by_side(crew: Crew) -> None:
    all_there = threading.Barrier(crews.MAX_THREADS)
    async with within(15):  # as many threads as a call may have, and functions that wait for these
        await asyncio.gather(*(call(all_there.wait, (), {}) for _ in range(2 * crews.MAX_THREADS)))
        await until(lambda: crew.ended, "the end of all functions")


async def test_what_begins_while_a_thread_is_coming_wakes_no_other_until_that_one_takes_the_first(
    monkeypatch: pytest.MonkeyPatch, crew: Crew
) -> None:
    woken: list[CallThread] = []
    all_there = threading.Barrier(5)

    def wait() -> None:
        all_there.wait()

    with monkeypatch.context() as patched:
        patched.setattr(CallThread, "wake", lambda thread: woken.append(thread))
        for _ in range(5):
            crew.start(wait, "waits for the others")
    assert len(woken) == 1 and not crew.ended
    woken[0].wake()  # each that takes a function, which blocks, wakes the next
    await until(lambda: crew.ended, "the end of all functions")


async def test_a_function_that_gets_no_thread_fails_and_the_next_one_does_not(monkeypatch: pytest.MonkeyPatch, crew: Crew) -> None:
    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError, match="new thread"):
            await ident()
    assert crew.ended
    async with within(15):
        await ident()
