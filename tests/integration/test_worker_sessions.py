"""Worker sessions with the real server: a bare WebSocket client plays the worker, from the start of a run to its end."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.http.conventions.door import Limits
from application.engine.background import end
from domain.tenants import IssueApiKey, RevokeApiKey
from tests.integration.session_kit import socket, worker_at
from tests.integration.system_kit import System, eventually, new_id, served, sha256


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url(shared: System) -> AsyncIterator[str]:
    async with served(shared.container) as found:
        yield found


async def test_a_run_from_its_start_to_its_end(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker:
        welcome = await worker.hello(["walker"])
        assert welcome["agents"] == [{"name": "walker", "version": "1", "accepted": True}] and welcome["tools"] == []
        assert welcome["version"] == 1 and welcome["lease_s"] == 10 and welcome["max_event_bytes"] == 256 * 1024
        await worker.credit(agent=2)
        run_id = await shared.start("walker", input={"n": 1})
        work = await worker.work()
        assert (work["n"], work["run"], work["agent"], work["attempt"]) == (1, run_id, "walker", 1)
        assert work["input"] == {"n": 1} and work["journal"] == [] and work["more"] is False
        assert (await worker.done(work, "record", key="a", result=1))["version"] == work["version"] + 1
        await worker.say(*[worker.report(work, "record", key=f"k{i}", result=i) for i in range(20)])
        answers = [await worker.answer(id) for id in range(2, 22)]
        assert [answer["version"] for answer in answers] == list(range(work["version"] + 2, work["version"] + 22))
        await worker.done(work, "complete", result={"sum": 1})
        assert (await shared.ended(run_id))["status"] == "completed"


async def test_a_tool_is_called_and_its_outcome_is_pushed(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker:
        parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
        await worker.hello(["caller"], [{"name": "add", "parameters": parameters}])
        await worker.credit(agent=1, tool=1)
        run_id = await shared.start("caller")
        work = await worker.work()
        assert await worker.refused(work, "call", key="c", tool="ad", arguments={}) == "unknown-tool"
        assert await worker.refused(work, "call", key="c", tool="add", arguments={"a": "x"}) == "invalid-command"
        called = await worker.done(work, "call", key="c", tool="add", arguments={"a": 1})
        call = await worker.work("tool")
        assert (call["work"], call["tool"], call["arguments"]) == (called["invocation_id"], "add", {"a": 1})
        assert (call["run"], call["agent_run"], call["idempotent"]) == (run_id, work["work"], True)
        assert await worker.refused(call, "record", key="x", result=1) == "invalid-command"
        await worker.done(call, "complete", result=7)
        update = await worker.wait(t="update", work=work["work"])
        [entry] = update["journal"]
        assert (entry["key"], entry["status"], entry["result"]) == ("c", "ok", 7)
        assert update["version"] > called["version"] and update["mailbox"] == []
        await worker.done(work, "complete", result=7)
        assert (await shared.ended(run_id))["status"] == "completed"


async def test_mail_and_shared_context(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker:
        await worker.hello(["sender", "reader"])
        await worker.credit(agent=2)
        plan = {"kind": "graph", "steps": [{"key": "sender", "agent": "sender"}, {"key": "reader", "agent": "reader"}]}
        run_id = await shared.start(plan=plan)
        works = {work["step"]: work for work in [await worker.work(), await worker.work()]}
        sender, reader = works["sender"], works["reader"]
        assert await worker.refused(sender, "send", key="m", to="nobody", body=1) == "unknown-recipient"
        sent = await worker.done(sender, "send", key="m", to="reader", body={"x": 1})
        update = await worker.wait(t="update", work=reader["work"])
        [mail] = update["mailbox"]
        assert (mail["message_id"], mail["sender"], mail["body"]) == (sent["message_id"], "sender", {"x": 1})
        await worker.done(reader, "receive", key="r", message_id=mail["message_id"])
        await worker.done(reader, "receive", key="r2", message_id=None)
        assert (await worker.done(reader, "set", key="s", name="v", value=[1]))["value_version"] == 1
        assert await worker.refused(reader, "set", key="s2", name="v", value=[2], expect=7) == "invalid-state"
        got = await worker.done(sender, "get", key="g", name="v")
        assert (got["found"], got["value"], got["value_version"]) == (True, [1], 1)
        failed = await worker.done(sender, "fail", error={"type": "E", "message": "broken", "kind": "permanent"})
        assert failed["retry"] is False
        assert (await shared.ended(run_id))["status"] == "failed"


async def test_a_cancelled_run_stops_its_agent_and_its_tool(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker:
        await worker.hello(["cancelled"], ["slow"])
        await worker.credit(agent=1, tool=1)
        run_id = await shared.start("cancelled")
        work = await worker.work()
        await worker.done(work, "call", key="c", tool="slow", arguments={})
        call = await worker.work("tool")
        response = await shared.http.post(f"/v1/runs/{run_id}/cancel", json={"reason": "enough"})
        assert response.status_code in (200, 202), response.text
        stop = await worker.wait(t="stop", work=work["work"])
        assert (stop["reason"], stop["attempt"]) == ("cancelled", 1)
        assert (await worker.wait(t="stop", work=call["work"]))["reason"] == "cancelled"
        assert await worker.refused(work, "record", key="late", result=1) == "work-over"
        await worker.done(call, "complete", result="done all the same")
        await shared.ended(run_id)


async def test_a_timed_out_step_stops_its_agent(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker:
        await worker.hello(["late"])
        await worker.credit(agent=1)
        for timeout_s in (0.3, 3, 30):  # on a busy machine a step may be over before a worker gets it
            run_id = await shared.start(plan={"kind": "graph", "steps": [{"key": "late", "agent": "late", "timeout_s": timeout_s}]})
            over = asyncio.create_task(shared.ended(run_id))
            coming = asyncio.create_task(worker.work())
            await asyncio.wait({over, coming}, return_when=asyncio.FIRST_COMPLETED)
            await end(over)
            if coming.done():
                break
            await end(coming)
        work = coming.result()
        assert (await worker.wait(t="stop", work=work["work"]))["reason"] == "timed-out"


async def test_without_a_free_slot_no_work_comes(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker, worker_at(url, shared.key, name="other") as other:
        await worker.hello(["narrow"])
        await worker.credit(agent=1)
        first, second = await shared.start("narrow"), await shared.start("narrow")
        work = await worker.work()
        await other.hello(["narrow"])
        await other.credit(agent=5)
        taken = await other.work()
        assert {work["run"], taken["run"]} == {first, second}
        for by, one in ((worker, work), (other, taken)):
            await by.done(one, "complete")
        third = await shared.start("narrow")
        assert (await other.work())["run"] == third
        assert not any(message["t"] == "work" for message in worker.came)


async def test_what_is_not_the_workers_is_refused(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker, worker_at(url, shared.key, name="thief") as thief:
        await worker.hello(["guarded"])
        await thief.hello([])
        await worker.credit(agent=1)
        await shared.start("guarded")
        work = await worker.work()
        assert await worker.refused({**work, "token": "wrong"}, "record", key="a", result=1) == "invalid-token"
        assert await worker.refused({**work, "attempt": 2}, "record", key="a", result=1) == "invalid-token"
        assert await worker.refused({**work, "work": str(uuid.uuid4())}, "complete") == "invalid-token"
        await worker.say({"t": "signal", "id": 500}, {"t": "nonsense", "id": 501}, {"t": "nonsense"}, {"t": "delta"})
        assert (await worker.answer(500))["problem"]["code"] == "not-yet"
        assert (await worker.answer(501))["problem"]["code"] == "unknown-message"
        await worker.say({**worker.report(work, "record", key="k" * 501, result=1), "id": 502})
        problem = (await worker.answer(502))["problem"]
        assert (problem["code"], problem["errors"][0]["pointer"]) == ("invalid-request", "/key")
        await worker.done(work, "record", key="a", result=1, of_a_later_release=True)
        assert await worker.refused(work, "record", key="a", result=2) == "repeated-differently"
        await worker.done(work, "complete")


async def test_a_worker_comes_back_with_its_work_and_repeats(shared: System, url: str) -> None:
    known: dict[str, Any]
    async with worker_at(url, shared.key) as worker:
        await worker.hello(["returning"])
        await worker.credit(agent=1)
        run_id = await shared.start("returning")
        work = await worker.work()
        await worker.done(work, "record", key="a", result=1)
        known = {"session": worker.session, "secret": worker.secret, "incarnation": worker.incarnation}
        worker.connection.transport.abort()
    async with worker_at(url, shared.key, **known) as worker:
        in_hand = [{"work": work["work"], "attempt": 1, "token": work["token"], "version": work["version"]}]
        gone = {"work": str(uuid.uuid4()), "attempt": 1, "token": "gone"}
        await worker.hello(["returning"], work=[*in_hand, gone])
        assert worker.session == known["session"]
        assert (await worker.wait(t="stop"))["work"] == gone["work"]
        repeated = await worker.done(work, "record", key="a", result=1)
        assert repeated["version"] == work["version"] + 1
        report = worker.report(work, "complete", result="once")
        await worker.say(report, {**report, "id": report["id"] + 1})
        first, second = await worker.answer(report["id"]), await worker.answer(report["id"] + 1)
        assert first["version"] == second["version"]
    async with worker_at(url, shared.key, **known) as worker:
        await worker.hello(["returning"])
        assert (await worker.done(work, "complete", result="once"))["version"] == first["version"]
        assert await worker.refused(work, "complete", result="twice") == "repeated-differently"
    run = await shared.ended(run_id)
    assert run["status"] == "completed" and run["steps"][0]["result"] == "once"


async def test_work_that_never_arrived_is_sent_again_under_the_same_attempt(shared: System, url: str) -> None:
    """The worker does not name the work when it comes back: the message was lost with the connection."""
    async with worker_at(url, shared.key) as worker:
        await worker.hello(["unlucky"])
        await worker.credit(agent=1)
        run_id = await shared.start("unlucky")
        first = await worker.work()
        known = {"session": worker.session, "secret": worker.secret, "incarnation": worker.incarnation}
        worker.connection.transport.abort()
    async with worker_at(url, shared.key, **known) as worker:
        await worker.hello(["unlucky"])
        again = await worker.work()
        assert (again["work"], again["attempt"], again["token"]) == (first["work"], 1, first["token"])
        await worker.done(again, "complete")
        assert (await shared.ended(run_id))["status"] == "completed"


async def test_work_is_sent_again_while_the_read_model_of_work_stands_still(shared: System, url: str) -> None:
    """The process that copied the log was killed with the connection: the read model learns of the claim seconds later."""
    async with worker_at(url, shared.key) as worker, await psycopg.AsyncConnection.connect(shared.database_url) as holder:
        await worker.hello(["behind"])
        await worker.credit(agent=1)
        await holder.execute("SELECT FROM checkpoint WHERE name = 'work' FOR UPDATE")
        run_id = await shared.start("behind")
        first = await worker.work()
        known = {"session": worker.session, "secret": worker.secret, "incarnation": worker.incarnation}
        worker.connection.transport.abort()
        async with worker_at(url, shared.key, **known) as back:
            await back.hello(["behind"])
            again = await back.work()
            assert (again["work"], again["attempt"], again["token"]) == (first["work"], 1, first["token"])
            assert await shared.sql("SELECT FROM open_work WHERE work_id = %s AND session_id IS NOT NULL", first["work"]) == []
            await back.done(again, "complete")
            await holder.rollback()
            assert (await shared.ended(run_id))["status"] == "completed"


async def test_a_worker_with_a_wrong_secret_gets_a_new_session(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker:
        await worker.hello([])
        known = {"session": worker.session, "incarnation": worker.incarnation}
        async with worker_at(url, shared.key, **known, secret="guessed") as other:
            await other.hello([])
            assert other.session != worker.session
        async with worker_at(url, shared.key, session=worker.session, secret=worker.secret) as other:
            await other.hello([])  # another start of the worker's process
            assert other.session != worker.session


async def test_a_second_connection_takes_the_place_of_the_first(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as first:
        await first.hello(["moving"])
        await first.credit(agent=1)
        known = {"session": first.session, "secret": first.secret, "incarnation": first.incarnation}
        async with worker_at(url, shared.key, **known) as second:
            await second.hello(["moving"])
            assert await first.until_closed() == 4409
            await second.credit(agent=1)
            run_id = await shared.start("moving")
            work = await second.work()
            assert work["run"] == run_id
            await second.done(work, "complete")


async def test_one_bad_definition_refuses_itself_only(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker:
        pattern = {"type": "object", "properties": {"a": {"pattern": "(?=x)"}}}
        welcome = await worker.hello(
            ["fine", {"name": "Not A Name"}, {"name": "fine"}, {"name": "newer", "of_a_later_release": 1}],
            ["good", {"name": "bad", "parameters": pattern}, {"name": "odd", "timeout_s": "long"}],
        )
        assert [one["accepted"] for one in welcome["agents"]] == [True, False, False, True]
        assert welcome["agents"][1]["problem"]["errors"][0]["pointer"] == "/name"
        assert [(one["name"], one["accepted"]) for one in welcome["tools"]] == [("good", True), ("bad", False), ("odd", False)]
        await worker.credit(agent=1)
        run_id = await shared.start("fine")
        await worker.done(await worker.work(), "complete")
        assert (await shared.ended(run_id))["status"] == "completed"
        problem = {"path": "a.py", "kind": "import-failed", "message": "broken"}
        await worker.say({"t": "define", "id": 1, "agents": [{"name": "later"}], "tools": [], "problems": [problem]})
        defined = await worker.answer(1)
        assert defined["agents"] == [{"name": "later", "version": "1", "accepted": True}] and defined["tools"] == []
        shown = (await shared.http.get("/v1/workers/problems")).json()["data"]
        assert [one["path"] for one in shown if one["worker_id"] == "socket-1"] == ["a.py"]
        await worker.credit(agent=1)
        later = await shared.start("later")
        assert (await worker.work())["run"] == later


async def test_workers_are_listed_with_what_they_offer_and_have_in_hand(shared: System, url: str) -> None:
    _, key = await shared.tenant("listed")
    headers = {"X-API-Key": key}

    async def listed(**params: Any) -> Any:
        response = await shared.http.get("/v1/workers", params=params, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    async def counted(kind: str) -> dict[str, int]:
        await shared.settled()
        data = (await shared.http.get(f"/v1/{kind}", headers=headers)).json()["data"]
        return {each["name"]: each["workers"] for each in data}

    assert await listed() == {"data": [], "next_cursor": None}
    async with worker_at(url, key, name="b") as two, worker_at(url, key, name="a") as one:
        await two.hello(["writer", "Bad Name"], [{"name": "add", "parameters": {"type": "object"}}])
        await one.hello(["writer"])
        [first], cursor = (await listed(limit=1)).values()
        assert (first["worker_id"], first["session_id"], first["tools"]) == ("a", one.session, [])
        second = await shared.http.get("/v1/workers", params={"limit": 1, "cursor": cursor}, headers=headers)
        assert "link" not in second.headers
        [other] = second.json()["data"]
        assert other["worker_id"] == "b" and other["agents"] == [{"name": "writer", "version": "1"}], (
            "what was refused is not offered"
        )
        assert [tool["name"] for tool in other["tools"]] == ["add"] and (other["agent_runs"], other["calls"]) == (0, 0)
        assert await counted("agents") == {"writer": 2} and await counted("tools") == {"add": 1}
        await two.say({"t": "define", "id": 1, "agents": [{"name": "later", "version": "7"}], "tools": [], "problems": []})
        await two.answer(1)
        assert (await listed())["data"][1]["agents"] == [{"name": "later", "version": "7"}]
        assert await counted("agents") == {"later": 1, "writer": 1} and await counted("tools") == {"add": 0}
        await two.credit(agent=1)
        run = (await shared.http.post("/v1/runs", json={"agent": "later"}, headers=headers)).json()["run_id"]
        work = await two.work()
        await shared.settled()
        assert (await listed())["data"][1]["agent_runs"] == 1
        of_two = f"/v1/workers/{two.session}/work"
        [held] = (await shared.http.get(of_two, headers=headers)).json()["data"]
        assert datetime.fromisoformat(held.pop("dispatched_at")) <= datetime.now(UTC)
        assert held == {"kind": "agent", "name": "later", "id": work["work"], "run_id": run, "attempt": 1}
        assert (await shared.http.get(f"/v1/workers/{one.session}/work", headers=headers)).json() == {"data": []}
        assert (await shared.http.get(of_two)).status_code == 404, "of another tenant"
        for worker in (one, two):
            await worker.say({"t": "leaving"})
            await worker.until_closed()
    assert (await listed())["data"] == []
    assert (await shared.http.get(of_two, headers=headers)).status_code == 404


async def test_a_worker_that_leaves_gives_its_work_to_another(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker, worker_at(url, shared.key, name="other") as other:
        await worker.hello(["left"])
        await worker.credit(agent=1)
        await shared.start("left")
        work = await worker.work()
        await other.hello(["left"])
        await other.credit(agent=1)
        await worker.say({"t": "leaving"})
        assert await worker.until_closed() == 1000
        again = await other.work()
        assert (again["work"], again["attempt"]) == (work["work"], 2)
        await other.done(again, "complete")


async def test_a_revoked_key_ends_its_sessions(shared: System, url: str) -> None:
    tenant_id, key = await shared.tenant("revoked")
    async with worker_at(url, key) as worker:
        await worker.hello(["a"])
        [[key_id]] = await shared.sql("SELECT key_id FROM api_key WHERE tenant_id = %s", tenant_id)
        other = IssueApiKey(tenant_id=tenant_id, key_id=new_id(), label="another", sha256=sha256(f"{new_id()}"))
        await shared.command(other, tenant_id=tenant_id)
        await shared.command(RevokeApiKey(tenant_id=tenant_id, key_id=key_id), tenant_id=tenant_id)
        assert (await worker.wait(t="error"))["problem"]["code"] == "unauthenticated"
        assert await worker.until_closed() == 4401


async def test_a_tenant_gets_no_work_of_another(shared: System, url: str) -> None:
    _, key = await shared.tenant("stranger")
    async with worker_at(url, shared.key) as worker, worker_at(url, key, name="stranger") as stranger:
        await stranger.hello(["private"])
        await stranger.credit(agent=5)
        await worker.hello(["private"])
        await worker.credit(agent=1)
        await shared.start("private")
        work = await worker.work()
        assert await stranger.refused(work, "record", key="a", result=1) == "invalid-token"
        assert not any(message["t"] == "work" for message in stranger.came)
        await worker.done(work, "complete")


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"key": None}, 401, "unauthenticated"),
        ({"key": "wrong"}, 401, "unauthenticated"),
        ({"path": "/v1/workers/session?api_key=KEY", "key": None}, 422, "invalid-command"),
        ({"additional_headers": {"X-API-Key": "KEY"}}, 401, "unauthenticated"),
        ({"additional_headers": {"Cookie": "key=KEY"}}, 401, "unauthenticated"),
        ({"additional_headers": {"Authorization": "Bearer KEY", "Tidelog-On-Behalf-Of": "ada"}}, 422, "invalid-command"),
        ({"origin": "https://elsewhere.example"}, 403, "forbidden"),
        ({"origin": "null"}, 403, "forbidden"),
        ({"subprotocols": None}, 422, "invalid-command"),
        ({"path": "/v1/runs/018f0000-0000-7000-8000-000000000001/cancel"}, 405, "method-not-allowed"),
        ({"path": "/v1/runs"}, 200, None),
    ],
)
async def test_who_may_not_connect(
    shared: System, url: str, asked: dict[str, Any], status: int, code: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"key": shared.key, **asked}
    if "path" in given:
        given["path"] = given["path"].replace("KEY", shared.key)
    if headers := given.get("additional_headers"):
        given["additional_headers"] = {name: value.replace("KEY", shared.key) for name, value in headers.items()}
    with pytest.raises(InvalidStatus) as refused:
        async with socket(url, **given):
            pass
    assert refused.value.response.status_code == status
    if code is not None:
        assert f'"code":"{code}"'.encode() in (refused.value.response.body or b"")
    assert not [record for record in caplog.records if record.levelname == "ERROR"], "a refusal is no error of the server"


async def test_a_plain_request_is_told_to_upgrade(shared: System, url: str) -> None:
    response = await shared.http.get("/v1/workers/session")
    assert (response.status_code, response.json()["code"], response.headers["upgrade"]) == (426, "upgrade-required", "websocket")


@pytest.mark.parametrize(
    "frame",
    [
        "not JSON", "{}", '[{"id": 1}]', "[1]", '[{"t": "credit", "n": -1, "agent": 1, "tool": 1}]', '[{"t": "record"}]',
        '[{"t": "hello"}]', "[" + ",".join(['{"t":"beat"}'] * 257) + "]", b"[]",
        '[{"t":"beat"},{"t":"beat","x":"' + "x" * 262_144 + '"}]',
    ],
)  # fmt: skip
async def test_a_malformed_frame_ends_the_session_with_a_problem(shared: System, url: str, frame: str | bytes) -> None:
    async with worker_at(url, shared.key) as worker:
        await worker.hello([])
        await worker.connection.send(frame)
        assert (await worker.wait(t="error"))["problem"]["code"] == "malformed-message"
        assert await worker.until_closed() == 4400


async def test_a_frame_over_the_limit_of_the_socket_is_not_even_read(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker:
        await worker.hello([])
        await worker.connection.send('[{"t":"beat","x":"' + "x" * 1024 * 1024 + '"}]')
        assert await worker.until_closed() == 1009


async def test_reports_before_the_welcome_and_unknown_versions(shared: System, url: str) -> None:
    async with worker_at(url, shared.key) as worker:
        await worker.credit(agent=1)
        assert await worker.until_closed() == 4400
    async with worker_at(url, shared.key) as worker:
        hello = {"t": "hello", "versions": [7], "worker": "w", "incarnation": str(new_id())}
        await worker.say(hello)
        assert (await worker.wait(t="error"))["problem"]["code"] == "no-common-version"
        assert await worker.until_closed() == 4426


async def test_who_does_not_read_is_broken_off(shared: System) -> None:
    """The worker asks for a large answer again and again and reads none."""
    async with served(shared.container, Limits(send_s=0.3)) as url, worker_at(url, shared.key) as worker:
        await worker.hello(["deaf"])
        await worker.credit(agent=1)
        await shared.start("deaf")
        work = await worker.work()
        for i in range(4):
            await worker.done(work, "record", key=f"k{i}", result="x" * 200_000)
        before = len(shared.container.hosting.connected)
        worker.connection.transport.pause_reading()
        with suppress(ConnectionClosed):  # the end may come while the worker still asks
            for _ in range(200):
                await worker.say(*[worker.report(work, "more", after=0) for _ in range(5)])

        async def gone() -> bool:
            return len(shared.container.hosting.connected) < before

        await eventually(gone, "the end of the connection")


async def test_when_the_server_stops_workers_are_told_and_what_waits_is_answered(shared: System) -> None:
    async with AsyncExitStack() as stack:
        server = AsyncExitStack()
        url = await server.enter_async_context(served(shared.container))
        worker = await stack.enter_async_context(worker_at(url, shared.key))
        await worker.hello(["drained"])
        await worker.credit(agent=1)
        run_id = await shared.start("drained")
        work = await worker.work()
        report = worker.report(work, "record", key="a", result=1)
        await worker.say(report)
        await worker.answer(report["id"])
        stopping = asyncio.create_task(server.aclose())
        assert (await worker.wait(t="drain"))["within_s"] > 0
        assert await worker.until_closed() == 1001
        await stopping
        async with served(shared.container) as elsewhere:
            known = {"session": worker.session, "secret": worker.secret, "incarnation": worker.incarnation}
            async with worker_at(elsewhere, shared.key, **known) as back:
                in_hand = {"work": work["work"], "attempt": 1, "token": work["token"], "version": work["version"]}
                await back.hello(["drained"], work=[in_hand])
                await back.done(work, "complete", result="went on")
        assert (await shared.ended(run_id))["steps"][0]["result"] == "went on"
