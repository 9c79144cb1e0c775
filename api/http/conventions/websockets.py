"""The socket of a WebSocket: uvicorn's, with the place in the counts that the HTTP connection had, and its bounds."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from starlette.types import Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from api.container import Container
from api.http.conventions.audit import COUNTED, count_refusal
from api.http.conventions.deadlines import SendWatch
from api.http.conventions.door import ConnectionSlot, Door
from api.http.conventions.errors import response_to
from api.metrics import CONNECTIONS, REFUSED, REQUESTS
from domain.access import Action
from domain.errors import Forbidden

END_S = 5.0
"""Seconds in which the last messages must be sent, and the peer must have closed."""
MAX_PONGS = 64 * 1024
"""Bytes that may wait to be sent when a ping comes. A peer that pings and does not read would fill the memory with pongs."""


class SocketConnection(WebSocketsSansIOProtocol):
    """`slot`: the place of the HTTP connection, which this connection takes over. The scope has it as `state["connection"]`."""

    def __init__(self, door: Door, slot: ConnectionSlot, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._door = door
        self._slot = slot
        self._sending: SendWatch = None  # type: ignore[assignment]  # set with the transport
        self.stopping: Callable[[], None] | None = None
        """Called when the server stops."""

    def take_over(self, transport: asyncio.Transport, head: bytes) -> None:
        """Begins with the head of the request that asks for the upgrade. Nothing is read until the application has accepted."""
        self.connection_made(transport)
        self._sending = SendWatch(transport, self._door.limits.send_s, blocked=self.is_blocked, stuck=self._stuck)
        transport.set_protocol(self)
        self.read_paused = True
        transport.pause_reading()
        self.data_received(head)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["state"]["connection"] = self

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # uvicorn would call the refusal an error of the application

    def handle_ping(self) -> None:
        if self.transport.get_write_buffer_size() > MAX_PONGS:
            self._stuck()
            return
        super().handle_ping()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._sending.close()
        self._door.leave(self._slot)
        CONNECTIONS.dec()

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            self.loop.call_later(END_S, self.abort)

    def shutdown(self) -> None:
        """The server stops. Whoever serves the peer is told, and ends by itself."""
        if self.stopping is not None and not self.close_sent:
            self.stopping()
        else:
            super().shutdown()

    def abort(self) -> None:
        """Breaks the connection off, if it is still open."""
        if not self.disconnected:
            self.transport.abort()

    def identify(self, key_id: UUID) -> None:
        """Counts the connection for the valid key of the request. Raises TooManyConnections."""
        self._door.identify(self._slot, key_id)

    def is_blocked(self) -> bool:
        """Whether the peer does not read fast enough, or the connection is about to end."""
        return not self.writable.is_set() or self.transport.is_closing()

    def _stuck(self) -> None:
        """Ends the connection of a peer that does not read."""
        REFUSED.labels("does-not-read").inc()
        self.abort()


def must_be_of_this_site(headers: dict[bytes, bytes]) -> None:
    """Raises Forbidden for a page of another site: a browser sends `Origin`, other programs do not."""
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and urlsplit(origin).netloc.lower() != headers.get(b"host", b"").decode("latin-1").lower():
        raise Forbidden(f"a WebSocket may not be opened by a page of {origin[:200]}")


async def refuse(container: Container, scope: Scope, send: Send, error: Exception, *, path: str, opening: Action) -> None:
    """Answers a request for a WebSocket with the error as a problem, and counts a refusal. `opening`: what a key must allow."""
    response = response_to(scope, error)  # type: ignore[arg-type]  # a Scope is a dict
    REQUESTS.labels("GET", path, response.status_code).inc()
    if response.status_code in COUNTED:
        count_refusal(container, scope, opening)
    headers = [*response.raw_headers, (b"tidelog-trace-id", scope["state"]["trace_id"].encode())]
    await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": bytes(response.body)})
