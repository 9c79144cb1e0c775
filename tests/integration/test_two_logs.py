"""Two logs on one NATS: a database and a copy of it, with the same tenant, agents, keys and open work."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from nats.js import JetStreamContext

from adapters.embedded import EmbeddedServices
from adapters.nats.names import work_stream, work_subjects
from adapters.postgres.log.identity import log_id_at
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.sdk_kit import KEY, Server, administering, running, serving, until
from tests.integration.system_kit import PATIENCE_S, eventually, fresh_database
from tidelog import Agent, Client, Context
from tidelog.worker import deliveries


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
    return serving(database_url, services.nats_url, services.worker_nats_url, folder)


@asynccontextmanager
async def both(one: AbstractAsyncContextManager[Server], two: AbstractAsyncContextManager[Server]) -> AsyncIterator[list[Server]]:
    """Two servers that start side by side."""
    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as starts:
            started = [starts.create_task(stack.enter_async_context(server)) for server in (one, two)]
        yield [task.result() for task in started]


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.getMessage() == event]


async def test_a_copy_of_a_log_on_the_same_nats_takes_nothing_from_it(
    services: EmbeddedServices, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "httpx2")
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
                run = await client.wait(run_id, timeout=90)
                assert (run.result, run.step("greeter").attempt) == ([word, number], 1)
        started = [
            (client, (await client.start_run(agent="greeter", input="new")).run_id) for _ in range(15) for client in (one, two)
        ]
        runs = await asyncio.gather(*(client.wait(run_id, timeout=90) for client, run_id in started))
        assert [run.result for run in runs] == [["original", "new"], ["copy", "new"]] * 15
        assert {run.step("greeter").attempt for run in runs} == {1}
        claims = [message for message in caplog.messages if "/claim" in message]
        assert len(claims) >= 36 and not [message for message in claims if '"HTTP/1.1 200 ' not in message]
        # Each item was delivered once, to a worker of its log.
        async with administering(services.nats_url) as jetstream:
            for url in (database_url, copy_url):
                [consumer] = await jetstream.consumers_info(work_stream(await log_id_at(url, timeout=PATIENCE_S)))
                assert consumer.delivered is not None and consumer.delivered.consumer_seq == 18
                assert consumer.num_redelivered == 0


async def _long_ago(database_url: str, count: int) -> bool:
    """Makes open work a minute old as soon as there are `count` items: the first sweep puts them on the queue of the copy."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        aged = await connection.execute("UPDATE open_work SET dispatched_at = dispatched_at - interval '1 minute'")
        if aged.rowcount == count:
            return True
        await connection.rollback()
        return False


async def put(jetstream: JetStreamContext, queue_of: str, **payload: Any) -> int:
    """Puts an item with any content on the queue of a log. Returns the item's sequence in the stream."""
    item = {"kind": "agent", "pool": "greeter", "work_id": str(uuid4()), "dispatch": 1, "tenant_id": str(DEFAULT_TENANT_ID)}
    item |= {"root_id": str(uuid4()), **payload}
    subject = f"{work_subjects(queue_of)}.agent.{item['tenant_id']}.greeter.{item['work_id']}.1"
    return (await jetstream.publish(subject, json.dumps(item).encode(), stream=work_stream(queue_of))).seq


async def test_an_item_that_is_not_ours_or_not_known_stays_on_the_queue(
    services: EmbeddedServices, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(deliveries, "LONGEST_PAUSE_S", 0.4)
    log_id = await log_id_at(database_url, timeout=PATIENCE_S)
    stream = work_stream(log_id)
    async with (
        server(services, database_url, tmp_path) as ours,
        Client(ours.url, KEY) as client,
        running(ours.url, Original),
        administering(services.nats_url) as jetstream,
    ):
        foreign = await put(jetstream, log_id, log_id="other-1")
        unnamed = await put(jetstream, log_id)  # an item of an earlier release, without its log's id
        lost = await put(jetstream, log_id, log_id=log_id)  # an item of this log that the log does not know: the log was restored
        await until(lambda: len(said(caplog, "work_of_another_log")) >= 8 and len(said(caplog, "work_not_known")) >= 12)
        [dropped] = await until(lambda: said(caplog, "unknown_work_dropped"))
        assert dropped["deliveries"] == 6 and dropped["log_id"] == log_id

        async def left() -> bool:
            info = await jetstream.stream_info(stream)
            return info.state.messages == 2

        await eventually(left, "only what is dropped is acknowledged")
        assert [(await jetstream.get_msg(stream, sequence)).seq for sequence in (foreign, unnamed)] == [foreign, unnamed] != lost
        assert {fields["log_id"] for fields in said(caplog, "work_of_another_log")} == {"other-1"}
        pauses = [fields["again_in_s"] for fields in said(caplog, "work_of_another_log")]
        assert pauses[:4] == [0.05, 0.1, 0.2, 0.4] and set(pauses[4:]) == {0.4}, "longer each time, up to a bound"
        run = await client.wait((await client.start_run(agent="greeter", input=1)).run_id, timeout=60)
        assert run.result == ["original", 1]
