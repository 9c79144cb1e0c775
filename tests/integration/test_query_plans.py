"""The hot queries use the intended indexes. The tests make the code's own calls and check the plans that Postgres used.

The server's `auto_explain` reports the plan of each statement of the session, also inside the append function. So no statement is
repeated here. Each call is made twice: planned with known values, and planned without values. Postgres may change to a plan without
values when a statement is repeated on one connection.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from adapters.embedded import EmbeddedServices
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.listener import ChannelListener
from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.ids import PostgresLogIndex
from adapters.postgres.log.snapshots import PostgresSnapshots
from adapters.postgres.read_models.open_work import PostgresOpenWork
from adapters.postgres.read_models.timers import PostgresTimers
from adapters.postgres.worker_sessions import PostgresWorkerSessions
from application.engine.ports.log import CommandRecord, NewEvent, StreamAppend, StreamPlace, one_command
from application.engine.ports.snapshots import SnapshotPlace
from application.reads import AuditWanted, InvocationsWanted, RunsWanted
from domain.errors import InvalidCommand
from projections import activity, agents, audit, invocations, messages, projects, runs, tenants
from projections.engine.positions import Positions
from projections.run_terms import term
from projections.runs import queries
from projections.runs.queries import FIRST_PARTS_OF_RUN, NEWEST_CALLS_OF_RUN, PARTS_OF_STEP
from projections.runs.rows import FIND_CALLS, FIND_PARTS, FIND_PARTS_BY_NUMBER, FIND_RUNS, FIND_STEPS, FIND_STEPS_OF
from projections.runs.starters import starters
from tests.integration.plans_kit import explained

ROWS = 20_000
GROWING = frozenset({
    "event", "command", "run", "run_step", "run_call", "run_part", "run_term", "invocation", "message", "timer", "api_key",
    "parked_event", "agent", "project", "activity", "snapshot", "audit_entry",
})  # fmt: skip
"""Tables that grow: no hot query may read all of one, or sort more of it than the rows of a page."""
PAGE_ROWS = 500
START = datetime(2026, 1, 1, tzinfo=UTC)


def uuid(kind: int, number: int) -> UUID:
    """Ascending ids of one kind, in the form of the SQL below."""
    return UUID(f"{kind:08x}-0000-7000-8000-{number:012x}")


def id_sql(kind: int, number: str) -> str:
    return f"('{kind:08x}-0000-7000-8000-' || lpad(to_hex({number}), 12, '0'))::uuid"


TENANT, STREAM, ROOT, COMMAND, ROW = 1, 2, 3, 4, 5
BIG, SMALL = uuid(TENANT, 1), uuid(TENANT, 7)
ROOT_OF_SMALL = uuid(ROOT, 49)

# One tenant has every second row, nineteen share the rest: a value that is rare for a tenant is not rare in the table.
TENANT_OF = id_sql(TENANT, "CASE WHEN n % 2 = 0 THEN 1 ELSE 2 + n / 2 % 19 END")
TENANT_OF_ROOT = TENANT_OF.replace("n ", "(n / 100) ")
FILL = f"""
INSERT INTO event (notification_id, originator_version, recorded_at, originator_id, tenant_id, root_id, topic, metadata, state)
SELECT n, 1 + n % 10, '{START}'::timestamptz + n * interval '1 second', {id_sql(STREAM, "n / 10")}, {TENANT_OF_ROOT},
       {id_sql(ROOT, "n / 100")}, 'topic' || n % 5, '{{}}', '{{}}' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO command SELECT {TENANT_OF}, {id_sql(COMMAND, "n")}, n, now(), 1 FROM generate_series(1, {ROWS}) AS n;
