"""Paused runs through the product's own catalog, in memory: agents and calls stop, nothing begins, and all goes on where it was."""

import contextlib
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest

from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import WorkerSession
from domain.errors import InvalidState, RunIsPaused, StaleAttempt, TidelogError
from domain.failures import Failure, Retry
from domain.invocations import FailInvocation
from domain.runs import CancelRun, PauseRun, Plan, ResumeRun, Step, child_id_of, parallel
from tests.kit.engine import RETRY, Claim, Engine, PlayedWorker, plan
from tests.kit.waiting import TENANT

PAUSES = {"run.paused", "run.resumed", "run.pause_lifted"}


async def pause(engine: Engine, run_id: UUID) -> None:
    await engine.give(PauseRun(run_id=run_id, reason="look first"))
    await engine.settled()


async def resume(engine: Engine, run_id: UUID) -> None:
    await engine.give(ResumeRun(run_id=run_id))
    await engine.settled()


async def asked_by_a_session(engine: Engine, worker: PlayedWorker, item: WorkItem) -> Any:
    """What a session gets that claims an item of the queue."""
    session = WorkerSession(uuid4(), TENANT, "worker-1", "key:test", uuid4(), "0")
    return await engine.workers.sessions.claim(worker.caller, session, item, uuid4())


# --- agents ---------------------------------------------------------------------------------------------------------------


