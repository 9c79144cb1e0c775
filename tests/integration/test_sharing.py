"""Several processes share the engine's units fairly. Each unit has one owner, and another process takes over when the owner goes
away."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from adapters.postgres.leases import PostgresLeases, members
from adapters.postgres.pool import Pool, open_pool
from application.engine import leases
from application.engine.background import TaskEnded, end
from application.engine.leases import Group, Membership
from tests.integration.system_kit import eventually
from tests.kit.sharing import UNITS, SharingProcess
from tests.pace import within


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database_url, role="test")
    try:
        yield pool
    finally:
        await pool.close()


class Leaving(PostgresLeases):
    """Leases of a process that may end as after SIGKILL: without giving the leases back."""

    dead = False

    async def leave(self) -> None:
        if not self.dead:
            await super().leave()


class Process(SharingProcess):
    """A process with leases in PostgreSQL."""

    def __init__(self, pool: Pool, units: Sequence[str] = UNITS, lease_s: float = leases.LEASE_S) -> None:
        self.leases = Leaving(pool, lease_s=lease_s)
        super().__init__(self.leases, units)

    async def vanish(self) -> None:
        """Ends the process without giving the leases back. The leases expire."""
        self.leases.dead = True
        await end(*self.tasks)


@asynccontextmanager
async def processes(pool: Pool, count: int, lease_s: float = leases.LEASE_S) -> AsyncIterator[list[Process]]:
    started = [Process(pool, lease_s=lease_s) for _ in range(count)]
    try:
        yield started
    finally:
        await asyncio.gather(*(process.stop() for process in started))


async def all_done_once(everybody: Sequence[Process]) -> None:
    async def once() -> bool:
        done = sorted(unit for process in everybody for unit in process.doing)
        return done == sorted([*UNITS, "one"]) and all(process.things for process in everybody)

    await eventually(once, "each unit done by one process, and every process doing something")


async def test_one_alone_does_everything_and_gives_half_to_another(pool: Pool) -> None:
    async with processes(pool, 1, lease_s=3_600.0) as everybody:  # no lease expires
        [first] = everybody
        await all_done_once(everybody)
        kept_running = len(first.runs)
        second = Process(pool, lease_s=3_600.0)
        everybody.append(second)

        async def shared() -> bool:
            return [len(first.things), len(second.things)] == [3, 2] and not first.doing & second.doing

        await eventually(shared, "a fair share for both")
        await all_done_once(everybody)
        assert "one" in first.doing, "what need not move stays"
        assert len(first.runs) == kept_running + 1, "what stays is begun anew once, not at each beat"
        shown = await members(pool)
        assert [set(member.units) for member in shown] == [first.doing, second.doing] and all(m.alive for m in shown)


async def test_what_a_leaver_gives_back_is_taken_with_the_next_beat(pool: Pool) -> None:
    async with processes(pool, 3, lease_s=3_600.0) as everybody:  # no lease expires
        await all_done_once(everybody)
        leaver = everybody.pop()
        await leaver.stop()
        await all_done_once(everybody)
        assert len(await members(pool)) == 2


async def test_units_of_one_that_vanished_are_taken_over_within_five_seconds(pool: Pool) -> None:
    async with processes(pool, 2) as everybody:
        await all_done_once(everybody)
        await everybody.pop(0).vanish()
        async with within(5):
            await all_done_once(everybody)

        async def one_lives() -> bool:
            return sorted(member.alive for member in await members(pool)) == [False, True]

        await eventually(one_lives, "the life of the other one, whose beats may be late for a moment")


async def test_work_that_was_taken_away_is_begun_anew_while_the_lease_is_held(pool: Pool) -> None:
    async with processes(pool, 1, lease_s=3_600.0) as [process]:  # no lease expires
        await all_done_once([process])
        before = len(process.runs)
        process.lost.set()

        async def again() -> bool:
            return len(process.runs) == before + 1 and process.doing == {*UNITS, "one"}

        await eventually(again, "the work again")


async def test_members_that_know_other_units_share_what_they_know(pool: Pool) -> None:
    """A rolling release: the new version has a unit that the old version does not know."""
    old, new = Process(pool, lease_s=3_600.0), Process(pool, (*UNITS, "unit:new"), lease_s=3_600.0)  # no lease expires
    try:

        async def settled() -> bool:
            return old.things | new.things == {*UNITS, "unit:new"} and not old.doing & new.doing

        await eventually(settled, "all units, the new one at whom knows it")
        assert "unit:new" in new.doing
    finally:
        await asyncio.gather(old.stop(), new.stop())


async def test_a_unit_that_ends_by_itself_is_a_defect_that_is_seen(pool: Pool) -> None:
    async def nothing(units: frozenset[str]) -> None:
        pass

    shared = Membership(PostgresLeases(pool, lease_s=leases.LEASE_S), [Group("short", ("short",), nothing)])
    beating = asyncio.create_task(shared.run())
    try:
        with pytest.raises(TaskEnded, match="group short"):
            async with within(5):
                await shared.workers["short"].run()
    finally:
        await end(beating)
