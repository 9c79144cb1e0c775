"""Accepted values stay readable for ever: values deeper than the present limit. Also rows that cannot be read any more."""

from typing import Any
from uuid import UUID

import jsonschema
import pytest
from immutables import Map

from application.engine.commands.state_models import model_of
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading.cloudevents import ENVELOPE
from domain import context, invocations, messages, projects, runs, tools
from domain.agent_runs import AgentRunCompleted, AgentRunRequested, StepRecorded
from domain.projects import default_project_id
from domain.registry import REGISTRY
from domain.runs import agent_run_id_of
from domain.tenants import DEFAULT_TENANT_ID
from domain.values import MAX_DEPTH
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, append, eventually, new_id, served
from tidelog import Client

DEEPEST = 202
"""An agent's result could be 199 levels deep, and two or three levels more when another agent wrapped the result."""


def nested(levels: int) -> Any:
    value: Any = 123456789012345678901234567890
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


OLD = nested(DEEPEST)


async def start_old(system: System, *, complete: bool) -> UUID:
    """Appends a run of an earlier release with the deepest accepted values, with or without the result of its agent."""
    run_id, plan = new_id(), runs.Plan(steps=(runs.Step(key="alpha", agent="alpha", agent_version="1", input=OLD),))
    work = agent_run_id_of(run_id, "alpha")
    started = runs.RunStarted(project_id=default_project_id(DEFAULT_TENANT_ID), plan=plan, input=OLD, metadata={"m": OLD})
    scheduled = runs.StepScheduled(step="alpha", agent="alpha", agent_version="1", agent_run_id=work)
    await append(system, run_id, run_id, 0, started, scheduled)

    async def requested() -> bool:
        return AgentRunRequested.TOPIC in await system.topics(run_id)

    await eventually(requested, "the agent run")
    if complete:
        recorded = StepRecorded(attempt=0, key="s", kind="step", result=OLD)
        done = AgentRunCompleted(run_id=run_id, step="alpha", attempt=0, result=OLD)
        await append(system, work, run_id, 1, recorded, done)
    return run_id


async def test_old_values_are_read_everywhere(system: System, worker: PlayedWorker) -> None:
    """The values pass through the sagas, which hand them on, the read models, replay, lists, pages, streams and the SDK."""
    run_id = await start_old(system, complete=True)
    message = messages.MessageSent(
        run_id=run_id,
        sender="alpha",
        sender_id=new_id(),
        recipient="alpha",
        recipient_id=agent_run_id_of(run_id, "alpha"),
        body=OLD,
    )
    await append(system, new_id(), run_id, 0, message)
    project = new_id()
    await append(system, project, project, 0, projects.ProjectCreated(name="old", metadata={"m": OLD}))
    tool = new_id()
    registered = tools.ToolRegistered(
        name="old", version="1", description="", capabilities=(), parameters={"default": OLD}, idempotent=True, timeout_s=1,
        max_attempts=1,
    )  # fmt: skip
    await append(system, tool, tool, 0, registered)
    run = await system.ended(str(run_id))
    assert (run["status"], run["result"], run["input"], run["metadata"]) == ("completed", OLD, OLD, {"m": OLD})
    assert await system.sql("SELECT * FROM parked_event") == []
    assert (await system.http.get(f"/v1/runs/{run_id}", params={"as_of": await system.container.feed.head()})).json() == run
    assert [r["unreadable"] for r in (await system.http.get("/v1/runs")).json()["data"]] == [False]
    assert (await system.http.get(f"/v1/runs/{run_id}/messages")).json()["data"][0]["body"] == OLD
    assert {"m": OLD} in [p["metadata"] for p in (await system.http.get("/v1/projects")).json()["data"]]
    assert {"default": OLD} in [t["parameters"] for t in (await system.http.get("/v1/tools")).json()["data"]]
    assert (await system.http.get(f"/v1/runs/{run_id}/events")).json()["data"][0]["data"]["input"] == OLD
    async with served(system.container) as url, Client(url, system.key) as client:
        events = [event async for event in client.events(run_id)]
        assert [event.position for event in events] == [event.position for event in await system.events(run_id)]
        completed = next(event for event in events if event.type == "run.step_completed")
        assert (events[0].data["input"], completed.data["result"]) == (OLD, OLD)
        assert [event.id async for event in client.events(run_id, follow=False)] == [event.id for event in events]
        assert (await client.get_run(run_id)).result == OLD and (await client.messages(run_id))[0].body == OLD


