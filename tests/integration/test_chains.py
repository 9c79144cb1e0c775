"""Chains of tools over HTTP and with real workers, and the how-to as it stands there."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from tests.integration.sdk_kit import running
from tests.integration.system_kit import System, eventually, new_id, served
from tests.integration.test_http_tools import at, is_refused, name, pointers
from tests.integration.test_sdk_tools import tidelog
from tidelog import Agent, Client, Context, tool

PAGE = (Path(__file__).parents[2] / "docs/how-to/chain-tools.md").read_text("utf-8")
CODE = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[DECLARED] = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^tidelog .*$", PAGE, re.MULTILINE)


@tool("chained.add", idempotent=True)
def add(a: int, b: int) -> Any:
    return a + b


class Caller(Agent):
    """Calls the tool of its input."""

    async def execute(self, ctx: Context) -> Any:
        return await ctx.tool(ctx.input["tool"], **ctx.input["arguments"])


@pytest_asyncio.fixture
async def url(shared: System) -> AsyncIterator[str]:
    async with served(shared.container) as url:
        yield url


def declaration(*steps: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {"version": "1", "kind": "chain", "parameters": {"type": "object"}, "chain": {"steps": list(steps)}} | changed


STEP = {"tool": "chained.add", "arguments": {"a": "arguments.x", "b": "1"}}


async def test_a_declaration_is_told_all_its_faults_with_their_places(shared: System, url: str) -> None:
    chain = name()
    steps: list[dict[str, Any]] = [
        {"name": "one", "tool": "chained.add", "arguments": {"a": "arguments.x +", "c": "1"}},
        {"name": "two", "tool": "chained.ad", "when": "steps.three.size() > 0"},
        {"name": "three", "tool": chain, "arguments": {"x": "town", "y": "steps.four"}},
        {"name": "three", "tool": "chained.add", "arguments": {"a": "'x'.matches(arguments.x)", "b": "1"}},
    ]
    async with running(url, add, Caller, key=shared.key):
        given = {"name": chain, **declaration(*steps, chain={"steps": steps, "result": "steps.five"})}
        told = await shared.http.post(
            f"/v1/tools/{chain}/validate", json={"declaration": {k: given[k] for k in given if k != "name"}}
        )
        errors = {error["pointer"]: error["detail"] for error in told.json()["errors"]}
        assert {place: detail.split("; did you")[0][:60] for place, detail in errors.items()} == {
            "/chain/steps/2/tool": "a chain does not contain itself",
            "/chain/steps/3/name": "another step is named 'three' already: each has a `name` of ",
            "/chain/steps/0/arguments/a": "1:14: Syntax error: mismatched input '<EOF>' expecting {'[', "[:60],
            "/chain/steps/1/when": "the step 'three' comes later",
            "/chain/steps/2/arguments/x": "1:1: undeclared reference to 'town' (in container '')\n | town\n"[:60],
            "/chain/steps/2/arguments/y": "there is no step 'four'",
            "/chain/steps/3/arguments/a": "a regular expression is a text in the expression itself",
            "/chain/result": "there is no step 'five'",
            "/chain/steps/0/arguments/c": "the tool 'chained.add' has no argument 'c'",
            "/chain/steps/0/arguments": "the tool 'chained.add' needs an argument 'b'",
            "/chain/steps/1/tool": "no tool 'chained.ad' is registered",
        }
        refused = await shared.http.post("/v1/tools", json=given)
        is_refused(refused, 422, "invalid-command")
        assert pointers(refused) == list(errors)
        unknown = await shared.http.post("/v1/tools", json={"name": chain, **declaration({"tool": "not.there"})})
        is_refused(unknown, 422, "invalid-command")
        assert pointers(unknown) == ["/chain/steps/0/tool"]
        for wrong in (
            {"chain": None},
            {"kind": "builtin", "builtin": "x"},
            {"chain": {"steps": []}},
            {"chain": {"steps": [STEP] * 51}},
        ):
            is_refused(
                await shared.http.post("/v1/tools", json={"name": chain, **declaration(STEP), **wrong}), 422, "invalid-command"
            )


async def test_a_chain_does_not_contain_itself_through_others(shared: System, url: str) -> None:
    inner, outer = name(), name()
    async with running(url, add, Caller, key=shared.key):
        assert (await shared.http.post("/v1/tools", json={"name": inner, **declaration(STEP)})).is_success
        assert (await shared.http.post("/v1/tools", json={"name": outer, **declaration({"tool": inner})})).is_success
        back = await shared.http.post(f"/v1/tools/{inner}/versions", json=declaration({"tool": outer}, version="2"))
        is_refused(back, 422, "invalid-command")
        assert pointers(back) == ["/chain/steps/0/tool"]
        assert f"contains itself: {inner} → {outer} → {inner}" in back.text


async def test_a_chain_of_chains_is_carried_out_and_its_calls_are_shown(shared: System, url: str) -> None:
    inner, outer = name(), name()
    async with running(url, add, Caller, key=shared.key), Client(url, shared.key) as client:
        twice = [{**STEP, "name": "one"}, {"tool": "chained.add", "arguments": {"a": "steps.one", "b": "steps.one"}}]
        made = await shared.http.post("/v1/tools", json={"name": inner, **declaration(*twice)})
        shown = (await shared.http.get(f"/v1/tools/{inner}", headers=at(made))).json()
        assert (shown["kind"], shown["chain"]) == ("chain", {"steps": twice})
        steps = [
            {"name": "inner", "tool": inner, "arguments": {"x": "arguments.n"}},
            {"tool": "chained.add", "when": "steps.inner > 99"},
        ]
        chain = {"steps": steps, "result": "{'sum': steps.inner, 'steps': size(steps)}"}
        refused = await shared.http.post("/v1/tools", json={"name": outer, **declaration(chain=chain)})
        assert pointers(refused) == ["/chain/steps/1/arguments"] * 2
        steps[1]["arguments"] = {"a": "1", "b": "2"}
        assert (await shared.http.post("/v1/tools", json={"name": outer, **declaration(chain=chain)})).is_success
        run = await client.start_run(agent="caller", input={"tool": outer, "arguments": {"n": 4}}, wait_s=60)
        assert (await client.wait(run.run_id)).result == {"sum": 10, "steps": 1}

        async def ended() -> list[Any]:
            calls = await client.invocations(run_id=run.run_id)
            return calls if len(calls) == 4 and all(call.status == "succeeded" for call in calls) else []

        calls = await eventually(ended)
        assert {(call.tool, call.key.split("#")[0]) for call in calls} == {
            (outer, outer), (inner, "inner"), ("chained.add", "one"), ("chained.add", "chained.add"),
        }  # fmt: skip
        failed = await client.start_run(agent="caller", input={"tool": outer, "arguments": {"n": "x"}}, wait_s=60)
        [step] = (await client.wait(failed.run_id)).steps
        assert step.error is not None
        assert "the step 'one' (tool 'chained.add') cannot begin: its arguments do not fit" in step.error["message"]


async def test_a_tool_of_another_tenant_is_not_there(shared: System, url: str) -> None:
    foreign = name()
    async with running(url, add, Caller, key=shared.key):
        assert (await shared.http.post("/v1/tools", json={"name": foreign, **declaration(STEP)})).is_success
        _, other = await shared.tenant(f"tenant {new_id()}")
        async with shared.client(other) as http:
            refused = await http.post("/v1/tools", json={"name": name(), **declaration({"tool": foreign})})
            nowhere = await http.post("/v1/tools", json={"name": name(), **declaration({"tool": "t" + "0" * 32})})
        assert refused.text.replace(foreign, "…").split("instance")[0][:40] == nowhere.text.replace("t" + "0" * 32, "…")[:40]
        assert pointers(refused) == pointers(nowhere) == ["/chain/steps/0/tool"]


async def test_the_page_works_as_it_stands_there(shared: System, url: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "how_to"}
    for code in CODE:
        exec(compile(code, "how-to", "exec"), names)
    (tmp_path / "restock.json").write_text(DECLARED)
    async with (
        running(url, names["find"], names["order"], names["Warehouse"], key=shared.key),
        Client(url, shared.key) as client,
    ):
        for command in COMMANDS[:3]:
            code, told = await tidelog(url, shared.key, command, tmp_path)
            assert code == 0, told
        assert "found" in told and "stock.order" in told
        run = await client.start_run(agent="warehouse", wait_s=60)
        assert (await client.wait(run.run_id)).result == {"article": "bolts", "ordered": "20 × bolts"}

        async def shown() -> bool:
            code, told = await tidelog(url, shared.key, f"tidelog invocations list --run {run.run_id}", tmp_path)
            return code == 0 and told.count("succeeded") == 3

        assert await eventually(shown, timeout_s=60)
        wrong = json.loads(DECLARED)
        wrong["chain"]["steps"][1]["arguments"]["pieces"] = "arguments.least * ten"
        (tmp_path / "restock.json").write_text(json.dumps(wrong))
        code, told = await tidelog(url, shared.key, COMMANDS[0], tmp_path)
        assert code == 1 and "undeclared reference to 'ten'" in told and "/chain/steps/1/arguments/pieces" in told, told
