"""The worker protocol: journals, long polls, calls, mail, shared context, and the repetition of every request."""

import asyncio
import time
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres.log.identity import log_id_at
from application.workers.journal import Journals, JournalView
from domain.context import SetContextValue, context_id_of
from domain.failures import MAX_LOST_CLAIMS
from domain.tenants import DEFAULT_TENANT_ID
from domain.tools import RegisterTool, tool_id_of
from tests.integration.system_kit import PATIENCE_S, Claim, PlayedWorker, System, eventually, new_id
from tests.pace import in_time, within


@pytest.fixture
async def alpha(system: System, worker: PlayedWorker) -> Claim:
    await system.start("alpha", "beta")
    return await worker.next("alpha")


async def test_registering(system: System, worker: PlayedWorker) -> None:
    before = await system.settled()
    again = await worker.register("alpha", tools=["add"])
    assert again["worker_id"] == "worker-1" and again["ack_wait_s"] == 10
    log_id = await log_id_at(system.database_url, timeout=PATIENCE_S)
    stream = f"TIDELOG_WORK_{log_id}"
    queues = [(q["kind"], q["pool"], q["stream"], q["log_id"]) for q in again["queues"]]
    assert queues == [("agent", "alpha", stream, log_id), ("tool", "add", stream, log_id)]
    assert again["nats"].keys() == {"url", "inbox_prefix"}
    assert await system.settled() == before + 1  # only the parameters of the tool changed
    assert [q["pool"] for q in (await worker.register("new.agent_1"))["queues"]] == ["new.agent_1"]


async def test_the_claim_says_all_that_is_needed(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    told = {"agent_run_id", "run_id", "attempt", "step_key", "agent", "input", "results", "missing", "peers"}
    assert alpha.body.keys() >= told | {"journal", "mailbox", "version"}
    assert alpha.work is not None
    again = await worker.try_claim(alpha.work_id, dispatch=alpha.work.dispatch, delivery=alpha.work.delivery)
    assert again.json() == alpha.body, "the same delivery claimed twice is the same claim"
    for dispatch, code in ((2, "work-over"), (0, "invalid-request")):
        refused = await worker.try_claim(alpha.work_id, dispatch=dispatch, delivery=9)
        assert refused.json()["code"] == code
    unknown = await worker.try_claim(str(new_id()))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not-found")


async def test_work_that_kills_its_workers_is_given_up(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    claim = await worker.next("alpha")
    for delivery in range(2, MAX_LOST_CLAIMS + 1):
        assert (await worker.try_claim(claim.work_id, delivery=delivery)).status_code == 200
    refused = await worker.try_claim(claim.work_id, delivery=MAX_LOST_CLAIMS + 1)
    assert refused.json()["code"] == "work-over"
    assert (await system.ended(run_id))["error"]["kind"] == "lost"


async def test_steps_are_recorded_once(alpha: Claim) -> None:
    entries = [{"key": f"s{i}", "result": {"n": i}} for i in range(3)]
    first = await alpha.ok("journal", entries=entries)
    assert await alpha.ok("journal", entries=entries) == first
    other = await alpha.post("journal", entries=[{"key": "s0", "result": "other"}])
    assert (other.status_code, other.json()["code"]) == (409, "repeated-differently")
    journal = (await alpha.journal()).json()["journal"]
    assert [(entry["key"], entry["result"]) for entry in journal] == [(f"s{i}", {"n": i}) for i in range(3)]
    later = (await alpha.journal(after_version=first["version"] - 1)).json()["journal"]
    assert [entry["key"] for entry in later] == ["s2"]
    misused = await alpha.post("calls", key="s0", tool="add", arguments={})
    assert (misused.status_code, misused.json()["code"], misused.json()["errors"][0]["pointer"]) == (409, "invalid-state", "/key")


async def test_calls_are_made_once(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    first = await alpha.ok("calls", key="k", tool="add", arguments={"a": 1})
    assert await alpha.ok("calls", key="k", tool="add", arguments={"a": 1}) == first
    await worker.next("add", "tool")
    await system.settled()
    assert await worker.nothing_to_take("add", "tool")


SCHEMAS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"type": "object", "required": ["a"]}, {}, '"a" is a required property'),
    ({"properties": {"a": {"items": {"type": "integer"}}}}, {"a": [1, "x"]}, '"x" is not of type "integer"'),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"required": ["b"]}}}, {}, '"b" is a required property'),
]


