"""The packages that each kind of process imports: a role imports what it needs, and nothing of another role."""

import os
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT
from tests.pace import finished
from tests.ports import free_port

OURS = {"adapters", "api", "application", "domain", "projections"}
SETTINGS = {"annotated_types", "dotenv", "pydantic", "pydantic_core", "pydantic_settings", "typing_extensions", "typing_inspection"}
COMMAND_LINE = {"annotated_doc", "shellingham", "typer"}
POSTGRES = {"psycopg", "psycopg_binary", "psycopg_pool"}
ENGINE = OURS | SETTINGS | POSTGRES | {"immutables", "nats", "orjson", "structlog", "tidelog", "uvloop"}
HTTP = {
    "annotated_doc",
    "anyio",
    "click",
    "fastapi",
    "httptools",
    "opentelemetry",
    "prometheus_client",
    "starlette",
    "uuid_utils",
    "uvicorn",
    "websockets",
}

ROLES = {
    "api": ENGINE | HTTP | {"jsonschema_rs"},
    "api,relay": ENGINE | HTTP | {"jsonschema_rs"},
    "relay": ENGINE - {"immutables"},  # it knows no states
    "projector": ENGINE,
    "saga": ENGINE,
    "api,relay,projector,saga": ENGINE | HTTP | {"jsonschema_rs"},
}
SUPERVISOR = OURS - {"projections"} | POSTGRES | {"nats", "structlog", "tidelog", "typing_extensions"}
WORKER = SETTINGS - {"dotenv", "pydantic_settings"} | {"httpx2", "idna", "tidelog", "uuid_utils", "uvloop", "websockets"}

TELL = """
import os, sys

def tell():
    print("packages:", *{name.partition(".")[0] for name, module in sys.modules.items() if module}, flush=True)
    os._exit(0)
"""
ROLE = """
import asyncio, contextlib, os
from contextlib import asynccontextmanager
import api.assembly

build = api.assembly.assemble

@asynccontextmanager
async def assemble(settings, roles):
    async with build(settings, roles, log_id="unknown") as assembly:
        watching = asyncio.create_task(tell_when_started(settings.port if "api" in roles else None), name="watching")
        yield assembly

async def tell_when_started(port):
    while not any(task.get_name() == "ready" for task in asyncio.all_tasks()):
        await asyncio.sleep(0.01)
    while port is not None:
        with contextlib.suppress(OSError):
            await asyncio.open_connection("127.0.0.1", port)
            break
        await asyncio.sleep(0.01)
    tell()

api.assembly.assemble = assemble  # the id of the log is all that a start waits for
"""
BY_THE_COMMAND = """
from api.cli.main import app
app(["serve", "--roles", sys.argv[1]])
"""
BY_THE_SUPERVISOR = """
from api.cli.serving import serve
serve(sys.argv[1], migrate_first=False)
"""
START_SUPERVISOR = """
from api.supervisor.__main__ import Service, SupervisorConfig
Service(SupervisorConfig.from_json(sys.argv[1]), on_ready=print)
tell()
"""
START_WORKER = """
import socket, sys, threading
sys.modules["aiohttp"] = None  # nats would take it along where agents have brought it
from tidelog.worker.__main__ import main

server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: (server.accept(), tell()), daemon=True).start()
main(["--agents", sys.argv[1], "--api-key", "key", "--url", f"http://127.0.0.1:{server.getsockname()[1]}"])
"""
AGENT = """
from tidelog import Agent, Context

class Idle(Agent):
    \"\"\"Does nothing.\"\"\"

    async def execute(self, ctx: Context) -> None:
        pass
"""
HELP = """
from api.cli.main import app
try:
    app(["--help"])
finally:
    tell()
"""


def packages(source: str, *arguments: str, **environment: str) -> set[str]:
    """The packages that a process has imported when its source calls `tell`, without the standard library and private modules."""
    own = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    done = finished([sys.executable, "-c", TELL + source, *arguments], 120, env={**own, **environment})
    lines = [line for line in done.stdout.splitlines() if line.startswith("packages: ")]
    assert done.returncode == 0 and len(lines) == 1, done.stdout + done.stderr
    found = set(lines[0].split()[1:]) - sys.stdlib_module_names
    return {name for name in found if not name.startswith("_")} - {"cython_runtime"}


@pytest.mark.parametrize("roles", ROLES)
def test_a_process_of_roles(roles: str) -> None:
    """The process runs all its tasks. Neither PostgreSQL nor NATS is there."""
    assert of_roles(BY_THE_SUPERVISOR, roles) == ROLES[roles]


def test_a_process_of_roles_that_the_command_of_deployments_started() -> None:
    assert of_roles(BY_THE_COMMAND, "saga") == ROLES["saga"] | COMMAND_LINE


def of_roles(start: str, roles: str) -> set[str]:
    return packages(
        ROLE + start, roles, TIDELOG_PORT=str(free_port()), TIDELOG_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        TIDELOG_NATS_URL="nats://127.0.0.1:1",
    )  # fmt: skip


def test_the_supervisor(tmp_path: Path) -> None:
    from api.settings import Settings
    from api.supervisor.config import SupervisorConfig

    config = SupervisorConfig.of(Settings(data_dir=tmp_path))
    assert packages(START_SUPERVISOR, config.to_json()) == SUPERVISOR


def test_a_worker_up_to_its_first_connection(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    assert packages(START_WORKER, str(tmp_path)) == WORKER


def test_the_help_of_the_command_line() -> None:
    assert packages(HELP) == COMMAND_LINE | {"api", "attr", "markdown_it", "mdurl", "pygments", "rich", "tidelog"}
