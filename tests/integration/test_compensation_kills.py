"""Server and worker are killed at random moments while the effects of a run are taken back: each of them once, in reverse."""

import asyncio
import random
from pathlib import Path
from typing import Any

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, serving, worker_process
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tidelog import Client
from tidelog.errors import NotFoundError, TidelogAPIError, TidelogConnectionError

EFFECTS = 20
WHO = ("server", "worker", "server")
"""Who is killed. A worker that vanished costs ten seconds, a server as long as it needs to begin."""

AGENT = '''
import os

from tidelog import Agent, Context, PermanentError, ToolContext, tool


def once(ctx: ToolContext, folder: str, what: str) -> None:
    """The ledger, which knows nothing of Tidelog: a file for each key, and how often the key was used."""
    place = ctx.workspace / folder
    place.mkdir(exist_ok=True)
    try:
        with os.fdopen(os.open(place / ctx.idempotency_key, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w") as made:
            made.write(what)
    except FileExistsError:
        pass


def back(ctx: ToolContext, arguments: dict) -> None:
    once(ctx, "undone", str(arguments["number"]))


@tool("kill.do", idempotent=True, max_attempts=5, compensate=back)
def do(ctx: ToolContext, number: int) -> None:
    once(ctx, "done", str(number))


class Doer(Agent):
    async def execute(self, ctx: Context) -> None:
        for number in range(ctx.input):
            await ctx.tool("kill.do", number=number)
        raise PermanentError("enough")
'''


async def test_each_effect_is_taken_back_once_whatever_is_killed(services: EmbeddedServices, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice, agents, logs = random.Random(seed), tmp_path / "agents", tmp_path / "server"
    for folder in (agents, logs):
        folder.mkdir()
    (agents / "doer.py").write_text(AGENT)
    await empty_work_queue(services.nats_url)
    async with (
        fresh_database(services) as url,
        serving(url, services.nats_url, logs) as server,
        Client(server.url, KEY, patience_s=30) as client,
    ):
        all_killed = asyncio.Event()
        killing = asyncio.create_task(_kill(server, agents, dice, all_killed))

        async def begun() -> Any:
            try:
                return await client.start_run(agent="doer", input=EFFECTS, compensate="on_failure")
            except NotFoundError:  # the worker has not offered the agent yet
                return None

        async def over() -> Any:
            if killing.done():
                killing.result()
            try:
                found = await client.compensation(started.run_id)
            except (TidelogAPIError, TidelogConnectionError):
                return None
            return found if found.status in ("compensated", "partial") and all_killed.is_set() else None

        try:
            started = await eventually(begun, "the start of the run", 60)
            found = await eventually(over, "the end of the compensation", 120)
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
    assert (found.status, found.compensated, found.effects) == ("compensated", EFFECTS, EFFECTS)
    undone = sorted((agents / "undone").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert [int(file.read_text()) for file in undone] == list(reversed(range(EFFECTS)))
    assert {file.name for file in undone} == {str(effect.compensation_id) for effect in found.data}


async def _kill(server: Server, agents: Path, dice: random.Random, all_killed: asyncio.Event) -> None:
    """Kills one or the other, at moments that the work decides: when so many effects were taken back.

    The last worker stays until this is cancelled. Somebody has to report the last effect.
    """
    at, who = sorted(dice.sample(range(1, EFFECTS - 1), len(WHO))), list(WHO)
    dice.shuffle(who)
    while True:
        async with worker_process(server.url, agents) as worker:
            while who:
                await _undone(agents, at[-len(who)])
                await asyncio.sleep(dice.random() * 0.02)
                if who.pop() == "worker":
                    worker.kill()
                    await worker.wait()
                    break
                await server.kill()
                await server.start()
            else:
                all_killed.set()
                await asyncio.Event().wait()


async def _undone(agents: Path, number: int) -> None:
    """Waits until so many effects were taken back."""

    async def there() -> bool:
        return len(list((agents / "undone").glob("*"))) >= number

    await eventually(there, f"{number} effects that were taken back", 60)
