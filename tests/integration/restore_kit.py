"""For tests of a restored log: a PostgreSQL server whose files are copied and restored, and readers that follow the documents."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from adapters.embedded import EmbeddedServices
from adapters.nats import NatsConnection
from adapters.nats.jetstream import stored_message, stream_info
from adapters.postgres.migrate import migrate
from domain.errors import Unavailable
from tests.integration.system_kit import position_of, streaming
from tests.pace import ANSWER_S
from tidelog import Client, HistoryReplaced


class Restorable:
    """A PostgreSQL server of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.services = EmbeddedServices(folder / "state", want_nats=False, durable=False)

    @property
    def url(self) -> str:
        return self.services.database_url

    async def back_up(self) -> None:
        await self._replaced("state", "backup")

    async def restore(self, *, new_timeline: bool = False, archive_s: float = 0.0) -> None:
        """Restores the copied files.

        `new_timeline`: the server starts a new timeline, as after a point-in-time recovery or a failover.
        `archive_s`: seconds that the archive takes to say that it lacks a file. The server answers readers meanwhile.
        """
        await self._replaced("backup", "state", f"sleep {archive_s:g}; false" if new_timeline else None)

    async def _replaced(self, source: str, target: str, restore_command: str | None = None) -> None:
        await self.services.stop()
        shutil.rmtree(self._folder / target, ignore_errors=True)
        copying = ["cp", "-a", str(self._folder / source), str(self._folder / target)]
        await asyncio.to_thread(subprocess.run, copying, check=True)
        if restore_command is not None:
            data = next((self._folder / target).rglob("PG_VERSION")).parent
            (data / "recovery.signal").touch()
            with (data / "postgresql.auto.conf").open("a") as settings:
                settings.write(f"restore_command = '{restore_command}'\n")
            owner = data.stat()
            os.chown(data / "recovery.signal", owner.st_uid, owner.st_gid)
        await self.services.start()


@asynccontextmanager
async def restorable() -> AsyncIterator[Restorable]:
    folder = Path(tempfile.mkdtemp(prefix="tidelog-test-"))
    os.chmod(folder, 0o711)  # the account of the servers must reach the folder
    server = Restorable(folder)
    await server.services.start()
    try:
        await migrate(server.url)
        yield server
    finally:
        await server.services.stop()
        shutil.rmtree(folder)


@dataclass
class Kept:
    """The events of a reader: position and id of each event, in order."""

    name: str
    events: list[tuple[int, str]] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        return self.events[-1][0] if self.events else 0

    def take(self, event: dict[str, Any]) -> None:
        """Drops repetitions, as the reader of an at-least-once delivery does."""
        if event["position"] > self.position:
            self.events.append((event["position"], event["id"]))

    def drop_after(self, common: int) -> None:
        self.resets.append(common)
        self.events = [event for event in self.events if event[0] <= common]


async def as_a_browser(url: str, key: str, kept: Kept, last: str = "0") -> None:
    """Keeps the last event id, reconnects with the id whenever the stream ends, and stops at any status other than 200."""
    while True:
        try:
            async with streaming(url, key, "/v1/events", {"Last-Event-ID": last}) as stream:
                while True:
                    event = await stream.next(timeout_s=60)
                    last = event.id or last
                    if event.event == "reset":
                        kept.drop_after(json.loads(event.data)["last_common_position"])
                    elif event.event != "resync":
                        assert position_of(event) == json.loads(event.data)["position"]
                        kept.take(json.loads(event.data))
        except (StopAsyncIteration, httpx2.TransportError):
            await asyncio.sleep(0.05)
        except AssertionError as error:  # an outage, as a browser behind a proxy sees it
            assert '"status":503' in str(error), error
            await asyncio.sleep(0.05)


async def as_a_poller(url: str, key: str, kept: Kept) -> None:
    """Reads pages of JSON after the last event. Each request names the last event and the history that the last answer named."""
    cursor = "0"
    async with httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=ANSWER_S) as client:
        while True:
            answer = await client.get("/v1/events", params={"after": cursor, "limit": 7})
            body = answer.json()
            if answer.status_code == 410 and body["code"] == "history-replaced":
                kept.drop_after(body["last_common_position"])
                cursor = body["cursor"]
            elif answer.status_code == 200 and body["data"]:
                for event in body["data"]:
                    kept.take(event)
                cursor = f"{kept.position}-{answer.headers['Tidelog-History']}"
            else:
                assert answer.status_code in (200, 503) or body["code"] == "position-beyond-head", answer.text
                await asyncio.sleep(0.05)


async def with_the_sdk(url: str, key: str, kept: Kept) -> None:
    cursor: int | str = 0
    async with Client(url, key) as client:
        while True:
            try:
                async for event in client.events(after=cursor):
                    kept.take({"position": event.position, "id": event.id})
                    cursor = event.cursor or cursor
            except HistoryReplaced as replaced:
                kept.drop_after(replaced.last_common_position)
                cursor = replaced.cursor


async def from_the_fan_out(nats: NatsConnection, stream: str, url: str, key: str, kept: Kept) -> None:
    """Reads the stream's messages, and starts at the first message when the stream was made anew.

    Asks over HTTP when the history changes.
    """
    history, made, sequence = "", "", 0
    async with httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=ANSWER_S) as client:
        while True:
            try:
                info = await stream_info(nats, stream)
                if info is not None and info["created"] != made:
                    made, sequence = info["created"], 0
                message = await stored_message(nats, stream, sequence + 1) if info is not None else None
            except Unavailable:
                message = None
            if message is None:
                await asyncio.sleep(0.05)
                continue
            event = json.loads(message.data)
            if history not in ("", message.headers["Tidelog-History"]):
                await _catch_up(client, history, event["position"], kept)
            history, sequence = message.headers["Tidelog-History"], sequence + 1
            kept.take(event)


async def _catch_up(client: httpx2.AsyncClient, history: str, until: int, kept: Kept) -> None:
    """Drops the events that the log has lost, and reads the log's events up to the next message."""
    cursor = f"{kept.position}-{history}"
    while True:
        answer = await client.get("/v1/events", params={"after": cursor})
        body = answer.json()
        if answer.status_code == 410:
            kept.drop_after(body["last_common_position"])
            cursor = body["cursor"]
        elif answer.status_code == 200:
            for event in body["data"]:
                if event["position"] < until:
                    kept.take(event)
            return
        else:
            await asyncio.sleep(0.05)


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Stops the readers. Raises the error that stopped a reader before."""
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
