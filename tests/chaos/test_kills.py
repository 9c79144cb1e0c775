"""Every part of a running system is killed at random moments, under load. The final state must be right.

Now and then a part is frozen (tests/chaos/storm.py), and PostgreSQL or NATS stays away for a while (tests/chaos/away.py).
"""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from application.engine.background import end
from tests.chaos import away
from tests.chaos.agents._witness import VARIABLE
from tests.chaos.checker import check, check_snapshot
from tests.chaos.checks import losses
from tests.chaos.checks.clients import check_answers, check_follower
from tests.chaos.checks.snapshot import Snapshot, Violation, read_snapshot
from tests.chaos.load import Load
from tests.chaos.server import Server, left_over, running_server
from tests.chaos.storm import Planned, Storm, plan_of, seed_of, storms
from tests.chaos.witness import check_witness, read_lines
from tests.pace import ANSWER_S, Deadline, ended, slowness_lately, until, within
from tidelog import Client
from tidelog.http_client import http_client

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of the server in /proc"),
]

AGENTS = Path(__file__).parent / "agents"
PARTS = ("api", "relay", "projector", "saga", "worker", "nats", "postgres")
BREATH_RUNS, BREATH_S = 3, 30.0
"""Runs that must end after each round, and the seconds that this may take. Work of a killed worker comes back after its lease."""
AT_ONCE = 12
END_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 45.0
"""A message whose acknowledgement was lost with NATS is delivered again after the queue's wait of 10 s."""

CLAIMED_AGAIN_S = 13.0
FEED_TIMEOUT_S = 20.0

BAD_NEWS = frozenset(
    {
        "saga_event_parked", "event_parked", "projection_falls_back_to_single_events", "timer_dropped", "loop_failed",
        "work_crashed", "puller_ended", "background_task_failed", "nats_connection_broken", "ownership_lost", "process_keeps_dying",
        "process_does_not_end", "defect", "work_message_not_understood", "history_began",
    }
)  # fmt: skip
"""Names of log lines that a kill does not explain."""


@asynccontextmanager
async def witnessed_server() -> AsyncIterator[tuple[Server, Path, httpx2.AsyncClient]]:
    """A server with one process for each role, the witness file of its agents and tools, and a client."""
    with tempfile.TemporaryDirectory(prefix="tidelog-witness-") as folder:
        witness = Path(folder) / "lines"
        async with running_server(AGENTS, "--isolate", environment={VARIABLE: str(witness)}) as server:
            headers = {"Authorization": f"Bearer {server.key}"}
            async with http_client(server.url, headers=headers, timeout_s=ANSWER_S) as http:

                async def registered() -> bool:  # tools come after agents
                    return "chaos.once" in [tool["name"] for tool in (await http.get("/v1/tools")).json()["data"]]

                await until(registered, 30)
                yield server, witness, http


@pytest.mark.parametrize(("number", "kills"), list(enumerate(storms())))
async def test_nothing_is_lost_or_done_twice_whatever_is_killed(number: int, kills: int) -> None:
    seed = seed_of(number)
    kills = kills or len(PARTS)
    print(f"\nstorm {number} of {kills} kills: TIDELOG_CHAOS_SEED={seed}", flush=True)
    async with witnessed_server() as (server, witness, http):
        storm, load, stop = Storm(server, seed), Load(http, seed, at_once=AT_ONCE), asyncio.Event()
        follower = Follower(server)
        following = asyncio.create_task(follower.run(), name="follower")
        loading = asyncio.create_task(load.run(stop), name="load")
        try:
            await work_goes_on(load, loading, 1)
            rounds = list(plan_of(seed, kills, PARTS))
            for place, blows in enumerate(rounds, 1):
                await one_round(storm, server, http, blows, away.outage_after(place) if place < len(rounds) else None)
                await work_goes_on(load, loading, BREATH_RUNS)
                if place < len(rounds):
                    await still_right(server, storm)
                print(f"  {storm.told()}; {load.over} of {len(load.runs)} runs over", flush=True)
            await storm.close()
            stop.set()
            await ended(loading, END_TIMEOUT_S)
            snapshot = await settled(server)
            await until(lambda: follower.reached(snapshot.head), FEED_TIMEOUT_S)
        except (Exception, asyncio.CancelledError) as error:
            error.add_note(storm.explain(await violations_so_far(server)))
            raise
        finally:
            await storm.close()
            await end(following, loading)
        for run in load.runs[::10]:
            await load.same_answer_again(run)
        lines = read_lines(witness)
        violations = [
            *await check_snapshot(snapshot, server.nats_url(), expected={run.id: run.expected for run in load.runs}),
            *check_witness(lines, snapshot),
            *losses.check_losses(snapshot, of_workers(storm)),
            *check_answers(load.runs, snapshot),
            *check_follower(follower.seen, snapshot),
            *check_output(server),
        ]
        assert violations == [], storm.explain(violations)
        repeated = len(lines) - len({(line.kind, line.work, line.key) for line in lines})
        by_hand = sum(len(run.resolved) for run in load.runs)
        print(f"seed {seed}: {storm.told()}; {len(load.runs)} runs, {snapshot.head} events; no violation")
        print(f"  {len(lines)} executions, {repeated} repetitions; {losses.told(snapshot)}, {by_hand} resolved by hand", flush=True)
        assert await server.stop() == 0
        assert left_over(server.folder) == []


