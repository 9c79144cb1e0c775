"""How long it takes to take back the effects of one run: `python -m benchmarks.compensations [--effects 1000]`.

The server and a worker run as users run them. The time is that between the recorded beginning and the recorded end. The tools write
a ledger, which says whether each effect was taken back once and in the reverse order.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from benchmarks import table
from benchmarks.run_server import KEY, Tidelog
from benchmarks.servers import embedded, quiet
from tidelog import Client

AGENT = """
import asyncio

from tidelog import Agent, Context, PermanentError, tool


async def back(arguments: dict) -> None:
    with open(LEDGER, "a") as ledger:
        ledger.write(f"{arguments['number']}\\n")


@tool("bench.effect", compensate=back)
async def effect(number: int) -> int:
    return number


class Undoer(Agent):
    async def execute(self, ctx: Context) -> None:
        for first in range(0, ctx.input, 20):
            await asyncio.gather(*(ctx.tool("bench.effect", number=n) for n in range(first, first + 20)))
        raise PermanentError("enough")
"""


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--effects", type=int, default=1_000)
    given = parser.parse_args()
    quiet()
    async with embedded() as services:
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            agents = Path(folder) / "agents"
            agents.mkdir()
            ledger = Path(folder) / "ledger"
            (agents / "undoer.py").write_text(f"LEDGER = {str(ledger)!r}\n{AGENT}")
            tidelog = Tidelog(services, Path(folder))
            with tidelog.up() as url, tidelog.worker(url, agents=agents, known="undoer", silent=True):
                return await _measure(url, given.effects, ledger)


async def _measure(url: str, effects: int, ledger: Path) -> int:
    async with Client(url, KEY) as client:
        started = await client.start_run(agent="undoer", input=effects, compensate="on_failure")
        async for event in client.events(started.run_id):
            if event.type == "compensation.ended":
                break
        found = await client.compensation(started.run_id)
        kinds = ("compensation.started", "compensation.effect_compensated", "compensation.ended")
        times = [event.time async for event in client.events(started.run_id, follow=False, types=kinds)]
        order = [event.data["number"] async for event in client.events(started.run_id, follow=False, types=kinds[1:2])]
    took = (times[-1] - times[0]).total_seconds()
    gaps = sorted((after - before).total_seconds() * 1_000 for before, after in pairwise(times))
    reverse = order == list(range(effects, 0, -1)) and found.compensated == effects
    reverse = reverse and len(_lines(ledger)) == len({*_lines(ledger)}) == effects
    said = f"{took:.2f} s, p50 {statistics.median(gaps):.1f} ms, p99 {gaps[int(len(gaps) * 0.99)]:.1f} ms"
    said += "" if reverse else ", NOT once each and in reverse"
    table.row(
        f"{effects:,} effects of a run taken back", said, reach="≤ 8 s for 1,000", met=reverse and took <= 8 * effects / 1_000
    )
    return 0 if reverse else 1


def _lines(ledger: Path) -> list[str]:
    """The numbers of the effects that were taken back, as the tool wrote them."""
    return ledger.read_text().split()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
