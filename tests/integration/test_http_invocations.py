"""Tool calls for people: the list, a single call, and a person's resolution, through to the agent and the run."""

from typing import Any
from uuid import UUID

import pytest

from domain.invocations import InvocationSucceeded
from domain.kernel import Metadata
from projections import invocations
from tests.integration.played_worker import Claim, PlayedWorker
from tests.integration.system_kit import System, append, new_id


async def ambiguous_call(system: System, worker: PlayedWorker, key: str = "k") -> tuple[str, Claim, str]:
    """Makes a run whose call of `mail` waits for a person. Returns the run's id, the agent's claim and the call's id."""
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call(key, "mail", to="ann@example.com")
    await (await worker.next("mail", "tool")).lose()
    return run_id, alpha, invocation_id


async def listed(system: System, **filters: Any) -> list[dict[str, Any]]:
    head = await system.container.feed.head()
    response = await system.http.get("/v1/invocations", params=filters, headers={"Tidelog-Position": str(head)})
    assert response.status_code == 200, response.text
    return list(response.json()["data"])


async def test_the_calls_that_wait_for_a_person(system: System, worker: PlayedWorker) -> None:
    run_id, alpha, invocation_id = await ambiguous_call(system, worker)
    other = await alpha.call("sum", "add", a=1)
    assert {call["invocation_id"] for call in await listed(system)} == {invocation_id, other}
    [waiting] = await listed(system, status="ambiguous")
    since = waiting.pop("since")
    assert waiting == {
        "invocation_id": invocation_id, "run_id": run_id, "agent_run_id": alpha.work_id, "key": "k", "tool": "mail",
        "status": "ambiguous", "attempt": 1, "cancel_requested": False, "fallback": None, "asked_by": "agent_run",
        "cached_from": None,
        "arguments_preview": '{"to":"ann@example.com"}',
    }  # fmt: skip
    [became] = [event for event in await system.events(run_id) if event.topic == "invocation.became_ambiguous"]
    assert since == became.recorded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert await listed(system, status="ambiguous", run_id=run_id) == [{**waiting, "since": since}]
    assert await listed(system, status="ambiguous", run_id=str(new_id())) == []
    assert [call["invocation_id"] for call in await listed(system, run_id=run_id, status="requested")] == [other]
    pages, query = [], {"limit": 1}
    while True:
        page = (await system.http.get("/v1/invocations", params=query)).json()
        pages += [call["invocation_id"] for call in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert sorted(pages, reverse=True) == pages and set(pages) == {invocation_id, other}
    assert (await system.http.get("/v1/invocations?status=lost")).status_code == 422


async def test_a_call_and_its_resolution(system: System, worker: PlayedWorker) -> None:
    run_id, alpha, invocation_id = await ambiguous_call(system, worker)
    path = f"/v1/invocations/{invocation_id}"
    before = await system.http.get(path)
    told = before.json()
    assert (told["status"], told["arguments"], told["idempotent"]) == ("ambiguous", {"to": "ann@example.com"}, False)
    assert (told["worker_id"], told["attempt"], told["resolution"], told["version"]) == ("worker-1", 1, None, 3)
    assert before.headers["etag"] == '"v3"'
    said = {"result": None, "reason": "It is in the outbox.", "evidence": {"message": "<17@mail>"}}
    resolved = await system.http.post(f"{path}/resolve", json=said)
    assert resolved.status_code == 200, resolved.text
    after = (await system.http.get(path)).json()
    assert (after["status"], after["result"], after["error"], after["version"]) == ("succeeded", None, None, 4)
    resolution = after["resolution"]
    assert (resolution["reason"], resolution["evidence"]) == (said["reason"], said["evidence"])
    [event] = [event for event in await system.events(run_id) if event.topic == "invocation.resolved"]
    actor = Metadata.model_validate_json(event.metadata).actor
    assert resolution["by"] == actor and actor.startswith("key:")
    assert not {"invocation.succeeded", "invocation.failed"} & set(await system.topics(run_id))
    # The agent goes on with the result, and the run shows who resolved the call.
    await system.settled()
    [entry] = (await alpha.journal())["journal"]
    assert (entry["status"], entry["result"]) == ("ok", None)
    [call] = (await system.run(run_id))["steps"][0]["calls"]
    assert (call["status"], call["resolution"]) == ("succeeded", resolution)
    assert await listed(system, status="ambiguous") == []
    replayed = (await system.http.get(f"/v1/runs/{run_id}?as_of={event.position}")).json()
    assert replayed["steps"][0]["calls"] == [call]


async def test_a_log_of_before_has_a_plain_outcome(system: System, worker: PlayedWorker) -> None:
    """An earlier release recorded a person's resolution as the tool's own answer. Such events stay readable."""
    run_id, alpha, invocation_id = await ambiguous_call(system, worker)
    plain = InvocationSucceeded(agent_run_id=UUID(alpha.work_id), key="k", attempt=1, result="by hand")
    await append(system, UUID(invocation_id), UUID(run_id), 3, plain)
    await system.settled()
    call = (await system.http.get(f"/v1/invocations/{invocation_id}")).json()
    assert (call["status"], call["result"], call["resolution"]) == ("succeeded", "by hand", None)
    assert (await alpha.journal())["journal"][0]["result"] == "by hand"
    late = await system.http.post(f"/v1/invocations/{invocation_id}/resolve", json={"result": "by hand", "reason": "seen"})
    assert (late.status_code, late.json()["code"]) == (409, "invalid-state")


async def test_an_id_of_something_else_is_no_call(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    for unknown in (run_id, str(new_id())):
        answer = await system.http.get(f"/v1/invocations/{unknown}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_rows_are_the_same_however_the_log_is_cut(system: System, worker: PlayedWorker, size: int) -> None:
    run_id, alpha, invocation_id = await ambiguous_call(system, worker)
    await alpha.call("sum", "add", a=1)
    call = await worker.next("add", "tool")
    await call.fail("transient")
    await (await worker.next("add", "tool")).complete(3)
    await system.http.post(f"/v1/invocations/{invocation_id}/resolve", json={"result": 1, "reason": "seen"})
    await system.settled()
    rows = "SELECT * FROM invocation ORDER BY invocation_id"
    live = await system.sql(rows)
    assert len(live) == 2 and {row[6] for row in live} == {"succeeded"}
    events = [event for event in await system.events() if event.topic in invocations.PROJECTION.topics]
    async with system.container.database.transaction() as connection:
        await connection.execute("DELETE FROM invocation")
        for start in range(0, len(events), size):
            await invocations.apply(connection, events[start : start + size])
    assert await system.sql(rows) == live
    assert (await system.run(run_id))["status"] == "running"
