"""Every part of a running system is killed at random moments, under load. The final state must be right.

Now and then PostgreSQL or NATS stays away for a while (tests/chaos/away.py).

TIDELOG_CHAOS_SEED     the order and the moments of the kills (default: a new one each time, printed)
TIDELOG_CHAOS_KILLS    the number of kills (default: each part once)
"""

import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from application.engine.background import end
from tests.chaos import away
from tests.chaos.agents._witness import VARIABLE
from tests.chaos.checker import check, check_snapshot
from tests.chaos.checks.snapshot import Snapshot, Violation, read_snapshot
from tests.chaos.load import Load, StartedRun
from tests.chaos.server import Server, left_over, running_server
from tests.chaos.witness import check_witness, read_lines
from tests.pace import Deadline, ended, slowness, until, within
from tidelog import Client

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of the server in /proc"),
]

AGENTS = Path(__file__).parent / "agents"
PARTS = tuple((os.environ.get("TIDELOG_CHAOS_PARTS") or "api,relay,projector,saga,worker,nats,postgres").split(","))
BREATH_S = 8.0
END_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 45.0
"""A message whose acknowledgement was lost with NATS is delivered again after the queue's wait of 10 s."""

FEED_TIMEOUT_S = 20.0

BAD_NEWS = frozenset(
    {
        "saga_event_parked", "event_parked", "projection_falls_back_to_single_events", "timer_dropped", "loop_failed",
        "work_crashed", "puller_ended", "background_task_failed", "nats_connection_broken", "ownership_lost", "process_keeps_dying",
        "process_does_not_end", "defect", "work_message_not_understood", "history_began",
    }
)  # fmt: skip
"""Names of log lines that a kill does not explain."""


@dataclass(slots=True)
class Chaos:
    """Keeps the story of the test for the reader of a failure."""

    seed: int
    began: float = field(default_factory=time.monotonic)
    kills: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.kills.append(f"{time.monotonic() - self.began:6.1f} s  {what}")

    def explain(self, violations: list[Violation], server: Server) -> str:
        shown = "\n".join(f"  {violation}" for violation in violations[:50])
        story = "\n".join(f"  {kill}" for kill in self.kills)
        kept = Path(tempfile.gettempdir()) / f"tidelog-chaos-{self.seed}.log"
        kept.write_text(server.output())
        return f"{len(violations)} violations; seed {self.seed}; output kept in {kept}\n{shown}\n{story}"


def plan_of(seed: int, kills: int) -> Iterator[list[tuple[float, str]]]:
    """Rounds in which each part is killed once, as pauses and parts. Sometimes two parts are killed together."""
    chance = random.Random(seed)
    while kills > 0:
        parts = chance.sample(PARTS, len(PARTS))[:kills]
        kills -= len(parts)
        yield [(0.0 if chance.random() < 0.15 else chance.uniform(0.3, 3.0), part) for part in parts]


@asynccontextmanager
async def witnessed_server() -> AsyncIterator[tuple[Server, Path, httpx2.AsyncClient]]:
    """A server with one process for each role, the witness file of its agents and tools, and a client."""
    with tempfile.TemporaryDirectory(prefix="tidelog-witness-") as folder:
        witness = Path(folder) / "lines"
        async with running_server(AGENTS, "--isolate", environment={VARIABLE: str(witness)}) as server:
            headers = {"Authorization": f"Bearer {server.key}"}
            async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=10) as http:

                async def registered() -> bool:  # tools come after agents
                    return "chaos.once" in [tool["name"] for tool in (await http.get("/v1/tools")).json()["data"]]

                await until(registered, 30)
                yield server, witness, http


