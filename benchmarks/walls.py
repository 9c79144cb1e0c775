"""What the database roles cost: reads with and without row-level security, and an append through a function with rights of its own.

In pairs, a round of each in turn; medians of the ratios. `make bench ARGS=walls`, about a minute.
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg
import uvloop

from adapters.embedded import EmbeddedServices
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.arrays import register_arrays
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.pool import Connection, connect, open_pool
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.reads import RunsWanted
from benchmarks import table
from benchmarks.servers import embedded, make_wal, quiet
from benchmarks.writers import METADATA, new_id
from domain.tenants import DEFAULT_TENANT_ID
from projections.runs import RunQueries

OTHER = UUID(int=7)
ROWS = 20_000
ROUNDS, TIMES = 15, 200
REACH_READ, REACH_APPEND = 1.15, 1.05
FILL = f"""
INSERT INTO run (
    run_id, tenant_id, project_id, status, position, created_at, degraded, agents, priority, start_position, event_count
)
SELECT ('00000005-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
    CASE WHEN n % 2 = 0 THEN '{DEFAULT_TENANT_ID}' ELSE '{OTHER}' END::uuid,
    '{OTHER}', 'running', n, now() + n * interval '1 second', false, 'a', 'normal', n, 1 FROM generate_series(1, {ROWS}) AS n;
INSERT INTO event (
    notification_id, originator_version, recorded_at, originator_id, tenant_id, root_id, topic, metadata, state
)
SELECT start_position, 1, now(), run_id, tenant_id, run_id, 'thing.happened', '{{}}', '{{"n":1}}' FROM run;
UPDATE log_head SET position = {ROWS};
"""
# The append as it would be without roles: the caller's rights, and no search_path of its own.
PLAIN = """
DO $$ BEGIN EXECUTE replace(pg_get_functiondef('append_events_v3'::regproc), 'append_events_v3', 'append_plain'); END $$;
ALTER FUNCTION append_plain SECURITY INVOKER;
ALTER FUNCTION append_plain RESET ALL;
"""

Call = Callable[[], Awaitable[Any]]


async def seconds(call: Call) -> float:
    began = time.perf_counter()
    for _ in range(TIMES):
        await call()
    return (time.perf_counter() - began) / TIMES


async def ratios(base: Call, *others: Call) -> tuple[float, list[float]]:
    """Microseconds of the base, and the median ratio of each of the others."""
    found: list[list[float]] = []
    order = [base, *others]
    for call in order:
        await seconds(call)
    for number in range(ROUNDS):
        took = {}
        for place in range(len(order)):
            call = order[(place + number) % len(order)]  # nobody is always after the same one
            took[call] = await seconds(call)
        found.append([took[call] for call in order])
    of_base = statistics.median(row[0] for row in found)
    return of_base * 1e6, [statistics.median(row[place] / row[0] for row in found) for place in range(1, len(order))]


async def reads(services: EmbeddedServices) -> None:
    app = await open_pool(services.database_url, role="benchmark", max_size=1)
    reader = await open_pool(services.database_url, role="benchmark", rights="reader", max_size=1)
    try:
        of_app, of_reader = PostgresDatabase(app), PostgresDatabase(reader)
        turns = 0

        def pairs(read: Callable[[Any, UUID], Awaitable[Any]], base: Any, walled: Any) -> tuple[Call, Call, Call]:
            async def of_two() -> None:
                nonlocal turns
                turns += 1
                await read(walled, OTHER if turns % 2 else DEFAULT_TENANT_ID)

            return lambda: read(base, DEFAULT_TENANT_ID), lambda: read(walled, DEFAULT_TENANT_ID), of_two

        async def page(runs: RunQueries, tenant_id: UUID) -> None:
            assert len((await runs.list(tenant_id, RunsWanted(50))).value.data) == 50

        async def events(feed: PostgresEventFeed, tenant_id: UUID) -> None:
            assert len(await feed.read_tenant(tenant_id, after=ROWS // 2, limit=100)) == 100

        async def one(feed: PostgresEventFeed, tenant_id: UUID) -> None:
            await feed.read_tenant(tenant_id, after=0, limit=10, root_id=OTHER)

        calls = {
            "a list of 50 runs": pairs(page, RunQueries(of_app), RunQueries(of_reader)),
            "a page of 100 events": pairs(events, PostgresEventFeed(app), PostgresEventFeed(reader)),
            "a look for the events of one run": pairs(one, PostgresEventFeed(app), PostgresEventFeed(reader)),
        }
        for name, (base, *others) in calls.items():
            micros, (same, changing) = await ratios(base, *others)
            what, beside = f"{name} with row-level security", f"{micros:.0f} µs without"
            table.row(
                what, f"{same:.2f} ×; {changing:.2f} × with another tenant each time", beside, "≤ 1.15 ×", met=same <= REACH_READ
            )
    finally:
        await app.close()
        await reader.close()


async def appends(services: EmbeddedServices) -> None:
    async def appending(connection: Connection, statement: str) -> Call:
        register_arrays(connection)
        await connection.execute("SET plan_cache_mode = force_generic_plan")

        async def append() -> None:
            stream = new_id()
            appended = StreamAppend(stream, stream, 0, (NewEvent("thing.happened", 1, b'{"n":1}'),) * 4)
            batch = [EncodedAppend.of(one_command(DEFAULT_TENANT_ID, new_id(), (appended,), METADATA))]
            await connection.execute(statement.encode(), parameters(batch), prepare=True)

        return append

    options = {"synchronous_commit": "off"}  # the disk would hide the difference
    async with (
        await connect(services.database_url, role="benchmark", options=options) as by_role,
        await connect(services.database_url, role="benchmark", rights="login", options=options) as by_login,
    ):
        base = await appending(by_login, APPEND_SQL.replace("append_events_v3", "append_plain"))
        micros, [ratio] = await ratios(base, await appending(by_role, APPEND_SQL))
    what, beside = "an append of four events by the roles", f"{micros:.0f} µs without them, both without the disk"
    table.row(what, f"{ratio:.3f} ×", beside, "≤ 1.05 ×", met=ratio <= REACH_APPEND)


async def main() -> None:
    quiet()
    async with embedded() as services:
        async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as admin:
            await admin.execute(FILL.encode())
            await admin.execute("VACUUM ANALYZE")
        async with await psycopg.AsyncConnection.connect(services.database_url, autocommit=True) as owner:
            await owner.execute(PLAIN.encode())
        await make_wal(services)
        await reads(services)
        await appends(services)


if __name__ == "__main__":
    uvloop.run(main())
