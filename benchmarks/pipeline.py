"""The whole pipeline: append → relay → JetStream → all read models, rows and checkpoints committed. Sustained events per second.

`python -m benchmarks.pipeline [--seconds 10] [--callers 64]`. Each append starts a run: three events on two streams (`run.started`,
`run.step_scheduled`, `agent_run.requested`), which four read models handle. The clock runs from the first append until the
checkpoint of every read model is at the head of the log. The relay and the projector are one process, as in `tidelog up`.
"""

import argparse
import asyncio
import statistics
import time
from contextlib import AsyncExitStack

import psycopg
import uvloop
from uuid_utils.compat import uuid7

from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.pool import open_pool
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from benchmarks import table
from benchmarks.servers import SERVE, embedded, environment, process
from domain import runs
from domain.agent_runs import AgentRunRequested
from domain.kernel import Event, Metadata
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID

EVENTS_PER_APPEND = 3


def new_event(event: Event) -> NewEvent:
    return NewEvent(event.TOPIC, event.VERSION, REGISTRY.encode(event))


def started_run() -> AppendRequest:
    run_id = uuid7()
    plan = runs.sequential(("greeter",))
    command = runs.StartRun(run_id=run_id, project_id=run_id, plan=plan, input={"question": "x" * 200})
    events = runs.decide(runs.Run(), command)
    agent_run_id = runs.agent_run_id_of(run_id, "greeter")
    requested = AgentRunRequested(run_id=run_id, step="greeter", agent="greeter", agent_version="1")
    metadata = Metadata(actor="benchmark", correlation_id=run_id, causation_id=str(run_id), command_id=run_id)
    return one_command(
        DEFAULT_TENANT_ID,
        run_id,
        (
            StreamAppend(run_id, run_id, 0, tuple(map(new_event, events))),
            StreamAppend(agent_run_id, run_id, 0, (new_event(requested),)),
        ),
        metadata.model_dump_json(),
    )


async def produce(store: PostgresEventStore, callers: int, seconds: float) -> int:
    until = time.perf_counter() + seconds

    async def caller() -> int:
        appended = 0
        while time.perf_counter() < until:
            await store.append(started_run())
            appended += EVENTS_PER_APPEND
        return appended

    return sum(await asyncio.gather(*(caller() for _ in range(callers))))


async def caught_up(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        async with asyncio.timeout(120):
            while True:
                cursor = await connection.execute(
                    "SELECT (SELECT position FROM log_head) = min(position) FROM checkpoint HAVING count(*) > 0"
                )
                row = await cursor.fetchone()
                if row is not None and row[0]:
                    return
                await asyncio.sleep(0.02)


async def main(seconds: float, callers: int, rounds: int) -> None:
    async with embedded() as services, AsyncExitStack() as stack:
        pool = await open_pool(services.database_url, role="benchmark")
        stack.push_async_callback(pool.close)
        store = PostgresEventStore(services.database_url, pool)
        await store.start()
        stack.push_async_callback(store.close)
        with process(SERVE, "relay,projector", env=environment(services)):
            await store.append(started_run())
            await caught_up(services.database_url)
            await measure(store, services.database_url, seconds, callers, rounds)


async def measure(store: PostgresEventStore, url: str, seconds: float, callers: int, rounds: int) -> None:
    rates, appended_rates = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        events = await produce(store, callers, seconds)
        appended_rates.append(events / (time.perf_counter() - began))
        await caught_up(url)
        rates.append(events / (time.perf_counter() - began))
    print(f"\nThe whole pipe, {callers} callers, {rounds} rounds of {seconds:g} s (medians)")
    print(f"  appended while it worked   {statistics.median(appended_rates):8,.0f} events/s")
    print(f"  append → read models       {statistics.median(rates):8,.0f} events/s (reach: ≥ 10,000/s)")
    rate = statistics.median(rates)
    table.row(f"append → all read models, {callers} callers", f"{rate:,.0f} events/s", "", "≥ 10,000/s", met=rate >= 10_000)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    uvloop.run(main(arguments.seconds, arguments.callers, arguments.rounds))
