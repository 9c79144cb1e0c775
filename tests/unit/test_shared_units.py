"""Membership over leases in memory and a clock that the test moves: the share of each process, and the end of a silent process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from application.engine import leases
from application.engine.background import TaskEnded, end
from application.engine.leases import Group, Membership, UnitWorker
from application.engine.ports.leases import Beat, Share
from tests.kit.memory import LeaseBoard, ManualClock, MemoryLeases
from tests.kit.sharing import UNITS, SharingProcess
from tests.kit.waiting import turns, until
from tests.pace import within


@pytest.fixture(autouse=True)
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats come without a pause; the test moves the clock of the leases."""
    monkeypatch.setattr(leases, "BEAT_S", 0.001)
    monkeypatch.setattr(leases, "AGAIN_AFTER_S", 0.001)


class Process(SharingProcess):
    """A process with leases in memory."""

    def __init__(self, board: LeaseBoard, units: Sequence[str] = UNITS) -> None:
        self.leases = MemoryLeases(board, lease_s=leases.LEASE_S)
        super().__init__(self.leases, units)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def board(clock: ManualClock) -> LeaseBoard:
    return LeaseBoard(clock)


@asynccontextmanager
async def processes(board: LeaseBoard, *units: Sequence[str]) -> AsyncIterator[list[Process]]:
    started = [Process(board, of) for of in units]
    try:
        yield started
    finally:
        await asyncio.gather(*(process.stop() for process in started))


def done_once(everybody: Sequence[Process], *units: str) -> Callable[[], bool]:
    wanted = sorted(units or (*UNITS, "one"))
    return lambda: sorted(unit for process in everybody for unit in process.doing) == wanted and all(p.things for p in everybody)


async def test_one_alone_does_everything_in_one_run(board: LeaseBoard) -> None:
    async with processes(board, UNITS) as [process]:
        await until(done_once([process]))
        assert sorted(process.runs, key=len) == [frozenset({"one"}), frozenset(UNITS)]
        assert process.membership.joined.is_set()


async def test_a_second_one_gets_half_and_what_need_not_move_stays(board: LeaseBoard) -> None:
    async with processes(board, UNITS) as everybody:
        [first] = everybody
        await until(done_once(everybody))
        kept_running = len(first.runs)
        second = Process(board)
        everybody.append(second)
        await until(lambda: [len(first.things), len(second.things)] == [3, 2] and not first.doing & second.doing)
        await until(done_once(everybody))
        assert "one" in first.doing
        assert len(first.runs) == kept_running + 1, "what stays is begun anew once, not at each beat"
        assert first.things == {"unit:0", "unit:1", "unit:2"}


async def test_a_unit_is_given_back_only_when_it_is_not_done_any_more(board: LeaseBoard) -> None:
    """A unit belongs to its owner until the work has ended. No other process gets the unit before."""
    worker = UnitWorker(Group("things", UNITS, never), asyncio.Event())
    worker.take(Share(5, frozenset(UNITS)))
    running = asyncio.create_task(worker.run())
    await turns(5)
    worker.take(Share(3, frozenset(UNITS)))
    assert worker.given_back() == frozenset(), "all of them are running"
    await turns(10)
    assert worker.given_back() == {"unit:3", "unit:4"}
    await end(running)


async def test_what_nobody_else_knows_is_kept_first() -> None:
    """Another process could go on with a unit that it knows, and with no other."""
    worker = UnitWorker(Group("things", UNITS, never), asyncio.Event())
    offered_by = {"unit:0": 2, "unit:1": 2, "unit:2": 2, "unit:3": 1, "unit:4": 1}
    worker.take(Share(5, frozenset(UNITS), offered_by))
    running = asyncio.create_task(worker.run())
    await turns(5)
    worker.take(Share(3, frozenset(UNITS), offered_by))
    await turns(10)
    assert worker.given_back() == {"unit:1", "unit:2"}
    await end(running)


async def never(units: frozenset[str]) -> None:
    await asyncio.Event().wait()


