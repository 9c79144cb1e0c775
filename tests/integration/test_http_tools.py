"""Tools as resources: defined, read in each version, deprecated and removed over HTTP, beside those that workers announce."""

from typing import Any

import httpx2
import pytest

from tests.integration.session_kit import offer
from tests.integration.system_kit import System, eventually, new_id
from tests.integration.test_removed_projects import is_refused

GET = {"method": "GET", "url": "https://api.example.com/weather/{{city}}", "auth": {"secret": "weather"}}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


def weather(**changed: Any) -> dict[str, Any]:
    given = {
        "version": "1", "kind": "http", "description": "The weather.", "parameters": CITY, "request": GET,
        "result": {"type": "object", "required": ["celsius"]}, "untrusted_output": True, "needs_services": ["weather"],
        "examples": [{"arguments": {"city": "Bergen"}, "result": {"celsius": 7}, "description": "rain"}],
    }  # fmt: skip
    return given | changed


def name() -> str:
    return f"t{new_id().hex}"


async def define(http: httpx2.AsyncClient, tool: str, **changed: Any) -> httpx2.Response:
    return await http.post("/v1/tools", json={"name": tool, **weather(**changed)})


def at(answer: httpx2.Response) -> dict[str, str]:
    assert answer.is_success, answer.text
    return {"Tidelog-Position": answer.headers["tidelog-position"]}


async def now(system: System) -> dict[str, str]:
    """So that a read model shows all that is in the log."""
    return {"Tidelog-Position": str(await system.container.feed.head())}


def pointers(answer: httpx2.Response) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


async def test_a_defined_tool_can_be_read_as_it_was_declared(shared: System) -> None:
    tool = name()
    defined = await define(shared.http, tool)
    assert (defined.status_code, defined.json()["version"], defined.headers["location"]) == (201, 1, f"/v1/tools/{tool}")
    got = await shared.http.get(f"/v1/tools/{tool}", headers=at(defined))
    assert got.headers["etag"] == '"v1"'
    for field, value in weather().items():
        assert got.json()[field] == value, field
    assert (got.json()["pinned"], got.json()["deprecated"], got.json()["workers"]) == (True, None, 0)
    listed = {one["name"]: one for one in (await shared.http.get("/v1/tools", params={"limit": 1000})).json()["data"]}
    assert listed[tool] == got.json()
    is_refused(await define(shared.http, tool, description="Another."), 409, "already-exists")


async def test_a_version_never_means_something_else(shared: System) -> None:
    tool = name()
    await define(shared.http, tool)
    path = f"/v1/tools/{tool}/versions"
    second = await shared.http.post(path, json=weather(version="2", timeout_s=5), headers={"If-Match": '"v1"'})
    assert (second.status_code, second.json()["version"]) == (201, 2), second.text
    again = await shared.http.post(path, json=weather(version="2", timeout_s=5))
    assert again.json()["version"] == 2, "nothing has changed"
    refused = await shared.http.post(path, json=weather(version="2", timeout_s=6))
    assert "'2'" in is_refused(refused, 409, "version-taken")
    assert pointers(refused) == ["/version"]
    is_refused(await shared.http.post(path, json=weather(version="3"), headers={"If-Match": '"v1"'}), 412, "precondition-failed")
    first, second = [(await shared.http.get(f"{path}/{v}", headers=at(again))).json() for v in "12"]
    assert (first["timeout_s"], second["timeout_s"]) == (60, 5)
    listed = (await shared.http.get(path, params={"limit": 1})).json()
    assert [one["version"] for one in listed["data"]] == ["2"]
    rest = (await shared.http.get(path, params={"limit": 1, "cursor": listed["next_cursor"]})).json()
    assert (rest["data"], rest["next_cursor"]) == ([first], None)
    assert (await shared.http.get(f"/v1/tools/{tool}", headers=at(again))).json()["version"] == "2"
    is_refused(await shared.http.get(f"{path}/3"), 404, "not-found")


