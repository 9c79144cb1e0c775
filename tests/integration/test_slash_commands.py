"""Slash commands with a real worker that has the example agents: a line gives work, or asks for a list."""

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from api.cli.main import app
from application.slash_commands.templates import NAMES, text_of
from application.workflows.written import read_workflow
from application.workflows.yaml_text import load
from examples.crew import agents
from tests.integration.sdk_kit import KEY, Server, running, serving
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database, new_id
from tests.pace import within
from tests.pages import block, blocks
from tidelog import Client
from tidelog.commands import CommandPage, CommandRun
from tidelog.errors import AuthenticationError, ConflictError, InvalidRequestError, NotFoundError, PermissionDeniedError

CREW = (agents.Planner, agents.Writer, agents.Builder, agents.Tester, agents.Critic, agents.Judge)
PAGE = "docs/how-to/give-work-by-a-slash-command.md"
LINE = "/task Write release notes, then send the customer's letter"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with fresh_database(services) as url, serving(url, services.nats_url, folder) as server, running(server.url, *CREW):
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def http(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, headers={"X-API-Key": KEY}, timeout=60) as http:
        yield http


async def done(client: Client, line: str, **options: Any) -> tuple[CommandRun, Any]:
    """The run that a line has started, and its result at the end."""
    started = await client.command(line, wait_s=60, **options)
    assert isinstance(started, CommandRun) and started.run is not None
    assert started.run.status == "completed", started.run.error
    return started, started.run.result


async def test_the_shipped_commands_work_with_the_example_agents(client: Client) -> None:
    task, result = await done(client, LINE)
    assert (task.command, task.workflow) == ("task", None)
    assert task.input == {"text": LINE.removeprefix("/task "), "agent": "writer", "rounds": 3}
    assert result["good"] and result["notes"] == [] and "- [ ] Send the customer's letter" in result["draft"]

    _, once = await done(client, "/task Write it agent=builder rounds=1")
    assert not once["good"] and "## 1. Write it" in once["draft"], "another agent did it, and nobody made it better"

    feature, built = await done(client, "/feature Export reports as CSV, and link the export from the page")
    assert feature.run is not None and feature.run.missing == ()
    assert (built["approved"], built["tests"]) == (True, ["test_export_reports", "test_link_export_page"])
    _, untested = await done(client, "/feature Thank everybody tests=auto")
    assert untested["tests"] == []
    degraded, open_ = await done(client, "/feature Export reports as CSV, or as JSON?")
    assert degraded.run is not None and degraded.run.missing == ("approval",)
    assert (open_["approved"], open_["notes"]) == (False, ["a question is open that only a person can answer"])
    assert "## Done when" in open_["change"]

    _, won = await done(client, "/swarm Write an invitation, then send it size=3")
    assert won["variant"] == 0 and sorted(vote["best"] for vote in won["votes"]) == [0, 0, 2]


async def test_a_query_gives_the_page_of_the_list(client: Client, http: httpx2.AsyncClient) -> None:
    started, _ = await done(client, "/task Count the boats rounds=1")
    position = {"Tidelog-Position": str(started.run and started.run.position)}
    same = [
        ("/query agent=critic status=completed limit=1", "/v1/runs", {"agent": "critic", "status": "completed", "limit": 1}),
        ("/query status=degraded since=2020-01-01", "/v1/runs", {"status": "degraded", "started_after": "2020-01-01T00:00:00Z"}),
        ("/query of=invocations asked_by=client", "/v1/invocations", {"asked_by": "client"}),
        (f"/query of=messages run={started.run_id}", f"/v1/runs/{started.run_id}/messages", {}),
    ]
    for line, path, params in same:
        asked = await http.post("/v1/commands", json={"text": line}, headers=position)
        listed = await http.get(path, params=params, headers=position)
        assert (asked.status_code, asked.json()) == (200, listed.json()), line
        there = await http.get(f"/v1/{asked.headers['content-location']}", headers=position)
        assert there.json() == listed.json(), line
    [first, _] = [await http.post("/v1/commands", json={"text": same[0][0]}, headers=position), None]
    link = first.headers["link"].removeprefix("<").partition(">")[0]
    following = (await http.get(f"/v1/{link}")).json()
    cursor = first.json()["next_cursor"]
    again = await client.command(f"/query agent=critic status=completed limit=1 cursor={cursor}")
    assert isinstance(again, CommandPage) and list(again.data) == following["data"] != first.json()["data"]
    planned = await http.post("/v1/commands", json={"text": "/query agent=critic limit=2", "dry_run": True})
    assert planned.json() == {"command": "query", "list": "/v1/runs?agent=critic&limit=2"}


