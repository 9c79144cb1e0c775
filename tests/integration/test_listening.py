"""Connections that come at once are accepted together, and a system without room for another connection loses none."""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from api.http import listening
from api.http.listening import ACCEPTED_A_TURN, Acceptor, bound
from tests.integration.system_kit import eventually
from tests.pace import within

CROWD = 600
TURN_S = 0.005
"""Seconds of a turn of a busy loop."""


class Counted(asyncio.Protocol):
    """Counts connections, and sends each peer a word."""

    made = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        Counted.made += 1
        transport.write(b"hello")
        transport.close()


class FullSystem(socket.socket):
    """A listening socket of a system that has no room for a connection, a few times."""

    refusals = [errno.EMFILE, errno.ECONNABORTED, errno.ENOBUFS]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.refusals:
            raise OSError(self.refusals.pop(0), "as the system says")
        return super().accept()


@contextlib.asynccontextmanager
async def counting(kind: type[socket.socket] = socket.socket) -> AsyncIterator[int]:
    """Listens during the block. Yields the port."""
    [own] = await bound("127.0.0.1", 0)
    own = kind(fileno=own.detach())
    Counted.made = 0
    listener = Acceptor(own, Counted, backlog=2 * CROWD)
    try:
        yield own.getsockname()[1]
    finally:
        listener.close()
        await listener.wait_closed()


async def test_a_busy_server_accepts_a_crowd_in_few_turns() -> None:
    turns, loop, all_made = 0, asyncio.get_running_loop(), asyncio.Event()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if Counted.made == CROWD:
            all_made.set()
        else:
            time.sleep(TURN_S)
            loop.call_soon(turn)

    async with counting() as port:
        with contextlib.ExitStack() as peers:
            for _ in range(CROWD):  # the loop stands still meanwhile: all wait in the kernel
                peers.enter_context(socket.create_connection(("127.0.0.1", port)))
            turn()
            async with within(30):
                await all_made.wait()
    assert turns <= CROWD / ACCEPTED_A_TURN + 5


async def test_connections_wait_while_the_system_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PAUSE_S", 0.01)
    with capture_logs() as logs:
        async with counting(FullSystem) as port, within(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b"hello"
            writer.close()
    assert [entry["event"] for entry in logs] == ["no_connection_accepted"] * 2, "a peer that has gone is no lack of room"


async def test_a_taken_port_is_told_and_a_listener_that_pauses_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FullSystem, "refusals", [errno.ENFILE])
    monkeypatch.setattr(listening, "PAUSE_S", 3_600.0)  # however slow the machine is, the listener is closed in its pause
    with capture_logs() as logs:
        async with counting(FullSystem) as port:
            with pytest.raises(OSError, match="address already in use"):
                await bound("127.0.0.1", port)
            with socket.create_connection(("127.0.0.1", port)):

                async def pausing() -> bool:
                    return bool(logs)

                await eventually(pausing, "a pause")
    assert Counted.made == 0