UPDATE log_head SET position = {ROWS}, recorded_at = '{START}'::timestamptz + interval '{ROWS} seconds';
INSERT INTO run (
    run_id, tenant_id, project_id, status, position, created_at, degraded, agents, priority, start_position, event_count,
    finished_at
)
SELECT {id_sql(ROW, "n")}, {TENANT_OF}, {id_sql(ROW, "n % 50")}, CASE WHEN n % 400 < 2 THEN 'failed' ELSE 'completed' END,
       n + 5, '{START}'::timestamptz + n * interval '1 second', n % 400 = 2, 'a', 'normal', n, 1,
       '{START}'::timestamptz + (n + 2) * interval '1 second'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO run_term SELECT n, now() + n * interval '1 second', {id_sql(ROW, "n")} FROM generate_series(1, {ROWS}) AS n;
INSERT INTO run_term SELECT {term(BIG, "agent", "alpha")}, created_at, run_id FROM run WHERE tenant_id = '{BIG}';
INSERT INTO run_term SELECT {term(BIG, "error", "refused")}, created_at, run_id FROM run
WHERE tenant_id = '{BIG}' AND status = 'failed';
INSERT INTO run_term SELECT {term(BIG, "metadata", "c-1", "customer")}, created_at, run_id FROM run
WHERE tenant_id = '{BIG}' AND position % 40 = 1;
INSERT INTO run_step (run_id, agent_run_id, tenant_id, attempt, recorded_steps, call_count, status, step)
SELECT {id_sql(ROOT, "n / 100")}, {id_sql(STREAM, "n")}, {TENANT_OF_ROOT}, 1, 0, 0, 'completed', 's' || n
FROM generate_series(1, {ROWS}) AS n;
UPDATE run_step SET form = '{{}}' WHERE run_id = {id_sql(ROOT, "7")};
INSERT INTO run_part (
    run_id, step, number, tenant_id, execution_id, is_run, status, attempt, fallback, scheduled_at, scheduled_position
)
SELECT {id_sql(ROOT, "n / 1000")}, 's' || n / 100, n % 100, {TENANT_OF_ROOT.replace("100", "1000")}, {id_sql(STREAM, "n")}, false,
       'running', 1, 0, now(), n
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO run_call (
    run_id, invocation_id, tenant_id, agent_run_id, position, started_at, attempts, cancel_requested, status, key, tool
)
SELECT {id_sql(ROOT, "n / 1000")}, {id_sql(ROW, "n")}, {TENANT_OF_ROOT.replace("100", "1000")}, {id_sql(STREAM, "n")}, n, now(), 1,
       false, 'succeeded', 'k', 't'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO invocation SELECT {TENANT_OF}, {id_sql(ROW, "n")}, {id_sql(ROOT, "n / 100")}, {id_sql(STREAM, "n")}, 'k', 't',
       CASE WHEN n % 400 < 2 THEN 'ambiguous' ELSE 'succeeded' END, now(), 1, false
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO message SELECT {id_sql(ROW, "n")}, {TENANT_OF}, {id_sql(ROOT, "n / 100")}, 'a', 'b', '1', n, now()
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO timer SELECT {id_sql(ROW, "n")}, {TENANT_OF}, {id_sql(ROOT, "n")}, {id_sql(STREAM, "n")},
       now() + (n - 100) * interval '1 minute', 'ResumeAgentRun', '{{}}', {id_sql(ROOT, "n")}, 'x', now() - n * interval '1 minute'
FROM generate_series(1, 2000) AS n;
INSERT INTO open_work SELECT {id_sql(ROW, "n")}, {TENANT_OF}, {id_sql(ROOT, "n")}, 'agent', 'a', 1, now() - interval '1 hour'
FROM generate_series(1, 2000) AS n;
INSERT INTO open_work SELECT {id_sql(ROW, "n")}, {TENANT_OF}, {id_sql(ROOT, "n")}, 'agent', 'a', 1, now(), {id_sql(ROW, "n / 4")}, 1
FROM generate_series(2001, 4000) AS n;
INSERT INTO worker_session SELECT {id_sql(ROW, "n")}, {TENANT_OF}, 'w', 'a', {id_sql(ROW, "n")}, '1', 'x', {id_sql(ROW, "n % 3")},
       now(), now() FROM generate_series(500, 1000) AS n;