async def test_a_refusal_says_what_helps(client: Client, http: httpx2.AsyncClient) -> None:
    told = {
        "task Write": (422, "bad-command-line", "begins with `/`"),
        "/taks Write": (404, "unknown-command", "did you mean 'task'?"),
        "/task": (422, "bad-command-line", "/task needs a text"),
        "/swarm Write size=99": (422, "bad-command-line", "'size' at character 14: 99 is greater than the maximum of 20"),
        "/task Write agent=Nobody": (422, "bad-command-line", "'agent' at character 13: it is no name of an agent"),
        "/task Write agent=writr": (404, "unknown-agent", "did you mean 'writer'? (if /task is the shipped command: it is"),
        "/query everything": (422, "bad-command-line", "Filters of runs: of=, agent="),
    }
    for line, (status, code, words) in told.items():
        answer = await http.post("/v1/commands", json={"text": line})
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (status, code), line
        assert words in problem["detail"], line
        assert [one["pointer"] for one in problem["errors"]] == ["/text"], line


async def test_an_own_workflow_goes_in_front_of_a_shipped_command(client: Client) -> None:
    shipped = await client.slash_command("task")
    written = read_workflow(load(text_of("task")))
    name, changed = written.pop("name"), {**written, "metadata": {"by": "us"}}
    assert (shipped.source, shipped.definition["name"]) == ("shipped", name)
    key, run_id = str(new_id()), new_id()
    before = await client.command(LINE, idempotency_key=key)
    raw = {"text": LINE, "run_id": str(run_id)}
    first = await client.transport.request("POST", "/v1/commands", body=raw, retry=client.retry)

    await client.publish_workflow("task", changed)
    mine, _ = await done(client, LINE)
    assert mine.workflow is not None and (mine.workflow.name, mine.workflow.version) == ("task", 1)
    assert mine.run is not None and mine.run.metadata == {"by": "us"}
    assert (await client.slash_command("task")).workflow_version == 1

    async def listed() -> bool:
        return {one.name: one.source for one in await client.slash_commands()}["task"] == "workflow"

    await eventually(listed, "the own command in the list")
    assert [one.name for one in await client.slash_commands()] == ["feature", "query", "swarm", "task"]

    again = await client.command(LINE, idempotency_key=key)
    assert isinstance(before, CommandRun) and isinstance(again, CommandRun) and again.run_id == before.run_id
    with pytest.raises(InvalidRequestError) as reused:
        await client.command("/task Write something else", idempotency_key=key)
    assert reused.value.code == "idempotency-key-reused"
    repeated = await client.transport.request("POST", "/v1/commands", body=raw, retry=client.retry)
    assert repeated.json()["run_id"] == first.json()["run_id"] == str(run_id)
    with pytest.raises(ConflictError):
        await client.transport.request("POST", "/v1/commands", body={**raw, "text": f"{LINE} x"}, retry=client.retry)

    await client.deprecate_workflow("task", reason="the shipped one is better")
    back, _ = await done(client, LINE)
    assert back.workflow is None


async def test_the_check_of_plans_finds_nothing_wrong_with_a_shipped_command(http: httpx2.AsyncClient) -> None:
    for name in NAMES:
        written = read_workflow(load(text_of(name)))
        checked = (await http.post("/v1/plans:check", json={"workflow": written})).json()
        assert (checked["valid"], checked["faults"]) == (True, []), name
    misspelt = {**written, "plan": {"steps": [{"key": "a", "agent": "writr"}]}}
    assert not (await http.post("/v1/plans:check", json={"workflow": misspelt})).json()["valid"]


