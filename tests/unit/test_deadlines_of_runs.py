"""Deadlines of runs: durable, extended by a person, and of no meaning once the run has ended."""

from uuid import UUID

import pytest

from application.runs.retry import retry_run
from application.runs.start import StartedDifferently, start_run
from application.runs.terms import Terms
from domain import agents, runs
from domain.errors import InvalidState, NotFound
from domain.plans import ChildRun, Plan, Step
from domain.projects import default_project_id
from domain.runs import EndAtDeadline, RetryRun, SetDeadline
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.memory import MemoryNames
from tests.kit.waiting import TENANT, new_id, request_of


async def started(
    engine: Engine, plan: Plan, deadline_s: float | None, *, run_id: UUID | None = None, command_id: UUID | None = None
) -> UUID:
    run_id = run_id or new_id()
    await start_run(
        engine.commands, request_of(TENANT, command_id), run_id=run_id, project_id=default_project_id(TENANT), plan=plan,
        input=None, metadata={}, terms=Terms(deadline_s), known=MemoryNames(engine.log, agents.AgentRegistered),
        admission=engine.admission,
    )  # fmt: skip
    return run_id


ALPHA = runs.sequential(("alpha",))


async def test_a_run_that_has_not_ended_by_then_fails_with_all_that_is_under_way(engine: Engine, worker: PlayedWorker) -> None:
    body = Plan(steps=(Step(key="x", agent="beta"),))
    graph = Plan(steps=(Step(key="a", agent="alpha"), Step(key="c", run=ChildRun(plan=body.model_dump(mode="json")))))
    run_id = await started(engine, graph, 60)
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    await alpha.delivery.ack()
    await beta.delivery.ack()
    await engine.advance(59)
    assert (await engine.run(run_id)).status == "running"
    await engine.advance(1)
    run = await engine.run(run_id)
    assert run.status == "failed"
    [event] = [event for event in engine.log.streams[run_id] if event.topic == "run.failed"]
    failed = engine.commands.registry.decoded(event)
    assert (failed.step, failed.error.type, failed.error.kind) == ("a", "RunDeadline", "timeout")
    assert failed.error.message == "the run did not end within the 60 s that it had"
    assert (await engine.agent_run(alpha.work_id)).status == "cancelled"
    assert (await engine.agent_run(beta.work_id)).status == "cancelled", "a child has no more time than its parent"


async def test_a_person_gives_more_time_or_takes_the_deadline_away(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await started(engine, ALPHA, 60)
    await (await worker.next("alpha")).delivery.ack()
    await engine.advance(30)
    await engine.give(SetDeadline(run_id=run_id, deadline_s=60, reason="slow"))
    await engine.advance(59)
    assert (await engine.run(run_id)).status == "running", "the first one holds no more"
    await engine.give(SetDeadline(run_id=run_id, deadline_s=None))
    await engine.advance(3_600)
    assert (await engine.run(run_id)).status == "running"
    with pytest.raises(InvalidState, match="the run has no deadline"):
        await engine.give(SetDeadline(run_id=run_id, deadline_s=None))
    await engine.give(SetDeadline(run_id=run_id, deadline_s=1))
    await engine.advance(1)
    assert (await engine.run(run_id)).status == "failed"
    with pytest.raises(InvalidState, match="the run is failed: only one that goes on has a deadline"):
        await engine.give(SetDeadline(run_id=run_id, deadline_s=1))
    with pytest.raises(NotFound, match="there is no run"):
        await engine.give(SetDeadline(run_id=new_id(), deadline_s=1))


async def test_after_its_end_a_run_has_no_deadline(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await started(engine, ALPHA, 60)
    await (await worker.next("alpha")).complete()
    await engine.advance(60)
    assert (await engine.run(run_id)).status == "completed"
    assert not engine.timers.rows
    at_once = await started(engine, Plan(steps=(Step(key="v", value="1"),)), 60)
    assert engine.of_stream(at_once)[-1] == "run.completed", "it needed no time at all"
    assert (await engine.give(EndAtDeadline(run_id=run_id, number=1))).events == ()
    assert (await engine.run(run_id)).status == "completed"


async def test_a_retried_run_has_the_time_that_the_retry_gives(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await started(engine, ALPHA, 60)
    for terms in (Terms(), Terms(30)):
        claim = await worker.next("alpha")
        await claim.fail()
        await engine.settled()
        command = RetryRun(run_id=run_id, reason="mended")
        await retry_run(engine.commands, engine.feed, request_of(), command, lambda request: request, terms=terms)
        assert (await engine.run(run_id)).deadline_s == terms.deadline_s
    await (await worker.next("alpha")).delivery.ack()
    await engine.advance(29)
    assert (await engine.run(run_id)).status == "running"
    await engine.advance(1)
    assert (await engine.run(run_id)).status == "failed"


async def test_a_repeated_start_must_say_the_same_deadline(engine: Engine, worker: PlayedWorker) -> None:
    run_id, command_id = new_id(), new_id()
    await started(engine, ALPHA, 60, run_id=run_id, command_id=command_id)
    await started(engine, ALPHA, 60, run_id=run_id, command_id=command_id)
    for other in (None, 61):
        with pytest.raises(StartedDifferently, match="with another deadline"):
            await started(engine, ALPHA, other, run_id=run_id, command_id=command_id)
