"""The worker over a session with a scripted server: what it does with work, news, stops and losses, and what it reports."""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.kit.scripted_work import agent_work, answer, done, event, refused, running, tool_work
from tests.kit.session_server import KEY, ScriptedServer
from tests.kit.waiting import until
from tests.pace import in_time
from tidelog import Agent, Context, ToolContext, ToolError, tool
from tidelog.errors import TidelogConnectionError
from tidelog.session import session
from tidelog.worker import RefusedError, Worker, slots

# --- agents ------------------------------------------------------------------------------------------------------------


class Busy(Agent):
    async def execute(self, ctx: Context) -> Any:
        first = await ctx.step("parse", lambda: {"n": 1})
        message_id = await ctx.send("peer", "hi")
        await ctx.state.set("x", 1)
        seen = await ctx.state.get("x")
        mail = await ctx.receive(timeout_s=60)
        assert mail is not None
        return [first, str(message_id), seen, mail.body, await ctx.tool("math.add", a=1)]


async def test_an_agent_reports_each_call_and_hears_the_results_that_are_pushed(server: ScriptedServer) -> None:
    message_id, mail_id, call_id = str(uuid4()), str(uuid4()), str(uuid4())
    async with running(server, Busy):
        peer = await server.welcomed()
        work = agent_work(1, "busy", peers=["peer"])
        named = {"work": work["work"], "attempt": 1, "token": "t1"}
        await peer.say(work)
        record = await answer(peer, "record")
        assert record == {"t": "record", "id": record["id"], **named, "key": "parse", "kind": "step", "result": {"n": 1},
                          "fingerprint": record["fingerprint"]}  # fmt: skip
        assert (await answer(peer, "send", message_id=message_id))["body"] == "hi"
        assert (await answer(peer, "set", found=True, value=1, value_version=1))["expect"] is None
        await answer(peer, "get", found=True, value=7, value_version=1)
        mail = {"message_id": mail_id, "sender": "peer", "body": "yes"}
        await peer.say({"t": "update", **named, "version": 9, "journal": [], "mailbox": [mail]})
        assert (await answer(peer, "receive"))["message_id"] == mail_id
        assert (await answer(peer, "call", invocation_id=call_id))["arguments"] == {"a": 1}
        entry = {"key": "math.add#1", "kind": "call", "status": "ok", "result": 11, "invocation_id": call_id}
        await peer.say({"t": "update", **named, "version": 12, "journal": [entry], "mailbox": []})
        complete = await answer(peer, "complete")
        assert complete["result"] == [{"n": 1}, message_id, 7, "yes", 11] and "unused_keys" not in complete


class Replays(Agent):
    async def execute(self, ctx: Context) -> Any:
        return [await ctx.step(key, lambda: "again") for key in ("a", "b", "c")]


def journal_entry(key: str) -> dict[str, Any]:
    return {"key": key, "kind": "step", "status": "ok", "result": f"recorded {key}"}


async def test_a_long_journal_is_read_before_the_agent_begins(server: ScriptedServer) -> None:
    async with running(server, Replays):
        peer = await server.welcomed()
        await peer.say(agent_work(1, "replays", version=5, journal=[journal_entry("a")], more=True))
        first = await peer.hear("more")
        await peer.say(done(first, version=8, journal=[journal_entry("b")], mailbox=[], more=True))
        second = await peer.hear("more")
        await peer.say(done(second, version=9, journal=[journal_entry("c"), journal_entry("d")], mailbox=[], more=False))
        assert (first["after"], second["after"]) == (5, 8)
        complete = await peer.hear("complete")
        assert complete["result"] == ["recorded a", "recorded b", "recorded c"] and complete["unused_keys"] == ["d"]


class Caller(Agent):
    async def execute(self, ctx: Context) -> Any:
        try:
            return await ctx.tool("x")
        except ToolError as error:
            return [error.kind, error.message]


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        ((404, "unknown-tool", {"detail": "no tool 'x' is registered"}), ["permanent", "no tool 'x' is registered"]),
        ((422, "invalid-command", {"detail": "a is missing"}), ["invalid", "a is missing"]),
    ],
)
async def test_a_refused_call_is_an_error_of_the_agent(server: ScriptedServer, refusal: Any, expected: list[str]) -> None:
    status, code, fields = refusal
    async with running(server, Caller):
        peer = await server.welcomed()
        await peer.say(agent_work(1, "caller"))
        await peer.say(refused(await peer.hear("call"), status, code, **fields))
        assert (await peer.hear("complete"))["result"] == expected


