"""The connection: up when the server is up, reported as down when the server is down, and never the reason for a hang."""

import asyncio
import contextlib
import random
import signal
import time
from pathlib import Path

import pytest

from adapters.embedded.nats_rights import SERVER_USER, accounts, text_of
from adapters.nats import NatsConnection, NatsSecurity
from adapters.nats.connection import NoResponders, unavailable
from adapters.nats.jetstream import call
from adapters.nats.log.publisher import OrderedPublisher
from adapters.nats.log.pull import Puller
from adapters.nats.openness import has_spare_rights, lets_in_anyone
from application.engine.background import end
from domain.errors import Unavailable
from tests.integration.nats_kit import NatsProcess, connected, eventually, running_nats
from tests.pace import ANSWER_S, in_time, within


async def test_starts_without_a_server_and_connects_later(nats: NatsProcess) -> None:
    await nats.kill()
    async with connected(nats.url, wait=0) as connection:
        with pytest.raises(Unavailable):
            await connection.ready(0.2)
        with pytest.raises(Unavailable):
            await connection.check_health()
        await nats.start()
        await connection.ready(ANSWER_S)
        await connection.check_health()


async def test_requests_under_way_end_with_the_connection(nats: NatsProcess) -> None:
    async with connected(nats.url) as connection:
        silent = await connection.client.subscribe("silence")  # there is a listener that never answers
        lost: list[bool] = []
        with connection.on_loss(lambda: lost.append(True)):
            asking = asyncio.create_task(connection.request("silence", timeout=600))
            await silent.next_msg(timeout=ANSWER_S)
            await nats.kill()
            with pytest.raises(Unavailable):
                await in_time(asking, 10)
            assert lost
        await nats.start()
        await connection.ready(ANSWER_S)
        await connection.check_health()


async def test_request_to_nobody(nats: NatsProcess) -> None:
    async with connected(nats.url) as connection:
        with pytest.raises(Unavailable, match="nobody listens"):
            await connection.request("nobody.there")


