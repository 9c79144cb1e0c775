"""A worker that speaks the protocol of sessions over a bare WebSocket, without the SDK."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.pace import within

PATIENCE_S = 15.0
Message = dict[str, Any]


@asynccontextmanager
async def socket(url: str, key: str | None, **options: Any) -> AsyncIterator[ClientConnection]:
    """An accepted connection. `url`: of the HTTP server."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    given: dict[str, Any] = {
        "additional_headers": headers, "subprotocols": [Subprotocol("tidelog.worker.v1")], "compression": None,
        "ping_interval": None, "max_size": 1024 * 1024, "proxy": None, "close_timeout": 2, **options,
    }  # fmt: skip
    path = given.pop("path", "/v1/workers/session")
    async with connect(f"{url.replace('http', 'ws', 1)}{path}", **given) as connection:
        yield connection


@dataclass
class SocketWorker:
    """One connection of a played worker. Messages that nobody has waited for yet are kept in the order in which they came."""

    connection: ClientConnection
    name: str = "socket-1"
    incarnation: str = field(default_factory=lambda: str(uuid.uuid4()))
    session: str | None = None
    secret: str | None = None
    came: list[Message] = field(default_factory=list)
    ids: int = 0
    number: int = 0
    """Of the last work that came."""
    closed: int | None = None
    """The close code."""
    welcome: Message = field(default_factory=dict)
    frames: int = 0
    """Frames that came."""
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def say(self, *messages: Message) -> None:
        await self.connection.send(json.dumps(list(messages)))

    async def wait(self, **wanted: Any) -> Message:
        """Waits for a message with these fields, and takes it out of what came."""

        def fits(message: Message) -> bool:
            return all(message.get(name) == value for name, value in wanted.items())

        async with within(PATIENCE_S):
            while not (found := [message for message in self.came if fits(message)]):
                await self._more(self.frames)
        self.came.remove(found[0])
        return found[0]

    async def _more(self, known: int) -> None:
        """Reads a frame, unless another task has read one since there were `known`."""
        async with self._reading:
            if self.frames != known:
                return
            try:
                frame = await self.connection.recv()
            except ConnectionClosed as closed:
                self.closed = closed.rcvd.code if closed.rcvd else 1006
                raise
            self.frames += 1
        assert isinstance(frame, str)
        for message in json.loads(frame):
            if message["t"] == "work":
                self.number = message["n"]
            self.came.append(message)

    async def until_closed(self) -> int:
        async with within(PATIENCE_S):
            while True:
                try:
                    await self._more(self.frames)
                except ConnectionClosed:
                    assert self.closed is not None
                    return self.closed

    async def hello(self, agents: Iterable[Message | str] = (), tools: Iterable[Message | str] = (), **more: Any) -> Message:
        """Says hello and waits for the welcome."""
        await self.say(
            {
                "t": "hello",
                "versions": [1],
                "worker": self.name,
                "incarnation": self.incarnation,
                "session": self.session,
                "secret": self.secret,
                "release": "test",
                **_definitions(agents, tools),
                **more,
            }
        )
        self.welcome = await self.wait(t="welcome")
        self.session, self.secret = self.welcome["session"], self.welcome["secret"]
        return self.welcome

    async def define(self, agents: Iterable[Message | str] = (), tools: Iterable[Message | str] = (), **more: Any) -> Message:
        """Says the whole set of definitions anew, and waits for the verdicts."""
        self.ids += 1
        await self.say({"t": "define", "id": self.ids, **_definitions(agents, tools), **more})
        return await self.answer(self.ids)

    async def credit(self, agent: int = 0, tool: int = 0) -> None:
        await self.say({"t": "credit", "n": self.number, "agent": agent, "tool": tool})

    async def work(self, kind: str = "agent") -> Message:
        return await self.wait(t="work", kind=kind)

    def report(self, work: Message, t: str, **fields: Any) -> Message:
        self.ids += 1
        return {
            "t": t, "id": self.ids, "work": work["work"], "attempt": work["attempt"], "token": work["token"], **fields,
        }  # fmt: skip

    async def answer(self, id: int) -> Message:
        async with within(PATIENCE_S):
            while not (found := [message for message in self.came if message.get("id") == id]):
                await self._more(self.frames)
        self.came.remove(found[0])
        return found[0]

    async def ask(self, work: Message, t: str, **fields: Any) -> Message:
        """Sends a report and waits for the answer."""
        report = self.report(work, t, **fields)
        await self.say(report)
        return await self.answer(report["id"])

    async def done(self, work: Message, t: str, **fields: Any) -> Message:
        answer = await self.ask(work, t, **fields)
        assert answer["t"] == "done", answer
        return answer

    async def refused(self, work: Message, t: str, **fields: Any) -> str:
        answer = await self.ask(work, t, **fields)
        assert answer["t"] == "refused", answer
        return str(answer["problem"]["code"])


def _definitions(agents: Iterable[Message | str], tools: Iterable[Message | str]) -> Message:
    tool = {"parameters": {"type": "object"}, "idempotent": True}
    return {
        "agents": [{"name": one} if isinstance(one, str) else one for one in agents],
        "tools": [{**tool, **({"name": one} if isinstance(one, str) else one)} for one in tools],
    }


@asynccontextmanager
async def worker_at(url: str, key: str, **known: Any) -> AsyncIterator[SocketWorker]:
    """A connection of a played worker. `known`: name, incarnation, session and secret of an earlier connection."""
    async with socket(url, key) as connection:
        worker = SocketWorker(connection, **known)
        beating = asyncio.create_task(_beat(worker), name="beats of the played worker")
        try:
            yield worker
        finally:
            beating.cancel()
            await asyncio.wait({beating})


async def offer(url: str, key: str, agents: Iterable[Message | str] = (), **more: Any) -> Message:
    """Offers agents, and what `more` has of the fields of `hello`, as a worker that then loses its connection.

    Returns the welcome.
    """
    async with worker_at(url, key, name="offering") as worker:
        return await worker.hello(agents, **more)


async def _beat(worker: SocketWorker) -> None:
    try:
        while True:
            await asyncio.sleep(3)
            await worker.say({"t": "beat"})
    except ConnectionClosed:
        pass
