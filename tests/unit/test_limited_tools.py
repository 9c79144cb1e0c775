"""Tools with limits: calls wait for permits and tokens over all processes, and nothing is claimed that may not begin."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from application.engine.ports.queue import WorkItem
from application.workers.hosting import dispatch, gate, gates
from application.workers.hosting.messages import Call, Complete, Definitions, Fail, InHand, WorkForAgent, WorkForTool
from application.workers.hosting.session import Offers
from application.workers.registering import Offer
from domain.failures import Failure
from domain.tool_policy import Rate, ToolPolicy
from domain.tools import DeprecateTool, RegisterTool, RemoveTool, tool_id_of
from tests.kit.engine import Engine
from tests.kit.hosting import KEY, Hosting, SpeakingWorker, hosting, read, with_key
from tests.kit.waiting import TENANT, new_id, turns, until

TOOL = "crm.update"


def reading(policy: ToolPolicy | None, **more: Any) -> Callable[[Definitions], Offers]:
    """Reads definitions: each tool has this policy."""

    def found(given: Definitions) -> Offers:
        tools = [Offer(name, "1", declared(policy, **more)) for name in given.tools]
        return Offers(read(given).agents, tools, [])

    return found


def declared(policy: ToolPolicy | None, **more: Any) -> RegisterTool:
    plain = {"parameters": {"type": "object"}, "idempotent": True, **more}
    return RegisterTool(tool_id=tool_id_of(TENANT, TOOL), name=TOOL, policy=policy, **plain)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "QUIET_S", 0.0)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    async with with_key(Engine()) as engine:
        yield engine


class Tried:
    """Some processes with a worker each, all of which offer the tool, and an agent that calls it."""

    def __init__(self, engine: Engine, policy: ToolPolicy | None) -> None:
        self.engine = engine
        self.policy = policy
        self.processes: list[Hosting] = []
        self.workers: list[SpeakingWorker] = []
        self.agent: WorkForAgent
        self.calls = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Tried":
        await self.add("alpha")
        await self.engine.start("alpha")
        self.agent = await self.workers[0].hears(WorkForAgent)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def add(self, *agents: str, slots: int = 10) -> SpeakingWorker:
        """One more process, with a worker."""
        engine = self.engine
        if self.processes:
            engine = engine.another()
            live = asyncio.create_task(engine.live.run())
            self._stack.push_async_callback(permits_end, live)
        process = await self._stack.enter_async_context(hosting(engine))
        self.processes.append(process)
        worker = process.connect(KEY, reading(self.policy))
        self.workers.append(worker)
        await worker.hello(agents, [TOOL])
        worker.credit(agent=5, tool=slots)
        if slots:
            await until(lambda: all(pool.asked for pool in process.host.dispatcher.pools), "requests at the queue")
        return worker

    async def call(self, count: int = 1) -> None:
        for _ in range(count):
            self.calls += 1
            await self.workers[0].done(self.agent, Call, key=f"k{self.calls}", tool=TOOL, arguments={"n": self.calls})

    def begun(self) -> int:
        """Attempts in the log."""
        return sum(event.topic == "invocation.attempt_started" for event in self.engine.log.events)

    def ended(self) -> int:
        return sum(event.topic in ("invocation.succeeded", "invocation.failed") for event in self.engine.log.events)

    def going_on(self) -> int:
        return self.begun() - self.ended()

    async def settle(self) -> None:
        await self.engine.settled()
        await turns(50)

    def at_hand(self) -> list[tuple[SpeakingWorker, WorkForTool]]:
        return [(worker, one) for worker in self.workers for one in worker.ear.heard if isinstance(one, WorkForTool)]

    async def finish(self, worker: SpeakingWorker | None = None) -> None:
        """A worker ends its first call, and has a free slot again."""
        found = await until(lambda: [one for one in self.at_hand() if worker in (None, one[0])], "a call at hand")
        whose, work = found[0]
        whose.ear.heard.remove(work)
        await whose.done(work, Complete, result=None)
        whose.credit(agent=5, tool=10)

    def move(self, seconds: float) -> None:
        """Moves all clocks, and keeps the leases."""
        self.engine.clock.advance(seconds)
        for process in self.processes:
            process.clock.now += seconds

    async def declare(self, policy: ToolPolicy | None) -> None:
        await self.engine.give(declared(policy))


async def permits_end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_no_more_calls_begin_than_there_are_permits(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(max_parallel=2)) as tried:
        await tried.call(5)
        await until(lambda: tried.begun() == 2, "two attempts")
        for ended in range(1, 6):
            await tried.settle()
            assert tried.begun() == min(5, ended + 1), "nothing is claimed that may not begin"
            await tried.finish()
            await until(lambda n=ended: tried.begun() == min(5, n + 2), "the next one")  # type: ignore[misc]
        await until(lambda: tried.processes[0].host.gates.counts == (0, 0, 0), "nothing in use")


async def test_limits_hold_over_processes_and_the_work_is_shared(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(max_parallel=3)) as tried:
        other = await tried.add()
        await tried.call(12)
        by = set()
        for done in range(12):
            await until(lambda: len(tried.at_hand()) == min(3, 12 - done), "as many as may")  # noqa: B023
            await tried.settle()
            assert tried.going_on() == min(3, 12 - done)
            by |= {worker is other for worker, _ in tried.at_hand()}
            await tried.finish(tried.at_hand()[-1][0])
        assert tried.ended() == 12
        assert by == {True, False}, "each process has its turn"


async def test_a_call_with_permits_at_hand_asks_nobody(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(max_parallel=8, rate=Rate(calls=1_000, per_s=1.0))) as tried:
        await tried.call(1)
        await tried.finish()
        await tried.settle()
        asked = engine.permits.settled
        for _ in range(20):
            await tried.call(1)
            await tried.finish()
        assert engine.permits.settled == asked


async def test_permits_stay_for_a_while_and_come_back_when_another_process_wants_them(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(max_parallel=4)) as tried:
        await tried.call(1)
        await tried.finish()
        await tried.settle()
        state = await engine.permits.state(TENANT, TOOL)
        assert state is not None and (state.held, state.waiting) == (4, 0)
        tried.workers[0].credit(agent=5, tool=0)
        tried.processes[0].host.dispatcher.starved(tried.workers[0].session, "tool")
        await tried.add()
        await tried.call(2)
        await until(lambda: len(tried.at_hand()) == 2, "calls at the other process")


async def test_idle_permits_are_given_back(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "TICK_S", 0.001)
    async with Tried(engine, ToolPolicy(max_parallel=4, rate=Rate(calls=100, per_s=1.0))) as tried:
        await tried.call(1)
        await tried.finish()
        await tried.settle()
        tried.move(gate.KEPT_S)
        await until(lambda: not engine.permits.tools[TENANT, TOOL].parts, "nothing held")


async def test_a_permit_goes_with_its_attempt_and_not_with_the_session(engine: Engine) -> None:
    """The worker comes back to another process, and reports there. The first process then lets the next call begin."""
    async with Tried(engine, ToolPolicy(max_parallel=1)) as tried:
        await tried.call(2)
        [(first, work)] = await until(tried.at_hand, "a call")
        second = await tried.add(slots=0)
        back = tried.processes[1].connect(KEY, reading(tried.policy))
        in_hand = InHand(work=work.work_id, attempt=1, token=work.token)
        await tried.processes[0].lose(first)
        await back.hello(["alpha"], [TOOL], back=first, work=[in_hand])
        second.credit(agent=0, tool=5)
        await tried.settle()
        assert tried.begun() == 1
        await back.done(work, Complete, result=None)
        await until(lambda: tried.begun() == 2, "the next attempt")


async def test_a_process_that_is_gone_keeps_the_permits_of_its_attempts(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(max_parallel=2)) as tried:
        await tried.call(1)
        await until(tried.at_hand, "a call")
        gone = tried.processes[0].host.gates
        before = gone.holder_id
        await tried.add()
        tried.move(11)
        await tried.processes[1].host.gates.renew()
        for _ in range(2):
            await engine.permits.sweep()
        state = await engine.permits.state(TENANT, TOOL)
        assert state is not None and (state.in_use, state.held) == (1, 1)
        tried.workers[0].credit(agent=5, tool=0)
        await tried.call(2)
        await until(lambda: tried.begun() == 2, "one more attempt")
        await tried.settle()
        assert tried.begun() == 2
        await gone.renew()
        assert gone.holder_id != before, "it begins anew, with nothing"
        await tried.finish(tried.workers[0])
        await engine.permits.sweep()
        await until(lambda: tried.begun() == 3, "the last one")


async def test_nothing_begins_while_a_lease_may_be_over(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(max_parallel=5)) as tried:
        await tried.call(1)
        await until(tried.at_hand, "a call")
        tried.move(gates.FRESH_S + 1)
        engine.log.away = True
        assert not tried.processes[0].host.gates._gates[TENANT, TOOL].take(_item(), 0)
        engine.log.away = False
        await tried.call(1)
        await until(lambda: tried.begun() == 2, "after a renewal")


def _item() -> WorkItem:
    return WorkItem(TENANT, "tool", TOOL, new_id(), 1, new_id())


async def test_a_lower_limit_lets_calls_end_and_begins_no_new_ones(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(max_parallel=4)) as tried:
        await tried.call(6)
        await until(lambda: tried.begun() == 4, "four attempts")
        await tried.declare(ToolPolicy(max_parallel=2))
        for ended, begun in ((1, 4), (2, 4), (3, 5), (4, 6)):
            await tried.finish()
            await until(lambda n=begun: tried.begun() == n, "no more than two")  # type: ignore[misc]
            await tried.settle()
            assert (tried.ended(), tried.begun()) == (ended, begun)
        await tried.declare(None)
        await tried.call(4)
        await until(lambda: tried.begun() == 10, "no limit any more")


async def test_calls_from_before_the_limit_count(engine: Engine) -> None:
    async with Tried(engine, None) as tried:
        await tried.call(3)
        await until(lambda: tried.begun() == 3, "three attempts")
        assert engine.permits.settled == 0, "a tool without limits asks nobody"
        await tried.declare(ToolPolicy(max_parallel=2))
        await until(lambda: engine.permits.settled, "the limit is known")
        await tried.call(1)
        await tried.finish()
        await tried.settle()
        assert tried.begun() == 3
        await tried.finish()
        await until(lambda: tried.begun() == 4, "the next one")


async def test_a_removed_tool_and_other_changes_leave_no_limit_behind(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(max_parallel=1)) as tried:
        await tried.call(2)
        await until(lambda: tried.begun() == 1, "one attempt")
        await engine.give(DeprecateTool(tool_id=tool_id_of(TENANT, TOOL), name=TOOL))
        await tried.settle()
        assert tried.begun() == 1
        await engine.give(RemoveTool(tool_id=tool_id_of(TENANT, TOOL), name=TOOL))
        await until(lambda: tried.begun() == 2, "no limit any more")


async def test_calls_wait_for_tokens_and_begin_when_these_come(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(rate=Rate(calls=2, per_s=0.2))) as tried:
        await tried.call(5)
        await until(lambda: tried.begun() == 2, "the burst")
        for begun in (3, 4, 5):
            await tried.settle()
            assert tried.begun() == begun - 1
            tried.move(0.1001)
            await until(lambda n=begun: tried.begun() == n, "the next token")  # type: ignore[misc]


async def test_a_rate_holds_over_processes(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(rate=Rate(calls=4, per_s=0.4))) as tried:
        await tried.add()
        await tried.call(10)
        await until(lambda: tried.begun() == 4, "the burst")
        await tried.settle()
        assert tried.begun() == 4
        begun = 4
        while begun < 10:
            tried.move(0.1001)
            begun += 1
            await until(lambda n=begun: tried.begun() == n, "one token")  # type: ignore[misc]
            await tried.settle()
            assert tried.begun() == begun


async def test_retry_after_holds_the_rate_for_all(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(rate=Rate(calls=50, per_s=1.0))) as tried:
        await tried.call(1)
        [(worker, work)] = await until(tried.at_hand, "a call")
        other = await tried.add()
        error = Failure(type="TooManyRequests", message="slow down", kind="rate_limited", retry_after_s=30.0)
        await worker.done(work, Fail, error=error)
        state = await until(lambda: engine.permits.tools[TENANT, TOOL].held_until, "the silence")
        assert (state - engine.clock.now()).total_seconds() == pytest.approx(30.0)
        tried.workers[0].credit(agent=5, tool=0)
        await tried.call(2)
        await tried.settle()
        assert tried.begun() == 1
        tried.move(31)
        other.credit(agent=5, tool=5)
        for process in tried.processes:
            process.host.gates._missed()
        await until(lambda: tried.begun() >= 3, "calls after the silence")


async def test_a_claim_that_comes_to_nothing_gives_its_permit_back(engine: Engine) -> None:
    async with Tried(engine, ToolPolicy(max_parallel=1, rate=Rate(calls=1, per_s=1_000.0))) as tried:
        mine = tried.processes[0].host.gates
        one = mine._gates[TENANT, TOOL]
        item = _item()
        one.waits(1)
        await until(lambda: one.take(item, 1), "a permit")
        assert one.holder_of(item) == mine.holder_id
        assert mine.counts == (1, 1, 0)
        assert not one.take(_item(), 1)
        one.release(item)
        assert one.holder_of(item) is None
        assert one.take(item, 1)
        one.release(item)
        one.release(item)
        one.waits(0)
        assert mine.counts == (0, 0, 1)
