"""Workflows over HTTP: drawn once, changed in versions, started by name; and the how-to as it stands there."""

import asyncio
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import httpx2

from tests.integration.system_kit import System, new_id, served
from tests.integration.test_http_tools import at, is_refused, pointers
from tests.pace import within
from tests.pages import block, blocks
from tidelog import Client
from tidelog.errors import ConflictError

PAGE = "docs/how-to/draw-a-workflow-once.md"
PARAMETERS = {"type": "object", "properties": {"text": {"type": "string"}, "words": {"default": 100}}, "required": ["text"]}


def name() -> str:
    return f"w{new_id().hex}"


def says(**changed: Any) -> dict[str, Any]:
    return {"plan": {"steps": [{"key": "read", "agent": "flow.reader"}]}} | changed


async def publish(http: httpx2.AsyncClient, workflow: str, headers: dict[str, str] | None = None, **said: Any) -> httpx2.Response:
    return await http.post("/v1/workflows", json={"name": workflow, **says(**said)}, headers=headers or {})


async def agents(system: System, *names: str) -> None:
    await system.worker("flowing").register(*(names or ("flow.reader",)))


async def test_a_workflow_from_its_draft_to_its_end(shared: System) -> None:
    http, one = shared.http, name()
    path = f"/v1/workflows/{one}"
    plan = {"steps": [{"key": "a", "agent": "critic@2", "fallbacks": ["b@1"]}], "result": "steps.a.result"}
    drafted = await http.put(f"{path}/draft", json=says(plan=plan, description="D"))
    assert (drafted.status_code, drafted.json()["workflow_version"], drafted.json()["version"]) == (200, None, 1), drafted.text
    got = (await http.get(path, headers=at(drafted))).json()
    assert (got["version"], got["has_draft"], got["description"], got["definition"]) == (None, True, "D", None)
    ref = {"agent": "b", "agent_version": "1"}
    assert got["draft"]["definition"]["plan"]["steps"] == [
        {"key": "a", "agent": "critic", "agent_version": "2", "fallbacks": [ref]}
    ]
    assert got["draft"]["drafted_by"].startswith("key:")
    published = await http.post(f"{path}/publish", json={"note": "N"}, headers={"If-Match": '"v1"'})
    assert (published.status_code, published.json()["workflow_version"], published.headers["location"]) == (201, 1, path)
    is_refused(await http.post(f"{path}/publish", json={}), 409, "invalid-state")
    second = await publish(http, one, command={"text": None, "help": "H"}, description="E")
    assert second.json()["workflow_version"] == 2
    same = await publish(http, one, command={"help": "H"}, description="E")
    assert (same.json()["workflow_version"], same.json()["version"]) == (2, second.json()["version"])
    view = await http.get(path, headers=at(same))
    assert view.headers["etag"] == f'"v{second.json()["version"]}"'
    assert view.json() | {"workflow_id": 0, "published_at": 0} == {
        "workflow_id": 0, "name": one, "version": 2, "description": "E", "command": {"help": "H"}, "deprecated": None,
        "has_draft": False, "published_at": 0, "stream_version": 3, "unreadable": False, "draft": None,
        "definition": says(description="E", command={"help": "H"}),
    }  # fmt: skip
    differ = (await http.get(f"{path}/diff")).json()
    assert (differ["from"], differ["to"]) == ("1", "2")
    assert {(d["kind"], d["pointer"], d["step"]) for d in differ["differences"]} == {
        ("changed", "/description", None), ("removed", "/plan/steps/0", "a"), ("added", "/plan/steps/0", "read"),
        ("removed", "/plan/result", None), ("added", "/command", None),
    }  # fmt: skip
    back = await http.post(f"{path}/revert", json={"version": 1})
    assert back.json()["workflow_version"] == 3, back.text
    gone = await http.post(f"{path}/deprecate", json={"version": 2, "reason": "R"})
    listed = (await http.get(f"{path}/versions", params={"limit": 2}, headers=at(gone))).json()
    reasons = [version["deprecated"] and version["deprecated"]["reason"] for version in listed["data"]]
    assert [(v["version"], v["note"], v["reverted_from"]) for v in listed["data"]] == [(3, None, 1), (2, None, None)]
    assert reasons == [None, "R"]
    rest = (await http.get(f"{path}/versions", params={"limit": 2, "cursor": listed["next_cursor"]})).json()
    assert [v["note"] for v in rest["data"]] == ["N"] and rest["next_cursor"] is None
    third, first = [(await http.get(f"{path}/versions/{n}")).json()["definition"] for n in (3, 1)]
    assert third == first and first["plan"]["result"] == "steps.a.result"
    is_refused(await http.get(f"{path}/versions/4"), 404, "not-found")
    whole = await http.post(f"{path}/deprecate", json={})
    assert (await http.get(path, headers=at(whole))).json()["deprecated"]["reason"] is None
    done = await http.post(f"{path}/reinstate", json={})
    assert (await http.get(path, headers=at(done))).json()["deprecated"] is None
    trail = (await http.get("/v1/audit", params={"action": "workflows.define", "target": one}, headers=at(done))).json()["data"]
    assert [entry["operation"] for entry in trail if entry["result"] == "done"] == [
        "reinstate", "deprecate", "deprecate", "revert", "publish", "publish", "draft",
    ]  # fmt: skip


