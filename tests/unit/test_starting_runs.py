"""The use case that starts a run, the set-up of an installation, and the catalog's tables."""

from typing import Any
from uuid import UUID

import pytest

from application.catalog import CATALOG, SAGAS
from application.engine.commands.request import CommandOutcome
from application.routes import ROUTES
from application.runs import start as starting
from application.runs.start import UnknownAgent, start_run
from application.setup import set_up
from application.suggestions import did_you_mean
from domain import run_keys, runs, schedules, tenants, triggers
from domain.agent_runs import AgentRunRequested
from domain.agents import AgentRegistered, RegisterAgent, agent_id_of
from domain.errors import AlreadyExists, Unavailable
from domain.kernel import derive_id
from domain.projects import CreateProject, RemoveProject, UnknownProject, default_project_id
from domain.registry import SLICES
from domain.runs import Plan, RunStarted, Step, sequential
from domain.tenants import DEFAULT_TENANT_ID, RevokeApiKey
from tests.kit.engine import Engine
from tests.kit.memory import MemoryNames, MemoryRunReads
from tests.kit.waiting import TENANT, new_id, request_of


@pytest.fixture
async def engine() -> Engine:
    engine = Engine()
    await engine.set_up()
    for name, version in (("alpha", "1"), ("beta", "7")):
        await register(engine, name, version)
    return engine


async def register(engine: Engine, name: str, version: str, tenant_id: UUID = TENANT) -> None:
    await engine.give(RegisterAgent(agent_id=agent_id_of(tenant_id, name), name=name, version=version), tenant_id=tenant_id)


def started(engine: Engine, run_id: UUID) -> RunStarted:
    event = CATALOG.registry.decoded(engine.log.streams[run_id][0])
    assert isinstance(event, RunStarted)
    return event


async def test_each_agent_is_pinned_to_its_registered_version(engine: Engine) -> None:
    plan = Plan(steps=(Step(key="a", agent="alpha"), Step(key="b", agent="beta", agent_version="7"), Step(key="c", agent="beta")))
    run_id = await engine.start(plan=plan, input={"q": 1}, metadata={"m": 2})
    event = started(engine, run_id)
    assert [step.agent_version for step in event.plan.steps] == ["1", "7", "7"]
    assert (event.input, event.metadata, event.project_id) == ({"q": 1}, {"m": 2}, default_project_id(TENANT))
    assert [step.agent_version for step in plan.steps] == [None, "7", None], "the plan that was given stays as it is"


async def test_a_step_says_whether_its_version_was_asked_for_or_only_noted(engine: Engine) -> None:
    plan = Plan(steps=(Step(key="a", agent="alpha"), Step(key="b", agent="beta", agent_version="7")))
    async with engine.running():
        run_id = await engine.start(plan=plan)
        await engine.settled()
    assert started(engine, run_id).versions_asked == ("b",)
    events = [CATALOG.registry.decoded(event) for event in engine.log.events]
    for kind in (runs.StepScheduled, AgentRunRequested):
        found = [(event.step, event.agent_version, event.version_asked) for event in events if isinstance(event, kind)]
        assert sorted(found) == [("a", "1", False), ("b", "7", True)]
    view = (await MemoryRunReads(engine.log).get(TENANT, run_id)).value
    assert view is not None
    assert [(step.key, step.agent_version, step.version_asked) for step in view.steps] == [("a", "1", False), ("b", "7", True)]


async def test_each_registered_version_can_be_asked_for_and_the_newest_is_noted(engine: Engine) -> None:
    await register(engine, "alpha", "2")
    steps = (Step(key="old", agent="alpha", agent_version="1"), Step(key="new", agent="alpha", agent_version="2"))
    for process in (engine, engine.another()):
        event = started(engine, await process.start(plan=Plan(steps=(*steps, Step(key="any", agent="alpha")))))
        assert [step.agent_version for step in event.plan.steps] == ["1", "2", "2"]
    with pytest.raises(UnknownAgent, match="registered in versions 1 and 2, not 3"):
        await engine.start(plan=Plan(steps=(Step(key="a", agent="alpha", agent_version="3"),)))
    await register(engine, "alpha", "1")
    assert started(engine, await engine.start("alpha")).plan.steps[0].agent_version == "1", "the one that was registered last"


def test_a_step_of_before_has_its_version_noted() -> None:
    noted = runs.StepScheduled(step="a", agent="alpha", agent_version="1", agent_run_id=new_id())
    stored = CATALOG.registry.encode(noted).replace(b',"version_asked":false', b"")
    assert CATALOG.registry.decode(noted.TOPIC, 1, stored) == noted


