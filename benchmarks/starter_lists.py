"""Lists of a million schedules, triggers, and runs by what started them: the first page, a later page and each filter, over HTTP.

`python -m benchmarks.starter_lists [--rows 1000000] [--reads 200]`. The rows of the read models are written by SQL, and are those
that events would leave; nine tenths are of one tenant, in twenty projects. A million runs are of 2,000 schedules, 500 triggers,
1,000 workflows, and steps of 10,000 runs. Of each filter there is a value of many rows, one of few, and one of none.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Mapping
from uuid import UUID

import httpx2
import psycopg
import uvloop

from adapters.embedded import EmbeddedServices
from application.engine.ports.pages import encode_cursor
from benchmarks import table
from benchmarks.http import KEY
from benchmarks.run_lists import OTHER_TENANT, REACH_MS, issue_key, serving
from benchmarks.run_load import quantile
from benchmarks.servers import embedded, quiet
from domain.kernel import derive_id
from domain.tenants import DEFAULT_TENANT_ID
from projections.run_terms import Kind, term

PROJECTS = 20
SCHEDULES_OF_RUNS, TRIGGERS_OF_RUNS, WORKFLOWS_OF_RUNS, PARENTS = 2_000, 500, 1_000, 10_000
NOBODY = derive_id(DEFAULT_TENANT_ID, "nobody")

TENANT = "CASE WHEN n % 10 = 0 THEN %(other)s::uuid ELSE %(tenant)s::uuid END"
PROJECT = "(%(projects)s::uuid[])[1 + n % 20]"
OUTCOME = '{"what":"fired","due_at":"2026-01-01T00:00:00Z","at":"2026-01-01T00:00:00Z"}'
SCHEDULES = f"""
INSERT INTO schedule (schedule_id, tenant_id, name, project_id, status, next_at, jitter_s, version, definition, document, made_in)
SELECT gen_random_uuid(), {TENANT}, 'schedule-' || lpad(n::text, 8, '0'), {PROJECT},
       CASE WHEN n % 1000 = 7 THEN 'paused' WHEN n % 3 = 1 THEN 'finished' ELSE 'active' END, now(), 0, 3,
       '{{"when":{{"cron":"30 2 * * *"}},"start":{{"agent":"a"}}}}',
       '{{"created_by":"key:k","fired":3,"recent":[{OUTCOME}]}}', CASE WHEN n % 2 = 0 THEN gen_random_uuid() END
FROM generate_series(1, %(rows)s) AS n
"""
TRIGGERS = f"""
INSERT INTO trigger (tenant_id, name, trigger_id, project_id, status, first, since, version, fired, misfired, limited, created_at,
                     changed_at, document, bounds)
SELECT {TENANT}, 'trigger-' || lpad(n::text, 8, '0'), gen_random_uuid(), {PROJECT},
       CASE WHEN n % 1000 = 7 THEN 'paused' ELSE 'active' END, n, n, 1, n, 0, 0, now(), now(), %(document)s,
       CASE WHEN n % 2 = 0 THEN ARRAY[{PROJECT}] END
FROM generate_series(1, %(rows)s) AS n
"""
RUNS = f"""
INSERT INTO run (run_id, tenant_id, project_id, status, position, created_at, agents, priority, event_count, actor, workflow,
                 origin, parent_id)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, {TENANT}, {PROJECT},
       CASE WHEN n % 50 = 3 THEN 'failed' ELSE 'completed' END, n, '2026-01-01'::timestamptz + n * interval '1 second', 'a',
       'normal', 6, 'schedule:s', 'w-' || n % 1000 || '@1',
       CASE WHEN n % 2 = 0 THEN 'schedule:s-' || n % 2000 ELSE 'trigger:t-' || n % 500 END,
       ('00000000-0000-7000-9000-' || lpad(to_hex(n % 10000), 12, '0'))::uuid
FROM generate_series(1, %(rows)s) AS n
"""
TERMS = """
INSERT INTO run_term (term, created_at, run_id)
SELECT (%(terms)s::bigint[])[1 + n %% %(count)s], '2026-01-01'::timestamptz + n * interval '1 second',
       ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid
FROM generate_series(1, %(rows)s) AS n WHERE n %% %(step)s = %(rest)s AND n %% 10 <> 0
ON CONFLICT DO NOTHING
"""


def projects() -> list[UUID]:
    return [derive_id(DEFAULT_TENANT_ID, f"benchmark:{number}") for number in range(PROJECTS)]


def terms(kind: Kind, name: str, count: int) -> list[int]:
    return [term(DEFAULT_TENANT_ID, kind, name.format(number)) for number in range(count)]


def parent(number: int) -> str:
    return f"00000000-0000-7000-9000-{number:012x}"


def fill(database_url: str, rows: int) -> None:
    began = time.perf_counter()
    given = {"rows": rows, "other": OTHER_TENANT, "tenant": DEFAULT_TENANT_ID, "projects": projects()}
    document = '{"definition":{"on":{"topics":["run.completed"]},"start":{"agent":"a"},"project_id":"%s"}}' % projects()[0]  # noqa: UP031
    with psycopg.Connection.connect(database_url, autocommit=True) as connection:
        for sql in (SCHEDULES, TRIGGERS, RUNS):
            connection.execute(sql.replace("% ", "%% ").encode(), {**given, "document": document})
        for found, step, rest in (
            (terms("origin", "schedule:s-{}", SCHEDULES_OF_RUNS), 2, 0),
            ([term(DEFAULT_TENANT_ID, "origin", "schedule")], 2, 0),
            (terms("origin", "trigger:t-{}", TRIGGERS_OF_RUNS), 2, 1),
            ([term(DEFAULT_TENANT_ID, "origin", "trigger")], 2, 1),
            (terms("workflow", "w-{}", WORKFLOWS_OF_RUNS), 1, 0),
            (terms("workflow", "w-{}@1", WORKFLOWS_OF_RUNS), 1, 0),
            ([term(DEFAULT_TENANT_ID, "parent", parent(number)) for number in range(PARENTS)], 1, 0),
        ):
            connection.execute(
                TERMS.encode(), {"rows": rows, "terms": found, "count": len(found), "each": 1, "step": step, "rest": rest}
            )
        connection.execute("VACUUM ANALYZE schedule, trigger, run, run_term")
    print(f"{rows:,} rows of each in {time.perf_counter() - began:.0f} s", flush=True)


def pages(rows: int) -> dict[str, tuple[str, dict[str, str]]]:
    """What is asked, by its name in the table."""
    some, middle = str(projects()[3]), f"{rows // 2:08}"
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for kind in ("schedule", "trigger"):
        path = f"/v1/{kind}s"
        later = encode_cursor(f"{kind}-{middle}")
        for name, query in {
            "": {}, "paused": {"status": "paused"}, "active": {"status": "active"},
            **({"a project": {"project_id": some}, "a project, paused": {"project_id": some, "status": "paused"},
                "a project, finished": {"project_id": some, "status": "finished"},
                "no project": {"project_id": str(NOBODY)}} if kind == "schedule" else {}),
        }.items():  # fmt: skip
            found[f"{kind}s {name}".strip()] = (path, query)
            found[f"{kind}s {name}, later".replace(" ,", ",")] = (path, {**query, "cursor": later})
    runs: dict[str, dict[str, str]] = {
        "of all schedules": {"origin": "schedule"}, "of a schedule": {"origin": "schedule:s-4"},
        "of a schedule without any": {"origin": "schedule:none"}, "of a trigger": {"origin": "trigger:t-3"},
        "of a workflow": {"workflow": "w-7"}, "of a version": {"workflow": "w-7@1"}, "of no workflow": {"workflow": "none"},
        "of a parent": {"parent": parent(77)}, "of no parent": {"parent": str(NOBODY)},
        "of all schedules, failed": {"origin": "schedule", "status": "failed"},
        "of a workflow, a schedule": {"workflow": "w-4", "origin": "schedule:s-4"},
        "of a workflow, all triggers": {"workflow": "w-7", "origin": "trigger"},
        "of all schedules, a project": {"origin": "schedule", "project_id": some},
        "of a parent, failed": {"parent": parent(77), "status": "failed"},
    }  # fmt: skip
    found |= {f"runs {name}": ("/v1/runs", query) for name, query in runs.items()}
    return found


def measure(url: str, rows: int, reads: int) -> None:
    waits: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False) as client:
        asked = pages(rows)
        for name, (path, query) in list(asked.items()):
            if path == "/v1/runs" and (cursor := got(client, path, query).get("next_cursor")) is not None:
                asked[f"{name}, later"] = (path, {**query, "cursor": cursor})
        for number in range(reads + 3):
            for name, (path, query) in asked.items():
                began = time.perf_counter()
                counts[name] = len(got(client, path, query)["data"])
                if number >= 3:
                    waits.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
    report(waits, counts)


def got(client: httpx2.Client, path: str, query: Mapping[str, str]) -> dict[str, object]:
    answer = client.get(path, params={"limit": 50, **query})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def report(waits: Mapping[str, list[float]], counts: Mapping[str, int]) -> None:
    print(f"\n{'page of 50, over HTTP':<44}{'rows':>6}{'p50, ms':>10}{'p99, ms':>10}")
    slowest = {kind: ("", 0.0, 0.0) for kind in ("schedules", "triggers", "runs")}
    for name, took in waits.items():
        took.sort()
        p50, p99 = statistics.median(took), quantile(took, 0.99)
        kind = name.split()[0].rstrip(",")
        slowest[kind] = max(slowest[kind], (name, p50, p99), key=lambda one: one[2])
        print(f"{name:<44}{counts[name]:>6}{p50:>10.1f}{p99:>10.1f}")
    for kind, (name, p50, p99) in slowest.items():
        title = {"runs": "runs by what started them, the slowest page"}.get(kind, f"the list of {kind}, the slowest page")
        table.row(title, f"p50 {p50:.1f} ms, p99 {p99:.1f} ms", name, f"≤ {REACH_MS:g} ms", met=p99 <= REACH_MS)


def serve(services: EmbeddedServices, rows: int, reads: int) -> None:
    with serving(services, "api") as url:
        measure(url, rows, reads)


async def main(rows: int, reads: int) -> None:
    async with embedded() as services:
        await asyncio.to_thread(issue_key, services)
        await asyncio.to_thread(fill, services.database_url, rows)
        await asyncio.to_thread(serve, services, rows, reads)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--reads", type=int, default=200)
    given = parser.parse_args()
    print(f"{given.rows:,} rows, load {os.getloadavg()[0]:.1f}")
    uvloop.run(main(given.rows, given.reads))