async def test_a_draft_that_nobody_published_leaves_nothing_when_it_is_discarded(shared: System) -> None:
    http, one = shared.http, name()
    await http.put(f"/v1/workflows/{one}/draft", json=says())
    assert (await http.get(f"/v1/workflows/{one}/diff", params={"to": "draft", "from": "draft"})).json()["differences"] == []
    for _ in range(2):
        discarded = await http.delete(f"/v1/workflows/{one}/draft")
        assert discarded.status_code == 200, discarded.text
    for path in ("", "/versions", "/diff"):
        is_refused(await http.get(f"/v1/workflows/{one}{path}", headers=at(discarded)), 404, "not-found")
    is_refused(await http.delete(f"/v1/workflows/{name()}/draft"), 404, "not-found")


async def test_workflows_are_listed_by_name_page_by_page(shared: System) -> None:
    http, prefix = shared.http, name()
    for end in ("a", "b.x", "b.y", "c"):
        last = await publish(http, f"{prefix}.{end}")
    last = await http.post(f"/v1/workflows/{prefix}.b.x/deprecate", json={"reason": "R"})

    async def listed(**query: Any) -> tuple[list[str], str | None]:
        page = (await http.get("/v1/workflows", params=query, headers=at(last))).json()
        return [one["name"].removeprefix(f"{prefix}.") for one in page["data"]], page["next_cursor"]

    first, cursor = await listed(prefix=prefix, limit=3)
    assert first == ["a", "b.x", "b.y"] and cursor is not None
    assert await listed(prefix=prefix, limit=3, cursor=cursor) == (["c"], None)
    assert await listed(prefix=f"{prefix}.b") == (["b.x", "b.y"], None)
    assert await listed(prefix=prefix, deprecated="true") == (["b.x"], None)
    assert (await listed(prefix=prefix, deprecated="false", limit=2))[0] == ["a", "b.y"]
    assert await listed(prefix=f"{prefix}.d") == ([], None)
    is_refused(await http.get("/v1/workflows", params={"prefix": "A%"}), 422, "invalid-command")


async def test_who_looked_at_another_version_changes_nothing(shared: System) -> None:
    http, one = shared.http, name()
    assert (await publish(http, one, expected_version=0)).status_code == 201
    is_refused(await publish(http, one, expected_version=0, description="2"), 412, "precondition-failed")
    is_refused(await publish(http, one, {"If-Match": '"v0"'}, description="2"), 412, "precondition-failed")
    key = {"Idempotency-Key": str(new_id())}
    second = await publish(http, one, key, description="2")
    await publish(http, one, description="3")
    again = await publish(http, one, key, description="2")
    assert again.json() == second.json() and again.headers["idempotency-replayed"] == "true"
    is_refused(await publish(http, one, key, description="4"), 422, "idempotency-key-reused")


async def test_all_faults_of_a_definition_are_told_at_once(shared: System) -> None:
    http, one = shared.http, name()
    refused = await publish(
        http, one, parameters={"properties": {"n": {"type": "integer", "default": "x"}}}, command={"text": "t"},
        plan={"steps": [{"key": "a", "agent": "x"}, {"key": "c", "run": {"workflow": one}}]},
    )  # fmt: skip
    is_refused(refused, 422, "invalid-command")
    assert pointers(refused) == ["/parameters/properties/n/default", "/command/text", "/plan/steps/1/run/workflow"]
    shape = await publish(http, one, plan={"steps": [{"key": "a", "agnt": "x@1"}]}, later=1)
    assert {"/plan/steps/0/agnt", "/later"} <= {*pointers(shape)}
    is_refused(shape, 422, "invalid-request")
    is_refused(await http.get(f"/v1/workflows/{one}"), 404, "not-found")