async def test_an_agent_is_taken_from_its_worker_and_goes_on_from_its_journal(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", "beta")
    alpha = await worker.next("alpha")
    await alpha.step("k", "kept")
    await pause(engine, run_id)
    assert engine.of_stream(alpha.work_id)[-1] == "agent_run.paused"
    for report in (alpha.complete, alpha.fail):
        with pytest.raises(StaleAttempt):
            await report()
    assert await worker.nothing_to_take("alpha")
    assert alpha.work_id not in engine.open_work.rows
    await resume(engine, run_id)
    again = await worker.next("alpha")
    assert (again.attempt, [entry.key for entry in again.given.journal.entries]) == (2, ["k"])
    assert (await engine.agent_run(alpha.work_id)).lost_claims == 1, "the new claim; the old one was not lost"
    await again.complete()
    await (await worker.next("beta")).complete()
    assert (await engine.run(run_id)).status == "completed"


async def test_an_agent_that_waits_for_a_worker_is_in_no_queue(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    await engine.settled()
    item = (await worker.take("alpha")).item
    await pause(engine, run_id)
    assert item.work_id not in engine.open_work.rows
    assert await asked_by_a_session(engine, worker, item) is None
    await resume(engine, run_id)
    assert await asked_by_a_session(engine, worker, item) is None, "that dispatch is over"
    again = await worker.next("alpha")
    assert (again.attempt, again.delivery.item.dispatch) == (1, 2)


async def test_pauses_do_not_count_as_lost_workers(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    for _ in range(15):
        await worker.next("alpha")
        await pause(engine, run_id)
        await resume(engine, run_id)
    await (await worker.next("alpha")).complete()
    assert (await engine.run(run_id)).status == "completed"


async def test_a_retry_that_is_due_in_a_pause_is_made_after_it(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(retry=RETRY))
    alpha = await worker.next("alpha")
    await alpha.fail("transient")
    await pause(engine, run_id)
    await engine.advance(RETRY.max_s)
    delivery = await worker.take("alpha")
    with pytest.raises(RunIsPaused, match="dispatch 2 is paused with the run"):
        await worker.claim(delivery)
    assert await asked_by_a_session(engine, worker, delivery.item) is None
    assert alpha.work_id not in engine.open_work.rows, "nobody puts it into the queue again meanwhile"
    await resume(engine, run_id)
    again = await worker.next("alpha")
    assert (again.attempt, again.delivery.item.dispatch) == (2, 3)


async def test_a_retry_that_is_not_due_keeps_its_delay(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(retry=RETRY))
    await (await worker.next("alpha")).fail("transient")
    await pause(engine, run_id)
    await resume(engine, run_id)
    assert await worker.nothing_to_take("alpha")
    await engine.advance(RETRY.max_s)
    assert (await worker.next("alpha")).attempt == 2


async def test_the_time_out_begins_anew_after_a_pause(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(timeout_s=60.0))
    alpha = await worker.next("alpha")
    await pause(engine, run_id)
    await engine.advance(100)
    assert (await engine.run(run_id)).status == "running"
    await resume(engine, run_id)
    await engine.advance(59)
    assert (await engine.agent_run(alpha.work_id)).status == "requested"
    await engine.advance(2)
    assert (await engine.run(run_id)).status == "failed"


async def test_the_time_of_before_a_pause_ends_nothing_after_it(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(timeout_s=60.0))
    await worker.next("alpha")
    await engine.advance(50)
    await pause(engine, run_id)
    await resume(engine, run_id)
    await engine.advance(55)
    assert (await engine.run(run_id)).status == "running"


async def test_agents_side_by_side_are_paused_together(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=parallel(("alpha", "beta"), "gamma"))
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    await pause(engine, run_id)
    await resume(engine, run_id)
    with pytest.raises(StaleAttempt):
        await alpha.complete()
    with pytest.raises(StaleAttempt):
        await beta.complete()
    for agent in ("alpha", "beta", "gamma"):
        await (await worker.next(agent)).complete()
    assert (await engine.run(run_id)).status == "completed"


# --- calls ----------------------------------------------------------------------------------------------------------------


async def test_a_call_that_has_begun_ends_and_its_outcome_is_there_afterwards(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "mail")
    mail = await worker.next("mail", "tool")
    await pause(engine, run_id)
    await mail.complete("sent")
    assert (await engine.invocation(call)).status == "succeeded"
    await resume(engine, run_id)
    again = await worker.next("alpha")
    assert [(entry.key, entry.status) for entry in again.given.journal.entries] == [("k", "ok")]
    assert await worker.nothing_to_take("mail", "tool")
    assert engine.of_stream(call).count("invocation.attempt_started") == 1


async def test_a_call_that_no_worker_has_begun_is_begun_after_the_pause(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "mail")
    delivery = await worker.take("mail", "tool")
    await pause(engine, run_id)
    with pytest.raises(RunIsPaused):
        await worker.claim(delivery)
    assert await asked_by_a_session(engine, worker, delivery.item) is None
    assert engine.of_stream(call) == ["invocation.requested", "invocation.paused"]
    assert await asked_by_a_session(engine, worker, delivery.item) is None
    assert call not in engine.open_work.rows
    await resume(engine, run_id)
    assert await asked_by_a_session(engine, worker, delivery.item) is None
    await (await worker.next("mail", "tool")).complete("sent")
    assert [entry.status for entry in (await worker.next("alpha")).given.journal.entries] == ["ok"]


async def test_a_call_that_failed_in_the_pause_is_tried_again_after_it(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "add", a=1)
    add = await worker.next("add", "tool")
    await pause(engine, run_id)
    await add.fail("transient")
    await engine.advance(60)
    delivery = await worker.take("add", "tool")
    assert await asked_by_a_session(engine, worker, delivery.item) is None
    await resume(engine, run_id)
    await (await worker.next("add", "tool")).complete(2)
    assert (await engine.invocation(call)).status == "succeeded"


async def test_a_paused_call_can_be_cancelled_with_its_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "add", a=1)
    await pause(engine, run_id)
    await asked_by_a_session(engine, worker, (await worker.take("add", "tool")).item)
    await engine.give(CancelRun(run_id=run_id))
    assert (await engine.run(run_id)).status == "cancelled"
    assert (await engine.invocation(call)).status == "cancelled"
    with pytest.raises(InvalidState):
        await resume(engine, run_id)


async def test_asking_about_an_effect_goes_on(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register(tools_={"book": {"idempotent": False, "reconcile_timeout_s": 5.0}})
    run_id = await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "book")
    book = await worker.next("book", "tool")
    unknown = Failure(type="Stopped", message="in the middle", kind="timeout")
    await engine.give(FailInvocation(invocation_id=call, attempt=book.attempt, error=unknown, effect="unknown"))
    assert (await engine.invocation(call)).status == "reconciling"
    await pause(engine, run_id)
    item = WorkItem(TENANT, "reconcile", "book", call, 2, run_id)
    claimed = await asked_by_a_session(engine, worker, item)
    assert (claimed.attempt, claimed.asks) == (2, True)


# --- child runs -----------------------------------------------------------------------------------------------------------


CHILD = Plan.model_validate({"steps": [{"key": "c", "run": {"plan": {"steps": [{"key": "x", "agent": "alpha"}]}}}]})


async def test_a_child_run_is_paused_and_goes_on_with_its_parent(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=CHILD)
    child = child_id_of(run_id, "c", 0)
    await worker.next("alpha")
    await pause(engine, run_id)
    paused = await engine.run(child)
    assert paused.paused and paused.pause_above is not None
    assert (paused.pause_above.reason, paused.pause_above.parent_id) == ("look first", run_id)
    with pytest.raises(InvalidState, match="resume that one"):
        await resume(engine, child)
    assert await worker.nothing_to_take("alpha")
    await resume(engine, run_id)
    assert not (await engine.run(child)).paused
    await (await worker.next("alpha")).complete("x")
    assert (await engine.run(run_id)).status == "completed"


async def test_a_child_run_that_ends_in_the_pause_of_its_parent_is_no_trouble(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=CHILD)
    child = child_id_of(run_id, "c", 0)
    await worker.next("alpha")
    await pause(engine, run_id)
    await engine.give(CancelRun(run_id=child))
    await resume(engine, run_id)
    assert (await engine.run(run_id)).status == "failed"
    assert engine.checkpoints.parked == {}


# --- any order ------------------------------------------------------------------------------------------------------------


class Play:
    """Random work of a worker that two processes serve by turns, beside pauses. Either may have an old view of any stream."""

    def __init__(self, engine: Engine, seed: int, *, reactions: bool) -> None:
        self.chance = Random(seed)
        self.engines = [engine, engine.another(reactions=reactions)]
        self.workers = [each.worker() for each in self.engines]
        self.claims: list[Claim] = []
        self.runs: list[UUID] = []

    async def begin(self) -> None:
        for worker in self.workers:
            await worker.register("alpha", "beta", tools_={"add": {"max_attempts": 3}, "mail": {"idempotent": False}})
        steps = [
            Step(key=f"s{n}", agent=self.chance.choice(("alpha", "beta")), after=(f"s{self.chance.randrange(n)}",) if n else (),
                 retry=Retry(max_attempts=3, initial_s=1.0), on_failure="continue")
            for n in range(self.chance.randint(1, 5))
        ]  # fmt: skip
        child = {"key": "child", "run": {"plan": {"steps": [{"key": "x", "agent": "alpha"}, {"key": "y", "agent": "beta"}]}}}
        self.runs.append(await self.engines[0].start(plan=Plan.model_validate({"steps": [*steps, child]})))
        self.runs.append(child_id_of(self.runs[0], "child", 0))

    async def claim(self) -> None:
        worker = self.chance.choice(self.workers)
        kind, pool = self.chance.choice([("agent", "alpha"), ("agent", "beta"), ("tool", "add"), ("tool", "mail")])
        for delivery in await worker.engine.queue.pull(worker.queues[kind, pool], 1):
            try:
                self.claims.append(await worker.claim(delivery))
            except RunIsPaused:
                assert await asked_by_a_session(worker.engine, worker, delivery.item) is None
                await delivery.ack()
            except TidelogError:
                await delivery.ack()

    async def call(self) -> None:
        claim = self._held("agent")
        await claim.call(f"k{self.chance.randint(0, 4)}", self.chance.choice(("add", "mail")), a=1)

    async def end(self) -> None:
        claim = self._held(self.chance.choice(("agent", "tool")))
        self.claims.remove(claim)
        await (
            claim.complete("done") if self.chance.random() < 0.75 else claim.fail(self.chance.choice(("transient", "permanent")))
        )

    def _held(self, kind: str) -> Claim:
        held = [claim for claim in self.claims if claim.kind == kind]
        if not held:
            raise InvalidState("nothing is held")
        return self.chance.choice(held)

    async def steer(self) -> None:
        command = self.chance.choice((PauseRun, ResumeRun))
        await self.chance.choice(self.engines).give(command(run_id=self.chance.choice(self.runs)))

    async def wait(self) -> None:
        await self.engines[0].advance(self.chance.choice((1, 5)))

    async def act(self) -> None:
        weights = {self.claim: 6, self.call: 4, self.end: 5, self.steer: 4, self.wait: 1}
        [action] = self.chance.choices(list(weights), list(weights.values()))
        with contextlib.suppress(TidelogError):
            await action()
        if self.chance.random() < 0.3:
            await self.engines[0].settled()

    async def to_the_end(self) -> None:
        """Everything is resumed, and an honest worker does what is there."""
        for run_id in self.runs:
            with contextlib.suppress(TidelogError):
                await self.engines[0].give(ResumeRun(run_id=run_id))
        for _ in range(200):
            await self.engines[0].advance(12)
            if (await self.engines[0].run(self.runs[0])).status != "running":
                return
            for kind, pool in (("agent", "alpha"), ("agent", "beta"), ("tool", "add"), ("tool", "mail")):
                worker = self.workers[0]
                for delivery in await worker.engine.queue.pull(worker.queues[kind, pool], 20):
                    try:
                        await (await worker.claim(delivery)).complete("done")
                    except TidelogError:
                        await delivery.ack()
        raise AssertionError("the run has not ended")


@pytest.mark.parametrize(("seed", "reactions"), [(seed, seed % 2 == 0) for seed in range(24)])
async def test_pauses_at_any_moment_lose_nothing_and_begin_nothing(engine: Engine, seed: int, reactions: bool) -> None:
    play = Play(engine, seed, reactions=reactions)
    await play.begin()
    for _ in range(80):
        await play.act()
    await play.to_the_end()
    assert engine.checkpoints.parked == {}
    started = [event for event in engine.log.events if event.topic == "invocation.attempt_started"]
    calls = {event.stream_id for event in started}
    for call in calls:
        state = await engine.invocation(call)
        assert state.requested is not None
        if state.requested.tool == "mail" and state.not_happened is None:
            assert engine.of_stream(call).count("invocation.attempt_started") == 1, "an effect that must not happen twice"
    _nothing_began_in_a_pause(engine, play.runs)


def _nothing_began_in_a_pause(engine: Engine, runs: list[UUID]) -> None:
    begins = {"run.step_scheduled", "run.part_scheduled", "run.step_started", "agent_run.claimed", "invocation.attempt_started"}
    paused = dict.fromkeys(runs, False)
    for event in engine.log.events:
        if event.root_id in paused and event.topic in PAUSES:
            paused[event.root_id] = event.topic != "run.resumed"
        elif event.root_id in paused and event.topic in begins:
            assert not paused[event.root_id], event
