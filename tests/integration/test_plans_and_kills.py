"""A plan of every form with a real worker: the worker and the server are killed between its parts, and each part counts once."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, serving, worker_process
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tidelog import Client

AGENTS = """
import asyncio

from tidelog import Agent, Context, PermanentError


class Worker(Agent):
    async def execute(self, ctx: Context) -> object:
        await asyncio.sleep(0.05)
        if ctx.input == "fail":
            raise PermanentError("it cannot be done")
        return ctx.input


class Lead(Agent):
    async def execute(self, ctx: Context) -> object:
        if ctx.input["round"] < 2:
            return {"steps": [{"key": "look", "agent": "worker", "input": 7}]}
        return {"result": ctx.input["results"]}
"""
STEPS: list[dict[str, Any]] = [
    {"key": "first", "agent": "worker", "input": "fail", "fallbacks": [{"agent": "worker"}], "on_failure": "continue"},
    {"key": "mend", "agent": "worker", "after": ["first"], "when": "steps.first.status == 'failed'", "input_from": "input"},
    {"key": "never", "agent": "worker", "after": ["first"], "when": "steps.first.status == 'completed'"},
    {"key": "items", "agent": "worker", "after": ["mend"], "each": {"over": "input", "max_parallel": 2}, "input_from": "item * 2"},
    {
        "key": "loop",
        "agent": "worker",
        "after": ["items"],
        "repeat": {"times": 9, "until": "result > 2"},
        "input_from": "iteration",
    },
    {
        "key": "books",
        "after": ["loop"],
        "each": {"over": "input", "max_parallel": 2},
        "run": {"plan": {"steps": [{"key": "a", "agent": "worker"}, {"key": "b", "value": "steps.a.result + 1", "after": ["a"]}]}},
    },
    {"key": "pause", "wait": {"s": 0.2}, "after": ["books"]},
    {"key": "lead", "agent": "lead", "after": ["pause"], "adaptive": {"agents": [{"agent": "worker"}]}},
    {"key": "all", "gather": {"mode": "all"}, "after": ["items", "loop", "books", "lead", "never"]},
]


class Log:
    def __init__(self, connection: psycopg.AsyncConnection[Any], run_id: UUID) -> None:
        self._connection, self._run_id = connection, run_id

    async def events(self, topic: str) -> list[dict[str, Any]]:
        query = "SELECT state FROM event WHERE originator_id = %s AND topic = %s ORDER BY notification_id"
        cursor = await self._connection.execute(query, [self._run_id, topic])
        return [json.loads(state) for (state,) in await cursor.fetchall()]

    async def has(self, topic: str, number: int = 1, **fields: Any) -> None:
        async def there() -> bool:
            return len([event for event in await self.events(topic) if fields.items() <= event.items()]) >= number

        await eventually(there, f"{number} {topic} {fields}", 30)


async def test_each_part_counts_once_whatever_is_killed(services: EmbeddedServices, tmp_path: Path) -> None:
    (tmp_path / "team.py").write_text(AGENTS)
    await empty_work_queue(services.nats_url)
    async with (
        fresh_database(services) as database_url,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection,
        serving(database_url, services.nats_url, tmp_path) as server,
        Client(server.url, KEY) as client,
    ):
        async with worker_process(server.url, tmp_path) as worker:
            plan = {"kind": "graph", "steps": STEPS}
            log = Log(connection, (await client.start_run(plan=plan, input=[1, 2, 3, 4])).run_id)
            await log.has("run.part_completed", 1, step="items")
            worker.kill()
            await worker.wait()
        async with worker_process(server.url, tmp_path):
            await log.has("run.part_completed", 1, step="books")
            await server.kill()
            await server.start()
            await log.has("run.completed")
        [completed] = [event for event in await log.events("run.step_completed") if event["step"] == "all"]
        assert completed["result"] == {"items": [2, 4, 6, 8], "loop": 3, "books": [2, 3, 4, 5], "lead": {"look": 7}}
        parts = [(event["step"], event["part"]) for event in await log.events("run.part_completed")]
        books = [("books", n) for n in range(4)]
        assert sorted(parts) == [
            *books,
            *[("items", n) for n in range(4)],
            *[("lead", n) for n in range(3)],
            *[("loop", n) for n in range(3)],
        ]
        [skipped] = await log.events("run.step_skipped")
        assert (skipped["step"], skipped["saw"]) == ("never", {"steps.first.status": "failed"})
        [fell_back] = await log.events("run.step_fell_back")
        assert fell_back["step"] == "first" and len(await log.events("run.completed")) == 1
