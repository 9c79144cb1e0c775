"""Rows are the fold of the log, whatever clients and workers do, and wherever the projector dies."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import structlog

from adapters.postgres.pool import connect, translate_errors
from domain.tenants import DEFAULT_TENANT_ID
from projections import runs
from projections.engine.runner import ProjectionRunner
from projections.kernel import Connection
from projections.registry import PROJECTIONS
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, eventually, issue_key, running, stopped

log = structlog.get_logger(__name__)


CLAIMED = ("agent_run.claimed", "invocation.attempt_started")
OVER = {f"{kind}.{end}" for kind in ("agent_run", "invocation") for end in ("completed", "succeeded", "failed", "cancelled")}


async def act(system: System, workers: list[PlayedWorker], random_: random.Random, runs_known: list[str]) -> None:
    """Does one random action of a client or a worker, sensible or not."""
    if not runs_known or random_.random() < 0.08:
        plans: list[dict[str, Any]] = [
            {"kind": "sequential", "agents": ["alpha", "beta"]},
            {"kind": "parallel", "agents": ["alpha", "beta"], "aggregator": "gamma"},
            {"kind": "graph", "steps": [{"key": "x", "agent": "alpha", "retry": {"max_attempts": 3, "initial_s": 0.01}}]},
        ]
        runs_known.append(await system.start(plan=random_.choice(plans)))
    run_id = random_.choice(runs_known[-4:])
    if random_.random() < 0.02:
        await system.http.post(f"/v1/runs/{run_id}/cancel")
        return
    events = await system.events(run_id)
    requested = [e for e in events if e.topic in ("agent_run.requested", "invocation.requested")]
    if not requested:
        return
    over = {e.stream_id for e in events if e.topic in OVER}
    if random_.random() < 0.7:  # what is over would be nearly all in the end, and nothing happens to it
        requested = [e for e in requested if e.stream_id not in over] or requested
    calls = [e for e in requested if e.topic == "invocation.requested"]  # half of the time: agents end their calls soon
    work = random_.choice(calls if calls and random_.random() < 0.5 else requested)
    worker = random_.choice(workers)
    newest = sum(e.stream_id == work.stream_id and e.topic in CLAIMED for e in events)
    kind, dispatch, attempt = work.topic.partition(".")[0], random_.choice([1, 1, 1, 2]), newest - (random_.random() < 0.1)
    key, error = random_.choice("abcde"), {"type": "T", "message": "m", "kind": random_.choice(["permanent", "transient"])}
    acts: list[tuple[str, dict[str, Any]]]
    if kind == "invocation":
        acts = [
            ("claim", {}), ("claim", {}), ("lose", {}), ("complete", {"result": {"n": random_.random()}}),
            ("fail", {"error": error}), ("resolve", {"result": "by hand", "reason": "seen"}),
        ]  # fmt: skip
    else:
        call = ("call", {"key": "c" + key, "tool": random_.choice(["add", "mail"]), "arguments": {}})
        acts = [
            ("claim", {}), ("claim", {}), ("lose", {}), ("record", {"key": "s" + key, "result": random_.random()}), call, call,
            ("send", {"key": "m" + key, "to": random_.choice(["alpha", "beta", "x"]), "body": 1}),
            ("set", {"key": "v" + key, "name": "n", "value": random_.random()}),
            ("complete", {"result": random_.random()}), ("fail", {"error": error}),
        ]  # fmt: skip
    verb, body = random_.choice(acts)
    work_id, of = str(work.stream_id), "tool" if kind == "invocation" else "agent"
    if verb == "resolve":
        response = await system.http.post(f"/v1/invocations/{work_id}/resolve", json=body)
        assert response.status_code in (200, 404, 409, 422), response.text
    elif verb == "claim":
        await worker.try_claim(work_id, of, dispatch)
    elif attempt > 0:
        claim = await worker.as_if_held(of, work_id, run_id, attempt)
        if verb == "lose":
            await claim.lose()
        else:
            assert (await claim.post(verb, **body)).status_code in (200, 403, 404, 409, 422)


async def one_of_each(system: System, worker: PlayedWorker, ends: str) -> str:
    """A run of one agent with a message, an entry, a call that succeeds, and this end: what chance need not lead to."""
    run_id = await system.start(plan={"kind": "sequential", "agents": ["alpha"]})
    [requested] = [event for event in await system.events(run_id) if event.topic == "agent_run.requested"]
    claim = await worker.claim(str(requested.stream_id))
    for verb, body in (
        ("send", {"key": "m", "to": "alpha", "body": 1}),
        ("record", {"key": "s", "result": 1}),
        ("call", {"key": "c", "tool": "add", "arguments": {}}),
    ):
        assert (await claim.post(verb, **body)).status_code == 200
    [called] = [event for event in await system.events(run_id) if event.topic == "invocation.requested"]
    call = await worker.claim(str(called.stream_id), "tool")
    assert (await call.post("complete", result={"n": 1})).status_code == 200
    end = {"result": 1} if ends == "complete" else {"error": {"type": "T", "message": "m", "kind": "permanent"}}
    assert (await claim.post(ends, **end)).status_code == 200
    return run_id


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_rows_are_the_replay_of_the_log_whatever_workers_do(system: System, worker: PlayedWorker, seed: int) -> None:
    random_, started = random.Random(seed), list[str]()
    workers = [worker, system.worker("worker-2")]
    for _ in range(80):
        await asyncio.gather(*(act(system, workers, random_, started) for _ in range(4)))
    started += [await one_of_each(system, worker, ends) for ends in ("complete", "fail")]
    await eventually(lambda: _without_timers(system), "the end of all retries")
    for run_id in started:
        await assert_exact(system, run_id)
    assert await system.sql("SELECT * FROM parked_event") == []
    await assert_open_work_is_what_the_log_says(system)


async def _without_timers(system: System) -> bool:
    """A timer may fire between the two looks: its row is gone then, and what it led to is not yet in the read models."""
    head = await system.settled()
    return await system.sql("SELECT 1 FROM timer") == [] and await system.settled() == head


async def assert_exact(system: System, run_id: str) -> None:
    expected = runs.replay(await system.events(run_id))
    [(status, position)] = await system.sql("SELECT status, position FROM run WHERE run_id = %s", UUID(run_id))
    async with system.container.database.connection() as connection:
        shown = (await runs.get_run(connection, DEFAULT_TENANT_ID, UUID(run_id))).value
    assert expected is not None and shown is not None
    assert shown.model_dump() == expected.model_dump()
    assert (status, position) == (expected.status, expected.position)
    unfinished = [step.key for step in expected.steps if step.status in ("pending", "scheduled", "running", "retrying")]
    assert expected.status == "running" or unfinished == []


async def assert_open_work_is_what_the_log_says(system: System) -> None:
    last: dict[UUID, tuple[str, str]] = {}
    for event in await system.events():
        kind, _, what = event.topic.partition(".")
        if kind in ("agent_run", "invocation"):
            if what in ("requested", "resumed", "requeued"):
                last[event.stream_id] = (kind, "open")
            elif what in ("retry_scheduled", "completed", "succeeded", "failed", "resolved", "cancelled", "became_ambiguous"):
                last[event.stream_id] = (kind, "closed")
    expected = {stream_id for stream_id, (_, state) in last.items() if state == "open"}
    assert {row[0] for row in await system.sql("SELECT work_id FROM open_work")} == expected


class OwnConnections:
    """The `Database` port with a connection for each use: a connection ends with its user, like the connections of a process."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        with translate_errors():
            async with await connect(self._database_url, role="projector") as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self.connection() as connection, connection.pipeline(), connection.transaction():
            yield connection


