"""Calls with an effect in doubt, at the real server with a played worker: who is asked, what is shown, what a person may say."""

import json
from typing import Any
from uuid import UUID

import pytest

from projections.invocations import previews
from tests.integration.played_worker import Claim, PlayedWorker
from tests.integration.system_kit import System

MAIL = {"name": "mail.told", "idempotent": False, "reconcile_timeout_s": 7.0}


async def vanished(system: System, worker: PlayedWorker, tool: str = "mail.told", **arguments: Any) -> tuple[str, Claim, Claim]:
    """Makes a run whose call's worker vanishes. Returns the run's id, the agent's claim and the claim of the tool."""
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", tool, **arguments)
    call = await worker.next(tool, "tool")
    await call.lose()
    return run_id, alpha, call


async def shown(system: System, call: Claim) -> dict[str, Any]:
    response = await system.http.get(f"/v1/invocations/{call.work_id}")
    assert response.status_code == 200
    return dict(response.json())


async def resolve(system: System, call: Claim, status: int, **said: Any) -> dict[str, Any]:
    response = await system.http.post(f"/v1/invocations/{call.work_id}/resolve", json={"reason": "seen", **said})
    assert response.status_code == status, response.text
    return dict(response.json())


@pytest.fixture
async def told(worker: PlayedWorker) -> PlayedWorker:
    await worker.register(tools=[{"parameters": {}, **MAIL}])
    return worker


async def test_another_worker_finds_out_what_became_of_a_call(system: System, told: PlayedWorker) -> None:
    run_id, alpha, call = await vanished(system, told, to="ann@example.com")
    other = system.worker("worker-2")
    await other.register(tools=[{"parameters": {}, **MAIL}])
    asks = await other.next("mail.told", "reconcile")
    assert asks.body["kind"] == "reconcile" and asks.attempt == 2
    assert (asks.body["work"], asks.body["arguments"], asks.body["timeout_s"]) == (call.work_id, {"to": "ann@example.com"}, 7.0)
    await system.settled()
    assert await system.sql("SELECT kind, pool, attempt FROM open_work WHERE work_id = %s", UUID(call.work_id)) == [
        ("reconcile", "mail.told", 2)
    ]
    now = await shown(system, call)
    assert (now["status"], now["attempt"], now["worker_id"]) == ("reconciling", 1, "worker-1")
    assert {name: now["reconcile"][name] for name in ("because", "attempt", "asked", "outcome")} == {
        "because": "lost", "attempt": 1, "asked": 1, "outcome": None
    }  # fmt: skip
    [of_run] = (await system.run(run_id))["steps"][0]["calls"]
    assert of_run["status"] == "reconciling"
    assert (await asks.post("complete", result=1)).status_code == 409, "it has an answer, not a result"
    await asks.ok("reconciled", outcome="succeeded", result={"sent": True})
    assert (await asks.post("reconciled", outcome="succeeded", result={"sent": True})).status_code == 200, "a repeat"
    assert (await asks.post("reconciled", outcome="unknown")).status_code == 409, "another answer"
    await system.settled()
    [entry] = (await alpha.journal())["journal"]
    assert (entry["status"], entry["result"]) == ("ok", {"sent": True})
    after = await shown(system, call)
    assert (after["status"], after["reconcile"]["outcome"], after["resolution"]) == ("succeeded", "succeeded", None)
    [of_run] = (await system.run(run_id))["steps"][0]["calls"]
    assert of_run["status"] == "succeeded"