async def test_a_worker_goes_on_with_old_values(system: System, worker: PlayedWorker) -> None:
    """The worker gets old values, and the server hands them on. The worker's own values must keep the limit."""
    run_id = await start_old(system, complete=False)
    shared = context.ContextValueSet(run_id=run_id, agent_run_id=new_id(), name="v", value=OLD, value_version=1)
    await append(system, context.context_id_of(run_id), run_id, 0, shared)
    alpha = await worker.next("alpha")
    assert alpha.body["input"] == OLD
    assert (await alpha.ok("get", key="g", name="v"))["value"] == OLD
    call = UUID(await alpha.call("c", "add", a=1))
    await worker.next("add", "tool")
    succeeded = invocations.InvocationSucceeded(agent_run_id=UUID(alpha.work_id), key="c", attempt=1, result=OLD)
    await append(system, call, run_id, 2, succeeded)
    await system.settled()
    entries = {entry["key"]: entry["result"] for entry in (await alpha.journal())["journal"]}
    assert entries["c"] == OLD and entries["g"]["value"] == OLD
    deep: object = 1
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    assert (await alpha.post("complete", result=deep)).status_code == 422
    await alpha.complete("done")
    assert (await system.ended(str(run_id)))["result"] == "done"
    assert await system.sql("SELECT * FROM parked_event") == []


def test_a_snapshot_of_an_old_value_is_read() -> None:
    model = model_of(REGISTRY, context.DECIDER)
    state = context.Context(Map({"v": context.ContextEntry(OLD, 3)}))
    assert model.decode(model.encode(state)) == state


async def test_an_event_of_a_thousand_levels_is_folded_and_shown(system: System) -> None:
    """No release of Tidelog wrote such an event. A user who wrote one can read it."""
    run_id, levels = new_id(), 1_000
    state = b'{"run_id":"%s","agent_run_id":"%s","name":"v","value":%s,"value_version":1}' % (
        str(run_id).encode(), str(run_id).encode(), b"[" * levels + b"]" * levels,
    )  # fmt: skip
    context_id = context.context_id_of(run_id)
    position = await append(system, context_id, run_id, 0, NewEvent(context.ContextValueSet.TOPIC, 1, state))
    await system.settled()
    assert await system.sql("SELECT * FROM parked_event") == []
    assert (await system.container.commands.load(context.DECIDER, DEFAULT_TENANT_ID, context_id)).state.version_of("v") == 1
    event = await system.http.get(f"/v1/events/{position}")
    assert event.status_code == 200 and event.content.count(b"[") == levels


@pytest.mark.parametrize("metadata", ["{}", "", "[1]", "x"])
async def test_events_of_those_who_only_use_the_log_do_not_stop_the_feed(system: System, metadata: str) -> None:
    """The recorder for the `eventsourcing` library writes events without metadata, and their state may be encrypted."""
    position, stream_id = await system.settled(), new_id()
    new = tuple(NewEvent("order.placed", 1, state) for state in (b'{"a":1}', b"\xff\x00 not JSON", b""))
    request = one_command(DEFAULT_TENANT_ID, new_id(), (StreamAppend(stream_id, stream_id, 0, new),), metadata)
    await system.store.append(request)
    await system.http.post("/v1/projects", json={"name": "after"})
    page = await system.http.get("/v1/events", params={"after": position})
    assert page.status_code == 200, page.text
    placed, other, empty, project = page.json()["data"]
    assert (placed["data"], other["data_base64"], empty["data_base64"]) == ({"a": 1}, "/wAgbm90IEpTT04=", "")
    assert project["data"]["name"] == "after" and project["actor"].startswith("key:")
    for event in (placed, other, empty, project):
        jsonschema.validate(event, ENVELOPE, jsonschema.Draft202012Validator)
    async with served(system.container) as url, Client(url, system.key) as client:
        events = client.events(after=position)
        assert [(await anext(events)).id for _ in range(4)] == [event["id"] for event in page.json()["data"]]
        await events.aclose()  # type: ignore[attr-defined]  # an async generator


