"""The start of a server: its first key is on its way, and its own servers may be killed at this time, too."""

import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api.http.conventions.errors import StillStarting
from tests.chaos.server import kill_child, running_server
from tests.integration.system_kit import eventually, issue_key, running


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of the server in /proc")
@pytest.mark.parametrize("killed", [["nats", "nats", "nats"], ["postgres", "postgres"]])
async def test_servers_that_are_killed_while_they_start_are_started_again(killed: list[str], tmp_path: Path) -> None:
    async def kill(supervisor: int) -> None:
        for part in killed:

            async def dead(part: str = part) -> int | None:
                return kill_child(supervisor, part)

            await eventually(dead, f"{part} that is killed", timeout_s=60)

    (tmp_path / "agents").mkdir()
    async with running_server(tmp_path / "agents", "--no-worker", while_it_starts=kill) as server:
        assert await server.stop() == 0


async def test_a_key_that_is_being_issued_is_not_called_wrong(database_url: str, nats_url: str) -> None:
    issued = False

    async def check() -> None:
        if not issued:
            raise StillStarting("the first key is not issued yet")

    async with running(database_url, nats_url, given={"dependencies": {"setup": check}}) as system:
        with capture_logs() as lines:
            early = await system.http.get("/v1/agents")
        assert "request_failed" not in {line["event"] for line in lines}, "a start in order warns of nothing"
        assert (early.status_code, early.json()["code"]) == (503, "unavailable")
        assert early.json()["retryable"]

        await issue_key(system)
        assert (await system.http.get("/v1/agents")).status_code == 200, "usable at once, whatever else the start waits for"
        issued = True
        async with system.client("another") as stranger:
            late = await stranger.get("/v1/agents")
        assert (late.status_code, late.json()["code"]) == (401, "unauthenticated")
