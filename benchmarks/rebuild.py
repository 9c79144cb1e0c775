"""The rate at which a read model is rebuilt from the log, beside the `ProjectionRunner` of the `eventsourcing` library.

    python -m benchmarks.rebuild [EVENTS]        default: 200,000

The server is one embedded Postgres with flushing on. The contestants take turns, three times.

- all read models: every read model of a new installation comes to the head of the log, once.
- rebuild: the work of `tidelog projections rebuild runs --swap`: the read model of runs is built beside the live one, checkpoint
  and rows page by page, then swapped. The log is the log of `benchmarks.replay`.
- library: a `ProjectionRunner` on its own application, whose view counts the events of each aggregate: one upsert and the tracking
  record in one transaction for each event, as in the library's documentation.
"""

import asyncio
import contextlib
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import DomainEvent
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection as LibraryProjection
from eventsourcing.projection import ProjectionRunner as LibraryRunner
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.listener import listening
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.migrate import migrate
from adapters.postgres.pool import open_pool
from application.engine.background import end
from benchmarks import table
from benchmarks.replay import fill
from benchmarks.writers import new_id
from domain.kernel import RecordedEvent
from projections.engine.rebuild import jobs
from projections.engine.rebuild.builder import ProjectionBuilder
from projections.engine.runner import ProjectionRunner
from projections.kernel import Projection
from projections.registry import PROJECTIONS
from projections.runs import PROJECTION as RUNS

ROUNDS = 3
PAGE = 2_000
LIBRARY_EVENTS = 3_000
"""Events of each round. The library's rate does not depend on this number."""


@dataclass(frozen=True)
class Happened(DomainEvent):
    """An event of some 300 bytes."""

    text: str


