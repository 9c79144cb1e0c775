"""How fast a process that has just started claims an agent run with a long journal, and how much memory the claim needs.

`python -m benchmarks.cold_claim [--entries 10000] [--rounds 3]`. The journal has finished calls or steps. The first claim is made
without a snapshot, so all events are read; the second one in another process, with the snapshot that the first process has left.
Both have the garbage collector's settings of a role process.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

import uvloop

from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.snapshots import PostgresSnapshots
from adapters.postgres.pool import open_pool
from api.roles import collect_rarely
from application.catalog import CATALOG
from application.engine.background import end
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller
from application.engine.commands.snapshots import LINGER_S, Snapshotter
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.workers.claims import Claims
from application.workers.journal import Journals
from benchmarks import table
from benchmarks.machine import rss_mb
from benchmarks.servers import embedded, quiet
from benchmarks.writers import METADATA, new_id
from domain import agent_runs, invocations, runs
from domain.failures import Failure, Retry
from domain.kernel import Event
from domain.registry import REGISTRY

TENANT = UUID("01900000-0000-7000-8000-000000000001")
ENTRIES, TOGETHER, ROUNDS, EVERY = 10_000, 100, 3, 200
REACH_MS, REACH_MB = 300.0, 20.0
TEXT = "x" * 200
Streams = dict[UUID, list[Event]]


def encoded(event: Event) -> NewEvent:
    return NewEvent(event.TOPIC, event.stored_version, REGISTRY.encode(event))


def history(kind: str, entries: int, run_id: UUID, work_id: UUID) -> Iterator[Streams]:
    """The events of an agent run that waits for its second attempt, in appends."""
    plan = runs.sequential(("alpha",))
    scheduled = runs.StepScheduled(step="alpha", agent="alpha", agent_version="1", agent_run_id=work_id)
    requested = agent_runs.AgentRunRequested(run_id=run_id, step="alpha", agent="alpha", agent_version="1")
    claimed = agent_runs.AgentRunClaimed(attempt=1, worker_id="w", dispatch=1)
    yield {run_id: [runs.RunStarted(project_id=TENANT, plan=plan), scheduled], work_id: [requested, claimed]}
    for first in range(0, entries, TOGETHER):
        streams: Streams = {work_id: []}
        for number in range(first, min(first + TOGETHER, entries)):
            if kind == "steps":
                streams[work_id].append(agent_runs.StepRecorded(attempt=1, key=f"k{number}", kind="step", result=TEXT))
            else:
                call(streams, run_id, work_id, f"k{number}")
        yield streams
    retry = agent_runs.AgentRunRetryScheduled(attempt=1, error=Failure(type="T", message="m"), delay_s=0, dispatch=2)
    yield {work_id: [retry, agent_runs.AgentRunResumed(run_id=run_id, agent="alpha", dispatch=2)]}


def call(streams: Streams, run_id: UUID, work_id: UUID, key: str) -> None:
    id_ = agent_runs.invocation_id_of(work_id, key)
    streams[work_id] += [
        agent_runs.CallStarted(attempt=1, key=key, tool="t", invocation_id=id_),
        agent_runs.CallFinished(key=key, invocation_id=id_, succeeded=True),
    ]
    streams[id_] = [
        invocations.InvocationRequested(
            run_id=run_id, agent_run_id=work_id, key=key, tool="t", arguments={"text": TEXT}, idempotent=True, timeout_s=60,
            retry=Retry(),
        ),
        invocations.AttemptStarted(attempt=1, worker_id="w", dispatch=1),
        invocations.InvocationSucceeded(agent_run_id=work_id, key=key, attempt=1, result=TEXT),
    ]  # fmt: skip


async def fill(url: str, kind: str, entries: int) -> UUID:
    """Returns the id of the agent run."""
    run_id = new_id()
    work_id, versions = runs.agent_run_id_of(run_id, "alpha"), dict[UUID, int]()
    pool = await open_pool(url, role="benchmark", max_size=1)
    store = PostgresEventStore(url, pool)
    await store.start()
    try:
        for streams in history(kind, entries, run_id, work_id):
            appends = []
            for stream_id, events in streams.items():
                version = versions.get(stream_id, 0)
                appends.append(StreamAppend(stream_id, run_id, version, tuple(map(encoded, events))))
                versions[stream_id] = version + len(events)
            await store.append(one_command(TENANT, new_id(), tuple(appends), METADATA))
    finally:
        await store.close()
        await pool.close()
    return work_id


async def claim(url: str, work_id: UUID, dispatch: int) -> None:
    """Claims in a process of its own, and prints the figures."""
    pool = await open_pool(url, role="benchmark", max_size=4)
    store = PostgresEventStore(url, pool)
    await store.start()
    snapshotter = Snapshotter(PostgresSnapshots(pool), REGISTRY, every=EVERY, linger_s=LINGER_S)
    commands = CommandLoop(store, CATALOG, snapshots=snapshotter)
    snapshots = asyncio.create_task(snapshotter.run(), name="snapshots")
    try:
        await commands.load(agent_runs.DECIDER, TENANT, uuid4())  # connections and statements are there
        collect_rarely()
        before, began, cpu = rss_mb(os.getpid()), time.perf_counter(), time.process_time()
        command = agent_runs.ClaimAgentRun(agent_run_id=work_id, worker_id=f"w{dispatch}", dispatch=dispatch)
        journals = Journals(commands)
        given, _ = await Claims(commands, journals).claim(Caller(TENANT, "key:benchmark"), command, str(uuid4()))
        took, grown, cpu = time.perf_counter() - began, rss_mb(os.getpid()) - before, time.process_time() - cpu
        page, entries, pages = given.journal, len(given.journal.entries), 1
        while page.more:
            page = await journals.page(TENANT, work_id, after_version=page.version)
            entries, pages = entries + len(page.entries), pages + 1
        whole = time.perf_counter() - began
        figures = {"ms": took * 1e3, "cpu_ms": cpu * 1e3, "mb": grown, "whole_ms": whole * 1e3}
        print(json.dumps(figures | {"entries": entries, "pages": pages}))
        await asyncio.sleep(LINGER_S + 1.0)  # the snapshot is stored
    finally:
        await end(snapshots)
        await store.close()
        await pool.close()


def in_a_process(url: str, work_id: UUID, dispatch: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.cold_claim", "--claim", url, str(work_id), str(dispatch)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


async def measure(url: str, kind: str, entries: int, rounds: int) -> None:
    figures: dict[str, list[dict[str, float]]] = {"without a snapshot": [], "with a snapshot": []}
    for _ in range(rounds):
        work_id = await fill(url, kind, entries)
        for name, dispatch in zip(figures, (2, 2), strict=True):
            figures[name].append(await asyncio.to_thread(in_a_process, url, work_id, dispatch))
    for name, found in figures.items():
        report(kind, entries, name, found)


def report(kind: str, entries: int, name: str, found: Sequence[dict[str, float]]) -> None:
    ms, cpu, mb, whole = (statistics.median(one[key] for one in found) for key in ("ms", "cpu_ms", "mb", "whole_ms"))
    assert all(one["entries"] == entries for one in found)
    print(
        f"{entries:,} {kind}, {name}: claimed in {ms:.0f} ms ({cpu:.0f} of the processor), {mb:+.1f} MB; "
        f"all {found[0]['pages']} pages after {whole:,.0f} ms"
    )
    met = ms <= REACH_MS and mb <= REACH_MB
    told = f"{ms:.0f} ms, {mb:.0f} MB"
    reach = f"≤ {REACH_MS:.0f} ms, ≤ {REACH_MB:.0f} MB"
    table.row(f"cold claim of an agent run with {entries:,} {kind}, {name}", told, f"all pages {whole:,.0f} ms", reach, met=met)


async def main(entries: int, rounds: int) -> None:
    async with embedded() as services:
        for kind in ("steps", "calls"):
            await measure(services.database_url, kind, entries, rounds)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--claim", nargs=3, metavar=("URL", "WORK", "DISPATCH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.claim is None:
        uvloop.run(main(given.entries, given.rounds))
    else:
        uvloop.run(claim(given.claim[0], UUID(given.claim[1]), int(given.claim[2])))