async def test_frozen_server_is_noticed_and_left(nats: NatsProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.nats.connection._WATCH_INTERVAL", 0.1)
    monkeypatch.setattr("adapters.nats.connection._WATCH_TIMEOUT", 0.2)
    async with connected(nats.url) as connection:
        before = connection.client
        nats.send(signal.SIGSTOP)
        try:

            def given_up() -> bool:
                try:
                    return connection.client is not before
                except Unavailable:
                    return True

            await eventually(given_up, timeout=8)
        finally:
            monkeypatch.undo()  # with so little patience the next client might be given up, too, on a busy machine
            nats.send(signal.SIGCONT)
        await connection.ready(ANSWER_S)
        await connection.check_health()
        assert connection.client is not before


async def test_client_that_closed_for_good_is_replaced(nats: NatsProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some errors of a server (too many connections, wrong credentials for a moment) make the client close for ever."""
    monkeypatch.setattr("adapters.nats.connection._WATCH_INTERVAL", 0.1)
    async with connected(nats.url) as connection:
        await connection.client.close()
        with pytest.raises(Unavailable):
            await connection.check_health()
        await connection.ready(ANSWER_S)
        await connection.check_health()


async def test_a_client_that_takes_long_to_close_says_nothing_of_the_next_one(
    nats: NatsProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client closes for ever by itself, as after an error of the server, and waits for its socket meanwhile."""
    monkeypatch.setattr("adapters.nats.connection._WATCH_INTERVAL", 0.1)
    async with connected(nats.url) as connection:
        before, may_end, lost = connection.client, asyncio.Event(), list[bool]()
        monkeypatch.setattr(before._transport, "wait_closed", may_end.wait)
        closing = asyncio.create_task(before.close())
        await eventually(lambda: connection._client not in (before, None), what="another client")
        await connection.ready(ANSWER_S)
        with connection.on_loss(lambda: lost.append(True)):
            may_end.set()
            await in_time(closing, 10)
            await connection.ready(0)
        assert not lost and not connection._closed.is_set()
        await connection.check_health()


@pytest.mark.parametrize("users", ["nobody", "a reader", "a publisher"])
async def test_comes_back_when_the_server_was_away_until_the_client_was_given_up(
    users: str, nats: NatsProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user that loses its subscription with the connection ends the subscription on the dead client.

    The client is still replaced.
    """
    monkeypatch.setattr("adapters.nats.connection._WATCH_INTERVAL", 0.1)
    monkeypatch.setattr("adapters.nats.connection._GIVE_UP_AFTER", 0.5)
    async with connected(nats.url) as connection:
        await call(connection, "STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "storage": "memory"})
        before = connection.client
        using: list[asyncio.Task[None]] = []
        if users == "a reader":
            using.append(asyncio.create_task(_read(connection)))
        elif users == "a publisher":
            using.append(asyncio.create_task(_publish(connection)))
        await eventually(lambda: users == "nobody" or len(before._subs) > 1)
        await nats.kill()
        for user in using:
            with pytest.raises(Unavailable):
                await user
        await eventually(lambda: connection._client is not before, what="another client")
        await nats.start()
        await connection.ready(ANSWER_S)
        await connection.check_health()
        assert connection.client is not before


async def _read(connection: NatsConnection) -> None:
    async with Puller.open(connection, stream="S", sequence=1, name="reader") as puller:
        while True:
            await puller.take(max_bytes=1024, timeout=ANSWER_S)


async def _publish(connection: NatsConnection) -> None:
    async with OrderedPublisher.open(
        connection, log_id="log", history="h", stream="S", subject="s", sequence=0, on_stored=lambda position: None
    ) as publisher:
        await publisher.failed()


async def test_a_write_to_a_connection_that_broke_a_moment_ago_is_an_outage(nats: NatsProcess) -> None:
    """The client learns of the break some turns of the event loop later. Until then the client reports itself as connected."""
    async with connected(nats.url) as connection:
        client = connection.client
        client._transport.close()
        assert client.is_connected
        for _ in range(100):
            with contextlib.suppress(Unavailable), unavailable("publish"):
                await client.publish("s", b"x")
            await asyncio.sleep(0)
        await eventually(lambda: answers(connection), what="an answer of JetStream")


@pytest.mark.parametrize("part", ["reading", "reconnecting"])
async def test_a_task_of_the_client_that_ends_is_noticed_at_once(
    part: str, nats: NatsProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's tasks end at unexpected errors. The client then still reports itself as connected, or as reconnecting."""
    monkeypatch.setattr("adapters.nats.connection._WATCH_INTERVAL", 3600.0)
    async with connected(nats.url) as connection:
        client = connection.client
        broken = asyncio.Event()
        owner, name = (client._ps, "parse") if part == "reading" else (client, "_process_connect_init")

        async def breaks_once(*_: object) -> None:
            broken.set()
            delattr(owner, name)
            raise ValueError("a defect of the client")

        setattr(owner, name, breaks_once)
        if part == "reading":
            await client._send_ping()
        else:
            client._transport.close()
        await eventually(broken.is_set)
        await eventually(lambda: answers(connection), what="an answer of JetStream")


async def test_what_was_unsubscribed_during_an_outage_gets_nothing_after_it(nats: NatsProcess) -> None:
    """A pull from before the outage would be answered on such a subscription: nobody would get the work until its next delivery."""
    async with connected(nats.url) as connection, connected(nats.url) as other:
        client = connection.client
        await nats.kill()
        await eventually(lambda: client.is_reconnecting)
        gone = await client.subscribe("gone")
        await gone.unsubscribe()
        kept = await client.subscribe("kept")
        await nats.start()
        await connection.ready(ANSWER_S)
        await other.ready(ANSWER_S)
        await client.flush()  # only now the server certainly knows what the client had subscribed to before
        asking = asyncio.create_task(other.request("kept", timeout=ANSWER_S))
        await (await kept.next_msg(timeout=ANSWER_S)).respond(b"here")
        assert (await asking).data == b"here"
        with pytest.raises(NoResponders):
            await other.request("gone")


async def test_a_client_that_cannot_even_be_closed_is_replaced(nats: NatsProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.nats.connection._WATCH_INTERVAL", 0.1)
    monkeypatch.setattr("adapters.nats.connection._GIVE_UP_AFTER", 0.3)
    async with connected(nats.url) as connection:
        before = connection.client

        async def breaks(*_: object) -> None:
            raise RuntimeError("a defect of the client")

        monkeypatch.setattr(before, "close", breaks)
        await nats.kill()
        await eventually(lambda: before._reconnection_task, what="a reconnecting client")
        reconnecting = before._reconnection_task
        assert reconnecting is not None
        await eventually(lambda: connection._client is not before, what="another client")
        await eventually(reconnecting.done, what="the end of the client that was left")
        await nats.start()
        await eventually(lambda: answers(connection), what="an answer of JetStream")


async def answers(connection: NatsConnection) -> bool:
    try:
        await connection.check_health()
    except Unavailable:
        return False
    return True


async def test_close_is_prompt_in_any_state(nats: NatsProcess) -> None:
    async with within(8):
        up = NatsConnection(nats.url, name="up")
        await up.start()
        await up.ready(ANSWER_S)
        await up.close()
        with pytest.raises(Unavailable):
            await up.check_health()
        await nats.kill()
        down = NatsConnection(nats.url, name="down")
        await down.start()
        await asyncio.sleep(0.1)
        await down.close()
        never = NatsConnection(nats.url, name="never")
        await never.close()


async def test_a_close_at_any_moment_of_connecting_ends_it(nats: NatsProcess) -> None:
    """In a busy process the answer and the cancellation often come in the same turn of the event loop."""
    chance = random.Random(1)

    async def work() -> None:
        while True:
            time.sleep(chance.uniform(0, 0.001))  # noqa: ASYNC251  # the test needs a blocked loop
            await asyncio.sleep(0.001)

    busy = [asyncio.create_task(work()) for _ in range(2)]
    try:
        for _ in range(100):
            connection = NatsConnection(nats.url, name="test")
            await connection.start()
            await asyncio.sleep(chance.uniform(0, 0.03))
            async with within(3):
                await connection.close()
    finally:
        await end(*busy)


async def test_it_is_seen_whom_nats_lets_in(tmp_path: Path) -> None:
    """Of three servers: open to all; with a password and all rights; with the rights of the server alone."""
    users: dict[str, dict[str, object]] = {
        "open": {},
        "wide": {"authorization": {"user": SERVER_USER, "password": "s"}},
        "least": {"accounts": accounts("1f-5", {SERVER_USER: "s"}, [])},
    }
    seen = {}
    for name, configuration in users.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "nats.conf").write_text(text_of(configuration))
        async with running_nats(folder, folder / "nats.conf") as server:
            url = server.url if name == "open" else server.url.replace("nats://", f"nats://{SERVER_USER}:s@")
            anyone = await lets_in_anyone(url, NatsSecurity(), timeout=ANSWER_S)
            seen[name] = (anyone, await has_spare_rights(url, NatsSecurity(), timeout=ANSWER_S))
        with pytest.raises(Unavailable):
            await has_spare_rights(url, NatsSecurity(), timeout=ANSWER_S)
    assert seen == {"open": (True, True), "wide": (False, True), "least": (False, False)}
