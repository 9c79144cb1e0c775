"""The HTTP server, tested with bytes on a socket: each fault of a peer has a bound, and other clients are not affected."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest
import pytest_asyncio
import structlog
import uvicorn
from starlette.types import Receive, Scope, Send

from api.http.conventions.connection import PIECE
from api.http.conventions.deadlines import SECOND_LOOK_S
from api.http.conventions.door import Limits
from api.http.server import make_server
from tests.integration.system_kit import (
    PATIENCE_S,
    System,
    eventually,
    issue_key_without_projector,
    running,
    served,
)
from tests.pace import within

QUICK = Limits(first_s=0.5, head_s=0.5, body_pause_s=0.5, body_s=1.0, idle_s=0.5, send_s=0.5, linger_s=0.5)
BIG = 30_000_000
"""More bytes than all buffers on the way can hold."""


class Echo:
    """An application that answers with the received body.

    `/wait` waits for `go`, `/big` sends more than any buffer holds, `/early` does not read.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while scope["path"] != "/early":
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/wait":
            await self.go.wait()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        answer = orjson.dumps({"path": scope["path"], "body": body.decode(), "headers": headers})
        if scope["path"] == "/big":
            answer = b"x" * BIG
        length = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": answer})


class Peer:
    """A client that can break every rule of HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # the client is refused while it sends
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with within(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def echo(self) -> dict[str, Any]:
        status, _, body = await self.answer()
        assert status == 200
        return dict(orjson.loads(body))

    async def problem(self, status: int, code: str) -> dict[str, str]:
        """Reads the answer: this problem, and the last answer of the connection. Returns its headers."""
        found, headers, body = await self.answer()
        problem = orjson.loads(body)
        assert (found, problem["status"], problem["code"]) == (status, status, code), problem
        assert headers["content-type"] == "application/problem+json"
        assert problem["trace_id"] == headers["tidelog-trace-id"]
        if headers.get("connection") == "close":
            await self.closed()
        return headers

    async def closed(self) -> None:
        assert await self.rest() == b""

    async def rest(self) -> bytes:
        """What comes before the connection is closed."""
        async with within(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def serving(app: Any, limits: Limits) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    server = make_server(app, limits, host="127.0.0.1", port=0)
    task = asyncio.create_task(server.serve(), name="uvicorn")

    async def started() -> bool:
        return server.started

    try:
        await eventually(started, "the server")
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door() -> AsyncIterator[int]:
    """The port of a server with the usual limits, shared by all tests that do not change the server: a stop takes 0.2 s."""
    async with serving(Echo(), Limits()) as (_, port):
        yield port


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def chunked(*parts: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts)


TOO_LARGE = {
    "one header": [b"GET / HTTP/1.1\r\nX: ", *[b"a" * 10_000] * 800],
    "headers together": [b"GET / HTTP/1.1\r\n", *[b"X: %s\r\n" % (b"a" * 5_000)] * 20, b"\r\n"],
    "number of headers": [b"GET / HTTP/1.1\r\n", b"X: a\r\n" * 101, b"\r\n"],
    "path": [b"GET /", b"a" * 100_000, b" HTTP/1.1\r\n\r\n"],
    "space before a value": [b"GET / HTTP/1.1\r\nX:", b" " * 100_000],
    "line ends before a request": [b"\r\n" * 50_000],
    "the second request": [get("/"), b"GET / HTTP/1.1\r\nX: ", b"a" * 100_000],
    "a chunk's extension": [chunked(b"2;x="), b"y" * 100_000],
    "trailers": [chunked(b"0\r\n"), b"X: %s\r\n" % (b"a" * 9_000) * 10],
    "number of trailers": [chunked(b"0\r\n"), b"X: a\r\n" * 200],
}


@pytest.mark.parametrize("what", TOO_LARGE)
async def test_more_than_a_head_may_have_is_refused_and_not_kept(door: int, what: str) -> None:
    async with peer(door) as stranger:
        for part in TOO_LARGE[what]:
            await stranger.send(part)
        if "second" in what:
            await stranger.echo()
        headers = await stranger.problem(431, "headers-too-large")
        assert headers["connection"] == "close"
        async with peer(door) as other:
            await other.send(get("/"))
            await other.echo()


async def test_as_much_as_a_head_may_have_is_taken(door: int) -> None:
    async with peer(door) as client:
        for _ in range(2):
            for piece in (b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"X-%d: %s\r\n" % (i, b"a" * 600) for i in range(99)], b"\r\n"):
                await client.send(piece)
            assert len((await client.echo())["headers"]) == 100


NO_HTTP = {
    "garbage": b"garbage\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "no length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a path that is not ASCII": "GET /ü HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "two hosts, an old version": b"GET / HTTP/1.0\r\nHost: x\r\nhost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a bad chunk": chunked(b"zz\r\n"),
}


@pytest.mark.parametrize("what", NO_HTTP)
async def test_what_is_not_http_is_answered_by_a_problem(door: int, what: str) -> None:
    async with peer(door) as stranger:
        await stranger.send(get("/first"))
        assert (await stranger.echo())["path"] == "/first"
        await stranger.send(NO_HTTP[what])
        headers = await stranger.problem(400, "bad-request")
        assert headers["connection"] == "close"


async def test_what_is_not_http_waits_for_the_answers_before() -> None:
    app = Echo()
    async with serving(app, Limits()) as (_, port), peer(port) as stranger:
        await stranger.send(get("/wait") + get("/second") + b"garbage\r\n\r\n")
        app.go.set()
        assert [(await stranger.echo())["path"] for _ in range(2)] == ["/wait", "/second"]
        await stranger.problem(400, "bad-request")


async def test_an_answer_under_way_outlives_the_time_of_what_came_behind_it() -> None:
    app = Echo()
    async with serving(app, QUICK) as (_, port), peer(port) as stranger:
        for part in (get("/wait"), b"GET / HT", b"\x00"):
            await stranger.send(part)
            await asyncio.sleep(0.05)
        await asyncio.sleep(QUICK.head_s + 2 * SECOND_LOOK_S)
        app.go.set()
        assert (await stranger.echo())["path"] == "/wait"
        await stranger.problem(400, "bad-request")


@pytest.mark.parametrize("part", [b"GET / HT", b"GET /\r\n", get("/")[:-2]])
async def test_a_head_that_does_not_come_in_time(part: bytes) -> None:
    async with serving(Echo(), QUICK) as (_, port), peer(port) as slow, peer(port) as other:
        await slow.send(part)
        asking = asyncio.create_task(slow.problem(408, "request-timeout"))
        while not asking.done():
            await other.send(get("/"))
            await other.echo()
        await asking


async def test_a_head_that_trickles_has_no_more_time() -> None:
    async with serving(Echo(), QUICK) as (_, port), peer(port) as slow:
        asking = asyncio.create_task(slow.problem(408, "request-timeout"))
        await slow.send(b"GET / HTTP/1.1\r\nX: ")
        while not asking.done():
            await slow.send(b"a")
            await asyncio.sleep(0.02)
        await asking


async def test_who_says_nothing_is_hung_up_on() -> None:
    async with serving(Echo(), QUICK) as (server, port), peer(port) as silent, peer(port) as line_ends:
        await line_ends.send(b"\r\n\r\n")
        await silent.closed()
        await line_ends.closed()

        async def gone() -> bool:
            return not server.server_state.connections

        await eventually(gone, "no connection left")


@pytest.mark.parametrize("trickle", [False, True])
async def test_a_body_that_does_not_come_in_time(trickle: bool) -> None:
    """The time between two pieces has a bound, and so has the number of pieces."""
    async with serving(Echo(), QUICK) as (_, port), peer(port) as slow:
        asking = asyncio.create_task(slow.problem(408, "request-timeout"))
        await slow.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx")
        while not asking.done():
            await asyncio.sleep(0.02)
            if trickle:
                await slow.send(b"x")
        await asking


async def test_a_connection_without_another_request_is_closed() -> None:
    async with serving(Echo(), QUICK) as (_, port), peer(port) as client:
        for _ in range(3):
            await client.send(get("/"))
            await client.echo()
        await client.closed()


async def test_the_body_of_an_answered_request_is_not_waited_for_long() -> None:
    async with serving(Echo(), replace(QUICK, body_pause_s=60, body_s=60)) as (_, port), peer(port) as client:
        await client.send(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
        await client.echo()
        await client.closed()


async def test_who_does_not_read_is_hung_up_on_and_who_reads_slowly_is_not() -> None:
    async with serving(Echo(), QUICK) as (server, port):
        with socket.socket() as deaf:
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", port))
            await asyncio.get_running_loop().sock_sendall(deaf, get("/big", "Connection: close"))

            async def there() -> bool:
                return len(server.server_state.connections) == 1

            async def gone() -> bool:
                return not server.server_state.connections

            await eventually(there, "the connection")
            await eventually(gone, "its end")
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4_096)
        writer.write(get("/big", "Connection: close"))
        taken, loop = 0, asyncio.get_running_loop()
        began = loop.time()
        async with within(PATIENCE_S * 4):
            while piece := await reader.read(100_000):
                taken += len(piece)
                if loop.time() - began < 4 * QUICK.send_s:
                    await asyncio.sleep(0.02)
        assert taken > BIG
        writer.close()


async def test_pipelined_requests_are_answered_in_order_and_do_not_pile_up() -> None:
    app, count = Echo(), 5_000
    async with serving(app, Limits()) as (server, port), peer(port) as eager:
        sending = asyncio.create_task(eager.send(get("/wait") + b"".join(get(f"/{i}") for i in range(count))))

        async def held() -> bool:
            return any(connection._rest for connection in server.server_state.connections)  # type: ignore[union-attr]

        await eventually(held, "requests that wait behind others")
        [connection] = server.server_state.connections
        assert len(connection.pipeline) <= PIECE // len(get("/0")) + 1  # type: ignore[union-attr]
        app.go.set()
        assert [(await eager.echo())["path"] for _ in range(count + 1)] == ["/wait", *(f"/{i}" for i in range(count))]
        await sending


async def test_chunks_extensions_and_trailers(door: int) -> None:
    """A trailer is no header: a trailer comes after the check of the headers."""
    async with peer(door) as client:
        await client.send(chunked(b"2;x=y\r\nab\r\n", b"3\r\ncde\r\n", b"0\r\nX-API-Key: stolen\r\n\r\n") + get("/next"))
        first = await client.echo()
        assert (first["body"], "x-api-key" in first["headers"]) == ("abcde", False)
        assert (await client.echo())["headers"] == {"host": "x"}


@pytest.mark.parametrize("framing", ["none", "length", "chunks"])
async def test_an_upgrade_that_we_do_not_know_is_ignored(door: int, framing: str) -> None:
    """Java's client sends this header with each request. The bytes after the headers are the body and no request."""
    upgrade = "Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    head, body = {
        "none": (f"GET /u HTTP/1.1\r\n{upgrade}\r\n", b""),
        "length": (f"POST /u HTTP/1.1\r\n{upgrade}Content-Length: 5\r\n\r\n", b"hello"),
        "chunks": (f"POST /u HTTP/1.1\r\n{upgrade}Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    }[framing]
    async with peer(door) as client:
        for cut in (0, 2, len(body)):
            await client.send(head.encode() + body[:cut])
            await asyncio.sleep(0)
            await client.send(body[cut:] + get("/next"))
            first = await client.echo()
            assert (first["path"], first["body"]) == ("/u", "hello" if body else "")
            assert (await client.echo())["path"] == "/next"


# --- number of connections ------------------------------------------------------------------------------------------------


def key(system: System) -> str:
    return f"X-API-Key: {system.key}"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def test_strangers_share_what_an_address_may_have_and_a_key_has_its_own(shared: System) -> None:
    async with served(shared.container, Limits(per_address=3, per_key=50)) as url, contextlib.AsyncExitStack() as stack:

        async def come() -> Peer:
            return await stack.enter_async_context(peer(port_of(url)))

        readers = await asyncio.gather(*(come() for _ in range(40)))
        for reader in readers:  # all connections were open before one had shown its key
            await reader.send(get("/v1/events", key(shared), "Accept: text/event-stream"))
        for reader in readers:
            assert (await reader.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        strangers = [await come() for _ in range(4)]
        for stranger in strangers[:3]:
            await stranger.send(get("/health/live"))
            assert (await stranger.answer())[0] == 200
        await strangers[3].send(get("/health/live"))
        headers = await strangers[3].problem(429, "too-many-connections")
        assert (headers["retry-after"], headers["connection"]) == ("1", "close")
        wrong = await come()
        await wrong.send(get("/v1/agents", "X-API-Key: wrong"))
        assert (await wrong.problem(401, "unauthenticated"))["connection"] == "close"
        good = await come()
        await good.send(get("/v1/agents", key(shared)))
        assert (await good.answer())[0] == 200
        await good.send(get("/health/live"))
        assert (await good.answer())[0] == 200
        strangers[0].writer.transport.abort()

        async def may_come() -> bool:
            async with peer(port_of(url)) as another:
                await another.send(get("/health/live"))
                return (await another.answer())[0] == 200

        await eventually(may_come, "the place of the one that left")


async def test_those_of_an_address_that_show_no_key_are_hung_up_on(shared: System) -> None:
    limits = Limits(per_address=2, arriving=5, first_s=0.5)
    async with served(shared.container, limits) as url, contextlib.AsyncExitStack() as stack:
        early = [await stack.enter_async_context(peer(port_of(url))) for _ in range(2)]
        for one in early:
            await one.send(get("/health/live"))
            assert (await one.answer())[0] == 200
        # All come at once: those that came one by one might be hung up on before the last of them came.
        silent = await asyncio.gather(*(stack.enter_async_context(peer(port_of(url))) for _ in range(4)))
        told = [answer for answer in await asyncio.gather(*(one.rest() for one in silent)) if answer]
        assert len(told) == 1, "one is too many, and the others are hung up on"
        assert b" 429 " in told[0] and b"too-many-connections" in told[0]
        for one in early:
            await one.send(get("/health/live"))
            assert (await one.answer())[0] == 200


async def test_a_key_and_the_server_have_a_bound_of_connections(shared: System) -> None:
    async with served(shared.container, Limits(per_key=2)) as url, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(peer(port_of(url))) for _ in range(3)]
        for client in clients[:2]:
            for _ in range(2):
                await client.send(get("/v1/agents", key(shared)))
                assert (await client.answer())[0] == 200
        await clients[2].send(get("/v1/agents", key(shared)))
        assert (await clients[2].problem(429, "too-many-connections"))["connection"] == "close"
    async with served(shared.container, Limits(connections=2)) as url, contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(peer(port_of(url)))
        refused = await stack.enter_async_context(peer(port_of(url)))
        assert (await refused.problem(503, "unavailable"))["retry-after"] == "1"


async def test_behind_a_proxy_an_address_may_have_any_number(shared: System) -> None:
    async with served(shared.container, Limits(per_address=0)) as url, contextlib.AsyncExitStack() as stack:
        strangers = [await stack.enter_async_context(peer(port_of(url))) for _ in range(80)]
        for stranger in strangers:
            await stranger.send(get("/health/live"))
        assert {(await stranger.answer())[0] for stranger in strangers} == {200}


async def test_a_defect_is_answered_and_logged_once_and_the_connection_goes_on(
    database_url: str, nats_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(database_url, nats_url, roles=["api"]) as system:
        await issue_key_without_projector(system)
        await system.sql("DROP TABLE run")
        async with served(system.container) as url, peer(port_of(url)) as client:
            with structlog.testing.capture_logs() as logs, caplog.at_level(logging.ERROR, "uvicorn.error"):
                for _ in range(3):
                    await client.send(get("/v1/runs", key(system)))
                    assert "connection" not in await client.problem(500, "internal")
            assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["defect"] * 3
            assert caplog.records == []