# --- rows that cannot be read -----------------------------------------------------------------------------------------

BROKEN = [
    ("UPDATE run SET view = '{\"plan\":' WHERE run_id = %s", "not JSON"),
    ("UPDATE run SET view = '{}' WHERE run_id = %s", "another document"),
    ("UPDATE run SET view = decode('ff', 'hex') WHERE run_id = %s", "not text"),
]


@pytest.mark.parametrize(("damage", "what"), BROKEN)
async def test_a_run_that_cannot_be_read_costs_its_own_entry(
    system: System, worker: PlayedWorker, capfd: pytest.CaptureFixture[str], damage: str, what: str
) -> None:
    run_ids = [await system.start("alpha", input=n) for n in range(3)]
    await system.settled()
    before = (await system.http.get("/v1/runs")).json()["data"]
    await system.sql(damage, run_ids[1])
    page = await system.http.get("/v1/runs")
    assert page.status_code == 200, page.text
    newest, marked, oldest = page.json()["data"]
    assert (newest, oldest) == (before[0], before[2])
    assert marked["unreadable"] is True
    kept = ("run_id", "project_id", "status", "created_at", "position")
    assert [marked[name] for name in kept] == [before[1][name] for name in kept]
    assert [run["run_id"] for run in (await system.http.get("/v1/runs?limit=2")).json()["data"]] == run_ids[:0:-1]
    alone = await system.http.get(f"/v1/runs/{run_ids[1]}")
    assert (alone.status_code, alone.json()["code"]) == (500, "internal")
    assert "defect" in capfd.readouterr().out
    for run_id in (run_ids[0], run_ids[2]):
        assert (await system.http.get(f"/v1/runs/{run_id}")).status_code == 200
    # The log still has it.
    assert (await system.http.get(f"/v1/runs/{run_ids[1]}", params={"as_of": before[1]["position"]})).json()["input"] == 1
    assert len((await system.http.get(f"/v1/runs/{run_ids[1]}/events")).json()["data"]) > 1
    async with served(system.container) as url, Client(url, system.key) as client:
        assert [run.unreadable for run in (await client.list_runs()).data] == [False, True, False]


async def test_so_it_is_in_every_list(system: System, worker: PlayedWorker, capfd: pytest.CaptureFixture[str]) -> None:
    run_id = await system.start("alpha", "beta")
    alpha = await worker.next("alpha")
    for key in ("m1", "m2"):
        await alpha.ok("send", key=key, to="beta", body=key)
    await system.http.post("/v1/projects", json={"name": "p", "metadata": {"a": 1}})
    typed = {"name": "typed", "output_schema": {"type": "string"}}
    await worker.register(typed)
    await system.settled()
    lists = {
        f"/v1/runs/{run_id}/messages": ("message", "body", "WHERE position = (SELECT min(position) FROM message)"),
        "/v1/projects": ("project", "metadata", "WHERE name = 'p'"),
        "/v1/agents": ("agent", "output_schema", "WHERE name = 'typed'"),
        "/v1/tools": ("tool", "parameters", "WHERE name = 'add'"),
    }
    for path, (table, column, where) in lists.items():
        before = (await system.http.get(path)).json()["data"]
        await system.sql(f"UPDATE {table} SET {column} = '[1' {where}")
        page = await system.http.get(path)
        assert page.status_code == 200, page.text
        after = page.json()["data"]
        [place] = [place for place, entry in enumerate(after) if entry["unreadable"]]
        assert len(after) == len(before) > 1
        assert not after[place][column] and before[place][column] != after[place][column]
        documents = ("input_schema", "output_schema", column)
        for name, value in before[place].items():
            assert name in (*documents, "unreadable") or after[place][name] == value
        assert [*after[:place], *after[place + 1 :]] == [*before[:place], *before[place + 1 :]]
        assert "stored_row_unreadable" in capfd.readouterr().out
