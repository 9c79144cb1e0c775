"""The service that fires schedules, over ports in memory and a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from application.engine.background import end
from application.plans.check import PlanChecks
from application.schedules import firing
from application.schedules.defining import ScheduleBusy, Schedules, preview
from application.schedules.firing import PUT_OFF_S, ScheduleService
from application.starting import plan_of
from application.workflows import Workflows
from domain import agents, projects, runs
from domain.amounts import BudgetAsking, BudgetLimits
from domain.errors import DomainError, InvalidCommand, NotFound, Unavailable
from domain.kernel import Event
from domain.projects import CreateProject, RemoveProject, default_project_id
from domain.schedules import DECIDER as RULES
from domain.schedules import (
    ChangeSchedule,
    CreateSchedule,
    Definition,
    PauseSchedule,
    Schedule,
    ScheduleFired,
    SchedulePaused,
    ScheduleQueued,
    ScheduleSkipped,
    When,
    schedule_id_of,
)
from domain.starting import Target
from domain.workflows import DeprecateWorkflow, PublishWorkflow, WorkflowDefinition, workflow_id_of
from domain.written_budgets import WrittenAsking, WrittenBudget
from tests.kit.engine import EXPRESSIONS, FUNCTIONS, Engine
from tests.kit.memory import MemoryNames
from tests.kit.memory.schedules import MemoryDueSchedules
from tests.kit.waiting import TENANT, new_id, request_of, turns, until

MINUTE = timedelta(minutes=1)


class NoStoredVersions:
    """A read model of workflows that has nothing yet: the log is asked."""

    async def definition(self, tenant_id: UUID, workflow_id: UUID, version: int) -> None:
        return None

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        return ()


class Clockwork:
    """An engine with agents `a` and `b`, and what fires its schedules."""

    def __init__(self, **options: Any) -> None:
        self.engine = Engine(**options)
        self.clock, self.log = self.engine.clock, self.engine.log
        self.due = MemoryDueSchedules(self.log)
        self.known = MemoryNames(self.log, agents.AgentRegistered)
        self.use = Schedules(
            self.engine.commands, self.workflows(), self.known, FUNCTIONS, self.engine.admission, PlanChecks(EXPRESSIONS)
        )

    async def set_up(self) -> "Clockwork":
        await self.engine.set_up()
        for name in ("a", "b"):
            await self.engine.give(agents.RegisterAgent(agent_id=agents.agent_id_of(TENANT, name), name=name))
        return self

    def workflows(self, engine: Engine | None = None) -> Workflows:
        return Workflows((engine or self.engine).commands, NoStoredVersions())

    def service(self, engine: Engine | None = None, due: MemoryDueSchedules | None = None) -> ScheduleService:
        engine = engine or self.engine
        return ScheduleService(
            engine.commands, due or self.due, workflows=self.workflows(engine), known=self.known, functions=FUNCTIONS,
            admission=engine.admission,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self, *services: ScheduleService) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.run()) for service in services or (self.service(),)]
        try:
            yield
            assert not [task for task in tasks if task.done()], tasks
        finally:
            await end(*tasks)

    async def create(self, name: str = "s", *, when: When | None = None, **more: Any) -> UUID:
        start = more.pop("start", None) or Target(agent="a")
        definition = Definition(when=when or When(every_s=60), start=start, **more.pop("rules", {}))
        command = CreateSchedule(
            schedule_id=schedule_id_of(TENANT, name), name=name, definition=definition, at=self.clock.now(), by="key:a",
            **{"project_id": default_project_id(TENANT), **more},
        )  # fmt: skip
        await self.use.create(request_of(TENANT), command)
        return command.schedule_id

    async def pass_(self, seconds: float) -> None:
        """Moves the clock, and waits until all that is due has been seen to."""
        self.clock.advance(seconds)
        await self.rest()

    async def rest(self) -> None:
        def at_rest() -> bool:
            now = self.clock.now()
            times = [max(at, self.due.late.get(id, at)) for id, (at, _, _) in self.due.due.items() if at is not None]
            return self.clock.next_moment is not None and all(at > now for at in times)

        await until(at_rest, "all schedules seen to")
        await turns(3)

    def events(self, id: UUID, *kinds: type[Event]) -> list[Any]:
        found = [self.engine.catalog.registry.decoded(event) for event in self.log.streams.get(id, [])]
        return [event for event in found if not kinds or isinstance(event, kinds)]

    def started(self) -> dict[UUID, runs.RunStarted]:
        return {event.stream_id: self.engine.catalog.registry.decoded(event) for event in self.log.events  # type: ignore[misc]
                if event.topic == "run.started"}  # fmt: skip

    def deadline(self, run_id: UUID) -> float | None:
        [event] = [event for event in self.log.streams[run_id] if event.topic == "run.deadline_set"]
        return self.engine.catalog.registry.decoded(event).deadline_s  # type: ignore[attr-defined, no-any-return]

    async def state(self, id: UUID) -> Schedule:
        return (await self.engine.commands.load(RULES, TENANT, id)).state  # type: ignore[no-any-return]


@pytest.fixture
async def works() -> Clockwork:
    return await Clockwork().set_up()


async def test_a_due_time_and_its_run_are_one_append(works: Clockwork) -> None:
    id = await works.create(
        start=Target(agent="a", input={"n": 1}, metadata={"m": 2}), on_behalf_of="ada", rules={"overlap": "allow"}
    )
    async with works.running():
        await works.pass_(59)
        assert not works.started()
        await works.pass_(1)
        [(run_id, run)] = works.started().items()
        [fired] = works.events(id, ScheduleFired)
        assert fired.run_id == run_id and fired.due_at == works.clock.now() == fired.at
        origin = runs.Origin(kind="schedule", name="s", due_at=fired.due_at)
        assert (run.input, run.metadata, run.origin, run.priority) == ({"n": 1}, {"m": 2}, origin, "normal")
        events = {event.topic: event for event in works.log.events if event.topic in ("schedule.fired", "run.started")}
        assert events["run.started"].position == events["schedule.fired"].position + 1
        assert '"actor":"schedule:s"' in events["run.started"].metadata and '"on_behalf_of":"ada"' in events["run.started"].metadata
        await works.pass_(60)
        assert len(works.started()) == 2


async def test_a_run_has_the_budget_of_its_schedule_or_else_of_its_workflow(works: Clockwork) -> None:
    plan = runs.sequential(("a",))
    definition = WorkflowDefinition(plan=plan, budget=WrittenBudget(calls=3, on_spent="ask", ask=WrittenAsking(roles=("owner",))))
    await works.engine.give(PublishWorkflow(workflow_id=workflow_id_of(TENANT, "digest"), name="digest", definition=definition))
    own = WrittenBudget(money="0.05", wall_s=60, on_spent="degrade")
    await works.create("own", start=Target(agent="a", budget=own))
    await works.create("workflow", start=Target(workflow="digest"))
    await works.create("both", start=Target(workflow="digest", budget=own))
    await works.create("none")
    async with works.running():
        await works.pass_(60)
    found = {run.origin.name: run.budget for run in works.started().values() if run.origin}
    degrades = runs.RunBudget(limits=BudgetLimits(money=50_000), wall_s=60, on_spent="degrade", currency="usd")
    asking = BudgetAsking(roles=("owner",))
    asks = runs.RunBudget(
        limits=BudgetLimits(calls=3), on_spent="ask", asking=asking, budget="workflow:digest", currency="usd"
    )  # fmt: skip
    assert found == {"own": degrades, "workflow": asks, "both": degrades, "none": None}
    with pytest.raises(InvalidCommand, match="this tenant counts money in usd") as refused:
        await works.create("euros", start=Target(agent="a", budget=WrittenBudget(money="1", currency="eur")))
    assert refused.value.pointer == "/start/budget/currency"


async def test_the_input_follows_from_the_time(works: Clockwork) -> None:
    await works.create("whole", start=Target(agent="a", input_from="schedule + ' at ' + due_at"))
    await works.create("fields", start=Target(agent="a", input={"n": 7, "until": "?"}, input_from={"until": "due_at"}))
    async with works.running():
        await works.pass_(60)
    at = works.clock.now().strftime("%Y-%m-%dT%H:%M:%S.000Z")
    inputs = {run.origin.name: run.input for run in works.started().values() if run.origin}
    assert inputs == {"whole": f"whole at {at}", "fields": {"until": at, "n": 7}}


async def test_a_workflow_is_started_by_its_name(works: Clockwork) -> None:
    """By its version of then, with its defaults."""
    plan = runs.sequential(("a",))
    definition = WorkflowDefinition(
        plan=plan, priority="high", metadata={"m": 1, "n": 2}, deadline_s=90,
        parameters={"type": "object", "properties": {"n": {"type": "integer", "default": 5}, "until": {"type": "string"}}},
    )  # fmt: skip
    flow = workflow_id_of(TENANT, "flow")
    await works.engine.give(PublishWorkflow(workflow_id=flow, name="flow", definition=definition))
    start = Target(workflow="flow", input_from={"until": "due_at"}, metadata={"n": 3})
    id = await works.create(start=start, rules={"overlap": "allow"})
    await works.create("soon", start=start.model_copy(update={"deadline_s": 5}), rules={"overlap": "allow"})
    pinned = await works.create("pinned", start=start.model_copy(update={"version": 1}), rules={"overlap": "allow"})
    async with works.running(works.service(works.engine.another())):
        await works.pass_(60)
        again = definition.model_copy(update={"plan": runs.sequential(("b",)), "priority": "low"})
        await works.engine.give(PublishWorkflow(workflow_id=flow, name="flow", definition=again))
        await works.pass_(60)
        await works.engine.give(DeprecateWorkflow(workflow_id=flow, name="flow", version=1))
        await works.pass_(60)
    found = [works.started()[event.run_id] for event in works.events(id, ScheduleFired)]
    deadlines = [(run.origin and run.origin.name, works.deadline(run_id)) for run_id, run in works.started().items()]
    assert set(deadlines) == {("s", 90), ("soon", 5), ("pinned", 90)}
    assert [(run.workflow and run.workflow.version, run.priority) for run in found] == [(1, "high"), (2, "low"), (2, "low")]
    assert (found[0].input["n"], found[0].metadata, found[1].plan.steps[0].agent) == (5, {"m": 1, "n": 3}, "b")
    assert len(works.events(pinned, ScheduleFired)) == 2
    [refused] = works.events(pinned, ScheduleSkipped)
    assert (refused.reason, refused.code) == ("refused", "workflow-deprecated")
    for wrong, pointer in (
        (Target(workflow="flw"), "/start/workflow"),
        (Target(workflow="flow", input={"n": "x"}), "/start/input/n"),
    ):
        with pytest.raises(DomainError) as told:
            await works.create("x", start=wrong)
        assert told.value.pointer == pointer


async def test_many_go_together_and_each_once(works: Clockwork) -> None:
    ids = [await works.create(f"s{n}") for n in range(130)]
    async with works.running(works.service(), works.service(works.engine.another())):
        await works.pass_(60)
    assert len(works.started()) == 130
    assert [len(works.events(id, ScheduleFired)) for id in ids] == [1] * 130


async def test_batches_of_one_look_are_decided_about_side_by_side(works: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firing, "BATCH", 10)
    monkeypatch.setattr(firing, "TOGETHER", 5)
    for number in range(47):
        await works.create(f"s{number}")
    decided = most = 0
    meet = works.engine.commands.meet

    async def met(*given: Any, **more: Any) -> None:
        nonlocal decided, most
        decided += 1
        most = max(most, decided)
        await asyncio.sleep(0)
        await meet(*given, **more)
        decided -= 1

    monkeypatch.setattr(works.engine.commands, "meet", met)
    async with works.running():
        await works.pass_(60)
    assert len(works.started()) == 47
    assert most == firing.BATCHES_AT_ONCE


async def test_what_other_processes_did_is_seen(works: Clockwork) -> None:
    """Their table and their cache are old: nothing happens twice, and nothing is lost."""
    id, other = await works.create(), works.engine.another()
    await other.commands.load(RULES, TENANT, id)
    await works.engine.commands.execute(
        request_of(TENANT), ChangeSchedule(schedule_id=id, changes={"start": {"agent": "b"}}, at=works.clock.now(), by="key:a")
    )
    async with works.running(works.service(other)):
        await works.pass_(60)
    [run] = works.started().values()
    assert run.plan.steps[0].agent == "b"


async def test_a_row_that_is_old_is_taken_away(works: Clockwork) -> None:
    id = await works.create()
    old = works.due.due[id]
    async with works.running():
        await works.pass_(60)
        works.due.due[id] = old
        await works.pass_(1)
        assert len(works.started()) == 1 and id not in works.due.due


async def test_a_row_that_nothing_explains_is_put_off(works: Clockwork) -> None:
    id = await works.create()
    with capture_logs() as logs:
        async with works.running():
            works.due.due[id] = (works.clock.now(), False, works.due.due[id][2])
            await works.pass_(1)
            assert works.due.late[id] == works.clock.now() + timedelta(seconds=PUT_OFF_S)
    assert [log["event"] for log in logs] == ["schedule_not_due"] and not works.started()


async def test_a_schedule_that_cannot_be_read_harms_no_other(works: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = await works.create("bad"), await works.create("good")
    load = works.engine.commands.load

    async def fails(decider: Any, tenant_id: UUID, stream_id: UUID, **options: Any) -> Any:
        if stream_id == bad:
            raise ValueError("unreadable")
        return await load(decider, tenant_id, stream_id, **options)

    monkeypatch.setattr(works.engine.commands, "load", fails)
    with capture_logs() as logs:
        async with works.running():
            await works.pass_(60)
    assert "schedule_unreadable" in {log["event"] for log in logs}
    assert works.events(good, ScheduleFired) and not works.events(bad, ScheduleFired) and bad in works.due.late


async def test_an_outage_is_waited_out(works: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    id, refusals = await works.create(), 2
    execute = works.engine.commands.execute_all

    async def away(requests: Sequence[Any]) -> Any:
        nonlocal refusals
        if refusals:
            refusals -= 1
            return [Unavailable("away") for _ in requests]
        return await execute(requests)

    monkeypatch.setattr(works.engine.commands, "execute_all", away)
    async with works.running():
        works.clock.advance(60)
        await until(lambda: bool(works.started()), "the run")
        await works.rest()
    assert len(works.events(id, ScheduleFired)) == 1


async def test_an_answer_that_is_lost_starts_no_second_run(works: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    id, lost = await works.create(), True
    execute = works.engine.commands.execute_all

    async def loses(requests: Sequence[Any]) -> Any:
        nonlocal lost
        answers = await execute(requests)
        if lost:
            lost = False
            works.engine.commands.forget()
            return [Unavailable("no answer") for _ in requests]
        return answers

    monkeypatch.setattr(works.engine.commands, "execute_all", loses)
    async with works.running():
        works.clock.advance(60)
        await until(lambda: not lost, "the first try")
        await works.rest()
    assert len(works.started()) == len(works.events(id, ScheduleFired)) == 1


async def test_missed_times_are_caught_up_with_after_one_look(works: Clockwork) -> None:
    ids = {name: await works.create(name, rules={"catch_up": name, "overlap": "allow"}) for name in ("skip", "last", "all")}
    works.clock.advance(630)
    async with works.running():
        await works.rest()
    fired = {name: works.events(id, ScheduleFired) for name, id in ids.items()}
    assert {name: len(events) for name, events in fired.items()} == {"skip": 1, "last": 1, "all": 10}
    assert fired["last"][0].caught_up == 9
    [missed] = works.events(ids["skip"], ScheduleSkipped)
    assert (missed.count, missed.reason) == (9, "missed")


async def test_a_schedule_that_misses_its_only_time_is_finished(works: Clockwork) -> None:
    id = await works.create(when=When(at=works.clock.now() + MINUTE), rules={"catch_up": "skip"})
    works.clock.advance(600)
    async with works.running():
        await works.rest()
    assert (await works.state(id)).status == "finished" and not works.started()


@pytest.mark.parametrize("overlap", ["skip", "allow", "cancel", "queue"])
async def test_a_time_that_meets_a_run(works: Clockwork, overlap: str) -> None:
    id = await works.create(rules={"overlap": overlap})
    async with works.running():
        await works.pass_(60)
        [first] = works.started()
        await works.pass_(60)
        topics = [event.topic for event in works.log.streams[first]]
        assert len(works.started()) == (2 if overlap in ("allow", "cancel") else 1)
        assert ("run.cancelled" in topics) is (overlap == "cancel")
        assert len(works.events(id, ScheduleQueued)) == (1 if overlap == "queue" else 0)
        if overlap in ("skip", "queue"):
            await works.pass_(60)
            assert len(works.events(id, ScheduleSkipped)) == 2 if overlap == "skip" else 1
            await works.engine.give(runs.CancelRun(run_id=first))
            await works.pass_(2)
            assert len(works.started()) == (2 if overlap == "queue" else 1)
            await works.pass_(58)
            [*_, last] = works.events(id)
            assert isinstance(last, ScheduleQueued if overlap == "queue" else ScheduleFired)


async def test_refused_starts_are_told_and_pause_it_in_the_end(works: Clockwork) -> None:
    project = new_id()
    await works.engine.give(CreateProject(project_id=project, name="p"))
    gone = await works.create("gone", project_id=project)
    await works.engine.give(RemoveProject(project_id=project))
    async with works.running():
        for _ in range(21):
            await works.pass_(60)
    refused = works.events(gone, ScheduleSkipped)
    assert len(refused) == 20 and {(one.reason, one.code) for one in refused} == {("refused", "unknown-project")}
    assert refused[0].message == f"project {project} was removed (/project_id)"
    [paused] = works.events(gone, SchedulePaused)
    assert paused.by is None and "20 starts in a row were refused" in paused.reason


async def test_as_many_runs_as_may_be_open() -> None:
    works = await Clockwork(max_open_runs=2).set_up()
    ids = [await works.create(f"s{n}") for n in range(4)]
    async with works.running():
        await works.pass_(60)
    assert len(works.started()) == 2
    assert sorted(len(works.events(id, ScheduleSkipped)) for id in ids) == [0, 0, 1, 1]
    [told] = [event for id in ids for event in works.events(id, ScheduleSkipped)][:1]
    assert told.code == "too-many-open-runs"


async def test_an_agent_that_changes_meanwhile_is_looked_at_again(works: Clockwork) -> None:
    id, other = await works.create(), works.engine.another()
    async with works.running(works.service(other)):
        await works.pass_(60)
        new = agents.RegisterAgent(agent_id=agents.agent_id_of(TENANT, "a"), name="a", version="2")
        await works.engine.give(new)
        await works.engine.give(runs.CancelRun(run_id=next(iter(works.started()))))
        await works.pass_(60)
    assert [run.plan.steps[0].agent_version for run in works.started().values()] == ["1", "2"]
    assert len(works.events(id, ScheduleFired)) == 2


async def test_a_clock_that_is_set_back(works: Clockwork) -> None:
    id = await works.create(rules={"overlap": "allow"})
    async with works.running():
        await works.pass_(60)
        works.clock.advance(-3600)
        await works.pass_(60)
        assert len(works.started()) == 1
        await works.pass_(3600)
    due = [event.due_at for event in works.events(id, ScheduleFired)]
    assert due == sorted(set(due)) and len(works.started()) == len(due) == 2


# --- what people do ---


async def test_what_is_not_right_is_refused_when_it_is_created(works: Clockwork) -> None:
    for start, pointer, why in (
        (Target(agent="aa"), "/start/agent", "no agent 'aa' is registered"),
        (Target(agent="a", agent_version="9"), "/start/agent", "agent 'a' is registered in version 1, not 9"),
        (Target(plan={"steps": [{"key": "k", "agent": "zz"}]}), "/start/plan/steps/0/agent", "no agent 'zz' is registered"),
        (Target(plan={"steps": [{"key": "k"}]}), "/start/plan/steps/0", ""),
        (Target(agent="a", input_from="nope"), "/start/input_from", "the expression has no value: "),
        (Target(agent="a", input_from={"x": "1 +"}), "/start/input_from/x", "the expression has no value: "),
    ):
        with pytest.raises(DomainError) as refused:
            await works.create(start=start)
        assert refused.value.pointer == pointer and refused.value.message.startswith(why), refused.value
    with pytest.raises(projects.UnknownProject):
        await works.create(project_id=new_id())
    with pytest.raises(InvalidCommand, match="never be due"):
        await works.create(when=When(at=works.clock.now()), start=Target(agent="zz"))
    assert plan_of(Target(plan={"steps": [{"key": "k", "agent": "a"}]})).steps[0].agent == "a"


async def test_a_run_out_of_turn(works: Clockwork) -> None:
    id = await works.create(start=Target(agent="a", input_from="due_at"))
    request, first = request_of(TENANT)._replace(repeatable=True), new_id()
    outcome, run_id = await works.use.run_now(request, "s", first, works.clock.now())
    assert run_id == first and outcome.versions[id] == 2 and works.started()[first].input
    with pytest.raises(ScheduleBusy) as busy:
        await works.use.run_now(request_of(TENANT), "s", new_id(), works.clock.now())
    assert busy.value.message == f"run {first} of the schedule has not ended, and its overlap is 'skip'"
    again, run_id = await works.use.run_now(request, "s", new_id(), works.clock.now())
    assert again.duplicate and run_id == first and len(works.started()) == 1
    await works.engine.commands.execute(
        request_of(TENANT), ChangeSchedule(schedule_id=id, changes={"overlap": "cancel"}, at=works.clock.now(), by="k")
    )
    await works.engine.commands.execute(request_of(TENANT), PauseSchedule(schedule_id=id, at=works.clock.now(), by="k"))
    await works.use.run_now(request_of(TENANT), "s", new_id(), works.clock.now())
    assert [event.topic for event in works.log.streams[first]][-1] == "run.cancelled" and len(works.started()) == 2
    with pytest.raises(NotFound, match="there is no schedule 'x'"):
        await works.use.run_now(request_of(TENANT), "x", new_id(), works.clock.now())


async def test_next_times_are_those_of_the_starts(works: Clockwork) -> None:
    at = works.clock.now()
    definition = Definition(when=When(every_s=60, anchored_at=at), start=Target(agent="a"), jitter_s=30)
    shown = preview("s", TENANT, definition, at, 3)
    assert len(shown) == 3 and all(at + n * MINUTE <= one < at + n * MINUTE + MINUTE / 2 for n, one in enumerate(shown, 1))
    with pytest.raises(InvalidCommand):
        preview("s", TENANT, definition.model_copy(update={"end_at": at}), at, 3)
