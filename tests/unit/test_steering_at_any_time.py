"""Pauses, priorities, retries, waits, signals, child runs, approvals and a budget in random order, over the engine in memory, in
two processes.

Whatever comes in which order: the run ends once nobody holds it up, no call begins twice or without its approval, nothing begins in
a pause, and the budget is not overrun.
"""

import contextlib
from random import Random
from typing import Any
from uuid import UUID

import pytest

from application.runs.retry import retry_run
from application.workers.children import ChildRuns
from application.workflows import Workflows
from domain import agents, allowances
from domain.agent_runs import StartWait, SuspendAgentRun
from domain.allowances import Allowance, allowance_of_run
from domain.amounts import NOTHING, BudgetLimits
from domain.approvals import DecideApproval
from domain.errors import InvalidState, RunIsPaused, TidelogError
from domain.failures import Retry
from domain.kernel import PRIORITIES
from domain.plans import Plan, Step
from domain.runs import CancelRun, ChangePriority, PauseRun, ResumeRun, RetryRun, RunBudget, SignalRun
from domain.tool_policy import ToolPolicy
from tests.kit.engine import Claim, Engine
from tests.kit.memory import MemoryNames
from tests.kit.memory.schedules import NoStoredVersions
from tests.kit.waiting import TENANT, new_id, request_of
from tests.unit.test_approved_calls import deciding
from tests.unit.test_paused_runs import asked_by_a_session

TOOLS: dict[str, dict[str, Any]] = {
    "add": {"max_attempts": 3},
    "mail": {"idempotent": False, "policy": ToolPolicy(approval=True)},
    "once": {"idempotent": False},
    "dear": {"policy": {"max_cost": {"money": "0.01"}, "fallbacks": ["guarded", "cheap"]}},
    "cheap": {"policy": {"max_cost": {"money": "0.001"}}},
    "guarded": {"policy": {"max_cost": {"money": "0.001"}, "approval": True}},
}
LIMIT = BudgetLimits(calls=4, money=25_000)
POOLS = [("agent", "alpha"), ("agent", "beta"), *(("tool", tool) for tool in TOOLS)]
BEGINS = {"run.step_scheduled", "run.part_scheduled", "run.step_started", "agent_run.claimed", "invocation.attempt_started"}


class Play:
    def __init__(self, engine: Engine, seed: int, *, reactions: bool) -> None:
        self.chance = Random(seed)
        self.engines = [engine, engine.another(reactions=reactions)]
        self.workers = [each.worker() for each in self.engines]
        self.claims: list[Claim] = []
        self.run_id = new_id()

    async def begin(self) -> None:
        for worker in self.workers:
            await worker.register("alpha", "beta", tools_=TOOLS)
        steps = [
            Step(key=f"s{n}", agent=self.chance.choice(("alpha", "beta")), after=(f"s{self.chance.randrange(n)}",) if n else (),
                 retry=Retry(max_attempts=2, initial_s=1.0), on_failure=self.chance.choice(("continue", "fail")))
            for n in range(self.chance.randint(1, 4))
        ]  # fmt: skip
        budget = RunBudget(limits=LIMIT, on_spent=self.chance.choice(("stop", "degrade")))
        await self.engines[0].start(plan=Plan(steps=tuple(steps)), run_id=self.run_id, budget=budget)

    @property
    def one(self) -> Engine:
        return self.chance.choice(self.engines)

    def held(self, kind: str) -> Claim:
        held = [claim for claim in self.claims if claim.kind == kind]
        if not held:
            raise InvalidState("nothing is held")
        return self.chance.choice(held)

    async def claim(self) -> None:
        worker = self.chance.choice(self.workers)
        for delivery in await worker.engine.queue.pull(worker.queues[self.chance.choice(POOLS)], 1):
            try:
                self.claims.append(await worker.claim(delivery))
            except RunIsPaused:
                assert await asked_by_a_session(worker.engine, worker, delivery.item) is None
                await delivery.ack()
            except TidelogError:
                await delivery.ack()

    async def call(self) -> None:
        await self.held("agent").call(f"k{self.chance.randint(0, 5)}", self.chance.choice(list(TOOLS)), a=1)

    async def wait_for(self) -> None:
        claim, kind = self.held("agent"), self.chance.choice(("sleep", "signal", "child"))
        key = f"{kind}{self.chance.randint(0, 1)}"
        said: dict[str, Any] = {"agent_run_id": claim.work_id, "attempt": claim.attempt, "key": key, "kind": kind}
        if kind == "child":
            engine = claim.worker.engine
            known = MemoryNames(engine.log, agents.AgentRegistered)
            children = ChildRuns(engine.commands, Workflows(engine.commands, NoStoredVersions()), known)
            await children.start(claim.worker.caller, StartWait(**said), agent="beta", workflow=None, version=None, input=None)
        else:
            more = {"delay_s": 20.0} if kind == "sleep" else {"name": "go", "delay_s": self.chance.choice((None, 30.0))}
            await claim.worker.engine.give(StartWait(**said, **more))

    async def suspend(self) -> None:
        claim = self.held("agent")
        seen = (await self.engines[0].agent_run(claim.work_id)).version - self.chance.randint(0, 1)
        await claim.worker.engine.give(SuspendAgentRun(agent_run_id=claim.work_id, attempt=claim.attempt, seen=seen))

    async def end(self) -> None:
        claim = self.held(self.chance.choice(("agent", "tool", "tool")))
        self.claims.remove(claim)
        kind = self.chance.choice(("transient", "permanent"))
        await (claim.complete("done") if self.chance.random() < 0.7 else claim.fail(kind))

    async def steer(self) -> None:
        await self.one.give(self.chance.choice((PauseRun, ResumeRun, ResumeRun))(run_id=self.run_id))

    async def prioritize(self) -> None:
        await self.one.give(ChangePriority(run_id=self.run_id, priority=self.chance.choice(PRIORITIES)))

    async def retry(self) -> None:
        engine, command = self.one, RetryRun(run_id=self.run_id, fresh=self.chance.random() < 0.3)
        await retry_run(engine.commands, engine.feed, request_of(), command, lambda request: request)

    async def cancel(self) -> None:
        await self.one.give(CancelRun(run_id=self.run_id))

    async def signal(self) -> None:
        await self.one.give(SignalRun(run_id=self.run_id, signal_id=new_id(), name="go", payload=1))

    async def decide(self) -> None:
        await self._decide(self.chance.choice(self._asked()), self.chance.choice(("approve", "approve", "deny")))

    def _asked(self) -> list[UUID]:
        asked = [event.stream_id for event in self.engines[0].log.events if event.topic == "approval.requested"]
        if not asked:
            raise InvalidState("nobody asks")
        return asked

    async def _decide(self, approval_id: UUID, decision: Any) -> None:
        command = DecideApproval(approval_id=approval_id, decision=decision, by="key:boss", role="admin")
        await deciding(self.engines[0]).decide(request_of(TENANT), command, lambda request: request)

    async def time(self) -> None:
        await self.engines[0].advance(self.chance.choice((1, 5, 15)))

    async def act(self) -> None:
        weights = {
            self.claim: 9, self.call: 9, self.wait_for: 3, self.suspend: 2, self.end: 6, self.steer: 3, self.prioritize: 2,
            self.retry: 2, self.cancel: 0.2, self.signal: 1, self.decide: 3, self.time: 1,
        }  # fmt: skip
        [action] = self.chance.choices(list(weights), list(weights.values()))
        with contextlib.suppress(TidelogError):
            await action()
        if self.chance.random() < 0.3:
            await self.engines[0].settled()

    async def report(self) -> None:
        for claim in self.claims:  # by now it may be another's
            with contextlib.suppress(TidelogError):
                await claim.complete("done")
        self.claims.clear()

    async def to_the_end(self) -> None:
        """Nobody holds the run up any more: it is resumed, people approve and send signals, and an honest worker does the rest."""
        engine, worker = self.engines[0], self.workers[0]
        with contextlib.suppress(TidelogError):
            await engine.give(ResumeRun(run_id=self.run_id))
        for _ in range(200):
            await engine.advance(12)
            if (await engine.run(self.run_id)).status != "running":
                await self.report()  # calls that were under way at the end of the run are paid for when they end
                return
            with contextlib.suppress(TidelogError):
                await self.signal()
            with contextlib.suppress(InvalidState):
                for approval_id in self._asked():
                    with contextlib.suppress(TidelogError):
                        await self._decide(approval_id, "approve")
            await self.report()
            for pool in POOLS:
                for delivery in await engine.queue.pull(worker.queues[pool], 20):
                    try:
                        await (await worker.claim(delivery)).complete("done")
                    except TidelogError:
                        await delivery.ack()
        raise AssertionError("the run has not ended")