INSERT INTO worker_offer SELECT {id_sql(ROW, "n")}, '{{a}}', '{{1}}', '{{}}', '{{}}' FROM generate_series(500, 1000) AS n;
INSERT INTO activity SELECT {id_sql(ROW, "n")}, {TENANT_OF}, 'agent', 'a' || n % 50, now(),
       CASE WHEN n % 3 = 0 THEN 'running' ELSE 'waiting' END, now() - n * interval '1 second'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO activity_total SELECT 'agent', 'a' || n, 1, 0, 0, 0, 0, 0, 0, 400, 1, 0, 0, 0, '{{}}' FROM generate_series(0, 49) AS n;
INSERT INTO parked_event SELECT CASE WHEN n % 5 = 0 THEN 'runs' ELSE 'timers' END, n, {id_sql(ROOT, "n")}, {TENANT_OF}, 'x', ''
FROM generate_series(1, 2000) AS n;
INSERT INTO api_key SELECT {id_sql(ROW, "n")}, {TENANT_OF}, 'sha' || n, 'x', now() FROM generate_series(1, 2000) AS n;
INSERT INTO agent SELECT {id_sql(ROW, "n")}, {TENANT_OF}, 'agent' || n, '1', 1, '', '{{}}', '{{}}', '{{}}', now()
FROM generate_series(1, 2000) AS n;
INSERT INTO project SELECT {id_sql(ROW, "n")}, {TENANT_OF}, 'p', '{{}}', now() FROM generate_series(1, 2000) AS n;
INSERT INTO snapshot (stream_id, version, position, tenant_id, slice, model, state)
SELECT {id_sql(STREAM, "n / 10")}, 1 + n % 10, n, {TENANT_OF_ROOT}, 'x', 'y', '{{}}' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO audit_entry
SELECT {TENANT_OF}, n, {id_sql(ROW, "n")}, now(), 'action', 'key:' || n % 50, CASE WHEN n % 40 = 0 THEN 'p' || n % 7 END,
       'action' || n % 4, NULL, 'run', 't' || n / 4, NULL, NULL, CASE WHEN n % 400 < 2 THEN 'refused' ELSE 'done' END, NULL, 1,
       NULL, NULL, false FROM generate_series(1, {ROWS}) AS n;
