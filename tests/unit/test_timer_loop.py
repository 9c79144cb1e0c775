"""The timer loop and the reconciler over ports in memory and a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from application.engine import reconciler as reconciling
from application.engine import timers as timing
from application.engine.background import end
from application.engine.commands.loop import CommandLoop
from application.engine.ports.log import AppendRequest, AppendResult, NewEvent, StreamAppend, one_command
from application.engine.ports.queue import WorkItem
from application.engine.ports.timers import DueTimer
from application.engine.reconciler import WorkReconciler
from application.engine.timers import TimerService
from domain.context import ContextValueSet
from domain.kernel import Metadata, derive_id
from tests.kit.budget import BUDGET_CATALOG, Reserve, Stops, budget_of
from tests.kit.memory import ManualClock, MemoryEventStore, MemoryLog, MemoryOpenWork, MemoryTimers, MemoryWorkQueue
from tests.kit.waiting import TENANT, new_id, turns, until
from tests.pace import within


class Ringing:
    """A timer loop whose command is recorded each time that the loop decides it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(self.clock)
        self.store = MemoryEventStore(self.log)
        self.timers = MemoryTimers(self.log)

    def service(self, timers: MemoryTimers | None = None, store: MemoryEventStore | None = None) -> TimerService:
        commands = CommandLoop(store or self.store, BUDGET_CATALOG)
        return TimerService(commands, timers or self.timers, kinds={"Reserve": Reserve})

    @asynccontextmanager
    async def running(self, service: TimerService | None = None) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task((service or self.service()).run())
        try:
            yield task
            assert not task.done(), task
        finally:
            await end(task)

    def set(
        self,
        due_in_s: float,
        *,
        project: UUID | None = None,
        amount: int = 5,
        command: str = "Reserve",
        payload: bytes | None = None,
        cause: str | None = None,
        set_at: datetime | None = None,
    ) -> DueTimer:
        project = project or new_id()
        payload = Reserve(project_id=project, amount=amount).model_dump_json().encode() if payload is None else payload
        timer = DueTimer(new_id(), TENANT, project, command, payload, new_id(), cause or f"{project}:7")
        self.timers.set(timer, self.clock.now() + timedelta(seconds=due_in_s), set_at=set_at)
        return timer

    def reserved(self, project: UUID) -> list[int]:
        return [ContextValueSet.model_validate_json(e.state).value for e in self.log.streams.get(budget_of(project), [])]

    async def waiting(self) -> None:
        """Waits until the loop has nothing to do."""
        await until(lambda: self.clock.next_moment is not None, "the loop at rest")


@pytest.fixture
def ringing() -> Ringing:
    return Ringing()


async def test_a_timer_fires_at_its_time_and_not_before(ringing: Ringing) -> None:
    timer = ringing.set(10)
    async with ringing.running():
        await ringing.waiting()
        ringing.clock.advance(9.999)
        await turns()
        assert ringing.reserved(timer.root_id) == []
        ringing.clock.advance(0.001)
        await until(lambda: ringing.timers.rows == {})
        assert ringing.reserved(timer.root_id) == [5]


async def test_the_command_is_the_timers(ringing: Ringing) -> None:
    timer = ringing.set(0)
    async with ringing.running():
        await until(lambda: ringing.timers.rows == {})
    [event] = ringing.log.streams[budget_of(timer.root_id)]
    assert Metadata.model_validate_json(event.metadata) == Metadata(
        actor="timer",
        correlation_id=timer.correlation_id,
        causation_id=timer.cause,
        command_id=derive_id(timer.timer_id, "fired"),
    )
    assert event.tenant_id == TENANT


async def test_due_timers_fire_in_their_order(ringing: Ringing) -> None:
    project = new_id()
    for due_in_s, amount in ((-1, 100), (-3, 1), (-2, 10)):
        ringing.set(due_in_s, project=project, amount=amount)
    async with ringing.running():
        await until(lambda: ringing.timers.rows == {})
    assert ringing.reserved(project) == [1, 11, 111]


async def test_more_than_a_batch_of_due_timers_all_fire(ringing: Ringing) -> None:
    project = new_id()
    for _ in range(2 * timing.BATCH + 1):
        ringing.set(0, project=project, amount=1)
    async with ringing.running():
        await until(lambda: ringing.timers.rows == {})
    assert ringing.reserved(project) == list(range(1, 2 * timing.BATCH + 2))