async def one_round(storm: Storm, server: Server, http: httpx2.AsyncClient, blows: Sequence[Planned], gone: str | None) -> None:
    """Strikes. `gone`: a part that is killed afterwards and stays away for a while."""
    for planned in blows:
        await storm.strike(planned)
    if gone is not None:
        await storm.kill(gone, f", away for {away.AWAY_S:g} s")
        await away.keep_away(server)
        await until(lambda: away.is_ready(http), away.BACK_S)


def of_workers(storm: Storm) -> list[losses.Blow]:
    return [blow for blow in storm.blows if blow.part == "worker"]


async def work_goes_on(load: Load, loading: asyncio.Task[None], runs: int, seconds: float = BREATH_S) -> None:
    """Waits until so many more runs have ended. Raises TimeoutError."""
    before = load.over

    async def more() -> bool:
        if loading.done():
            loading.result()
        return load.over >= before + runs

    await until(more, seconds)


async def still_right(server: Server, storm: Storm) -> None:
    """The recorded state must be right in the middle of the storm, too. If the database is away, the next round checks."""
    with contextlib.suppress(psycopg.OperationalError):
        snapshot = await read_snapshot(server.database_url())
        violations = [
            *await check_snapshot(snapshot, settled=False),
            *losses.check_losses(snapshot, of_workers(storm)),
        ]
        assert violations == [], "\n".join(map(str, violations[:50]))


async def settled(server: Server) -> Snapshot:
    """Returns the state after all work. Work that still goes on is waited for; the checker reports work that never comes."""
    deadline = Deadline(SETTLE_TIMEOUT_S)
    while True:
        snapshot = await read_snapshot(server.database_url())
        violations = await check_snapshot(snapshot, server.nats_url())
        if not violations or await deadline.over():
            return snapshot
        await asyncio.sleep(0.3)


async def violations_so_far(server: Server) -> list[Violation]:
    try:
        return await check(server.database_url(), settled=False)
    except Exception as error:  # noqa: BLE001  # printed beside the error that it explains
        return [Violation("state-is-readable", "database", repr(error))]


class Follower:
    """Reads the live feed through the whole storm, as a client does. Keeps the positions in the order of arrival."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.seen: list[int] = []

    async def run(self) -> None:
        async with Client(self._server.url, self._server.key) as client:
            async for event in client.events():
                self.seen.append(event.position)

    async def reached(self, position: int) -> bool:
        return bool(self.seen) and self.seen[-1] >= position


def check_output(server: Server) -> Iterator[Violation]:
    for line in server.log_lines():
        if line["event"] in BAD_NEWS or "Traceback" in str(line["event"]):
            yield Violation("no-bad-news-in-the-log", str(line.get("role", "worker")), str(line)[:2000])


async def test_a_killed_worker_is_continued_where_it_was() -> None:
    """Two runs, both inside a long tool call after their first step. One tool may be repeated, the other may not."""
    async with witnessed_server() as (server, witness, http):
        tools = ("chaos.long", "chaos.once")
        runs = {
            tool: (await http.post("/v1/runs", json={"agent": "steady", "input": {"tool": tool, "seconds": 60}})).json()["run_id"]
            for tool in tools
        }

        async def inside() -> bool:
            return {line.key for line in read_lines(witness)} == {"first", *tools}

        await until(inside, 15)
        killed_at = time.time()
        assert server.kill("worker") is not None

        repeated = await run_when(http, runs["chaos.long"], lambda run: run["status"] != "running")
        assert repeated["status"] == "completed", repeated
        [step] = repeated["steps"]
        assert (step["attempt"], [call["attempts"] for call in step["calls"]]) == (2, [2])

        stuck = await run_when(
            http, runs["chaos.once"], lambda run: [c["status"] for c in run["steps"][0]["calls"]] == ["ambiguous"]
        )
        assert stuck["status"] == "running", "it waits for a person"
        invocation_id = stuck["steps"][0]["calls"][0]["invocation_id"]
        answer = await http.post(f"/v1/invocations/{invocation_id}/resolve", json={"result": "it was done", "reason": "seen"})
        assert answer.status_code == 200, answer.text
        resolved = await run_when(http, runs["chaos.once"], lambda run: run["status"] != "running")
        assert resolved["status"] == "completed", resolved
        assert resolved["result"]["called"] == "it was done"

        executed = [(line.key, line.attempt) for line in read_lines(witness)]
        assert sorted(executed) == sorted(
            [("first", 1), ("first", 1), ("chaos.long", 1), ("chaos.long", 2), ("chaos.once", 1), ("last", 2), ("last", 2)]
        )
        for tool, run in (("chaos.long", repeated), ("chaos.once", resolved)):
            assert run["result"]["first"] in {line.word for line in read_lines(witness) if line.key == "first"}, tool
        snapshot = await settled(server)
        assert await check_snapshot(snapshot, server.nats_url()) == []
        assert list(check_witness(read_lines(witness), snapshot)) == []
        took = max(losses.claimed_again(snapshot)) - killed_at
        print(f"after a kill of the worker the last attempt was claimed after {took:.1f} s")
        assert took < CLAIMED_AGAIN_S or took < CLAIMED_AGAIN_S * await slowness_lately()


async def run_when(http: httpx2.AsyncClient, run_id: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    run: dict[str, Any] = {}
    async with within(40):
        while True:
            response = await http.get(f"/v1/runs/{run_id}")
            if response.status_code == 200:
                run = response.json()
                if condition(run):
                    return run
            await asyncio.sleep(0.05)
