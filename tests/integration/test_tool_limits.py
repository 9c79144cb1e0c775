"""Limits of tools with real processes: two servers, three workers, and kills. The tool itself counts, in a file."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, end_of, serving, until, worker_process
from tidelog import Client

MOST = 3
CODE = f'''
import asyncio, os, time
from pathlib import Path
from tidelog import Agent, Policy, Rate, tool

FILE = Path(__file__).parent / "calls"

def told(*words):
    with FILE.open("a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

@tool("slow.op", idempotent=True, policy=Policy(max_parallel={MOST}, rate=Rate(calls=20, per_s=1.0)))
async def slow(n: int) -> int:
    """Takes a while."""
    told("+", os.getpid(), time.monotonic())
    try:
        await asyncio.sleep(0.3)
    finally:
        told("-", os.getpid(), time.monotonic())
    return n

class Caller(Agent):
    async def execute(self, ctx):
        return await asyncio.gather(*(ctx.tool("slow.op", n=n) for n in range(ctx.input)))
'''


@pytest_asyncio.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    place = tmp_path / "agents"
    place.mkdir()
    (place / "caller.py").write_text(CODE)
    yield place


def spans(folder: Path, killed: dict[int, float]) -> list[tuple[float, float]]:
    """When each call of the tool began and ended. A killed worker's calls ended with it."""
    begun: dict[int, list[float]] = {}
    found = []
    file = folder / "calls"
    for line in file.read_text().splitlines() if file.exists() else []:
        sign, pid, at = line.split()
        if sign == "+":
            begun.setdefault(int(pid), []).append(float(at))
        else:
            found.append((begun[int(pid)].pop(0), float(at)))
    now = time.monotonic()
    return found + [(start, killed.get(pid, now)) for pid, starts in begun.items() for start in starts]


def side_by_side(calls: list[tuple[float, float]]) -> int:
    """The most calls that went on at once."""
    moments = sorted([(start, 1) for start, _ in calls] + [(end, -1) for _, end in calls])
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


async def test_limits_hold_over_servers_and_workers_also_when_these_are_killed(
    database_url: str, services: EmbeddedServices, tmp_path: Path, folder: Path
) -> None:
    places = [tmp_path / name for name in "ab"]
    for place in places:
        place.mkdir()
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(serving(database_url, services.nats_url, place)) for place in places]
        workers = [
            await stack.enter_async_context(worker_process(url, folder, "--tool-concurrency", "8"))
            for url in (one.url, one.url, other.url)
        ]
        client = await stack.enter_async_context(Client(other.url, KEY, patience_s=60))
        run = await client.start_run(agent="caller", input=40)
        await until(lambda: len(spans(folder, {})) >= 6)
        await one.kill()
        await one.start()
        await until(lambda: len(spans(folder, {})) >= 12)
        victim = workers[2]
        await until(lambda: str(victim.pid) in (folder / "calls").read_text(), 60)
        victim.kill()
        await victim.wait()
        killed = {victim.pid: time.monotonic()}
        ended = await end_of(client, run.run_id, 90)
        assert ended.status == "completed", ended
        calls = spans(folder, killed)
        assert side_by_side(calls) == MOST, "as many as may, and never more"
        assert {int(line.split()[1]) for line in (folder / "calls").read_text().splitlines()} >= {one.pid for one in workers}
        tool = await client.tool("slow.op")
        assert tool.limits is not None and (tool.limits.in_use, tool.limits.waiting) == (0, 0)
