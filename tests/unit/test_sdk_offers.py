"""What a worker says of its definitions: what the server would not take at all is left out, by name and with the reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kit.scripted_work import running
from tests.kit.session_server import Heard, ScriptedServer, session_with, work
from tests.kit.waiting import until
from tidelog import Agent, Context, tool
from tidelog.agent import AgentDefinition, describe_agent
from tidelog.discovery import Problem
from tidelog.errors import DefinitionError
from tidelog.session import Offer, driver
from tidelog.session.frames import MAX_MESSAGE_BYTES
from tidelog.session.offers import MAX_DEFINITIONS_BYTES, Said
from tidelog.tools import ToolDefinition


def an_agent(name: str, **more: Any) -> AgentDefinition:
    return AgentDefinition(**{"name": name, "version": "1", "description": "", "capabilities": (), **more})


def a_tool(name: str, **parameters: Any) -> ToolDefinition:
    return ToolDefinition(
        name=name, version="1", description="", capabilities=(), parameters=parameters, idempotent=False, timeout_s=1,
        max_attempts=1,
    )  # fmt: skip


def names(said: Said, kind: str) -> list[str]:
    return [one["name"] for one in said.fields[kind]]


def left_out(said: Said) -> list[tuple[str, str]]:
    """What is left out, as operators and the worker's log see it: both say the same."""
    reports = [(one["path"], one["message"]) for one in said.fields["problems"] if one["kind"] == "definition-refused"]
    logged = [(kind[:-1], one) for kind, verdicts in said.left_out.items() for one in verdicts]
    assert sorted((f"{kind} {one['name']}", one["problem"]["detail"]) for kind, one in logged) == sorted(reports)
    return reports


CYCLE: dict[str, Any] = {}
CYCLE["not"] = CYCLE
DEEP: dict[str, Any] = {}
for _ in range(10_000):
    DEEP = {"not": DEEP}


@pytest.mark.parametrize(
    "schema",
    [{"title": "\ud800"}, {"\ud800": 1}, {"default": object()}, CYCLE, DEEP],
    ids=["half surrogate", "in a key", "an object", "a cycle", "too deep"],
)
def test_a_definition_that_is_no_json_is_left_out_and_the_others_stay(schema: dict[str, Any]) -> None:
    said = Offer([an_agent("a"), an_agent("bad", output_schema=schema)], [a_tool("bad", **schema), a_tool("good")]).said()
    assert (names(said, "agents"), names(said, "tools")) == (["a"], ["good"])
    assert [(path, "cannot be written as JSON" in reason) for path, reason in left_out(said)] == [
        ("agent bad", True),
        ("tool bad", True),
    ]


def test_a_name_that_is_no_text_can_still_be_shown() -> None:
    assert left_out(Offer([an_agent("half \ud800")]).said())[0][0] == "agent half ?"


def test_of_too_many_definitions_the_last_added_are_left_out() -> None:
    said = Offer([an_agent(f"a{n}") for n in range(502)], [a_tool(f"t{n}") for n in range(501)]).said()
    assert (len(said.fields["agents"]), len(said.fields["tools"])) == (500, 500)
    assert [path for path, _ in left_out(said)] == ["agent a500", "agent a501", "tool t500"]


def test_of_too_large_definitions_the_largest_are_left_out_and_of_equal_ones_the_last() -> None:
    large = [a_tool(f"large{n}", enum=["x" * 200_000]) for n in range(5)]
    enormous = an_agent("enormous", output_schema={"enum": ["\N{WATER WAVE}" * 400_000]})
    said = Offer([enormous, an_agent("small")], [large[0], a_tool("tiny"), *large[1:]]).said()
    assert names(said, "agents") == ["small"] and names(said, "tools") == ["large0", "tiny", "large1", "large2"]
    assert [path for path, _ in left_out(said)] == ["agent enormous", "tool large3", "tool large4"]
    assert len(json.dumps(said.fields["tools"])) <= MAX_DEFINITIONS_BYTES


def test_problems_have_room_beside_the_definitions() -> None:
    tools = [a_tool(f"t{n}", enum=["x" * 1_400]) for n in range(500)]
    said = Offer([], tools, [Problem(Path("\ud800" * 600), "import-failed", "\u0001" * 5_000)] * 200).said()
    assert len(said.fields["tools"]) == 500 and len(said.fields["problems"]) > 5
    assert len(json.dumps(said.fields, ensure_ascii=False).encode()) < MAX_MESSAGE_BYTES - 20_000


class Fine(Agent):
    async def execute(self, ctx: Context) -> str:
        return "x"


class Half(Agent):
    async def execute(self, ctx: Context) -> str:
        return "x"


Half.__doc__ = "Half \ud800."


@tool("t.nan")
def takes_nan(a: float = float("nan")) -> float:
    return a


@tool("t.nul")
def takes_nul(a: str = "\0") -> str:
    return a


@pytest.mark.parametrize("describe", [lambda: describe_agent(Half), takes_nan.describe, takes_nul.describe])
def test_a_definition_that_cannot_be_sent_is_no_definition(describe: Any) -> None:
    """So discovery reports it with its file."""
    with pytest.raises(DefinitionError, match="cannot be written as JSON") as caught:
        describe()
    assert caught.value.kind == "invalid-metadata"


async def test_the_receiver_hears_of_what_was_left_out_as_of_what_the_server_refuses(server: ScriptedServer) -> None:
    heard = Heard()
    async with session_with(server, heard) as session:
        peer = await server.peer()
        session.offer(Offer([an_agent("a"), an_agent("half", description="\ud800")]))
        await peer.welcome()
        define = await peer.hear("define")
        await peer.say({"t": "done", "id": define["id"], "agents": [{"name": "a", "accepted": True}], "tools": []})
        await until(lambda: heard.definitions)
        [(agents, _)] = heard.definitions
        assert [(one["name"], one["accepted"]) for one in agents] == [("a", True), ("half", False)]
        await peer.close(1001)
        await server.welcomed(agents=[{"name": "a", "accepted": True}])
        await until(lambda: len(heard.welcomes) == 2)
        assert [one["name"] for one in heard.welcomes[1].agents] == ["a", "half"]


async def test_definitions_follow_the_hello_where_the_work_in_hand_leaves_no_room(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "MAX_IN_HAND", 1_500)
    heard = Heard()
    async with session_with(server, heard) as session:
        session.offer(Offer([], [a_tool("large", enum=["x" * 700_000])]))
        peer = await server.welcomed()
        for first in range(1, 2_000, 100):
            await peer.say(*(work(n, f"{n:0100}") for n in range(first, first + 100)))
        await until(lambda: len(heard.works) == 2_000)
        await peer.close(1001)
        again = await server.welcomed()
        assert (len(again.hello["work"]), again.hello["tools"]) == (1_500, [])
        assert (await again.hear("define"))["tools"][0]["name"] == "large"


async def test_a_worker_logs_each_refusal_once(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    refused = [{"name": "fine", "accepted": True}, {"name": "x", "accepted": False, "problem": {"detail": "bad"}}]
    async with running(server, Fine) as shown:
        peer = await server.welcomed(agents=refused)
        await until(lambda: "definition_refused" in caplog.messages)
        shown.worker.show_problems([])
        define = await peer.hear("define")
        await peer.say({"t": "done", "id": define["id"], "agents": refused, "tools": []})
        shown.worker.show_problems([])
        await peer.hear("define")
    assert caplog.messages.count("definition_refused") == 1