async def test_a_timer_that_is_set_meanwhile_is_not_waited_past(ringing: Ringing) -> None:
    ringing.set(1_000)
    async with ringing.running():
        await ringing.waiting()
        sooner = ringing.set(5)
        await turns()
        await ringing.waiting()
        ringing.clock.advance(5)
        await until(lambda: len(ringing.timers.rows) == 1)
        assert ringing.reserved(sooner.root_id) == [5]


@pytest.mark.parametrize("due_in_s", [None, 3_600.0, 30.0])
async def test_the_loop_looks_again_now_and_then_at_the_latest(ringing: Ringing, due_in_s: float | None) -> None:
    """A notification may be lost."""
    if due_in_s is not None:
        ringing.set(due_in_s)
    async with ringing.running():
        await ringing.waiting()
        longest = timing.LONGEST_WAIT_S if due_in_s is None else min(due_in_s, timing.LONGEST_WAIT_S)
        assert ringing.clock.next_moment == ringing.clock.now() + timedelta(seconds=longest)


@pytest.mark.parametrize(
    ("command", "payload", "reason"),
    [
        ("NoSuchCommand", b"{}", "NoSuchCommand: KeyError"),
        ("Reserve", b"{}", "Reserve: ValidationError"),
        ("Reserve", b"not json", "Reserve: ValidationError"),
        ("Reserve", b'{"project_id": 1, "amount": 2}', "Reserve: ValidationError"),
    ],
)
async def test_a_timer_that_cannot_fire_is_parked_and_does_not_hold_up_the_others(
    ringing: Ringing, command: str, payload: bytes, reason: str
) -> None:
    stream = new_id()
    append = one_command(TENANT, new_id(), (StreamAppend(stream, stream, 0, (NewEvent("thing.happened", 1, b"{}"),)),), "{}")
    position = ringing.log.add(append).last_position
    ringing.set(-1, command=command, payload=payload, cause=f"{stream}:1")
    good = ringing.set(0)
    with capture_logs() as logs:
        async with ringing.running():
            await until(lambda: ringing.timers.rows == {})
    assert ringing.reserved(good.root_id) == [5]
    [parked] = ringing.timers.parked
    assert (parked.consumer, parked.event.position) == ("due-timers", position) and parked.error.startswith(reason)
    assert [entry["command"] for entry in logs if entry["event"] == "timer_parked"] == [command]


async def test_a_timer_that_is_refused_is_parked(ringing: Ringing) -> None:
    stream, taken = new_id(), new_id()
    for each in (stream, budget_of(taken)):  # the id of the budget is taken by something else
        ringing.log.add(one_command(TENANT, new_id(), (StreamAppend(each, each, 0, (NewEvent("run.started", 1, b"{}"),)),), "{}"))
    ringing.set(0, project=taken, cause=f"{stream}:1")
    async with ringing.running():
        await until(lambda: ringing.timers.rows == {})
    assert [row.event.stream_id for row in ringing.timers.parked] == [stream]


async def test_due_timers_of_many_roots_fire_side_by_side_within_a_bound(ringing: Ringing) -> None:
    """All are read by one statement and deleted by another."""
    asked = deleted = 0

    class CountingTimers(MemoryTimers):
        async def due(self, limit: int) -> list[DueTimer]:
            nonlocal asked
            asked += 1
            return await super().due(limit)

        async def delete(self, timer_ids: Sequence[UUID]) -> None:
            nonlocal deleted
            deleted += 1
            await super().delete(timer_ids)

    class CrowdedStore(MemoryEventStore):
        inside = most = 0

        async def append(self, request: AppendRequest) -> AppendResult:
            self.inside += 1
            self.most = max(self.most, self.inside)
            try:
                await turns(3)
                return await super().append(request)
            finally:
                self.inside -= 1

    ringing.timers, store = CountingTimers(ringing.log), CrowdedStore(ringing.log)
    timers = [ringing.set(0) for _ in range(500)]
    async with ringing.running(ringing.service(store=store)):
        await until(lambda: ringing.timers.rows == {})
        await ringing.waiting()
    assert all(ringing.reserved(timer.root_id) == [5] for timer in timers)
    assert (asked, deleted, store.most) == (2, 1, timing.MAX_ROOTS_AT_ONCE)


