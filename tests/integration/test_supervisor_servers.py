"""The keepers of the embedded servers: after any error of a start they try again, and a stranger on a server's port is reported."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.embedded.logs import LIMIT_BYTES
from api.settings import load_settings
from api.supervisor.config import SupervisorConfig
from api.supervisor.embedded import Servers
from application.engine.background import end
from tests.conftest import reachable_folder
from tests.integration.system_kit import eventually, nats_client_of
from tests.pace import within


@dataclass
class Watched:
    """A NATS that is kept running."""

    servers: Servers
    watching: asyncio.Task[None] | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def nats(self) -> dict[str, Any]:
        told = self.servers.describe()
        assert told is not None
        return dict(told["nats"])

    async def kill(self) -> None:
        os.kill(self.nats["pid"], signal.SIGKILL)

    async def answers(self) -> bool:
        assert self.watching is not None and not self.watching.done(), self.watching
        try:
            client = await nats_client_of(self.servers.environment()["TIDELOG_NATS_URL"], allow_reconnect=False)
        except OSError:
            return False
        await client.close()
        return True


@pytest.fixture
async def watched(database_url: str) -> AsyncIterator[Watched]:
    folder = reachable_folder()
    servers = Servers(SupervisorConfig.of(load_settings(data_dir=folder / "data", database_url=database_url)))
    await servers.start()
    watched = Watched(servers)
    watched.watching = asyncio.create_task(servers.watch(lambda: None, watched.moved.set))
    try:
        yield watched
    finally:
        await end(watched.watching)
        await servers.stop()
        shutil.rmtree(folder)


async def test_a_start_that_the_disk_refuses_is_tried_again(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    assert await watched.answers()
    configuration = Path(watched.nats["store"]).with_name("nats.conf")
    configuration.unlink()
    configuration.mkdir()  # an error of the system, for example a full disk
    await watched.kill()

    async def refused() -> bool:
        assert watched.watching is not None and not watched.watching.done(), watched.watching
        return "embedded_service_not_restarted" in capsys.readouterr().out

    await eventually(refused)
    configuration.rmdir()
    await eventually(watched.answers, timeout_s=30)
    assert not watched.moved.is_set()


async def test_who_knows_the_address_is_told_of_another(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger took the port. Clients would try the port for ever."""
    monkeypatch.setattr("adapters.embedded.nats_server._RETRY_S", 0.3)
    before, configuration = watched.nats["port"], Path(watched.nats["store"]).with_name("nats.conf")
    configuration.unlink()
    configuration.mkdir()  # no server starts before the stranger has come
    await watched.kill()
    with contextlib.closing(socket.socket()) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        async def taken() -> bool:
            with contextlib.suppress(OSError):
                stranger.bind(("127.0.0.1", before))
                stranger.listen()
                return True
            return False

        await eventually(taken)
        configuration.rmdir()
        async with within(30):
            await watched.moved.wait()
        assert watched.nats["port"] != before and await watched.answers()


async def test_logs_of_the_embedded_servers_are_kept_within_their_bounds(watched: Watched) -> None:
    assert watched.watching is not None
    await end(watched.watching)
    log = Path(watched.nats["log"])
    os.truncate(log, LIMIT_BYTES + 1)
    watched.watching = asyncio.create_task(watched.servers.watch(lambda: None, watched.moved.set))

    async def rotated() -> bool:
        return is_rotated(log)

    await eventually(rotated)


def is_rotated(log: Path) -> bool:
    return log.stat().st_size < LIMIT_BYTES and log.with_name(f"{log.name}.1").exists()
