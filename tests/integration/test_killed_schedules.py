"""The process that fires schedules is killed in the middle: each time has its run, once, in the order of the times."""

import asyncio
import json
import random
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, running, serving
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tidelog import Agent, Client, Context
from tidelog.schedules import start_of, when_of

SCHEDULES, EACH, KILLS = 100, 3, 1
"""All of them are due in the same moment, each second."""


class Idle(Agent):
    async def execute(self, ctx: Context) -> None:
        pass


async def test_no_time_is_lost_and_none_has_two_runs(services: EmbeddedServices, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    await empty_work_queue(services.nats_url)
    async with (
        fresh_database(services) as url,
        serving(url, services.nats_url, tmp_path) as server,
        Client(server.url, KEY, patience_s=30) as client,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as log,
    ):
        async with running(server.url, Idle):
            pass  # the agent is registered, and nobody does its work

        async def fired() -> int:
            row = await (await log.execute("SELECT count(*) FROM event WHERE topic = 'schedule.fired'")).fetchone()
            return int(row[0]) if row else 0

        async def create(number: int) -> None:
            body = {
                "name": f"s{number}", "when": when_of(every_s=1), "start": start_of(agent="idle", input_from="due_at"),
                "overlap": "allow", "catch_up": "all",
            }  # fmt: skip
            await client.send("POST", "/v1/schedules", body)

        for begin in range(0, SCHEDULES, 20):
            await asyncio.gather(*(create(number) for number in range(begin, begin + 20)))
        for kill in range(1, KILLS + 1):
            goal = await fired() + dice.randrange(1, 2 * SCHEDULES)

            async def reached(goal: int = goal) -> bool:
                return await fired() >= goal

            await eventually(reached, f"the moment of kill {kill}", 60)
            await server.kill()
            await server.start()

        async def enough() -> bool:
            found = await events(log)
            return len(found) == SCHEDULES and min(map(len, found.values())) >= EACH

        await eventually(enough, "some times of each schedule", 60)
        await server.kill()
        found = await events(log)
        query = "SELECT originator_id, convert_from(state, 'UTF8') FROM event WHERE topic = 'run.started'"
        starts = await (await log.execute(query)).fetchall()
    runs = {str(run_id): json.loads(state) for run_id, state in starts}
    assert len(found) == SCHEDULES
    for name, times in found.items():
        due = [datetime.fromisoformat(event["due_at"]) for event in times]
        assert due == [due[0] + timedelta(seconds=number) for number in range(len(due))], name
        for event in times:
            run = runs.pop(event["run_id"])
            assert datetime.fromisoformat(run["input"]) == datetime.fromisoformat(event["due_at"])
    assert not runs, "a run that no schedule knows"


async def events(log: psycopg.AsyncConnection[Any]) -> dict[str, list[dict[str, Any]]]:
    """What came of the times of each schedule, in order."""
    query = "SELECT originator_id, convert_from(state, 'UTF8') FROM event WHERE topic LIKE 'schedule.%' ORDER BY notification_id"
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for schedule_id, state in await (await log.execute(query)).fetchall():
        said = json.loads(state)
        if "due_at" in said:
            found[str(schedule_id)].append(said)
    return found