async def test_only_workers_that_can_tell_are_asked_and_a_person_after_a_while(
    system: System, told: PlayedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.invocations.reconciling.PATIENCE_S", 0.5)
    hosted = await told.hosted()
    assert (set(hosted.offered("tool")), set(hosted.offered("reconcile"))) == ({"add", "mail", "mail.told"}, {"mail.told"})
    await told.define(tools=[{"name": "mail.told", "parameters": {}}])  # as a worker of the release before says it
    assert set(hosted.offered("reconcile")) == set()
    await told.define(tools=[{"parameters": {}, **MAIL}])
    run_id, _, call = await vanished(system, told)
    await system.until_topic(run_id, "invocation.became_ambiguous")
    await system.settled()
    now = await shown(system, call)
    assert (now["status"], now["reconcile"]["gave_up"]) == ("ambiguous", "the reconcile function gave no answer within 0 s")
    assert await told.try_claim(call.work_id, "reconcile", 2) is None
    await call.complete("late")
    assert (await shown(system, call))["status"] == "succeeded"


async def test_a_cancelled_run_still_wants_to_know(system: System, told: PlayedWorker) -> None:
    run_id, _, call = await vanished(system, told)
    assert (await system.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 202
    await system.until_topic(run_id, "invocation.cancel_requested")
    asks = await told.next("mail.told", "reconcile")
    await asks.lose()
    assert await asks.stopped() == "lost"
    asks = await told.next("mail.told", "reconcile")
    assert asks.attempt == 3
    await asks.ok("reconciled", outcome="not_happened")
    await system.settled()
    now = await shown(system, call)
    assert (now["status"], now["effect"], now["cancel_requested"]) == ("cancelled", None, True)
    assert await system.sql("SELECT 1 FROM open_work") == []


async def test_a_person_says_that_it_did_not_happen(system: System, worker: PlayedWorker) -> None:
    run_id, _, call = await vanished(system, worker, "mail")
    assert (await resolve(system, call, 422, not_happened=False))["code"] == "invalid-request"
    assert (await resolve(system, call, 422, not_happened=True, result=1))["code"] == "invalid-request"
    assert (await resolve(system, call, 409, not_happened=True, attempt=2))["code"] == "invalid-state"
    for _ in range(2):
        await resolve(system, call, 200, not_happened=True, attempt=1, evidence={"log": "empty"})
    assert (await resolve(system, call, 409, not_happened=True, attempt=1))["code"] == "already-resolved"
    await system.settled()
    now = await shown(system, call)
    assert now["status"] == "requested" and now["not_happened"]["evidence"] == {"log": "empty"}
    again = await worker.next("mail", "tool")
    assert (again.work_id, again.attempt) == (call.work_id, 2)
    await again.lose()
    await resolve(system, call, 409, not_happened=True, attempt=1)  # of the attempt before
    await system.settled()
    assert (await shown(system, call))["status"] == "ambiguous", "a request of before does not call the tool again"
    await resolve(system, call, 200, result="sent")
    assert (await shown(system, call))["status"] == "succeeded"
    entries = (await system.http.get("/v1/audit", params={"action": "invocations.resolve"})).json()["data"]
    assert len([entry for entry in entries if entry["target_id"] == call.work_id]) >= 2
    topics = await system.topics(run_id)
    assert topics.count("invocation.not_happened") == 1 and topics.count("invocation.attempt_started") == 2


async def test_calls_that_wait_are_listed_with_the_beginning_of_their_arguments(system: System, worker: PlayedWorker) -> None:
    await vanished(system, worker, "mail", to="ann@example.com", text='"arguments": {"x": "ä"}')
    _, _, large = await vanished(system, worker, "mail", text="ä" * 20_000)
    await system.settled()
    head = await system.container.feed.head()
    for query in ({}, {"as_of": str(head)}):
        data = (await system.http.get("/v1/invocations", params={"status": "ambiguous", **query})).json()["data"]
        texts = {call["invocation_id"]: call["arguments_preview"] for call in data}
        long = texts.pop(large.work_id)
        assert len(long) == previews.LENGTH and long.startswith('{"text":"ää') and long.endswith("ä…")
        assert [json.loads(text) for text in texts.values()] == [{"to": "ann@example.com", "text": '"arguments": {"x": "ä"}'}]
    await resolve(system, large, 200, result=1)
    await system.settled()
    every = (await system.http.get("/v1/invocations")).json()["data"]
    assert sorted(call["arguments_preview"] is None for call in every) == [False, True]


@pytest.mark.parametrize(("head", "preview"), [(b'{"run_id":"x","key":"', None), (b'{"key":"k","arguments":{"a":[1,', '{"a":[1,…')])
def test_a_preview_of_what_was_cut(head: bytes, preview: str | None) -> None:
    assert previews.preview_of(head) == preview
