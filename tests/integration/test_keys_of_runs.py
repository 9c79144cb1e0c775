"""Runs that share a key, on real servers: one goes on at a time, in order of arrival, whatever is killed; and what people see."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from adapters.embedded import EmbeddedServices
from tests.integration import sdk_kit
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tidelog import Agent, Client, Context
from tidelog.errors import ConflictError

GATE: dict[str, asyncio.Event] = {}
ORDER = """
SELECT originator_id, topic FROM event
WHERE topic IN ('run.step_scheduled', 'run.completed', 'run.failed', 'run.cancelled') AND originator_id = ANY (%s)
ORDER BY notification_id
"""


class Deploy(Agent):
    """Works until the test lets it end."""

    async def execute(self, ctx: Context) -> Any:
        if ctx.input == "wait":
            await GATE["open"].wait()
        return "done"


@contextlib.asynccontextmanager
async def two_servers(services: EmbeddedServices, folder: Path) -> AsyncIterator[tuple[sdk_kit.Server, sdk_kit.Server, str]]:
    await empty_work_queue(services.nats_url)
    async with fresh_database(services) as url:
        (folder / "one").mkdir()
        (folder / "two").mkdir()
        async with (
            sdk_kit.serving(url, services.nats_url, folder / "one") as one,
            sdk_kit.serving(url, services.nats_url, folder / "two") as two,
        ):
            yield one, two, url


async def test_a_kill_loses_no_key_and_lets_no_two_runs_go_on(services: EmbeddedServices, tmp_path: Path) -> None:
    async with (
        two_servers(services, tmp_path) as (one, two, url),
        Client(one.url, sdk_kit.KEY) as client,
        Client(two.url, sdk_kit.KEY) as other,
        sdk_kit.running(two.url, Deploy),
    ):
        GATE["open"] = asyncio.Event()
        await _what_people_see(client, other)

        clients = (client, other) * 10
        starts = [asyncio.create_task(each.start_run(agent="deploy", concurrency_key="production")) for each in clients]
        await asyncio.wait(starts, return_when=asyncio.FIRST_COMPLETED)
        await one.kill()
        await one.start()
        started = [each.run_id for each in await asyncio.gather(*starts)]  # asked again with the same Idempotency-Key

        async def all_ended() -> bool:
            return all([(await other.get_run(run_id)).status == "completed" for run_id in started])

        await eventually(all_ended, "all runs completed", 60)
        async with await psycopg.AsyncConnection.connect(url) as connection:
            told = await (await connection.execute(ORDER, [started])).fetchall()
        assert len({run_id for run_id, _ in told}) == 20
        going: set[UUID] = set()
        for run_id, topic in told:
            going = going | {run_id} if topic == "run.step_scheduled" else going - {run_id}
            assert len(going) < 2, "two runs of one key go on"


async def _what_people_see(client: Client, other: Client) -> None:
    first = (await client.start_run(agent="deploy", input="wait", concurrency_key="staging", on_busy="reject")).run_id
    with pytest.raises(ConflictError, match=f"run {first} holds the key 'staging'") as refused:
        await other.start_run(agent="deploy", concurrency_key="staging", on_busy="reject")
    assert refused.value.code == "run-key-busy"
    waiting = (await other.start_run(agent="deploy", concurrency_key="staging")).run_id
    other_key = (await client.start_run(agent="deploy", concurrency_key="elsewhere", wait_s=20)).run
    assert other_key is not None and other_key.status == "completed"

    run = await client.get_run(waiting)
    assert (run.status, run.concurrency) == ("queued", {"key": "staging", "on_busy": "queue"})
    [queued] = (await client.list_runs(concurrency_key="staging", status="queued")).data
    listed = (await client.list_runs(concurrency_key="staging")).data
    assert (queued.run_id, [each.run_id for each in listed]) == (waiting, [waiting, first])
    [wait] = await client.run_waits(waiting)
    assert (wait.waits_for, wait.id, wait.detail) == ("key", first, f"key 'staging', held by run {first}")
    GATE["open"].set()

    async def over() -> bool:
        return (await client.get_run(waiting)).status == "completed"

    async def none_waits() -> bool:  # the list is that of a read model, which comes after the log
        return not (await client.list_runs(status="queued")).data

    await eventually(over, "the end of the run that waited", 30)
    await eventually(none_waits, "a list without the run that waited")
    [then] = (await client.list_runs(status="queued", as_of=run.position)).data
    assert (then.run_id, then.status) == (waiting, "queued")
