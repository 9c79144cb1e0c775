"""A client of event streams over a bare WebSocket."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jsonschema
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from api.http.documents import socket_messages
from application.engine.reading.cloudevents import ENVELOPE
from domain.projects import CreateProject
from tests.integration.system_kit import System, new_id
from tests.pace import within

PATIENCE_S = 15.0
PROTOCOL = "tidelog.events.v1"
Message = dict[str, Any]


@cache
def checker(type: str) -> Any:
    """Of a message of the server, as the AsyncAPI document describes it; here an unknown field is a fault."""
    schemas = socket_messages.schemas() | {"CloudEvent": ENVELOPE}
    for name, schema in schemas.items():
        if name.startswith(socket_messages.PREFIX) and "ProblemDocument" not in name:  # some problems say more
            schema["additionalProperties"] = False
    [model] = [model for model in socket_messages.SERVER if socket_messages.type_of(model) == type]
    root = {"$ref": f"#/components/schemas/{socket_messages.PREFIX}{model.__name__}", "components": {"schemas": schemas}}
    return jsonschema.Draft202012Validator(root)


@dataclass
class Reader:
    """Messages that nobody has waited for yet are kept in the order in which they came."""

    connection: ClientConnection
    came: list[Message] = field(default_factory=list)
    closed: int | None = None
    """The close code."""

    async def say(self, type: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": type, **fields}))

    async def subscribe(self, id: str = "a", *, after: str | None = None, window: int | None = None, **wanted: Any) -> Message:
        """Returns the answer."""
        await self.say("subscribe", id=id, filter=wanted, after=after, window=window)
        return await self.answer(id)

    async def answer(self, id: str) -> Message:
        return await self.next("subscribed", "error", id=id)

    async def next(self, *types: str, **fields: Any) -> Message:
        """The next message of one of the types (without types: of any) with these fields."""

        def fits(message: Message) -> bool:
            return (not types or message["type"] in types) and all(message.get(name) == fields[name] for name in fields)

        async with within(PATIENCE_S):
            while not (found := [message for message in self.came if fits(message)]):
                await self._receive()
        self.came.remove(found[0])
        return found[0]

    async def events(self, count: int, id: str = "a") -> list[Message]:
        """The next events of a subscription, so many or, if they come in one frame, more."""
        found: list[Message] = []
        while len(found) < count:
            found += (await self.next("events", id=id))["events"]
        return found

    async def _receive(self) -> None:
        try:
            frame = await self.connection.recv()
        except ConnectionClosed as closed:
            self.closed = closed.rcvd.code if closed.rcvd else 1006
            raise
        assert isinstance(frame, str)
        message = json.loads(frame)
        checker(message["type"]).validate(message)
        if message["type"] != "heartbeat":
            self.came.append(message)

    async def until_closed(self) -> int:
        async with within(PATIENCE_S):
            while self.closed is None:
                try:
                    await self._receive()
                except ConnectionClosed:
                    assert self.closed is not None
        return self.closed


@asynccontextmanager
async def socket(url: str, key: str | None, **options: Any) -> AsyncIterator[ClientConnection]:
    """An accepted connection. `url`: of the HTTP server."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    given: dict[str, Any] = {
        "additional_headers": headers, "subprotocols": [Subprotocol(PROTOCOL)], "compression": None, "ping_interval": None,
        "max_size": None, "proxy": None, "close_timeout": 2, **options,
    }  # fmt: skip
    path = given.pop("path", "/v1/ws")
    async with connect(f"{url.replace('http', 'ws', 1)}{path}", **given) as connection:
        yield connection


@asynccontextmanager
async def reader(url: str, key: str | None, **options: Any) -> AsyncIterator[Reader]:
    """A connection that was welcomed."""
    async with socket(url, key, **options) as connection:
        one = Reader(connection)
        assert (await one.next())["type"] == "welcome"
        yield one


def positions(events: list[Message]) -> list[int]:
    return [event["position"] for event in events]


async def projects(system: System, count: int, size: int = 10) -> int:
    """Appends events, and returns the position of the last one."""
    position = 0
    for _ in range(count):
        position = await system.command(CreateProject(project_id=new_id(), name="p", metadata={"x": "x" * size}))
    return position


async def head(system: System) -> int:
    return await system.container.feed.head()
