"""The upkeep over ports in memory and a clock that the test moves: each chore at its time, and each run on record."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from application.engine import upkeep as tidying
from application.engine.background import end
from application.engine.upkeep import UPLOAD_S, Chore, Upkeep, chores
from domain.errors import Unavailable
from tests.kit.memory import (
    ManualClock,
    MemoryBlobs,
    MemoryBrowserSessions,
    MemoryIdempotencyKeys,
    MemoryLog,
    MemoryOpenWork,
    MemoryOutcomeCounts,
    MemoryPermits,
    MemoryUpkeepRuns,
    MemoryWorkLogs,
)
from tests.kit.waiting import turns, until


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the chores is the test's."""
    monkeypatch.setattr(tidying, "LOOK_EVERY_S", 0.0)


class Tidying:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(self.clock)
        self.runs = MemoryUpkeepRuns(self.log)
        self.done: list[str] = []
        self.failures: dict[str, Exception] = {}

    def chore(self, name: str, every_s: float) -> Chore:
        async def work() -> int:
            self.done.append(name)
            if name in self.failures:
                raise self.failures[name]
            return 5

        return Chore(name, every_s, work)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(Upkeep([self.chore("seldom", 100), self.chore("often", 10)], self.runs).run())
        try:
            yield
            assert not task.done(), task
        finally:
            await end(task)

    async def passes(self, seconds: float) -> list[str]:
        """What is done because time passes."""
        self.done.clear()
        self.clock.advance(seconds)
        await turns()
        return self.done


@pytest.fixture
def tidying_up() -> Tidying:
    return Tidying()


async def test_each_chore_is_done_at_its_time_and_at_the_first_start(tidying_up: Tidying) -> None:
    async with tidying_up.running():
        assert await tidying_up.passes(0) == ["seldom", "often"]
        assert await tidying_up.passes(9.9) == []
        assert await tidying_up.passes(0.1) == ["often"]
        assert await tidying_up.passes(90) == ["seldom", "often"]
    assert all(state.seconds >= 0 for state in await tidying_up.runs.states())
    assert [(state.name, state.removed, state.removed_in_all) for state in await tidying_up.runs.states()] == [
        ("often", 5, 15),
        ("seldom", 5, 10),
    ]


async def test_a_new_process_knows_what_the_one_before_did(tidying_up: Tidying) -> None:
    async with tidying_up.running():
        await tidying_up.passes(0)
    async with tidying_up.running():
        assert await tidying_up.passes(5) == []
        assert await tidying_up.passes(5) == ["often"]


async def test_a_clock_that_was_set_back_postpones_nothing(tidying_up: Tidying) -> None:
    async with tidying_up.running():
        await tidying_up.passes(0)
        assert await tidying_up.passes(-3_600) == ["seldom", "often"]
        assert await tidying_up.passes(1) == []


async def test_a_chore_that_fails_is_on_record_and_the_others_go_on(tidying_up: Tidying) -> None:
    tidying_up.failures["seldom"] = TypeError("no such column")
    with capture_logs() as logs:
        async with tidying_up.running():
            assert await tidying_up.passes(0) == ["seldom", "often"]
            assert await tidying_up.passes(99) == ["often"], "a failure is tried again at the next time"
    assert [entry["upkeep"] for entry in logs if entry["event"] == "upkeep_failed"] == ["seldom"]
    _, failed = await tidying_up.runs.states()
    assert (failed.error, failed.success_age_s) == ("TypeError: no such column", None)


async def test_an_outage_is_waited_out_and_is_no_run(tidying_up: Tidying) -> None:
    tidying_up.failures["seldom"] = Unavailable("the database is away")
    async with tidying_up.running():
        await tidying_up.passes(0)
        assert [state.name for state in await tidying_up.runs.states()] == ["often"]
        tidying_up.log.away = True
        await turns()
        tidying_up.failures.clear()
        tidying_up.log.away = False
        await until(lambda: "seldom" in tidying_up.runs.rows)


async def test_the_chores_of_the_server(tidying_up: Tidying) -> None:
    asked = {}

    class Commands:
        async def prune(self, **given: object) -> int:
            asked.update(given)
            return 7

    logs = MemoryWorkLogs(tidying_up.log)
    blobs, outcomes = MemoryBlobs(tidying_up.log), MemoryOutcomeCounts(tidying_up.log)
    permits = MemoryPermits(MemoryOpenWork(tidying_up.log))
    sessions = MemoryBrowserSessions(tidying_up.log.clock)
    counts, browsers, commands, keys, lines, uploads, limits = chores(
        MemoryIdempotencyKeys(tidying_up.log), Commands(), logs, blobs, outcomes, permits, sessions, command_horizon_s=1_000
    )
    assert (counts.name, await counts.work()) == ("breaker-counts", 0)
    assert (browsers.name, await browsers.work()) == ("browser-sessions", 0)
    assert (limits.name, await limits.work()) == ("tool-limits", 0)
    assert (lines.name, await lines.work()) == ("work-logs", 0)
    assert (commands.name, await commands.work(), keys.name, await keys.work()) == ("commands", 7, "idempotency-keys", 0)
    left_by, log = uuid7(), tidying_up.log
    await blobs.begin(left_by, uuid7(), reserved=1, most=1)
    log.clock.advance(UPLOAD_S - 1)  # type: ignore[attr-defined]  # the clock of the test
    assert (uploads.name, uploads.every_s, await uploads.work()) == ("uploads", 600.0, 0)
    log.clock.advance(2)  # type: ignore[attr-defined]
    assert await uploads.work() == 1
    partitions = tuple(f"sagas:{number}" for number in range(8))
    assert asked == {"older_than_s": 1_000, "consumers": partitions, "parking": (*partitions, "due-timers")}
