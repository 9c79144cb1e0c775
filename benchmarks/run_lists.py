"""The list of runs with a million runs: the first page, without and with each filter, now and as of a position, over HTTP. The same
of the audit trail with as many entries, and of events by time and by who asked for them.

`python -m benchmarks.run_lists [--runs 1000000] [--reads 200]`; 1,000,000 runs take some 15 minutes and 8 GB. The made-up history
is appended with the function that writers use, and the rows of the runs are made of it by a rebuild of the read model. One tenant
has nine tenths of the runs, in twenty projects. The last project has no failed, cancelled or degraded run, so that a page of these
is a search without a find. The first runs have an agent, a customer and an actor of their own: values of long ago. A page with the
even runs of an odd agent finds none among all that it looks at.
"""

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
import psycopg
import uvloop

from adapters.embedded import EmbeddedServices
from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.arrays import register_arrays
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from benchmarks import table
from benchmarks.http import KEY, wait_for
from benchmarks.rebuild import builder
from benchmarks.run_load import quantile
from benchmarks.servers import SERVE, embedded, environment, free_port, process, quiet
from benchmarks.writers import METADATA, new_id
from domain import agent_runs, runs
from domain.audit import ActionRecorded
from domain.failures import Failure
from domain.kernel import Event
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from projections.audit import PROJECTION as AUDIT
from projections.run_terms import PROJECTION as RUN_TERMS
from projections.runs import PROJECTION as RUNS
from projections.tenants import PROJECTION as TENANTS

OTHER_TENANT = new_id()
PROJECTS = [new_id() for _ in range(20)]
AGENTS = [f"agent-{number}" for number in range(10)]
RUNNING = 2_000
"""Runs that are under way, at any time."""
IN_ONE_CALL = 100
"""Runs in one call of the append function."""
REACH_MS = 20.0
LEFT_OUT = Failure(type="KeyError", message="'ticket'")
OF_LONG_AGO = 30
"""Runs at the beginning that have what no later run has."""


