"""What a call of a tool costs outside of the worker: HTTP tools through the guard, and calls in processes of their own.

`python -m benchmarks.outside [--calls 4000]`. The service that is called is a process of its own on this machine. Figures are
those of the tool itself, without the server.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks import table
from benchmarks.agents import isolated
from benchmarks.servers import free_port
from tidelog.builtin.definitions import HttpTool
from tidelog.builtin.http_tools import http_tools
from tidelog.guard import Allowed, GuardedClient
from tidelog.guard.secrets import Secrets
from tidelog.isolation.kernel import Kernel, kernel_here
from tidelog.isolation.tool import Isolating
from tidelog.tools import ToolContext

IN_FLIGHT = 8
CONTEXT = ToolContext(Path(), "benchmark", 1)
PARAMETERS = {"type": "object", "properties": {"id": {"type": "integer"}}}
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"found": 1}'


def serve(port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            if await reader.readline() == b"\r\n":
                writer.write(ANSWER)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(run())


async def timed(call: Callable[[], Awaitable[object]], calls: int, in_flight: int) -> tuple[float, list[float]]:
    """Calls a second, and the milliseconds of each, sorted."""
    took: list[float] = []

    async def some() -> None:
        for _ in range(calls // in_flight):
            began = time.perf_counter()
            await call()
            took.append((time.perf_counter() - began) * 1_000)

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(in_flight)))
    return len(took) / (time.perf_counter() - began), sorted(took)


async def of_http(calls: int) -> None:
    port = free_port()
    service = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    service.start()
    client = GuardedClient(Allowed.of(["127.0.0.1"]))
    given = HttpTool(name="t", url=f"http://127.0.0.1:{port}/items/{{{{id}}}}", parameters=PARAMETERS)
    [tool] = http_tools([given], client, Secrets())
    try:
        while True:
            try:
                await tool.invoke({"id": 1}, CONTEXT)
                break
            except Exception:  # noqa: BLE001  # the service has not started yet
                await asyncio.sleep(0.1)
        for in_flight in (1, IN_FLIGHT, 64):
            rate, took = await timed(lambda: tool.invoke({"id": 1}, CONTEXT), calls, in_flight)
            p50, p99 = statistics.median(took), took[int(len(took) * 0.99)]
            met = rate >= 1_000 and p50 <= 10 if in_flight == IN_FLIGHT else None
            reach = "" if met is None else "≥ 1,000/s, p50 ≤ 10 ms"
            said = f"{rate:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
            table.row(f"an HTTP tool, {in_flight} in flight", said, reach=reach, met=met)
    finally:
        await client.aclose()
        service.kill()


async def of_processes(calls: int, kernel: Kernel, what: str) -> None:
    isolating = Isolating(kernel)
    tool = isolating.isolated(isolated.nothing)
    began = time.perf_counter()
    await tool.invoke({}, CONTEXT)
    cold_ms = (time.perf_counter() - began) * 1_000
    _, took = await timed(lambda: tool.invoke({}, CONTEXT), calls, 1)
    rate, _ = await timed(lambda: tool.invoke({}, CONTEXT), calls, IN_FLIGHT)
    isolating.close()
    p50, p99 = statistics.median(took), took[int(len(took) * 0.99)]
    said = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, the first one {cold_ms:.0f} ms; {IN_FLIGHT} in flight {rate:.0f}/s"
    table.row(f"a call in a process of its own, {what}", said, reach="p50 ≤ 30 ms", met=p50 <= 30)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=4_000)
    given = parser.parse_args()
    await of_http(given.calls)
    kernel = kernel_here()
    if kernel.processes:
        await of_processes(max(64, given.calls // 20), kernel, "with namespaces")
    await of_processes(max(64, given.calls // 20), Kernel(), "without")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
