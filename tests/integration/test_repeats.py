"""Repeated reports and requests: the same one gets the first answer and records nothing. A different one is refused, and the first
stays."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from domain import agent_runs, runs
from domain.errors import RepeatedDifferently
from domain.failures import Failure
from domain.kernel import same_json
from tests.integration.played_worker import Answer, Claim, PlayedWorker
from tests.integration.system_kit import System, new_id, request_of

Post = Callable[[dict[str, Any]], Awaitable[Answer]]


@pytest.fixture
async def alpha(system: System, worker: PlayedWorker) -> Claim:
    await system.start("alpha", "beta")
    return await worker.next("alpha")


async def check_repeats(system: System, post: Post, first: dict[str, Any], *others: dict[str, Any]) -> None:
    """Says a report, repeats the report (with its fields in reverse order), and says each of the different reports."""
    told = await post(first)
    assert told.status_code == 200, told.text
    head = await system.settled()
    again = await post(turned(first))
    assert (again.status_code, again.json()) == (200, told.json()), again.text
    for other in others:
        refused = await post({**first, **other})
        assert refused.status_code == 409, f"{other} was answered {refused.status_code} {refused.text}"
        assert refused.json()["code"] == "repeated-differently"
    third = await post(first)
    assert (third.status_code, third.json()) == (200, told.json()), "the first one stands"
    assert await system.container.feed.head() == head, "a repeat records nothing"


def turned(value: Any) -> Any:
    """The same JSON with the fields of every object in another order."""
    if isinstance(value, dict):
        return {name: turned(inner) for name, inner in reversed(value.items())}
    return [turned(inner) for inner in value] if isinstance(value, list) else value


RESULT = {"a": 1, "b": [{"x": None, "y": 1.5}]}
OTHER_RESULTS = ({"result": {"a": True, "b": RESULT["b"]}}, {"result": {"a": 1, "b": []}}, {"result": None})
ERROR = {"type": "T", "message": "m", "kind": "transient"}
OTHER_ERRORS = ({"error": {**ERROR, "message": "n"}}, {"error": {**ERROR, "kind": "permanent"}}, {"error": {**ERROR, "type": "U"}})


async def test_a_step(system: System, alpha: Claim) -> None:
    async def post(body: dict[str, Any]) -> Answer:
        return await alpha.post("record", **body)

    await check_repeats(system, post, {"key": "k", "result": RESULT}, *OTHER_RESULTS)


async def test_a_call(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    async def post(body: dict[str, Any]) -> Answer:
        return await alpha.post("call", **body)

    first = {"key": "k", "tool": "add", "arguments": {"a": 1, "c": {"d": 2}}}
    await check_repeats(system, post, first, {"arguments": {"a": 2}}, {"tool": "mail"}, {"tool": "mail", "arguments": {"a": 2}})
    # The server's looked-up values, which have changed since the first request, are not part of the request.
    await worker.register(tools=[{"name": "add", "idempotent": False, "timeout_s": 7.5}])
    again = await post(first)
    assert again.status_code == 200, again.text
    assert (await system.topics(alpha.body["run"])).count("invocation.requested") == 1


async def test_a_message(system: System, alpha: Claim) -> None:
    async def post(body: dict[str, Any]) -> Answer:
        return await alpha.post("send", **body)

    await check_repeats(system, post, {"key": "k", "to": "beta", "body": RESULT}, {"body": "other"}, {"to": "alpha"})


async def test_a_receipt(system: System, alpha: Claim) -> None:
    async def post(body: dict[str, Any]) -> Answer:
        return await alpha.post("receive", **body)

    for key in ("m1", "m2"):
        await alpha.ok("send", key=key, to="alpha", body=key)
    await system.settled()
    first, second = [mail["message_id"] for mail in (await alpha.journal())["mailbox"]]
    await check_repeats(system, post, {"key": "k", "message_id": first}, {"message_id": second}, {"message_id": None})
    await check_repeats(system, post, {"key": "none", "message_id": None}, {"message_id": second})


async def test_shared_context(system: System, alpha: Claim) -> None:
    async def post(body: dict[str, Any]) -> Answer:
        return await alpha.post(**body)

    setting = {"report": "set", "key": "s", "name": "n", "value": RESULT}
    await check_repeats(system, post, setting, {"value": 1}, {"name": "other"}, {"expect": 3})
    await check_repeats(system, post, {**setting, "key": "s2", "expect": 1}, {"value": 1}, {"expect": 2})
    reading = {"report": "get", "key": "g", "name": "n"}
    told = (await post(reading)).json()
    await alpha.ok("set", key="later", name="n", value="new")
    again = await post(reading)
    assert again.json() == told, "what was read stays read"
    other = await post({**reading, "name": "other"})
    assert (other.status_code, other.json()["code"]) == (409, "repeated-differently")
    for report, key in (("set", "g"), ("get", "s")):
        misused = await post({"report": report, "key": key, "name": "n", "value": 1})
        assert (misused.status_code, misused.json()["code"]) == (409, "repeated-differently")


async def test_repeats_at_the_same_moment_read_one_value(system: System, alpha: Claim) -> None:
    """Several requests write at once: all of them get the answer of the first recorded request."""

    async def get() -> dict[str, Any]:
        return await alpha.ok("get", key="g", name="n")

    async def write(number: int) -> dict[str, Any]:
        return await alpha.ok("set", key=f"s{number}", name="n", value=number)

    answers = await asyncio.gather(*(write(i) if i % 2 else get() for i in range(12)))
    read = answers[0::2]
    assert all(answer == read[0] for answer in read)
    written = await asyncio.gather(*(alpha.ok("set", key="one", name="m", value=1) for _ in range(6)))
    assert all(answer == written[0] for answer in written) and written[0]["value_version"] == 1


async def test_the_end_of_an_agent_run(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    async def complete(body: dict[str, Any]) -> Answer:
        return await alpha.post("complete", **body)

    await check_repeats(system, complete, {"result": RESULT, "unused_keys": ["k"]}, *OTHER_RESULTS, {"unused_keys": []})
    beta = await worker.next("beta")

    async def fail(body: dict[str, Any]) -> Answer:
        return await beta.post("fail", **body)

    await check_repeats(system, fail, {"error": {**ERROR, "retry_after_s": 3.5}}, *OTHER_ERRORS)


async def test_a_failure_that_is_tried_again(system: System, worker: PlayedWorker) -> None:
    """The delay is computed and not compared. The same holds after the next attempt has begun."""
    retry = {"max_attempts": 3, "initial_s": 0.01}
    run_id = await system.start(plan={"kind": "graph", "steps": [{"key": "alpha", "agent": "alpha", "retry": retry}]})
    alpha = await worker.next("alpha")

    async def fail(body: dict[str, Any]) -> Answer:
        return await alpha.post("fail", **body)

    assert (await fail({"error": ERROR})).json()["retry"] is True
    await system.until_topic(run_id, "agent_run.resumed")
    second = await worker.next("alpha")
    again, other = await fail({"error": ERROR}), await fail(OTHER_ERRORS[0])
    assert again.status_code == 200 and again.json()["retry"] is True
    assert (other.status_code, other.json()["code"]) == (409, "repeated-differently")
    assert second.attempt == 2


async def test_the_end_of_a_call(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    await alpha.call("done", "mail")
    done = await worker.next("mail", "tool")

    async def complete(body: dict[str, Any]) -> Answer:
        return await done.post("complete", **body)

    await check_repeats(system, complete, {"result": RESULT}, *OTHER_RESULTS)
    contrary = await done.post("fail", error=ERROR)
    assert (contrary.status_code, contrary.json()["code"]) == (409, "work-over")
    await alpha.call("failed", "mail")
    failed = await worker.next("mail", "tool")

    async def fail(body: dict[str, Any]) -> Answer:
        return await failed.post("fail", **body)

    await check_repeats(system, fail, {"error": ERROR}, *OTHER_ERRORS)


async def test_the_same_claim_again_records_nothing(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    work = await worker.take("alpha")
    first, again = [await worker.claim(work.work_id, claim="one") for _ in range(2)]
    assert {**first.body, "n": 0} == {**again.body, "n": 0}
    invocation_id = await first.call("k", "add", a=1)
    call, once_more = [await worker.claim(invocation_id, "tool", claim="one") for _ in range(2)]
    assert {**call.body, "n": 0} == {**once_more.body, "n": 0}
    assert await worker.try_claim(work.work_id) is None and await worker.try_claim(invocation_id, "tool") is None, "another claim"
    topics = await system.topics(run_id)
    assert (topics.count("agent_run.claimed"), topics.count("invocation.attempt_started")) == (1, 1)


async def test_a_resolution(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    invocation_id = await alpha.call("k", "mail")
    await (await worker.claim(invocation_id, "tool")).lose()

    async def resolve(**body: Any) -> httpx2.Response:
        return await system.http.post(f"/v1/invocations/{invocation_id}/resolve", json=body)

    said = {"result": {"sent": True}, "reason": "It is in the inbox.", "evidence": {"id": 17}}
    first = await resolve(**said)
    assert first.status_code == 200 and "idempotency-replayed" not in first.headers, first.text
    assert first.json().keys() == {"invocation_id", "position", "version"} and first.headers["etag"] == '"v4"'
    again = await resolve(**turned(said))
    assert again.json() == first.json() and again.headers["idempotency-replayed"] == "true"
    for other in (
        {"error": {"type": "X", "message": "not sent!", "kind": "permanent"}, "reason": "It is in the inbox."},
        {**said, "result": None},
        {**said, "result": {"sent": 1}},
        {**said, "reason": "Ann told me."},
        {**said, "evidence": None},
    ):
        refused = await resolve(**other)
        assert (refused.status_code, refused.json()["code"]) == (409, "already-resolved"), refused.text
        assert all(words in refused.json()["detail"] for words in ("succeeded", '{"sent": true}', "It is in the inbox.", "key:"))


async def test_a_start_with_an_id_of_the_clients_own(system: System, worker: PlayedWorker) -> None:
    first = {"agent": "alpha", "run_id": str(new_id()), "input": {"n": 1}, "metadata": {"customer": "c1"}}
    started = await system.http.post("/v1/runs", json=first)
    again = await system.http.post("/v1/runs", json=turned(first))
    assert again.json() == started.json() and again.headers["idempotency-replayed"] == "true"
    project = (await system.http.post("/v1/projects", json={"name": "other"})).json()["project_id"]
    for other in ({"metadata": {"customer": "c2"}}, {"metadata": {}}, {"project_id": project}, {"input": {"n": True}}):
        refused = await system.http.post("/v1/runs", json={**first, **other})
        assert (refused.status_code, refused.json()["code"]) == (409, "already-exists"), refused.text


async def test_a_cancellation_for_another_reason_is_not_dropped(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    path = f"/v1/runs/{run_id}/cancel"
    for reason, status in (("enough", 202), ("enough", 202), (None, 202), ("wrong input", 409)):
        answer = await system.http.post(path, json={"reason": reason} if reason else {})
        assert answer.status_code == status, answer.text
    assert "enough" in answer.json()["detail"]


async def test_sagas_and_timers_are_not_compared(system: System) -> None:
    """The command ids of sagas and timers follow from events.

    Another release may react to the same event with another command, and that command must not be refused.
    """
    commands, run_id = system.container.commands, new_id()
    start = runs.StartRun(run_id=run_id, project_id=new_id(), plan=runs.parallel(("alpha", "beta"), None))
    await commands.execute(request_of(), start)
    await system.until_topic(run_id, "agent_run.requested", 2)
    for step, repeatable in (("alpha", False), ("beta", True)):
        agent_run_id, request = runs.agent_run_id_of(run_id, step), request_of(repeatable=repeatable)
        await commands.execute(request_of(), agent_runs.ClaimAgentRun(agent_run_id=agent_run_id, worker_id="w", dispatch=1))
        fail = agent_runs.FailAgentRun(agent_run_id=agent_run_id, attempt=1, error=Failure(type="T", message="m"))
        first = await commands.execute(request, fail)
        other = fail.model_copy(update={"error": Failure(type="T", message="n")})
        if repeatable:
            with pytest.raises(RepeatedDifferently, match="with another error"):
                await commands.execute(request, other)
        else:
            again = await commands.execute(request, other)
            assert again.duplicate and again.position == first.position


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), (1, True, False), (0, False, False), (1, 1.0, False), ([1, 2], [2, 1], False),
        ({"a": None}, {}, False), (10**30, 10**30, True), ("é", "é", True), ({"a": {"b": [1]}}, {"a": {"b": [True]}}, False),
    ],
)  # fmt: skip
def test_equal_in_json(one: Any, other: Any, same: bool) -> None:
    assert same_json(one, other) is same
