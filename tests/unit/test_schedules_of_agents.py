"""Agents that make schedules, over ports in memory: by the right of the agent run that a worker has claimed, and once."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from application.workers import scheduling
from application.workers.hosting.messages import EndSchedule, MakeSchedule
from application.workers.hosting.reports import carry_out
from application.workers.scheduling import AskedOfAgent, TooManySchedules
from domain import agent_runs, audit, schedules
from domain.errors import AlreadyExists, InvalidCommand, NotFound, RepeatedDifferently, StaleAttempt, Unavailable, WorkOver
from domain.kernel import Event, Json
from domain.projects import CreateProject, default_project_id
from domain.schedules import DECIDER, ChangeSchedule, CreateSchedule, Definition, Maker, Owner, PauseSchedule, RemoveSchedule
from domain.schedules import Schedule as State
from tests.kit.engine import Claim, Engine, PlayedWorker
from tests.kit.waiting import TENANT, new_id

HOURLY: dict[str, Json] = {"when": {"every_s": 3600}, "start": {"agent": "a"}}
DEFAULT = default_project_id(TENANT)
OF_A = Owner(agent="a", project_id=DEFAULT)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.set_up()
    async with engine.running():
        yield engine


async def claimed(engine: Engine, project_id: UUID | None = None, agent: str = "a") -> Claim:
    """An agent run that a worker has."""
    worker: PlayedWorker = engine.worker()
    await worker.register("a", "b")
    await engine.start(agent, project_id=project_id)
    return await worker.next(agent)


async def put(claim: Claim, name: str = "later", key: str = "k", in_s: float | None = None, definition: Any = HOURLY) -> Any:
    asked = AskedOfAgent(claim.work_id, claim.attempt, key, name)
    return (await claim.worker.engine.workers.agent_schedules.put(claim.worker.caller, asked, definition, in_s))[0]


async def remove(claim: Claim, name: str = "later", key: str = "gone", reason: str | None = None) -> Any:
    asked = AskedOfAgent(claim.work_id, claim.attempt, key, name)
    return (await claim.worker.engine.workers.agent_schedules.remove(claim.worker.caller, asked, reason))[0]


async def state(engine: Engine, name: str = "a.later") -> State:
    return (await engine.commands.load(DECIDER, TENANT, schedules.schedule_id_of(TENANT, name))).state


def events(engine: Engine, *kinds: type[Event]) -> list[Any]:
    return [engine.catalog.registry.decoded(event) for event in engine.log.events if event.topic in {kind.TOPIC for kind in kinds}]


async def test_a_schedule_is_made_in_one_append_with_the_entry_of_the_journal_and_says_who_made_it(engine: Engine) -> None:
    claim = await claimed(engine)
    made = await put(claim, definition={**HOURLY, "overlap": "allow"})
    found = await state(engine)
    assert found.created is not None and found.definition is not None
    assert found.created.made_by == Maker(agent="a", run_id=claim.given.run_id, agent_run_id=claim.work_id)
    assert (found.created.by, found.created.project_id, found.definition.overlap) == (
        f"agent_run:{claim.work_id}",
        DEFAULT,
        "allow",
    )
    assert made["status"] == "active" and made["name"] == "a.later"
    assert datetime.fromisoformat(made["next_at"]) == found.next_at
    assert (await engine.agent_run(claim.work_id)).journal["k"].result == made
    recorded = [event for event in engine.log.events if event.topic in ("agent_run.step_recorded", "schedule.created")]
    assert len({event.recorded_at for event in recorded}) == 1 and recorded[1].position == recorded[0].position + 1
    [entry] = events(engine, audit.ActionRecorded)
    assert (entry.action, entry.operation, entry.actor, entry.target_id) == ("schedules.define", "create", "key:test", "a.later")
    assert str(claim.work_id) in entry.reason


async def test_what_is_asked_again_is_there_once(engine: Engine) -> None:
    claim = await claimed(engine)
    first = await put(claim, in_s=60, definition={"start": {"agent": "a"}})
    engine.clock.advance(5)
    assert await put(claim, in_s=60, definition={"start": {"agent": "a"}}) == first, "the worker asks again under the same key"
    assert len(events(engine, schedules.ScheduleCreated, schedules.ScheduleChanged)) == 1
    assert len(events(engine, audit.ActionRecorded)) == 1
    with pytest.raises(RepeatedDifferently, match="of something else"):
        await put(claim, "another")
    with pytest.raises(RepeatedDifferently, match="of something else"):
        await remove(claim, key="k")


async def test_a_later_run_gives_the_schedule_another_definition_and_an_interval_keeps_its_times(
    engine: Engine,
) -> None:
    first = await claimed(engine)
    was = await put(first)
    await first.complete()
    engine.clock.advance(600)
    second = await claimed(engine)
    assert (await put(second))["next_at"] == was["next_at"], "the same interval goes on"
    assert events(engine, schedules.ScheduleChanged) == [] and len(events(engine, audit.ActionRecorded)) == 1
    await put(second, key="other", definition={**HOURLY, "when": {"every_s": 60}})
    found = await state(engine)
    assert found.definition is not None and found.definition.when.every_s == 60 and found.created is not None
    assert found.created.made_by is not None and found.created.made_by.agent_run_id == first.work_id
    [changed] = events(engine, schedules.ScheduleChanged)
    assert changed.by == f"agent_run:{second.work_id}"


async def test_in_so_many_seconds_is_once(engine: Engine) -> None:
    claim = await claimed(engine)
    now = engine.clock.now()
    made = await put(claim, in_s=90, definition={"start": {"agent": "b@1"}})
    assert datetime.fromisoformat(made["next_at"]) == now + timedelta(seconds=90)
    found = await state(engine)
    assert found.definition is not None and (found.definition.start.agent, found.definition.start.agent_version) == ("b", "1")


async def test_a_plan_of_a_kind_is_taken(engine: Engine) -> None:
    claim = await claimed(engine)
    await put(claim, definition={**HOURLY, "start": {"plan": {"kind": "sequential", "agents": ["a", "b"]}}})
    found = await state(engine)
    assert found.definition is not None and [step["key"] for step in (found.definition.start.plan or {})["steps"]] == ["a", "b"]


async def test_only_an_agent_of_the_name_and_the_project_may_change_it(engine: Engine) -> None:
    claim = await claimed(engine)
    await put(claim)
    other = await claimed(engine, agent="b")
    assert (await put(other))["name"] == "b.later", "each agent has names of its own"
    project_id = new_id()
    await engine.give(CreateProject(project_id=project_id, name="another"))
    there = await claimed(engine, project_id)
    made = await put(there)
    assert made["name"] == f"a.later.{project_id.hex[-12:]}"
    found = await state(engine, made["name"])
    assert found.created is not None and found.created.project_id == project_id
    assert (await remove(there, "other"))["was_there"] is False
    person = CreateSchedule(
        schedule_id=schedules.schedule_id_of(TENANT, "a.mine"), name="a.mine", project_id=DEFAULT,
        definition=Definition.model_validate(HOURLY), at=engine.clock.now(), by="key:ada",
    )  # fmt: skip
    await engine.give(person)
    with pytest.raises(AlreadyExists, match=r"a schedule 'a.mine' exists, which no agent 'a' of this project has made") as refused:
        await put(claim, "mine", "k2")
    assert refused.value.pointer == "/name"
    assert (await remove(claim, "mine", "k3"))["was_there"] is False
    assert (await state(engine, "a.mine")).status == "active"
    with pytest.raises(AlreadyExists):
        await engine.give(person.model_copy(update={"schedule_id": schedules.schedule_id_of(TENANT, "a.later"), "name": "a.later"}))


async def test_a_schedule_that_somebody_has_paused_stays_paused(engine: Engine) -> None:
    claim = await claimed(engine)
    await put(claim)
    schedule_id = schedules.schedule_id_of(TENANT, "a.later")
    await engine.give(PauseSchedule(schedule_id=schedule_id, at=engine.clock.now(), by="key:ada"))
    assert (await put(claim, key="again", definition={**HOURLY, "when": {"every_s": 60}}))["status"] == "paused"
    assert (await state(engine)).status == "paused"


async def test_it_is_removed_and_can_be_made_anew(engine: Engine) -> None:
    claim = await claimed(engine)
    await put(claim)
    assert await remove(claim, reason="all is done") == {"did": "unscheduled", "name": "a.later", "was_there": True}
    assert (await remove(claim))["was_there"] is True, "asked again under the same key"
    [gone] = events(engine, schedules.ScheduleRemoved)
    assert (gone.by, gone.reason) == (f"agent_run:{claim.work_id}", "all is done")
    assert [entry.operation for entry in events(engine, audit.ActionRecorded)] == ["create", "remove"]
    assert [entry.reason for entry in events(engine, audit.ActionRecorded)][1] == "all is done"
    assert (await put(claim, key="anew"))["status"] == "active"


async def test_whoever_has_lost_the_agent_run_schedules_nothing(engine: Engine) -> None:
    claim = await claimed(engine)
    stale = Claim(claim.worker, claim.kind, claim.work_id, claim.attempt + 1, claim.delivery, claim.view, claim.outcome)
    with pytest.raises(StaleAttempt):
        await put(stale)
    await claim.complete()
    with pytest.raises(WorkOver):
        await put(claim)
    with pytest.raises(NotFound):
        await put(Claim(claim.worker, claim.kind, new_id(), 1, claim.delivery, claim.view, claim.outcome))
    foreign = Claim(engine.worker(tenant_id=new_id()), claim.kind, claim.work_id, 1, claim.delivery, claim.view, claim.outcome)
    with pytest.raises(NotFound):
        await put(foreign)
    assert events(engine, schedules.ScheduleCreated, audit.ActionRecorded) == []


@pytest.mark.parametrize(
    ("definition", "in_s", "pointer", "said"),
    [
        ({"when": {"every_s": 0}, "start": {"agent": "a"}}, None, "/when/every_s", "at least 1"),
        ({"when": {"cron": "* * * *"}, "start": {"agent": "a"}}, None, "/when/cron", "five fields"),
        ({"start": {"agent": "a"}}, None, "/when", "missing"),
        (HOURLY, 5, "/in_s", "give either `when` or `in_s`"),
        ({**HOURLY, "start": {"agent": "nobody"}}, None, "/start/agent", "nobody"),
        ({**HOURLY, "start": "a"}, None, "/start", "object"),
        ({"when": {"at": "2001-01-01T00:00:00Z"}, "start": {"agent": "a"}}, None, "/when", "never be due"),
        ({**HOURLY, "nonsense": 1}, None, "/nonsense", "no such field"),
    ],
)
async def test_what_would_not_start_is_refused(
    engine: Engine, definition: Any, in_s: float | None, pointer: str, said: str
) -> None:
    claim = await claimed(engine)
    with pytest.raises((InvalidCommand, NotFound), match=said) as refused:
        await put(claim, definition=definition, in_s=in_s)
    assert refused.value.pointer == pointer
    assert events(engine, schedules.ScheduleCreated, agent_runs.StepRecorded) == []


async def test_a_name_that_is_too_long_with_that_of_the_agent_is_refused(engine: Engine) -> None:
    claim = await claimed(engine)
    assert (await put(claim, "x" * 98))["name"] == "a." + "x" * 98
    with pytest.raises(InvalidCommand, match="101 characters long: use at most 98"):
        await put(claim, "x" * 99, "k2")


async def test_agents_in_a_loop_come_to_an_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "MOST_OF_RUN", 2)
    monkeypatch.setattr(scheduling, "MOST_OF_PROJECT", 3)
    claim = await claimed(engine)
    for number in range(2):
        await put(claim, f"n{number}", f"k{number}")
    with pytest.raises(TooManySchedules, match="the agents of this run have made 2 schedules"):
        await put(claim, "n2", "k2")
    assert (await put(claim, "n1", "k3"))["status"] == "active", "one that is there may be put again"
    second = await claimed(engine, agent="b")
    await put(second, "n")
    with pytest.raises(TooManySchedules, match="agents of this project have 3 schedules that are not finished"):
        await put(second, "m", "k2")
    await remove(claim, "n1")
    await put(second, "m", "k2")


async def test_the_messages_of_a_session_do_it(engine: Engine) -> None:
    claim = await claimed(engine)
    about: dict[str, Any] = {"id": 1, "work": claim.work_id, "attempt": claim.attempt, "token": "t"}
    report = MakeSchedule(**about, t="schedule", key="k", name="later", definition={"start": {"agent": "a"}}, in_s=5)
    done = await carry_out(engine.workers, engine.commands, claim.worker.caller, "agent", report)
    assert isinstance(done.fields["result"], dict) and done.fields["result"]["name"] == "a.later"
    gone = EndSchedule(**about, t="unschedule", key="g", name="later")
    done = await carry_out(engine.workers, engine.commands, claim.worker.caller, "agent", gone)
    assert isinstance(done.fields["result"], dict) and done.fields["result"]["was_there"] is True
    with pytest.raises(InvalidCommand, match="the work is a tool call, which has no schedule"):
        await carry_out(engine.workers, engine.commands, claim.worker.caller, "tool", report)


async def test_while_a_process_of_before_runs_nothing_is_made(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown() -> bool:
        return False

    claim = await claimed(engine)
    monkeypatch.setattr(engine.workers.agent_schedules, "_known", unknown)
    with pytest.raises(Unavailable, match="does not know schedules"):
        await put(claim)


# --- the rules ------------------------------------------------------------------------------------------------------------------


MAKER = Maker(agent="a", run_id=new_id(), agent_run_id=new_id())


def made(made_by: Maker | None = MAKER) -> tuple[State, CreateSchedule]:
    command = CreateSchedule(
        schedule_id=new_id(), name="a.later", project_id=DEFAULT, definition=Definition.model_validate(HOURLY), at=AT, by="x",
        made_by=made_by,
    )  # fmt: skip
    return DECIDER.evolve(State(), schedules.decide(State(), command)[0]), command


@pytest.mark.parametrize("owner", [Owner(agent="b", project_id=DEFAULT), Owner(agent="a", project_id=new_id())])
def test_the_rules_refuse_another_agent_and_another_project(owner: Owner) -> None:
    schedule, command = made()
    assert schedule.is_of(OF_A) and not schedule.is_of(owner) and not State().is_of(owner)
    for asked in (
        RemoveSchedule(schedule_id=command.schedule_id, at=AT, by="x", owner=owner),
        ChangeSchedule(schedule_id=command.schedule_id, changes={}, at=AT, by="x", owner=owner),
    ):
        with pytest.raises(NotFound, match=r"^there is no such schedule of this agent$"):
            schedules.decide(schedule, asked)
        own = asked.model_copy(update={"owner": OF_A})
        schedules.decide(schedule, own)
        with pytest.raises(NotFound):
            schedules.decide(made(None)[0], own)
        schedules.decide(schedule, asked.model_copy(update={"owner": None}))


def test_the_same_content_of_another_maker_is_another_schedule() -> None:
    schedule, command = made()
    again = command.model_copy(update={"made_by": Maker(agent="a", run_id=new_id(), agent_run_id=new_id(), depth=3)})
    assert schedules.decide(schedule, again) == []
    for other in (None, Maker(agent="b", run_id=new_id(), agent_run_id=new_id())):
        with pytest.raises(AlreadyExists):
            schedules.decide(schedule, command.model_copy(update={"made_by": other}))


def test_a_removal_says_nothing_of_the_owner() -> None:
    schedule, command = made()
    [gone] = schedules.decide(schedule, RemoveSchedule(schedule_id=command.schedule_id, reason="r", at=AT, by="x", owner=OF_A))
    assert gone == schedules.ScheduleRemoved(at=AT, by="x", reason="r")
