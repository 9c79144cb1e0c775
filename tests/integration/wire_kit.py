"""A wire to a server, which a test cuts, mends, slows down, lets fall silent, or leads elsewhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Wire:
    """A TCP relay in front of a server: the server goes away for those behind it, and for nobody else."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        """Seconds that each piece of data is late, in both directions."""
        self.taken = 0
        """Connections so far."""
        self._speaking = asyncio.Event()
        self._speaking.set()

    async def mend(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self._port

    async def cut(self) -> None:
        """Connections break, and new ones are refused until `mend`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.disconnect()

    async def disconnect(self) -> None:
        """Connections break; new ones are welcome."""
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def mute(self) -> None:
        """Half open: connections stay and new ones are taken, but nothing comes through and nobody is told."""
        self._speaking.clear()

    async def unmute(self) -> None:
        """New connections come through. The muted ones break: what they were to carry is lost."""
        self._speaking.set()
        await self.disconnect()

    async def retarget(self, host: str, port: int) -> None:
        """The same address leads to another server from now on; connections to the old one break."""
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
"""(line, payload) of a NATS message → the payload to pass on, or None to lose the message."""


def untouched(line: bytes, payload: bytes) -> bytes:
    return payload


class NatsWire(Wire):
    """A wire that understands NATS as far as messages go: single ones can be lost or changed on their way."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.to_server: Edit = untouched
        """For PUB and HPUB."""
        self.to_client: Edit = untouched
        """For MSG and HMSG."""

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
                    if edited != payload[:-2]:  # only bodies without headers are changed
                        line = b" ".join([*words[:-1], str(len(edited)).encode()]) + b"\r\n"
                    line += edited + b"\r\n"
                await self._pass(line, writer)
        writer.transport.abort()


def is_publish_ack(payload: bytes) -> bool:
    """Whether a message to a client is JetStream's acknowledgement of something stored."""
    return payload.startswith(b'{"stream":') and b'"seq":' in payload


async def _open(target: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = target
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


def postgres_target(database_url: str) -> tuple[str, int]:
    """Host (or the folder of a socket) and port."""
    given = conninfo_to_dict(database_url)
    return str(given.get("host", "localhost")), int(given.get("port") or 5432)


@asynccontextmanager
async def wired(database_url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A wire to the Postgres of a URL, and the URL that goes through it."""
    wire = Wire(*postgres_target(database_url))
    port = await wire.mend()
    try:
        yield wire, make_conninfo(database_url, host="127.0.0.1", port=port)
    finally:
        await wire.cut()


@asynccontextmanager
async def nats_wired(nats_url: str) -> AsyncIterator[tuple[NatsWire, str]]:
    """A wire to a NATS server, and the URL that goes through it."""
    parts = urlsplit(nats_url)
    assert parts.port is not None
    wire = NatsWire(parts.hostname or "127.0.0.1", parts.port)
    port = await wire.mend()
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    try:
        yield wire, f"nats://{login}127.0.0.1:{port}"
    finally:
        await wire.cut()
