"""Two logs on one NATS: a database and a copy of it, with the same tenant, agents, keys and open work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from adapters.embedded import EmbeddedServices
from adapters.nats.names import work_stream
from adapters.postgres.log.identity import log_id_at
from tests.integration.sdk_kit import KEY, Server, administering, running, serving
from tests.integration.system_kit import PATIENCE_S, eventually, fresh_database
from tidelog import Agent, Client, Context


class Original(Agent):
    name = "greeter"

    async def execute(self, ctx: Context) -> Any:
        return ["original", ctx.input]


class Copied(Agent):
    name = "greeter"

    async def execute(self, ctx: Context) -> Any:
        return ["copy", ctx.input]


def server(services: EmbeddedServices, database_url: str, folder: Path) -> AbstractAsyncContextManager[Server]:
    folder.mkdir(exist_ok=True)
    return serving(database_url, services.nats_url, folder)


@asynccontextmanager
async def both(one: AbstractAsyncContextManager[Server], two: AbstractAsyncContextManager[Server]) -> AsyncIterator[list[Server]]:
    """Two servers that start side by side."""
    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as starts:
            started = [starts.create_task(stack.enter_async_context(server)) for server in (one, two)]
        yield [task.result() for task in started]


async def test_a_copy_of_a_log_on_the_same_nats_takes_nothing_from_it(
    services: EmbeddedServices, database_url: str, tmp_path: Path
) -> None:
    async with server(services, database_url, tmp_path / "before") as before, Client(before.url, KEY) as client:
        async with running(before.url, Original):
            pass  # the agent is known, and no worker runs it
        waiting = [(await client.start_run(agent="greeter", input=number)).run_id for number in range(3)]
        await eventually(lambda: _long_ago(database_url, len(waiting)), "work on the queue")
    async with (
        fresh_database(services, copy_of=database_url) as copy_url,
        both(server(services, database_url, tmp_path / "original"), server(services, copy_url, tmp_path / "copy")) as (
            original,
            copy,
        ),
        Client(original.url, KEY) as one,
        Client(copy.url, KEY) as two,
        running(original.url, Original),
        running(copy.url, Copied),
    ):
        for client, word in ((one, "original"), (two, "copy")):
            for number, run_id in enumerate(waiting):
                run = await client.wait(run_id, timeout=600)
                assert (run.result, run.step("greeter").attempt) == ([word, number], 1)
        started = [
            (client, (await client.start_run(agent="greeter", input="new")).run_id) for _ in range(15) for client in (one, two)
        ]
        runs = await asyncio.gather(*(client.wait(run_id, timeout=600) for client, run_id in started))
        assert [run.result for run in runs] == [["original", "new"], ["copy", "new"]] * 15
        assert {run.step("greeter").attempt for run in runs} == {1}
        # Each item that the queue had was delivered once, to a worker of its log. Work for a free slot is handed over without it.
        async with administering(services.nats_url) as jetstream:
            for url in (database_url, copy_url):
                stream = work_stream(await log_id_at(url, timeout=PATIENCE_S))
                [consumer] = await jetstream.consumers_info(stream)
                items = (await jetstream.stream_info(stream)).state.last_seq
                assert consumer.delivered is not None and consumer.delivered.consumer_seq == items >= len(waiting)
                assert consumer.num_redelivered == 0


async def _long_ago(database_url: str, count: int) -> bool:
    """Makes open work a minute old as soon as there are `count` items: the first sweep puts them on the queue of the copy."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        aged = await connection.execute("UPDATE open_work SET dispatched_at = dispatched_at - interval '1 minute'")
        if aged.rowcount == count:
            return True
        await connection.rollback()
        return False
