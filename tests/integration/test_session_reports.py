"""Reports of a worker over its session: journals, calls, mail, shared context, and the repetition of every report."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from domain.failures import MAX_LOST_CLAIMS
from domain.tenants import DEFAULT_TENANT_ID
from domain.tools import RegisterTool, tool_id_of
from tests.integration.played_worker import Claim, PlayedWorker
from tests.integration.system_kit import System, new_id


@pytest.fixture
async def alpha(system: System, worker: PlayedWorker) -> Claim:
    await system.start("alpha", "beta")
    return await worker.next("alpha")


async def test_an_unchanged_definition_makes_no_event(system: System, worker: PlayedWorker) -> None:
    before = await system.settled()
    await worker.register("alpha", tools=["add"])
    assert await system.settled() == before + 1, "only the parameters of the tool changed"
    await worker.register("new.agent_1")
    assert await system.settled() == before + 2


async def test_a_claim_says_all_that_is_needed(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    told = {"work", "attempt", "token", "run", "step", "agent", "input", "results", "missing", "peers"}
    assert alpha.body.keys() >= told | {"journal", "mailbox", "version"}
    for dispatch in (1, 2):
        assert await worker.try_claim(alpha.work_id, dispatch=dispatch) is None
    assert await worker.try_claim(str(new_id())) is None


async def test_work_that_kills_its_workers_is_given_up(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    for _ in range(MAX_LOST_CLAIMS):
        await (await worker.next("alpha")).lose()
    assert (await system.ended(run_id))["error"]["kind"] == "lost"


async def test_steps_are_recorded_once(alpha: Claim) -> None:
    entries = [{"key": f"s{i}", "result": {"n": i}} for i in range(3)]
    recorded = [await alpha.ok("record", **entry) for entry in entries]
    assert [await alpha.ok("record", **entry) for entry in entries] == recorded
    other = await alpha.post("record", key="s0", result="other")
    assert (other.status_code, other.json()["code"]) == (409, "repeated-differently")
    journal = (await alpha.journal())["journal"]
    assert [(entry["key"], entry["result"]) for entry in journal] == [(f"s{i}", {"n": i}) for i in range(3)]
    later = (await alpha.journal(after=recorded[-1]["version"] - 1))["journal"]
    assert [entry["key"] for entry in later] == ["s2"]
    misused = await alpha.post("call", key="s0", tool="add", arguments={})
    assert (misused.status_code, misused.json()["code"], misused.json()["errors"][0]["pointer"]) == (409, "invalid-state", "/key")


async def test_calls_are_made_once(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    first = await alpha.ok("call", key="k", tool="add", arguments={"a": 1})
    assert await alpha.ok("call", key="k", tool="add", arguments={"a": 1}) == first
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
    response = await alpha.post("call", key="k", tool="odd", arguments=arguments)
    assert response.status_code == 422 and detail in response.json()["detail"], response.text
    assert response.json()["code"] == "invalid-command"
    assert (await alpha.journal())["journal"] == []
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
    """A pattern refuses its definition, and no other one.

    A call with a pattern that an earlier release accepted gets 422, which is no defect.
    """
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    given = {key: value.replace("{port}", str(port)) if isinstance(value, str) else value for key, value in parameters.items()}
    async with server:
        *_, good, odd = await worker.define(tools=[{"name": "good", "parameters": {}}, {"name": "odd", "parameters": given}])
        assert good["accepted"] and not odd["accepted"], odd
        assert odd["problem"]["status"] == 422 and detail in odd["problem"]["detail"] and "'odd'" in odd["problem"]["detail"], odd
        assert odd["problem"]["errors"][0]["pointer"].startswith("/parameters")
        await system.command(RegisterTool(tool_id=tool_id_of(DEFAULT_TENANT_ID, "old"), name="old", parameters=given))
        response = await alpha.post("call", key="k", tool="old", arguments={})
    assert response.status_code == 422 and detail in response.json()["detail"], response.text
    assert (response.json()["code"], response.json()["errors"][0]["pointer"]) == ("invalid-command", "/tool")
    assert asked == []


async def test_arguments_that_backtracking_never_ends_on_stop_nobody(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    """With a backtracking engine each further `a` doubles the time, and no other request is served meanwhile."""
    await worker.register(tools=[{"name": "odd", "parameters": {"properties": {"x": {"pattern": "^(a+)+$"}}}}])
    call = asyncio.create_task(alpha.post("call", key="k", tool="odd", arguments={"x": "a" * 5_000 + "!"}))
    assert (await system.http.get("/health/live")).status_code == 200
    response = await call
    assert response.status_code == 422 and "does not match" in response.json()["detail"]


async def test_an_unknown_tool_and_an_unknown_recipient(alpha: Claim) -> None:
    tool = await alpha.post("call", key="k", tool="nothing", arguments={})
    assert (tool.status_code, tool.json()["code"], tool.json()["errors"][0]["pointer"]) == (404, "unknown-tool", "/tool")
    mail = await alpha.post("send", key="m", to="nobody", body=1)
    assert (mail.status_code, mail.json()["code"], mail.json()["errors"][0]["pointer"]) == (404, "unknown-recipient", "/to")
    assert "alpha, beta" in mail.json()["detail"]


async def test_mail_is_sent_and_received_once(system: System, alpha: Claim) -> None:
    sent = await alpha.ok("send", key="m", to="alpha", body="note to self")
    assert await alpha.ok("send", key="m", to="alpha", body="note to self") == sent
    await system.settled()
    assert await alpha.ok("send", key="m", to="alpha", body="note to self") == sent
    view = await alpha.journal()
    [mail] = view["mailbox"]  # delivered once
    assert (mail["message_id"], mail["sender"], mail["body"]) == (sent["message_id"], "alpha", "note to self")
    received = await alpha.ok("receive", key="r", message_id=mail["message_id"])
    assert await alpha.ok("receive", key="r", message_id=mail["message_id"]) == received
    twice = await alpha.post("receive", key="r2", message_id=mail["message_id"])
    assert (twice.status_code, twice.json()["code"]) == (409, "invalid-state")
    nothing = await alpha.ok("receive", key="r3", message_id=None)
    entries = {entry["key"]: entry for entry in (await alpha.journal())["journal"]}
    assert entries["r"]["result"]["body"] == "note to self" and entries["r3"]["result"] is None
    assert nothing["version"] > received["version"]


async def test_shared_context(system: System, alpha: Claim) -> None:
    empty = await alpha.ok("get", key="g0", name="n")
    assert (empty["found"], empty["value"], empty["value_version"]) == (False, None, 0)
    first = await alpha.ok("set", key="s1", name="n", value={"x": 1})
    assert (first["value"], first["value_version"]) == ({"x": 1}, 1)
    assert await alpha.ok("set", key="s1", name="n", value={"x": 1}) == first
    stale = await alpha.post("set", key="s2", name="n", value=2, expect=0)
    assert (stale.status_code, stale.json()["errors"][0]["pointer"]) == (409, "/expect")
    assert (await alpha.ok("set", key="s3", name="n", value=2, expect=1))["value_version"] == 2
    # A recorded read keeps its value: the agent's next execution must see the same value.
    old = await alpha.ok("get", key="g0", name="n")
    assert old["value_version"] == 0 and (await alpha.ok("get", key="g1", name="n"))["value"] == 2
    assert (await system.topics(alpha.body["run"])).count("context.value_set") == 2


async def test_writers_of_the_same_value_do_not_lose_one_another(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan={"kind": "parallel", "agents": ["alpha", "beta", "gamma"]})
    claims = [await worker.step(run_id, key) for key in ("alpha", "beta", "gamma")]
    answers = await asyncio.gather(*(claim.ok("set", key=f"k{i}", name="n", value=i) for claim in claims for i in range(4)))
    assert sorted(answer["value_version"] for answer in answers) == list(range(1, 13))


async def test_only_the_newest_attempt_of_a_tool_call_has_a_say(system: System, alpha: Claim, worker: PlayedWorker) -> None:
    """The first worker lost its lease, and the call was dispatched anew. The reports of the first worker are not recorded."""
    invocation_id = await alpha.call("k", "add", a=1)
    old = await worker.next("add", "tool")
    await old.lose()
    new = await system.worker("worker-2").claim(invocation_id, "tool", dispatch=2)
    assert (old.attempt, new.attempt) == (1, 2)
    head = await system.settled()
    error = {"type": "TestError", "message": "of the first", "kind": "permanent"}
    never = await new.worker.as_if_held("tool", invocation_id, new.body["run"], new.attempt + 1)
    for claim in (old, never):  # the attempt that is over, and an attempt that was never given out
        for report, said in (("complete", {"result": "of the first"}), ("fail", {"error": error})):
            refused = await claim.post(report, **said)
            assert (refused.status_code, refused.json()["code"]) == (409, "stale-attempt"), (claim.attempt, report)
    assert await system.settled() == head, "something was recorded"

    await new.fail("transient", retry_after_s=600)
    for claim in (old, new):  # between two attempts no worker holds the call
        late = await claim.post("complete", result="too late")
        assert (late.status_code, late.json()["code"]) == (409, "stale-attempt"), claim.attempt
    recorded = [event.topic for event in await system.events() if event.stream_id == UUID(invocation_id)]
    assert recorded == [
        "invocation.requested", "invocation.attempt_started", "invocation.requeued", "invocation.attempt_started",
        "invocation.retry_scheduled",
    ]  # fmt: skip
