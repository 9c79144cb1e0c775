"""A real `tidelog up` is used well and badly. Then every place where text ends up is searched for keys and passwords."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests.chaos.server import Server, running_server
from tests.pace import ANSWER_S, within

AGENT = """
from tidelog import Agent

class Greeter(Agent):
    name = "greeter"
    async def execute(self, ctx):
        ctx.log("a line")
        if ctx.input is None:
            raise ValueError("no name")
        return {"hello": ctx.input}
"""
WRONG = "wrong-4d5f9c2e7b1a"
"""A key that nobody has, as of somebody who mistyped his own."""
TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "greeter.py").write_text(AGENT)
    return folder


def secrets_of(server: Server) -> dict[str, str]:
    """By the file in which each secret may stand, and nowhere else. Only the owner may read these files."""
    found: dict[str, str] = {}
    for path in files(server.folder / "data"):
        if path.name == "secrets.json":
            found |= {f"{name} of {path.name}": value for name, value in json.loads(path.read_text()).items()}
        elif "key" in path.name and path.stat().st_size < 1_000:
            found[path.name] = path.read_text().strip()
    return found


def files(folder: Path) -> Iterator[Path]:
    """Regular files of a folder whose places are links, too."""
    for root, _, names in os.walk(folder, followlinks=True):
        yield from (path for name in names if (path := Path(root, name)).is_file() and not path.is_symlink())


def command_lines(server: Server) -> Iterator[tuple[str, bytes]]:
    """The command lines of all processes of the server. Everybody on the machine may read them."""
    for pid in (server.pid, *server.children().values()):
        yield f"arguments of {pid}", Path(f"/proc/{pid}/cmdline").read_bytes()


def rows(server: Server) -> Iterator[tuple[str, bytes]]:
    with psycopg.connect(server.database_url()) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            for (row,) in connection.execute(f"SELECT t::text FROM {table} AS t".encode()):
                yield table, row.encode()


async def use(server: Server) -> list[tuple[str, bytes]]:
    """Uses the server with its key and with a wrong one, in all places that take one. Returns the answers."""
    answers = []
    async with httpx2.AsyncClient(base_url=server.url, timeout=ANSWER_S) as http, within(60):
        right = {"Authorization": f"Bearer {server.key}"}
        while True:
            started = await http.post("/v1/runs", json={"agent": "greeter", "input": "Ada"}, headers={**right, "Prefer": "wait=20"})
            if started.status_code != 404:  # the agent is not registered yet
                break
        assert started.json()["run"]["status"] == "completed", started.text
        await http.post("/v1/runs", json={"agent": "greeter"}, headers={**right, "Prefer": "wait=20"})
        for headers in (
            {"Authorization": f"Bearer {WRONG}"},
            {"X-API-Key": WRONG},
            {"Authorization": WRONG},
            {"Authorization": f"Basic {WRONG}"},
        ):
            answers += [await http.get("/v1/runs", headers=headers), await http.get("/v1/workers/session", headers=headers)]
        answers += [
            await http.get(f"/v1/runs?key={server.key}", headers=right),
            await http.get("/v1/runs", headers={**right, "Cookie": server.key}),
        ]
        answers += [
            await http.post("/v1/runs", json={server.key: 1}, headers=right),
            await http.get(f"/v1/{server.key}", headers=right),
        ]
        answers = [
            answer
            for answer in answers
            if server.key not in str(answer.request.url) and server.key.encode() not in answer.request.content
        ]
        for path in (
            "/metrics",
            "/health/ready",
            "/v1/workers",
            "/v1/workers/problems",
            "/v1/events?limit=1000",
            "/openapi.json",
            "/v1/projections",
        ):
            answers.append(await http.get(path, headers=right))
        for path in ("/metrics", "/health/ready", "/v1/runs", "/health/live", "/nowhere"):
            answers.append(await http.get(path))
    return [(f"answer to {answer.request.method} {answer.request.url.path}", answer.content) for answer in answers]


def hides(secret: str, text: bytes) -> bool:
    """Whether a text is without a secret, in the form of `bytea`, too."""
    return secret.encode() not in text and secret.encode().hex().encode() not in text


async def test_secrets_stand_in_their_files_only(agents: Path) -> None:
    async with running_server(agents) as server:
        answers = await use(server)
        secrets = secrets_of(server)
        assert len(secrets) >= 5 and all(len(secret) >= 32 for secret in secrets.values()), secrets.keys()
        places = [*answers, *command_lines(server), *rows(server), ("output", server.output().encode())]
        for place, text in places:
            for name, secret in {**secrets, "wrong key": WRONG}.items():
                assert hides(secret, text), f"{name} in {place}"
        data = server.folder / "data"
        homes = {Path(json.loads((data / "server.json").read_text())["embedded"]["home"]), data}
        assert await server.stop() == 0
        searched = 0
        for path in {found.resolve() for home in homes for found in files(home)}:
            text = path.read_bytes()
            searched += 1
            for name, secret in secrets.items():
                if not hides(secret, text):
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600, f"{name} in {path}"
                    assert path.name in {"secrets.json", "nats.conf"} or "key" in path.name, f"{name} in {path}"
            assert hides(WRONG, text), path
        assert searched > 500, "PostgreSQL alone has more files"
