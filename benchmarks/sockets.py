"""WebSockets of events: the time from an append to each client, whether each client gets every event once, and what idle ones cost.

`python -m benchmarks.sockets [--subscribers 1000] [--rate 100] [--seconds 6] [--rounds 3] [--idle 10000] [--few 200]`. The api role
is a process of its own, the engine a second, the clients a third. This process appends, one event to an append.
"""

import argparse
import asyncio
import os

import uvloop

from benchmarks import sse, table
from benchmarks.machine import cpu_seconds, rss_mb

SETTLED_S, WATCHED_S = 3.0, 20.0


async def idle(port: int, api: int, count: int, few: int) -> None:
    """Memory of many idle sockets with a subscription each, and processor time of a few."""
    await asyncio.sleep(SETTLED_S)
    alone = await busy(api)
    async with sse.subscribers(port, few, "now", "socket_clients") as child:
        await sse.line_of(child)
        await asyncio.sleep(SETTLED_S)
        with_few = await busy(api)
    before = rss_mb(api)
    async with sse.subscribers(port, count, "now", "socket_clients") as child:
        await sse.line_of(child)
        await asyncio.sleep(SETTLED_S)
        after = rss_mb(api)
        with_many = await busy(api)
    each = (after - before) * 1024 / count
    print(f"\n{count:,} idle sockets with a subscription: {after - before:.0f} MB more, {each:.1f} KB each, {after:.0f} MB in all")
    print(f"  CPU of the api process: {alone:.1%} without a socket, {with_few:.1%} with {few}, {with_many:.1%} with {count:,}")
    table.row(f"{count:,} idle WebSockets of events", f"{after - before:.0f} MB", "", "≤ 300 MB", met=after - before <= 300)
    measured = f"{with_few:.1%} of a core (without them {alone:.1%})"
    table.row(f"{few} idle WebSockets of events", measured, "", "≤ 20 % of a core", met=with_few <= 0.2)


async def busy(pid: int) -> float:
    """The share of a core that a process takes."""
    before = cpu_seconds(pid)
    await asyncio.sleep(WATCHED_S)
    return (cpu_seconds(pid) - before) / WATCHED_S


async def main(options: argparse.Namespace) -> None:
    print(f"load {os.getloadavg()[0]:.1f}")
    async with sse.system() as (store, feed, port, api):
        rounds = [await sse.one_round(store, feed, port, api, options, "socket_clients") for _ in range(options.rounds)]
        sse.report(rounds, options, "WebSockets")
        if options.idle:
            await idle(port, api, options.idle, options.few)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=int, default=10_000, help="0: only the others")
    parser.add_argument("--few", type=int, default=200)
    uvloop.run(main(parser.parse_args()))
