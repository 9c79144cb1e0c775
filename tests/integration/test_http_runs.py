"""Runs over HTTP: starting, waiting, reading at any position and time, cancelling, and their events as CloudEvents."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from domain.kernel import timestamp
from domain.registry import REGISTRY
from projections import runs
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, eventually, issue_key, new_id, running, stopped


async def eventful_run(system: System, worker: PlayedWorker) -> str:
    """A run that uses almost all features."""
    run_id = await system.start(plan={"kind": "parallel", "agents": ["alpha", "beta"], "aggregator": "gamma"}, input={"q": 1})
    alpha = await worker.next("alpha")
    await alpha.ok("record", key="s", result=1)
    await alpha.call("k", "add", a=1)
    await (await worker.next("add", "tool")).complete(2)
    await alpha.ok("send", key="m", to="beta", body="hello")
    await alpha.complete({"a": 1})
    await (await worker.next("beta")).fail()
    await (await worker.next("gamma")).complete("all")
    await system.ended(run_id)
    return run_id


async def test_a_started_run(system: System, worker: PlayedWorker) -> None:
    response = await system.http.post("/v1/runs", json={"agent": "alpha", "input": {"x": 1}, "metadata": {"team": "a"}})
    started = response.json()
    assert response.status_code == 201 and started.keys() == {"run_id", "position", "version"}
    assert response.headers["location"] == f"/v1/runs/{started['run_id']}"
    assert (response.headers["etag"], response.headers["tidelog-position"]) == ('"v2"', str(started["position"]))
    read = await system.http.get(response.headers["location"], headers={"Tidelog-Position": response.headers["tidelog-position"]})
    run = read.json()
    assert read.headers["etag"] == f'"v{run["version"]}"' and int(read.headers["tidelog-position"]) >= started["position"]
    assert (run["status"], run["input"], run["metadata"]) == ("running", {"x": 1}, {"team": "a"})
    [step] = run["steps"]
    assert (step["key"], step["agent"], step["agent_version"]) == ("alpha", "alpha", "1")
    datetime.fromisoformat(run["created_at"])
    assert run["created_at"].endswith("Z") and len(run["created_at"]) == len("2026-01-01T00:00:00.000Z")


async def test_the_priority_of_a_run(system: System, worker: PlayedWorker) -> None:
    """The answers show it, a repeat must say the same, and the open work has its class."""
    headers = {"Idempotency-Key": "once"}
    started = {}
    for priority in ("low", "normal", "high"):
        body = {"agent": "alpha", "priority": priority}
        response = await system.http.post("/v1/runs", json=body, headers=headers if priority == "low" else {})
        started[priority] = response.json()["run_id"]
        at = {"Tidelog-Position": str(response.json()["position"])}
        shown = (await system.http.get(f"/v1/runs/{started[priority]}", headers=at)).json()
        assert shown["priority"] == priority
    listed = (await system.http.get("/v1/runs", headers=at)).json()["data"]
    assert {run["run_id"]: run["priority"] for run in listed if run["run_id"] in started.values()} == {
        run_id: priority for priority, run_id in started.items()
    }
    other = await system.http.post("/v1/runs", json={"agent": "alpha"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    refused = await system.http.post("/v1/runs", json={"agent": "alpha", "priority": "urgent"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/priority")

    async def all_wait() -> bool:
        async with system.container.database.connection() as connection:
            cursor = await connection.execute("SELECT priority FROM open_work WHERE pool = 'alpha'")
            return sorted(row[0] for row in await cursor.fetchall()) == ["high", "low", "normal"]

    await eventually(all_wait, "the work of all classes")


async def test_a_run_at_every_position_is_the_fold_up_to_there(system: System, worker: PlayedWorker) -> None:
    run_id = await eventful_run(system, worker)
    events = await system.events(run_id)
    assert len(events) > 20
    for n in range(1, len(events) + 1):
        expected = runs.replay(events[:n])
        assert expected is not None
        response = await system.http.get(f"/v1/runs/{run_id}", params={"as_of": str(events[n - 1].position)})
        shown = response.json()
        assert shown == {**expected.model_dump(mode="json"), "result": expected.result}
        assert response.headers["etag"] == f'"v{expected.version}"'
        assert shown["event_count"] == n and shown["position"] == events[n - 1].position
    before = await system.http.get(f"/v1/runs/{run_id}", params={"as_of": str(events[0].position - 1)})
    assert before.status_code == 404
    assert (await system.http.get(f"/v1/runs/{run_id}", params={"as_of": "999999"})).json() == await system.run(run_id)


async def test_a_run_at_every_time(system: System, worker: PlayedWorker) -> None:
    run_id = await eventful_run(system, worker)
    events = await system.events(run_id)
    for event in events:
        at = event.recorded_at
        expected = runs.replay([e for e in events if e.recorded_at <= at])
        assert expected is not None
        shown = await system.http.get(f"/v1/runs/{run_id}", params={"as_of": at.isoformat()})
        assert shown.json()["event_count"] == expected.event_count
    early = events[0].recorded_at - timedelta(milliseconds=1)
    assert (await system.http.get(f"/v1/runs/{run_id}", params={"as_of": early.isoformat()})).status_code == 404
    other_zone = (events[-1].recorded_at + timedelta(seconds=1)).isoformat().replace("+00:00", "Z")
    assert (await system.http.get(f"/v1/runs/{run_id}", params={"as_of": other_zone})).json()["status"] == "completed"


async def test_what_was_written_is_read(system: System, worker: PlayedWorker) -> None:
    """With the position of a command every list shows the command's effect at once."""
    for i in range(5):
        started = await system.http.post("/v1/runs", json={"agent": "alpha"})
        position = {"Tidelog-Position": started.headers["tidelog-position"]}
        listed = await system.http.get("/v1/runs", params={"limit": 1}, headers=position)
        assert listed.json()["data"][0]["run_id"] == started.json()["run_id"]
        assert int(listed.headers["tidelog-position"]) >= started.json()["position"]
        project = await system.http.post("/v1/projects", json={"name": f"p{i}"})
        position = {"Tidelog-Position": project.headers["tidelog-position"]}
        names = [p["name"] for p in (await system.http.get("/v1/projects", headers=position)).json()["data"]]
        assert f"p{i}" in names