async def test_all_faults_of_a_declaration_are_told_at_once(shared: System) -> None:
    bad = weather(
        request={
            "method": "GET", "url": "https://user:hunter2@{{city}}/x",
            "headers": {"Authorization": "Bearer abc", "X-Ok": "{{town}}"},
        },
        examples=[{"arguments": {"city": 7}}, {"arguments": {"city": "x"}, "result": {}}, {"argument": {}}],
        needs_tools=["self"],
    )  # fmt: skip
    refused = await shared.http.post("/v1/tools", json={"name": "self", **bad})
    is_refused(refused, 422, "invalid-command")
    wanted = {
        "/request/url", "/request/headers/Authorization", "/request/headers/X-Ok", "/examples/0/arguments/city",
        "/examples/1/result", "/examples/2/argument", "/examples/2/arguments", "/needs_tools",
    }  # fmt: skip
    assert set(pointers(refused)) == wanted
    assert "hunter2" not in refused.text and "abc" not in refused.text
    validated = await shared.http.post("/v1/tools/self/validate", json={"declaration": bad})
    assert (validated.status_code, validated.json()["valid"]) == (200, False)
    assert set(pointers(validated)) == wanted
    is_refused(await shared.http.get("/v1/tools/self"), 404, "not-found")


async def test_faults_of_form_stand_beside_all_others(shared: System) -> None:
    bad = weather(timeout_s=0, colour="red", examples=[{"arguments": {}}])
    validated = (await shared.http.post("/v1/tools/x/validate", json={"declaration": bad})).json()
    assert {error["pointer"] for error in validated["errors"]} == {"/timeout_s", "/colour", "/examples/0/arguments"}
    good = (await shared.http.post("/v1/tools/x/validate", json={"declaration": weather()})).json()
    assert good == {"valid": True, "errors": [], "warning": None}


async def test_arguments_are_checked_without_a_call(shared: System) -> None:
    tool = name()
    await define(shared.http, tool)
    path = f"/v1/tools/{tool}/validate"
    wrong = (await shared.http.post(path, json={"arguments": {"city": 7, "town": 1}})).json()
    assert {error["pointer"] for error in wrong["errors"]} == {"", "/city"}, wrong
    assert (await shared.http.post(path, json={"arguments": {"city": "Oslo"}})).json()["valid"]
    assert not (await shared.http.post(path, json={"arguments": None})).json()["valid"]
    is_refused(await shared.http.post(path, json={}), 422, "invalid-command")
    is_refused(await shared.http.post("/v1/tools/nobody/validate", json={"arguments": {}}), 404, "not-found")


async def test_a_deprecated_tool_says_what_replaces_it(shared: System) -> None:
    tool, other = name(), name()
    await define(shared.http, tool)
    deprecate = {"deprecated": True, "replaced_by": other, "note": "too slow"}
    refused = await shared.http.patch(f"/v1/tools/{tool}", json=deprecate)
    assert pointers(refused) == ["/replaced_by"], refused.text
    await define(shared.http, other)
    done = await shared.http.patch(f"/v1/tools/{tool}", json=deprecate, headers={"If-Match": '"v1"'})
    got = (await shared.http.get(f"/v1/tools/{tool}", headers=at(done))).json()
    assert (got["deprecated"]["replaced_by"], got["deprecated"]["note"], got["stream_version"]) == (other, "too slow", 2)
    warning = (await shared.http.post(f"/v1/tools/{tool}/validate", json={"arguments": {"city": "x"}})).json()["warning"]
    assert warning == f"the tool '{tool}' is deprecated; use '{other}' (too slow)"
    is_refused(
        await shared.http.patch(f"/v1/tools/{tool}", json={"deprecated": False}, headers={"If-Match": '"v1"'}),
        412, "precondition-failed",
    )  # fmt: skip
    back = await shared.http.patch(f"/v1/tools/{tool}", json={"deprecated": False})
    assert (await shared.http.get(f"/v1/tools/{tool}", headers=at(back))).json()["deprecated"] is None
    is_refused(await shared.http.patch("/v1/tools/nobody", json={"deprecated": True}), 404, "not-found")