async def test_a_refusal_that_may_pass_is_asked_again_under_a_new_id(server: ScriptedServer) -> None:
    async with running(server, Caller):
        peer = await server.welcomed()
        await peer.say(agent_work(1, "caller"))
        first = await peer.hear("call")
        await peer.say(refused(first, 503, "not-ready", retryable=True))
        again = await peer.hear("call")
        assert again["id"] > first["id"] and {**again, "id": 0} == {**first, "id": 0}


class Waits(Agent):
    async def execute(self, ctx: Context) -> Any:
        STARTED.append(ctx.attempt)
        try:
            return await ctx.tool("x")
        finally:
            STARTED.append(0)


STARTED: list[int] = []


@pytest.fixture(autouse=True)
def nothing_started() -> None:
    STARTED.clear()


@pytest.mark.parametrize("reason", ["cancelled", "timed-out", "lost", "over"])
async def test_a_stop_ends_the_agent_and_nothing_is_reported(server: ScriptedServer, reason: str) -> None:
    async with running(server, Waits, concurrency=1):
        peer = await server.welcomed()
        work = agent_work(1, "waits")
        await peer.say(work)
        await answer(peer, "call", invocation_id=str(uuid4()))
        await peer.say({"t": "stop", "work": work["work"], "attempt": 1, "reason": reason})
        await until(lambda: STARTED == [1, 0])
        while (await peer.hear("credit"))["agent"] != 1:
            pass
        await peer.close(1001)
        again = await server.welcomed()
        assert again.hello["work"] == []
    assert not any(message["t"] in ("complete", "fail") for frame in peer.frames + again.frames for message in frame)


async def test_a_newer_attempt_ends_the_one_before_and_starts(server: ScriptedServer) -> None:
    async with running(server, Waits):
        peer = await server.welcomed()
        work = agent_work(1, "waits")
        await peer.say(work)
        await answer(peer, "call", invocation_id=str(uuid4()))
        await peer.say({**work, "n": 2, "attempt": 2, "token": "t2"})
        assert (await peer.hear("call"))["attempt"] == 2
        await until(lambda: STARTED == [1, 2, 0] or STARTED == [1, 0, 2])


async def test_a_report_that_the_server_calls_stale_ends_the_agent(server: ScriptedServer) -> None:
    async with running(server, Waits):
        peer = await server.welcomed()
        await peer.say(agent_work(1, "waits"))
        await peer.say(refused(await peer.hear("call"), 409, "stale-attempt"))
        await until(lambda: STARTED == [1, 0])


async def test_after_a_loss_the_server_hears_which_news_the_worker_has(server: ScriptedServer) -> None:
    async with running(server, Waits):
        peer = await server.welcomed()
        work = agent_work(1, "waits")
        named = {"t": "update", "work": work["work"], "attempt": 1, "journal": [], "mailbox": []}
        await peer.say(work, {**named, "version": 4})  # perhaps before the agent has begun
        await answer(peer, "call", invocation_id=str(uuid4()))
        await peer.say({**named, "version": 6}, agent_work(2, "waits"))
        await answer(peer, "call", invocation_id=str(uuid4()))
        await peer.close(1001)
        again = await server.welcomed()
        assert again.hello["work"][0] == {"work": work["work"], "attempt": 1, "token": "t1", "version": 6}
        entry = {"key": "x#1", "kind": "call", "status": "ok", "result": "late"}
        await again.say({**named, "version": 20, "journal": [entry]})
        assert (await again.hear("complete"))["result"] == "late"


class Results(Agent):
    async def execute(self, ctx: Context) -> Any:
        return ctx.results


