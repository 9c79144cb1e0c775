"""Chains of tools while the api process is killed again and again: each ends, and each step has its effect once."""

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults_kit import seeded
from tests.chaos.server import running_server
from tests.pace import ANSWER_S, until, within
from tidelog import Client
from tidelog.http_client import http_client

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of the server in /proc"),
]

CODE = '''
import asyncio, os
from tidelog import Agent, Context, tool

def note(line):
    with open(os.environ["TIDELOG_TEST_WITNESS"], "a") as file:
        file.write(line + "\\n")

@tool("links.add")
async def add(name: str, value: int) -> dict[str, int]:
    """Has an effect that must not be repeated."""
    note(f"{name} {value}")
    await asyncio.sleep(0.05)
    return {"value": value + 1}

class Caller(Agent):
    """Calls the chain."""
    async def execute(self, ctx: Context) -> object:
        return await ctx.tool("links", name=ctx.input, value=1)
'''
STEPS = 4
RUNS = 5
KILLS = 3


def chain() -> dict[str, Any]:
    steps = [
        {"name": f"s{n}", "tool": "links.add", "arguments": {"name": "arguments.name", "value": f"steps.s{n - 1}.value"}}
        for n in range(1, STEPS)
    ]
    first = {"name": "s0", "tool": "links.add", "arguments": {"name": "arguments.name", "value": "arguments.value"}}
    return {
        "name": "links",
        "version": "1",
        "kind": "chain",
        "parameters": {"type": "object", "required": ["name", "value"]},
        "chain": {"steps": [first, *steps], "result": f"steps.s{STEPS - 1}.value"},
    }


async def test_each_step_has_its_effect_once_when_the_api_is_killed(tmp_path: Path) -> None:
    chance, witness = seeded(), tmp_path / "lines"
    agents = tmp_path / "agents"
    agents.mkdir()
    (agents / "crew.py").write_text(CODE)
    witness.touch()
    async with running_server(agents, environment={"TIDELOG_TEST_WITNESS": str(witness)}) as server:
        headers = {"Authorization": f"Bearer {server.key}"}
        async with (
            http_client(server.url, headers=headers, timeout_s=ANSWER_S) as http,
            Client(server.url, server.key) as client,
        ):

            async def registered() -> bool:
                return "links.add" in [tool["name"] for tool in (await http.get("/v1/tools")).json()["data"]]

            await until(registered, 30)
            answer = await http.post("/v1/tools", json=chain())
            assert answer.status_code == 201, answer.text
            runs = [(await client.start_run(agent="caller", input=f"run-{number}")).run_id for number in range(RUNS)]
            for kill in range(KILLS):
                goal = (kill + 1) * RUNS * STEPS // (KILLS + 2)

                async def begun(effects: int = goal) -> bool:
                    return len(witness.read_text().splitlines()) >= effects and server.children().get("api") is not None

                await until(begun, 30)
                await asyncio.sleep(chance.uniform(0, 0.05))
                server.kill("api")
            async with within(90):
                ended = [await client.wait(run_id) for run_id in runs]
            assert [(run.status, run.result) for run in ended] == [("completed", STEPS + 1)] * RUNS
            effects = Counter(witness.read_text().splitlines())
            assert effects == {f"run-{number} {value}": 1 for number in range(RUNS) for value in range(1, STEPS + 1)}