async def test_a_removed_tool_is_not_there_and_its_versions_keep_their_meaning(shared: System) -> None:
    tool = name()
    await define(shared.http, tool)
    is_refused(await shared.http.delete(f"/v1/tools/{tool}", headers={"If-Match": '"v7"'}), 412, "precondition-failed")
    removed = await shared.http.delete(f"/v1/tools/{tool}")
    for path in ("", "/versions", "/versions/1"):
        is_refused(await shared.http.get(f"/v1/tools/{tool}{path}", headers=at(removed)), 404, "not-found")
    assert (await shared.http.delete(f"/v1/tools/{tool}")).json()["version"] == 2, "again: nothing happens"
    is_refused(await define(shared.http, tool, description="Another."), 409, "version-taken")
    back = await define(shared.http, tool)
    assert (await shared.http.get(f"/v1/tools/{tool}/versions/1", headers=at(back))).json()["revision"] == 3
    is_refused(await shared.http.delete("/v1/tools/nobody"), 404, "not-found")


async def test_both_read_models_are_as_the_log_makes_them(shared: System) -> None:
    one, two, three = name(), name(), name()
    for tool in (one, two, three):
        await define(shared.http, tool)
        await shared.http.post(f"/v1/tools/{tool}/versions", json=weather(version="2"))
        await shared.http.patch(f"/v1/tools/{tool}", json={"deprecated": True, "note": "n"})
    await shared.http.patch(f"/v1/tools/{two}", json={"deprecated": False})
    await shared.http.delete(f"/v1/tools/{three}")
    await define(shared.http, three)
    await announce(shared, {"name": name()}, {"name": name(), "pinned": True})
    for read_model in ("tools", "tool_versions"):
        path = f"/v1/projections/{read_model}"

        async def compared(path: str = path) -> Any:
            check = (await shared.http.get(path)).json()["check"]
            return check if check is not None and check["status"] in ("equal", "different", "failed") else None

        assert (await shared.http.post(f"{path}/verify", json={})).status_code == 202
        check = await eventually(compared, f"{read_model} to be compared")
        assert check["status"] == "equal", check


async def test_what_changes_a_definition_leaves_an_entry(shared: System) -> None:
    tool = name()
    await define(shared.http, tool)
    await shared.http.patch(f"/v1/tools/{tool}", json={"deprecated": True}, headers={"Tidelog-Reason": "it is slow"})
    await shared.http.delete(f"/v1/tools/{tool}")
    is_refused(await define(shared.http, tool, description="Another."), 409, "version-taken")
    found = (await shared.http.get("/v1/audit", params={"target": tool}, headers=await now(shared))).json()["data"]
    told = [(entry["action"], entry["operation"], entry["result"], entry["reason"]) for entry in found]
    assert ("tools.remove", None, "done", None) in told and ("tools.define", "created", "refused", None) in told
    assert ("tools.define", "deprecate", "done", "it is slow") in told and ("tools.define", "created", "done", None) in told


async def test_an_idempotency_key_defines_once(shared: System) -> None:
    tool, key = name(), {"Idempotency-Key": str(new_id())}
    body = {"name": tool, **weather()}
    first, again = [await shared.http.post("/v1/tools", json=body, headers=key) for _ in range(2)]
    assert (first.json(), first.status_code) == (again.json(), again.status_code)
    assert again.headers["idempotency-replayed"] == "true"
    is_refused(await shared.http.post("/v1/tools", json={**body, "timeout_s": 1}, headers=key), 422, "idempotency-key-reused")


