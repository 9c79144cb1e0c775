"""What schedules cost: 10,000 of them due in the same moment, and 10,000 that sleep beside runs that have none.

`python -m benchmarks.schedules [--schedules 10000] [--rounds 3] [--overlap allow]`. The schedules are appended with the function
that writers use, and the read model follows by itself; the server is one `tidelog up`, as users run it. Nobody does the work of the
runs that are started, so that the time is that of firing alone, while read models and relay follow it. Before that, runs of three
steps, one at a time, without schedules and with as many that sleep.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from adapters.embedded import EmbeddedServices
from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.arrays import register_arrays
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from benchmarks import table
from benchmarks.run_load import Load, Order
from benchmarks.run_server import Tidelog, run, target
from benchmarks.runs import faults
from benchmarks.servers import embedded, make_wal, quiet
from benchmarks.writers import METADATA, new_id
from domain.kernel import Event
from domain.projects import default_project_id
from domain.registry import REGISTRY
from domain.schedules import Definition, Overlap, ScheduleCreated, When, schedule_id_of
from domain.starting import Target
from domain.tenants import DEFAULT_TENANT_ID

IN_ONE_CALL = 500
AHEAD_S, MOST_S, WITHIN = 15.0, 2.0, 1.05
CALLS = 200


def created(number: int, prefix: str, due_at: datetime, overlap: Overlap) -> tuple[UUID, list[Event]]:
    when = When(every_s=86_400, anchored_at=due_at)
    definition = Definition(when=when, start=Target(agent="three-steps", input={"n": number}), overlap=overlap)
    name = f"{prefix}{number}"
    event = ScheduleCreated(
        name=name, project_id=default_project_id(DEFAULT_TENANT_ID), definition=definition, next_at=due_at, at=datetime.now(UTC),
        by="benchmark",
    )  # fmt: skip
    return schedule_id_of(DEFAULT_TENANT_ID, name), [event]


async def seed(url: str, number: int, prefix: str, due_at: datetime, overlap: Overlap = "allow") -> None:
    """Appends schedules, and waits until the read model has them."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        register_arrays(connection)
        for begin in range(0, number, IN_ONE_CALL):
            batch = []
            for each in range(begin, min(begin + IN_ONE_CALL, number)):
                stream_id, events = created(each, prefix, due_at, overlap)
                new = tuple(NewEvent(event.TOPIC, event.stored_version, REGISTRY.encode(event)) for event in events)
                stream = StreamAppend(stream_id, stream_id, 0, new)
                batch.append(EncodedAppend.of(one_command(DEFAULT_TENANT_ID, new_id(), (stream,), METADATA)))
            await connection.execute(APPEND_SQL, parameters(batch))
        while await one(connection, "SELECT count(*) FROM schedule WHERE name LIKE %s", f"{prefix}%") < number:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def one(connection: psycopg.AsyncConnection[Any], query: str, *values: Any) -> Any:
    row = await (await connection.execute(query.encode(), values)).fetchone()
    assert row is not None
    return row[0]


async def fire(url: str, number: int, prefix: str, overlap: Overlap) -> tuple[float, float, int, int]:
    """Seconds until the first and the last schedule has fired, how many have, and how many runs were started for them."""
    due_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=AHEAD_S)
    await seed(url, number, prefix, due_at, overlap)
    if datetime.now(UTC) >= due_at:
        raise RuntimeError(f"the schedules were not there in {AHEAD_S:g} s")
    fired = """
    SELECT count(*), extract(epoch FROM min(recorded_at) - %s)::float8, extract(epoch FROM max(recorded_at) - %s)::float8
    FROM event WHERE topic = 'schedule.fired' AND recorded_at >= %s
    """
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await asyncio.sleep((due_at - datetime.now(UTC)).total_seconds() + 1)
        until = time.monotonic() + 60
        while True:
            row = await (await connection.execute(fired, (due_at, due_at, due_at))).fetchone()
            assert row is not None
            if row[0] >= number or time.monotonic() > until:
                break
            await asyncio.sleep(0.2)
        runs = await one(
            connection, "SELECT count(DISTINCT originator_id) FROM event WHERE topic = 'run.started' AND recorded_at >= %s", due_at
        )
    return row[1], row[2], row[0], runs


def alone(load: Load) -> float:
    """Milliseconds of a run of three steps, one at a time: from the append to the handler and back."""
    outcome = load.order(Order(run("three-steps"), 1, count=CALLS, keep=True))
    if told := faults([outcome]):
        print(told)
    return outcome.p50_ms


def measure(services: EmbeddedServices, folder: Path, number: int, rounds: int, overlap: Overlap) -> None:
    tidelog, url = Tidelog(services, folder), services.database_url
    took = []
    with ExitStack() as stack:
        server = stack.enter_context(tidelog.up())
        load = stack.enter_context(Load.started(target(server)))
        with tidelog.worker(server):
            without = [alone(load) for _ in range(rounds + 1)]
            asyncio.run(seed(url, number, "asleep-", datetime.now(UTC) + timedelta(days=300)))
            asleep = [alone(load) for _ in range(rounds + 1)]
        for turn in range(rounds):
            first, last, fired, runs = asyncio.run(fire(url, number, f"due-{turn}-", overlap))
            print(
                f"{fired:,} schedules due in one moment: the first after {first:.2f} s, the last after {last:.2f} s; {runs:,} runs"
            )
            took.append(last)
            if fired != number or runs != number:
                print(f"NOT ONCE: {number:,} schedules, {fired:,} fired, {runs:,} runs")
    seconds, before, after = statistics.median(took), statistics.median(without[1:]), statistics.median(asleep[1:])
    print(f"a run of three steps, one at a time: p50 {before:.2f} ms without schedules, {after:.2f} ms with {number:,} that sleep")
    table.row(f"{number:,} schedules due in one second", f"{seconds:.2f} s", "", f"≤ {MOST_S:g} s, once", met=seconds <= MOST_S)
    told = f"{after:.2f} ms"
    table.row(
        f"a run beside {number:,} schedules that sleep", told, f"{before:.2f} ms without", "+5%", met=after <= before * WITHIN
    )


async def main(number: int, rounds: int, overlap: Overlap) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(measure, services, Path(folder), number, rounds, overlap)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overlap", choices=["skip", "queue", "cancel", "allow"], default="allow")
    given = parser.parse_args()
    asyncio.run(main(given.schedules, given.rounds, given.overlap))