class Counts(PostgresTrackingRecorder):
    """A view in the form of the library's documentation: the row and the position in one transaction."""

    def __init__(self, datastore: PostgresDatastore, **options: Any) -> None:
        super().__init__(datastore, **options)
        name = Identifier(datastore.schema), Identifier(f"{self.tracking_table_name}_counts")
        self.sql_create_statements.append(
            SQL("CREATE TABLE IF NOT EXISTS {}.{} (aggregate uuid PRIMARY KEY, events bigint, newest text)").format(*name)
        )
        self._upsert = SQL(
            "INSERT INTO {}.{} AS c VALUES (%s, 1, %s) "
            "ON CONFLICT (aggregate) DO UPDATE SET events = c.events + 1, newest = EXCLUDED.newest"
        ).format(*name)

    def count(self, aggregate: UUID, text: str, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(self._upsert, (aggregate, text))


class Counting(LibraryProjection[Counts]):
    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        self.view.count(domain_event.originator_id, domain_event.text, tracking)


class Library:
    """An application with its events. One runner reads the events and continues at its last position."""

    def __init__(self, database_url: str) -> None:
        given = conninfo_to_dict(database_url)
        names = {"DBNAME": "dbname", "HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
        self._environment = {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_SINGLE_ROW_TRACKING": "y",
            **{f"POSTGRES_{name}": str(given.get(key) or "") for name, key in names.items()},
        }
        self._application: Application[UUID] = Application(self._environment)

    def append(self, events: int) -> int:
        """Adds events, ten to an aggregate. Returns the number of the last event."""
        mapper, recorder = self._application.mapper, self._application.recorder
        last = 0
        for _ in range(events // 10):
            aggregate, at = new_id(), Happened.create_timestamp()
            happened = (Happened(originator_id=aggregate, originator_version=n, timestamp=at, text="x" * 250) for n in range(1, 11))
            numbers = recorder.insert_events([mapper.to_stored_event(event) for event in happened])
            assert numbers is not None
            last = numbers[-1]
        return last

    def round(self) -> float:
        last = self.append(LIBRARY_EVENTS)
        began = time.perf_counter()
        with LibraryRunner(
            application_class=Application, projection_class=Counting, view_class=Counts, env=self._environment
        ) as runner:
            runner.wait(last, timeout=120)
        return LIBRARY_EVENTS / (time.perf_counter() - began)

    def close(self) -> None:
        self._application.close()


class Ours:
    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def round(self, projection: Projection = RUNS) -> float:
        """Events of the log per second, from the order to the swap."""
        began = time.perf_counter()
        async with self._database.connection() as connection, connection.transaction():
            await jobs.ask(connection, projection, "rebuild", swap=True)
        while True:
            async with self._database.connection() as connection:
                build = await jobs.find(connection, projection.name, "version")
            assert build is not None
            if build.status == "swapped":
                return build.position / (time.perf_counter() - began)
            if build.status not in jobs.OPEN:
                raise RuntimeError(f"the rebuild is {build.status}: {build.error}")
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def builder(database_url: str, *projections: Projection) -> AsyncIterator[Ours]:
    pool = await open_pool(database_url, role="benchmark", max_size=4)
    try:
        async with listening(database_url, jobs.CHANNEL) as requests:
            database = PostgresDatabase(pool)
            working = asyncio.create_task(ProjectionBuilder(projections, database, PostgresEventFeed(pool), requests).run())
            try:
                yield Ours(database)
            finally:
                await end(working)
    finally:
        await pool.close()


class Pages:
    """The port `Subscription` on a log that does not grow."""

    def __init__(self, feed: PostgresEventFeed) -> None:
        self._feed = feed

    async def batches(self, *, after: int, name: str) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        while page := await self._feed.read(after=after, limit=PAGE):
            yield page
            after = page[-1].position


async def all_read_models(database_url: str) -> None:
    """From the first event of the log to the head: all read models move together, as in the projector."""
    pool = await open_pool(database_url, role="benchmark", max_size=4)
    try:
        feed = PostgresEventFeed(pool)
        head, began, cpu = await feed.head(), time.perf_counter(), time.process_time()
        await ProjectionRunner(PROJECTIONS, PostgresDatabase(pool), Pages(feed)).run(until=head)
        rate, cpu_us = head / (time.perf_counter() - began), (time.process_time() - cpu) / head * 1e6
    finally:
        await pool.close()
    print(f"all read models together: {rate:,.0f} events/s, {cpu_us:.1f} us of the projector's processor time an event")
    table.row(
        "all read models, from the log", f"{rate:,.0f} events/s", f"{cpu_us:.1f} us of the projector's processor time an event",
        "≥ 30,000/s", met=rate >= 30_000,
    )  # fmt: skip


@contextlib.contextmanager
def library_on(database_url: str) -> Iterator[Library]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = Library(database_url)
    try:
        yield library
    finally:
        library.close()


async def measure(database_url: str, events: int) -> None:
    await asyncio.to_thread(fill, database_url, events)
    await all_read_models(database_url)
    ours: list[float] = []
    theirs: list[float] = []
    with library_on(database_url) as library:
        async with builder(database_url, RUNS) as rebuilt:
            for _ in range(ROUNDS):
                ours.append(await rebuilt.round())
                theirs.append(await asyncio.to_thread(library.round))
    report(ours, theirs)


def report(ours: list[float], theirs: list[float]) -> None:
    rate, beside = statistics.median(ours), statistics.median(theirs)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"{f'medians of {ROUNDS} rounds':<32}{'events/s':>10}")
    print(f"{'rebuild of the runs, swapped':<32}{rate:>10,.0f}")
    print(f"{'library, ProjectionRunner':<32}{beside:>10,.0f}")
    print(f"  {ratio:.1f} x the library (reach: ≥ 20 x)")
    table.row(
        "rebuild of the read model of runs, to the swap",
        f"{rate:,.0f} events/s",
        f"{ratio:.0f} × the library's `ProjectionRunner` ({beside:,.0f}/s)",
        "≥ 20 ×",
        met=ratio >= 20,
    )


async def run(state_dir: Path, events: int) -> None:
    services = EmbeddedServices(state_dir, want_nats=False)
    await services.start()
    try:
        await migrate(services.database_url)
        await measure(services.database_url, events)
    finally:
        await services.stop()


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
        Path(folder).chmod(0o711)  # a server that root starts runs under another account, which must reach the folder
        asyncio.run(run(Path(folder) / "state", int(sys.argv[1]) if len(sys.argv) > 1 else 200_000))


if __name__ == "__main__":
    main()