async def test_a_run_is_started_by_the_name_and_keeps_its_plan(shared: System) -> None:
    http, one = shared.http, name()
    await agents(shared)
    await publish(http, one, parameters=PARAMETERS, priority="high", metadata={"team": "press"})
    key, body = {"Idempotency-Key": str(new_id())}, {"workflow": {"name": one}, "input": {"text": "t"}, "metadata": {"x": 1}}
    first = await http.post("/v1/runs", json=body, headers=key)
    assert first.status_code == 201, first.text
    id = new_id()
    by_id = await http.post("/v1/runs", json={**body, "run_id": str(id)})
    started = json.loads((await shared.events(id))[0].state)
    assert (started["workflow"], started["input"]) == ({"name": one, "version": 1}, {"text": "t", "words": 100})
    assert (started["priority"], started["metadata"]) == ("high", {"team": "press", "x": 1})
    await publish(http, one, parameters={"required": ["other"]})
    await http.post(f"/v1/workflows/{one}/deprecate", json={"reason": "use another"})
    again = await http.post("/v1/runs", json=body, headers=key)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    assert (await http.post("/v1/runs", json={**body, "run_id": str(id)})).json() == by_id.json()
    assert "use another" in is_refused(await http.post("/v1/runs", json=body), 409, "workflow-deprecated")
    await http.post(f"/v1/workflows/{one}/reinstate", json={})
    wrong = await http.post("/v1/runs", json={"workflow": {"name": one, "version": 1}, "input": {"text": 1}})
    is_refused(wrong, 422, "invalid-command")
    assert pointers(wrong) == ["/input/text"]
    misspelt = await publish(http, other := name(), plan={"steps": [{"key": "a", "agent": "flow.reder"}]})
    for path in ("/v1/workflows", "/v1/agents"):  # the lists of names that are alike
        assert (await http.get(path, headers=at(misspelt))).status_code == 200
    agent = await http.post("/v1/runs", json={"workflow": {"name": other}})
    assert "did you mean 'flow.reader'" in is_refused(agent, 404, "unknown-agent") and pointers(agent) == ["/workflow"]
    unknown = await http.post("/v1/runs", json={"workflow": {"name": one[:-1]}})
    assert f"did you mean '{one}'" in is_refused(unknown, 404, "unknown-workflow") and pointers(unknown) == ["/workflow"]
    for wrong_body in ({"workflow": {"name": one}, "agent": "flow.reader"}, {}, {"workflow": {"name": one, "version": 0}}):
        is_refused(await http.post("/v1/runs", json=wrong_body), 422, "invalid-request")


async def test_a_plan_of_a_request_names_versions_and_child_workflows_likewise(shared: System) -> None:
    http, one = shared.http, name()
    await agents(shared)
    await publish(http, one)
    steps = [{"key": "a", "agent": "flow.reader@1"}, {"key": "b", "run": {"workflow": one}, "after": ["a"]}]
    answer = await http.post("/v1/runs", json={"plan": {"kind": "graph", "steps": steps}})
    assert answer.status_code == 201, answer.text
    started = json.loads((await shared.events(answer.json()["run_id"]))[0].state)
    assert started["versions_asked"] == ["a"] and started["plan"]["steps"][0]["agent"] == "flow.reader"
    pinned = {"steps": [{"key": "read", "agent": "flow.reader", "agent_version": "1"}]}
    assert started["plan"]["steps"][1]["run"] == {"workflow": one, "version": 1, "plan": pinned}
    other = [{"key": "b", "run": {"workflow": name()}}]
    refused = await http.post("/v1/runs", json={"plan": {"kind": "graph", "steps": other}})
    is_refused(refused, 422, "invalid-plan")
    assert pointers(refused) == ["/plan/steps/0/run/workflow"]


async def test_a_narrowed_key_starts_workflows_in_its_projects_and_changes_none(shared: System) -> None:
    http, one = shared.http, name()
    await agents(shared)
    published = await publish(http, one)
    project = (await http.post("/v1/projects", json={"name": "narrow"})).json()["project_id"]
    async with served(shared.container) as url, Client(url, shared.key) as client:
        key = (await client.issue_key("narrow", role="developer", projects=[project])).key
    await shared.settled()  # a new key works as soon as a read model has it
    async with shared.client(key) as narrowed:
        got = await narrowed.get(f"/v1/workflows/{one}", headers=at(published))
        assert (got.status_code, got.json().get("version")) == (200, 1), got.text
        started = await narrowed.post("/v1/runs", json={"workflow": {"name": one}, "project_id": project})
        assert started.status_code == 201, started.text
        is_refused(await publish(narrowed, one, description="2"), 403, "forbidden")


