"""Many clients of one event stream. The clients are cheap, so that the server is measured and not the clients.

The clients run in a process of their own: `python -m benchmarks.subscribers PORT KEY COUNT AFTER`. The process prints `ready` when
all clients are connected, reads one line of JSON (the times of the appends by position, on the machine's monotonic clock), waits
until each client has all events, and prints one JSON object.
"""

import asyncio
import json
import re
import sys
import time
from array import array
from collections.abc import Coroutine
from typing import Any

import uvloop

EVENT = re.compile(rb"id: (\d+)[-\w]*\nevent: [^\n]*\ndata: [^\n]*\n\n")
PATIENCE_S = 20.0
CONNECTING_AT_ONCE = 50


class Subscriber(asyncio.Protocol):
    """Notes the time at which each position arrived. An event counts when all its bytes have arrived."""

    def __init__(self) -> None:
        self._buffer = b""
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.positions = array("q")
        self.times = array("d")
        self.writes = 0
        """About the number of the server's writes: data that arrives together counts as one write."""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.writes += 1
        buffer = self._buffer + data if self._buffer else data
        end = 0
        for match in EVENT.finditer(buffer):
            self.positions.append(int(match[1]))
            self.times.append(now)
            end = match.end()
        self._buffer = buffer[end:]
        if not self.accepted.done() and b"retry:" in buffer:
            if buffer.startswith(b"HTTP/1.1 200"):
                self.accepted.set_result(None)
            else:
                self.accepted.set_exception(ConnectionError(buffer[:200].decode(errors="replace")))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.accepted.done():
            self.accepted.set_exception(exc or ConnectionError(self._buffer[:200].decode(errors="replace")))


async def connected(port: int, request: bytes, count: int) -> list[Subscriber]:
    gate = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def one() -> Subscriber:
        async with gate, asyncio.timeout(PATIENCE_S):
            transport, subscriber = await asyncio.get_running_loop().create_connection(Subscriber, "127.0.0.1", port)
            transport.write(request)
            await subscriber.accepted
            return subscriber

    return await asyncio.gather(*(one() for _ in range(count)))


async def main(port: int, key: str, count: int, after: int) -> None:
    request = (
        f"GET /v1/events?after={after} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        "Accept: text/event-stream\r\n\r\n"
    ).encode()
    await measure(connected(port, request, count))


async def measure(connecting: Coroutine[Any, Any, list[Subscriber]]) -> None:
    subscribers = await connecting
    print("ready", flush=True)
    cpu = time.process_time()
    given = json.loads(await asyncio.to_thread(sys.stdin.readline))
    appended = {int(position): at for position, at in given.items()}
    for _ in range(int(PATIENCE_S / 0.1)):
        if all(len(one.positions) >= len(appended) or one.lost for one in subscribers):
            break
        await asyncio.sleep(0.1)
    print(json.dumps(figures(subscribers, appended) | {"client_cpu_s": time.process_time() - cpu}), flush=True)


def figures(subscribers: list[Subscriber], appended: dict[int, float]) -> dict[str, float]:
    """Milliseconds from the call of `append` to the client, and how many subscribers did not get each event once and in order."""
    expected = array("q", sorted(appended))
    waits = sorted(at - appended[position] for one in subscribers for position, at in zip(one.positions, one.times, strict=True))
    return {
        "deliveries": len(waits),
        "writes": sum(one.writes for one in subscribers),
        "p50_ms": waits[len(waits) // 2] * 1_000,
        "p99_ms": waits[len(waits) * 99 // 100] * 1_000,
        "max_ms": waits[-1] * 1_000,
        "wrong": sum(one.positions != expected for one in subscribers),
        "cut_off": sum(one.lost for one in subscribers),
    }


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