@pytest.mark.parametrize(("parameters", "arguments", "detail"), SCHEMAS)
async def test_arguments_are_checked(
    alpha: Claim, worker: PlayedWorker, parameters: dict[str, Any], arguments: dict[str, Any], detail: str
) -> None:
    await worker.register(tools=[{"name": "odd", "parameters": parameters}])
    response = await alpha.post("calls", key="k", tool="odd", arguments=arguments)
    assert response.status_code == 422 and detail in response.json()["detail"], response.text
    assert response.json()["code"] == "invalid-command"
    assert (await alpha.journal()).json()["journal"] == []
    if "items" in str(parameters):
        assert response.json()["errors"][0]["pointer"] == "/arguments/a/1"


UNCHECKABLE: list[tuple[dict[str, Any], str]] = [
    ({"$ref": "#"}, "without end"),
    ({"$ref": "#/nowhere"}, "nowhere"),
    ({"$ref": "http://127.0.0.1:{port}/schema.json"}, "schema.json"),
    ({"properties": {"a": {"pattern": "(?=x)"}}}, "linear time"),
]


@pytest.mark.parametrize(("parameters", "detail"), UNCHECKABLE)
async def test_a_schema_that_cannot_be_checked_is_refused_and_fetches_nothing(
    system: System, alpha: Claim, worker: PlayedWorker, parameters: dict[str, Any], detail: str
) -> None:
    """A pattern is refused at the registration.

    A call with a pattern that an earlier release accepted gets 422, which is no defect.
    """
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    given = {key: value.replace("{port}", str(port)) if isinstance(value, str) else value for key, value in parameters.items()}
    await worker.register(tools=[{"name": "good", "parameters": {}}])
    async with server:
        offer = {"worker_id": "w", "tools": [{"name": "good", "parameters": {}}, {"name": "odd", "parameters": given}]}
        response = await system.http.post("/v1/workers", json=offer)
        assert response.status_code == 422 and detail in response.json()["detail"], response.text
        assert "'odd'" in response.json()["detail"]
        assert response.json()["errors"][0]["pointer"].startswith("/tools/1/parameters")
        await system.command(RegisterTool(tool_id=tool_id_of(DEFAULT_TENANT_ID, "old"), name="old", parameters=given))
        response = await alpha.post("calls", key="k", tool="old", arguments={})
    assert response.status_code == 422 and detail in response.json()["detail"], response.text
    assert (response.json()["code"], response.json()["errors"][0]["pointer"]) == ("invalid-command", "/tool")
    assert asked == []


