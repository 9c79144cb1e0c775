"""Idempotency keys: what a body says, and the id that each request makes for what it begins."""

from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from api.http.conventions.idempotency import content_of
from api.http.routes.projects import CreateProjectBody
from api.http.routes.run_bodies import StartRunBody
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.projects import create_project
from application.runs.start import StartedDifferently, start_run
from domain import agents, runs
from domain.agents import RegisterAgent, agent_id_of
from domain.errors import RepeatedDifferently
from domain.projects import CreateProject, default_project_id
from tests.kit.engine import Engine
from tests.kit.memory import MemoryNames
from tests.kit.waiting import TENANT, new_id, request_of


def content(text: str) -> UUID:
    return content_of(StartRunBody.model_validate_json(text, strict=True))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"agent": "a", "input": {"x": 1, "y": [2]}}', '{"input":{"y":[2],"x":1},"agent":"a"}', True),
        ('{"agent": "a"}', '{"agent": "a", "input": null, "metadata": {}, "project_id": null}', True),
        ('{"agent": "a"}', '{"agent": "b"}', False),
        ('{"agent": "a", "input": 1}', '{"agent": "a", "input": true}', False),
        ('{"agent": "a", "input": 1}', '{"agent": "a", "input": 1.0}', False),
        ('{"agent": "a", "input": [1, 2]}', '{"agent": "a", "input": [2, 1]}', False),
        ('{"agent": "a", "input": {"x": null}}', '{"agent": "a", "input": {}}', False),
        ('{"agent": "a", "input": "\\u00e9"}', '{"agent": "a", "input": "é"}', True),
        ('{"agent": "a", "input": 100000000000000000001}', '{"agent": "a", "input": 100000000000000000002}', False),
        ('{"agent": "a", "input": 100000000000000000001}', '{"input": 100000000000000000001, "agent": "a"}', True),
        ('{"agent": "a"}', '{"plan": {"kind": "sequential", "agents": ["a"]}}', False),
        (
            '{"plan": {"kind": "graph", "steps": [{"key": "a", "agent": "a"}]}}',
            '{"plan": {"steps": [{"agent": "a", "key": "a", "on_failure": "fail", "retry": {}}], "kind": "graph"}}', True,
        ),
    ],
)  # fmt: skip
def test_the_content_is_what_a_body_says(one: str, other: str, same: bool) -> None:
    assert (content(one) == content(other)) is same


def test_the_content_of_a_body_is_the_same_in_every_release() -> None:
    """It is stored for as long as the log knows the command."""
    assert content('{"agent": "greeter", "input": {"name": "Ada"}}') == UUID("9ef52ab6-6b76-1fda-b596-ca810120ae40")
    project = CreateProjectBody(name="Reviews", metadata={"team": "platform"})
    assert content_of(project) == UUID("51fea524-5152-4188-1825-ca90b034a824")


@pytest.fixture
async def engine() -> Engine:
    engine = Engine()
    await engine.set_up()
    await engine.give(RegisterAgent(agent_id=agent_id_of(TENANT, "alpha"), name="alpha", version="1"))
    return engine


def keyed(command_id: UUID, said: UUID | None) -> CommandRequest:
    """The request of a command with an idempotency key. `said`: None for a command that another release recorded."""
    return CommandRequest(TENANT, "test", command_id, command_id, "test", repeatable=True, content=said)


async def test_a_repeated_start_finds_the_run_of_the_first_one(engine: Engine) -> None:
    command_id, said = new_id(), uuid7()

    async def start(process: Engine, content: UUID | None, **more: Any) -> tuple[UUID, int, CommandOutcome]:
        run_id = new_id()
        values = {"project_id": default_project_id(TENANT), "input": 1, "metadata": {}, "plan": runs.sequential(("alpha",)), **more}
        names = MemoryNames(process.log, agents.AgentRegistered)
        request = keyed(command_id, content)
        outcome = await start_run(process.commands, request, run_id=run_id, known=names, admission=process.admission, **values)
        return *outcome.begun(run_id), outcome

    run_id, version, outcome = await start(engine, said)
    assert (outcome.duplicate, version) == (False, 2)
    await engine.give(runs.CancelRun(run_id=run_id))
    for process in (engine, engine.another()):
        again = await start(process, said)
        assert again[:2] == (run_id, 2), "as it was answered the first time"
        assert again[2].duplicate and again[2].position == outcome.position
        with pytest.raises(RepeatedDifferently):
            await start(process, uuid7())
    assert (await start(engine, None))[0] == run_id
    with pytest.raises(StartedDifferently, match=f"run {run_id} was started before"):
        await start(engine, None, input=True)


async def test_a_repeated_project_is_the_first_one(engine: Engine) -> None:
    command_id, said = new_id(), uuid7()

    async def create(content: UUID | None, **values: Any) -> tuple[UUID, int]:
        command = CreateProject(project_id=new_id(), **{"name": "p", "metadata": {"n": 1}, **values})
        return (await create_project(engine.commands, keyed(command_id, content), command)).begun(command.project_id)

    first = await create(said)
    assert await create(said) == first == await create(None)
    with pytest.raises(RepeatedDifferently):
        await create(uuid7())
    for other in ({"name": "q"}, {"metadata": {"n": True}}):
        with pytest.raises(RepeatedDifferently, match="with another name or other metadata"):
            await create(None, **other)
    unkeyed = CreateProject(project_id=new_id(), name="p")
    assert (await create_project(engine.commands, request_of(), unkeyed)).begun(unkeyed.project_id) == (unkeyed.project_id, 1)
