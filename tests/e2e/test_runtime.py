"""A folder of agents as users write them, good and bad, under the real `tidelog up`: broken ones are reported, the others work.

The agents of the benchmark of runs are among them, and the benchmark measures them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import pytest_asyncio

from benchmarks import runs, table
from benchmarks.run_load import Load
from benchmarks.run_server import AGENTS, target
from projections.timers import CHANNEL
from tests.chaos.server import Server, running_server
from tests.pace import ANSWER_S, within

TWIN = """
from tidelog import Agent

class {}(Agent):
    name = "twin"
    async def execute(self, ctx):
        return "{}"
"""

FILES = {
    "good.py": '''
import asyncio, sys
from pathlib import Path
from tidelog import Agent

class Greeter(Agent):
    """Greets."""
    async def execute(self, ctx):
        return {"hello": ctx.input["name"]}

class Raiser(Agent):
    async def execute(self, ctx):
        secret = "hunter2"
        raise ValueError("no luck today")

class Quitter(Agent):
    async def execute(self, ctx):
        sys.exit(3)

class Waiter(Agent):
    async def execute(self, ctx):
        here = Path(ctx.input["here"])
        here.with_name("begun").touch()
        try:
            await ctx.receive(timeout_s=600)
        finally:
            here.touch()

class Odd(Agent):
    async def execute(self, ctx):
        return object()

class Giant(Agent):
    async def execute(self, ctx):
        return "x" * 300_000

class Caller(Agent):
    async def execute(self, ctx):
        arguments = dict(ctx.input)
        return await ctx.tool(arguments.pop("name"), **arguments)
''',
    "tools.py": '''
from tidelog import tool

@tool("add", idempotent=True)
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b
''',
    "unimportable.py": "from tidelog import Agent\nimport no_such_module_anywhere\n",
    "unfinished.py": "from tidelog import Agent\nclass Broken(Agent:\n    pass\n",
    "exits.py": "import sys\nsys.exit('I am a script')\n",
    "lazy.py": "from tidelog import Agent\nclass Lazy(Agent):\n    pass\n",
    "twin_one.py": TWIN.format("One", "one"),
    "twin_two.py": TWIN.format("Two", "two"),
    "measured.py": (AGENTS / "measured.py").read_text(),
}


class Runtime:
    """The server, and the ways in which a test runs agents on the server."""

    def __init__(self, server: Server, http: httpx2.AsyncClient) -> None:
        self.server = server
        self.http = http

    async def start(self, **body: Any) -> str:
        response = await self.http.post("/v1/runs", json=body)
        assert response.status_code == 201, response.text
        return str(response.json()["run_id"])

    async def end(self, run_id: str, timeout_s: float = 20) -> dict[str, Any]:
        async def ended() -> dict[str, Any] | None:
            response = await self.http.get(f"/v1/runs/{run_id}")
            run: dict[str, Any] = response.json()
            return run if response.status_code == 200 and run["status"] != "running" else None

        run: dict[str, Any] = await until(ended, timeout_s)
        return run

    async def run(self, agent: str, input: Any = None) -> dict[str, Any]:
        return await self.end(await self.start(agent=agent, input=input))


async def until(condition: Callable[[], Awaitable[Any]], timeout_s: float) -> Any:
    async with within(timeout_s):
        while True:
            if answer := await condition():
                return answer
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    agents = tmp_path_factory.mktemp("agents")
    for name, text in FILES.items():
        (agents / name).write_text(text)
    async with running_server(agents, environment={"TIDELOG_LOG_FORMAT": "console"}) as server:
        headers = {"Authorization": f"Bearer {server.key}"}
        async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=ANSWER_S) as http:

            async def registered() -> bool:  # tools come after agents
                return "add" in [tool["name"] for tool in (await http.get("/v1/tools")).json()["data"]]

            await until(registered, 20)
            yield Runtime(server, http)


@pytest.mark.parametrize(
    ("file", "kind", "said"),
    [
        ("unimportable.py", "import-failed", "unimportable.py, line 2: import no_such_module_anywhere: ModuleNotFoundError"),
        ("unfinished.py", "import-failed", "unfinished.py, line 2: class Broken(Agent:: SyntaxError"),
        ("exits.py", "import-failed", "exits.py, line 2: sys.exit('I am a script'): SystemExit: I am a script"),
        ("lazy.py", "no-execute", "agent class Lazy has no `async def execute(self, ctx)`"),
        ("twin_two.py", "duplicate-agent", "class Two has the name 'twin', which One in"),
    ],
)
def test_what_cannot_be_used_is_said_once_with_its_place(runtime: Runtime, file: str, kind: str, said: str) -> None:
    lines = [line for line in runtime.server.output().splitlines() if "problem_in_agents" in line and f"/{file} " in line]
    assert len(lines) == 1, runtime.server.output()
    assert f"kind={kind}" in lines[0]
    assert said in lines[0]


async def test_the_worker_waits_until_its_key_is_issued(runtime: Runtime) -> None:
    assert "worker_refused" not in runtime.server.output()


async def test_the_others_work(runtime: Runtime) -> None:
    names = {agent["name"] for agent in (await runtime.http.get("/v1/agents")).json()["data"]}
    measured = {
        "three-steps", "three-steps-and-call", "many-steps", "many-calls", "quick", "sender", "receiver", "second-time",
        "calls-until-open", "sleeps-or-listens", "works-on",
    }  # fmt: skip
    assert names == {"greeter", "raiser", "quitter", "waiter", "odd", "giant", "caller", "twin", *measured}
    run = await runtime.run("greeter", {"name": "Ada"})
    assert (run["status"], run["result"]) == ("completed", {"hello": "Ada"})
    assert (await runtime.run("twin"))["result"] == "one", "of two with one name the first is kept"
    called = await runtime.run("caller", {"name": "add", "a": 2, "b": 3})
    assert (called["status"], called["result"]) == ("completed", 5)


@pytest.mark.parametrize(
    ("body", "name", "pointer"),
    [
        ({"agent": "nobody"}, "nobody", "/agent"),
        ({"plan": {"kind": "sequential", "agents": ["greeter", "nobody"]}}, "nobody", "/plan/agents/1"),
        ({"agent": "lazy"}, "lazy", "/agent"),
    ],
)
async def test_an_unknown_agent_is_refused_at_the_start(runtime: Runtime, body: dict[str, Any], name: str, pointer: str) -> None:
    response = await runtime.http.post("/v1/runs", json=body)
    assert (response.status_code, response.json()["code"]) == (404, "unknown-agent")
    assert f"no agent '{name}' is registered" in response.json()["detail"]
    assert response.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("agent", "input", "type_", "said"),
    [
        ("raiser", None, "ValueError", "no luck today"),
        ("quitter", None, "ProcessExitError", "user code asked the process to exit: SystemExit(3)"),
        ("odd", None, "NotJsonError", "the agent's result"),
        ("giant", None, "ValueTooLargeError", "the agent's result"),
        ("greeter", {"nome": "Ada"}, "KeyError", "name"),
        ("caller", {"name": "no.such"}, "ToolError", "no tool 'no.such' is registered"),
        ("caller", {"name": "add", "a": 2}, "ToolError", '"b" is a required property'),
    ],
)
async def test_a_failing_agent_fails_its_run_and_nothing_else(
    runtime: Runtime, agent: str, input: Any, type_: str, said: str
) -> None:
    run = await runtime.run(agent, input)
    assert run["status"] == "failed"
    assert (run["error"]["type"], run["error"]["kind"]) == (type_, "permanent"), run["error"]
    assert said in run["error"]["message"]
    assert [step["status"] for step in run["steps"]] == ["failed"]
    assert (await runtime.run("greeter", {"name": "Ada"}))["status"] == "completed"


async def test_a_failure_says_where_and_tells_no_values(runtime: Runtime) -> None:
    run = await runtime.run("raiser")
    assert run["error"]["message"] == "no luck today" and run["error"]["file"].endswith("good.py")
    assert 'raise ValueError("no luck today")' in run["error"]["traceback"]
    assert "hunter2" not in str(run)


async def test_a_step_that_takes_too_long_fails_and_its_agent_is_stopped(runtime: Runtime, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    step = {"key": "wait", "agent": "waiter", "timeout_s": 3_600}
    run_id = await runtime.start(plan={"kind": "graph", "steps": [step]}, input={"here": str(stopped)})
    await until(is_there(tmp_path / "begun"), 10)
    await let_it_be_late(runtime.server)
    run = await runtime.end(run_id)
    assert run["status"] == "failed"
    assert (run["error"]["type"], run["error"]["kind"]) == ("StepTimeout", "timeout")
    assert run["error"]["message"] == "the step did not finish within 3600 s"
    await until(is_there(stopped), 5)


async def let_it_be_late(server: Server) -> None:
    """All timers of the server are due now."""

    async def moved() -> int:
        cursor = await connection.execute("UPDATE timer SET set_at = now(), due_at = now()")
        return cursor.rowcount

    async with await psycopg.AsyncConnection.connect(server.database_url(), autocommit=True) as connection:
        await until(moved, 10)
        await connection.execute("SELECT pg_notify(%s, '')", [CHANNEL])


async def test_a_running_run_can_be_cancelled_and_its_agent_is_stopped(runtime: Runtime, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    plan = {"kind": "sequential", "agents": ["waiter", "greeter"]}
    run_id = await runtime.start(plan=plan, input={"here": str(stopped), "name": "Ada"})
    await until(is_there(tmp_path / "begun"), 10)
    for _ in range(2):  # the second time there is no work left
        answer = await runtime.http.post(f"/v1/runs/{run_id}/cancel", json={"reason": "changed my mind"})
        assert answer.status_code == 202, answer.text
    run = await runtime.end(run_id)
    assert (run["status"], run["cancel_reason"]) == ("cancelled", "changed my mind")
    assert [step["status"] for step in run["steps"]] == ["cancelled", "cancelled"]
    await until(is_there(stopped), 5)


async def test_what_has_ended_cannot_be_cancelled(runtime: Runtime) -> None:
    run = await runtime.run("greeter", {"name": "Ada"})
    answer = await runtime.http.post(f"/v1/runs/{run['run_id']}/cancel", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid-state")


async def test_the_benchmark_of_runs_measures_runs_calls_and_steps(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, size = tmp_path / "rows", runs.Size(rounds=1, seconds=0.2, in_flight=(1, 2), calls=2, steps=3)
    monkeypatch.setenv(table.FILE, str(rows))

    def measure() -> None:
        with Load.started(target(runtime.server.url, runtime.server.key)) as load:
            runs.report_rates(runs.rates(load, size))
            runs.burst(load, size, 3)
            runs.calls(load, size)
            runs.steps(load, size)

    await asyncio.to_thread(measure)
    printed, shown = capsys.readouterr().out, table.markdown(rows)
    assert "refused" not in printed and "failed" not in printed
    assert "nan" not in printed
    for part in ("api", "engine", "worker", "PostgreSQL", "NATS", "client"):
        assert f"{part} " in printed
    for row in ("one at a time |", "2 in flight |", "| 3 runs at once | 3 completed", "| a tool call through", "side by side |"):
        assert row in shown


def is_there(path: Path) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return await asyncio.to_thread(path.exists)

    return check