async def test_a_plan_that_comes_again_is_pinned_to_the_version_of_then(engine: Engine) -> None:
    plan = sequential(("alpha", "beta"))
    first = await engine.start(plan=plan)
    await register(engine, "alpha", "2")
    second = await engine.start(plan=plan)
    assert [[step.agent_version for step in started(engine, run_id).plan.steps] for run_id in (first, second)] == [
        ["1", "7"],
        ["2", "7"],
    ]


async def test_more_plans_than_are_kept_are_pinned_as_well(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "_PINNED", {})
    monkeypatch.setattr(starting, "_PINNED_SIZE", 3)
    for number in range(8):
        plan = Plan(steps=(Step(key=f"k{number}", agent="beta"),))
        assert started(engine, await engine.start(plan=plan)).plan.steps[0].agent_version == "7"
        assert len(starting._PINNED) <= 3
    large = Plan(steps=tuple(Step(key=f"k{n}", agent="beta") for n in range(starting._PINNED_STEPS + 1)))
    before = len(starting._PINNED)
    await engine.start(plan=large)
    assert len(starting._PINNED) == before, "large plans hardly come twice"


@pytest.mark.parametrize(
    ("steps", "place", "message"),
    [
        ((Step(key="a", agent="gamma"),), 0, "no agent 'gamma' is registered"),
        ((Step(key="a", agent="alpha"), Step(key="b", agent="gamma")), 1, "no agent 'gamma'"),
        ((Step(key="a", agent="beta", agent_version="6"),), 0, "registered in version 7, not 6"),
    ],
)
async def test_an_agent_that_is_not_there_is_named_with_its_place(
    engine: Engine, steps: tuple[Step, ...], place: int, message: str
) -> None:
    run_id = new_id()
    with pytest.raises(UnknownAgent, match=message) as caught:
        await engine.start(plan=Plan(steps=steps), run_id=run_id)
    assert [(step, at) for step, at, _ in caught.value.refused] == [(place, "/agent")]
    assert caught.value.pointer == f"/plan/steps/{place}/agent"
    assert engine.of_stream(run_id) == []


async def test_every_agent_that_is_not_there_is_named_with_the_name_that_was_meant(engine: Engine) -> None:
    asked = ("alhpa", "alpha", "quite.another", "betta")
    with pytest.raises(UnknownAgent, match=r"no agent 'alhpa' is registered; did you mean 'alpha'\? \(and 2 more\)") as caught:
        await engine.start(plan=Plan(steps=tuple(Step(key=f"k{n}", agent=agent) for n, agent in enumerate(asked))))
    assert caught.value.faults == (
        ("/plan/steps/0/agent", "no agent 'alhpa' is registered; did you mean 'alpha'?"),
        ("/plan/steps/2/agent", "no agent 'quite.another' is registered"),
        ("/plan/steps/3/agent", "no agent 'betta' is registered; did you mean 'beta'?"),
    )
    many = Plan(steps=tuple(Step(key=f"k{n}", agent="gamma") for n in range(50)))
    with pytest.raises(UnknownAgent) as caught:
        await engine.start(plan=many)
    assert len(caught.value.faults) == 10


async def test_a_refusal_stays_a_refusal_while_the_names_cannot_be_read(engine: Engine) -> None:
    class Away:
        async def names(self, tenant_id: UUID) -> list[str]:
            raise Unavailable("away")

    with pytest.raises(UnknownAgent, match=r"no agent 'alhpa' is registered$"):
        await start_run(
            engine.commands, request_of(), run_id=new_id(), project_id=default_project_id(TENANT), plan=sequential(("alhpa",)),
            input=None, metadata={}, known=Away(), admission=engine.admission,
        )  # fmt: skip


def test_names_that_are_alike_are_found_among_many() -> None:
    known = [f"team-{n}.classifier" for n in range(150)] + ["classifier", "écrivain"]
    assert did_you_mean("classifer", known).startswith("; did you mean 'classifier'")
    assert did_you_mean("zebra", known) == ""
    assert did_you_mean("zebra", []) == ""


async def test_an_agent_of_another_tenant_is_not_there(engine: Engine) -> None:
    stranger = new_id()
    with pytest.raises(UnknownAgent):
        await engine.start("alpha", tenant_id=stranger)


async def test_what_another_process_registered_is_found(engine: Engine) -> None:
    with pytest.raises(UnknownAgent):
        await engine.start("late")
    other = engine.another()
    await register(other, "late", "1")
    await register(other, "beta", "8")
    assert started(engine, await engine.start("late")).plan.steps[0].agent_version == "1"
    pinned = Plan(steps=(Step(key="b", agent="beta", agent_version="8"),))
    assert started(engine, await engine.start(plan=pinned)).plan.steps[0].agent_version == "8"


