"""The matcher of triggers: once whatever is killed, loops that end, limits, misfires, projects, and what has been before."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest_asyncio

from application.engine.background import end
from application.triggers.firing import KnownTrigger
from application.triggers.index import definition_of
from application.triggers.matcher import CHECKPOINT
from domain import runs, triggers
from domain.errors import Unavailable
from domain.kernel import RecordedEvent
from domain.projects import CreateProject
from domain.starting import Target
from domain.triggers import TriggerFired, TriggerLimited, TriggerMisfired, TriggerPaused
from domain.workflows import PublishWorkflow, WorkflowDefinition, workflow_id_of
from tests.kit.engine import Engine
from tests.kit.triggers import Triggers
from tests.kit.waiting import TENANT, new_id, until

ON_END: dict[str, Any] = {"on": {"topics": ["run.step_completed"]}}
REVIEW: dict[str, Any] = {"start": {"agent": "reviewer", "input_from": {"run": "event.subject", "said": "event.data.result"}}}
OTHER_TENANT = UUID("018f0000-0000-7000-8000-00000000bbbb")


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.set_up()
    await engine.worker().register("writer", "reviewer", "second", tools_=["note"])
    async with engine.running():
        yield engine


async def finished(engine: Engine, agent: str = "writer", *, result: Any = "done", **start: Any) -> UUID:
    """A run that a worker has carried out."""
    run_id = await engine.start(agent, **start)
    worker = engine.worker()
    await worker.register(agent)
    while (await engine.run(run_id)).status == "running":
        await (await worker.next(agent)).complete(result)
    return run_id


def done(engine: Engine, run_id: UUID) -> RecordedEvent:
    """The end of the step of a run, which has the result."""
    return next(event for event in engine.log.streams[run_id] if event.topic == "run.step_completed")


def deadline(engine: Engine, run_id: UUID | None) -> float | None:
    assert run_id is not None
    [event] = [event for event in engine.log.streams[run_id] if event.topic == "run.deadline_set"]
    found = engine.commands.registry.decoded(event)
    assert isinstance(found, runs.DeadlineSet)
    return found.deadline_s


def started(engine: Engine, run_id: UUID | None) -> runs.RunStarted:
    assert run_id is not None
    event = engine.commands.registry.decoded(engine.log.streams[run_id][0])
    assert isinstance(event, runs.RunStarted)
    return event


async def test_what_happens_from_then_on_starts_a_run_with_its_input(engine: Engine) -> None:
    of = Triggers(engine)
    await finished(engine)
    await of.create("review", **ON_END, **REVIEW)
    run_id = await finished(engine, result={"text": "a"})
    async with of.matching():
        await of.settled()
    [fired] = of.told("review", TriggerFired)
    begun = started(engine, fired.run_id)
    assert begun.input == {"run": str(run_id), "said": {"text": "a"}}
    assert begun.plan.steps[0].agent == "reviewer"
    event = done(engine, run_id)
    assert begun.origin == runs.Origin(kind="trigger", name="review", event=event.name, depth=1)
    assert (fired.event, fired.depth, fired.minute) == (event.name, 1, int(event.recorded_at.timestamp() // 60))
    [first] = of.started("trigger:review")
    assert f'"causation_id":"{event.name}"' in first.metadata
    assert first.stream_id.int >> 80 == int(event.recorded_at.timestamp() * 1000), "it stands among the runs of its time"


async def test_only_events_for_which_the_condition_holds_start_something(engine: Engine) -> None:
    of = Triggers(engine)
    await of.create(
        "on.a", on={"slices": ["runs"], "when": "event.type == 'run.step_completed' && event.data.result == 'a'"}, **REVIEW
    )
    async with of.matching():
        await finished(engine, result="b")
        run_id = await finished(engine, result="a")
        await of.settled()
    assert [fired.event for fired in of.told("on.a", TriggerFired)] == [done(engine, run_id).name]
    assert not of.told("on.a", TriggerMisfired)


async def test_a_tool_is_called_once_for_each_event(engine: Engine) -> None:
    of = Triggers(engine)
    await of.create("note.ends", **ON_END, start={"tool": "note", "input": {"a": 1}, "input_from": {"run": "event.subject"}})
    async with of.matching():
        run_id = await finished(engine)
        await of.settled()
    [fired] = of.told("note.ends", TriggerFired)
    assert (fired.run_id, fired.invocation_id is None) == (None, False)
    call = await engine.invocation(fired.invocation_id)
    assert call.requested is not None
    assert call.requested.arguments == {"a": 1, "run": str(run_id)}


async def test_a_workflow_starts_by_name_and_a_plan_as_it_is_given(engine: Engine) -> None:
    of = Triggers(engine)
    parameters = {"type": "object", "properties": {"run": {"type": "string"}, "depth": {"default": 2}}, "required": ["run"]}
    plan = runs.sequential(("reviewer", "second"))
    definition = WorkflowDefinition(plan=plan, parameters=parameters, priority="low", deadline_s=50)
    publish = PublishWorkflow(workflow_id=workflow_id_of(TENANT, "review"), name="review", definition=definition)
    await engine.give(publish)
    await of.create("by.name", **ON_END, start={"workflow": "review", "input_from": {"run": "event.subject"}})
    await of.create("misfit", **ON_END, start={"workflow": "review", "input_from": {"run": "1"}})
    await of.create("missing", **ON_END, start={"workflow": "reviews"})
    steps = {"steps": [{"key": "a", "agent": "second"}, {"key": "b", "value": "1 + 1", "after": ["a"]}]}
    await of.create("planned", **ON_END, start={"plan": steps, "priority": "high", "metadata": {"m": 1}, "deadline_s": 7.5})
    async with of.matching():
        run_id = await finished(engine)
        await of.settled()
    [named] = of.told("by.name", TriggerFired)
    first = started(engine, named.run_id)
    assert (first.input, first.priority, first.workflow) == (
        {"run": str(run_id), "depth": 2}, "low", runs.WorkflowRef(name="review", version=1),
    )  # fmt: skip
    assert first.origin is not None
    assert first.origin.name == "by.name"
    [misfit] = of.told("misfit", TriggerMisfired)
    assert (misfit.code, misfit.error[:10]) == ("invalid-command", "/input/run")
    [missing] = of.told("missing", TriggerMisfired)
    assert missing.code == "unknown-workflow"
    [planned] = of.told("planned", TriggerFired)
    second = started(engine, planned.run_id)
    assert [deadline(engine, one.run_id) for one in (named, planned)] == [50, 7.5]
    assert ([step.key for step in second.plan.steps], second.priority, second.metadata) == (["a", "b"], "high", {"m": 1})
    assert second.origin is not None


async def test_nothing_is_started_twice_or_left_out_whenever_the_matcher_is_killed(engine: Engine) -> None:
    of = Triggers(engine)
    await of.create("review", **ON_END, **REVIEW)
    ended = [await finished(engine, result=number) for number in range(3)]
    for turns in (*range(0, 60, 3), 200):
        task = asyncio.create_task(of.matcher().run())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await end(task)
        if turns % 2:  # the checkpoint is lost, as after a crash of the database
            engine.checkpoints.rows.pop(CHECKPOINT, None)
    again = Triggers(engine.another())
    async with again.matching():
        await again.settled()
    assert [fired.event for fired in of.told("review", TriggerFired)] == [done(engine, id).name for id in ended]
    assert [fired.run_id for fired in of.told("review", TriggerFired)] == [
        first.stream_id for first in of.started("trigger:review")
    ]


async def test_another_reading_from_the_beginning_starts_nothing(engine: Engine) -> None:
    of = Triggers(engine)
    await of.create("review", **ON_END, **REVIEW)
    await of.create("never", on={"topics": ["run.step_completed"], "when": "event.nothing"}, **REVIEW)
    async with of.matching():
        for number in range(3):
            await finished(engine, result=number)
        await of.settled()
    head = engine.log.head
    del engine.checkpoints.rows[CHECKPOINT]
    later = Triggers(engine.another())
    async with later.matching():
        await later.settled()
    assert engine.log.head == head
    assert len(of.told("review", TriggerFired)) == 3


async def test_while_the_log_is_away_the_matcher_waits(engine: Engine) -> None:
    of = Triggers(engine)
    await of.create("review", **ON_END, **REVIEW)
    first, failures = of.firing.fire, iter([Unavailable("away"), Unavailable("away")])

    async def away(*given: Any, **named: Any) -> Any:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await first(*given, **named)

    of.firing.fire = away  # type: ignore[method-assign]
    async with of.matching():
        await finished(engine)
        await of.settled()
    assert len(of.told("review", TriggerFired)) == 1
    assert not of.told("review", TriggerMisfired)


async def test_a_loop_of_two_triggers_ends(engine: Engine) -> None:
    of = Triggers(engine)
    for name, agent in (("ping", "reviewer"), ("pong", "second")):
        other = "second" if agent == "reviewer" else "reviewer"
        when = f"event.data.result == '{other}'" if name == "pong" else "event.data.result in ['second', 'begin']"
        await of.create(
            name,
            on={"topics": ["run.step_completed"], "when": when},
            start={"agent": agent, "input_from": "event.subject"},
            max_depth=4,
        )
    async with of.matching():
        await finished(engine, result="begin")
        for _ in range(12):
            await of.settled()
            for pool in ("reviewer", "second"):
                worker = engine.worker()
                await worker.register(pool)
                while pulled := await engine.queue.pull(worker.queues["agent", pool]):
                    await (await worker.claim(pulled[0])).complete("reviewer" if pool == "second" else "second")
        await of.settled()
    depths = [fired.depth for name in ("ping", "pong") for fired in of.told(name, TriggerFired)]
    assert max(depths) == 4
    loops = [misfire for name in ("ping", "pong") for misfire in of.told(name, TriggerMisfired)]
    assert loops
    assert {misfire.code for misfire in loops} == {"loop"}
    assert "4 firings of triggers led to this event" in loops[0].error


async def test_the_event_of_a_call_without_a_run_is_as_deep_as_the_call(engine: Engine) -> None:
    of = Triggers(engine)
    await of.create("call", **ON_END, start={"tool": "note"})
    await of.create("next", on={"topics": ["invocation.requested"]}, start={"agent": "second"}, max_depth=1)
    async with of.matching():
        await finished(engine)
        await of.settled()
    assert [fired.depth for fired in of.told("call", TriggerFired)] == [1]
    assert [misfire.code for misfire in of.told("next", TriggerMisfired)] == ["loop"]


async def test_after_twenty_misfires_in_a_row_a_trigger_pauses_itself(engine: Engine) -> None:
    of = Triggers(engine)
    await of.create("broken", on={"slices": ["runs"]}, start={"agent": "reviewer", "input_from": "event.data.nothing"})
    await of.create("review", **ON_END, **REVIEW)
    async with of.matching():
        for number in range(6):
            await finished(engine, result=number)
        await of.settled()
    misfires = of.told("broken", TriggerMisfired)
    assert len(misfires) == 20
    assert {misfire.code for misfire in misfires} == {"expression"}
    assert "nothing" in misfires[0].error
    [paused] = of.told("broken", TriggerPaused)
    assert paused.because == "misfires"
    assert "20 times in a row" in paused.reason
    assert len(of.told("review", TriggerFired)) == 6, "the others go on"
    assert of.told("broken")[-1] == paused


async def test_a_misfire_names_what_the_start_met(engine: Engine) -> None:
    of = Triggers(engine)
    await of.create("unknown", **ON_END, start={"agent": "reviewr"})
    await of.create("undecided", on={"topics": ["run.step_completed"], "when": "event.data.result"}, start={"agent": "reviewer"})
    await of.create("misfit", **ON_END, start={"tool": "note", "input_from": "event.subject"})
    await of.create("blob", **ON_END, start={"agent": "reviewer", "input_from": {"$blob": "event.data.result"}}, within=())
    async with of.matching():
        await finished(engine)
        await of.settled()
    [unknown] = of.told("unknown", TriggerMisfired)
    assert (unknown.code, "did you mean 'reviewer'" in unknown.error) == ("unknown-agent", True)
    [undecided] = of.told("undecided", TriggerMisfired)
    assert (undecided.code, undecided.error) == ("expression", "when: the condition is neither true nor false")
    [misfit] = of.told("misfit", TriggerMisfired)
    assert (misfit.code, misfit.error) == ("expression", "input_from: the arguments of a tool are an object")
    assert not of.told("blob", TriggerFired), "it sees no project"


async def test_what_is_over_the_limit_is_counted_once(engine: Engine) -> None:
    of = Triggers(engine)
    await of.create("few", **ON_END, **REVIEW, max_per_minute=2)
    async with of.matching():
        for number in range(5):
            await finished(engine, result=number)
        await of.settled()
    del engine.checkpoints.rows[CHECKPOINT]
    async with of.matching():
        await of.settled()
        assert len(of.told("few", TriggerFired)) == 2
        assert sum(limited.count for limited in of.told("few", TriggerLimited)) == 3
        engine.clock.advance(60)
        await finished(engine)
        await of.settled()
    assert len(of.told("few", TriggerFired)) == 3, "another minute"


async def test_a_trigger_sees_events_of_its_projects_alone(engine: Engine) -> None:
    of, project_id = Triggers(engine), new_id()
    await engine.give(CreateProject(project_id=project_id, name="p"))
    await of.create("of.project", on={"topics": ["run.step_completed"], "project_id": project_id}, start={"agent": "reviewer"})
    await of.create("bounded", **ON_END, start={"agent": "reviewer"}, within=(project_id,))
    await of.create("elsewhere", **ON_END, start={"agent": "reviewer"}, within=(new_id(),))
    async with of.matching():
        await finished(engine)
        inside = await finished(engine, project_id=project_id)
        await of.settled()
    wanted = [done(engine, inside).name]
    assert [fired.event for fired in of.told("of.project", TriggerFired)] == wanted
    assert [fired.event for fired in of.told("bounded", TriggerFired)] == wanted
    assert not of.told("elsewhere", TriggerFired)


async def test_a_trigger_sees_events_of_its_tenant_alone(engine: Engine) -> None:
    of = Triggers(engine)
    await engine.set_up(OTHER_TENANT)
    await of.create("other", tenant_id=OTHER_TENANT, **ON_END, start={"agent": "reviewer"})
    async with of.matching():
        await finished(engine)
        await of.settled()
    assert len(of.told("other", tenant_id=OTHER_TENANT)) == 1


async def test_pauses_changes_and_removals_count_from_their_place_on(engine: Engine) -> None:
    of = Triggers(engine)
    id = await of.create("review", **ON_END, start={"agent": "reviewer", "input": 1})
    on = triggers.EventFilter(topics=("run.step_completed",))
    changed = triggers.TriggerDefinition(project_id=await _project(engine), on=on, start=Target(agent="second", input=2))
    async with of.matching():
        await finished(engine)
        await of.settled()
        await engine.give(triggers.PauseTrigger(trigger_id=id, name="review"))
        await finished(engine)
        await engine.give(triggers.ResumeTrigger(trigger_id=id, name="review"))
        await finished(engine)
        await of.settled()
        await engine.give(triggers.ChangeTrigger(trigger_id=id, name="review", definition=changed))
        await finished(engine)
        await of.settled()
        await engine.give(triggers.RemoveTrigger(trigger_id=id, name="review"))
        await finished(engine)
        await of.settled()
    assert [started(engine, fired.run_id).input for fired in of.told("review", TriggerFired)] == [1, 1, 2]


async def _project(engine: Engine) -> UUID:
    return next(event.stream_id for event in engine.log.events if event.topic == "project.created")


async def test_what_another_process_changed_is_heard_of(engine: Engine) -> None:
    """The matcher's own state of the trigger is older than the log: it must not refuse what the trigger is to do."""
    of, other = Triggers(engine), engine.another()
    id = await of.create("review", **ON_END, start={"agent": "reviewer"})
    async with of.matching():
        await finished(engine)
        await of.settled()
        await other.give(triggers.PauseTrigger(trigger_id=id, name="review"))
        await of.settled()
        await other.give(triggers.ResumeTrigger(trigger_id=id, name="review"))
        await finished(engine)
        await of.settled()
    assert len(of.told("review", TriggerFired)) == 2
    assert not of.told("review", TriggerMisfired)


