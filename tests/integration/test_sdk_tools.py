"""Tools as workers have them: results that are checked, deprecations that warn, and the how-to as it stands there."""

import json
import re
import shlex
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.sdk_kit import running
from tests.integration.system_kit import System, eventually, new_id, served
from tests.kit import forked
from tests.pace import within
from tidelog import Agent, Client, Context, tool
from tidelog.errors import ConflictError, InvalidRequestError, NotFoundError
from tidelog.tool_classes import tool_of

PAGE = (Path(__file__).parents[2] / "docs/how-to/define-tools.md").read_text("utf-8")
CODE = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[DECLARED] = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^tidelog .*$", PAGE, re.MULTILINE)


@tool("checked.count", idempotent=True, returns={"type": "integer", "minimum": 0})
def count(given: Any) -> Any:
    return given


class Counter(Agent):
    async def execute(self, ctx: Context) -> Any:
        return [await ctx.tool("checked.count", given=given) for given in ctx.input]


class Caller(Agent):
    async def execute(self, ctx: Context) -> Any:
        return [await ctx.tool(str(ctx.input), key=key, given=1) for key in ("a", "b")]


@pytest_asyncio.fixture
async def url(shared: System) -> AsyncIterator[str]:
    async with served(shared.container) as url:
        yield url


async def test_a_result_that_does_not_fit_fails_the_call_for_good(shared: System, url: str) -> None:
    async with Client(url, shared.key) as client, running(url, Counter, count, key=shared.key):
        good = await client.start_run(agent="counter", input=[1, 2], wait_s=60)
        assert (await client.wait(good.run_id)).result == [1, 2]
        bad = await client.wait((await client.start_run(agent="counter", input=[1, -1])).run_id)
        assert bad.status == "failed"
        [_, call] = await client.calls(bad.run_id)
        told = await client.invocation(call.invocation_id)
        assert told.error is not None
        assert (told.status, told.attempt) == ("failed", 1)
        assert (told.error["type"], told.error["kind"]) == ("InvalidResultError", "permanent")
        assert "'checked.count' does not fit its schema: /: -1 is less than the minimum of 0" in told.error["message"]


async def test_a_call_of_a_deprecated_tool_warns_once_and_a_removed_one_is_unknown(shared: System, url: str) -> None:
    name = f"t{new_id().hex}"
    old = tool(name)(count.function)
    async with Client(url, shared.key) as client:
        async with running(url, Caller, old, count, key=shared.key):
            await client.deprecate_tool(name, replaced_by="checked.count", note="soon gone")
            run = await client.wait((await client.start_run(agent="caller", input=name)).run_id)
            assert run.result == [1, 1]
            warning = f"the tool '{name}' is deprecated; use 'checked.count' (soon gone)"

            async def warned() -> list[str]:
                return [line.text for line in await client.run_logs(run.run_id, level="warning")]

            assert await eventually(warned) == [warning]
            with pytest.raises(ConflictError) as refused:
                await client.remove_tool(name)
            assert refused.value.code == "tool-in-use" and "a worker offers" in (refused.value.detail or "")
            await client.reinstate_tool(name)
            again = await client.wait((await client.start_run(agent="caller", input=name)).run_id)
            assert again.result == [1, 1]
            texts = [line.text for line in await client.run_logs(again.run_id)]
            assert not [text for text in texts if "deprecated" in text]
        async with running(url, Caller, key=shared.key):
            await client.remove_tool(name)
            run = await client.wait((await client.start_run(agent="caller", input=name)).run_id)
            assert run.status == "failed" and run.steps[0].error is not None
            assert f"no tool '{name}' is registered" in run.steps[0].error["message"]
            with pytest.raises(NotFoundError):
                await client.tool(name)


async def test_a_client_defines_reads_and_validates(shared: System, url: str) -> None:
    name, declaration = f"t{new_id().hex}", json.loads(DECLARED)
    async with Client(url, shared.key) as client:
        with pytest.raises(InvalidRequestError) as refused:
            await client.define_tool(name, {**declaration, "needs_tools": [name]})
        assert refused.value.code == "invalid-command"
        assert not (await client.validate_declaration(name, {**declaration, "timeout_s": 0})).valid
        await client.define_tool(name, declaration, reason="for the test")
        await client.add_tool_version(name, {**declaration, "version": "2", "builtin": None, "description": "Another."})
        assert [version.version for version in await client.tool_versions(name)] == ["2", "1"]
        first = await client.tool_version(name, "1")
        assert (first.kind, first.request["url"], first.pinned) == ("http", declaration["request"]["url"], True)
        assert (await client.tool(name)).description == "Another."
        wrong = await client.validate_arguments(name, {"city": 1, "days": 9})
        assert sorted(error.pointer for error in wrong.errors) == ["/city", "/days"]
        await client.remove_tool(name)


# --- the how-to -------------------------------------------------------------------------------------------------------------


async def tidelog(url: str, key: str, command: str, folder: Path) -> tuple[int | None, str]:
    process = await forked.tidelog(
        *shlex.split(command, comments=True)[1:], cwd=folder, stdout=PIPE, stderr=STDOUT,
        env={"TIDELOG_URL": url, "TIDELOG_API_KEY": key, "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
    )  # fmt: skip
    async with within(60):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_the_how_to_works_as_it_stands_there(shared: System, url: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    for code in CODE:
        exec(compile(code, "how-to", "exec"), names)
    transfer = tool_of(names["Transfer"])
    assert transfer.describe().name == "bank.transfer"
    (tmp_path / "forecast.json").write_text(DECLARED)
    (tmp_path / "forecast-2.json").write_text(json.dumps(json.loads(DECLARED) | {"version": "2", "timeout_s": 5}))
    outputs: dict[str, str] = {}
    async with running(url, names["weather_now"], transfer, key=shared.key):
        for command in COMMANDS[:-1]:
            code, outputs[command] = await tidelog(url, shared.key, command, tmp_path)
            assert code == 0, outputs[command]
        code, told = await tidelog(url, shared.key, COMMANDS[-1], tmp_path)
        assert code == 1 and "a worker offers" in told, "the page says to stop the workers first"
    code, told = await tidelog(url, shared.key, COMMANDS[-1], tmp_path)
    assert code == 0, told
    validated, created, shown, arguments, second, versions, deprecated = outputs.values()
    assert validated == arguments == "Valid.\n"
    assert "api.example.com" in shown and "untrusted" in shown and "forecast" in created and "a version of" in second
    assert versions.count("no") >= 2 and "deprecated" in deprecated
    code, told = await tidelog(
        url, shared.key, """tidelog tools validate forecast --arguments '{"city": 7, "days": 9}'""", tmp_path
    )
    assert code == 1 and "/city: 7 is not of type" in told and "/days: 9 is greater" in told
    for wrong in (
        "tidelog tools validate forecast",
        "tidelog tools create x --declaration 7",
        "tidelog tools deprecate x --undo --note y",
    ):
        code, told = await tidelog(url, shared.key, wrong, tmp_path)
        assert code == 2, told
