"""What the port `PermitBook` promises; in memory and on PostgreSQL, with a clock that the test moves."""

import random
from typing import Any
from uuid import UUID, uuid4

import pytest
from uuid_utils.compat import uuid7

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.permits import PostgresPermits
from adapters.postgres.pool import Pool
from application.engine.ports.permits import PermitBook, Settled, ToolLimits, Wanted
from application.engine.ports.queue import WorkItem
from tests.kit.memory import ManualClock, MemoryLog, MemoryOpenWork, MemoryPermits

TENANT = uuid7()
ONE, OTHER, THIRD = UUID(int=1), UUID(int=2), UUID(int=3)
TOOL = "crm.update"


class MemorySide:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.open_work = MemoryOpenWork(MemoryLog(self.clock))
        self.book: PermitBook = MemoryPermits(self.open_work)

    async def attempt(self, holder: UUID | None) -> UUID:
        """An attempt of the tool goes on, with the permit of a holder or without one."""
        item = WorkItem(TENANT, "tool", TOOL, uuid7(), 1, uuid7())
        self.open_work.open(item, self.clock.now())
        self.open_work.claim(item.work_id, uuid4(), 1, holder)
        return item.work_id

    async def ended(self, work_id: UUID) -> None:
        self.open_work.close(work_id)


class PostgresSide:
    def __init__(self, pool: Pool) -> None:
        self.clock = ManualClock()
        self._pool = pool
        self.book: PermitBook = PostgresPermits(PostgresDatabase(pool), self.clock.now)

    async def _sql(self, statement: str, *values: Any) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(statement.encode(), values)

    async def attempt(self, holder: UUID | None) -> UUID:
        work_id = uuid7()
        await self._sql(
            """INSERT INTO open_work
                   (work_id, tenant_id, root_id, kind, pool, dispatch, dispatched_at, session_id, attempt, permit_holder)
               VALUES (%s, %s, %s, 'tool', %s, 1, now(), %s, 1, %s)""",
            work_id, TENANT, uuid7(), TOOL, uuid4(), holder,
        )  # fmt: skip
        return work_id

    async def ended(self, work_id: UUID) -> None:
        await self._sql("DELETE FROM open_work WHERE work_id = %s", work_id)


Side = MemorySide | PostgresSide


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> Side:
    return MemorySide() if request.param == "memory" else PostgresSide(request.getfixturevalue("pool"))


async def settle(side: Side, holder: UUID, limits: ToolLimits, tool: str = TOOL, **wanted: Any) -> Settled:
    found = await side.book.settle(TENANT, tool, holder, limits, Wanted(**wanted))
    assert found is not None
    return found


def parallel(most: int | None, declared: int = 1) -> ToolLimits:
    return ToolLimits(declared, max_parallel=most)


def rate(calls: int, per_s: float = 1.0, declared: int = 1) -> ToolLimits:
    return ToolLimits(declared, calls=calls, per_s=per_s)


# --- permits --------------------------------------------------------------------------------------------------------------


async def test_a_holder_gets_what_is_free_and_waits_for_the_rest(side: Side) -> None:
    first = await settle(side, ONE, parallel(5), want=3)
    assert (first.held, first.contended, first.share) == (3, False, 5)
    second = await settle(side, OTHER, parallel(5), want=4)
    assert (second.held, second.share) == (2, 2)
    assert (await settle(side, ONE, parallel(5), keep=3, want=3)).contended, "the other one waits"
    await settle(side, ONE, parallel(5), keep=1, want=1)
    assert (await settle(side, OTHER, parallel(5), keep=2, want=4)).held == 4, "given at once to the one that waits"


async def test_what_is_kept_bounds_what_is_held(side: Side) -> None:
    await settle(side, ONE, parallel(4), want=4)
    assert (await settle(side, ONE, parallel(4), keep=4)).held == 4, "kept for calls to come"
    assert (await settle(side, ONE, parallel(4), keep=1)).held == 1
    assert (await settle(side, ONE, parallel(4))).held == 0


async def test_permits_for_calls_to_come_are_those_that_nobody_waits_for(side: Side) -> None:
    first = await settle(side, ONE, parallel(5), want=1, like=4)
    assert first.held == 4
    assert (await settle(side, OTHER, parallel(5), want=1, like=9)).held == 1
    await settle(side, THIRD, parallel(5), want=1)
    assert (await settle(side, ONE, parallel(5), keep=4, want=1, like=9)).contended
    found = await settle(side, ONE, parallel(5), keep=1, want=1, like=9)
    assert (found.held, found.contended) == (3, False), "what is left after the other one has got what it waits for"
    assert (await settle(side, THIRD, parallel(5), keep=1, want=1)).held == 1