async def test_a_change_that_the_matcher_has_not_reached_leaves_earlier_events_what_they_were(engine: Engine) -> None:
    of = Triggers(engine)
    id = await of.create("review", **ON_END, start={"agent": "reviewer", "input": 1})
    async with of.matching():
        await finished(engine)
        await of.settled()
    await finished(engine)
    on = triggers.EventFilter(topics=("run.failed",))
    changed = triggers.TriggerDefinition(project_id=await _project(engine), on=on, start=Target(agent="second"))
    await engine.give(triggers.ChangeTrigger(trigger_id=id, name="review", definition=changed))
    again = Triggers(engine.another())
    async with again.matching():
        await again.settled()
    assert [started(engine, fired.run_id).input for fired in of.told("review", TriggerFired)] == [1, 1]


async def test_a_log_without_triggers_is_not_read_from_its_beginning(engine: Engine) -> None:
    of = Triggers(engine)
    for number in range(3):
        await finished(engine, result=number)
    head = engine.log.head
    asked: list[int] = []
    first = engine.subscription.batches

    def noted(*, after: int, name: str) -> Any:
        asked.append(after)
        return first(after=after, name=name)

    engine.subscription.batches = noted  # type: ignore[method-assign]
    async with of.matching():
        await until(lambda: asked, "the matcher reads")
    assert asked == [head]


