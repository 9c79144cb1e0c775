"""Calls and journals of runs: lists with cursors, now and as of a position, of runs in rows and of runs that are documents."""

import json
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from api.cli import run_view
from application.views.runs import NEWEST_CALLS
from domain.tenants import DEFAULT_TENANT_ID
from projections import runs
from projections.runs.folded import calls_in, evolve_view
from tests.integration.played_worker import PlayedWorker
from tests.integration.projection_kit import NO_OLD_MEMBER, OLD_MEMBER, Log, building, log_on, projecting
from tests.integration.system_kit import System, new_id, served
from tidelog import Client

CALLS = NEWEST_CALLS + 5
CHANGED = """
UPDATE run SET view = convert_to(replace(convert_from(view, 'UTF8'), '"worker_id":"w"', '"worker_id":"x"'), 'UTF8')
WHERE run_id = %s
"""


@pytest_asyncio.fixture
async def player(shared: System) -> PlayedWorker:
    return await ready(shared)


async def ready(system: System) -> PlayedWorker:
    player = system.worker("inside")
    await player.register("inner", "outer", tools=["sum", "post"])
    return player


async def all_pages(system: System, path: str, limit: int, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        response = await system.http.get(path, params={"limit": limit, **query, **cursor})
        assert response.status_code == 200, response.text
        page = response.json()
        assert len(page["data"]) <= limit
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def run_with_calls(system: System, worker: PlayedWorker) -> str:
    run_id = await system.start("inner", "outer")
    alpha = await worker.next("inner")
    for number in range(3):
        await alpha.call(f"a{number}", "sum", n=number)
    for number in range(3):
        call = await worker.next("sum", "tool")
        await (call.fail("permanent") if number == 1 else call.complete(number))
    await alpha.ok("record", key="large", result="x" * 20_000)
    await alpha.ok("record", key="small", result={"n": 1})
    await alpha.complete(1)
    beta = await worker.next("outer")
    for number in range(CALLS - 3):
        await beta.call(f"b{number}", "post", n=number)
    await system.settled()
    return run_id


async def test_a_run_shows_its_newest_calls_and_lists_all(
    shared: System, player: PlayedWorker, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = await run_with_calls(shared, player)
    events = await shared.events(run_id)
    run = await shared.run(run_id)
    assert run["call_count"] == CALLS and [step["call_count"] for step in run["steps"]] == [3, CALLS - 3]
    shown = [call["key"] for step in run["steps"] for call in step["calls"]]
    assert shown == [f"b{number}" for number in range(CALLS - 3 - NEWEST_CALLS, CALLS - 3)]

    run_view.show(run)
    assert f"The run has {CALLS} calls; the newest {NEWEST_CALLS} are here. All: " in capsys.readouterr().out

    listed = await all_pages(shared, f"/v1/runs/{run_id}/calls", 20)
    assert [call["key"] for call in listed] == [f"a{n}" for n in range(3)] + [f"b{n}" for n in range(CALLS - 3)]
    assert [call["status"] for call in listed[:4]] == ["succeeded", "failed", "succeeded", "requested"]
    assert listed[1]["error"]["message"] == "broken" and listed[1]["step"] == "inner" and listed[3]["step"] == "outer"
    newest = [{name: call[name] for name in run["steps"][1]["calls"][0]} for call in listed[-NEWEST_CALLS:]]
    assert newest == run["steps"][1]["calls"]
    positions = [call["position"] for call in listed]
    assert positions == sorted(positions)
    for event in (*events[::25], events[-1]):  # at any position the list is the fold of the events up to there
        view = None
        for recorded in events:
            if recorded.position <= event.position:
                view = evolve_view(view, recorded, keep=None)
        assert view is not None
        expected = [call.model_dump(mode="json") for call in calls_in(view)]
        assert await all_pages(shared, f"/v1/runs/{run_id}/calls", 1_000, as_of=str(event.position)) == expected
        assert (await shared.http.get(f"/v1/runs/{run_id}?as_of={event.position}")).json()["call_count"] == len(expected)
    assert await all_pages(shared, f"/v1/runs/{run_id}/calls", 7, as_of=str(events[-1].position)) == listed
    before = await shared.http.get(f"/v1/runs/{run_id}/calls", params={"as_of": str(events[0].position - 1)})
    assert before.status_code == 404
    assert (await shared.http.get(f"/v1/runs/{new_id()}/calls")).status_code == 404


async def test_the_journal_of_a_run(shared: System, player: PlayedWorker) -> None:
    run_id = await run_with_calls(shared, player)
    events = {event.position: event for event in await shared.events(run_id)}
    entries = await all_pages(shared, f"/v1/runs/{run_id}/journal", 9)
    told = [(entry["step"], entry["kind"], entry["key"]) for entry in entries]
    assert told[:3] == [("inner", "call", f"a{n}") for n in range(3)]
    assert sorted(told[3:6]) == [("inner", "call_finished", f"a{n}") for n in range(3)]
    assert told[6:8] == [("inner", "step", "large"), ("inner", "step", "small")]
    assert told[8:] == [("outer", "call", f"b{n}") for n in range(CALLS - 3)]
    large, small = entries[6:8]
    assert (large["result"], large["large"]["result"]["bytes"]) == (None, 20_002)
    assert (small["result"], small["large"]) == ({"n": 1}, None)
    assert (await shared.http.get(large["large"]["result"]["ref"])).json() == "x" * 20_000
    assert [entry["succeeded"] for entry in sorted(entries[3:6], key=lambda entry: str(entry["key"]))] == [True, False, True]
    async with served(shared.container) as url, Client(url, shared.key) as client:
        assert [entry.key for entry in await client.journal(UUID(run_id))] == [entry["key"] for entry in entries]
        calls = await client.calls(UUID(run_id), as_of=entries[6]["position"])
        assert [(call.key, call.step, call.status) for call in calls[:2]] == [
            ("a0", "inner", "succeeded"),
            ("a1", "inner", "failed"),
        ]
        assert len(calls) == 3 and (await client.get_run(UUID(run_id))).call_count == CALLS
    middle = entries[6]["position"]
    assert await all_pages(shared, f"/v1/runs/{run_id}/journal", 4, as_of=str(middle)) == entries[:7]
    first = min(events)
    assert (await shared.http.get(f"/v1/runs/{run_id}/journal", params={"as_of": str(first)})).json()["data"] == []
    assert (await shared.http.get(f"/v1/runs/{run_id}/journal", params={"as_of": str(first - 1)})).status_code == 404
    assert (await shared.http.get(f"/v1/runs/{new_id()}/journal")).status_code == 404


async def test_what_is_inside_a_run_belongs_to_its_tenant(shared: System, player: PlayedWorker) -> None:
    run_id = await shared.start("inner")
    await shared.settled()
    _, foreign = await shared.tenant(f"other-{run_id}")
    async with shared.client(foreign) as other:
        for part in ("calls", "journal", "calls?as_of=9999999", "journal?as_of=9999999"):
            assert (await other.get(f"/v1/runs/{run_id}/{part}")).status_code == 404, part
    await (await player.next("inner")).complete()


# --- beside a process of the release before -----------------------------------------------------------------------------


async def test_runs_are_documents_while_a_process_of_the_release_before_is_there(system: System) -> None:
    worker = await ready(system)
    await system.sql(OLD_MEMBER)
    document = await run_with_calls(system, worker)
    await system.sql(NO_OLD_MEMBER)
    rows = await run_with_calls(system, worker)
    in_rows = dict(await system.sql("SELECT run_id, view IS NULL FROM run"))
    assert in_rows == {UUID(document): False, UUID(rows): True}

    for run_id in (document, rows):
        shown, events = await system.run(run_id), await system.events(run_id)
        expected = runs.replay(events)
        assert expected is not None and shown == {**expected.model_dump(mode="json"), "result": expected.result}
        listed = await all_pages(system, f"/v1/runs/{run_id}/calls", 20)
        assert len(listed) == CALLS == shown["call_count"]
        assert await all_pages(system, f"/v1/runs/{run_id}/calls", 30, as_of=str(events[-1].position)) == listed
    summaries = {run["run_id"]: run for run in (await system.http.get("/v1/runs")).json()["data"]}
    differing = {name for name in summaries[rows] if summaries[rows][name] != summaries[document][name]}
    assert differing <= {"run_id", "created_at", "position", "event_count"}


async def test_a_rebuild_leaves_no_document(database_url: str) -> None:
    async with log_on(database_url) as log, projecting(log, runs.PROJECTION), building(log, runs.PROJECTION):
        await log.rows(OLD_MEMBER)
        known = [*await log.runs(3), await log.run(end=False)]
        await log.until("runs")
        assert await log.rows("SELECT count(*) FROM run WHERE view IS NULL") == [(0,)]
        assert await log.rows("SELECT count(*) FROM run_step") == [(0,)]
        before = [await shown(log, run_id) for run_id in known]
        await log.ask(runs.PROJECTION, "verify")
        assert (await log.until_status("runs", "equal", purpose="check")).rows == 4
        await log.rows(CHANGED, known[3])
        await log.ask(runs.PROJECTION, "verify")
        found = json.loads((await log.until_status("runs", "different", purpose="check")).difference or "")
        assert (found["column"], found["live"], found["log"]) == ("view/steps/0/worker_id", "x", "w"), "the place in the document"
        await log.rows(NO_OLD_MEMBER)
        await log.ask(runs.PROJECTION, "rebuild", swap=True)
        await log.until_status("runs", "swapped")
        assert await log.rows("SELECT count(*) FROM run WHERE view IS NULL") == [(4,)]
        after = [await shown(log, run_id) for run_id in known]
        assert [run.model_dump(mode="json") for run in after] == [run.model_dump(mode="json") for run in before]
        await log.ask(runs.PROJECTION, "verify")
        assert (await log.until_status("runs", "equal", purpose="check")).rows == 8


async def shown(log: Log, run_id: UUID) -> Any:
    async with log.database.connection() as connection:
        return (await runs.get_run(connection, DEFAULT_TENANT_ID, run_id)).value