@pytest.mark.parametrize(("seed", "reactions"), [(seed, seed % 2 == 0) for seed in range(30)])
async def test_no_order_of_steering_loses_doubles_or_overspends(engine: Engine, seed: int, reactions: bool) -> None:
    play = Play(engine, seed, reactions=reactions)
    await play.begin()
    for _ in range(120):
        await play.act()
        await _budget_holds(engine, play.run_id)
    await play.to_the_end()
    await engine.settled()
    assert engine.checkpoints.parked == {}
    allowance = await _budget_holds(engine, play.run_id)
    assert not allowance.held, "nobody holds anything of a budget of a run that is over"
    _each_call_begins_as_it_may(engine)
    _nothing_begins_in_a_pause(engine, play.run_id)


async def _budget_holds(engine: Engine, run_id: UUID) -> Allowance:
    state: Allowance = (await engine.commands.load(allowances.DECIDER, TENANT, allowance_of_run(run_id))).state
    assert LIMIT.short(state.used, NOTHING) is None and not state.overrun
    begun = {event.stream_id for event in engine.log.events if event.topic == "invocation.attempt_started"}
    assert LIMIT.calls is not None and len(begun) <= LIMIT.calls
    return state


def _each_call_begins_as_it_may(engine: Engine) -> None:
    for stream_id, events in engine.log.streams.items():
        topics = [event.topic for event in events]
        if "invocation.requested" not in topics:
            continue
        is_held = False
        requested: Any = engine.commands.registry.decoded(events[0])
        for recorded in events:
            if recorded.topic in ("invocation.held", "invocation.released"):
                is_held = recorded.topic == "invocation.held"
            elif recorded.topic == "invocation.attempt_started":
                assert not is_held, f"the call {stream_id} began without its approval"
        assert requested.tool != "mail" or "invocation.held" in topics or requested.refused
        assert requested.idempotent or topics.count("invocation.attempt_started") <= 1, "an effect that must not happen twice"


def _nothing_begins_in_a_pause(engine: Engine, run_id: UUID) -> None:
    is_paused = False
    for event in engine.log.events:
        if event.root_id == run_id and event.topic in ("run.paused", "run.resumed", "run.retried"):
            is_paused = event.topic == "run.paused"
        elif event.root_id == run_id and event.topic in BEGINS:
            assert not is_paused, event
