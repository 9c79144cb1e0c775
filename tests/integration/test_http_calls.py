"""Calls of tools without a run, over HTTP: in the background, awaited, many at once; cancelled, resolved, listed."""

import asyncio
from typing import Any

import pytest

from domain.access import Role
from domain.kernel import Metadata
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, new_id, sha256
from tests.integration.test_http_invocations import listed

CALLS = "/v1/tools/add/calls"
ARGUMENTS = {"a": 1, "b": 2}


async def called(system: System, tool: str = "add", **body: Any) -> str:
    answer = await system.http.post(f"/v1/tools/{tool}/calls", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["invocation_id"])


async def test_a_call_in_the_background(system: System, worker: PlayedWorker) -> None:
    answer = await system.http.post(CALLS, json={"arguments": ARGUMENTS}, headers={"Tidelog-On-Behalf-Of": "user:ada"})
    id, said = answer.json()["invocation_id"], answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/invocations/{id}")
    assert said == {"invocation_id": id, "position": int(answer.headers["tidelog-position"]), "version": 1}
    claim = await worker.next("add", "tool")
    given = tuple(claim.body[name] for name in ("work", "run", "arguments", "on_behalf_of"))
    assert given == (id, id, ARGUMENTS, "user:ada")
    await claim.complete(3)
    done = (await system.http.get(answer.headers["location"], headers={"Prefer": "wait=10"})).json()
    assert (done["status"], done["result"], done["asked_by"], done["run_id"]) == ("succeeded", 3, "client", id)
    events = await system.events(id)
    assert [event.topic for event in events] == ["invocation.requested", "invocation.attempt_started", "invocation.succeeded"]
    assert {Metadata.model_validate_json(event.metadata).on_behalf_of for event in events} == {"user:ada"}
    page = (await system.http.get("/v1/events", params={"root_id": id})).json()["data"]
    assert [event["type"] for event in page] == [event.topic for event in events]
    await system.settled()
    [entry] = (await system.http.get("/v1/audit", params={"action": "tools.call"})).json()["data"]
    told = (entry["target_kind"], entry["target_id"], entry["result"], entry["on_behalf_of"])
    assert told == ("tool", "add", "done", "user:ada")
    assert (await system.http.get(f"/v1/runs/{id}")).status_code == 404


async def test_a_call_that_is_waited_for(system: System, worker: PlayedWorker) -> None:
    asked = asyncio.create_task(system.http.post(CALLS, json={"arguments": ARGUMENTS}, headers={"Prefer": "wait=30"}))
    await (await worker.next("add", "tool")).complete(3)
    answer = await asked
    assert (answer.status_code, answer.headers["preference-applied"]) == (201, "wait=30")
    assert (answer.json()["invocation"]["status"], answer.json()["invocation"]["result"]) == ("succeeded", 3)
    late = asyncio.create_task(system.http.post(CALLS, json={"arguments": ARGUMENTS}, headers={"Prefer": "wait=1"}))
    unfinished = await late
    assert (unfinished.status_code, unfinished.json()["invocation"]["status"]) == (202, "requested")


