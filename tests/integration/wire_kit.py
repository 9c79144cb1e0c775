"""A wire to a server. A test can cut, mend, slow down, mute or redirect the wire."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.ports import free_port


class Wire:
    """A TCP relay in front of a server. A cut takes the server away only from the clients of the wire."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._port = free_port()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        """Seconds by which each piece of data is delayed, in both directions."""
        self.taken = 0
        """The number of connections so far."""
        self._speaking = asyncio.Event()
        self._speaking.set()

    async def mend(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self._port

    async def cut(self) -> None:
        """Breaks all connections. New connections are refused until `mend`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.disconnect()

    async def disconnect(self) -> None:
        """Breaks all connections. New connections are accepted."""
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def mute(self) -> None:
        """Makes the wire half open.

        Connections stay and new ones are accepted, but no data comes through and neither side gets an error.
        """
        self._speaking.clear()

    async def unmute(self) -> None:
        """New connections come through again. Muted connections break, and their data is lost."""
        self._speaking.set()
        await self.disconnect()

    async def retarget(self, host: str, port: int) -> None:
        """Leads the same address to another server from now on. Connections to the old server break."""
        self._target = (host, port)
        await self.disconnect()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.taken += 1
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await _open(self._target)
                self._writers.add(far_writer)
                try:
                    await asyncio.gather(self._upstream(reader, far_writer), self._downstream(far_reader, writer))
                finally:
                    self._writers.discard(far_writer)
                    far_writer.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            self._tasks.discard(task)

    async def _upstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._copy(reader, writer)

    async def _downstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._copy(reader, writer)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._pass(data, writer)
        writer.transport.abort()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if self._speaking.is_set():
            writer.write(data)
            await writer.drain()


Edit = Callable[[bytes, bytes], bytes | None]
"""Takes (line, payload) of a NATS message. Returns the payload to pass on, or None to lose the message."""


def untouched(line: bytes, payload: bytes) -> bytes:
    return payload


class NatsWire(Wire):
    """A wire that parses the messages of the NATS protocol: a test can lose or change single messages."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.to_server: Edit = untouched
        """The edit for PUB and HPUB."""
        self.to_client: Edit = untouched
        """The edit for MSG and HMSG."""

    async def _upstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._copy_messages(reader, writer, lambda line, payload: self.to_server(line, payload))

    async def _downstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._copy_messages(reader, writer, lambda line, payload: self.to_client(line, payload))

    async def _copy_messages(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, edit: Edit) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                if line[:4].upper() in (b"PUB ", b"MSG ", b"HPUB", b"HMSG"):
                    words = line.split()
                    payload = await reader.readexactly(int(words[-1]) + 2)
                    edited = edit(line, payload[:-2])
                    if edited is None:
                        continue
                    if edited != payload[:-2]:  # only bodies of messages without headers are changed
                        line = b" ".join([*words[:-1], str(len(edited)).encode()]) + b"\r\n"
                    line += edited + b"\r\n"
                await self._pass(line, writer)
        writer.transport.abort()


def is_publish_ack(payload: bytes) -> bool:
    """Whether a message to a client is JetStream's acknowledgement of a stored message."""
    return payload.startswith(b'{"stream":') and b'"seq":' in payload


async def _open(target: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = target
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


def postgres_target(database_url: str) -> tuple[str, int]:
    """Returns the host (or the folder of a socket) and the port."""
    given = conninfo_to_dict(database_url)
    return str(given.get("host", "localhost")), int(given.get("port") or 5432)


@asynccontextmanager
async def wired(database_url: str) -> AsyncIterator[tuple[Wire, str]]:
    """Yields a wire to the Postgres of a URL, and the URL that leads through the wire."""
    wire = Wire(*postgres_target(database_url))
    port = await wire.mend()
    try:
        yield wire, make_conninfo(database_url, host="127.0.0.1", port=port)
    finally:
        await wire.cut()


@asynccontextmanager
async def nats_wired(nats_url: str) -> AsyncIterator[tuple[NatsWire, str]]:
    """Yields a wire to a NATS server, and the URL that leads through the wire."""
    parts = urlsplit(nats_url)
    assert parts.port is not None
    wire = NatsWire(parts.hostname or "127.0.0.1", parts.port)
    port = await wire.mend()
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    try:
        yield wire, f"nats://{login}127.0.0.1:{port}"
    finally:
        await wire.cut()
