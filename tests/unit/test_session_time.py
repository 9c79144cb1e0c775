"""A worker's session over time: beats and silence, renewal, a loop that stands still, and the end."""

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from application.engine.ports.sessions import LEASE_S, SEEN_EVERY_S
from application.workers.hosting import host
from tests.kit.session_server import KEY, Heard, ScriptedServer, named, session_with, work
from tests.kit.waiting import turns, until
from tests.pace import ANSWER_S, Deadline, in_time
from tidelog.calling import end_tasks
from tidelog.errors import TidelogConnectionError
from tidelog.session import Target, driver, inbound, talk
from tidelog.session import session as module
from tidelog.session.frames import frame, message
from tidelog.session.link import Link, LinkError
from tidelog.session.outbox import Outbox, Report
from tidelog.session.talk import Talk

# --- time --------------------------------------------------------------------------------------------------------------


async def test_beats_come_when_nothing_else_is_said_and_silence_ends_the_connection(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "BEAT_S", 0.04)
    async with session_with(server, heard):
        peer = await server.welcomed()
        await until(lambda: peer.beats >= 3)
        monkeypatch.setattr(talk, "SILENCE_S", 0.1)
        assert await peer.closed() == 4408
        await until(lambda: heard.troubles)
        assert "silent" in heard.troubles[0][0] and heard.troubles[0][1]


async def test_a_server_that_is_silent_before_the_welcome_is_given_up(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "BEAT_S", 0.04)
    monkeypatch.setattr(talk, "SILENCE_S", 0.1)
    async with session_with(server, heard):
        peer = await server.peer()
        assert await peer.closed() == 4408
        assert (await server.peer()).hello == peer.hello