INSERT INTO checkpoint (name, position) SELECT name, 1 FROM unnest('{{runs,timers,messages}}'::text[]) AS name;
"""


@dataclass
class Hot:
    """The code under test on one connection, and the plans of its statements."""

    connection: AsyncConnection[Any]
    database: PostgresDatabase
    feed: PostgresEventFeed
    index: PostgresLogIndex
    store: PostgresEventStore
    timers: PostgresTimers
    work: PostgresOpenWork
    sessions: PostgresWorkerSessions
    snapshots: PostgresSnapshots
    plans: list[dict[str, Any]] = field(default_factory=list)


@pytest_asyncio.fixture
async def hot(services: EmbeddedServices, database_url: str) -> AsyncIterator[Hot]:
    url = make_conninfo(services.admin_database_url, dbname=str(conninfo_to_dict(database_url)["dbname"]))
    async with await AsyncConnection.connect(url, autocommit=True) as filling:
        await filling.execute(FILL.encode())
        await filling.execute("VACUUM ANALYZE")
    async with explained(services, database_url) as found:
        connection, pool, database = found.connection, found.pool, PostgresDatabase(found.pool)
        yield Hot(
            connection,
            database,
            PostgresEventFeed(pool),
            PostgresLogIndex(pool),
            PostgresEventStore(url, pool),
            PostgresTimers(database, ChannelListener(url, "unused")),
            PostgresOpenWork(database),
            PostgresWorkerSessions(database),
            PostgresSnapshots(pool),
            found.plans,
        )


def tenant_feed(**filters: Any) -> Callable[[Hot], Awaitable[object]]:
    """A page of the newer half for a tenant with few events."""
    given: dict[str, Any] = {"tenant_id": SMALL, "after": ROWS // 2, "limit": 100} | filters
    return lambda hot: hot.feed.read_tenant(**given)


def list_runs(**filters: Any) -> Callable[[Hot], Awaitable[object]]:
    """A page of the older half of the runs of the tenant with most runs."""
    given: dict[str, Any] = {"tenant_id": BIG, "limit": 50, "before": uuid(ROW, ROWS // 2)} | filters
    tenant_id = given.pop("tenant_id")
    return lambda hot: runs.list_runs(hot.connection, tenant_id, RunsWanted(**given))


def list_runs_as_of(**filters: Any) -> Callable[[Hot], Awaitable[object]]:
    """A page of the runs of the tenant with most runs, as of the middle of the log."""
    return lambda hot: runs.list_runs_as_of(hot.connection, BIG, ROWS // 2, RunsWanted(50, **filters))


def list_calls(**filters: Any) -> Callable[[Hot], Awaitable[object]]:
    """A page of the older half of the calls of the tenant with most calls."""
    given: dict[str, Any] = {
        "tenant_id": BIG,
        "limit": 50,
        "before": uuid(ROW, ROWS // 2),
        "status": None,
        "run_id": None,
    } | filters
    tenant_id = given.pop("tenant_id")
    return lambda hot: invocations.list_invocations(hot.connection, tenant_id, InvocationsWanted(**given))


def list_calls_as_of(**filters: Any) -> Callable[[Hot], Awaitable[object]]:
    """A page of the older half of the calls of the tenant with most calls, as of the middle of the log."""
    wanted = InvocationsWanted(50, uuid(ROW, ROWS // 2), **filters)
    return lambda hot: invocations.list_invocations_as_of(hot.connection, BIG, ROWS // 2, wanted)


def list_entries(**filters: Any) -> Callable[[Hot], Awaitable[object]]:
    """A page of the older half of the entries of the tenant with most entries."""
    wanted = AuditWanted(50, ROWS // 2, **filters)
    return lambda hot: audit.list_entries(hot.connection, BIG, wanted, ROWS)


async def append(hot: Hot) -> None:
    """Appends to two existing streams and a new one, in one call of the append function."""
    streams = [StreamAppend(uuid(STREAM, n), uuid(ROOT, 0), version, (NewEvent("x", 1, b"{}"),)) for n, version in APPENDED]
    batch = [
        EncodedAppend.of(one_command(tenant, stream.stream_id, (stream,), "{}"))
        for tenant, stream in zip(OWNERS, streams, strict=True)
    ]
    async with hot.connection.transaction(force_rollback=True):
        rows = await (await hot.connection.execute(APPEND_SQL, parameters(batch))).fetchall()
        assert [row[1] for row in rows] == ["accepted"], rows


APPENDED = ((40, 10), (60, 10), (ROWS, 0))
OWNERS = (BIG, BIG, SMALL)

TWO_PROJECTS = (uuid(ROW, 8), uuid(ROW, 9))

HOT_QUERIES: dict[str, tuple[Callable[[Hot], Awaitable[object]], str]] = {
    "the log from a position": (lambda hot: hot.feed.read(after=ROWS // 2, limit=256), "event_pkey"),
    "a tenant's feed": (tenant_feed(), "event_tenant_idx"),
    "a tenant's feed, some types": (tenant_feed(topics=["topic1", "topic2"]), "event_tenant_idx"),
    "a tenant's feed, nothing new": (tenant_feed(tenant_id=uuid(TENANT, 99)), "event_tenant_idx"),
    "a tenant's feed, newest first": (tenant_feed(after=0, newest_first=True), "event_tenant_idx"),
    "a run's events": (tenant_feed(root_id=ROOT_OF_SMALL, after=0), "event_root_idx"),
    "a run's events, some types": (tenant_feed(root_id=ROOT_OF_SMALL, after=0, topics=["topic1"]), "event_root_idx"),
    "the events of several runs": (
        lambda hot: hot.feed.read_roots([(SMALL, ROOT_OF_SMALL, 0), (BIG, uuid(ROOT, 50), 20)], limit=250), "event_root_idx"
    ),
    "the position of a time": (
        lambda hot: hot.feed.position_at(SMALL, START + timedelta(hours=2)), "event_tenant_idx"
    ),
    "a stream": (lambda hot: hot.store.read_stream(SMALL, uuid(STREAM, 495), after_version=4), "event_stream_key"),
    "several streams": (
        lambda hot: hot.store.read_streams([StreamPlace(SMALL, uuid(STREAM, 495), 4), StreamPlace(BIG, uuid(STREAM, 40))]),
        "event_stream_key",
    ),
    "several streams and their snapshots": (
        lambda hot: hot.snapshots.read_streams(
            [SnapshotPlace(SMALL, uuid(STREAM, 495), "x", "y"), SnapshotPlace(BIG, uuid(STREAM, 40), "x", "y")]
        ),
        "event_stream_key snapshot_pkey event_pkey",
    ),
    "a command's answer": (lambda hot: hot.store.find_command(SMALL, uuid(COMMAND, 11)), "command_pkey"),
    "the events of an append": (
        lambda hot: hot.store.read_append(SMALL, CommandRecord(ROWS // 2, 3, START)), "event_pkey"
    ),
    "streams by the beginning of their ids": (
        lambda hot: hot.index.streams(SMALL, uuid(STREAM, 400), uuid(STREAM, 900), limit=100), "event_stream_key"
    ),
    "the events of a command": (lambda hot: hot.index.of_command(SMALL, uuid(COMMAND, 11)), "command_pkey"),
    "an event by its place": (lambda hot: hot.index.of_event(SMALL, uuid(STREAM, 495), 4), "event_stream_key"),
    "append: version of a stream that must exist": (append, "event_stream_key"),
    "a run": (lambda hot: runs.get_run(hot.connection, SMALL, uuid(ROOT, 1)), "run_pkey run_step_pkey"),
    "the newest calls of a run": (
        lambda hot: hot.connection.execute(NEWEST_CALLS_OF_RUN, [uuid(ROOT, 4), BIG, 50]), "run_call_position"
    ),
    "all calls of a run": (
        lambda hot: queries.read_calls(hot.connection, BIG, uuid(ROW, 2), limit=50, after=0),
        "run_pkey run_call_position run_step_pkey event_pkey",
    ),
    "the first parts of a run": (
        lambda hot: hot.connection.execute(FIRST_PARTS_OF_RUN, {"run": uuid(ROOT, 7), "tenant": BIG, "limit": 20}),
        "run_step_pkey run_part_pkey",
    ),
    "the parts of a step": (
        lambda hot: hot.connection.execute(
            PARTS_OF_STEP, {"run": uuid(ROOT, 7), "tenant": BIG, "step": "s70", "after": 50, "limit": 20}
        ),
        "run_part_pkey",
    ),
    "the rows of parts that events change": (
        lambda hot: hot.connection.execute(FIND_PARTS, [[uuid(ROOT, 7)], [uuid(STREAM, 7_005)]]), "run_part_execution"
    ),
    "the rows of parts that events name": (
        lambda hot: hot.connection.execute(FIND_PARTS_BY_NUMBER, [[uuid(ROOT, 7)], ["s70"], [5]]), "run_part_pkey"
    ),
    "the events that a run names": (lambda hot: queries.read_events(hot.connection, []), "event_pkey"),
    "the rows of runs that events change": (lambda hot: hot.connection.execute(FIND_RUNS, [[uuid(ROW, 7)]]), "run_pkey"),
    "the rows of steps that events change": (
        lambda hot: hot.connection.execute(FIND_STEPS, [[ROOT_OF_SMALL], [uuid(STREAM, 4_905)]]), "run_step_pkey"
    ),
    "the rows of steps of runs that end": (
        lambda hot: hot.connection.execute(FIND_STEPS_OF, [[ROOT_OF_SMALL, uuid(ROOT, 5)]]), "run_step_pkey"
    ),
    "the rows of calls that events change": (
        lambda hot: hot.connection.execute(FIND_CALLS, [[uuid(ROOT, 4)], [uuid(ROW, 4_500)]]), "run_call_pkey"
    ),
    "who started the runs of a list": (
        lambda hot: starters(hot.connection, BIG, [uuid(STREAM, n) for n in range(100)]), "event_stream_key"
    ),
    "runs": (list_runs(tenant_id=SMALL, before=uuid(ROW, ROWS // 2 + 5)), "run_pkey run_tenant_time"),
    "runs, the first page": (list_runs(tenant_id=SMALL, before=None), "run_tenant_time"),
    "runs of a status": (list_runs(status="failed"), "run_pkey run_status_time"),
    "runs of a project": (list_runs(project_id=uuid(ROW, 8)), "run_pkey run_project_time"),
    "runs of a project and a status": (list_runs(project_id=uuid(ROW, 8), status="failed"), "run_pkey run_project_status_time"),
    "degraded runs": (list_runs(status="degraded"), "run_pkey run_degraded_time"),
    "degraded runs of a project": (
        list_runs(project_id=uuid(ROW, 8), status="degraded"), "run_pkey run_project_degraded_time"
    ),
    "runs of the projects of a key": (list_runs(before=None, within=TWO_PROJECTS), "run_project_time"),
    "runs of the projects of a key and a status": (
        list_runs(before=None, within=TWO_PROJECTS, status="failed"), "run_project_status_time"
    ),
    "runs of an agent, of the projects of a key": (
        list_runs(before=None, within=TWO_PROJECTS, agent="alpha"), "run_project_time run_term_pkey"
    ),
    "runs of the projects of a key as of a position": (
        list_runs_as_of(within=TWO_PROJECTS), "event_pkey run_project_time"
    ),
    "runs as of a position": (list_runs_as_of(), "event_pkey run_tenant_time event_root_idx event_stream_key"),
    "runs of a status as of a position": (list_runs_as_of(status="failed"), "event_pkey run_status_time"),
    "runs under way as of a position": (
        list_runs_as_of(status="running"), "event_pkey run_tenant_time event_root_idx event_stream_key"
    ),
    "runs of a project as of a position": (
        list_runs_as_of(project_id=uuid(ROW, 8)), "event_pkey run_project_time"
    ),
    "runs of a project and a status as of a position": (
        list_runs_as_of(project_id=uuid(ROW, 8), status="completed"), "event_pkey run_project_status_time"
    ),
    "degraded runs as of a position": (list_runs_as_of(status="degraded"), "event_pkey run_degraded_time"),
    "runs of an agent": (list_runs(agent="alpha"), "run_pkey run_term_pkey"),
    "runs of an agent, the first page": (list_runs(agent="alpha", before=None), "run_pkey run_term_pkey"),
    "runs of no agent": (list_runs(agent="nobody", before=None), "run_pkey run_term_pkey"),
    "runs of an agent within times": (
        list_runs(agent="alpha", started_after=START, started_before=START + timedelta(hours=2)), "run_pkey run_term_pkey"
    ),
    "runs of an agent and a status": (list_runs(agent="alpha", status="failed"), "run_pkey run_term_pkey run_status_time"),
    "runs with words in their errors, of a customer": (
        list_runs(agent="alpha", error="refused", metadata=[("customer", "c-1")]), "run_pkey run_term_pkey"
    ),
    "runs of a customer as of a position": (
        list_runs_as_of(metadata=[("customer", "c-1")]), "event_pkey run_pkey run_term_pkey event_root_idx event_stream_key"
    ),
    "runs within times": (list_runs(started_after=START, started_before=START + timedelta(hours=2)), "run_pkey run_tenant_time"),
    "calls": (list_calls(tenant_id=SMALL), "invocation_pkey"),
    "calls, the first page": (list_calls(tenant_id=SMALL, before=None), "invocation_pkey event_stream_key"),
    "calls of the projects of a key": (list_calls(within=TWO_PROJECTS), "invocation_pkey run_pkey"),
    "calls of the projects of a key, of a status": (
        list_calls(within=TWO_PROJECTS, status="ambiguous"), "invocation_status run_pkey"
    ),
    "calls of the projects of a key as of a position": (
        list_calls_as_of(within=TWO_PROJECTS), "event_pkey invocation_pkey event_stream_key run_pkey"
    ),
    "calls that wait for a person": (list_calls(status="ambiguous"), "invocation_status event_stream_key"),
    "calls of a run": (list_calls(run_id=uuid(ROOT, 50)), "invocation_run"),
    "calls of a run, of a status": (list_calls(run_id=uuid(ROOT, 50), status="ambiguous"), "invocation_run"),
    "calls as of a position": (list_calls_as_of(), "event_pkey invocation_pkey event_stream_key"),
    "calls of a status as of a position": (
        list_calls_as_of(status="failed"), "event_pkey invocation_status event_stream_key"
    ),
    "calls that waited for a person": (
        list_calls_as_of(status="ambiguous"), "event_pkey invocation_pkey event_stream_key"
    ),
    "calls of a run as of a position": (
        list_calls_as_of(run_id=uuid(ROOT, 50)), "event_pkey invocation_run event_stream_key"
    ),
    "messages of a run": (
        lambda hot: messages.list_messages(hot.connection, SMALL, uuid(ROOT, 5), limit=100, after=505), "message_run"
    ),
    "agents": (lambda hot: agents.list_agents(hot.connection, SMALL, limit=20, after="agent1", capability=None), "agent_tenant"),
    "the audit trail": (list_entries(), "audit_entry_pkey"),
    "the audit trail of a tenant with few entries": (
        lambda hot: audit.list_entries(hot.connection, SMALL, AuditWanted(50), ROWS), "audit_entry_pkey"
    ),
    "the audit trail of an actor": (list_entries(actor="key:2"), "audit_entry_actor"),
    "the audit trail of an action": (list_entries(action="action2"), "audit_entry_action"),
    "the audit trail of a target": (list_entries(target="t10"), "audit_entry_target"),
    "the audit trail of a person": (list_entries(on_behalf_of="p2"), "audit_entry_on_behalf_of"),
    "the audit trail of refusals": (list_entries(result="refused"), "audit_entry_result"),
    "the audit trail with filters that never meet": (list_entries(actor="key:2", action="action1"), "audit_entry_actor"),
    "projects": (lambda hot: projects.list_projects(hot.connection, SMALL, limit=20, after=uuid(ROW, 9)), "project_tenant"),
    "API keys": (lambda hot: tenants.find_keys(hot.connection, ["sha77", "nobody's"]), "api_key_sha256_key"),
    "a page of keys": (lambda hot: tenants.list_keys(hot.connection, SMALL, limit=20, before=uuid(ROW, 9)), "api_key_tenant"),
    "a key": (lambda hot: tenants.get_key(hot.connection, SMALL, uuid(ROW, 9)), "api_key_tenant"),
    "timers that are due": (lambda hot: hot.timers.due(100), "timer_fires timer_set event_pkey"),
    "the next timer": (lambda hot: hot.timers.seconds_until_next(), "timer_fires timer_set event_pkey"),
    "timers given": (lambda hot: hot.timers.delete([uuid(ROW, 1), uuid(ROW, 2)]), "timer_pkey"),
    "open work": (lambda hot: hot.work.older_than(10, after=uuid(ROW, 300), limit=100), "open_work_pkey"),
    "the work of a session": (lambda hot: hot.sessions.held_by([uuid(ROW, 700)]), "open_work_session"),
    "the sessions of a process": (lambda hot: hot.sessions.seen([uuid(ROW, 700), uuid(ROW, 800)]), "worker_session_pkey"),
    "the sessions of a tenant": (lambda hot: hot.sessions.of_tenant(SMALL), "open_work_session"),
    "a worker that comes back": (
        lambda hot: hot.sessions.resume(SMALL, uuid(ROW, 700), "s", uuid(ROW, 1)), "worker_session_pkey"
    ),
    "the work that goes on": (lambda hot: activity.ActivityQueries(hot.database).now(), "activity_state"),
    "the rows of a batch": (lambda hot: hot.connection.execute(activity.FIND, [[uuid(ROW, 1), uuid(ROW, 2)]]), "activity_pkey"),
    "parked roots": (lambda hot: hot.connection.execute(PARKED, [["runs"]]), "parked_event_root"),
    "a checkpoint": (lambda hot: Positions(hot.database).until("runs", 1, 1.0), ""),
}  # fmt: skip
"""Name: the call, and the indexes of its plans. No index: the table is small for ever and has one page."""

PARKED = "SELECT DISTINCT consumer, root_id FROM parked_event WHERE consumer = ANY (%s)"


GENERIC, CUSTOM = "force_generic_plan", "force_custom_plan"
OF_READER = {
    "the sessions of a tenant": "open_work_session worker_session_pkey",
    "calls, the first page": "invocation_pkey",
}
"""Indexes of calls whose plans row-level security changes: an offer is looked up with its session, and the reader sees
no calls of another tenant, whose arguments it could look at."""
NOT_FOR_READS = {
    "API keys", "a worker that comes back", "append: version of a stream that must exist", "parked roots",
    "several streams and their snapshots", "open work", "the next timer", "the rows of runs that events change",
    "the sessions of a process", "the work that goes on", "timers given", "timers that are due",
}  # fmt: skip
"""What no read of a request does."""
NOT_YET: dict[tuple[str, str], str] = {}
"""Calls with known bad plans, and the reasons. A call whose plan was improved must be removed here: the test fails otherwise."""


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def objections(steps: list[dict[str, Any]], indexes: str) -> list[str]:
    """Whole tables read, large sorts, other indexes than these."""
    used = {step["Index Name"] for step in steps if "Index Name" in step}
    found = [
        f"reads all of {step['Relation Name']}"
        for step in steps
        if step["Node Type"] == "Seq Scan" and step["Relation Name"] in GROWING
    ]
    for step in steps:
        rows = max((child["Plan Rows"] for child in nodes(step) if child.get("Relation Name") in GROWING), default=0)
        if step["Node Type"].endswith("Sort") and rows > PAGE_ROWS:
            found.append(f"sorts {rows} rows by {step['Sort Key']}")
    if used & MEANT != set(indexes.split()):
        found.append(f"uses {used}, not {indexes}")
    return found


@pytest.mark.parametrize("role", ["tidelog_app", "tidelog_reader"])
async def test_hot_queries_use_their_indexes(hot: Hot, role: str) -> None:
    """Also those that row-level security adds a condition to."""
    wrong: dict[tuple[str, str], list[str]] = {}
    await hot.connection.execute(f"SET ROLE {role}")
    for mode in (CUSTOM, GENERIC):
        await hot.connection.execute(f"SET plan_cache_mode = {mode}")
        for name, (call, indexes) in HOT_QUERIES.items():
            if role == "tidelog_reader" and name in NOT_FOR_READS:
                continue
            await _for_its_tenant(hot, call)
            assert hot.plans, f"{name}: no statement was run"
            steps = [step for plan in hot.plans for step in nodes(plan)]
            if found := objections(steps, OF_READER.get(name, indexes) if role == "tidelog_reader" else indexes):
                wrong[mode, name] = found
    assert wrong.keys() == NOT_YET.keys(), "\n".join(f"{key}: {found}" for key, found in wrong.items())


async def _for_its_tenant(hot: Hot, call: Callable[[Hot], Awaitable[object]]) -> None:
    for tenant in (BIG, SMALL):
        await hot.connection.execute(f"SET tidelog.tenant = '{tenant}'")
        hot.plans.clear()
        with suppress(InvalidCommand):  # a cursor that is another tenant's
            await call(hot)
            return
    raise AssertionError("the call is about neither tenant")


MEANT = frozenset(index for _, indexes in HOT_QUERIES.values() for index in indexes.split())
"""The plans may use other indexes as well: indexes of small tables and of foreign rows."""
