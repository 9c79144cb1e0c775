"""Schedules and triggers fire while every part of the system is killed at random: each due time has one run, each event and each
delivery one firing.
"""

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from application.engine.background import end
from tests.chaos import away
from tests.chaos.checker import check_snapshot
from tests.chaos.checks import starters
from tests.chaos.checks.snapshot import Snapshot, Violation, read_snapshot
from tests.chaos.load import REQUEST_TIMEOUT_S, ask
from tests.chaos.server import Server, left_over, running_server
from tests.chaos.storm import Storm, plan_of, seed_of, storms
from tests.chaos.test_kills import BREATH_S, PARTS, check_output, one_round, violations_so_far
from tests.pace import ANSWER_S, Deadline, ended, until
from tidelog.http_client import http_client

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of the server in /proc"),
]

SCHEDULES, EVERY_S = 6, 1
CODE = '''
from tidelog import Agent, Context

class Idle(Agent):
    """Says what it was told."""
    async def execute(self, ctx: Context) -> object:
        return ctx.input
'''
VALUE: dict[str, Any] = {"plan": {"steps": [{"key": "v", "value": "input"}], "result": "steps.v.result"}}
BREATH = 10
"""Times and firings, each, that must come after each round."""
SETTLE_S = 90.0
MOST_PER_MINUTE = 6_000
SHORT = ("api", "saga", "postgres")
"""The parts that the short form kills: those without which nothing starts."""


@pytest.mark.parametrize(("number", "kills"), list(enumerate(storms())))
async def test_each_time_and_each_event_starts_one_run_whatever_is_killed(number: int, kills: int, tmp_path: Path) -> None:
    seed = seed_of(number)
    parts = PARTS if kills else SHORT
    kills = kills or len(parts)
    print(f"\nstarters, storm {number} of {kills} kills: TIDELOG_CHAOS_SEED={seed}", flush=True)
    agents = tmp_path / "agents"
    agents.mkdir()
    (agents / "crew.py").write_text(CODE)
    async with running_server(agents, "--isolate") as server:
        headers = {"Authorization": f"Bearer {server.key}"}
        async with http_client(server.url, headers=headers, timeout_s=ANSWER_S) as http:
            sender, stop, storm = await set_up(http, server, seed), asyncio.Event(), Storm(server, seed)
            sending = asyncio.create_task(sender.run(stop), name="deliveries")
            try:
                await goes_on(server, sender)
                rounds = list(plan_of(seed, kills, parts))
                for place, blows in enumerate(rounds, 1):
                    await one_round(storm, server, http, blows, away.outage_after(place) if place < len(rounds) else None)
                    fired = await goes_on(server, sender)
                    print(f"  {storm.told()}; {fired[0]} times, {fired[1]} firings", flush=True)
                await storm.close()
                stop.set()
                await ended(sending, SETTLE_S)
                for name in names():
                    await ask(http, sender.chance, "POST", f"/v1/schedules/{name}/pause", 200, body={})
                snapshot = await settled(server, sender)
            except (Exception, asyncio.CancelledError) as error:
                error.add_note(storm.explain(await violations_so_far(server)))
                raise
            finally:
                await storm.close()
                await end(sending)
            violations = [*await check_snapshot(snapshot, server.nats_url()), *started(snapshot, sender), *check_output(server)]
            assert violations == [], storm.explain(violations)
            times, firings = starters.count(snapshot)
            print(
                f"seed {seed}: {storm.told()}; {times} times, {firings} firings, {len(sender.acknowledged)} deliveries, each once"
            )
        assert await server.stop() == 0
        assert left_over(server.folder) == []


def names() -> list[str]:
    return [f"every-{number}" for number in range(SCHEDULES)]