async def test_what_was_let_go_is_given_back_with_a_beat_at_once(board: LeaseBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    async with processes(board, UNITS) as everybody:
        [first] = everybody
        await until(done_once(everybody))
        other = MemoryLeases(board, lease_s=leases.LEASE_S)
        await other.beat({"things": UNITS}, ())
        monkeypatch.setattr(leases, "BEAT_S", 3_600.0)  # takes effect two beats later at the latest
        await until(lambda: len(first.things) == 3 and len(board.leases) == 4, "two units given back")
        assert (await other.beat({"things": UNITS}, ())).shares["things"].held == {"unit:3", "unit:4"}


async def test_what_a_leaver_gives_back_is_taken_with_the_next_beat(board: LeaseBoard) -> None:
    async with processes(board, UNITS, UNITS, UNITS) as everybody:
        await until(done_once(everybody))
        leaver = everybody.pop()
        await leaver.stop()
        await until(done_once(everybody))  # the clock stood still: no lease had to expire
        assert len(board.members) == 2 and leaver.doing == set()


async def test_units_of_one_that_vanished_are_taken_over_when_its_lease_is_over(board: LeaseBoard, clock: ManualClock) -> None:
    async with processes(board, UNITS, UNITS) as everybody:
        await until(done_once(everybody))
        vanished = everybody.pop(0)
        vanished.membership._leave = contextlib.AsyncExitStack().aclose  # type: ignore[method-assign]  # what SIGKILL leaves undone
        await vanished.stop()
        clock.advance(leases.LEASE_S)
        await turns()
        assert not done_once(everybody)(), "not yet"
        clock.advance(0.001)
        await until(done_once(everybody))


async def test_work_that_was_taken_away_is_begun_anew_while_the_lease_is_held(board: LeaseBoard) -> None:
    async with processes(board, UNITS) as [process]:
        await until(done_once([process]))
        before = len(process.runs)
        process.lost.set()
        await until(lambda: len(process.runs) == before + 1 and process.doing == {*UNITS, "one"})


async def test_members_that_know_other_units_share_what_they_know(board: LeaseBoard) -> None:
    async with processes(board, UNITS, (*UNITS, "unit:new")) as [old, new]:
        await until(lambda: old.things | new.things == {*UNITS, "unit:new"} and not old.doing & new.doing)
        assert "unit:new" in new.doing


async def test_an_outage_ends_nothing(board: LeaseBoard) -> None:
    """No process takes over meanwhile, because no process can beat."""
    async with processes(board, UNITS) as [process]:
        await until(done_once([process]))
        runs = len(process.runs)
        board.away = True
        await turns()
        assert done_once([process])() and len(process.runs) == runs
        board.away = False
        await turns()
        assert done_once([process])() and len(process.runs) == runs


async def test_who_cannot_say_goodbye_leaves_all_the_same(board: LeaseBoard) -> None:
    async with processes(board, UNITS) as [process]:
        await until(done_once([process]))
        board.away = True
    assert process.doing == set() and len(board.members) == 1, "the lease is left to expire"


async def test_a_beat_that_is_not_answered_is_given_up(board: LeaseBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_TIMEOUT_S", 0.01)

    class Silent(MemoryLeases):
        beats = 0

        async def beat(self, units: Mapping[str, Sequence[str]], given_back: Collection[str]) -> Beat:
            self.beats += 1
            if self.beats == 1:
                await asyncio.Event().wait()
            return await super().beat(units, given_back)

    silent = Silent(board, lease_s=leases.LEASE_S)
    membership = Membership(silent, [Group("things", UNITS, never)])
    task = asyncio.create_task(membership.run())
    try:
        await until(membership.joined.is_set, "the second beat")
        assert silent.beats >= 2
    finally:
        await end(task)


async def test_a_group_that_the_answer_does_not_name_is_not_done(board: LeaseBoard) -> None:
    class Forgets(MemoryLeases):
        async def beat(self, units: Mapping[str, Sequence[str]], given_back: Collection[str]) -> Beat:
            return Beat({}, any_session=False)

    worker_runs: list[frozenset[str]] = []

    async def noting(units: frozenset[str]) -> None:
        worker_runs.append(units)

    membership = Membership(Forgets(board, lease_s=1), [Group("things", UNITS, noting)])
    tasks = [asyncio.create_task(membership.run()), asyncio.create_task(membership.workers["things"].run())]
    try:
        await until(membership.joined.is_set)
        await turns()
        assert worker_runs == []
    finally:
        await end(*tasks)


@pytest.mark.parametrize("ends", ["returns", "raises"])
async def test_a_unit_that_ends_by_itself_is_a_defect_that_is_seen(board: LeaseBoard, ends: str) -> None:
    async def short(units: frozenset[str]) -> None:
        if ends == "raises":
            raise ValueError("broken")

    membership = Membership(MemoryLeases(board, lease_s=leases.LEASE_S), [Group("short", ("short",), short)])
    beating = asyncio.create_task(membership.run())
    try:
        with pytest.raises(TaskEnded, match="group short"):
            async with within(15):
                await membership.workers["short"].run()
    finally:
        await end(beating)


@pytest.mark.parametrize("size", range(7))
async def test_a_worker_wants_no_more_than_its_share_and_keeps_what_runs(size: int) -> None:
    worker = UnitWorker(Group("things", UNITS, never), asyncio.Event())
    worker.take(Share(2, frozenset({"unit:3", "unit:4"})))
    running = asyncio.create_task(worker.run())
    await turns(5)
    worker.take(Share(size, frozenset(UNITS)))
    await turns(10)
    kept = {"unit:3", "unit:4", "unit:0", "unit:1", "unit:2"}
    wanted = set(sorted(kept, key=lambda unit: (unit not in ("unit:3", "unit:4"), unit))[:size])
    assert worker.given_back() == set(UNITS) - wanted
    await end(running)


class Beside(SharingProcess):
    """A process with the unit `relay`: in its best place, or as a stand-in."""

    def __init__(self, board: LeaseBoard, *, stands_in: bool, member_id: UUID | None = None) -> None:
        self.leases = MemoryLeases(board, lease_s=leases.LEASE_S, member_id=member_id)
        name, stands_in_for = ("relay-standby", "relay") if stands_in else ("relay", None)
        super().__init__(self.leases, instead=Group(name, ("relay",), forever, stands_in_for))


async def forever(_: frozenset[str]) -> None:
    await asyncio.Event().wait()


def only(process: Beside, *others: Beside) -> Callable[[], bool]:
    return lambda: process.doing == {"relay"} and not any(other.doing for other in others)


async def test_a_stand_in_works_until_the_better_place_is_there_and_again_after_its_end(
    board: LeaseBoard, clock: ManualClock
) -> None:
    stand_in = Beside(board, stands_in=True)
    async with ended(stand_in):
        await until(only(stand_in))
        best = Beside(board, stands_in=False)
        async with ended(best):
            await until(only(best, stand_in))
            best.membership._leave = contextlib.AsyncExitStack().aclose  # type: ignore[method-assign]  # what SIGKILL leaves undone
            await best.stop()
            await turns()
            assert not stand_in.doing, "before the lease is over nobody knows"
            clock.advance(leases.LEASE_S + 0.1)
            await until(only(stand_in))


async def test_a_stand_in_that_comes_second_takes_nothing_at_all(board: LeaseBoard) -> None:
    best = Beside(board, stands_in=False)
    async with ended(best):
        await until(only(best))
        async with ended(stand_in := Beside(board, stands_in=True)):
            await until(stand_in.membership.joined.is_set)
            await turns()
            assert stand_in.runs == []
            assert only(best, stand_in)()


async def test_two_in_the_best_place_share_and_a_stand_in_waits_for_both(board: LeaseBoard) -> None:
    one, two, stand_in = (Beside(board, stands_in=number == 2) for number in range(3))
    async with ended(one), ended(two), ended(stand_in):
        await until(lambda: sum(bool(process.doing) for process in (one, two)) == 1)
        holder, other = (one, two) if one.doing else (two, one)
        await holder.stop()
        await until(only(other, stand_in))
        assert stand_in.runs == []


async def test_a_stand_in_that_is_started_again_gives_back_what_it_held(board: LeaseBoard, clock: ManualClock) -> None:
    """The lease of its last start is still there, and the better place has come meanwhile."""
    me = uuid4()
    board.members[me] = (clock.now() + timedelta(seconds=leases.LEASE_S), leases.LEASE_S, {"relay-standby": frozenset({"relay"})})
    board.leases["relay"] = ("relay-standby", me)
    best = Beside(board, stands_in=False)
    async with ended(best):
        await until(best.membership.joined.is_set)
        async with ended(stand_in := Beside(board, stands_in=True, member_id=me)):
            await until(only(best, stand_in))
            assert stand_in.runs == []


async def test_a_stand_in_looks_for_one_beat_before_it_takes_anything(board: LeaseBoard) -> None:
    """Else each start of a whole server would move the relay from the process that is there first."""
    offered: list[Mapping[str, Sequence[str]]] = []

    class Noted(MemoryLeases):
        async def beat(self, units: Mapping[str, Sequence[str]], given_back: Collection[str]) -> Beat:
            offered.append(units)
            return await super().beat(units, given_back)

    group = Group("relay-standby", ("relay",), forever, "relay")
    async with ended(stand_in := SharingProcess(Noted(board, lease_s=leases.LEASE_S), instead=group)):
        await until(lambda: stand_in.doing)
    assert offered[:2] == [{}, {"relay-standby": ("relay",)}]


@asynccontextmanager
async def ended(process: SharingProcess) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await process.stop()