async def test_a_project_must_be_there_and_the_default_one_always_is(engine: Engine) -> None:
    with pytest.raises(UnknownProject) as caught:
        await engine.start("alpha", project_id=new_id())
    assert caught.value.pointer == "/project_id"
    project_id = new_id()
    await engine.give(CreateProject(project_id=project_id, name="mine"))
    assert started(engine, await engine.start("alpha", project_id=project_id)).project_id == project_id
    bare = Engine()
    await register(bare, "alpha", "1")
    await bare.start("alpha")


async def test_no_run_begins_in_a_removed_project_in_any_process(engine: Engine) -> None:
    """The other process believes that the project is there: the append of the start holds only while that is true."""
    project_id, other, begun = new_id(), engine.another(), new_id()
    await engine.give(CreateProject(project_id=project_id, name="mine"))
    request = request_of(command_id=derive_id(begun, "start"), repeatable=True)
    given: dict[str, Any] = {"run_id": begun, "request": request, "project_id": project_id}
    await other.start("alpha", **given)
    await engine.give(RemoveProject(project_id=project_id))
    for process in (other, engine):
        with pytest.raises(UnknownProject, match="was removed") as caught:
            await process.start("alpha", project_id=project_id)
        assert caught.value.pointer == "/project_id"
        assert await process.start("alpha", **given) == begun, "a repeat gets its first answer"
    assert len([event for event in engine.log.events if event.topic == RunStarted.TOPIC]) == 1


async def test_the_start_of_a_run_is_repeated_whatever_was_registered_since(engine: Engine) -> None:
    run_id = new_id()
    request = request_of(command_id=derive_id(run_id, "start"), repeatable=True)
    given: dict[str, Any] = {"run_id": run_id, "request": request, "input": {"n": 1}, "metadata": {"a": 1}}
    await engine.start("alpha", "beta", **given)
    head = engine.log.head
    await register(engine, "beta", "9")
    for process in (engine, engine.another()):
        await process.start("alpha", "beta", **given)
    assert engine.log.head == head + 1


async def test_a_start_is_repeatable_for_ever(engine: Engine) -> None:
    """The log no longer recognises the command. The run itself does."""
    run_id, other = new_id(), new_id()
    request = request_of(command_id=run_id, repeatable=True)
    given: dict[str, Any] = {"run_id": run_id, "request": request, "input": {"n": 1}, "metadata": {"a": 1}}
    await engine.start("alpha", "beta", **given)
    first = await start_again(engine, "alpha", "beta", **given)
    assert first.duplicate
    await engine.give(runs.CancelRun(run_id=run_id))
    engine.log.commands.clear()
    head = engine.log.head
    for process in (engine, engine.another()):
        again = await start_again(process, "alpha", "beta", **given)
        assert (again.duplicate, again.position, again.versions[run_id], again.recorded_at) == (
            True, first.position, first.versions[run_id], first.recorded_at,
        )  # fmt: skip
        with pytest.raises(AlreadyExists, match="with another plan, input"):
            await start_again(process, "alpha", "beta", **{**given, "input": {"n": 2}})
        with pytest.raises(AlreadyExists, match=r"was started before$"):
            await start_again(process, "alpha", "beta", **{**given, "request": request_of(command_id=other)})
    assert engine.log.head == head


async def start_again(engine: Engine, *agents: str, **given: Any) -> CommandOutcome:
    project_id = default_project_id(TENANT)
    known = MemoryNames(engine.log, AgentRegistered)
    return await start_run(
        engine.commands, plan=sequential(agents), project_id=project_id, known=known, admission=engine.admission, **given
    )


BETA = Step(key="beta", agent="beta", after=("alpha",))


@pytest.mark.parametrize(
    "other",
    [
        {"input": {"n": True}},
        {"input": None},
        {"metadata": {}},
        {"plan": sequential(("beta", "alpha"))},
        {"plan": sequential(("alpha",))},
        {
            "plan": Plan(
                steps=(Step(key="alpha", agent="alpha", agent_version="2"), Step(key="beta", agent="beta", after=("alpha",)))
            )
        },
        {"plan": Plan(steps=(Step(key="alpha", agent="alpha", timeout_s=5), Step(key="beta", agent="beta", after=("alpha",))))},
    ],
)
async def test_a_start_that_says_something_else_is_refused(engine: Engine, other: dict[str, Any]) -> None:
    run_id = new_id()
    request = request_of(command_id=derive_id(run_id, "start"), repeatable=True)
    given: dict[str, Any] = {"run_id": run_id, "request": request, "input": {"n": 1}, "metadata": {"a": 1}}
    await engine.start(plan=sequential(("alpha", "beta")), **given)
    await register(engine, "alpha", "2")  # so a plan with this version could be started
    with pytest.raises(AlreadyExists):
        await engine.start(**{"plan": sequential(("alpha", "beta")), **given, **other})