async def test_a_read_model_that_stays_behind_is_said_in_time(database_url: str, nats_url: str) -> None:
    async with running(database_url, nats_url, read_timeout_s=0.2) as system:
        await issue_key(system)
        await stopped(system.tasks.pop("projections"))
        created = await system.http.post("/v1/projects", json={"name": "p"})
        response = await system.http.get("/v1/projects", headers={"Tidelog-Position": created.headers["tidelog-position"]})
        assert (response.status_code, response.json()["code"], response.json()["retryable"]) == (504, "projection-behind", True)
        now = await system.http.get("/v1/projects")  # without the position the list shows its present state
        assert now.status_code == 200 and int(now.headers["tidelog-position"]) < created.json()["position"]


async def test_a_run_just_written_waits_for_no_read_model(
    database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has it. A run with many events is read from the read model."""
    async with running(database_url, nats_url, read_timeout_s=0.2) as system:
        await issue_key(system)
        await system.worker().register("alpha")
        await system.settled()
        await stopped(system.tasks.pop("projections"))
        started = (await system.http.post("/v1/runs", json={"agent": "alpha"})).json()
        path, at = f"/v1/runs/{started['run_id']}", {"Tidelog-Position": str(started["position"])}
        shown = await system.http.get(path, headers=at)
        assert (shown.status_code, int(shown.headers["tidelog-position"])) == (200, started["position"])
        folded = runs.replay(await system.events(started["run_id"]))
        assert folded is not None and shown.json() == folded.model_dump(mode="json")
        assert (await system.http.get(path)).status_code == 404, "the read model does not have it"
        for wrong, status in (("x", 422), (str(started["position"] + 100), 410)):
            assert (await system.http.get(path, headers={"Tidelog-Position": wrong})).status_code == status
        assert (await system.http.get(f"/v1/runs/{new_id()}", headers=at)).status_code == 404
        monkeypatch.setattr("application.runs.lookup.FEW_EVENTS", 2)
        late = await system.http.get(path, headers=at)
        assert (late.status_code, late.json()["code"]) == (504, "projection-behind")


async def test_waiting_for_the_outcome(system: System, worker: PlayedWorker) -> None:
    headers = {"Prefer": "respond-async, wait=20"}
    asked = asyncio.create_task(system.http.post("/v1/runs", json={"agent": "alpha"}, headers=headers))
    await (await worker.next("alpha")).complete({"n": 1})
    response = await asked
    assert response.status_code == 201
    assert (response.json()["run"]["status"], response.json()["run"]["result"]) == ("completed", {"n": 1})
    short = await system.http.post("/v1/runs", json={"agent": "beta"}, headers={"Prefer": "wait=1"})
    assert short.status_code == 201 and short.json()["run"]["status"] == "running"


async def test_cancelling_with_a_condition(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha", "beta")
    path = f"/v1/runs/{run_id}/cancel"
    conditions: list[tuple[dict[str, str], dict[str, Any]]] = [
        ({"If-Match": '"v1"'}, {}), ({"If-Match": 'W/"v9"'}, {}), ({}, {"expected_version": 1}), ({}, {"expected_version": 0}),
    ]  # fmt: skip
    for headers, body in conditions:
        refused = await system.http.post(path, headers=headers, json=body)
        assert (refused.status_code, refused.json()["code"], refused.json()["current_version"]) == (412, "precondition-failed", 2)
    await (await worker.next("alpha")).complete()
    await system.settled()
    stale = await system.http.post(path, headers={"If-Match": '"v2"'})
    assert (stale.status_code, stale.json()["current_version"]) == (412, 4)
    done = await system.http.post(path, headers={"If-Match": '"v4"'}, json={"reason": "enough"})
    assert done.status_code == 202 and done.json()["version"] == 5 and done.headers["etag"] == '"v5"'
    again = await system.http.post(path)  # the run is already cancelled, as requested: nothing is appended, and nothing followed
    assert again.status_code == 202 and again.json()["version"] == 5
    assert again.json()["position"] == done.json()["position"] - 2, (
        "its audit entry and the agent run's cancellation stand behind it"
    )
    assert (await system.http.post(path, headers={"If-Match": "*"})).status_code == 202
    assert (await system.ended(run_id))["cancel_reason"] == "enough"


async def test_only_a_running_run_is_cancelled(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    await (await worker.next("alpha")).complete()
    await system.ended(run_id)
    refused = await system.http.post(f"/v1/runs/{run_id}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid-state")
    assert (await system.http.post(f"/v1/runs/{new_id()}/cancel")).status_code == 404


async def test_events_are_cloudevents(system: System, worker: PlayedWorker) -> None:
    run_id = await eventful_run(system, worker)
    page = (await system.http.get(f"/v1/runs/{run_id}/events", params={"limit": 1000})).json()
    recorded = await system.events(run_id)
    assert page["next_cursor"] is None and len(page["data"]) == len(recorded)
    versions: dict[str, int] = {}
    for event, stored in zip(page["data"], recorded, strict=True):
        assert event["specversion"] == "1.0" and event["datacontenttype"] == "application/json"
        assert event["source"] == f"/tenants/{stored.tenant_id}" and event["tenantid"] == str(stored.tenant_id)
        assert (event["id"], event["subject"]) == (stored.name, str(stored.stream_id))
        assert (event["type"], event["position"], event["time"]) == (stored.topic, stored.position, timestamp(stored.recorded_at))
        assert event["dataschema"] == f"urn:tidelog:schemas/{stored.topic}/v1" and event["rootid"] == run_id
        versions[event["subject"]] = versions.get(event["subject"], 0) + 1
        assert event["streamversion"] == versions[event["subject"]]
        assert REGISTRY.events[event["type"]].model_validate(event["data"])
        # Names of extensions are lower-case letters and digits (CloudEvents 1.0, section 3.1).
        assert all(name.isascii() and name.isalnum() and name == name.lower() for name in event)
    by_id = {event["id"]: event for event in page["data"]}
    first, caused = page["data"][0], [e for e in page["data"] if e["actor"].startswith("saga:")]
    assert first["actor"].startswith("key:") and caused
    assert all(event["causationid"] in by_id for event in caused)
    assert {event["correlationid"] for event in page["data"]} == {run_id}


async def test_events_in_pages_and_by_type(system: System, worker: PlayedWorker) -> None:
    run_id = await eventful_run(system, worker)
    recorded = [event.position for event in await system.events(run_id)]
    found, query = [], {"limit": "4"}
    while True:
        response = await system.http.get(f"/v1/runs/{run_id}/events", params=query)
        page = response.json()
        found += [event["position"] for event in page["data"]]
        assert response.headers["tidelog-position"] == str(found[-1])
        if page["next_cursor"] is None:
            break
        assert response.links["next"]["url"].startswith("?")
        query["cursor"] = page["next_cursor"]
    assert found == recorded
    types = {"types": "run.started, run.completed", "limit": "1000"}
    listed = (await system.http.get("/v1/events", params=types)).json()["data"]
    assert [event["type"] for event in listed] == ["run.started", "run.completed"]
    after = (await system.http.get(f"/v1/runs/{run_id}/events", params={"after": recorded[-3]})).json()["data"]
    assert [event["position"] for event in after] == recorded[-2:]
    until = (await system.http.get("/v1/events", params={"root_id": run_id, "as_of": recorded[4], "limit": 99})).json()["data"]
    assert [event["position"] for event in until] == recorded[:5]
    one = await system.http.get(f"/v1/events/{recorded[0]}")
    assert one.headers["content-type"] == "application/cloudevents+json" and one.json()["type"] == "run.started"


@pytest.mark.parametrize("count", [1, 150])
async def test_a_long_plan(system: System, worker: PlayedWorker, count: int) -> None:
    run_id = await system.start(*["alpha"] * count)
    run = await system.run(run_id)
    keys = [step["key"] for step in run["steps"]]
    assert len(set(keys)) == count and keys[0] == "alpha"
    await eventually(lambda: _scheduled(system, run_id))


async def _scheduled(system: System, run_id: str) -> bool:
    return bool((await system.run(run_id))["steps"][0]["status"] == "scheduled")


async def test_each_registered_version_of_an_agent_can_be_asked_for(system: System, worker: PlayedWorker) -> None:
    """The document says which version was asked for, and which version was only noted."""
    for version in ("1", "2"):
        await system.worker(f"worker-{version}").register({"name": "pinned", "version": version})
    steps = [
        {"key": "old", "agent": "pinned", "agent_version": "1"}, {"key": "new", "agent": "pinned", "agent_version": "2"},
        {"key": "any", "agent": "pinned"},
    ]  # fmt: skip
    run = await system.run(await system.start(plan={"kind": "graph", "steps": steps}))
    assert [(step["agent_version"], step["version_asked"]) for step in run["steps"]] == [("1", True), ("2", True), ("2", False)]
    unknown = {"plan": {"kind": "graph", "steps": [{**steps[0], "agent_version": "3"}]}}
    refused = await system.http.post("/v1/runs", json=unknown)
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown-agent")
    assert "versions 1 and 2, not 3" in refused.json()["detail"]
