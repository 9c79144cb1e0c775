"""Rows of a run, causes and effects over HTTP, as a page asks for them."""

from typing import Any

import httpx2
import pytest

from api.cli import diff, events
from api.cli.options import Where
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, new_id


async def got(http: httpx2.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    response = await http.get(path, params=query)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def failed_run(system: System, player: PlayedWorker) -> str:
    run_id = await system.start("inner", "outer")
    alpha = await player.next("inner")
    await alpha.call("look", "sum", n=1)
    await (await player.next("sum", "tool")).complete(1)
    await alpha.ok("record", key="large", result="x" * 20_000)
    await alpha.complete(1)
    await (await player.next("outer")).fail("permanent", "broken")
    await system.settled()
    return run_id


@pytest.fixture
def rows_of() -> Any:
    async def rows(http: httpx2.AsyncClient, run_id: str, **query: Any) -> dict[str, Any]:
        return await got(http, f"/v1/runs/{run_id}/rows", **query)

    return rows


async def test_a_page_sees_a_run_in_short_and_why_it_failed(
    shared: System, rows_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDELOG_API_KEY", shared.key)
    player = shared.worker("looking-back")
    await player.register("inner", "outer", tools=["sum"])
    run_id = await failed_run(shared, player)
    recorded = await shared.events(run_id)
    page = await rows_of(shared.http, run_id)
    rows, positions = page["data"], [event.position for event in recorded]
    assert [(row["position"], row["type"], f"{row['stream']}:{row['version']}") for row in rows] == [
        (event.position, event.topic, event.name) for event in recorded
    ]
    assert (page["first"], page["total"]) == (0, len(recorded)) and "number" not in page
    [call] = [row for row in rows if row["type"] == "invocation.succeeded"]
    assert (call["step"], call["call"], call["tool"]) == ("inner", "look", "sum") and "agent" not in call and "cut" not in call
    [kept] = [row for row in rows if row["type"] == "agent_run.step_recorded"]
    assert (kept["step"], kept["call"], kept["agent"], kept["cut"]) == ("inner", "large", "inner", True)
    # windows, by number, by position, by type, as of
    window = await rows_of(shared.http, run_id, **{"from": 3, "limit": 2})
    assert [row["position"] for row in window["data"]] == positions[3:5] and window["total"] == len(recorded)
    around = await rows_of(shared.http, run_id, around=positions[6], limit=4)
    assert [row["position"] for row in around["data"]] == positions[4:8] and around["number"] == 6
    typed = await rows_of(shared.http, run_id, types="run.failed,run.started", limit=1, **{"from": 1})
    assert [row["text"] for row in typed["data"]] == ["TestError: broken"] and typed["total"] == 2
    then = await shared.http.get(f"/v1/runs/{run_id}/rows", params={"as_of": str(positions[4]), "from": 4})
    assert then.json()["total"] == 5 and then.headers["Tidelog-Position"] == str(positions[4])
    # why
    chain = await got(shared.http, f"/v1/events/{positions[-1]}/causes")
    told = [(link["event"]["type"], link["event"].get("step"), link["by"]) for link in chain["data"]]
    assert told == [
        ("run.failed", "outer", "event"), ("agent_run.failed", "outer", "work"), ("agent_run.requested", "outer", "event"),
        ("run.step_scheduled", "outer", "event"), ("agent_run.completed", "inner", "work"),
        ("agent_run.requested", "inner", "event"), ("run.step_scheduled", "inner", "event"), ("run.started", None, "request"),
    ]  # fmt: skip
    assert chain["next"] is None and chain["origin"] == chain["data"][-1]
    request = chain["origin"]["request"]
    assert request["actor"].startswith("key:") and len(request["trace_id"]) == 32
    [named] = (await got(shared.http, f"/v1/ids/{request['command_id']}"))["data"][-1:]
    assert named["position"] == positions[0]
    short = await got(shared.http, f"/v1/events/{positions[-1]}/causes", limit=3)
    assert short["data"] == chain["data"][:3] and short["next"] == chain["data"][3]["event"]["position"]
    await events._why(str(positions[-1]), 3, False, Where(url=await shared.url()))
    await events._why(str(positions[0]), 9, True, Where(url=await shared.url()))
    printed = capsys.readouterr().out
    assert f"{positions[-1]:>8}  run.failed  step outer, TestError: broken\n" in printed
    assert f"events why {short['next']}\n" in printed and f"{positions[1]:>8}  run.step_scheduled  step inner\n" in printed
    # and forward
    for effect, cause in zip(chain["data"], chain["data"][1:], strict=False):
        found = await got(shared.http, f"/v1/events/{cause['event']['position']}/effects")
        mine = [each for each in found["data"] if each["event"] == effect["event"]]
        assert [(each["by"], each["root_id"]) for each in mine] == [(effect["by"], run_id)] and found["next_cursor"] is None
    first = await got(shared.http, f"/v1/events/{chain['data'][5]['event']['position']}/effects", limit=1)
    rest = await got(
        shared.http, f"/v1/events/{chain['data'][5]['event']['position']}/effects", limit=9, cursor=first["next_cursor"]
    )
    assert [each["event"]["type"] for each in first["data"] + rest["data"]] == [
        "agent_run.claimed", "agent_run.call_started", "agent_run.step_recorded", "agent_run.completed",
    ]  # fmt: skip


async def test_an_agent_is_shown_with_the_schema_of_its_input(shared: System) -> None:
    schema = {"type": "object", "properties": {"topic": {"type": "string"}}}
    await shared.worker("shown").register({"name": "shown", "version": "7", "input_schema": schema, "capabilities": ["writing"]})
    await shared.settled()
    agent = await got(shared.http, "/v1/agents/shown")
    assert (agent["name"], agent["version"], agent["input_schema"], agent["capabilities"]) == ("shown", "7", schema, ["writing"])
    assert agent["workers"] == 1
    assert (await shared.http.get("/v1/agents/nobody")).json()["detail"] == "no agent 'nobody' is registered"
    _, key = await shared.tenant(f"fourth-{new_id()}")
    async with shared.client(key) as foreign:
        assert (await foreign.get("/v1/agents/shown")).status_code == 404


async def test_two_runs_and_two_moments_of_one_are_compared(shared: System, capsys: pytest.CaptureFixture[str]) -> None:
    player = shared.worker("compared")
    await player.register("inner", "outer", tools=["sum"])
    one, other = await failed_run(shared, player), await shared.start("inner", "outer", input={"n": 2})
    alpha = await player.next("inner")
    await alpha.call("look", "sum", n=1)
    await (await player.next("sum", "tool")).complete(2)
    await alpha.complete(1)
    await shared.settled()
    found = await got(shared.http, f"/v1/runs/{one}/diff", **{"with": other})
    head = await shared.container.feed.head()
    assert (found["run_id"], found["with_id"], found["position"], found["with_position"]) == (one, other, head, head)
    assert found["first"] == found["data"][0] and found["count"] == len(found["data"])
    told = [(each["step"], each["key"], each["what"], each["before"], each["after"]) for each in found["data"]]
    assert told[0] == (None, None, "input", "null", '{"n": 2}')
    assert ("inner", "look", "result", "1", "2") in told and found["same"] > 5
    state = {change["path"]: (change["before"], change["after"]) for change in found["state"]}
    assert state["status"] == ('"failed"', '"running"') and not [path for path in state if "created_at" in path or "_id" in path]
    assert state["steps[outer].error.message"] == ('"broken"', None)
    few = await got(shared.http, f"/v1/runs/{one}/diff", **{"with": other, "limit": 1})
    assert few["data"] == found["data"][:1] and few["count"] == found["count"]
    # two moments of one
    [*_, failed, _, _] = recorded = await shared.events(one)
    assert failed.topic == "agent_run.failed"
    moments = await got(shared.http, f"/v1/runs/{one}/diff", as_of=failed.position - 1, with_as_of=recorded[-1].position)
    assert (moments["with_id"], moments["first"]["what"], moments["first"]["before"]) == (one, "outcome", None)
    assert {change["path"]: change["after"] for change in moments["state"]}["status"] == '"failed"'
    same = await got(shared.http, f"/v1/runs/{one}/diff")
    assert (same["count"], same["first"], same["state"]) == (0, None, [])
    # what is not there
    _, key = await shared.tenant(f"third-{new_id()}")
    async with shared.client(key) as foreign:
        theirs = await foreign.post("/v1/runs", json={"agent": "nobody"})
        assert theirs.status_code == 404
        assert (await foreign.get(f"/v1/runs/{one}/diff")).status_code == 404
    for query in ({"with": new_id()}, {"as_of": recorded[0].position - 1}, {"with_as_of": 1}):
        assert (await shared.http.get(f"/v1/runs/{one}/diff", params=query)).status_code == 404
    for query in ({"as_of": "yesterday"}, {"with_as_of": "-1"}, {"with": "x"}):
        refused = await shared.http.get(f"/v1/runs/{one}/diff", params=query)
        assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == f"/{next(iter(query))}"
    diff.show(found)
    diff.show(moments)
    diff.show(same)
    printed = capsys.readouterr().out
    assert f"They differ first at input:\n  - null  (position {recorded[0].position})" in printed
    assert 'steps[outer].status: "running" → "failed"' in printed and "They say the same" in printed


async def test_nothing_is_told_of_what_is_foreign_or_not_there(shared: System) -> None:
    await shared.worker("alone").register("alone")
    run_id = await shared.start("alone")
    await shared.settled()
    [*_, last] = await shared.events(run_id)
    _, key = await shared.tenant(f"other-{new_id()}")
    async with shared.client(key) as other:
        for path, nobodys in (
            (f"/v1/runs/{run_id}/rows", f"/v1/runs/{new_id()}/rows"),
            (f"/v1/runs/{last.stream_id}/rows?types=run.started", f"/v1/runs/{new_id()}/rows?types=run.started"),
            (f"/v1/events/{last.position}/causes", "/v1/events/900000000/causes"),
            (f"/v1/events/{last.position}/effects", "/v1/events/900000000/effects"),
        ):
            told, absent = await other.get(path), await other.get(nobodys)
            assert told.status_code == absent.status_code == 404
            assert told.json()["detail"][:20] == absent.json()["detail"][:20]
        for path in ("rows?from=-1", "rows?limit=1001", "rows?types=nothing.happened", "rows?around=-1", "rows?as_of=yesterday"):
            assert (await shared.http.get(f"/v1/runs/{run_id}/{path}")).status_code == 422
        assert (await shared.http.get(f"/v1/events/{last.position}/effects?cursor=x")).status_code == 422
    assert last.tenant_id == DEFAULT_TENANT_ID