async def test_nothing_is_lost_or_done_twice_whatever_is_killed() -> None:
    seed = int(os.environ.get("TIDELOG_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    chaos = Chaos(seed)
    print(f"TIDELOG_CHAOS_SEED={seed}")
    async with witnessed_server() as (server, witness, http):
        load, stop, follower = Load(http, seed), asyncio.Event(), Follower(server)
        following = asyncio.create_task(follower.run(), name="follower")
        loading = asyncio.create_task(load.run(stop), name="load")
        try:
            await asyncio.sleep(1.0)
            chance = random.Random(f"away {seed}")
            rounds = list(plan_of(seed, int(os.environ.get("TIDELOG_CHAOS_KILLS") or len(PARTS))))
            looked = 0
            for number, kills in enumerate(rounds, 1):
                for pause_s, part in kills:
                    await asyncio.sleep(pause_s)
                    chaos.note(f"{part} {await kill_when_there(server, part)}")
                if number < len(rounds) and (part_away := away.outage_after(number)) is not None:
                    await asyncio.sleep(chance.uniform(0.0, 3.0))  # a part that was killed before may not be back yet
                    chaos.note(f"{part_away} {await kill_when_there(server, part_away)}, away for {away.AWAY_S:g} s")
                    await away.keep_away(server)
                    await until(lambda: away.is_ready(http), away.BACK_S)
                if number < len(rounds):  # a pause in which work goes on; the recorded state must be right at any moment
                    await asyncio.sleep(BREATH_S)
                    if number >= looked * 1.1:  # the check reads the whole log: a long run skips rounds
                        await still_right(server)
                        looked = number
                    print(f"{len(chaos.kills)} kills, {len(load.runs)} runs, {time.monotonic() - chaos.began:.0f} s", flush=True)
            await asyncio.sleep(1.0)
            stop.set()
            await ended(loading, END_TIMEOUT_S)
            snapshot = await settled(server)
            await until(lambda: follower.reached(snapshot.head), FEED_TIMEOUT_S)
        except (Exception, asyncio.CancelledError) as error:
            error.add_note(chaos.explain(await violations_so_far(server), server))
            raise
        finally:
            await end(following, loading)
        for run in load.runs[::10]:
            await load.same_answer_again(run)
        lines = read_lines(witness)
        violations = [
            *await check_snapshot(snapshot, server.nats_url(), expected={run.id: run.expected for run in load.runs}),
            *check_witness(lines, snapshot),
            *check_answers(load.runs, snapshot),
            *check_follower(follower.seen, snapshot),
            *check_output(server),
        ]
        assert violations == [], chaos.explain(violations, server)
        repeated = len(lines) - len({(line.kind, line.work, line.key) for line in lines})
        by_hand = sum(len(run.resolved) for run in load.runs)
        print(f"{len(chaos.kills)} kills, {len(load.runs)} runs, {snapshot.head} events, {time.monotonic() - chaos.began:.0f} s")
        print(f"{len(lines)} executions, {repeated} of them repetitions; {by_hand} ambiguous calls resolved by hand")
        assert await server.stop() == 0
        assert left_over(server.folder) == []


async def kill_when_there(server: Server, part: str) -> int:
    """Kills a part. Waits for the part first if it is just being started again."""
    async with within(30):
        while (pid := server.kill(part)) is None:
            assert server.returncode is None, "the server ended"
            await asyncio.sleep(0.05)
    return pid


async def still_right(server: Server) -> None:
    """The recorded state must be right in the middle of the storm, too. If the database is away, the next round checks."""
    with contextlib.suppress(psycopg.OperationalError):
        violations = await check(server.database_url(), settled=False)
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


def check_follower(seen: list[int], snapshot: Snapshot) -> Iterator[Violation]:
    if seen[: snapshot.head] != list(range(1, snapshot.head + 1)):
        wrong = next((i for i, position in enumerate(seen, 1) if i != position), len(seen) + 1)
        yield Violation("feed-without-gap-or-double", f"event {wrong} of the feed", f"{seen[max(0, wrong - 3) : wrong + 3]}")


def check_answers(started: list[StartedRun], snapshot: Snapshot) -> Iterator[Violation]:
    """Each acknowledged run is in the log once, and its agents saw the values of the log."""
    known = {row["run_id"] for row in snapshot.tables["run"]}
    if len({run.id for run in started}) != len(started) or known != {run.id for run in started}:
        yield Violation("runs-as-acknowledged", "all runs", f"{len(started)} acknowledged, {len(known)} there")
    for run in started:
        if run.end is None:
            yield Violation("run-has-ended", f"run {run.id}", "the client saw no end")
        elif run.end["status"] == run.expected == "completed":
            if run.end["degraded"] != run.degraded:
                yield Violation("run-ended-as-expected", f"run {run.id}", f"degraded: {run.end['degraded']}")
            yield from _results(run, run.end)


def _results(run: StartedRun, shown: dict[str, Any]) -> Iterator[Violation]:
    """The editor got the results and the shared values of the earlier steps, and the listener got all messages in order."""
    results = {step["key"]: step["result"] for step in shown["steps"]}
    edited = results["editor"]
    for key, result in edited["results"].items():
        if result != results[key]:
            yield Violation("results-handed-on", f"run {run.id}", f"{key}: {result}, but it was {results[key]}")
    for key, value in edited["found"].items():
        if value != results[key]["second"]:
            yield Violation("values-shared", f"run {run.id}", f"{key}: {value}, but it was {results[key]['second']}")
    if "listener" in results:
        said = {
            key: [{"number": n, "word": results[key][f"said-{n}"]} for n in range(3)] for key in ("one", "two", "late")
        }  # fmt: skip
        if results["listener"]["heard"] != said:
            yield Violation("heard-as-said", f"run {run.id}", f"heard {results['listener']['heard']}, said {said}")


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
        before = time.monotonic()
        assert server.kill("worker") is not None

        repeated = await run_when(http, runs["chaos.long"], lambda run: run["status"] != "running")
        assert repeated["status"] == "completed", repeated
        took = time.monotonic() - before
        assert took < 20 or took < 20 * await slowness(), "the queue's wait is 10 s"
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