class Sender:
    """Delivers to a webhook, and again until it is acknowledged, as senders do; now and then also after that."""

    def __init__(self, url: str, path: str, secret: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self._url, self._path = url, path
        self._headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        self.acknowledged: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        async with http_client(self._url, headers=self._headers, timeout_s=REQUEST_TIMEOUT_S) as http:
            number = 0
            while not stop.is_set():
                number += 1
                answer = await self._deliver(http, f"delivery-{number}")
                self.acknowledged.append(f"delivery-{number}")
                if self.chance.random() < 0.2:
                    assert (await self._deliver(http, f"delivery-{number}"))["run_id"] == answer["run_id"]
                await asyncio.sleep(self.chance.uniform(0.05, 0.5))

    async def _deliver(self, http: httpx2.AsyncClient, id: str) -> dict[str, Any]:
        deadline = Deadline(SETTLE_S)
        while True:
            try:
                response = await http.post(self._path, json={"number": id}, headers={"webhook-id": id})
            except httpx2.TransportError as error:
                seen = repr(error)
            else:
                if response.status_code == 202:
                    answer: dict[str, Any] = response.json()
                    return answer
                seen = f"{response.status_code} {response.text}"
                assert response.status_code in (429, 503, 504), seen
            assert not await deadline.over(), f"{id}: {seen}"
            await asyncio.sleep(self.chance.uniform(0.05, 0.3))


async def set_up(http: httpx2.AsyncClient, server: Server, seed: int) -> Sender:
    async def registered() -> bool:
        return "idle" in [agent["name"] for agent in (await http.get("/v1/agents")).json()["data"]]

    await until(registered, 30)
    triggers: list[dict[str, Any]] = [
        {"name": "first", "on": {"topics": ["run.started"], "when": "event.data.?origin.?kind.orValue('') == 'schedule'"}},
        {"name": "second", "on": {"topics": ["run.started"], "when": "event.data.?origin.?name.orValue('') == 'first'"}},
        {"name": "hook", "hook": {"scheme": "token"}},
    ]
    made = []
    for each in triggers:
        body = {"start": VALUE, "max_per_minute": MOST_PER_MINUTE, **each}
        answer = await http.post("/v1/triggers", json=body)
        assert answer.status_code == 201, answer.text
        made.append(answer.json())
    for number, name in enumerate(names()):
        start = {"agent": "idle", "input_from": "due_at"} if number % 2 else {"plan": {"kind": "graph", **VALUE["plan"]}}
        body = {"name": name, "when": {"every_s": EVERY_S}, "start": start, "overlap": "allow", "catch_up": "all"}
        answer = await http.post("/v1/schedules", json=body)
        assert answer.status_code == 201, answer.text
    return Sender(server.url, made[-1]["hook_path"], made[-1]["secret"], seed)


def started(snapshot: Snapshot, sender: Sender) -> list[Violation]:
    on = {"first": starters.started_by("schedule"), "second": starters.started_by("trigger", "first")}
    return [
        *starters.check_schedules(snapshot, EVERY_S),
        *starters.check_triggers(snapshot, on, {"hook": sender.acknowledged}),
    ]  # fmt: skip


async def goes_on(server: Server, sender: Sender) -> tuple[int, int]:
    """Waits until so many more times, firings and deliveries are there. Returns how many there are."""
    before, delivered, now = await fired(server), len(sender.acknowledged), (0, 0)

    async def more() -> bool:
        nonlocal now
        now = await fired(server)
        return all(n >= b + BREATH for n, b in zip(now, before, strict=True)) and len(sender.acknowledged) > delivered

    await until(more, BREATH_S)
    return now


async def fired(server: Server) -> tuple[int, int]:
    query = "SELECT count(*) FILTER (WHERE topic = 'schedule.fired'), count(*) FILTER (WHERE topic = 'trigger.fired') FROM event"
    deadline = Deadline(BREATH_S)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(server.database_url(), connect_timeout=5) as connection:
                row = await (await connection.execute(query)).fetchone()
                assert row is not None
                return row[0], row[1]
        except (psycopg.OperationalError, OSError):
            assert not await deadline.over(), "the database does not come back"
            await asyncio.sleep(0.1)


async def settled(server: Server, sender: Sender) -> Snapshot:
    """The state after all work. What is still under way is waited for; the checks report what never comes."""
    deadline = Deadline(SETTLE_S)
    while True:
        snapshot = await read_snapshot(server.database_url())
        violations = [*await check_snapshot(snapshot, server.nats_url()), *started(snapshot, sender)]
        if not violations or await deadline.over():
            return snapshot
        await asyncio.sleep(0.3)
