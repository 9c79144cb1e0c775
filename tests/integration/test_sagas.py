"""Sagas: the whole path from one stream's event to another stream's command."""

from typing import Any
from uuid import UUID

import orjson
import pytest

from application.engine.ports.log import NewEvent
from domain.agent_runs import MailReceived
from domain.messages import SendMessage
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, append, empty_work_queue, eventually, issue_key, new_id, running, stopped


async def parked(system: System) -> list[tuple[Any, ...]]:
    return await system.sql("SELECT position, error FROM parked_event WHERE consumer LIKE 'sagas:%%' ORDER BY position")


async def test_a_sequential_run_hands_results_on(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha", "beta", input={"x": 1})
    first = await worker.next("alpha")
    assert first.body["input"] == {"x": 1} and first.body["results"] == {} and first.body["peers"] == ["beta"]
    await first.complete({"found": 41})
    second = await worker.next("beta")
    assert second.body["results"] == {"alpha": {"found": 41}}
    await second.complete("done")
    run = await system.ended(run_id)
    assert (run["status"], run["result"], run["degraded"], run["missing"]) == ("completed", "done", False, [])
    assert [step["status"] for step in run["steps"]] == ["completed", "completed"]


async def test_a_parallel_run_gives_all_results_to_the_aggregator(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan={"kind": "parallel", "agents": ["alpha", "beta"], "aggregator": "gamma"})
    await system.settled()
    assert await worker.nothing_to_take("gamma")
    for name in ("beta", "alpha"):  # the steps run side by side, so the order is open
        await (await worker.next(name)).complete(name.upper())
    last = await worker.next("gamma")
    assert last.body["results"] == {"alpha": "ALPHA", "beta": "BETA"} and last.body["missing"] == []
    await last.complete(2)
    assert (await system.ended(run_id))["result"] == 2


async def test_a_member_that_fails_leaves_the_run_degraded(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan={"kind": "parallel", "agents": ["alpha", "beta"], "aggregator": "gamma"})
    assert await (await worker.next("alpha")).fail(message="no luck") == {"version": 3, "retry": False}
    await (await worker.next("beta")).complete("B")
    last = await worker.next("gamma")
    assert last.body["results"] == {"beta": "B"} and last.body["missing"] == ["alpha"]
    await last.complete("without alpha")
    run = await system.ended(run_id)
    assert (run["status"], run["degraded"], run["missing"]) == ("completed", True, ["alpha"])
    assert run["steps"][0]["error"]["message"] == "no luck"


async def test_an_aggregator_without_any_result_does_not_run(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan={"kind": "parallel", "agents": ["alpha", "beta"], "aggregator": "gamma"})
    for name in ("alpha", "beta"):
        await (await worker.next(name)).fail()
    run = await system.ended(run_id)
    assert (run["status"], run["error"]["kind"]) == ("failed", "upstream")
    assert await worker.nothing_to_take("gamma")


async def test_a_failed_step_fails_the_run_and_calls_off_what_is_under_way(system: System, worker: PlayedWorker) -> None:
    steps = [{"key": "a", "agent": "alpha"}, {"key": "b", "agent": "beta"}, {"key": "c", "agent": "gamma", "after": ["a", "b"]}]
    run_id = await system.start(plan={"kind": "graph", "steps": steps})
    other = await worker.next("beta")
    await (await worker.next("alpha")).fail(message="boom")
    run = await system.ended(run_id)
    assert run["status"] == "failed" and run["error"]["message"] == "boom"
    assert {step["key"]: step["status"] for step in run["steps"]} == {"a": "failed", "b": "cancelled", "c": "cancelled"}
    late = await other.post("complete", result=1)
    assert (late.status_code, late.json()["code"]) == (409, "work-over")


async def test_cancelling_calls_off_agent_runs_and_their_invocations(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan={"kind": "parallel", "agents": ["alpha", "beta"]})
    alpha = await worker.next("alpha")
    waiting, begun = await alpha.call("k1", "add", a=1), await alpha.call("k2", "add", a=2)
    held = await worker.claim(begun, "tool")
    response = await system.http.post(f"/v1/runs/{run_id}/cancel", json={"reason": "enough"})
    assert response.status_code == 202
    run = await system.ended(run_id)
    assert (run["status"], run["cancel_reason"]) == ("cancelled", "enough")
    assert [step["status"] for step in run["steps"]] == ["cancelled", "cancelled"]
    calls = {call["invocation_id"]: call["status"] for call in run["steps"][0]["calls"]}
    assert calls == {waiting: "cancelled", begun: "running"}  # work that has begun is recorded as usual
    assert await worker.try_claim(waiting, "tool") is None
    assert await alpha.stopped() == await held.stopped() == "cancelled"
    await held.complete("the effect happened")
    assert {c["status"] for c in (await system.ended(run_id))["steps"][0]["calls"]} == {"cancelled", "succeeded"}
    beta = await worker.take("beta")
    assert await worker.try_claim(beta.work_id) is None


async def test_a_result_that_crosses_the_cancelling_leaves_no_step_running(database_url: str, nats_url: str) -> None:
    """The result is recorded before the cancellation, and the run hears of it afterwards: its saga was away."""
    await empty_work_queue(nats_url)
    async with running(database_url, nats_url, reactions_in_append=False) as system:
        await issue_key(system)
        worker = system.worker()
        await worker.register("alpha", "beta")
        run_id = await system.start("alpha", "beta")
        alpha = await worker.next("alpha")
        await stopped(system.tasks.pop("sagas"))  # both events are in the log before a saga reacts
        await alpha.complete("too late")
        assert (await system.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 202
        run = await eventually(lambda: _cancelled(system, run_id))
        assert [step["status"] for step in run["steps"]] == ["cancelled", "cancelled"]
        assert run["steps"][0]["finished_at"] is not None


async def _cancelled(system: System, run_id: str) -> dict[str, Any] | None:
    run = await system.run(run_id)
    return run if run["status"] == "cancelled" else None


async def test_the_outcome_of_a_tool_call_comes_back_into_the_journal(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    ids = [await alpha.call(f"k{n}", "add", a=n) for n in range(2)]
    good = await worker.next("add", "tool")
    assert good.body["arguments"] == {"a": 0} and good.body["work"] == ids[0]
    await good.complete({"sum": 1})
    await (await worker.next("add", "tool")).fail("invalid", "cannot add that")
    await system.settled()
    journal = (await alpha.journal())["journal"]
    assert journal[0] == {"key": "k0", "kind": "call", "status": "ok", "result": {"sum": 1}, "invocation_id": ids[0]}
    assert journal[1]["status"] == "error" and journal[1]["error"]["message"] == "cannot add that"
    await alpha.complete()
    [step] = (await system.ended(run_id))["steps"]
    assert [(c["status"], c["attempts"]) for c in step["calls"]] == [("succeeded", 1), ("failed", 1)]


async def test_mail_waits_for_a_recipient_that_has_not_begun(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha", "beta")
    alpha = await worker.next("alpha")
    message_id = (await alpha.ok("send", key="m1", to="beta", body={"hello": 1}))["message_id"]
    await system.settled()
    assert "agent_run.mail_delivered" in await system.topics(run_id)
    await alpha.complete()
    beta = await worker.next("beta")
    [mail] = beta.body["mailbox"]
    assert (mail["message_id"], mail["sender"], mail["body"]) == (message_id, "alpha", {"hello": 1})
    await beta.ok("receive", key="r1", message_id=message_id)
    again = await beta.journal()
    assert again["mailbox"] == [] and again["journal"][0]["result"]["body"] == {"hello": 1}
    await beta.complete()
    await system.ended(run_id)
    [message] = (await system.http.get(f"/v1/runs/{run_id}/messages")).json()["data"]
    assert (message["status"], message["sender"], message["recipient"]) == ("received", "alpha", "beta")


async def test_mail_to_a_step_that_has_ended_is_refused_and_seen(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha", "beta")
    alpha = await worker.next("alpha")
    await alpha.complete()
    beta = await worker.next("beta")
    refused = await beta.post("send", key="m1", to="alpha", body="too late")
    assert (refused.status_code, refused.json()["code"]) == (409, "recipient-over")
    assert (await system.http.get(f"/v1/runs/{run_id}/messages")).json()["data"] == []
    sent = SendMessage(  # as earlier releases sent it: the saga finds that the step has ended
        message_id=new_id(), run_id=UUID(run_id), sender="beta", sender_id=UUID(beta.work_id), recipient="alpha",
        recipient_id=UUID(alpha.work_id), body="too late",
    )  # fmt: skip
    await system.command(sent)
    await system.until_topic(run_id, "agent_run.mail_refused")
    await beta.complete()
    await system.ended(run_id)
    [message] = (await system.http.get(f"/v1/runs/{run_id}/messages")).json()["data"]
    assert message["status"] == "refused" and "completed" in message["refused"]


async def test_all_events_again_change_nothing(database_url: str, nats_url: str) -> None:
    """A saga process that lost its checkpoint reads the log from the start: the product's rules add no event."""
    await empty_work_queue(nats_url)
    async with running(database_url, nats_url) as system:
        await issue_key(system)
        worker = system.worker()
        await worker.register("alpha", "beta", "gamma", tools=["add"])
        finished = await system.start(plan={"kind": "parallel", "agents": ["alpha", "beta"], "aggregator": "gamma"})
        alpha = await worker.next("alpha")
        await alpha.ok("send", key="m", to="beta", body=1)
        await alpha.call("k", "add", a=1)
        await (await worker.next("add", "tool")).complete(2)
        await alpha.complete()
        await (await worker.next("beta")).fail()
        await (await worker.next("gamma")).complete()
        await system.ended(finished)
        cancelled = await system.start("alpha", "beta")
        await (await worker.next("alpha")).call("k", "add", a=1)
        await system.http.post(f"/v1/runs/{cancelled}/cancel")
        await system.ended(cancelled)
        await system.start("beta")
        await worker.next("beta")
        head = await system.settled()

        await stopped(system.tasks.pop("sagas"))
        await system.sql("UPDATE checkpoint SET position = 0 WHERE name LIKE 'sagas:%%'")
    async with running(database_url, nats_url) as again:
        assert await again.settled() == head
        assert await parked(again) == []


async def test_an_event_that_makes_no_sense_is_parked_and_others_go_on(system: System, worker: PlayedWorker) -> None:
    broken = await append(system, (odd := new_id()), odd, 0, NewEvent("run.step_scheduled", 1, b'{"step":"x"}'))
    completed = orjson.dumps({"run_id": str(new_id()), "step": "x", "attempt": 1})
    lost = await append(system, (stray := new_id()), stray, 0, NewEvent("agent_run.completed", 1, completed))
    # The stream of an agent run cannot be folded: the saga finds this at its decision.
    run_id = await system.start("alpha")
    [requested] = await system.until_topic(run_id, "agent_run.requested")
    unknown = MailReceived(attempt=1, key="k", message_id=new_id())
    await append(system, requested.stream_id, requested.root_id, 1, unknown)
    assert (await system.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 202

    good = await system.start("beta")
    await (await worker.next("beta")).complete("fine")
    assert (await system.ended(good))["result"] == "fine"
    [cancelled] = [e.position for e in await system.events(run_id) if e.topic == "run.cancelled"]
    errors = dict(await parked(system))
    assert set(errors) == {broken, lost, cancelled}
    assert "does not fit its class" in errors[broken] and errors[lost].startswith("NotFound")
    assert errors[cancelled].startswith("KeyError")


@pytest.mark.parametrize("outcome", ["result", "error"])
async def test_an_ambiguous_invocation_waits_for_a_person(system: System, worker: PlayedWorker, outcome: str) -> None:
    """A tool must not run twice, and its worker vanishes after the intent: the tool is not called again."""
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call("k", "mail", to="x")
    vanished = await worker.next("mail", "tool")
    await vanished.lose()
    await system.settled()
    assert await worker.nothing_to_take("mail", "tool")
    assert await system.worker("worker-2").try_claim(vanished.work_id, "tool") is None
    assert (await system.run(run_id))["steps"][0]["calls"][0]["status"] == "ambiguous"
    assert (await alpha.journal())["journal"][0]["status"] == "pending"

    said = {"result": {"sent": True}} if outcome == "result" else {"error": {"type": "NotSent", "message": "bounced"}}
    person = {**said, "reason": "I looked"}
    path = f"/v1/invocations/{invocation_id}/resolve"
    resolved = await system.http.post(path, json=person)
    assert resolved.status_code == 200, resolved.text
    assert (await system.http.post(path, json=person)).json() == resolved.json()
    assert "invocation.resolved" in await system.topics(run_id)
    late = await vanished.post("complete", result="it did run")
    assert late.json()["code"] == "work-over"
    await system.settled()
    [entry] = (await alpha.journal())["journal"]
    assert entry["status"] == ("ok" if outcome == "result" else "error")
    assert entry["result"] == person.get("result")
    await alpha.complete("went on")
    assert (await system.ended(run_id))["result"] == "went on"


async def test_a_crash_of_an_idempotent_tools_worker_is_another_attempt(system: System, worker: PlayedWorker) -> None:
    await system.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", "add", a=1)
    lost = await worker.next("add", "tool")
    await lost.lose()
    work = await worker.take("add", "tool")
    second = await system.worker("worker-2").claim(work.work_id, "tool", work.dispatch)
    assert (lost.attempt, second.attempt, await lost.stopped()) == (1, 2, "lost")
    assert (await lost.post("complete", result=1)).json()["code"] == "stale-attempt"
    await second.complete(2)
    await system.settled()
    assert (await alpha.journal())["journal"][0]["result"] == 2


async def test_another_worker_continues_with_the_journal_and_the_first_is_fenced(system: System, worker: PlayedWorker) -> None:
    await system.start("alpha")
    first = await worker.next("alpha")
    await first.ok("record", key="s1", result={"n": 1})
    await first.lose()
    second = await system.worker("worker-2").claim(first.work_id, dispatch=2)
    assert second.attempt == 2
    assert second.body["journal"] == [{"key": "s1", "kind": "step", "status": "ok", "result": {"n": 1}}]
    for report, body in (
        ("record", {"key": "s2", "result": 1}), ("call", {"key": "c", "tool": "add", "arguments": {}}),
        ("send", {"key": "m", "to": "alpha"}), ("receive", {"key": "r"}), ("complete", {}), ("get", {"key": "t", "name": "n"}),
        ("set", {"key": "t", "name": "n", "value": 1}), ("fail", {"error": {"type": "T", "message": "m"}}),
    ):  # fmt: skip
        refused = await first.post(report, **body)
        assert (refused.status_code, refused.json()["code"]) == (409, "stale-attempt"), report
    await second.complete()
