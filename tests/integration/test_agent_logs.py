"""What agents and tools of a real worker process log, as `tidelog runs logs` shows it."""

import json
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from api.cli import logs
from tests.integration.sdk_kit import end_of, log_lines, worker_process
from tests.integration.system_kit import System, eventually, served
from tidelog import Client
from tidelog.errors import NotFoundError

AGENTS = """
    import asyncio, contextvars, logging, threading
    from tidelog import Agent, Context, ToolContext, tool

    logger = logging.getLogger("mail")

    @tool("logs.mail", idempotent=True)
    def mail(ctx: ToolContext, to: str) -> None:
        print("printed by the tool")
        logger.warning("sending to %s", to)
        ctx.log.info("sent", to=to)

    class Talker(Agent):
        async def execute(self, ctx: Context):
            print("printed", ctx.attempt)
            logger.error("logged")
            ctx.log.info("with a field", n=1)
            await asyncio.to_thread(print, "from a thread")
            await ctx.step("s", lambda: print("from a step"))
            thread = threading.Thread(target=contextvars.copy_context().run, args=(logger.info, "with the context"))
            thread.start(); thread.join()
            bare = threading.Thread(target=contextvars.Context().run, args=(print, "of nobody"))
            bare.start(); bare.join()
            await ctx.tool("logs.mail", to="ada")
            print("\\x1b[31mred\\x1b[0m \\u202eevil \\x00")
            ctx.log.info("half a \\ud800 pair")
            ctx.log.info("x" * 1_000_000)
            ctx.log.warning("first\\nsecond")

    class Flooder(Agent):
        async def execute(self, ctx: Context):
            for number in range(12_000):
                print(number)
"""


@pytest_asyncio.fixture
async def url(shared: System, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setenv("TIDELOG_API_KEY", shared.key)
    async with served(shared.container) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logging_agents.py").write_text(textwrap.dedent(AGENTS))
    return tmp_path


async def show(
    capsys: pytest.CaptureFixture[str], url: str, run_id: object, *, follow: bool = False, as_json: bool = True, **wanted: str
) -> list[str]:
    """The lines of the command."""
    capsys.readouterr()
    given = {"level": None, "agent": None, "step": None, **wanted}
    await logs._logs(str(run_id), follow, given, None, url, as_json)
    return [line for line in capsys.readouterr().out.splitlines() if not as_json or line.startswith("{")]


async def test_what_a_worker_logs_comes_with_its_run_step_and_agent(
    shared: System, url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(url, shared.key) as client, worker_process(url, folder, key=shared.key):
        run_id = (await client.start_run(plan={"kind": "graph", "steps": [{"key": "talk", "agent": "talker"}]})).run_id
        followed = await show(capsys, url, run_id, follow=True)
        assert (await end_of(client, run_id)).status == "completed"

        async def all_came() -> bool:
            return len(await client.run_logs(run_id)) == 13

        await eventually(all_came, "all lines")
        lines = await show(capsys, url, run_id)
        assert followed and lines[: len(followed)] == followed
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        own = [line for line in found if line["tool"] is None]
        assert [(line["level"], line["text"]) for line in own[:6]] == [
            ("info", "printed 1"), ("error", "logged"), ("info", "with a field n=1"), ("info", "from a thread"),
            ("info", "from a step"), ("info", "with the context"),
        ]  # fmt: skip
        assert own[6]["text"] == "\x1b[31mred\x1b[0m \u202eevil \ufffd" and own[7]["text"] == "half a ? pair"
        assert len(own[8]["text"].encode()) <= 16_384 and own[8]["text"].endswith("x… [cut: 1,000,000 bytes]")
        assert own[9]["text"] == "first\nsecond" and len(own) == 10
        of_tool = [line for line in found if line["tool"] is not None]
        assert [(line["level"], line["text"]) for line in of_tool] == [
            ("info", "printed by the tool"), ("warning", "sending to ada"), ("info", "sent to=ada"),
        ]  # fmt: skip
        [call] = (await client.get_run(run_id)).step("talk").calls
        assert {(line["tool"], line["invocation_id"]) for line in of_tool} == {("logs.mail", str(call.invocation_id))}
        assert {(line["step"], line["agent"], line["attempt"]) for line in found} == {("talk", "talker", 1)}
        assert [line["line"] for line in found] == list(range(1, 14))

        assert {json.loads(line)["text"] for line in await show(capsys, url, run_id, level="warning")} == {
            "logged", "sending to ada", "first\nsecond",
        }  # fmt: skip
        assert await show(capsys, url, run_id, agent="another") == []
        assert len(await show(capsys, url, run_id, step="talk")) == 13
        plain = "\n".join(await show(capsys, url, run_id, as_json=False))
        assert "\x1b" not in plain and "\u202e" not in plain and "\\u001b[31mred" in plain
        assert "talk logs.mail" in plain and "talk  first\n" in plain and "talk  | second" in plain

        [line] = log_lines(folder, "with a field n=1")
        assert (line["run_id"], line["agent"], line["step"]) == (str(run_id), "talker", "talk")
        assert log_lines(folder, "logged") and log_lines(folder, "sent to=ada")

    _, key = await shared.tenant("another")
    async with Client(url, key) as stranger:
        with pytest.raises(NotFoundError):
            await stranger.run_logs(run_id)


async def test_a_run_has_so_many_lines_and_one_that_says_what_is_missing(
    shared: System, url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Client(url, shared.key) as client, worker_process(url, folder, key=shared.key):
        run_id = (await client.start_run(agent="flooder")).run_id
        assert (await end_of(client, run_id)).status == "completed"

        async def counted() -> bool:
            lines = await client.run_logs(run_id, after=9_999)
            return bool(lines) and lines[-1].dropped == 2_000

        await eventually(counted, "all lines are counted")
        found = [json.loads(line) for line in await show(capsys, url, run_id)]
    assert [line["text"] for line in found[:-1]] == [str(number) for number in range(10_000)]
    assert found[-1]["text"] == "2,000 lines were dropped: 2,000 because a run keeps 10,000 lines"
