"""A worker's session against a scripted server: hello, reports and answers, work, losses and returns."""

import asyncio
import json
from typing import Any

import pytest

from tests.kit.session_server import KEY, Heard, ScriptedServer, named, session_with, work
from tests.kit.waiting import turns, until
from tests.pace import in_time
from tidelog.agent import AgentDefinition
from tidelog.errors import ConflictError, InvalidRequestError, TidelogConnectionError
from tidelog.session import Offer, SessionRefusedError, Slots
from tidelog.session import session as module
from tidelog.session.frames import MAX_FRAME_BYTES

# --- hello, reports, answers -------------------------------------------------------------------------------------------


async def test_hello_says_who_the_worker_is_and_the_first_credit_follows_the_welcome(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        session.credit(Slots(4, 2))
        peer = await server.peer()
        await turns()
        assert not session.connected and peer.frames == []
        await peer.welcome(agents=[{"name": "x", "accepted": True}])
        assert await peer.hear("credit") == {"t": "credit", "n": 0, "agent": 4, "tool": 2}
        hello = peer.hello
        assert (hello["versions"], hello["worker"], hello["slots"]) == ([1], "w1", {"agent": 4, "tool": 2})
        assert (hello["session"], hello["secret"], hello["work"], hello["agents"], hello["problems"]) == (None, None, [], [], [])
        assert server.keys == [f"Bearer {KEY}"]
        [welcome] = heard.welcomes
        assert (welcome.session, welcome.agents, welcome.again) == ("s1", ({"name": "x", "accepted": True},), False)
    assert await peer.closed() == 1000 and peer.frames[-1] == [{"t": "leaving"}]


async def test_answers_come_to_their_reports_in_any_order(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        first, second, third = (named(session, key) for key in "abc")
        numbers = [(await peer.hear("record"))["id"] for _ in range(3)]
        conflict = {"status": 409, "code": "work-over", "title": "over", "detail": "it has ended"}
        await peer.say({"t": "done", "id": numbers[2], "version": 3}, {"t": "refused", "id": numbers[0], "problem": conflict})
        await peer.say({"t": "done", "id": numbers[1], "version": 2}, {"t": "done", "id": numbers[1], "version": 9}, {"t": "news"})
        assert (await in_time(third, 10))["version"] == 3 and (await in_time(second, 10))["version"] == 2
        with pytest.raises(ConflictError, match="it has ended") as caught:
            await first
        assert caught.value.code == "work-over" and numbers == sorted(numbers)


async def test_what_was_asked_before_the_welcome_waits_and_goes_in_one_frame(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        asked = [named(session, f"k{number}") for number in range(100)]
        peer = await server.welcomed()
        await peer.hear("record")
        [records] = [frame for frame in peer.frames if frame[-1]["t"] == "record"]
        records = [record for record in records if record["t"] == "record"]  # the first credit may be before them
        assert [record["key"] for record in records] == [f"k{number}" for number in range(100)]
        await peer.say(*({"t": "done", "id": record["id"]} for record in records))
        await in_time(asyncio.gather(*asked), 10)


async def test_reports_of_one_turn_of_the_loop_share_frames(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        session.credit(Slots(1, 1))
        await peer.hear("credit")
        for _ in range(20):
            asked = [named(session, "k") for _ in range(64)]
            records = [await peer.hear("record") for _ in asked]
            await peer.say(*({"t": "done", "id": record["id"]} for record in records))
            await in_time(asyncio.gather(*asked), 10)
        assert len([frame for frame in peer.frames if frame[-1]["t"] == "record"]) <= 60, "64 reports take a few frames at most"


async def test_lines_of_many_frames_are_sent_though_nothing_else_is_said(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        await peer.hear("credit")
        line = json.dumps({"text": "x" * 1_000}).encode()
        count, came = 4 * MAX_FRAME_BYTES // len(line), 0
        for _ in range(count):
            session.log(b'"work":"a","attempt":1,"token":"of a",', line)
        while came < count:
            came += len((await peer.hear("log"))["lines"])
        assert came == count and len(peer.frames) >= 5


async def test_a_caller_that_gave_up_does_not_harm_the_others(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        given_up, kept = named(session, "a"), named(session, "b")
        given_up.cancel()
        for _ in range(2):
            await peer.say({"t": "done", "id": (await peer.hear("record"))["id"], "version": 1})
        assert (await in_time(kept, 10))["version"] == 1


async def test_a_message_over_the_limit_of_the_server_is_refused_before_it_is_sent(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        peer = await server.welcomed(max_event_bytes=1_000)
        await until(lambda: session.connected)
        with pytest.raises(InvalidRequestError, match="the limit is 66,536 bytes") as caught:
            session.ask("record", {"result": "x" * 70_000})
        assert caught.value.status == 413
        session.ask("record", {"result": "x" * 60_000})
        await peer.hear("record")


async def test_callers_wait_for_room_while_too_many_reports_have_no_answer(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ASKED", 2)
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        first, _ = named(session, "a"), named(session, "b")
        waiting = [asyncio.create_task(session.room()) for _ in range(3)]
        waiting[0].cancel()
        await turns()
        assert session.full and not waiting[1].done()
        await peer.say({"t": "done", "id": (await peer.hear("record"))["id"]})
        await in_time(asyncio.gather(first, *waiting[1:]), 10)


async def test_definitions_that_change_are_said_at_once_or_with_the_next_hello(server: ScriptedServer, heard: Heard) -> None:
    def offer(*names: str) -> Offer:
        return Offer([AgentDefinition(name=name, version="1", description="", capabilities=()) for name in names])

    async with session_with(server, heard) as session:
        peer = await server.peer()
        session.offer(offer("a"))  # after the hello, before the welcome
        await peer.welcome()
        define = await peer.hear("define")
        await peer.say({"t": "done", "id": define["id"], "agents": [{"name": "a", "accepted": True}], "tools": []})
        await until(lambda: heard.definitions)
        assert heard.definitions == [(({"name": "a", "accepted": True},), ())]
        session.offer(offer("a", "b"))
        assert [agent["name"] for agent in (await peer.hear("define"))["agents"]] == ["a", "b"]
        await peer.close(1001)
        again = await server.welcomed()
        assert [agent["name"] for agent in again.hello["agents"]] == ["a", "b"]


# --- work --------------------------------------------------------------------------------------------------------------


async def test_work_is_handed_over_once_and_credit_names_the_last_number(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        await peer.say(work(1), work(2, "b"), {"t": "update", "work": "a", "attempt": 1, "version": 3})
        await peer.say(work(3, "b"), {"t": "stop", "work": "b", "attempt": 1, "reason": "cancelled"}, work(4, "b", attempt=2))
        await until(lambda: len(heard.works) == 3)
        assert [(one["work"], one["attempt"]) for one in heard.works] == [("a", 1), ("b", 1), ("b", 2)]
        assert (len(heard.updates), heard.stops[0]["reason"]) == (1, "cancelled")
        session.credit(Slots(1, 2))
        while (credit := await peer.hear("credit"))["n"] < 4:  # those with the slots of before
            assert credit["agent"] == 0
        assert credit == {"t": "credit", "n": 4, "agent": 1, "tool": 2}


async def test_a_new_socket_counts_work_from_one(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        session.credit(Slots(4, 2))
        await peer.say(work(1), work(2, "b"))
        await until(lambda: len(heard.works) == 2)
        await peer.close(1001)
        again = await server.welcomed()
        assert (await again.hear("credit"))["n"] == 0
        await again.say(work(1, "c"))
        await until(lambda: len(heard.works) == 3)
        session.credit(Slots(1, 2))
        assert await again.hear("credit") == {"t": "credit", "n": 1, "agent": 1, "tool": 2}


# --- losses and returns ------------------------------------------------------------------------------------------------


async def test_after_a_loss_the_session_comes_back_with_its_work_and_sends_again_what_had_no_answer(
    server: ScriptedServer, heard: Heard
) -> None:
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        await peer.say(work(1), work(2, "b"), work(3, "c"))
        await until(lambda: len(heard.works) == 3)
        session.let_go("b", 1)
        session.seen("a", 1, 7)
        answered, lost = named(session, "a"), named(session, "b")
        await peer.say({"t": "done", "id": (await peer.hear("record"))["id"]})
        await peer.hear("record")
        await in_time(answered, 10)
        peer.socket.transport.abort()
        while_away = named(session, "c")
        again = await server.welcomed()
        hello = again.hello
        assert (hello["session"], hello["secret"], hello["incarnation"]) == ("s1", "hush", peer.hello["incarnation"])
        versions = {"a": 7, "c": 0}
        assert hello["work"] == [{"work": one, "attempt": 1, "token": f"of {one}", "version": versions[one]} for one in ("a", "c")]
        records = [await again.hear("record") for _ in range(2)]
        assert [record["key"] for record in records] == ["b", "c"] and records[0]["id"] < records[1]["id"]
        await again.say(*({"t": "done", "id": record["id"]} for record in records))
        await in_time(asyncio.gather(lost, while_away), 10)
        assert [welcome.again for welcome in heard.welcomes] == [False, True] and heard.troubles[-1][1]


async def test_a_server_that_is_away_is_tried_until_it_comes(server: ScriptedServer, heard: Heard) -> None:
    await server.stop()
    async with session_with(server, heard) as session:
        await until(lambda: len(heard.troubles) >= 2)
        assert all(not lost and "no connection to the server" in reason for reason, lost in heard.troubles)
        asked = named(session, "a")
        await server.listen()
        peer = await server.welcomed()
        await peer.say({"t": "done", "id": (await peer.hear("record"))["id"]})
        await in_time(asked, 10)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (401, {"code": "unauthenticated", "title": "no such key"}),
        (403, {"code": "forbidden", "title": "not allowed"}),
        (422, {"code": "invalid-request", "title": "wrong"}),
        (410, {"code": "worker-protocol-replaced", "title": "install 0.3"}),
    ],
)
async def test_a_refusal_for_good_ends_the_session(
    server: ScriptedServer, heard: Heard, status: int, problem: dict[str, Any]
) -> None:
    server.refusal = (status, json.dumps({"status": status, **problem}).encode(), {"Content-Type": "application/problem+json"})
    async with session_with(server, heard) as session:
        asked = named(session, "a")
        with pytest.raises(SessionRefusedError, match=f"{status} {problem['code']}"):
            await in_time(asyncio.shield(session.ended), 10)
        with pytest.raises(TidelogConnectionError, match="the session is over"):
            await asked
        with pytest.raises(TidelogConnectionError):
            named(session, "b")


@pytest.mark.parametrize("refusal", [(503, b'{"code":"not-ready"}', {"Retry-After": "0"}), (502, b"<html>", {}), (404, b"", {})])
async def test_a_refusal_for_now_is_tried_again(server: ScriptedServer, heard: Heard, refusal: Any) -> None:
    server.refusal = refusal
    async with session_with(server, heard):
        await until(lambda: len(server.keys) >= 2)
        server.refusal = None
        await server.welcomed()
        await until(lambda: heard.welcomes)


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        ([{"t": "error", "problem": {"status": 422, "code": "invalid-request", "title": "a bad hello"}}], 4400, "a bad hello"),
        ([], 4426, "4426"),
        ([], 4401, "4401"),
    ],
)
async def test_a_hello_that_is_refused_ends_the_session(
    server: ScriptedServer, heard: Heard, said: list[dict[str, Any]], code: int, expected: str
) -> None:
    async with session_with(server, heard) as session:
        peer = await server.peer()
        if said:
            await peer.say(*said)
        await peer.close(code)
        with pytest.raises(SessionRefusedError, match=expected):
            await in_time(asyncio.shield(session.ended), 10)


async def test_an_error_that_passes_is_no_end(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard):
        peer = await server.peer()
        await peer.say({"t": "error", "problem": {"status": 503, "code": "not-ready", "title": "later"}})
        await peer.close(1011)
        await server.welcomed()
        await until(lambda: heard.welcomes)
    assert "later" in heard.troubles[0][0]


async def test_a_server_that_says_nonsense_is_left_and_tried_again(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard):
        peer = await server.welcomed()
        await peer.socket.send("{}")
        assert await peer.closed() == 4400
        await server.welcomed()
        await until(lambda: len(heard.welcomes) == 2)


async def test_a_report_that_closes_each_socket_is_given_up(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard) as session:
        asked = named(session, "poison")
        for _ in range(3):
            peer = await server.welcomed()
            await peer.hear("record")
            await peer.close(4400)
        with pytest.raises(TidelogConnectionError, match="could not read"):
            await in_time(asked, 10)
        good, peer = named(session, "good"), await server.welcomed()
        await peer.say({"t": "done", "id": (await peer.hear("record"))["id"]})
        await in_time(good, 10)
