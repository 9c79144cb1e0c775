"""A small HTTP service of the tests' own, on a port of this machine: it keeps what it was sent, and answers as told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Answers = Callable[[Asked], bytes | None]
"""The whole answer as bytes. None: the connection is closed without one."""


def answer(status: int = 200, body: Any = None, *, raw: bytes | None = None, **headers: str) -> bytes:
    """An answer. `body`: as JSON. Underscores in names of headers become hyphens."""
    content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
    found = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    found |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Told", *(f"{name}: {value}" for name, value in found.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


def echo(asked: Asked) -> bytes:
    told = {"method": asked.method, "target": asked.target, "headers": dict(asked.headers), "body": asked.body.decode()}
    return answer(body=told)


@dataclass
class Service:
    """`routes`: by path. Other paths are answered with an echo. `asked`: all requests, in order. `connections`: how many came."""

    port: int = 0
    routes: dict[str, Answers] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@asynccontextmanager
async def played_service(host: str = "127.0.0.1", **routes: Answers) -> AsyncIterator[Service]:
    """Routes by name: `slow` is `/slow`."""
    service = Service(routes={f"/{name}": route for name, route in routes.items()})
    open_connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service.connections += 1
        task = asyncio.create_task(_serve(service, reader, writer))
        open_connections.add(task)
        task.add_done_callback(open_connections.discard)

    server = await asyncio.start_server(connected, host, 0)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()
        for task in list(open_connections):
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)


async def _serve(service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip("\r\n").split("\r\n")
                method, target, _ = first.split(" ", 2)
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(method, target, headers, body)
                service.asked.append(asked)
                told = service.routes.get(target.partition("?")[0], echo)(asked)
                if told is None:
                    return
                writer.write(told)
                await writer.drain()
    finally:
        writer.close()