async def test_a_read_model_that_is_behind_misses_no_trigger(engine: Engine) -> None:
    of = Triggers(engine)
    of.stored.at = engine.log.head
    await of.create("review", **ON_END, **REVIEW)
    await finished(engine)
    async with of.matching():
        await of.settled()
    assert len(of.told("review", TriggerFired)) == 1


async def test_a_dry_run_says_what_fires_then(engine: Engine) -> None:
    of = Triggers(engine)
    id = await of.create(
        "some", on={"slices": ["runs"], "when": "event.type == 'run.step_completed' && event.data.result > 1"},
        start={"agent": "reviewer", "input_from": "event.data.result"},
    )  # fmt: skip
    async with of.matching():
        for result in (1, 2, "x", 3):
            await finished(engine, result=result)
        await of.settled()
    stored, _ = await of.stored.all()
    definition = definition_of(stored[0].definition)
    assert definition is not None
    known = KnownTrigger(TENANT, id, "other", definition)
    page = await of.tries.page(known, after=0, until=engine.log.head, examples=20)
    assert not page.more
    fired = [each for each in page.examples if "input" in each]
    own = {first.root_id for first in of.started("trigger:some")}
    assert [each["event"] for each in fired if UUID(each["event"].partition(":")[0]) not in own] == [
        each.event for each in of.told("some", TriggerFired)
    ]
    assert [each["input"] for each in fired] == [started(engine, each.run_id).input for each in of.told("some", TriggerFired)]
    assert [each["event"] for each in page.examples if "error" in each] == [each.event for each in of.told("some", TriggerMisfired)]
    assert (page.fired, page.misfired) == (2, 1)
