"""All that steers runs, in random order, over the engine in memory, in two processes: pauses, priorities, retries, forks, steps
that people end, deadlines, bulk actions, keys, waits, signals, child runs, approvals, budgets of runs and of the day that stop,
degrade or ask.

Whatever comes in which order: each run ends once nobody holds it up, no call begins twice or without its approval, nothing begins
in a pause or without the key, no budget is overrun, and nobody is asked for what nobody waits for.
"""

import contextlib
from collections.abc import Iterable
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from application.budgets import paying
from application.runs.dispatching import dispatch_again
from application.runs.forking.fork import AskedFork, Forks
from application.runs.retry import retry_run
from application.runs.start import start_run
from application.runs.terms import Terms
from application.workers.children import ChildRuns
from application.workflows import Workflows
from application.workflows.children import Children
from application.workflows.versions import Versions
from domain import agents, allowances, approvals, runs
from domain.agent_runs import StartWait, SuspendAgentRun
from domain.allowances import Allowance, ChangeAllowance, LiftAllowance, allowance_of_run
from domain.amounts import NOTHING, Amounts, BudgetAsking, BudgetLimits
from domain.approvals import Approval, DecideApproval
from domain.budgets import Covered, SetBudget, book_id_of
from domain.bulk_actions import BulkOrder, SignalSaid
from domain.concurrency import Concurrency
from domain.errors import InvalidState, RunIsPaused, TidelogError
from domain.failures import Failure, Retry
from domain.kernel import PRIORITIES
from domain.plans import Plan, Step
from domain.runs import (
    ByPerson,
    CancelRun,
    ChangePriority,
    ForceStep,
    PauseRun,
    ResumeRun,
    RetryRun,
    RunBudget,
    SetDeadline,
    SignalRun,
    SkipStep,
)
from domain.tool_policy import ToolPolicy
from tests.kit.engine import Claim, Engine
from tests.kit.memory import MemoryNames
from tests.kit.memory.schedules import NoStoredVersions
from tests.kit.waiting import TENANT, new_id, request_of
from tests.unit.test_approved_calls import deciding
from tests.unit.test_bulk_work import World
from tests.unit.test_paused_runs import asked_by_a_session
from tests.unit.test_run_keys import PROJECT, check_turns
from tests.unit.test_run_keys import holder as key_of

TOOLS: dict[str, dict[str, Any]] = {
    "add": {"max_attempts": 3},
    "mail": {"idempotent": False, "policy": ToolPolicy(approval=True)},
    "once": {"idempotent": False},
    "dear": {"policy": {"max_cost": {"money": "0.01"}, "fallbacks": ["guarded", "cheap"]}},
    "cheap": {"policy": {"max_cost": {"money": "0.001"}}},
    "guarded": {"policy": {"max_cost": {"money": "0.001"}, "approval": True}},
}
LIMIT = BudgetLimits(calls=2, money=15_000)
OF_DAY = BudgetLimits(calls=3)
MORE = Amounts(calls=1, money=11_000)
PERSON = ByPerson(by="key:ann", reason="known")
MOST_RUNS = 5
SEEDS = range(20)
POOLS = [("agent", "alpha"), ("agent", "beta"), *(("tool", tool) for tool in TOOLS)]
BEGINS = {"run.step_scheduled", "run.part_scheduled", "run.step_started", "agent_run.claimed", "invocation.attempt_started"}