SHORT_LIFE_S = 0.08
NAMES = [projection.name for projection in PROJECTIONS]


async def test_a_runner_that_dies_anywhere_leaves_exact_rows(database_url: str, nats_url: str) -> None:
    async with running(database_url, nats_url, loops=["live", "relay", "sagas", "timers", "triggers"]) as system:
        # The projector is killed again and again while the log grows, and started anew each time.
        random_, deaths, longest, reached = random.Random(11), 0, SHORT_LIFE_S, 0
        stop, subscription = asyncio.Event(), system.subscription

        async def projector() -> None:
            nonlocal deaths, longest, reached
            while not stop.is_set():
                task = asyncio.create_task(ProjectionRunner(PROJECTIONS, OwnConnections(database_url), subscription).run())
                await asyncio.sleep(random_.uniform(0.0, longest))
                await stopped(task)
                deaths += 1
                [(position,)] = await system.sql("SELECT coalesce(min(position), 0) FROM checkpoint WHERE name = ANY (%s)", NAMES)
                longest = SHORT_LIFE_S if position > reached else min(longest * 1.3, 2.0)  # on a slow machine work takes longer
                reached = position
            last = ProjectionRunner(PROJECTIONS, system.container.database, subscription)
            system.tasks["projections"] = asyncio.create_task(last.run(), name="projector")

        dying = asyncio.create_task(projector())
        await issue_key(system)
        worker = system.worker()
        await worker.register("alpha", "beta", "gamma", tools=["add", "mail"])
        started: list[str] = []
        for _ in range(40):
            await asyncio.gather(*(act(system, [worker], random_, started) for _ in range(4)))
        stop.set()
        await dying
        await eventually(lambda: _without_timers(system))
        assert deaths > 5
        for run_id in started:
            await assert_exact(system, run_id)
        await assert_open_work_is_what_the_log_says(system)
        assert await system.sql("SELECT * FROM parked_event") == []