async def test_a_repeat_that_names_the_version_of_then_is_the_same(engine: Engine) -> None:
    run_id = new_id()
    request = request_of(command_id=derive_id(run_id, "start"), repeatable=True)
    await engine.start("alpha", run_id=run_id, request=request)
    pinned = Plan(steps=(Step(key="alpha", agent="alpha", agent_version="1"),))
    head = engine.log.head
    await engine.start(plan=pinned, run_id=run_id, request=request)
    assert engine.log.head == head


# --- set-up ---------------------------------------------------------------------------------------------------------------


async def test_a_fresh_installation_has_a_tenant_a_project_and_a_key() -> None:
    engine = Engine()
    assert await set_up(engine.commands, key_sha256="a" * 64) == 3
    assert [event.topic for event in engine.log.events] == ["tenant.created", "project.created", "tenant.api_key_issued"]
    assert {event.tenant_id for event in engine.log.events} == {DEFAULT_TENANT_ID}
    state = (await engine.commands.load(tenants.DECIDER, DEFAULT_TENANT_ID, DEFAULT_TENANT_ID)).state
    assert (state.name, [key.sha256 for key in state.keys.values()]) == ("default", ["a" * 64])


async def test_set_up_again_adds_nothing_but_another_key() -> None:
    engine = Engine()
    assert await set_up(engine.commands, key_sha256=None) == 2
    assert await set_up(engine.another().commands, key_sha256=None) == 2
    assert await set_up(engine.commands, key_sha256="a" * 64) == 3
    assert await set_up(engine.commands, key_sha256="a" * 64) == 3
    assert await set_up(engine.another().commands, key_sha256="b" * 64) == 4
    assert engine.log.head == 4


async def test_a_key_that_was_revoked_is_not_issued_again_by_a_start() -> None:
    engine = Engine()
    await set_up(engine.commands, key_sha256="a" * 64)
    await set_up(engine.commands, key_sha256="b" * 64)
    key_id = derive_id(DEFAULT_TENANT_ID, f"key:{'a' * 64}")
    await engine.give(RevokeApiKey(tenant_id=DEFAULT_TENANT_ID, key_id=key_id), tenant_id=DEFAULT_TENANT_ID)
    await set_up(engine.another().commands, key_sha256="a" * 64)
    engine.log.commands.clear()  # long after, when the log no longer knows the command
    await set_up(engine.another().commands, key_sha256="a" * 64)
    state = (await engine.commands.load(tenants.DECIDER, DEFAULT_TENANT_ID, DEFAULT_TENANT_ID)).state
    assert [key.sha256 for key in state.keys.values()] == ["b" * 64]


# --- the catalog ----------------------------------------------------------------------------------------------------------


def test_every_slice_has_rules_and_every_topic_finds_them() -> None:
    assert set(CATALOG.deciders) == set(SLICES)
    assert set(CATALOG.rules) == set(CATALOG.registry.events)
    for topic, decider in CATALOG.rules.items():
        assert CATALOG.registry.slice_of[topic] == decider.slice


def test_commands_are_found_by_the_name_of_their_class() -> None:
    assert CATALOG.commands["StartRun"] is runs.StartRun
    assert list(CATALOG.commands.values()) == list(ROUTES), "no two of one name"
    assert CATALOG.sagas is SAGAS


@pytest.mark.parametrize("command", list(ROUTES), ids=lambda command: command.__name__)
def test_what_a_repeat_must_say_again_are_fields_of_the_command(command: Any) -> None:
    assert set(ROUTES[command].said) <= set(command.model_fields)


def test_commands_inside_a_run_have_the_run_for_their_root() -> None:
    run_id = new_id()
    own_streams = {
        runs.StartRun, runs.CompleteStep, runs.FailStep, runs.CancelRun, schedules.RunNow, schedules.FireSchedule,
        triggers.FireTrigger, run_keys.TakeKey, run_keys.ReleaseKey,
    }  # fmt: skip
    for command, route in ROUTES.items():
        if "run_id" in command.model_fields and command not in own_streams:
            assert route.root(command.model_construct(run_id=run_id), None) == run_id, command