async def test_results_that_did_not_fit_into_the_work_are_asked_for(server: ScriptedServer) -> None:
    async with running(server, Results):
        peer = await server.welcomed()
        await peer.say(agent_work(1, "results", results={"small": 1}, later=["large", "larger"]))
        for step in ("large", "larger"):
            more = await peer.hear("more")
            assert more["result"] == step
            await peer.say({"t": "done", "id": more["id"], "result": f"of {step}"})
        assert (await peer.hear("complete"))["result"] == {"small": 1, "large": "of large", "larger": "of larger"}


async def test_work_of_an_unknown_form_fails_and_says_why(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    async with running(server, Waits):
        peer = await server.welcomed()
        await peer.say(agent_work(1, "waits", input={}, version="new"))
        fail = await peer.hear("fail")
        assert fail["error"]["kind"] == "permanent" and "not what this version of the SDK knows" in fail["error"]["message"]
        await peer.say({"t": "work", "n": 2, "kind": "agent"}, agent_work(3, "waits"))
        await answer(peer, "call", invocation_id=str(uuid4()))
    assert "work_not_understood" in caplog.messages


async def test_a_report_that_the_server_does_not_understand_gives_the_work_back(server: ScriptedServer) -> None:
    async with running(server, Waits):
        peer = await server.welcomed()
        work = agent_work(1, "waits")
        await peer.say(work)
        await peer.say(refused(await peer.hear("call"), 403, "forbidden"))
        returned = await answer(peer, "return")
        assert (returned["work"], returned["reason"]) == (work["work"], "refused")
        await peer.close(1001)
        assert (await server.welcomed()).hello["work"] == []


class Breaks(Agent):
    async def execute(self, ctx: Context) -> Any:
        raise ValueError("no")


@tool("t.breaks")
def breaks() -> None:
    raise ValueError("no")


@pytest.mark.parametrize("work", [agent_work(1, "breaks"), tool_work(1, "t.breaks")], ids=["agent", "tool"])
async def test_a_server_that_refuses_the_report_of_a_failure_gets_its_core(server: ScriptedServer, work: dict[str, Any]) -> None:
    """Else the work would stay without an outcome, and would run again or wait for a person."""
    async with running(server, Breaks, breaks):
        peer = await server.welcomed()
        await peer.say(work)
        whole = await peer.hear("fail")
        assert whole["error"]["traceback"] and whole["error"]["line"]
        await peer.say(refused(whole, 422, "invalid-request"))
        core = await answer(peer, "fail", retry=True)
        assert core["work"] == work["work"] and core["error"].keys() == {"type", "message", "kind"}


# --- tools -------------------------------------------------------------------------------------------------------------

GO, BEGUN = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def gates() -> Any:
    GO.clear()
    BEGUN.clear()
    yield
    GO.set()


@tool("t.key")
def key(ctx: ToolContext, a: int = 1) -> list[Any]:
    return [ctx.idempotency_key, ctx.attempt, a, str(ctx.workspace)]


@tool("t.async")
async def waits_async() -> None:
    BEGUN.set()
    await asyncio.Event().wait()


@tool("t.sync")
def waits_sync(ctx: ToolContext) -> str:
    BEGUN.set()
    while not (ctx.cancelled or GO.is_set()):
        GO.wait(0.01)
    return "told" if ctx.cancelled else "went on"


async def test_a_tool_gets_its_arguments_and_key_and_its_result_is_reported(server: ScriptedServer, tmp_path: Path) -> None:
    async with running(server, key, workspace=tmp_path):
        peer = await server.welcomed()
        work = tool_work(1, "t.key", arguments={"a": 5})
        await peer.say(work)
        assert (await answer(peer, "complete"))["result"] == [work["work"], 1, 5, str(tmp_path)]
        await peer.say(tool_work(2, "t.key", arguments={"b": 5}))
        fail = await answer(peer, "fail")
        assert fail["error"]["kind"] == "invalid" and "b" in fail["error"]["message"]


async def test_a_cancelled_call_stops_an_async_tool_and_reports_that(server: ScriptedServer) -> None:
    async with running(server, waits_async):
        peer = await server.welcomed()
        work = tool_work(1, "t.async")
        await peer.say(work)
        await until(BEGUN.is_set)
        await peer.say({"t": "stop", "work": work["work"], "attempt": 1, "reason": "cancelled"})
        fail = await answer(peer, "fail")
        assert (fail["error"]["type"], fail["error"]["kind"]) == ("ToolCancelledError", "permanent")


async def test_a_cancelled_call_tells_a_sync_tool_whose_outcome_counts(server: ScriptedServer) -> None:
    async with running(server, waits_sync):
        peer = await server.welcomed()
        work = tool_work(1, "t.sync")
        await peer.say(work)
        await until(BEGUN.is_set)
        await peer.say({"t": "stop", "work": work["work"], "attempt": 1, "reason": "cancelled"})
        assert (await answer(peer, "complete"))["result"] == "told"


@pytest.mark.parametrize("name", ["t.async", "t.sync"])
async def test_a_lost_call_is_not_reported(server: ScriptedServer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tidelog")
    async with running(server, waits_async, waits_sync):
        peer = await server.welcomed()
        work = tool_work(1, name)
        await peer.say(work)
        await until(BEGUN.is_set)
        await peer.say({"t": "stop", "work": work["work"], "attempt": 1, "reason": "lost"})
        await until(lambda: event(caplog, "tool_let_go"))
    assert not any(message["t"] in ("complete", "fail") for frame in peer.frames for message in frame)


async def test_the_time_out_of_a_tool_is_reported_and_its_thread_is_told(server: ScriptedServer) -> None:
    async with running(server, waits_sync, tool_concurrency=1) as shown:
        peer = await server.welcomed()
        await peer.say(tool_work(1, "t.sync", timeout_s=0.05))
        assert (await answer(peer, "fail"))["error"]["type"] == "ToolTimeoutError"
        await until(lambda: not shown.worker.slots_held()["tool"])


# --- slots -------------------------------------------------------------------------------------------------------------


async def test_credit_is_the_number_of_free_slots_after_the_work_that_came(server: ScriptedServer) -> None:
    async with running(server, Waits, waits_async, concurrency=3, tool_concurrency=2):
        peer = await server.welcomed()
        assert await peer.hear("credit") == {"t": "credit", "n": 0, "agent": 3, "tool": 2}
        await peer.say(agent_work(1, "waits"), agent_work(2, "waits"), tool_work(3, "t.async"))
        call = await peer.hear("call")  # the server has counted the slots of its work by itself
        await peer.say(refused(call, 409, "work-over"))
        assert await peer.hear("credit") == {"t": "credit", "n": 3, "agent": 2, "tool": 1}


async def test_news_of_free_slots_go_with_a_report_while_the_server_knows_of_enough(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CREDIT_WITHIN_S", 3600.0)
    async with running(server, Replays, concurrency=8):
        peer = await server.welcomed()
        assert (await peer.hear("credit"))["agent"] == 8
        await peer.say(agent_work(1, "replays", journal=[journal_entry(key) for key in "abc"], version=4))
        await answer(peer, "complete")
        await peer.say(agent_work(2, "replays"))
        await answer(peer, "record")
        frame = next(frame for frame in peer.frames if frame[-1]["t"] == "record")
        credit, _ = frame
        assert credit["t"] == "credit" and credit["agent"] == 9 - credit["n"]  # n is 2 if the slot was freed after the second work


async def test_news_of_free_slots_wait_for_a_report_for_a_moment_only(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CREDIT_WITHIN_S", 0.001)
    async with running(server, Replays, concurrency=8):
        peer = await server.welcomed()
        assert (await peer.hear("credit"))["agent"] == 8
        await peer.say(agent_work(1, "replays", journal=[journal_entry(key) for key in "abc"], version=4))
        await answer(peer, "complete")
        assert await peer.hear("credit") == {"t": "credit", "n": 1, "agent": 8, "tool": 16}


async def test_agents_that_wait_give_their_slots_to_others(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "GIVE_BACK_AFTER_S", 0.01)
    async with running(server, Waits, concurrency=1):
        peer = await server.welcomed()
        works = [agent_work(n, "waits") for n in (1, 2, 3)]
        for work in works:
            while (await peer.hear("credit"))["agent"] != 1:
                pass
            await peer.say(work)
            await answer(peer, "call", invocation_id=str(uuid4()))
        entry = {"key": "x#1", "kind": "call", "status": "ok", "result": "at last"}
        for work in works:
            await peer.say({"t": "update", "work": work["work"], "attempt": 1, "version": 5, "journal": [entry], "mailbox": []})
        for _ in works:
            assert (await answer(peer, "complete"))["result"] == "at last"
    assert STARTED.count(1) == 3


# --- the worker itself -------------------------------------------------------------------------------------------------


async def test_one_bad_definition_refuses_itself_only(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    problem = {"code": "invalid-command", "title": "no", "detail": "the schema has a pattern that cannot be matched in linear time"}
    async with running(server, Waits, key, waits_async) as shown:
        peer = await server.peer()
        assert [offer["name"] for offer in peer.hello["tools"]] == ["t.key", "t.async"]
        bad = {"name": "t.key", "version": "1", "accepted": False, "problem": problem}
        await peer.welcome(agents=[{"name": "waits", "accepted": True}], tools=[bad, {"name": "t.async", "accepted": True}])
        await until(shown.worker.registered.is_set)
        line = event(caplog, "definition_refused")
        assert (line["kind"], line["name"]) == ("tool", "t.key") and "linear time" in line["reason"]
        await peer.say(agent_work(1, "waits"))
        await peer.hear("call")


async def test_a_worker_whose_definitions_are_all_refused_ends(server: ScriptedServer) -> None:
    async with running(server, key) as shown:
        peer = await server.peer()
        await peer.welcome(tools=[{"name": "t.key", "accepted": False, "problem": {"title": "no", "detail": "a bad schema"}}])
        with pytest.raises(RefusedError, match=r"tool t\.key: a bad schema"):
            await in_time(asyncio.shield(shown.task), 10)


@pytest.mark.parametrize("options", [{"url": "ftp://x"}, {"api_key": "a\nb"}, {"url": "https://x.example", "proxy": "ftp://p"}])
def test_what_can_never_work_is_told_by_the_constructor_in_one_line(options: dict[str, str]) -> None:
    with pytest.raises(TidelogConnectionError) as caught:
        Worker(**{"url": "http://127.0.0.1:1", "api_key": KEY, **options}, agents=[Waits])  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


async def test_a_worker_that_stops_takes_no_more_work_finishes_what_it_can_and_leaves(server: ScriptedServer) -> None:
    async with running(server, Waits, waits_sync, concurrency=2, grace_s=10.0) as shown:
        peer = await server.welcomed()
        await peer.say(tool_work(1, "t.sync"))
        await until(BEGUN.is_set)
        shown.stop.set()
        while (credit := await peer.hear("credit"))["agent"] or credit["tool"]:
            pass
        await peer.say(agent_work(2, "waits"))  # was on its way
        GO.set()
        assert (await answer(peer, "complete"))["result"] == "went on"
        await in_time(shown.task, 10)
    assert await peer.closed() == 1000 and peer.frames[-1] == [{"t": "leaving"}] and STARTED == []


async def test_work_that_does_not_end_within_the_grace_is_left_to_others(server: ScriptedServer) -> None:
    async with running(server, Waits, grace_s=0.05) as shown:
        peer = await server.welcomed()
        await peer.say(agent_work(1, "waits"))
        await answer(peer, "call", invocation_id=str(uuid4()))
        shown.stop.set()
        await peer.hear("leaving")
    assert STARTED == [1, 0]
    assert not any(message["t"] in ("complete", "fail", "return") for frame in peer.frames for message in frame)


async def test_an_outage_is_one_warning_and_its_end_one_line(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tidelog.worker")
    async with running(server, Waits) as shown:
        await server.welcomed()
        await until(shown.worker.registered.is_set)
        await server.stop()
        await until(lambda: caplog.messages.count("server_not_ready") >= 3)
        await server.listen()
        await server.welcomed()
        await until(shown.worker.registered.is_set)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    lines = [message for message in told if message in ("session_lost", "server_not_ready", "worker_registered")]
    assert lines == ["worker_registered", "session_lost", "server_not_ready", "worker_registered"]
