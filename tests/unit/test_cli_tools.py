"""What the command line says of tools: what repeats a call, what would serve a tool, which secret it needs."""

from typing import Any

import pytest

from api.cli import definitions, tools
from api.cli.diagnosis import work
from api.cli.diagnosis.findings import Diagnosis
from api.cli.waiting import waits

HTTP = {"kind": "http", "request": {"url": "https://x/", "auth": {"secret": "tracker"}}}


@pytest.mark.parametrize(
    ("tool", "short", "told"),
    [
        ({"idempotent": True, "max_attempts": 3}, "yes, 3 attempts", "yes, 3 attempts"),
        ({"idempotent": False}, "no", "no: a call whose outcome is unknown waits for a person"),
        (
            {"idempotent": False, "reconcile_timeout_s": 30.0},
            "no, but can be asked",
            "no: `reconcile` finds out what became of a call whose outcome is unknown",
        ),
    ],
)
def test_what_repeats_a_call(tool: dict[str, Any], short: str, told: str) -> None:
    assert (tools._idempotent(tool), tools._repeats(tool)) == (short, told)


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ({"workers": 2, **HTTP}, "2"),
        ({"workers": 0, **HTTP}, "none carries it out: start one, with tidelog worker --builtin"),
        ({"workers": 0, "kind": "python"}, "none: start one that has it, with tidelog worker --agents FOLDER"),
        ({"workers": 0}, "none: start one that has it, with tidelog worker --agents FOLDER"),
        ({"workers": 0, "kind": "chain"}, "the server carries it out, and calls the tools of its steps"),
        ({}, ""),
    ],
)
def test_what_serves_a_tool(tool: dict[str, Any], told: str) -> None:
    assert tools._served(tool) == told


def test_a_chain_is_served_by_the_server() -> None:
    assert definitions.workers_of({"kind": "chain", "workers": 0}) == "the server"
    assert definitions.workers_of({"kind": "http", "workers": 0}) == "none"


def test_the_secret_is_told_by_its_name_where_there_is_one() -> None:
    assert tools._secret(HTTP) == "tracker, which is TIDELOG_SECRET_TRACKER of its worker"
    for other in (
        {},
        {"request": None},
        {"request": {"url": "x"}},
        {"request": {"auth": None}},
        {"request": {"auth": {"secret": 1}}},
    ):
        assert tools._secret(other) == ""


def test_a_call_that_waits_says_where_to_look() -> None:
    assert waits("a: k", "tool", "weather.get", 20).endswith("What would serve the tool: tidelog tools show weather.get")
    assert "tools show" not in waits("a", "agent", "writer", 20)


class Answers:
    """A server that has these tools."""

    def __init__(self, **kinds: str) -> None:
        self.kinds = kinds

    async def get(self, path: str, params: Any = None) -> Any:
        found = [{"name": name, "kind": kind, "workers": 0} for name, kind in self.kinds.items()]
        if path == "/v1/agents":
            return {"data": []}
        return {"data": found} if path == "/v1/tools" else next((one for one in found if path.endswith(one["name"])), None)


async def test_the_doctor_says_what_would_serve_a_tool() -> None:
    found, server = Diagnosis(), Answers(weather="http", code="python", links="chain")
    await work._idle_agents(found, server)  # type: ignore[arg-type]  # what it asks
    assert [(one.status, one.detail) for one in found.findings] == [
        ("note", "1 are registered and no worker with a session offers them: code"),
        ("warning", "1 are data, and no worker carries them out: weather"),
    ]
    assert found.findings[1].mend == work.START_BUILTIN

    async def told(kind: str, name: str) -> str:
        return await work._what_serves(server, {"kind": kind, "name": name})  # type: ignore[arg-type]

    assert await told("tool", "weather") == f"the tool is data, of the kind http: {work.START_BUILTIN}"
    for kind, name in (("tool", "code"), ("tool", "gone"), ("agent", "weather")):
        assert await told(kind, name) == f"start a worker that has {kind} {name}: tidelog worker --agents FOLDER"
