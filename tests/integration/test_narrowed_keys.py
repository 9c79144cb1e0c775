"""How people make keys for projects: the command line and the SDK, with a reason and on behalf of somebody."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from api.cli import keys as commands
from api.cli import output
from api.cli import projects as projects_commands
from tests.integration.system_kit import System, served
from tidelog import Client
from tidelog.errors import NotFoundError, PermissionDeniedError


@pytest_asyncio.fixture
async def url(system: System, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with served(system.container) as url:
        monkeypatch.setenv("TIDELOG_URL", url)
        monkeypatch.setenv("TIDELOG_API_KEY", system.key)
        yield url


async def project(system: System, name: str) -> str:
    made = await system.http.post("/v1/projects", json={"name": name})
    await system.settled()
    return str(made.json()["project_id"])


async def issue(tmp_path: Path, label: str, *projects: str, role: str = "auditor", reason: str | None = None) -> None:
    await commands._issue(label, role, list(projects), None, None, reason, "user:ada", tmp_path, None, True)


async def entries(system: System, **filters: str) -> list[dict[str, Any]]:
    await system.settled()
    return list((await system.http.get("/v1/audit", params=filters)).json()["data"])


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The document that a command printed. The server of the test logs into the same output."""
    out = capsys.readouterr().out
    document: dict[str, Any] = json.JSONDecoder().raw_decode(out[out.index("{\n") :])[0]
    return document


async def test_the_command_line_takes_names_of_projects_a_reason_and_for_whom(
    system: System, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reviews, twice = await project(system, "reviews"), [await project(system, "twice") for _ in range(2)]
    capsys.readouterr()
    await issue(tmp_path, "one", "reviews", twice[1], "reviews", reason="the audit of May")
    made = printed(capsys)
    await system.settled()
    shown = (await system.http.get(f"/v1/keys/{made['key_id']}")).json()
    assert shown["projects"] == sorted([reviews, twice[1]])
    async with Client(url, made["key"]) as client:
        assert {str(found.project_id) for found in await client.projects()} == {reviews, twice[1]}
        with pytest.raises(PermissionDeniedError, match="narrowed to projects"):
            await client.keys()
        own = await client.key()
        assert (str(own.key_id), own.role) == (made["key_id"], "auditor")
        assert own.projects == sorted([UUID(reviews), UUID(twice[1])])
    [entry] = await entries(system, action="keys.issue", target=made["key_id"])
    assert (entry["reason"], entry["on_behalf_of"], entry["result"]) == ("the audit of May", "user:ada", "done")
    for wrong, why in (("nothing", "there is no project 'nothing'"), ("twice", "2 projects have the name 'twice': give the id")):
        with pytest.raises(output.CommandFailed, match=why):
            await issue(tmp_path, "x", wrong)
    with pytest.raises(NotFoundError, match="there is no project"):
        await issue(tmp_path, "x", "01920000-0000-7000-8000-00000000dead")


async def test_a_rotation_a_revocation_and_a_removal_have_their_reasons(
    system: System, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    removed = await project(system, "removed")
    async with Client(url, system.key) as client:
        made = await client.issue_key("sdk", role="developer", projects=[UUID(removed)])
    await system.settled()
    capsys.readouterr()
    await commands._rotate(str(made.key_id), "1h", None, None, "as each year", "user:ada", tmp_path, None, True)
    turned = printed(capsys)["key_id"]
    await system.settled()
    assert (await system.http.get(f"/v1/keys/{turned}")).json()["projects"] == [removed]
    await commands._revoke(turned, "it was lost", "user:ada", tmp_path, None, True)
    await projects_commands._remove(removed, "nobody needs it", "user:ada", tmp_path, None, True)
    found = {entry["action"]: entry for entry in await entries(system, on_behalf_of="user:ada")}
    assert {action: entry["reason"] for action, entry in found.items()} == {
        "keys.rotate": "as each year", "keys.revoke": "it was lost", "projects.remove": "nobody needs it",
    }  # fmt: skip