async def test_another_tenants_tool_is_not_there(shared: System) -> None:
    tool = name()
    await define(shared.http, tool)
    _, key = await shared.tenant("stranger")
    async with shared.client(key) as stranger:
        asked: list[tuple[str, str, Any]] = [
            ("GET", "", None), ("GET", "/versions", None), ("GET", "/versions/1", None), ("PATCH", "", {"deprecated": True}),
            ("DELETE", "", None), ("POST", "/validate", {"arguments": {"city": "x"}}), ("POST", "/versions", weather(version="2")),
        ]  # fmt: skip
        for method, path, body in asked:
            answers = []
            for wanted in (tool, "t" * len(tool)):
                answer = await stranger.request(method, f"/v1/tools/{wanted}{path}", json=body)
                problem = {**answer.json(), "trace_id": "", "instance": ""}
                answers.append((answer.status_code, str(problem).replace(wanted, "@")))
            assert answers[0] == answers[1] and answers[0][0] == 404, answers
        mine = await define(stranger, tool, description="Mine.")
        assert (await stranger.get(f"/v1/tools/{tool}", headers=at(mine))).json()["description"] == "Mine."
    assert (await shared.http.get(f"/v1/tools/{tool}", headers=at(mine))).json()["description"] == "The weather."


# --- tools of workers -------------------------------------------------------------------------------------------------------


def verdicts(welcome: dict[str, Any]) -> list[str]:
    return ["accepted" if one["accepted"] else one["problem"]["code"] for one in welcome["tools"]]


async def announce(system: System, *tools: dict[str, Any]) -> dict[str, Any]:
    given = [{"parameters": {"type": "object"}, **tool} for tool in tools]
    return await offer(await system.url(), system.key, [], tools=given)


async def test_a_named_version_that_says_something_else_is_refused(shared: System) -> None:
    tool = name()
    one = {"name": tool, "version": "1", "pinned": True, "description": "one"}
    assert verdicts(await announce(shared, one)) == ["accepted"]
    assert verdicts(await announce(shared, one)) == ["accepted"]
    refused = await announce(shared, {**one, "description": "two"})
    assert verdicts(refused) == ["version-taken"]
    assert "name another version" in refused["tools"][0]["problem"]["detail"]
    problems = (await shared.http.get("/v1/workers/problems")).json()["data"]
    assert any(tool in problem["path"] for problem in problems), problems
    assert verdicts(await announce(shared, {**one, "description": "two", "pinned": False})) == ["version-taken"]
    assert verdicts(await announce(shared, {**one, "description": "two", "version": "2"})) == ["accepted"]


async def test_a_version_that_nobody_named_follows_the_code(shared: System) -> None:
    tool = name()
    for text in ("one", "two"):
        assert verdicts(await announce(shared, {"name": tool, "description": text})) == ["accepted"]
    got = (await shared.http.get(f"/v1/tools/{tool}", headers=await now(shared))).json()
    assert (got["version"], got["pinned"], got["kind"]) == ("1", False, "python")


async def test_a_worker_cannot_take_over_a_tool_that_is_data(shared: System) -> None:
    tool = name()
    await define(shared.http, tool)
    assert verdicts(await announce(shared, {"name": tool, "version": "2"})) == ["tool-taken"]
    assert (await shared.http.get(f"/v1/tools/{tool}", headers=await now(shared))).json()["version"] == "1"
    python = name()
    await announce(shared, {"name": python})
    is_refused(await shared.http.post(f"/v1/tools/{python}/versions", json=weather(version="2")), 409, "invalid-state")


@pytest.mark.parametrize("field", ["result", "examples"])
async def test_a_declaration_of_a_worker_is_checked_as_a_whole(shared: System, field: str) -> None:
    bad = {"result": {"result": {"type": 7}}, "examples": {"examples": [{"arguments": 1}]}}[field]
    refused = await announce(shared, {"name": name(), **bad})
    assert verdicts(refused) == ["invalid-command"]
    assert refused["tools"][0]["problem"]["errors"][0]["pointer"].startswith(f"/{field}")