# --- the client and the how-to ------------------------------------------------------------------------------------------------


async def test_the_client_changes_workflows(shared: System) -> None:
    one = name()
    await agents(shared)
    async with served(shared.container) as url, Client(url, shared.key) as client:
        change = await client.publish_workflow(one, says(metadata={"n": 1}), note="N", expected_version=0)
        assert (change.workflow_version, change.version) == (1, 1)
        try:
            await client.publish_workflow(one, says(), expected_version=0)
            raise AssertionError("it is not new")
        except ConflictError as error:
            assert error.code == "precondition-failed"
        await client.draft_workflow(one, says(description="D"))
        found = await client.workflow(one)
        assert found.draft is not None and found.draft.definition["description"] == "D" and found.version == 1
        [info] = await client.workflows(prefix=one, deprecated=False)
        assert (info.name, info.has_draft, await client.workflows(prefix=one, deprecated=True)) == (one, True, [])
        differ = await client.workflow_diff(one, 1, "draft")
        assert (differ.from_, differ.to) == ("1", "draft")
        assert sorted((d.kind, d.pointer) for d in differ.differences) == [("added", "/description"), ("removed", "/metadata")]
        assert (await client.publish_draft(one, note="O", expected_version=found.stream_version)).workflow_version == 2
        await client.draft_workflow(one, says())
        assert (await client.discard_draft(one)).workflow_version == 2
        assert (await client.revert_workflow(one, 1)).workflow_version == 3
        await client.deprecate_workflow(one, version=3, reason="R")
        versions = await client.workflow_versions(one)
        assert [(v.version, v.note, v.reverted_from) for v in versions] == [(3, None, 1), (2, "O", None), (1, "N", None)]
        assert versions[0].deprecated is not None and versions[0].deprecated.reason == "R"
        assert (await client.workflow_version(one, 2)).definition == says(description="D")
        started = await client.start_run(workflow=f"{one}@1", priority="low")
        run = json.loads((await shared.events(started.run_id))[0].state)
        assert (run["workflow"], run["metadata"], run["priority"]) == ({"name": one, "version": 1}, {"n": 1}, "low")
        await client.reinstate_workflow(one, version=3)
        assert (await client.start_run(workflow=one)).position > 0


async def test_the_how_to_works_as_it_stands_there(shared: System, tmp_path: Path) -> None:
    await agents(shared, "reader", "writer")
    file, env = tmp_path / "digest.yaml", {"PATH": "/usr/bin:/bin", "COLUMNS": "200", "TIDELOG_API_KEY": shared.key}
    file.write_text(block(PAGE, "digest"))

    async def told(commands: str) -> str:
        out = ""
        for command in filter(None, commands.splitlines()):
            process = await asyncio.create_subprocess_shell(
                f"{shlex.quote(str(Path(sys.executable).with_name('tidelog')))} {command.removeprefix('tidelog ')}", cwd=tmp_path,
                env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with within(30):
                answer, error = await process.communicate()
            assert process.returncode == 0, (command, answer.decode(), error.decode())
            out += answer.decode()
        return out

    async with served(shared.container) as url:
        env["TIDELOG_URL"] = url
        created = await told(block(PAGE, "create"))
        assert "Published version 1 of the workflow digest" in created and block(PAGE, "digest").strip() in created
        assert "Started run" in await told(block(PAGE, "start").replace("--wait", ""))
        file.write_text(file.read_text().replace("default: 100", "default: 200"))
        changed = await told(block(PAGE, "change"))
        assert "~ /parameters/properties/words/default\n    - 100\n    + 200\n" in changed and "a longer summary" in changed
        file.write_text(file.read_text().replace("default: 200", "default: 300"))
        drafted = await told(block(PAGE, "draft"))
        assert "digest: 2 → draft" in drafted and "Published version 3" in drafted
        assert "Published version 4 of the workflow digest" in await told(block(PAGE, "back"))
        await told(block(PAGE, "keep"))
        assert file.read_text() == block(PAGE, "digest"), "the first version again"
        assert json.loads((tmp_path / "digest-1.json").read_text())["name"] == "digest"
    assert [one.language for one in blocks(PAGE)].count("python") == 1
