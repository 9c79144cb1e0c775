"""A process of roles: when any of its tasks ends, in any way, the process ends too, so that it is started again."""

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.embedded import EmbeddedServices
from tests.integration.forked_kit import RolesProcess
from tests.integration.system_kit import fresh_database
from tests.pace import within
from tests.ports import free_port

START_S = 60.0
END_S = 60.0
LOOKS = 30
"""Checks of a process that has all its tasks and others, before the others count as unknown tasks."""

LOOPS = {
    "writer", "nats", "histories", "notifications", "live", "snapshots", "sharing", "relay", "projections",
    "rebuilds", "sagas", "timers", "bulk-actions", "schedules", "triggers", "sweeper", "upkeep", "sessions", "http", "ready",
}  # fmt: skip
"""Tasks for which `serve` itself waits."""
OF_PARTS = {
    "group-commit", "writer-listens", "nats-connection-tidelog-api+projector+relay+saga", "log-reader", "setup", "uvicorn",
    "relay-copy", "relay-acks", "relay-history", "work-relay",
    "work-projections", "work-rebuilds", "work-sagas", "work-timers", "work-schedules", "work-triggers", "work-sweeper",
    "work-upkeep", "work-bulk-actions",
}  # fmt: skip
"""Tasks that a part of the process owns and must not lose."""
OF_NO_MATTER = {"signal", "stop", "the test"}
OF_LIBRARIES = ("Task-", "pool-", "tidelog-api+projector+relay+saga-")


@contextlib.asynccontextmanager
async def process_of_roles(services: EmbeddedServices, folder: Path) -> AsyncIterator[RolesProcess]:
    """All roles in one process, on a database of their own."""
    ready, log = folder / "ready", folder / "log"
    async with fresh_database(services) as database_url:
        environment = {
            **os.environ, "TIDELOG_DATABASE_URL": database_url, "TIDELOG_NATS_URL": services.nats_url,
            "TIDELOG_PORT": str(free_port()), "TIDELOG_READY_FILE": str(ready), "TIDELOG_LOG_FORMAT": "json",
            "TIDELOG_BOOTSTRAP_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
        }  # fmt: skip
        process = RolesProcess(environment, log)
        try:
            await process.connect()
            yield process
        finally:
            await process.end()
            print(log.read_text()[-4000:])


async def until_complete(process: RolesProcess) -> None:
    """Waits until all tasks of the process run, and no others."""
    expected, found, looks = LOOPS | OF_PARTS | OF_NO_MATTER, set[str](), 0
    try:
        async with within(START_S):
            while found != expected and looks < LOOKS:
                await asyncio.sleep(0.1)
                found = {name for name in await process.tasks() if not name.startswith(OF_LIBRARIES)}
                looks += expected <= found  # an unknown task may be one that ends soon
    except TimeoutError:
        pass
    assert found == expected, f"not there: {expected - found}; in none of the lists above: {found - expected}"


@pytest.mark.parametrize("name", [*sorted(OF_PARTS), "relay", "live", "http"])
async def test_with_any_of_its_tasks_the_process_ends(services: EmbeddedServices, tmp_path: Path, name: str) -> None:
    """The task is cancelled from outside: this end is the hardest to see, because asyncio does not report it.

    A new task is in none of the lists, and fails this test until its developer has decided which part notices the task's end.
    """
    async with process_of_roles(services, tmp_path) as process:
        await until_complete(process)
        await process.cancel(name)
        async with within(END_S):
            assert await process.wait() == 1
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
        assert "loop_failed" in [line["event"] for line in lines]