async def test_a_command_of_ones_own(client: Client) -> None:
    plan = {"steps": [{"key": "write", "agent": "writer", "input_from": {"text": "'Note ' + input.what"}}]}
    schema = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
    with pytest.raises(InvalidRequestError) as wrong:
        command = {"text": "which", "agents": {"who": ["write", "read"]}}
        await client.publish_workflow("note", {"plan": plan, "parameters": schema, "command": command})
    assert [one["pointer"] for one in wrong.value.errors] == ["/command/text", "/command/agents/who", "/command/agents/who/1"]
    await client.publish_workflow("note", {"plan": plan, "parameters": schema, "command": {"text": "what", "help": "Notes."}})
    started, result = await done(client, "/note 17")
    assert (started.input, result["draft"].splitlines()[0]) == ({"what": "17"}, "# Note 17")
    planned = await client.describe_command("/note this")
    assert (planned.input, planned.plan["steps"][0]["agent"]) == ({"what": "this"}, "writer")
    await client.publish_workflow("note", {"plan": plan, "parameters": schema})
    with pytest.raises(NotFoundError, match="is no slash command"):
        await client.command("/note this")


async def test_the_how_to_works_as_it_stands_there(
    client: Client, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: a process for each command would take ten times as long."""
    (tmp_path / "note.yaml").write_text(block(PAGE, "note"))
    monkeypatch.chdir(tmp_path)
    for name, value in {"COLUMNS": "200", "TIDELOG_API_KEY": KEY, "TIDELOG_URL": server.url}.items():
        monkeypatch.setenv(name, value)

    async def told(commands: str) -> str:
        out = ""
        for command in commands.splitlines():
            line, _, file = command.partition(" > ")
            async with within(60):
                await asyncio.to_thread(app, shlex.split(line)[1:], standalone_mode=False)
            said = capsys.readouterr().out
            if file:
                (tmp_path / file).write_text(said)
            out += said
        return out

    [crew, _] = block(PAGE, "crew").splitlines()
    assert "Wrote the agents to crew" in await told(crew) and (tmp_path / "crew" / "agents.py").exists()
    worked = await told(block(PAGE, "work").splitlines()[0])
    assert '"good": true' in worked and "completed" in worked
    asked = await told(block(PAGE, "ask"))
    assert "critic" in asked
    changed = await told(block(PAGE, "change").replace("create", "import"))
    assert "/feature" in changed and load((tmp_path / "task.yaml").read_text()) == load(text_of("task"))
    noted = await told(block(PAGE, "own").replace("create", "import"))
    assert "## 1. The tide comes in" in noted, "the builder did it"
    assert len([one for one in blocks(PAGE) if one.language == "python"]) == 1


async def test_keys_get_what_their_roles_and_projects_allow(client: Client, server: Server) -> None:
    project = await client.create_project("boats")
    other, _ = await done(client, "/task Paint the boat rounds=1")
    auditor = await client.issue_key("auditor", role="auditor")
    narrow = await client.issue_key("narrow", role="developer", projects=[project.project_id])

    async def valid() -> bool:
        try:
            for key in (auditor.key, narrow.key):
                async with Client(server.url, key) as holder:
                    await holder.key()
        except AuthenticationError:
            return False
        return True

    await eventually(valid, "the keys")
    async with Client(server.url, auditor.key) as reads:
        assert isinstance(await reads.command("/query limit=1"), CommandPage)
        for refused in (reads.command("/task Paint it"), reads.describe_command("/task Paint it")):
            with pytest.raises(PermissionDeniedError, match=r"`runs\.start` is not allowed"):
                await refused
    async with Client(server.url, narrow.key) as narrowed:
        mine, _ = await done(narrowed, "/task Paint the mast rounds=1")
        page = await narrowed.command("/query limit=100")
        assert isinstance(page, CommandPage)
        assert {UUID(run["project_id"]) for run in page.data} == {project.project_id}
        assert str(mine.run_id) in {run["run_id"] for run in page.data}
        with pytest.raises(NotFoundError):
            await narrowed.command(f"/query of=messages run={other.run_id}")
        with pytest.raises(NotFoundError, match="there is no project"):
            await narrowed.command("/task Paint it", project_id=new_id())
        blob = f'{{"$blob":"{"0" * 64}"}}'
        with pytest.raises(PermissionDeniedError, match="refers to no blobs"):
            await narrowed.command(f"/task Paint it rounds={blob}")