async def test_each_gets_its_share_before_one_gets_more(side: Side) -> None:
    await settle(side, ONE, parallel(4), want=4)
    await settle(side, OTHER, parallel(4), want=9)
    side.clock.advance(1)
    await settle(side, THIRD, parallel(4), want=9)
    side.clock.advance(1)
    await settle(side, ONE, parallel(4))
    other, third = await settle(side, OTHER, parallel(4), keep=9, want=9), await settle(side, THIRD, parallel(4), keep=9, want=9)
    assert (other.held, third.held) == (2, 2)


async def test_whoever_waits_longest_is_first(side: Side) -> None:
    await settle(side, ONE, parallel(1), want=1)
    await settle(side, THIRD, parallel(1), want=1)
    side.clock.advance(1)
    await settle(side, OTHER, parallel(1), want=1)
    side.clock.advance(1)
    assert (await settle(side, ONE, parallel(1), want=1)).held == 0, "it gave its permit back and waits behind the others"
    assert (await settle(side, THIRD, parallel(1), keep=1, want=1)).held == 1
    await settle(side, THIRD, parallel(1))
    assert (await settle(side, OTHER, parallel(1), keep=1, want=1)).held == 1
    assert (await settle(side, ONE, parallel(1), want=1)).held == 0


async def test_limits_of_tools_and_tenants_do_not_touch(side: Side) -> None:
    await settle(side, ONE, parallel(1), want=1)
    assert (await settle(side, OTHER, parallel(1), tool="another", want=1)).held == 1
    found = await side.book.settle(uuid7(), TOOL, OTHER, parallel(1), Wanted(want=1))
    assert found is not None and found.held == 1


async def test_a_lower_limit_takes_nothing_away_and_gives_nothing_out(side: Side) -> None:
    await settle(side, ONE, parallel(4), want=3)
    lowered = await settle(side, OTHER, parallel(2, declared=2), want=1)
    assert (lowered.held, lowered.contended, lowered.share) == (0, True, -1)
    old = await settle(side, ONE, parallel(4), keep=3, want=3)
    assert (old.limits, old.held, old.share) == (parallel(2, declared=2), 3, -1), "the newer declaration counts"
    await settle(side, ONE, parallel(2, declared=2), keep=2, want=2)
    assert (await settle(side, OTHER, parallel(2, declared=2), want=1)).held == 0
    await settle(side, ONE, parallel(2, declared=2), keep=1, want=1)
    assert (await settle(side, OTHER, parallel(2, declared=2), keep=1, want=1)).held == 1
    assert (await settle(side, ONE, parallel(9, declared=3), keep=1, want=9)).held == 8, "a higher limit holds at once"


async def test_attempts_from_before_the_limit_count(side: Side) -> None:
    running = [await side.attempt(None) for _ in range(2)]
    found = await settle(side, ONE, parallel(3, declared=2), want=3)
    assert (found.held, found.counting) == (1, True)
    await side.ended(running[0])
    assert (await settle(side, ONE, parallel(3, declared=2), keep=3, want=3)).held == 2
    await side.ended(running[1])
    side.clock.advance(6)
    found = await settle(side, ONE, parallel(3, declared=2), keep=3, want=3)
    assert (found.held, found.counting) == (3, False)


async def test_permits_of_a_holder_that_is_gone_come_back_as_its_attempts_end(side: Side) -> None:
    await settle(side, ONE, parallel(3), want=3)
    call = await side.attempt(ONE)
    await settle(side, OTHER, parallel(3), want=3)
    side.clock.advance(9)
    assert await side.book.seen(OTHER)
    await side.book.sweep()
    assert await side.book.seen(ONE), "its lease is not over"
    side.clock.advance(11)
    assert await side.book.seen(OTHER)
    assert await side.book.sweep() == 2
    assert not await side.book.seen(ONE)
    assert await side.book.settle(TENANT, TOOL, ONE, parallel(3), Wanted(keep=3, want=3)) is None
    assert await side.book.sweep() == 2
    assert (await settle(side, OTHER, parallel(3), keep=3, want=3)).held == 2, "one attempt goes on"
    await side.ended(call)
    assert await side.book.sweep() == 1
    assert (await settle(side, OTHER, parallel(3), keep=3, want=3)).held == 3


async def test_a_holder_that_leaves_is_over_at_once(side: Side) -> None:
    await settle(side, ONE, parallel(1), want=1)
    await side.book.leave(ONE)
    for _ in range(2):
        await side.book.sweep()
    assert (await settle(side, OTHER, parallel(1), want=1)).held == 1
    assert not await side.book.seen(ONE)


async def test_a_holder_of_nothing_is_forgotten(side: Side) -> None:
    assert not await side.book.seen(ONE)
    await settle(side, ONE, parallel(1), want=1)
    await settle(side, ONE, parallel(1))
    state = await side.book.state(TENANT, TOOL)
    assert state is not None and (state.held, state.waiting) == (0, 0)
    assert await side.book.state(TENANT, "another") is None


