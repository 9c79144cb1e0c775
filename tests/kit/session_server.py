"""A server of `tidelog.worker.v1` that does what a test says: for tests of a worker's session without a Tidelog server.

The test plays the server by hand, message by message, with a real WebSocket in between.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.pace import in_time
from tidelog.session import Session, Slots, Target, Welcome

SUBPROTOCOL = "tidelog.worker.v1"
PATIENCE_S = 10.0
KEY = "tl_test"
WELCOME = {"version": 1, "session": "s1", "secret": "hush", "release": "test", "lease_s": 10, "max_event_bytes": 262_144}


class Peer:
    """The server's side of one socket."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.hello: dict[str, Any] = {}
        self.beats = 0
        self.frames: list[list[dict[str, Any]]] = []
        """Each frame after the hello, without beats."""
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def say(self, *messages: dict[str, Any]) -> None:
        """One frame."""
        await self.socket.send(json.dumps(messages))

    async def welcome(self, **fields: Any) -> None:
        await self.say({"t": "welcome", **WELCOME, "agents": [], "tools": [], **fields})

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message of this type; those before are dropped."""

        async def find() -> dict[str, Any]:
            while True:
                message = await self._messages.get()
                if message["t"] == kind:
                    return message

        return await in_time(find(), PATIENCE_S)

    async def close(self, code: int, reason: str = "") -> None:
        await self.socket.close(code, reason)

    async def closed(self) -> int | None:
        """Waits until the worker has closed the socket. Returns the code."""
        await in_time(self.socket.wait_closed(), PATIENCE_S)
        return self.socket.close_code

    async def read(self, arrived: Callable[["Peer"], None]) -> None:
        async for text in self.socket:
            messages = [message for message in json.loads(text) if message["t"] != "beat" or self._beat()]
            if not self.hello and messages:
                self.hello = messages.pop(0)
                assert self.hello["t"] == "hello"
                arrived(self)
            if messages:
                self.frames.append(messages)
            for message in messages:
                self._messages.put_nowait(message)
            if any(message["t"] == "leaving" for message in messages):
                await self.socket.close(1000)

    def _beat(self) -> bool:
        self.beats += 1
        return False


class ScriptedServer:
    """Accepts the sockets of workers. `refusal`: an answer to the next upgrades instead."""

    def __init__(self) -> None:
        self.port = 0
        self.keys: list[str | None] = []
        """The `Authorization` of each upgrade."""
        self.refusal: tuple[int, bytes, dict[str, str]] | None = None
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def peer(self) -> Peer:
        """The next socket, whose hello has come."""
        return await in_time(self._peers.get(), PATIENCE_S)

    async def welcomed(self, **fields: Any) -> Peer:
        peer = await self.peer()
        await peer.welcome(**fields)
        return peer

    async def listen(self) -> None:
        self._server = await serve(
            self._talk, "127.0.0.1", self.port, subprotocols=[SUBPROTOCOL], compression=None, ping_interval=None,  # type: ignore[list-item]
            process_request=self._look, close_timeout=1, max_size=2**20,
        )  # fmt: skip
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Ends all sockets without a word, and listens no more."""
        if self._server is not None:
            for connection in list(self._server.connections):
                connection.transport.abort()
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def _look(self, socket: ServerConnection, request: Request) -> Response | None:
        self.keys.append(request.headers.get("Authorization"))
        if self.refusal is None:
            return None
        status, body, headers = self.refusal
        return Response(status, HTTPStatus(status).phrase, Headers({**headers, "Content-Length": str(len(body))}), body)

    async def _talk(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # as the worker chose
            await Peer(socket).read(self._peers.put_nowait)


@asynccontextmanager
async def scripted() -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    await server.listen()
    try:
        yield server
    finally:
        await server.stop()


class Heard:
    """A receiver that notes what it hears."""

    def __init__(self) -> None:
        self.welcomes: list[Welcome] = []
        self.troubles: list[tuple[str, bool]] = []
        self.works: list[dict[str, Any]] = []
        self.updates: list[dict[str, Any]] = []
        self.stops: list[dict[str, Any]] = []
        self.definitions: list[Any] = []

    def on_welcome(self, welcome: Welcome) -> None:
        self.welcomes.append(welcome)

    def on_definitions(self, agents: Any, tools: Any) -> None:
        self.definitions.append((agents, tools))

    def on_trouble(self, reason: str, lost: bool) -> None:
        self.troubles.append((reason, lost))

    def on_work(self, message: dict[str, Any]) -> None:
        self.works.append(message)

    def on_update(self, message: dict[str, Any]) -> None:
        self.updates.append(message)

    def on_stop(self, message: dict[str, Any]) -> None:
        self.stops.append(message)


@asynccontextmanager
async def session_with(server: ScriptedServer, heard: Heard, **options: Any) -> AsyncIterator[Session]:
    session = Session(Target.of(server.url, KEY), "w1", Slots(4, 2), heard)
    session.open()
    try:
        yield session
    finally:
        await session.close(**options)


def work(n: int, work: str = "a", attempt: int = 1) -> dict[str, Any]:
    return {"t": "work", "n": n, "kind": "agent", "work": work, "attempt": attempt, "token": f"of {work}"}


def named(session: Session, key: str) -> "asyncio.Future[dict[str, Any]]":
    return session.ask("record", {"key": key})
