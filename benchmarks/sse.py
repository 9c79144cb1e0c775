"""The live feed of one tenant to many clients: the time from an append to each client, and whether each client gets every event
once.

`python -m benchmarks.sse [--subscribers 1000] [--rate 100] [--seconds 6] [--rounds 3]`. The api role is a process of its own, the
engine a second, the clients a third. This process appends, one event to an append. All processes share the machine's cores.
"""

import argparse
import asyncio
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop

from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.pool import open_pool
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from benchmarks import table
from benchmarks.http import KEY, wait_for
from benchmarks.servers import SERVE, embedded, environment, free_port, process
from benchmarks.writers import new_id
from domain.kernel import Metadata
from domain.projects import ProjectCreated
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID


def project() -> AppendRequest:
    """One event of some 300 bytes."""
    project_id = new_id()
    metadata = Metadata(actor="benchmark", correlation_id=project_id, causation_id=str(project_id), command_id=project_id)
    event = ProjectCreated(name="benchmark", metadata={"text": "x" * 250})
    stream = StreamAppend(project_id, project_id, 0, (NewEvent(event.TOPIC, event.VERSION, REGISTRY.encode(event)),))
    return one_command(DEFAULT_TENANT_ID, project_id, (stream,), metadata.model_dump_json())


@asynccontextmanager
async def subscribers(
    port: int, count: int, after: int | str, clients: str = "subscribers"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The clients, connected. `clients`: their module."""
    command = ["-m", f"benchmarks.{clients}", str(port), KEY, str(count), str(after)]
    pipe = subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=pipe, stdout=pipe, limit=2**20)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def line_of(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(90):
        line = (await child.stdout.readline()).decode()
    if not line:
        raise RuntimeError(f"the subscribers ended with status {await child.wait()}")
    return line


async def append_steadily(store: PostgresEventStore, rate: int, seconds: float) -> dict[int, float]:
    """Appends at the rate. Returns the time of the call of `append` for each position."""
    called: dict[int, float] = {}

    async def append() -> None:
        before = time.perf_counter()
        called[(await store.append(project())).last_position] = before

    async with asyncio.TaskGroup() as group:
        begin = time.perf_counter()
        for index in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + index / rate - time.perf_counter()))
            group.create_task(append())
    return called


def scheduled(pid: int) -> tuple[float, float]:
    """Seconds for which the process ran, and seconds for which it waited for a core."""
    running, waiting, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(running) / 1e9, int(waiting) / 1e9


async def one_round(
    store: PostgresEventStore, feed: PostgresEventFeed, port: int, api: int, options: argparse.Namespace,
    clients: str = "subscribers",
) -> dict[str, float]:  # fmt: skip
    async with subscribers(port, options.subscribers, await feed.head(), clients) as child:
        assert await line_of(child) == "ready\n" and child.stdin is not None
        began, (ran, waited) = time.perf_counter(), scheduled(api)
        called = await append_steadily(store, options.rate, options.seconds)
        child.stdin.write(json.dumps(called).encode() + b"\n")
        await child.stdin.drain()
        found: dict[str, float] = json.loads(await line_of(child))
        took, (ran_by_now, waited_by_now) = time.perf_counter() - began, scheduled(api)
        return found | {
            "missing": len(called) * options.subscribers - found["deliveries"],
            "api_ran": (ran_by_now - ran) / took,
            "api_waited": (waited_by_now - waited) / took,
            "api_write_us": (ran_by_now - ran) / found["writes"] * 1e6,
            "client_cpu": found["client_cpu_s"] / took,
        }


@asynccontextmanager
async def system() -> AsyncIterator[tuple[PostgresEventStore, PostgresEventFeed, int, int]]:
    """A store, a feed, the port of an api process, and the id of that process."""
    async with embedded() as services, AsyncExitStack() as stack:
        port = free_port()
        env = environment(services, TIDELOG_PORT=str(port), TIDELOG_BOOTSTRAP_KEY_SHA256=hashlib.sha256(KEY.encode()).hexdigest())
        stack.enter_context(process(SERVE, "relay,projector,saga", env=env))
        api = stack.enter_context(process(SERVE, "api", env=env))
        pool = await open_pool(services.database_url, role="benchmark")
        stack.push_async_callback(pool.close)
        store = PostgresEventStore(services.database_url, pool)
        await store.start()
        stack.push_async_callback(store.close)
        await asyncio.to_thread(wait_for, f"http://127.0.0.1:{port}/health/ready")
        yield store, PostgresEventFeed(pool), port, api


async def main(options: argparse.Namespace) -> None:
    async with system() as (store, feed, port, api):
        rounds = [await one_round(store, feed, port, api, options) for _ in range(options.rounds)]
    report(rounds, options)


def report(rounds: list[dict[str, float]], options: argparse.Namespace, what: str = "subscribers") -> None:
    middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    title = f"{options.subscribers:,} {what} of one tenant, {options.rate} events/s for {options.seconds:g} s"
    print(f"\n{title}, {options.rounds} rounds (medians)")
    p50, p99, longest = middle["p50_ms"], middle["p99_ms"], middle["max_ms"]
    print(f"  append → client  p50 {p50:.1f} ms  p99 {p99:.1f} ms  max {longest:.1f} ms (reach: p99 ≤ 50 ms)")
    wrong, missing = (int(sum(one[name] for one in rounds)) for name in ("wrong", "missing"))
    print(f"  subscribers with an event lost, doubled or out of order: {wrong}, deliveries missing: {missing} (reach: 0)")
    measured = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, {wrong + missing} lost or doubled"
    table.row(title, measured, "", "p99 ≤ 50 ms, none", met=p99 <= 50 and not wrong + missing)
    ran, waited, clients = middle["api_ran"], middle["api_waited"], middle["client_cpu"]
    print(f"  the api process ran {ran:.0%} of the time and waited for a core {waited:.0%}; the clients ran {clients:.0%}")
    each = middle["deliveries"] / middle["writes"]
    print(f"  {middle['api_write_us']:.0f} µs of the api process for each write to a client; {each:.1f} events in one")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    uvloop.run(main(parser.parse_args()))
