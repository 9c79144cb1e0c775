"""What a call of a tool costs outside of the worker: HTTP tools through the guard, and calls in processes of their own.

`python -m benchmarks.outside [--calls 4000] [--whole]`. The service that is called is a process of its own on this machine. Figures
are those of the tool itself, without the server; last, those of a tool that is defined over HTTP, through the whole system.
`--whole`: these alone.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.agents import isolated
from benchmarks.run_load import Load, Order
from benchmarks.run_server import KEY, Tidelog, run, target
from benchmarks.runs import waits
from benchmarks.servers import embedded, free_port, make_wal, quiet
from tidelog.builtin.definitions import HttpTool
from tidelog.builtin.http_tools import http_tools
from tidelog.guard import Allowed, GuardedClient
from tidelog.guard.secrets import Secrets
from tidelog.isolation.kernel import Kernel, kernel_here
from tidelog.isolation.tool import Isolating
from tidelog.tools import ToolContext

IN_FLIGHT = 8
CATALOGUED = "benchmark.http"
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


def define(url: str, port: int) -> None:
    """A tool that is data, of the service at a port of this machine."""
    request = {"url": f"http://127.0.0.1:{port}/items/1", "query": {"given": "{{given}}"}}
    parameters = {"type": "object", "properties": {"given": {"type": "string"}}}
    declared: dict[str, object] = {"name": CATALOGUED, "version": "1", "kind": "http", "idempotent": True}
    declared |= {"parameters": parameters, "request": request}
    asked = urllib.request.Request(
        f"{url}/v1/tools", json.dumps(declared).encode(), {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status == 201


def of_catalogue(services: EmbeddedServices, folder: Path, port: int) -> None:
    """Calls of a tool that was defined over HTTP: an agent asks, the server records, the builtin worker calls the service."""
    tidelog = Tidelog(services, folder)
    with tidelog.up() as url, tidelog.worker(url), tidelog.builtin_worker(url), Load.started(target(url)) as load:
        define(url, port)
        tools = {CATALOGUED: "a call of an HTTP tool of the catalogue", "benchmark.echo": "the same of a Python tool"}
        for tool, what in tools.items():
            body = run("many-calls", calls=20, tool=tool)
            load.order(Order(body, 16, count=64))
            alone, many, failed = [], [], 0
            for _ in range(3):
                outcome = load.order(Order(body, 1, count=2, keep=True))
                alone += waits(outcome)
                crowd = load.order(Order(body, 64, count=192, keep=True))
                many.append(len(waits(crowd)) / crowd.seconds)
                failed += outcome.failed + crowd.failed
            p50, rate = statistics.median(alone), statistics.median(many)
            said = f"p50 {p50:.1f} ms one at a time; 64 in flight {rate:,.0f}/s{f'; {failed} failed' if failed else ''}"
            goal = "≥ 1,000/s, p50 ≤ 10 ms" if tool == CATALOGUED else ""
            table.row(what, said, f"load {os.getloadavg()[0]:.1f}", goal, met=rate >= 1_000 and p50 <= 10 if goal else None)


async def of_whole() -> None:
    port = free_port()
    service = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    service.start()
    try:
        async with embedded() as services:
            await make_wal(services)
            with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
                os.chmod(folder, 0o711)
                await asyncio.to_thread(of_catalogue, services, Path(folder), port)
    finally:
        service.kill()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=4_000)
    parser.add_argument("--whole", action="store_true", help="only calls through the whole system")
    given = parser.parse_args()
    quiet()
    if not given.whole:
        await of_parts(given)
    await of_whole()


async def of_parts(given: argparse.Namespace) -> None:
    await of_http(given.calls)
    kernel = kernel_here()
    if kernel.processes:
        await of_processes(max(64, given.calls // 20), kernel, "with namespaces")
    await of_processes(max(64, given.calls // 20), Kernel(), "without")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