async def test_people_see_what_is_in_use_and_what_waits(side: Side) -> None:
    await settle(side, ONE, ToolLimits(1, 2, 10, 1.0), want=2, ask=4)
    await settle(side, OTHER, ToolLimits(1, 2, 10, 1.0), want=3)
    await side.attempt(ONE)
    state = await side.book.state(TENANT, TOOL)
    assert state is not None
    assert (state.in_use, state.held, state.waiting, state.held_until) == (1, 2, 3, None)
    assert state.waiting_since == side.clock.now()


# --- tokens ---------------------------------------------------------------------------------------------------------------


async def test_a_full_bucket_is_a_burst_and_then_calls_wait_for_the_refill(side: Side) -> None:
    first = await settle(side, ONE, rate(10), ask=25)
    assert (first.granted, first.wait_s) == (10, 0.0)
    later = await settle(side, ONE, rate(10), spent=10, ask=25)
    assert (later.granted, later.wait_s) == (1, pytest.approx(0.1))
    side.clock.advance(0.1)
    another = await settle(side, OTHER, rate(10), ask=1)
    assert (another.granted, another.wait_s) == (1, pytest.approx(0.1)), "behind the one that has waited before"
    side.clock.advance(1.1)
    assert (await settle(side, ONE, rate(10), spent=1, ask=25)).granted == 9, "what the other one has drawn counts"


async def test_drawn_tokens_keep_room_in_the_bucket(side: Side) -> None:
    await settle(side, ONE, rate(10), ask=4)
    side.clock.advance(60)
    assert (await settle(side, OTHER, rate(10), ask=25)).granted == 6
    back = await settle(side, ONE, rate(10), spent=1, back=3)
    assert back.granted == 0
    assert (await settle(side, THIRD, rate(10), ask=25)).granted == 3


async def test_silence_that_the_service_asks_for_holds_all(side: Side) -> None:
    assert (await settle(side, ONE, rate(10), ask=1)).granted == 1
    assert (await settle(side, ONE, rate(10), hold_s=30)).hold_s == pytest.approx(30)
    held = await settle(side, OTHER, rate(10), ask=1)
    assert (held.granted, held.wait_s, held.hold_s) == (0, pytest.approx(30), pytest.approx(30))
    assert (await settle(side, ONE, rate(10), hold_s=3)).hold_s == pytest.approx(30), "a shorter silence does not shorten it"
    side.clock.advance(30)
    assert (await settle(side, OTHER, rate(10), ask=1)).granted == 1


async def test_another_rate_holds_at_once(side: Side) -> None:
    await settle(side, ONE, rate(100), ask=10)
    lowered = await settle(side, ONE, rate(20, declared=2), spent=10, ask=50)
    assert lowered.granted == 20
    assert (await settle(side, ONE, rate(20, declared=2), spent=20, ask=50)).wait_s == pytest.approx(1 / 20)


async def test_a_tool_without_a_rate_has_no_tokens(side: Side) -> None:
    found = await settle(side, ONE, parallel(1), want=1, ask=5, hold_s=30)
    assert (found.granted, found.wait_s, found.hold_s) == (0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_holders_do_neither_limit_is_passed(side: Side, seed: int) -> None:
    chance, most, calls = random.Random(seed), 3 + seed, 5 + seed
    limits = ToolLimits(1, most, calls, 2.0)
    held, left = dict.fromkeys((ONE, OTHER, THIRD), 0), dict.fromkeys((ONE, OTHER, THIRD), 0)
    ready_at = dict.fromkeys(held, 0.0)
    now, begun = 0.0, list[float]()
    for _ in range(60):
        holder = chance.choice(list(held))
        spent = chance.randint(0, left[holder]) if ready_at[holder] <= now else 0
        begun += [now] * spent
        back = chance.randint(0, left[holder] - spent)
        keep, want = chance.randint(0, held[holder]), chance.randint(0, 6)
        found = await settle(
            side, holder, limits, keep=keep, want=max(want, keep), spent=spent, back=back, ask=chance.randint(0, 4)
        )
        assert found.held >= keep
        held[holder], left[holder] = found.held, left[holder] - spent - back + found.granted
        if found.wait_s and found.granted:  # the last one's moment
            ready_at[holder] = now + found.wait_s + (found.granted - 1) * 2.0 / calls
        others = {one: await settle(side, one, limits, keep=9, want=held[one]) for one in held if one is not holder}
        held |= {one: answer.held for one, answer in others.items()}
        assert sum(held.values()) <= most
        step = chance.choice([0.0, 0.1, 0.7, 3.0])
        side.clock.advance(step)
        now += step
    for start in begun:
        for end in begun:
            within = sum(start <= one <= end for one in begun)
            assert end < start or within <= calls + (end - start) * calls / 2.0 + 1e-6