class Play:
    def __init__(self, engine: Engine, seed: int, *, reactions: bool) -> None:
        self.chance = Random(seed)
        self.engines = [engine, engine.another(reactions=reactions)]
        self.workers = [each.worker() for each in self.engines]
        self.claims: list[Claim] = []
        self.runs: list[UUID] = []
        self.key = self.chance.choice(("deploy", None))
        self.bulk = World(engine)
        self.days = [0, 0]
        """Midnight comes to each process at a moment of its own."""
        self.engines[0].workers.budgets.books._clock = lambda: engine.clock.now() + timedelta(days=self.days[0])
        self.engines[1].workers.budgets.books._clock = lambda: engine.clock.now() + timedelta(days=self.days[1])

    async def begin(self) -> None:
        for worker in self.workers:
            await worker.register("alpha", "beta", tools_=TOOLS)
        if self.chance.random() < 0.4:
            asks = self.chance.choice(("ask", "ask", "stop"))
            await self.engines[0].give(
                SetBudget(book_id=book_id_of(TENANT), covered=Covered(scope="tenant"), limits=OF_DAY, on_spent=asks, by="key:boss")
            )
        await self.start(4)

    async def start(self, most: int = 2) -> None:
        if len(self.runs) == MOST_RUNS:
            raise InvalidState("enough")
        steps = [
            Step(key=f"s{n}", agent=self.chance.choice(("alpha", "beta")), after=(f"s{self.chance.randrange(n)}",) if n else (),
                 retry=Retry(max_attempts=2, initial_s=1.0), on_failure=self.chance.choice(("continue", "fail")))
            for n in range(self.chance.randint(1, most))
        ]  # fmt: skip
        asking = BudgetAsking(
            deadline_s=self.chance.choice((None, 40.0)), default=self.chance.choice(("deny", "approve")),
            add=self.chance.choice((None, MORE)),
        )  # fmt: skip
        budget = RunBudget(
            limits=LIMIT, on_spent=self.chance.choice(("stop", "degrade", "ask", "ask")), asking=asking,
            wall_s=self.chance.choice((None, None, 200.0)),
        )  # fmt: skip
        key = (
            None
            if self.key is None
            else Concurrency(key=self.key, on_busy=self.chance.choice(("queue", "queue", "reject", "replace")))
        )
        run_id, engine = new_id(), self.one if self.runs else self.engines[0]
        await start_run(
            engine.commands, request_of(), run_id=run_id, project_id=PROJECT, plan=Plan(steps=tuple(steps)), input=None,
            metadata={}, budget=budget, terms=Terms(self.chance.choice((None, 300.0)), key), admission=engine.admission,
            known=MemoryNames(engine.log, agents.AgentRegistered),
        )  # fmt: skip
        self.runs.append(run_id)

    @property
    def run_id(self) -> UUID:
        return self.chance.choice(self.runs)

    @property
    def one(self) -> Engine:
        return self.chance.choice(self.engines)

    def held(self, kind: str) -> Claim:
        held = [claim for claim in self.claims if claim.kind == kind]
        if not held:
            raise InvalidState("nothing is held")
        return held[-1] if self.chance.random() < 0.7 else self.chance.choice(held)

    async def claim(self) -> None:
        worker = self.chance.choice(self.workers)
        for pool in self.chance.sample(POOLS, len(POOLS)):
            for delivery in await worker.engine.queue.pull(worker.queues[pool], 1):
                try:
                    self.claims.append(await worker.claim(delivery))
                except RunIsPaused:
                    assert await asked_by_a_session(worker.engine, worker, delivery.item) is None
                    await delivery.ack()
                except TidelogError:
                    await delivery.ack()
                return

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
        """Most pauses are short."""
        run_id = self.run_id
        paused = (await self.engines[0].commands.load(runs.DECIDER, TENANT, run_id)).state.paused
        likely, other = (ResumeRun, PauseRun) if paused else (PauseRun, ResumeRun)
        await self.one.give((likely if self.chance.random() < 0.9 else other)(run_id=run_id))

    async def prioritize(self) -> None:
        await self.one.give(ChangePriority(run_id=self.run_id, priority=self.chance.choice(PRIORITIES)))

    async def retry(self) -> None:
        engine, command = self.one, RetryRun(run_id=self.run_id, fresh=self.chance.random() < 0.3)
        await retry_run(engine.commands, engine.feed, request_of(), command, lambda request: request)

    async def cancel(self) -> None:
        await self.one.give(CancelRun(run_id=self.run_id))

    async def fork(self) -> None:
        if len(self.runs) == MOST_RUNS:
            raise InvalidState("enough")
        engine, run_id, fork_id = self.one, self.run_id, new_id()
        children = Children(engine.commands, Versions(engine.commands, NoStoredVersions()))
        asked = self.chance.choice((AskedFork(), AskedFork(step="s0"), AskedFork(position=engine.log.head)))
        await Forks(engine.commands, engine.feed, engine.histories, children).fork(
            request_of(), run_id, asked, fork_id=fork_id, known=MemoryNames(engine.log, agents.AgentRegistered),
            admission=engine.admission,
        )  # fmt: skip
        self.runs.append(fork_id)

    async def say(self) -> None:
        """A person ends a step, or has its work dispatched again."""
        engine, run_id, step = self.one, self.run_id, f"s{self.chance.randrange(4)}"
        error = Failure(type="No", message="no", kind="permanent")
        match self.chance.randrange(4):
            case 0:
                await engine.give(SkipStep(run_id=run_id, step=step, person=PERSON))
            case 1:
                await engine.give(ForceStep(run_id=run_id, step=step, person=PERSON, error=self.chance.choice((None, error))))
            case 2:
                await dispatch_again(
                    engine.commands, request_of(), lambda it: it, run_id=run_id, step=step, call=None, person=PERSON
                )
            case _:
                claim = self.held("agent")
                calls = (await engine.agent_run(claim.work_id)).pending_calls
                of_run = claim.given.run_id
                where = (await engine.agent_run(claim.work_id)).requested
                assert where is not None
                for call in calls:
                    await dispatch_again(
                        engine.commands, request_of(), lambda it: it, run_id=of_run, step=where.step, call=call, person=PERSON
                    )

    async def deadline(self) -> None:
        await self.one.give(SetDeadline(run_id=self.run_id, deadline_s=self.chance.choice((None, 30.0, 500.0))))

    async def tell_all(self) -> None:
        """A bulk action, about whatever there is."""
        verb = self.chance.choices(("pause", "resume", "signal", "retry", "cancel"), (1, 5, 2, 2, 0.3))[0]
        signal = SignalSaid(name="go") if verb == "signal" else None
        id = await self.bulk.begin(BulkOrder(verb=verb, reason="r", signal=signal))
        service = self.bulk.service(self.one)
        while await service.go_on(TENANT, id):
            if self.chance.random() < 0.3:
                with contextlib.suppress(TidelogError):
                    await self.claim()

    async def give(self) -> None:
        """Of a budget: more, or other rules."""
        run_id = self.run_id
        place: dict[str, Any] = {"allowance_id": allowance_of_run(run_id), "root_id": run_id}
        if self.chance.random() < 0.5:
            await self.one.give(LiftAllowance(**place, extra=MORE, by="key:boss", reason="r"))
            return
        state = await allowance_of(self.engines[0], place["allowance_id"])
        on_spent = self.chance.choice(("ask", "ask", "degrade", "stop"))
        await self.one.give(ChangeAllowance(**place, limits=state.limits, on_spent=on_spent))

    async def midnight(self) -> None:
        self.days[self.chance.randrange(2)] += 1

    async def signal(self) -> None:
        await self.one.give(SignalRun(run_id=self.run_id, signal_id=new_id(), name="go", payload=1))

    async def decide(self) -> None:
        await self._decide(self.chance.choice(self.asked()), self.chance.choice(("approve", "approve", "deny")))

    def asked(self, *, must: bool = True) -> list[UUID]:
        asked = [event.stream_id for event in self.engines[0].log.events if event.topic == "approval.requested"]
        if not asked and must:
            raise InvalidState("nobody asks")
        return asked

    async def _decide(self, approval_id: UUID, decision: Any) -> None:
        command = DecideApproval(approval_id=approval_id, decision=decision, by="key:boss", role="admin")
        await deciding(self.engines[0]).decide(request_of(TENANT), command, lambda request: request)

    async def time(self) -> None:
        await self.engines[0].advance(self.chance.choice((1, 5, 15)))

    async def act(self) -> None:
        weights = {
            self.claim: 9, self.call: 9, self.wait_for: 3, self.suspend: 2, self.end: 6, self.steer: 2, self.prioritize: 2,
            self.retry: 2, self.cancel: 0.3, self.signal: 1, self.decide: 3, self.time: 1, self.start: 1, self.fork: 0.5,
            self.say: 0.7,
            self.deadline: 0.3, self.tell_all: 0.5, self.give: 0.4, self.midnight: 0.3,
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
        """Nobody holds the runs up any more: they are resumed, people approve and send signals, an honest worker does the rest."""
        engine, worker = self.engines[0], self.workers[0]
        for run_id in self.runs:
            with contextlib.suppress(TidelogError):
                await engine.give(ResumeRun(run_id=run_id))
        left = list(self.runs)
        for _ in range(200):
            await engine.advance(12)
            before, left = left, [run_id for run_id in self.runs if (await engine.run(run_id)).status == "running"]
            if not left and not before:
                await self.report()  # calls that were under way at the end of the run are paid for when they end
                return
            for run_id in left:
                with contextlib.suppress(TidelogError):
                    await engine.give(SignalRun(run_id=run_id, signal_id=new_id(), name="go", payload=1))
            with contextlib.suppress(InvalidState):
                for approval_id in self.asked():
                    with contextlib.suppress(TidelogError):
                        await self._decide(approval_id, "approve")
            await self.report()
            for pool in POOLS:
                for delivery in await engine.queue.pull(worker.queues[pool], 20):
                    try:
                        await (await worker.claim(delivery)).complete("done")
                    except TidelogError:
                        await delivery.ack()
        raise AssertionError(f"runs have not ended: {left}")


@pytest.mark.parametrize(("seed", "reactions"), [(seed, seed % 2 == 0) for seed in SEEDS])
async def test_no_order_of_steering_loses_doubles_or_overspends(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seed: int, reactions: bool
) -> None:
    monkeypatch.setattr(paying, "GRACE_S", 0.01)
    monkeypatch.setattr(paying, "RECALL_S", 0.1)
    play = Play(engine, seed, reactions=reactions)
    await play.begin()
    for _ in range(120):
        await play.act()
        await _budgets_hold(engine)
    await play.to_the_end()
    await engine.settled()
    assert engine.checkpoints.parked == {}
    for allowance in await _budgets_hold(engine):
        assert not allowance.held, "nobody holds anything of a budget when all is over"
        assert not (allowance.line.places or allowance.line.is_open or allowance.line.refused), "no call waits"
    for approval_id in play.asked(must=False):
        state: Approval = (await engine.commands.load(approvals.DECIDER, TENANT, approval_id)).state
        assert state.status != "open", "nobody waits for the answer"
    assert (await key_of(engine)).holder is None and not (await key_of(engine)).waiting
    if play.key is not None:
        check_turns(engine, set(play.runs))
    _each_call_begins_as_it_may(engine)
    _nothing_begins_in_a_pause(engine, play.runs)


async def allowance_of(engine: Engine, allowance_id: UUID) -> Allowance:
    state: Allowance = (await engine.commands.load(allowances.DECIDER, TENANT, allowance_id)).state
    return state


async def _budgets_hold(engine: Engine) -> list[Allowance]:
    """All budgets as they are now."""
    opened = {event.stream_id: event.root_id for event in engine.log.events if event.topic == "allowance.opened"}
    begun = {event.stream_id: event.root_id for event in engine.log.events if event.topic == "invocation.attempt_started"}
    found = []
    for allowance_id, root_id in opened.items():
        state = await allowance_of(engine, allowance_id)
        assert state.limits.short(state.used, NOTHING) is None and not state.overrun
        assert state.limits.calls is not None and list(begun.values()).count(root_id) <= state.limits.calls
        found.append(state)
    return found


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


def _nothing_begins_in_a_pause(engine: Engine, started: Iterable[UUID]) -> None:
    """Nor before a run has its key."""
    stands: dict[UUID, set[str]] = {run_id: set() for run_id in started}
    for event in engine.log.events:
        why = stands.get(event.root_id)
        if why is None:
            continue
        match event.topic if event.stream_id == event.root_id or event.topic in BEGINS else None:
            case "run.paused":
                why.add("paused")
            case "run.resumed":
                why.discard("paused")
            case "run.queued":
                why.add("queued")
            case "run.begun":
                why.discard("queued")
            case "run.retried":
                why.clear()
            case topic if topic in BEGINS:
                assert not why, event