def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_connection_that_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the pauses of users
    monkeypatch.setattr("random.uniform", lambda _, longest: longest)
    pauses = driver.Pauses()
    assert [pauses.next_s() for _ in range(6)] == [0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert {pauses.next_s(1.0) for _ in range(2_000)} == {5.0}, "an outage of hours, and a server that welcomes and ends at once"
    assert [pauses.next_s(held_s) for held_s in (2.0, 0.0)] == [0.2, 0.4]


def test_a_worker_is_back_soon_after_a_server_that_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers for a while: the pauses stay short. Whoever answers, and a long outage, lengthen them."""
    monkeypatch.undo()  # the pauses of users
    monkeypatch.setattr("random.uniform", lambda _, longest: longest)
    now = [0.0]
    pauses = driver.Pauses(lambda: now[0])
    assert [pauses.next_s(held_s) for held_s in (9.0, 0.0, 0.0)] == [0.2, 0.4, 0.8]
    assert [pauses.next_s(reached=False) for _ in range(3)] == [0.8, 0.8, 0.8]
    assert [pauses.next_s(), pauses.next_s(reached=False)] == [1.6, 1.6], "a server that refuses is not asked more often"
    now[0] = 60.0
    assert [pauses.next_s(reached=False) for _ in range(3)] == [3.2, 5.0, 5.0]
    assert [pauses.next_s(9.0), *(pauses.next_s(reached=False) for _ in range(3))] == [0.2, 0.4, 0.8, 0.8]


async def test_a_try_reaches_nobody_where_nobody_listens() -> None:
    rude = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    target = Target.of(f"http://127.0.0.1:{rude.sockets[0].getsockname()[1]}", KEY)
    with pytest.raises(LinkError) as there:
        await Link.open(target)
    rude.close()
    with pytest.raises(LinkError) as away:
        await Link.open(target)
    assert (there.value.reached, away.value.reached) == (True, False)


async def test_a_connection_is_renewed_by_opening_the_new_one_first(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "TICK_S", 0.02)
    monkeypatch.setattr(driver, "RENEW_S", 0.0)
    monkeypatch.setattr(driver, "RENEW_JITTER_S", 0.0)
    async with session_with(server, heard) as session:
        old = await server.welcomed()
        asked = named(session, "a")
        await old.hear("record")
        new = await server.peer()
        assert new.hello["session"] == "s1" and old.socket.close_code is None
        monkeypatch.setattr(driver, "RENEW_S", 600.0)
        await new.welcome()
        record = await new.hear("record")
        assert record["key"] == "a" and await old.closed() == 4409
        await new.say({"t": "done", "id": record["id"]})
        await in_time(asked, 10)
        assert not any({"t": "leaving"} in frame for frame in old.frames) and heard.troubles == []


async def test_an_older_socket_sends_nothing_from_the_moment_at_which_a_newer_one_does(server: ScriptedServer) -> None:
    def take(talk: Talk, message: dict[str, Any]) -> None:
        if message["t"] == "welcome":
            talk.welcomed.set_result(None)

    def report(number: int) -> Report:
        return Report(number, message("record", b'"id":%d,' % number, {}), None, 1e9)

    outbox = Outbox(lambda: older.ring())
    inbox = inbound.Inbound(asyncio.get_running_loop(), lambda item: None)
    older = Talk(1, await Link.open(Target.of(server.url, KEY)), outbox, inbox, take)
    talking = asyncio.create_task(older.run(frame([message("hello", b"", {})])))
    peer = await server.welcomed()
    outbox.put(report(1))
    await peer.hear("record")
    older.hush()
    outbox.put(report(2))
    older.ring()
    await turns()
    assert outbox.take(2, 0.0) == [report(2).text], "it waits for the newer socket"
    await end_tasks(talking)


async def test_a_server_that_has_vanished_is_left_before_its_silence_ends_the_connection(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "TICK_S", 0.02)
    monkeypatch.setattr(talk, "DOUBTFUL_S", (0.1, 0.1))
    async with session_with(server, heard) as session:
        old = await server.welcomed()
        asked = named(session, "a")
        await old.hear("record")
        new = await server.peer()
        assert new.hello["session"] == "s1" and old.socket.close_code is None
        monkeypatch.setattr(talk, "DOUBTFUL_S", (600.0, 600.0))
        await old.say({"t": "beat"})
        await new.welcome()
        await new.say({"t": "done", "id": (await new.hear("record"))["id"]})
        await in_time(asked, 10)
        assert await old.closed() == 4409 and heard.troubles == []


async def test_a_server_that_speaks_is_not_in_doubt(server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "TICK_S", 0.02)
    monkeypatch.setattr(talk, "DOUBTFUL_S", (30.0, 30.0))
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        await until(lambda: session.connected)
        [current] = session._driver._talks
        current._heard -= 29.0
        assert not current.in_doubt
        current._heard -= 2.0
        assert current.in_doubt and 31.0 <= current.silent_s < 40.0
        await peer.say({"t": "beat"})
        await until(lambda: not current.in_doubt)


def test_a_worker_is_at_another_server_before_its_lease_is_over() -> None:
    renewed_before_the_last_word_s = SEEN_EVERY_S
    latest = renewed_before_the_last_word_s + talk.DOUBTFUL_S[1] + driver.TICK_S + driver.SECOND_LOOK_S
    assert latest <= LEASE_S - 0.5, "half a second for the way and the welcome"
    assert talk.DOUBTFUL_S[0] >= host.BEAT_S + host.TICK_S + 1.0, "a server that is late by a second is not in doubt"


async def test_a_drain_leads_to_a_new_connection_while_the_old_one_still_serves(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "TICK_S", 0.02)
    async with session_with(server, heard) as session:
        old = await server.welcomed()
        await old.say({"t": "drain", "within_s": 10})
        new = await server.peer()
        asked = named(session, "a")
        await old.say({"t": "done", "id": (await old.hear("record"))["id"]})
        await in_time(asked, 10)
        await new.welcome()
        assert await old.closed() == 4409


async def test_a_report_that_stays_without_an_answer_leads_to_a_new_connection(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "TICK_S", 0.02)
    monkeypatch.setattr(driver, "STUCK_S", 0.1)
    async with session_with(server, heard) as session:
        asked = named(session, "a")
        await (await server.welcomed()).hear("record")
        again = await server.welcomed()
        await again.say({"t": "done", "id": (await again.hear("record"))["id"]})
        await in_time(asked, 10)


async def test_who_waits_for_an_answer_is_told_in_the_end(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "TICK_S", 0.02)
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    async with session_with(server, heard) as session:
        await server.welcomed()
        with pytest.raises(TidelogConnectionError, match="no answer from the server"):
            await in_time(named(session, "a"), 10)


async def test_the_session_beats_while_the_loop_of_the_user_is_blocked(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "BEAT_S", 0.04)
    server, ready, end, beats = ScriptedServer(), threading.Event(), threading.Event(), list[int]()

    async def play() -> None:
        await server.listen()
        ready.set()
        peer = await server.welcomed()
        while not end.is_set():  # the thread of the test sets it
            beats.append(peer.beats)
            await asyncio.sleep(0.01)
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(play(),))
    thread.start()
    try:
        await asyncio.to_thread(ready.wait, ANSWER_S)
        async with session_with(server, heard):
            await until(lambda: heard.welcomes)
            before, deadline = beats[-1], Deadline(10)
            while beats[-1] < before + 5 and not deadline.over_here():
                time.sleep(0.05)  # noqa: ASYNC251  # code of users that blocks the loop
            assert beats[-1] >= before + 5
            end.set()
    finally:
        end.set()
        thread.join()


async def test_a_loop_that_gives_no_sign_for_long_loses_its_connection_and_comes_back(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of an agent holds the loop for ever: other workers must get its work."""
    monkeypatch.setattr(driver, "TICK_S", 0.02)
    monkeypatch.setattr(driver, "LIFELESS_S", 0.2)
    monkeypatch.setattr(module, "PULSE_S", 0.02)
    async with session_with(server, heard) as session:
        peer = await server.welcomed()
        monkeypatch.setattr(session, "_pulse", lambda: None)
        assert await peer.closed() == 4408
        monkeypatch.undo()
        session._pulse()
        await server.welcomed()
        await until(lambda: len(heard.welcomes) >= 2)  # more if a busy machine gave the loop no time for a sign
    assert "stands still" in heard.troubles[0][0]


async def test_a_session_reads_no_more_than_the_loop_of_the_user_takes(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "MAX_WAITING", 3)
    async with session_with(server, heard):
        peer = await server.welcomed()
        for _ in range(20):
            await peer.say(*({"t": "update", "work": "a", "attempt": 1, "version": 1} for _ in range(20)))
        await until(lambda: len(heard.updates) == 400)


# --- the end -----------------------------------------------------------------------------------------------------------


async def test_a_session_can_end_without_leaving_its_work(server: ScriptedServer, heard: Heard) -> None:
    async with session_with(server, heard, leave=False):
        peer = await server.welcomed()
        await until(lambda: heard.welcomes)
    assert await peer.closed() == 1000 and not any({"t": "leaving"} in frame for frame in peer.frames)


async def test_the_end_does_not_wait_for_a_server_that_is_away(server: ScriptedServer, heard: Heard) -> None:
    await server.stop()
    async with session_with(server, heard) as session:
        asked = named(session, "a")
        await until(lambda: heard.troubles)
        await in_time(session.close(), 3)
        assert session.ended.done()
        with pytest.raises(TidelogConnectionError):
            await asked


async def test_a_defect_in_the_thread_ends_the_session_with_a_word(
    server: ScriptedServer, heard: Heard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(self: Any, talk: Any) -> str:
        raise ValueError("a defect")

    monkeypatch.setattr(driver.Driver, "_stay", breaks)
    async with session_with(server, heard) as session:
        await server.welcomed()
        with pytest.raises(RuntimeError, match=r"ended by itself.*a defect"):
            await in_time(asyncio.shield(session.ended), 10)
    assert "session_failed" in caplog.messages


async def test_one_message_that_its_reader_cannot_take_does_not_hold_up_the_others(
    server: ScriptedServer, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(message: dict[str, Any]) -> None:
        raise ValueError("a defect")

    heard.on_stop = breaks  # type: ignore[method-assign]
    async with session_with(server, heard):
        peer = await server.welcomed()
        await peer.say({"t": "stop", "work": "a", "attempt": 1, "reason": "lost"}, work(1))
        await until(lambda: heard.works)
    assert "session_message_failed" in caplog.messages


async def test_no_log_line_has_the_key(server: ScriptedServer, heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with session_with(server, heard):
            peer = await server.welcomed()
            await peer.close(1001)
            await server.welcomed()
            await until(lambda: len(heard.welcomes) == 2)
    assert not any(KEY in record.getMessage() for record in caplog.records if not record.name.startswith("websockets.server"))