async def test_the_same_key_is_the_same_call(system: System, worker: PlayedWorker) -> None:
    first = await system.http.post(CALLS, json={"arguments": ARGUMENTS, "key": "once"})
    again = await system.http.post(CALLS, json={"arguments": ARGUMENTS, "key": "once"})
    header = await system.http.post(CALLS, json={"arguments": ARGUMENTS}, headers={"Idempotency-Key": "once"})
    assert first.json() == again.json() == header.json()
    assert "idempotency-replayed" not in first.headers and header.headers["idempotency-replayed"] == "true"
    other = await system.http.post(CALLS, json={"arguments": {"a": 2, "b": 2}, "key": "once"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    two = await system.http.post(CALLS, json={"arguments": ARGUMENTS, "key": "once"}, headers={"Idempotency-Key": "twice"})
    assert (two.status_code, two.json()["errors"][0]["pointer"]) == (422, "/key")
    call = (await system.http.get(first.headers["location"])).json()
    assert call["key"] == "once"
    batch = {"calls": [{"arguments": ARGUMENTS, "key": "once"}, {"arguments": ARGUMENTS}]}
    told = [await system.http.post(f"{CALLS}:batch", json=batch, headers={"Idempotency-Key": "b"}) for _ in range(2)]
    ids = [[each["invocation_id"] for each in answer.json()["calls"]] for answer in told]
    assert ids[0] == ids[1] and ids[0][0] == first.json()["invocation_id"] and ids[0][1] != ids[0][0]
    assert told[1].headers["idempotency-replayed"] == "true"


async def test_each_call_of_a_batch_has_an_answer_or_a_problem(system: System, worker: PlayedWorker) -> None:
    calls = [{"arguments": ARGUMENTS}, {"arguments": {"a": "x"}}, {"arguments": ARGUMENTS, "timeout_s": 9_999}]
    asked = asyncio.create_task(system.http.post(f"{CALLS}:batch", json={"calls": calls}, headers={"Prefer": "wait=30"}))
    await (await worker.next("add", "tool")).complete(3)
    answer = await asked
    done, wrong, long = answer.json()["calls"]
    assert (answer.status_code, done["status"], done["invocation"]["result"]) == (200, 201, 3)
    assert (wrong["status"], wrong["problem"]["code"]) == (422, "invalid-command")
    assert wrong["problem"]["errors"][-1]["pointer"] == "/calls/1/arguments/a"
    assert long["problem"]["errors"] == [{"pointer": "/calls/2/timeout_s", "detail": long["problem"]["detail"]}]
    await system.settled()  # the names of tools are a read model's
    unknown = await system.http.post("/v1/tools/ad/calls:batch", json={"calls": calls})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-tool")
    assert unknown.json()["detail"] == "no tool 'ad' is registered; did you mean 'add'?" and "errors" not in unknown.json()


async def test_a_call_is_cancelled_before_and_while_its_tool_runs(system: System, worker: PlayedWorker) -> None:
    waits = await called(system, arguments=ARGUMENTS)
    answer = await system.http.post(f"/v1/invocations/{waits}/cancel", json={"reason": "no need"})
    assert (answer.status_code, answer.json()["version"]) == (202, 2)
    assert (await system.http.get(f"/v1/invocations/{waits}")).json()["status"] == "cancelled"
    work = await worker.take("add", "tool")
    assert work.work_id == waits and await worker.try_claim(waits, "tool", work.dispatch) is None
    await work.ack()
    runs = await called(system, arguments=ARGUMENTS)
    claim = await worker.next("add", "tool")
    assert claim.work_id == runs
    assert (await system.http.post(f"/v1/invocations/{runs}/cancel", json={})).status_code == 202
    assert await claim.stopped() == "cancelled"
    await claim.complete(3)
    assert (await system.http.get(f"/v1/invocations/{runs}")).json()["status"] == "succeeded"
    await system.start("alpha")
    of_run = await (await worker.next("alpha")).call("k", "add", **ARGUMENTS)
    refused = await system.http.post(f"/v1/invocations/{of_run}/cancel", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid-state")
    assert (await system.http.post(f"/v1/invocations/{new_id()}/cancel", json={})).status_code == 404


async def test_a_call_whose_worker_vanished_waits_for_a_person(system: System, worker: PlayedWorker) -> None:
    waited = asyncio.create_task(
        system.http.post("/v1/tools/mail/calls", json={"arguments": {"to": "ann"}}, headers={"Prefer": "wait=30"})
    )
    await (await worker.next("mail", "tool")).lose()
    answer = await waited
    id = answer.json()["invocation_id"]
    assert (answer.status_code, answer.json()["invocation"]["status"]) == (201, "ambiguous")
    resolved = await system.http.post(f"/v1/invocations/{id}/resolve", json={"not_happened": True, "reason": "the log says so"})
    assert resolved.status_code == 200, resolved.text
    await (await worker.next("mail", "tool")).complete({"sent": True})
    assert (await system.http.get(f"/v1/invocations/{id}")).json()["result"] == {"sent": True}


async def test_the_list_shows_who_asked(system: System, worker: PlayedWorker) -> None:
    mine = [await called(system, arguments=ARGUMENTS) for _ in range(3)]
    await system.start("alpha")
    of_run = await (await worker.next("alpha")).call("k", "add", **ARGUMENTS)
    assert {call["invocation_id"]: call["asked_by"] for call in await listed(system)} == {
        **dict.fromkeys(mine, "client"), of_run: "agent_run",
    }  # fmt: skip
    assert [call["invocation_id"] for call in await listed(system, asked_by="client")] == sorted(mine, reverse=True)
    await system.http.post(f"/v1/invocations/{mine[1]}/cancel", json={})
    some = {"asked_by": "client", "status": "requested"}
    assert [call["invocation_id"] for call in await listed(system, **some)] == [mine[2], mine[0]]
    before = (await system.events(mine[1]))[-1].position - 1
    then = (await system.http.get("/v1/invocations", params={**some, "as_of": before})).json()["data"]
    assert [call["invocation_id"] for call in then] == sorted(mine, reverse=True)
    assert [call["invocation_id"] for call in await listed(system, asked_by="client", run_id=mine[0])] == [mine[0]]
    assert await listed(system, asked_by="chain") == []
    assert (await system.http.get("/v1/invocations?asked_by=agent_run")).status_code == 422


async def test_a_narrowed_key_has_no_part_in_calls_without_a_run(system: System, worker: PlayedWorker) -> None:
    id = await called(system, arguments=ARGUMENTS)
    project = (await system.http.get("/v1/projects")).json()["data"][0]["project_id"]
    key = f"narrowed-{new_id()}"
    made = {"label": "n", "role": Role.OWNER, "projects": [project], "key_id": str(new_id()), "sha256": sha256(key)}
    assert (await system.http.post("/v1/keys", json=made)).status_code == 201
    await system.settled()
    async with system.client(key) as narrowed:
        assert (await narrowed.post(CALLS, json={"arguments": ARGUMENTS})).status_code == 403
        assert (await narrowed.post(f"{CALLS}:batch", json={"calls": [{"arguments": ARGUMENTS}]})).status_code == 403
        assert (await narrowed.get(f"/v1/invocations/{id}")).status_code == 404
        assert (await narrowed.post(f"/v1/invocations/{id}/cancel", json={})).status_code == 404
        assert (await narrowed.get("/v1/invocations?asked_by=client")).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"arguments": ARGUMENTS, "key": ""}, "/key"), ({"arguments": ARGUMENTS, "timeout_s": 0}, "/timeout_s"),
        ({"arguments": []}, "/arguments"), ({"arguments": ARGUMENTS, "prio": "high"}, "/prio"),
        ({"arguments": ARGUMENTS, "priority": "urgent"}, "/priority"),
    ],
)  # fmt: skip
async def test_a_body_that_is_wrong_is_refused_at_its_place(
    system: System, worker: PlayedWorker, body: dict[str, Any], pointer: str
) -> None:
    one = await system.http.post(CALLS, json=body)
    many = await system.http.post(f"{CALLS}:batch", json={"calls": [body]})
    assert [(a.status_code, a.json()["errors"][0]["pointer"]) for a in (one, many)] == [(422, pointer), (422, f"/calls/0{pointer}")]
    for calls in ([], [{}] * 101):
        assert (await system.http.post(f"{CALLS}:batch", json={"calls": calls})).status_code == 422
