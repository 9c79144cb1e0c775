"""Many clients of the WebSocket of events. The clients are cheap, so that the server is measured and not the clients.

The clients run in a process of their own: `python -m benchmarks.socket_clients PORT KEY COUNT AFTER`, with `AFTER` a position, or
`now`. The process speaks with its owner as `benchmarks.subscribers` does.
"""

import asyncio
import json
import re
import sys
import time
from typing import cast

import uvloop

from benchmarks import subscribers
from benchmarks.subscribers import CONNECTING_AT_ONCE, PATIENCE_S, Subscriber

POSITION = re.compile(rb'"position":(\d+)')
PING, PONG = 0x89, b"\x8a\x80\0\0\0\0"


def masked(text: bytes) -> bytes:
    """A frame of a client, masked with zeros."""
    assert len(text) < 126
    return bytes((0x81, 0x80 | len(text))) + b"\0\0\0\0" + text


class SocketSubscriber(Subscriber):
    """Subscribes as soon as the connection is accepted. Counts as accepted when the events are live."""

    def __init__(self, after: str | None) -> None:
        super().__init__()
        self._after = after
        self._open = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.writes += 1
        buffer = self._buffer + data if self._buffer else data
        if not self._open:
            head, end, rest = buffer.partition(b"\r\n\r\n")
            if end and not head.startswith(b"HTTP/1.1 101"):
                self.accepted.set_exception(ConnectionError(buffer[:300].decode(errors="replace")))
            if not end:
                self._buffer = buffer
                return
            self._open, buffer = True, rest
            self._transport.write(masked(json.dumps({"type": "subscribe", "id": "a", "after": self._after}).encode()))
        begin = 0
        while (size := frame_size(buffer, begin)) and begin + size <= len(buffer):
            self._take(buffer, begin, begin + size, now)
            begin += size
        self._buffer = buffer[begin:]

    def _take(self, buffer: bytes, begin: int, end: int, now: float) -> None:
        if buffer[begin] == PING:
            self._transport.write(PONG)
        for match in POSITION.finditer(buffer, begin, end):
            self.positions.append(int(match[1]))
            self.times.append(now)
        if not self.accepted.done() and buffer.find(b'"type":"live"', begin, end) >= 0:
            self.accepted.set_result(None)


def frame_size(buffer: bytes, begin: int) -> int:
    """Bytes of a frame, with its head. 0: not known yet."""
    if len(buffer) < begin + 2:
        return 0
    short = buffer[begin + 1]
    head = 2 if short < 126 else 4 if short == 126 else 10
    if len(buffer) < begin + head:
        return 0
    return head + (short if short < 126 else int.from_bytes(buffer[begin + 2 : begin + head], "big"))


async def connected(port: int, key: str, count: int, after: str | None) -> list[Subscriber]:
    gate = asyncio.Semaphore(CONNECTING_AT_ONCE)
    request = (
        f"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: tidelog.events.v1\r\n\r\n"
    ).encode()

    async def one() -> Subscriber:
        async with gate, asyncio.timeout(PATIENCE_S):
            transport, subscriber = await asyncio.get_running_loop().create_connection(
                lambda: SocketSubscriber(after), "127.0.0.1", port
            )
            transport.write(request)
            await subscriber.accepted
            return subscriber

    return await asyncio.gather(*(one() for _ in range(count)))


if __name__ == "__main__":
    port, key, count, after = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    uvloop.run(subscribers.measure(connected(port, key, count, None if after == "now" else after)))
