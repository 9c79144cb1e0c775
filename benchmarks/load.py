"""A small HTTP load generator: keep-alive connections on raw sockets, so that the client costs as little as possible.

It runs as a process of its own: `python -m benchmarks.load HOST PORT CONNECTIONS SECONDS < request bytes`. It prints one JSON
object.
"""

import asyncio
import json
import sys
import time
from functools import partial

import uvloop


class Connection(asyncio.Protocol):
    """Sends one request after another and notes the time of each answer."""

    def __init__(self, request: bytes, until: float, done: asyncio.Future[None], latencies: list[float]) -> None:
        self._request = request
        self._until = until
        self._done = done
        self._latencies = latencies
        self._buffer = b""
        self._expected = -1
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]  # a Transport, for TCP

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._expected < 0:
            head, separator, _ = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            self._expected = len(head) + 4 + int(length.split(b":")[1])
            if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
                self.failures += 1
        if len(self._buffer) < self._expected:
            return
        now = time.perf_counter()
        self._latencies.append(now - self._sent)
        self._buffer, self._expected = b"", -1
        if now < self._until:
            self._send()
        elif not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))


async def run(host: str, port: int, connections: int, seconds: float, request: bytes) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    began = time.perf_counter()
    protocols = []
    for _ in range(connections):
        done = loop.create_future()
        _, protocol = await loop.create_connection(partial(Connection, request, began + seconds, done, latencies), host, port)
        protocols.append((protocol, done))
    async with asyncio.timeout(seconds + 30):
        await asyncio.gather(*(done for _, done in protocols))
    took = time.perf_counter() - began
    latencies.sort()
    return {
        "rate": len(latencies) / took,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
        "failures": sum(protocol.failures for protocol, _ in protocols),
    }


if __name__ == "__main__":
    host, port, connections, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    print(json.dumps(uvloop.run(run(host, port, connections, seconds, sys.stdin.buffer.read()))))