async def test_arguments_that_backtracking_never_ends_on_stop_nobody(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    """With a backtracking engine each further `a` doubles the time, and no other request is served meanwhile."""
    await worker.register(tools=[{"name": "odd", "parameters": {"properties": {"x": {"pattern": "^(a+)+$"}}}}])
    call = asyncio.create_task(alpha.post("calls", key="k", tool="odd", arguments={"x": "a" * 5_000 + "!"}))
    assert (await system.http.get("/health/live")).status_code == 200
    response = await call
    assert response.status_code == 422 and "does not match" in response.json()["detail"]


async def test_an_unknown_tool_and_an_unknown_recipient(alpha: Claim) -> None:
    tool = await alpha.post("calls", key="k", tool="nothing", arguments={})
    assert (tool.status_code, tool.json()["code"], tool.json()["errors"][0]["pointer"]) == (404, "unknown-tool", "/tool")
    mail = await alpha.post("messages", key="m", to="nobody", body=1)
    assert (mail.status_code, mail.json()["code"], mail.json()["errors"][0]["pointer"]) == (404, "unknown-recipient", "/to")
    assert "alpha, beta" in mail.json()["detail"]


async def test_mail_is_sent_and_received_once(system: System, alpha: Claim) -> None:
    sent = await alpha.ok("messages", key="m", to="alpha", body="note to self")
    assert await alpha.ok("messages", key="m", to="alpha", body="note to self") == sent
    await system.settled()
    assert await alpha.ok("messages", key="m", to="alpha", body="note to self") == sent
    view = (await alpha.journal()).json()
    [mail] = view["mailbox"]  # delivered once
    assert (mail["message_id"], mail["sender"], mail["body"]) == (sent["message_id"], "alpha", "note to self")
    received = await alpha.ok("receipts", key="r", message_id=mail["message_id"])
    assert await alpha.ok("receipts", key="r", message_id=mail["message_id"]) == received
    twice = await alpha.post("receipts", key="r2", message_id=mail["message_id"])
    assert (twice.status_code, twice.json()["code"]) == (409, "invalid-state")
    nothing = await alpha.ok("receipts", key="r3", message_id=None)
    entries = {entry["key"]: entry for entry in (await alpha.journal()).json()["journal"]}
    assert entries["r"]["result"]["body"] == "note to self" and entries["r3"]["result"] is None
    assert nothing["version"] > received["version"]


async def test_shared_context(system: System, alpha: Claim) -> None:
    empty = await alpha.ok("state", key="g0", op="get", name="n")
    assert (empty["found"], empty["value"], empty["value_version"]) == (False, None, 0)
    first = await alpha.ok("state", key="s1", op="set", name="n", value={"x": 1})
    assert (first["value"], first["value_version"]) == ({"x": 1}, 1)
    assert await alpha.ok("state", key="s1", op="set", name="n", value={"x": 1}) == first
    stale = await alpha.post("state", key="s2", op="set", name="n", value=2, expect=0)
    assert (stale.status_code, stale.json()["errors"][0]["pointer"]) == (409, "/expect")
    assert (await alpha.ok("state", key="s3", op="set", name="n", value=2, expect=1))["value_version"] == 2
    # A recorded read keeps its value: the agent's next execution must see the same value.
    old = await alpha.ok("state", key="g0", op="get", name="n")
    assert old["value_version"] == 0 and (await alpha.ok("state", key="g1", op="get", name="n"))["value"] == 2
    assert (await system.topics(alpha.body["run_id"])).count("context.value_set") == 2


async def test_writers_of_the_same_value_do_not_lose_one_another(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan={"kind": "parallel", "agents": ["alpha", "beta", "gamma"]})
    claims = [await worker.step(run_id, key) for key in ("alpha", "beta", "gamma")]
    answers = await asyncio.gather(
        *(claim.ok("state", key=f"k{i}", op="set", name="n", value=i) for claim in claims for i in range(4))
    )
    assert sorted(answer["value_version"] for answer in answers) == list(range(1, 13))


# --- the long poll ----------------------------------------------------------------------------------------------------


WAIT_S = 20.0


async def polling(system: System, alpha: Claim, wait_s: float = WAIT_S) -> "asyncio.Task[Any]":
    """A poll that is under way."""
    version = (await alpha.journal()).json()["version"]
    task = asyncio.create_task(alpha.journal(after_version=version, wait_s=wait_s))

    async def watching() -> bool:
        return bool(system.container.live.watched(UUID(alpha.work_id)))

    await eventually(watching)
    return task


async def test_a_poll_brings_an_outcome_as_soon_as_it_is_there(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    await alpha.call("k", "add", a=1)
    began = time.monotonic()
    poll = await polling(system, alpha, wait_s=WAIT_S)
    await (await worker.next("add", "tool")).complete(3)
    [entry] = (await poll).json()["journal"]
    assert (entry["key"], entry["status"], entry["result"]) == ("k", "ok", 3)
    assert time.monotonic() - began < WAIT_S, "only then would it have looked by itself"


async def test_a_poll_brings_mail(system: System, alpha: Claim) -> None:
    await alpha.ok("messages", key="m", to="alpha", body=1)
    await system.settled()
    poll = await polling(system, alpha)
    await alpha.ok("messages", key="m2", to="alpha", body=2)
    answers = [(await poll).json()]
    while not answers[-1]["mailbox"]:  # the first answer may be about the sending itself
        answers.append((await alpha.journal(after_version=answers[-1]["version"], wait_s=10)).json())
    assert [mail["body"] for mail in answers[-1]["mailbox"]] == [2]


@pytest.mark.parametrize("how", ["cancelled", "timed out", "stale"])
async def test_a_poll_ends_with_the_work(system: System, worker: PlayedWorker, how: str) -> None:
    timeout = {"timeout_s": 2} if how == "timed out" else {}
    run_id = await system.start(plan={"kind": "graph", "steps": [{"key": "alpha", "agent": "alpha", **timeout}]})
    alpha = await worker.next("alpha")
    poll = await polling(system, alpha)
    if how == "cancelled":
        await system.http.post(f"/v1/runs/{run_id}/cancel")
    elif how == "stale":
        await worker.claim(alpha.work_id, delivery=2)
        stale = await system.http.get(f"/v1/agent-runs/{alpha.work_id}/journal", params={"attempt": 1})
        assert (stale.status_code, stale.json()["code"]) == (409, "stale-attempt")
        await system.http.post(f"/v1/runs/{run_id}/cancel")
    ended = await poll
    assert (ended.status_code, ended.json()["code"]) == (409, "work-over")


async def test_a_poll_is_over_in_time_although_much_happens(system: System, alpha: Claim) -> None:
    """Events in other parts of the run are no news for the poll, which ends at its own time."""
    poll = await polling(system, alpha, wait_s=0.5)
    run = UUID(alpha.body["run_id"])
    noise = SetContextValue(context_id=context_id_of(run), run_id=run, agent_run_id=run, name="n", value=1)
    async with within(5):
        while not poll.done():
            await system.command(noise)
            await asyncio.sleep(0.05)
    answer = (await poll).json()
    assert answer["journal"] == answer["mailbox"] == []


async def test_only_news_of_its_own_wake_a_poll(system: System, alpha: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events in other parts of the run cause no read of the poll: with a hundred polls each event would cause a hundred reads."""
    poll = await polling(system, alpha)
    read, reads = Journals.read, 0

    async def counted(self: Journals, *args: Any, **options: Any) -> JournalView:
        nonlocal reads
        reads += 1
        return await read(self, *args, **options)

    monkeypatch.setattr(Journals, "read", counted)
    run = UUID(alpha.body["run_id"])
    for number in range(10):
        name = f"n{number}"
        await system.command(SetContextValue(context_id=context_id_of(run), run_id=run, agent_run_id=run, name=name, value=1))
    head = await system.settled()

    async def heard() -> bool:
        return system.container.live.position >= head

    await eventually(heard)
    assert reads <= 2, "its first look, and one when the log begins to be read"
    await alpha.ok("journal", entries=[{"key": "own", "result": 1}])
    assert [entry["key"] for entry in (await poll).json()["journal"]] == ["own"]


async def test_a_poll_ends_when_the_process_is_about_to(system: System, alpha: Claim) -> None:
    poll = await polling(system, alpha)
    system.container.live.close()
    assert (await in_time(poll, 5)).json()["journal"] == []


async def test_only_the_newest_attempt_of_a_tool_call_has_a_say(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    """The queue delivered the call again, so the first worker lost its lease. Its reports are not recorded."""
    invocation_id = await alpha.call("k", "add", a=1)
    old = await worker.next("add", "tool")
    new = await system.worker("worker-2").claim(invocation_id, "tool", delivery=2)
    assert (old.attempt, new.attempt) == (1, 2)
    head = await system.settled()
    error = {"type": "TestError", "message": "of the first", "kind": "permanent"}
    for attempt in (old.attempt, new.attempt + 1):  # the attempt that is over, and an attempt that was never given out
        for verb, said in (("complete", {"result": "of the first"}), ("fail", {"error": error})):
            body = {"attempt": attempt, **said}
            refused = await worker.http.post(f"/v1/invocations/{invocation_id}/{verb}", json=body)
            assert (refused.status_code, refused.json()["code"]) == (409, "stale-attempt"), (attempt, verb)
    assert await system.settled() == head, "something was recorded"

    await new.fail("transient", retry_after_s=600)
    for claim in (old, new):  # between two attempts no worker holds the call
        late = await claim.post("complete", result="too late")
        assert (late.status_code, late.json()["code"]) == (409, "stale-attempt"), claim.attempt
    recorded = [event.topic for event in await system.events() if event.stream_id == UUID(invocation_id)]
    assert recorded == [
        "invocation.requested", "invocation.attempt_started", "invocation.attempt_started", "invocation.retry_scheduled",
    ]  # fmt: skip
