"""The HTTP client under the SDK: each loss of a connection has an error of httpx2, which its callers know."""

import asyncio
import contextlib
import socket
import struct
import threading
import time

import httpx2
import uvloop

from tidelog.http_client import http_client

RESET = struct.pack("ii", 1, 0)


def reset_all(listener: socket.socket) -> None:
    """Resets each connection as soon as it is there, until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            time.sleep(0)  # so that the client often finds the connection made, and gone a moment later
            accepted.close()


async def ask(url: str) -> None:
    async with http_client(url) as client:
        for _ in range(150):
            with contextlib.suppress(httpx2.TransportError):
                await client.get("/")


def test_a_server_that_ends_connections_while_they_are_made_is_a_server_that_is_away() -> None:
    """As an api that is killed. On uvloop some such requests raised an AttributeError of anyio, and were not repeated."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        threading.Thread(target=reset_all, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(ask(url))
        listener.shutdown(socket.SHUT_RDWR)
