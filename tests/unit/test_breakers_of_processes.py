"""Breakers over processes: one opens a breaker, all obey; one process tries calls; a person holds a breaker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from application.breakers import breaker_of
from application.engine.background import end
from application.engine.ports.outcomes import NewOutcomes
from application.workers.hosting.breakers import ToolGate
from application.workers.hosting.messages import Complete, Definitions, Fail, WorkForTool
from application.workers.hosting.session import Offers
from application.workers.registering import Offer
from domain.breakers import BreakerOpened, Counts, ForceBreaker, breaker_id_of
from domain.failures import Failure, Retry
from domain.invocations import FallbackTool, RequestInvocation
from domain.kernel import Event
from domain.tool_policy import Breaker as Policy
from domain.tool_policy import ToolPolicy
from domain.tools import RegisterTool, tool_id_of
from tests.kit.engine import Engine
from tests.kit.hosting import Hosting, SpeakingWorker, hosting, with_key
from tests.kit.waiting import TENANT, new_id, turns, until

TOOL = tool_id_of(TENANT, "t")
ID = breaker_id_of(TOOL)
POLICY = Policy(failures=2, open_s=30, probes=1)


def offers(policy: Policy | None) -> Callable[[Definitions], Offers]:
    def read(given: Definitions) -> Offers:
        return Offers([], [
            Offer(name, "1", RegisterTool(
                tool_id=tool_id_of(TENANT, name), name=name, parameters={"type": "object"}, idempotent=True,
                policy=ToolPolicy(breaker=policy) if policy and name == "t" else None,
            )) for name in given.tools
        ], [])  # fmt: skip

    return read


class Processes:
    """Two processes, and a worker of the tool at each."""

    def __init__(self, engine: Engine, hosts: list[Hosting], workers: list[SpeakingWorker]) -> None:
        self.engine, self.hosts, self.workers = engine, hosts, workers

    def gate(self, number: int) -> ToolGate:
        return self.hosts[number].host.breakers._gates[TENANT, "t"]

    async def advance(self, seconds: float) -> None:
        await self.engine.advance(seconds)
        self.engine.queue.wake()  # what was given back comes again

    async def all_are(self, state: str) -> None:
        await until(lambda: [self.gate(n).breaker.in_force for n in (0, 1)] == [state] * 2, f"both are {state}")

    async def call(self, *fallbacks: FallbackTool, attempts: int = 3) -> UUID:
        call_id = new_id()
        await self.engine.give(
            RequestInvocation(
                invocation_id=call_id, run_id=call_id, agent_run_id=call_id, key="k", tool="t", idempotent=True, timeout_s=5,
                retry=Retry(max_attempts=attempts, initial_s=0.001), fallbacks=fallbacks, asked_by="client",
            )
        )  # fmt: skip
        return call_id

    async def work(self, number: int) -> WorkForTool:
        """The next call that the worker of a process gets. Only that worker has a slot."""
        self.workers[number].credit(tool=1)
        self.workers[1 - number].credit(tool=0)
        return await self.workers[number].hears(WorkForTool)

    async def fails(self, number: int, kind: Any = "transient") -> UUID:
        call_id = await self.call(attempts=1)
        work = await self.work(number)
        await self.workers[number].done(work, Fail, error=Failure(type="E", message="down", kind=kind))
        return call_id

    async def succeeds(self, number: int) -> None:
        await self.call(attempts=1)
        await self.workers[number].done(await self.work(number), Complete, result=1)

    async def opened(self) -> None:
        for _ in range(2):
            await self.fails(0)
        await self.all_are("open")

    def events(self, stream_id: UUID) -> list[Event]:
        registry = self.engine.catalog.registry
        return [registry.decoded(event) for event in self.engine.log.streams.get(stream_id, ())]

    def topics(self, stream_id: UUID = ID) -> list[str]:
        return [event.TOPIC for event in self.events(stream_id)]

    async def put_off(self, call_id: UUID) -> list[str]:
        await until(lambda: len(self.topics(call_id)) > 1, "the call is put off")
        return self.topics(call_id)


@asynccontextmanager
async def processes(policy: Policy | None) -> AsyncIterator[Processes]:
    async with with_key(Engine()) as engine:
        other = engine.another()
        live = asyncio.create_task(other.live.run())
        async with hosting(engine) as one, hosting(other) as two:
            workers = [process.connect(read=offers(policy)) for process in (one, two)]
            for worker in workers:
                await worker.hello(tools=("t", "u"))
            found = Processes(engine, [one, two], workers)
            await until(lambda: all((TENANT, "t") in host.host.breakers._gates for host in (one, two)), "gates")
            await until(lambda: all(found.gate(n).known.is_set() for n in (0, 1)), "the log was read")
            await until(lambda: all((found.gate(n).policy == policy) for n in (0, 1)), "the policy is known")
            yield found
        await end(live)


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Processes]:
    async with processes(POLICY) as found:
        yield found


@pytest_asyncio.fixture
async def without() -> AsyncIterator[Processes]:
    async with processes(None) as found:
        yield found


async def test_one_opens_and_the_other_obeys(both: Processes) -> None:
    await both.opened()
    [opened] = both.events(ID)
    assert isinstance(opened, BreakerOpened)
    assert (opened.because, opened.failures, opened.calls, opened.open_s, opened.error) == ("failures", 2, 2, 30, "E: down")
    assert both.topics(TOOL) == ["tool.registered"], "a trip is no change of the declaration"
    call_id = await both.call()
    both.workers[1].credit(tool=1)
    both.workers[0].credit(tool=0)
    assert await both.put_off(call_id) == ["invocation.requested", "invocation.retry_scheduled"]
    state = await both.engine.invocation(call_id)
    assert (state.status, state.failures, state.attempt) == ("waiting", 1, 0)
    _, put_off = both.events(call_id)
    assert put_off.error.type == "BreakerOpen" and 30 < put_off.delay_s <= 33  # type: ignore[attr-defined]
    await turns()
    assert not [one for worker in both.workers for one in worker.ear.heard if isinstance(one, WorkForTool)]


async def test_failures_of_two_processes_are_counted_together(both: Processes) -> None:
    await both.fails(0)
    await both.succeeds(1)
    await both.fails(0)
    await turns()
    assert both.topics() == []
    await both.fails(1)
    await both.all_are("open")


@pytest.mark.parametrize("kind", ["rate_limited", "permanent", "invalid"])
async def test_what_says_nothing_of_the_service_does_not_count(both: Processes, kind: str) -> None:
    await both.fails(0)
    for _ in range(3):
        await both.fails(0, kind)
    counted = await breaker_of(both.engine.commands, both.engine.outcomes, TENANT, "t")
    assert counted.counts is not None and (counted.counts.calls, counted.counts.failures, counted.counts.in_a_row) == (1, 1, 1)
    assert both.topics() == []


async def test_without_a_breaker_nothing_is_counted(without: Processes) -> None:
    for _ in range(3):
        await without.fails(0)
    await turns()
    assert without.engine.outcomes.rows == {} and without.topics() == []


async def test_one_process_tries_a_call_and_the_others_wait(both: Processes) -> None:
    await both.opened()
    await both.advance(31)
    tried = await both.call()
    work = await both.work(1)
    assert work.work_id == tried
    await both.all_are("half_open")
    waiting = await both.call()
    both.workers[0].credit(tool=1)
    both.workers[1].credit(tool=1)
    await turns(50)
    assert both.topics(waiting) == ["invocation.requested"], "it keeps its place, and no try is counted"
    await both.workers[1].done(work, Complete, result=1)
    await both.all_are("closed")
    await both.advance(1)
    await until(lambda: both.topics(waiting)[-1] == "invocation.attempt_started", "the other call goes on")
    assert both.topics() == ["breaker.opened", "breaker.half_opened", "breaker.closed"]


async def test_a_try_that_fails_opens_it_again(both: Processes) -> None:
    await both.opened()
    await both.advance(31)
    await both.fails(1)
    await both.all_are("open")
    assert [event.because for event in both.events(ID) if isinstance(event, BreakerOpened)] == ["failures", "probe"]
    assert both.gate(0).breaker.left_s(both.engine.clock.now()) == 30


async def test_a_try_that_says_nothing_gives_its_place_to_the_next(both: Processes) -> None:
    await both.opened()
    await both.advance(31)
    await both.fails(1, "rate_limited")
    await both.succeeds(1)
    await both.all_are("closed")


async def test_all_tries_must_succeed() -> None:
    async with processes(POLICY.model_copy(update={"probes": 2})) as both:
        await both.opened()
        await both.advance(31)
        await both.succeeds(1)
        await turns(30)
        assert both.topics()[-1] == "breaker.half_opened"
        await both.succeeds(1)
        await both.all_are("closed")


async def test_a_process_that_dies_while_it_tries_does_not_block_for_ever(both: Processes) -> None:
    await both.opened()
    await both.advance(31)
    await both.call()
    await both.work(1)
    await both.all_are("half_open")
    await both.hosts[1].lose(both.workers[1])
    waiting = await both.call()
    both.workers[0].credit(tool=1)
    await turns(30)
    assert both.topics(waiting) == ["invocation.requested"]
    await both.advance(31)
    assert (await both.workers[0].hears(WorkForTool)).work_id == waiting
    assert both.topics()[-2:] == ["breaker.half_opened", "breaker.half_opened"]


async def test_the_call_goes_on_with_the_next_tool(both: Processes) -> None:
    await both.opened()
    call_id = await both.call(FallbackTool(tool="u", tool_version="1", idempotent=True, timeout_s=5, max_attempts=1))
    work = await both.work(1)
    assert (work.work_id, work.claimed.tool) == (call_id, "u")
    await both.workers[1].done(work, Complete, result="u")
    assert both.topics(call_id) == [
        "invocation.requested", "invocation.fell_back", "invocation.attempt_started", "invocation.succeeded",
    ]  # fmt: skip
    both.engine.clock.advance(31)
    tried = await both.call()
    assert (await both.work(0)).work_id == tried
    other = await both.call(FallbackTool(tool="u", tool_version="1", idempotent=True, timeout_s=5, max_attempts=1))
    work = await both.work(1)
    assert (work.work_id, work.claimed.tool) == (other, "u"), "also while others are tried"


async def force(both: Processes, state: Any, number: int = 0) -> None:
    now = both.engine.clock.now()
    command = ForceBreaker(breaker_id=ID, tool="t", state=state, at=now, by="key:ann", reason="planned")
    await both.hosts[number].engine.give(command)


async def test_a_person_holds_a_breaker_open_of_a_tool_without_one(without: Processes) -> None:
    await force(without, "open")
    await without.all_are("open")
    call_id = await without.call(attempts=1)
    without.workers[1].credit(tool=1)
    await without.put_off(call_id)
    await until(lambda: without.topics(call_id)[-1] == "invocation.failed", "its only try is over")
    [*_, failed] = without.events(call_id)
    assert failed.error.type == "BreakerOpen" and "key:ann holds it open since" in failed.error.message  # type: ignore[attr-defined]
    await force(without, "auto", 1)
    await without.all_are("closed")
    await without.succeeds(0)


async def test_a_breaker_that_a_person_holds_closed_does_not_open(both: Processes) -> None:
    await both.opened()
    await force(both, "closed")
    await both.all_are("closed")
    for _ in range(3):
        await both.fails(1)
    await turns(30)
    assert both.topics() == ["breaker.opened", "breaker.forced"]
    await force(both, "auto")
    await until(lambda: both.gate(1).breaker.forced is None, "it follows the outcomes again")
    await both.opened()


async def test_another_policy_counts_at_once(without: Processes) -> None:
    declared = RegisterTool(
        tool_id=TOOL, name="t", parameters={"type": "object"}, idempotent=True, policy=ToolPolicy(breaker=Policy(failures=1))
    )
    await without.engine.give(declared)
    await until(lambda: all(without.gate(n).policy is not None for n in (0, 1)), "both know the policy")
    await without.fails(1)
    await without.all_are("open")


async def test_counts_of_before_a_change_do_not_count(both: Processes) -> None:
    await both.fails(0)
    await until(lambda: both.engine.outcomes.rows, "counted")
    await force(both, "open")
    await force(both, "auto")
    await until(lambda: [both.gate(n).breaker.changes for n in (0, 1)] == [2, 2], "both know")
    await both.engine.outcomes.add([NewOutcomes(TENANT, ID, 0, 30, 9, 9, False, 9)])
    await both.fails(0)
    await turns(30)
    assert both.topics() == ["breaker.forced", "breaker.forced"]
    view = await breaker_of(both.engine.commands, both.engine.outcomes, TENANT, "t")
    assert (view.state, view.version, view.policy) == ("closed", 2, POLICY.model_dump())


async def test_a_process_that_no_longer_offers_the_tool_forgets_its_breaker(both: Processes) -> None:
    assert both.hosts[1].host.breakers.states() == {"closed": 2, "open": 0, "half_open": 0}
    await both.hosts[1].lose(both.workers[1])
    await until(lambda: (TENANT, "t") not in both.hosts[1].host.breakers._gates, "forgotten")
    assert both.hosts[1].host.live.watched(ID) == 0
    assert both.hosts[0].host.live.watched(ID) == 1


async def test_what_opens_a_breaker_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.workers.hosting.breakers.EVERY_S", 3_600.0)
    async with processes(POLICY) as both:
        await both.fails(0)
        await until(lambda: both.gate(0).counted.in_a_row == 1, "the first failure was told")
        await both.fails(0)
        await both.all_are("open")


def test_outcomes_may_open_a_breaker_together_with_those_that_were_told() -> None:
    gate = ToolGate(TENANT, "t")
    gate.policy = Policy(failures=3, rate=0.5, calls=8)
    gate.count(failed=True)
    assert not gate.may_open
    gate.counted = Counts(calls=2, failures=2, in_a_row=2)
    assert gate.may_open, "the third in a row"
    gate.count(failed=False)
    gate.count(failed=True)
    assert not gate.may_open, "a success between"
    gate.counted = Counts(calls=5, failures=2, in_a_row=2)
    assert gate.may_open, "four of eight"
    gate.policy = None
    assert not gate.may_open