class Run:
    """A run of six events: three at its start, three at its end. Of a hundred runs two are degraded, one failed, one cancelled."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._run_id, self._agent = new_id(), AGENTS[number % len(AGENTS)] if number >= OF_LONG_AGO else "agent-of-old"
        self._error = Failure(type="ConnectError", message=f"connection refused by host {number % 7} after {number} ms")
        self._agent_run_id = runs.agent_run_id_of(self._run_id, self._agent)
        self._project = number % len(PROJECTS)

    def start(self) -> AppendRequest:
        started = runs.RunStarted(
            project_id=PROJECTS[self._project], plan=runs.sequential((self._agent,)), input={"question": "x" * 100},
            metadata={
                "customer": f"c{self._number % 1_000}" if self._number >= OF_LONG_AGO else "c-of-old",
                "ticket": f"T-{self._number}",
                "parity": "odd" if self._number % 2 else "even",
            },
        )  # fmt: skip
        scheduled = runs.StepScheduled(step=self._agent, agent=self._agent, agent_version="1", agent_run_id=self._agent_run_id)
        requested = agent_runs.AgentRunRequested(run_id=self._run_id, step=self._agent, agent=self._agent, agent_version="1")
        return self._append((0, [started, scheduled]), (0, [requested]))

    def end(self) -> AppendRequest:
        kind = 0 if self._project == len(PROJECTS) - 1 else self._number // len(PROJECTS) % 100
        claimed = agent_runs.AgentRunClaimed(attempt=1, worker_id="w", dispatch=1)
        return self._append((2, list(self._last_events(kind))), (1, [claimed]))

    def _last_events(self, kind: int) -> Iterator[Event]:
        step, agent_run_id = self._agent, self._agent_run_id
        match kind:
            case 1 | 2:
                yield runs.StepFailed(step=step, agent_run_id=agent_run_id, error=LEFT_OUT, tolerated=True)
                yield runs.RunCompleted(degraded=True, missing=(step,))
            case 3:
                yield runs.StepFailed(step=step, agent_run_id=agent_run_id, error=self._error, tolerated=False)
                yield runs.RunFailed(step=step, error=self._error)
            case 4:
                yield runs.RunCancelled(reason=None)
            case _:
                yield runs.StepCompleted(step=step, agent_run_id=agent_run_id, result={"text": "y" * 50})
                yield runs.RunCompleted()

    def _append(self, of_run: tuple[int, list[Event]], of_agent_run: tuple[int, list[Event]]) -> AppendRequest:
        """`of_run`, `of_agent_run`: the version of the stream, and its next events."""
        streams = tuple(
            StreamAppend(stream_id, self._run_id, version, tuple(map(encoded, events)))
            for stream_id, (version, events) in ((self._run_id, of_run), (self._agent_run_id, of_agent_run))
        )
        return one_command(OTHER_TENANT if self._number % 10 == 0 else DEFAULT_TENANT_ID, new_id(), streams, self._asked())

    def _asked(self) -> str:
        who = {"actor": "key:old" if self._number < OF_LONG_AGO else f"key:{self._number % 3}"}
        return json.dumps(json.loads(METADATA) | who | {"on_behalf_of": f"person-{self._number % 5_000}"})


def entry(number: int) -> AppendRequest:
    """An entry of the audit trail. The first ones are of an operator and about a thing that no later one has."""
    old = number < OF_LONG_AGO
    recorded = ActionRecorded(
        action="runs.cancel" if number % 4 else "keys.issue", actor="key:old" if old else f"key:{number % 3}",
        on_behalf_of=f"person-{number % 5_000}" if number % 2 else None, target_kind="run",
        target_id="thing-of-old" if old else f"thing-{number // 3}", reason="x" * 50, address="192.0.2.7",
        result="refused" if number % 100 == 7 else "done", code="not-found" if number % 100 == 7 else None,
    )  # fmt: skip
    stream = StreamAppend(new_id(), DEFAULT_TENANT_ID, 0, (encoded(recorded),))
    return one_command(DEFAULT_TENANT_ID, new_id(), (stream,), METADATA)


def encoded(event: Event) -> NewEvent:
    return NewEvent(event.TOPIC, event.VERSION, REGISTRY.encode(event))


def fill(database_url: str, count: int) -> None:
    """Runs begin some hundred at a time, and end when the next ones have begun. The last ones do not end."""
    began, open_ = time.perf_counter(), deque[Run]()
    with psycopg.Connection.connect(database_url, autocommit=True) as connection:
        register_arrays(connection)
        for first in range(0, count, IN_ONE_CALL):
            begun = [Run(number) for number in range(first, min(first + IN_ONE_CALL, count))]
            append(connection, [run.start() for run in begun])
            append(connection, [open_.popleft().end() for _ in range(max(0, len(open_) - RUNNING + len(begun)))])
            open_ += begun
            append(connection, [entry(number) for number in range(first, min(first + IN_ONE_CALL, count))])
        connection.execute("ANALYZE event")
    print(f"{count:,} runs and as many entries appended in {time.perf_counter() - began:.0f} s", flush=True)


def append(connection: psycopg.Connection, requests: Sequence[AppendRequest]) -> None:
    """With many requests in one call, as the group commit does under load."""
    if requests:
        encoded = [EncodedAppend.of(request) for request in requests]
        answer = connection.execute(APPEND_SQL, parameters(encoded), prepare=True).fetchone()
        assert answer is not None and answer[0] == 0, "all are accepted"


async def make_rows(database_url: str) -> None:
    async with builder(database_url, RUNS, RUN_TERMS, TENANTS, AUDIT) as rebuilt:
        rates = [await rebuilt.round(RUNS), await rebuilt.round(RUN_TERMS)]
        await rebuilt.round(AUDIT)
        await rebuilt.round(TENANTS)  # the keys: the api waits for them
    print(f"rows of the read models of runs made of the log, {rates[0]:,.0f} and {rates[1]:,.0f} events/s", flush=True)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("VACUUM ANALYZE run, run_term, audit_entry")  # as autovacuum does
        sizes = "SELECT pg_total_relation_size('run'), pg_total_relation_size('run_term'), (SELECT count(*) FROM run_term)"
        found = await (await connection.execute(sizes)).fetchone()
        assert found is not None
        print(f"run {found[0] / 1e6:,.0f} MB, run_term {found[1] / 1e6:,.0f} MB, {found[2]:,} entries", flush=True)


@dataclass
class Page:
    name: str
    query: dict[str, str]


def pages(head: int, middle: str) -> list[Page]:
    """All filters, alone and together. Half of the log is before the position of `as_of`, and before the time `middle`."""
    statuses = ("running", "completed", "failed", "cancelled", "degraded")
    some, without = str(PROJECTS[3]), str(PROJECTS[-1])
    then = str(head // 2)
    return [
        Page("no filter", {}),
        *(Page(status, {"status": status}) for status in statuses),
        Page("a project", {"project_id": some}),
        *(Page(f"a project, {status}", {"project_id": some, "status": status}) for status in statuses),
        *(Page(f"a project without any, {status}", {"project_id": without, "status": status}) for status in statuses[2:]),
        Page("as of then", {"as_of": then}),
        *(Page(f"as of then, {status}", {"as_of": then, "status": status}) for status in statuses),
        Page("as of then, a project", {"as_of": then, "project_id": some}),
        *searches(some, without, then, middle),
    ]


def searches(some: str, without: str, then: str, middle: str) -> list[Page]:
    agent, customer, ticket = {"agent": AGENTS[3]}, {"metadata": "customer=c3"}, {"metadata": "ticket=T-4241"}
    even, old = {"metadata": "parity=even"}, {"agent": "agent-of-old"}
    return [
        Page("started before the middle", {"started_before": middle}),
        Page("an agent", agent),
        Page("an agent, before the middle", {**agent, "started_before": middle}),
        Page("an agent of long ago", old),
        Page("an agent that no run has", {"agent": "nobody"}),
        Page("an actor", {"actor": "key:1"}),
        Page("an actor of long ago", {"actor": "key:old"}),
        Page("an actor without runs", {"actor": "key:none"}),
        Page("on behalf of a person", {"on_behalf_of": "person-77"}),
        Page("on behalf of nobody known", {"on_behalf_of": "nobody"}),
        Page("a customer", customer),
        Page("a customer of long ago", {"metadata": "customer=c-of-old"}),
        Page("a ticket", ticket),
        Page("a ticket that is not there", {"metadata": "ticket=none"}),
        Page("words of an error", {"error": "connection refused"}),
        Page("words of an error, one rare", {"error": "connection refused 4061"}),
        Page("words of no error", {"error": "connection teapot"}),
        Page("an agent, failed", {**agent, "status": "failed"}),
        Page("an agent, running", {**agent, "status": "running"}),
        Page("an agent, a project, cancelled", {**agent, "project_id": some, "status": "cancelled"}),
        Page("an agent, a project without any, failed", {**agent, "project_id": without, "status": "failed"}),
        Page("an agent of long ago, running", {**old, "status": "running"}),
        Page("an agent, words of an error", {**agent, "error": "host 3 refused"}),
        Page("an agent, an actor, a customer", {**agent, "actor": "key:1", **customer}),
        Page("even runs of an odd agent", {**agent, **even}),
        Page("even runs of an odd agent and an actor", {**agent, **even, "actor": "key:1"}),
        Page("as of then, an agent", {**agent, "as_of": then}),
        Page("as of then, an agent, running", {**agent, "as_of": then, "status": "running"}),
        Page("as of then, an agent of long ago", {**old, "as_of": then}),
        Page("as of then, even runs of an odd agent", {**agent, **even, "as_of": then}),
    ]


def events_by_time(middle: str) -> list[Page]:
    return [
        Page("events since the middle", {"recorded_after": middle}),
        Page("events before the middle", {"recorded_before": middle}),
        Page("events since the middle, starts of runs", {"recorded_after": middle, "types": "run.started"}),
        Page("events of no time", {"recorded_before": "2000-01-01T00:00:00Z"}),
    ]


def events_of_somebody() -> list[Page]:
    return [
        Page("events of an actor", {"actor": "key:1"}),
        Page("events of an actor without any", {"actor": "key:none"}),
        Page("events on behalf of a person", {"on_behalf_of": "person-4077"}),
        Page("events of an actor, on behalf, of a type", {"actor": "key:1", "on_behalf_of": "person-4077", "types": "run.failed"}),
    ]


def audits(middle: str) -> list[Page]:
    actor, action, result = {"actor": "key:1"}, {"action": "keys.issue"}, {"result": "refused"}
    return [
        Page("audit", {}),
        Page("audit, an actor", actor),
        Page("audit, an actor of long ago", {"actor": "key:old"}),
        Page("audit, an actor without entries", {"actor": "key:none"}),
        Page("audit, an action", action),
        Page("audit, a thing", {"target": "thing-4241"}),
        Page("audit, a thing of long ago", {"target": "thing-of-old"}),
        Page("audit, a thing that is not there", {"target": "none"}),
        Page("audit, on behalf of a person", {"on_behalf_of": "person-77"}),
        Page("audit, refused", result),
        Page("audit, before the middle", {"before": middle}),
        Page("audit, since the middle", {"after": middle}),
        Page("audit, an actor and an action", {**actor, **action}),
        Page("audit, an actor, refused, before the middle", {**actor, **result, "before": middle}),
        Page("audit, all filters", {**actor, **action, **result, "on_behalf_of": "person-77", "target": "thing-4241"}),
    ]


def measure(url: str, head: int, reads: int) -> None:
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False) as client:
        answer = client.get("/v1/events", params={"as_of": head // 2, "after": head // 2 - 100, "limit": 1})
        middle = answer.raise_for_status().json()["data"][0]["time"]
        asked = [("/v1/runs", page) for page in pages(head, middle)]
        asked += [("/v1/events", page) for page in (*events_by_time(middle), *events_of_somebody())]
        asked += [("/v1/audit", page) for page in audits(middle)]
        waits: dict[str, list[float]] = {page.name: [] for _, page in asked}
        found: dict[str, int] = {}
        for number in range(reads + 3):
            for path, page in asked:
                began = time.perf_counter()
                answer = client.get(path, params={"limit": 50, **page.query})
                took = time.perf_counter() - began
                answer.raise_for_status()
                found[page.name] = len(answer.json()["data"])
                if number >= 3:
                    waits[page.name].append(took * 1e3)
        cursor = client.get("/v1/runs", params={"limit": 1000}).json()["next_cursor"]
        assert cursor is not None
    report(waits, found)


TITLES = {
    "now": "the list of runs, the slowest filter",
    "as of": "the list of runs, the slowest filter as of the middle of the log",
    "events": "events within times, and of somebody",
    "audit": "the audit trail, the slowest filter",
}


def report(waits: dict[str, list[float]], found: dict[str, int]) -> None:
    print(f"\n{'first page of 50, over HTTP':<40}{'runs':>6}{'p50, ms':>10}{'p99, ms':>10}")
    slowest = {kind: ("", 0.0, 0.0) for kind in TITLES}
    for name, took in waits.items():
        took.sort()
        p50, p99 = statistics.median(took), quantile(took, 0.99)
        kind = next((kind for kind in ("as of", "events", "audit") if name.startswith(kind)), "now")
        slowest[kind] = max(slowest[kind], (name, p50, p99), key=lambda one: one[2])
        print(f"{name:<40}{found[name]:>6}{p50:>10.1f}{p99:>10.1f}")
    for kind, (name, p50, p99) in slowest.items():
        reach = f"≤ {REACH_MS:g} ms" if kind != "as of" else ""
        title = "first page of " + TITLES[kind]
        table.row(title, f"p50 {p50:.1f} ms, p99 {p99:.1f} ms", name, reach, met=p99 <= REACH_MS if reach else None)


@contextmanager
def serving(services: EmbeddedServices, roles: str) -> Iterator[str]:
    """Yields the address of a server of the roles, which is ready."""
    port, key_sha256 = free_port(), hashlib.sha256(KEY.encode()).hexdigest()
    more = {"TIDELOG_PORT": str(port), "TIDELOG_BOOTSTRAP_KEY_SHA256": key_sha256}
    with process(SERVE, roles, env=environment(services, **more)):
        wait_for(f"http://127.0.0.1:{port}/health/ready", 120)
        yield f"http://127.0.0.1:{port}"


def issue_key(services: EmbeddedServices) -> None:
    with serving(services, "api,relay,projector"):
        pass


def serve(services: EmbeddedServices, head: int, reads: int) -> None:
    with serving(services, "api") as url:
        measure(url, head, reads)


async def main(count: int, reads: int) -> None:
    async with embedded() as services:
        await asyncio.to_thread(issue_key, services)
        await asyncio.to_thread(fill, services.database_url, count)
        await make_rows(services.database_url)
        async with await psycopg.AsyncConnection.connect(services.database_url) as connection:
            found = await (await connection.execute("SELECT position FROM log_head")).fetchone()
        assert found is not None
        await asyncio.to_thread(serve, services, int(found[0]), reads)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--reads", type=int, default=200)
    given = parser.parse_args()
    print(f"{given.runs:,} runs, load {os.getloadavg()[0]:.1f}")
    uvloop.run(main(given.runs, given.reads))