async def test_a_clock_that_was_set_back_does_not_stop_the_timers(ringing: Ringing) -> None:
    """A jump forward by a day and back: the log's times stay a day ahead."""
    ahead = ringing.clock.now() + timedelta(days=1)
    timer = ringing.set(86_400 + 5, set_at=ahead)
    async with ringing.running():
        await ringing.waiting()
        assert ringing.reserved(timer.root_id) == []
        ringing.clock.advance(5)
        await until(lambda: ringing.timers.rows == {})
    assert ringing.reserved(timer.root_id) == [5]


async def test_an_outage_is_waited_out(ringing: Ringing) -> None:
    timer = ringing.set(0)
    ringing.log.away = True
    async with ringing.running():
        await turns()
        assert len(ringing.timers.rows) == 1
        ringing.log.away = False
        await until(lambda: ringing.timers.rows == {})
    assert ringing.reserved(timer.root_id) == [5]


class StoppingTimers(MemoryTimers):
    def __init__(self, timers: MemoryTimers, stops: Stops) -> None:
        super().__init__(timers.log)
        self.rows, self._stops = timers.rows, stops

    async def delete(self, timer_ids: Sequence[UUID]) -> None:
        await self._stops.at("before the deletion")
        await super().delete(timer_ids)


async def test_a_process_that_dies_before_the_deletion_leaves_a_timer_fired_once(ringing: Ringing) -> None:
    timer, stops = ringing.set(0), Stops("before the deletion")
    async with ringing.running(ringing.service(timers=StoppingTimers(ringing.timers, stops))), within(15):
        await stops.reached.wait()
    assert ringing.reserved(timer.root_id) == [5] and len(ringing.timers.rows) == 1
    async with ringing.running():
        await until(lambda: ringing.timers.rows == {})
    assert ringing.reserved(timer.root_id) == [5]


# --- reconciler -----------------------------------------------------------------------------------------------------------


def work() -> WorkItem:
    return WorkItem(TENANT, "agent", "critic", new_id(), 1, new_id())


class Sweeping:
    def __init__(self, *ages: float) -> None:
        self.clock = ManualClock()
        log = MemoryLog(self.clock)
        self.open_work, self.queue = MemoryOpenWork(log), MemoryWorkQueue(self.clock)
        self.log = log
        self.items = sorted((work() for _ in ages), key=lambda item: item.work_id)
        for item, age in zip(self.items, ages, strict=True):
            self.open_work.open(item, self.clock.now() - timedelta(seconds=age))
        self.reconciler = WorkReconciler(self.open_work, self.queue)

    @property
    def queued(self) -> list[WorkItem]:
        return [entry.item for entry in self.queue.entries.values()]


async def test_what_was_dispatched_lately_is_left_alone() -> None:
    edge = reconciling.SWEEP_OLDER_THAN_S
    sweeping = Sweeping(edge + 0.001, edge, 0, 3_600)
    await sweeping.reconciler.sweep()
    assert sweeping.queued == [sweeping.items[0], sweeping.items[3]]


async def test_a_sweep_goes_through_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "SWEEP_PAGE", 3)
    sweeping = Sweeping(*[60.0] * 7)
    await sweeping.reconciler.sweep()
    assert sweeping.queued == sweeping.items
    assert sweeping.queue.published == 3


async def test_a_sweep_of_nothing_publishes_nothing() -> None:
    sweeping = Sweeping()
    await sweeping.reconciler.sweep()
    assert sweeping.queue.published == 0


async def test_the_reconciler_waits_out_an_outage_and_sweeps_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "SWEEP_EVERY_S", 0.001)
    sweeping = Sweeping(60.0)
    sweeping.queue.away = True
    task = asyncio.create_task(sweeping.reconciler.run())
    try:
        await turns()
        assert sweeping.queued == []
        sweeping.queue.away = False
        await until(lambda: sweeping.queued == sweeping.items)
        sweeping.queue.entries.clear()
        await until(lambda: sweeping.queued == sweeping.items, "the next sweep")
    finally:
        await end(task)
