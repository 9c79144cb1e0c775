"""Large values are references in every document and list, and each reference leads to the value."""

import asyncio
import json
from base64 import b64encode
from random import Random
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
import structlog

from api.cli.main import app
from application.views.large import LARGE_BYTES, SHOWN_OF_MESSAGE
from projections.messages import LIST
from projections.runs import replay
from projections.runs.queries import EVENTS
from tests.integration.played_worker import PlayedWorker
from tests.integration.projection_kit import OLD_MEMBER
from tests.integration.system_kit import System, served
from tidelog import Client
from tidelog.errors import NotFoundError

LARGE = 20_000
MINE = {"ref": "/v1/mine", "bytes": 1}
"""A value of a user that looks like a reference."""


@pytest_asyncio.fixture
async def player(shared: System) -> PlayedWorker:
    return await ready(shared)


async def ready(system: System) -> PlayedWorker:
    player = system.worker("large")
    await player.register("big", "small", "third", tools=["load", {"name": "send", "idempotent": False}])
    return player


def value(mark: str, size: int = LARGE) -> str:
    """A long text of characters with one and with two bytes."""
    return "".join(f"{mark}{number}ü" for number in range(size // 4))


async def followed(system: System, holder: dict[str, Any], field: str, expected: Any, *, empty: Any = None) -> None:
    """Checks the reference of a field, and that its route answers the value."""
    assert holder[field] == empty
    place = holder["large"][field]
    answer = await system.http.get(place["ref"])
    assert answer.status_code == 200, answer.text
    assert answer.json() == expected
    assert len(answer.content) == place["bytes"] > LARGE_BYTES
    again = await system.http.get(place["ref"], headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def large_run(system: System, worker: PlayedWorker) -> tuple[str, list[str]]:
    """A run with a large value in every place. Returns its id and its calls."""
    steps = [
        {"key": "one", "agent": "big", "input": value("own"), "retry": {"max_attempts": 2, "initial_s": 0.01}},
        {"key": "two", "agent": "small", "after": ["one"], "input": MINE},
    ]
    body = {"input": value("input"), "metadata": {"m": value("meta")}, "plan": {"kind": "graph", "steps": steps}}
    run_id = await system.start(**body)
    first = await worker.next("big")
    await first.fail("transient", message=value("early"))
    first = await worker.next("big")
    await first.ok("record", key="kept", result=value("kept"))
    await first.ok("record", key="mine", result=MINE)
    await first.ok("set", key="set", name="shared", value=value("shared"))
    await first.ok("send", key="said", to="two", body=value("said"))
    await first.ok("send", key="short", to="two", body=MINE)
    loaded = await first.call("load", "load", text=value("arguments"))
    await (await worker.claim(loaded, "tool")).complete(value("loaded"))
    broken = await first.call("broken", "load")
    await (await worker.claim(broken, "tool")).fail(message=value("broken"))
    lost = await first.call("lost", "send")
    await (await worker.claim(lost, "tool")).lose()
    said = {"result": 1, "reason": "I looked.", "evidence": value("evidence")}
    await system.until_topic(run_id, "invocation.became_ambiguous")
    assert (await system.http.post(f"/v1/invocations/{lost}/resolve", json=said)).status_code == 200
    await first.complete(value("result"))
    await (await worker.next("small")).complete(value("final"))
    await system.ended(run_id)
    await system.settled()
    return run_id, [loaded, broken, lost]


async def check_run(system: System, run: dict[str, Any]) -> None:
    one, two = run["steps"]
    await followed(system, run, "input", value("input"))
    await followed(system, run, "metadata", {"m": value("meta")}, empty={})
    await followed(system, run, "result", value("final"))
    await followed(system, one, "result", value("result"))
    await followed(system, two, "result", value("final"))
    assert run["plan"]["steps"][0]["input"] is None and run["plan"]["steps"][1]["input"] == MINE
    assert (await system.http.get(one["large"]["input"]["ref"])).json() == value("own")
    assert one["error"]["message"] == value("early")[:SHOWN_OF_MESSAGE] + "…" and one["error"]["kind"] == "transient"
    assert (await system.http.get(one["large"]["error"]["ref"])).json()["message"] == value("early")
    loaded, broken, lost = one["calls"]
    assert (await system.http.get(broken["large"]["error"]["ref"])).json()["message"] == value("broken")
    await followed(system, lost["resolution"], "evidence", value("evidence"))
    assert loaded["large"] is lost["large"] is None and two["large"].keys() == {"result"}


async def test_every_place_of_a_run_has_references_that_lead_to_the_values(shared: System, player: PlayedWorker) -> None:
    run_id, (loaded, broken, lost) = await large_run(shared, player)
    answer = await shared.http.get(f"/v1/runs/{run_id}")
    run = answer.json()
    await check_run(shared, run)
    assert len(answer.content) < LARGE_BYTES, "nothing large is left in the document"

    journal = {entry["key"]: entry for entry in await listed(shared, f"/v1/runs/{run_id}/journal")}
    await followed(shared, journal["kept"], "result", value("kept"))
    assert (await shared.http.get(f"/v1/runs/{run_id}/journal/1/result")).status_code == 404, "another position"
    assert (journal["mine"]["result"], journal["mine"]["large"]) == (MINE, None)
    long, short = await listed(shared, f"/v1/runs/{run_id}/messages")
    await followed(shared, long, "body", value("said"))
    assert (short["body"], short["large"]) == (MINE, None)

    calls = await listed(shared, f"/v1/runs/{run_id}/calls")
    shown = [{name: call[name] for name in of_run} for call, of_run in zip(calls, run["steps"][0]["calls"], strict=True)]
    assert shown == run["steps"][0]["calls"]
    call = (await shared.http.get(f"/v1/invocations/{loaded}")).json()
    await followed(shared, call, "arguments", {"text": value("arguments")}, empty={})
    await followed(shared, call, "result", value("loaded"))
    call = (await shared.http.get(f"/v1/invocations/{broken}")).json()
    assert (await shared.http.get(call["large"]["error"]["ref"])).json()["message"] == value("broken")
    call = (await shared.http.get(f"/v1/invocations/{lost}")).json()
    await followed(shared, call["resolution"], "evidence", value("evidence"))


async def test_the_replay_has_the_same_references_at_every_position(shared: System, player: PlayedWorker) -> None:
    run_id, _ = await large_run(shared, player)
    events, run = await shared.events(run_id), await shared.run(run_id)
    for name, path in {"run": "", "calls": "/calls", "journal": "/journal"}.items():
        now = (await shared.http.get(f"/v1/runs/{run_id}{path}")).json()
        assert (await shared.http.get(f"/v1/runs/{run_id}{path}?as_of={events[-1].position}")).json() == now, name
    waited = await shared.http.get(f"/v1/runs/{run_id}", headers={"Prefer": "wait=1"})
    assert waited.json() == run
    for event in events:
        view = replay([other for other in events if other.position <= event.position])
        assert view is not None
        assert (await shared.http.get(f"/v1/runs/{run_id}?as_of={event.position}")).json() == view.model_dump(mode="json")
    early = next(event for event in events if event.topic == "agent_run.retry_scheduled").position
    step = f"/v1/runs/{run_id}/steps/one"
    assert (await shared.http.get(f"{step}/error?as_of={early - 1}")).status_code == 404
    assert (await shared.http.get(f"{step}/error?as_of={early + 1}")).json()["message"] == value("early")
    assert (await shared.http.get(f"{step}/result?as_of={early}")).status_code == 404
    assert (await shared.http.get(f"{step}/input?as_of={early}")).json() == value("own")
    first = events[0].position
    assert (await shared.http.get(f"/v1/runs/{run_id}/input?as_of={first}")).json() == value("input")
    assert (await shared.http.get(f"/v1/runs/{run_id}/input?as_of={first - 1}")).status_code == 404
    recorded = next(event for event in events if event.topic == "agent_run.step_recorded").position
    entry = f"/v1/runs/{run_id}/journal/{recorded}/result"
    assert (await shared.http.get(entry, params={"as_of": recorded - 1})).status_code == 404
    assert (await shared.http.get(entry, params={"as_of": events[-1].recorded_at.isoformat()})).json() == value("kept")


async def test_values_have_their_routes_whatever_their_size(shared: System, player: PlayedWorker) -> None:
    run_id = await shared.start("small", input=MINE)
    base = f"/v1/runs/{run_id}"
    await shared.settled()
    for path in ("result", "steps/small/result", "steps/small/error", "steps/small/input", "error", "steps/none/result"):
        assert (await shared.http.get(f"{base}/{path}")).status_code == 404, path
    assert (await shared.http.get(f"{base}/input")).json() == MINE
    assert (await shared.http.get(f"{base}/metadata")).json() == {}
    await (await player.next("small")).complete(None)
    run = await shared.ended(run_id)
    at = {"Tidelog-Position": str(run["position"])}
    for path in ("result", "steps/small/result"):
        answer = await shared.http.get(f"{base}/{path}", headers=at)
        assert (answer.status_code, answer.content) == (200, b"null"), path
        assert int(answer.headers["tidelog-position"]) >= run["position"]
        assert answer.headers["cache-control"] == "private, no-cache"
    failing = await shared.start("small")
    await (await player.next("small")).fail()
    await shared.ended(failing)
    assert (await shared.http.get(f"/v1/runs/{failing}/error")).json() == (await shared.run(failing))["error"]
    assert (await shared.http.get(f"/v1/runs/{failing}/result")).status_code == 404
    for path in ("input?as_of=x", "input?as_off=1"):
        assert (await shared.http.get(f"{base}/{path}")).status_code == 422, path


async def test_values_belong_to_their_tenant(shared: System, player: PlayedWorker) -> None:
    run_id, (loaded, _, lost) = await large_run(shared, player)
    run = await shared.run(run_id)
    [message, _] = await listed(shared, f"/v1/runs/{run_id}/messages")
    entry = next(entry for entry in await listed(shared, f"/v1/runs/{run_id}/journal") if entry["large"])
    places = [run["large"], *(step["large"] for step in run["steps"]), message["large"], entry["large"]]
    refs = [place["ref"] for held in places for place in held.values()]
    refs += [ref.partition("?")[0] for ref in refs]
    refs += [f"/v1/invocations/{loaded}/{field}" for field in ("arguments", "result")] + [f"/v1/invocations/{lost}/evidence"]
    other = f"/v1/runs/{await shared.start('small')}"
    await (await player.next("small")).complete(1)
    _, foreign = await shared.tenant(f"other-{run_id}")
    async with shared.client(foreign) as stranger:
        for ref in refs:
            assert (await shared.http.get(ref)).status_code == 200, ref
            assert (await stranger.get(ref)).status_code == 404, ref
    for ref in (message["large"]["body"]["ref"], entry["large"]["result"]["ref"]):
        assert (await shared.http.get(ref.replace(f"/v1/runs/{run_id}", other))).status_code == 404, "of another run"


@pytest.mark.parametrize("size", [10, 4_000, LARGE])
async def test_results_of_several_final_steps(shared: System, player: PlayedWorker, size: int) -> None:
    """Two of the three together are too large where each alone is not. The answer goes out as it is read."""
    run_id = await shared.start(plan={"kind": "parallel", "agents": ["big", "small", "third"]})
    expected = {}
    for key in ("big", "small", "third"):
        claim = await player.next(key)
        if key != "third":
            expected[key] = value(key, size)
            await claim.complete(expected[key])
            await shared.settled()
            middle = await shared.run(run_id)
    position = (await shared.events(run_id))[-1].position
    await claim.fail()
    run = await shared.ended(run_id)
    assert run["status"] == "completed" and run["missing"] == ["third"]
    if size == 10:
        assert run["result"] == expected and run["large"] is None
    else:
        await followed(shared, run, "result", expected)
        assert [step["large"] is not None for step in run["steps"]] == [size == LARGE, size == LARGE, False]
    for path in (f"/v1/runs/{run_id}/result", f"/v1/runs/{run_id}/result?as_of={position}"):
        assert (await shared.http.get(path)).json() == expected
    assert (await shared.http.head(f"/v1/runs/{run_id}/result")).status_code == 200
    assert (await shared.http.get(f"/v1/runs/{run_id}?as_of={middle['position']}")).json() == middle


async def test_large_values_are_not_read_for_documents_and_lists(shared: System, player: PlayedWorker) -> None:
    """PostgreSQL touches no page of a large result or body: a reader of ten references costs a few pages, the values hundreds."""
    sizes = []
    for size in (100, 6 * LARGE):
        no_pattern = b64encode(Random(size).randbytes(size)).decode()
        run_id = await shared.start("big")
        claim = await player.next("big")
        await claim.ok("send", key="m", to="big", body=no_pattern)
        await claim.complete(no_pattern)
        await shared.ended(run_id)
        await shared.settled()
        rows = await shared.sql("SELECT result_position, tenant_id FROM run_step WHERE run_id = %s", UUID(run_id))
        [(position, tenant)] = rows
        asked = {"tenant": tenant, "run": UUID(run_id), "after": None, "largest": LARGE_BYTES, "limit": 10}
        sizes.append(
            (await pages(shared, EVENTS, [["run.step_completed"], LARGE_BYTES, [position]]), await pages(shared, LIST, asked))
        )
        whole = await pages(shared, "SELECT state FROM event WHERE notification_id = ANY (%s)", [[position]])
    (small_event, small_list), (large_event, large_list) = sizes
    assert large_event <= small_event + 2 and large_list <= small_list + 2
    assert whole > large_event + 15, "what reading the value would cost"


async def pages(system: System, query: str, parameters: Any) -> int:
    """The pages that a query and the sending of its rows touch. A new connection reads six pages of the catalogue, too, once."""
    async with system.container.database.connection() as connection:
        for _ in range(2):
            cursor = await connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, SERIALIZE BINARY, FORMAT JSON) {query}", parameters)
            [(told,)] = await cursor.fetchall()
    plan = told[0]
    found = plan["Plan"], plan.get("Serialization", {})
    return sum(part.get(f"Shared {kind} Blocks", 0) for part in found for kind in ("Hit", "Read"))


async def listed(system: System, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await system.http.get(path)).json()["data"]
    return found


# --- clients ------------------------------------------------------------------------------------------------------------


async def test_the_client_gets_the_values(shared: System, player: PlayedWorker) -> None:
    run_id, (loaded, _, lost) = await large_run(shared, player)
    async with served(shared.container) as url, Client(url, shared.key) as client:
        run = await client.get_run(UUID(run_id))
        assert (run.input, run.metadata, run.result) == (value("input"), {"m": value("meta")}, value("final"))
        one, two = run.steps
        assert (one.result, two.result, run.large, one.large) == (value("result"), value("final"), None, None)
        assert [step["input"] for step in run.plan["steps"]] == [value("own"), MINE]
        assert one.error is not None and one.error["message"] == value("early")
        by_key = {call.key: call for call in one.calls}
        assert by_key["broken"].error is not None and by_key["broken"].error["message"] == value("broken")
        assert by_key["lost"].resolution is not None and by_key["lost"].resolution["evidence"] == value("evidence")
        assert await client.wait(UUID(run_id)) == run
        assert [call.error for call in await client.calls(UUID(run_id))] == [call.error for call in one.calls]
        assert [message.body for message in await client.messages(UUID(run_id))] == [value("said"), MINE]
        assert value("kept") in [entry.result for entry in await client.journal(UUID(run_id))]
        call = await client.invocation(UUID(loaded))
        assert (call.arguments, call.result) == ({"text": value("arguments")}, value("loaded"))
        call = await client.invocation(UUID(lost))
        assert call.resolution is not None and call.resolution["evidence"] == value("evidence")

        bare = await client.get_run(UUID(run_id), whole=False)
        assert bare.result is None and bare.large is not None and bare.large["result"].bytes == len(value("final").encode()) + 2
        assert await client.value(bare.large["result"]) == await client.result(UUID(run_id)) == value("final")
        assert await client.result(UUID(run_id), step="one") == value("result")
        early = bare.steps[0].error
        assert early is not None and len(early["message"]) == SHOWN_OF_MESSAGE + 1
        assert [message.body for message in await client.messages(UUID(run_id), whole=False)] == [None, MINE]
        with pytest.raises(NotFoundError):
            await client.result(UUID(run_id), as_of=bare.position - bare.event_count)


async def test_the_command_line_says_how_to_get_them(
    shared: System, player: PlayedWorker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, (loaded, _, _) = await large_run(shared, player)
    # The server is in this process, and would print its own log between the lines of the command.
    with structlog.testing.capture_logs():
        await commands_tell(shared, run_id, loaded, capsys, monkeypatch)


async def commands_tell(
    shared: System, run_id: str, loaded: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    final, result = value("final"), value("result")
    async with served(shared.container) as url:
        monkeypatch.setenv("TIDELOG_URL", url)
        monkeypatch.setenv("TIDELOG_API_KEY", shared.key)

        async def told(*arguments: str) -> str:
            await asyncio.to_thread(tidelog, *arguments)
            return capsys.readouterr().out

        shown = await told("runs", "show", run_id)
        assert f"bytes: tidelog runs result {run_id} --step one" in shown and f"bytes: tidelog runs result {run_id}\n" in shown
        assert f"bytes: tidelog runs show {run_id} --full" in shown
        assert f"bytes: tidelog invocations show {loaded}" in shown and "ü" * 2 not in shown and len(shown) < LARGE_BYTES
        full = await told("runs", "show", run_id, "--full")
        told_whole = "".join(full.split())
        assert final in told_whole and value("arguments") in told_whole and f"runs result {run_id} --step one" in full
        assert json.loads(await told("runs", "show", run_id, "--json"))["result"] is None
        assert (await told("runs", "result", run_id)).strip() == final
        assert json.loads(await told("runs", "result", run_id, "--step", "one", "--json")) == result
        assert value("loaded") in await told("invocations", "show", loaded)
        assert "bytes: tidelog events show " in await told("runs", "messages", run_id)
        assert "bytes: tidelog events show " in await told("runs", "journal", run_id)
        assert result in "".join((await told("replay", run_id, "--full")).split())


def tidelog(*arguments: str) -> None:
    app(list(arguments), standalone_mode=False)


# --- beside a process of the release before -----------------------------------------------------------------------------


async def test_a_run_that_is_a_document_has_references_too(system: System) -> None:
    worker = await ready(system)
    await system.sql(OLD_MEMBER)
    run_id, _ = await large_run(system, worker)
    assert await system.sql("SELECT view IS NULL FROM run WHERE run_id = %s", UUID(run_id)) == [(False,)]
    await check_run(system, await system.run(run_id))
