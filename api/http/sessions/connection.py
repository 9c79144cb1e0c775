"""The socket of a session: uvicorn's WebSocket, with the place in the counts that the HTTP connection had, and its bounds."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

from api.http.conventions.deadlines import SendWatch
from api.http.conventions.door import ConnectionSlot, Door
from api.http.sessions.limits import END_S
from api.metrics import CONNECTIONS, REFUSED

MAX_PONGS = 64 * 1024
"""Bytes that may wait to be sent when a ping comes. A peer that pings and does not read would fill the memory with pongs."""


class SessionConnection(WebSocketsSansIOProtocol):
    """`slot`: the place of the HTTP connection, which this connection takes over. The scope has it as `state["connection"]`."""

    def __init__(self, door: Door, slot: ConnectionSlot, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._door = door
        self._slot = slot
        self._sending: SendWatch = None  # type: ignore[assignment]  # set with the transport
        self.stopping: Callable[[], None] | None = None
        """Called when the server stops."""
        self.on_frame: Callable[[str], bool] | None = None
        """Takes a frame of text in the moment in which it comes. False: the frame waits for `receive`."""

    def take_over(self, transport: asyncio.Transport, head: bytes) -> None:
        """Begins with the head of the request that asks for the upgrade. Nothing is read until the application has accepted."""
        self.connection_made(transport)
        self._sending = SendWatch(transport, self._door.limits.send_s, blocked=self._is_blocked, stuck=self._stuck)
        transport.set_protocol(self)
        self.read_paused = True
        transport.pause_reading()
        self.data_received(head)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["state"]["connection"] = self

    def send_receive_event_to_app(self) -> None:
        """A frame that can be taken at once wakes no task, and reading is not paused for it."""
        if self.on_frame is not None and self.curr_msg_data_type == "text" and self.queue.empty() and not self.close_sent:
            try:
                text = b"".join(self.frames).decode()
            except UnicodeDecodeError:
                text = ""
            if text and self.on_frame(text):
                self.frames = []
                return
        super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # uvicorn would call the refusal an error of the application

    def write(self, frame: bytes) -> bool:
        """Writes a frame of text. False: not now, for the connection is not open, or the peer does not read fast enough."""
        if self._is_blocked() or self.disconnected or not self.handshake_complete or self.close_sent:
            return False
        try:
            self.conn.send_text(frame)
        except InvalidState:  # the peer is closing the connection
            return False
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

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
        """The server stops. A session is told, and ends by itself."""
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

    def _is_blocked(self) -> bool:
        return not self.writable.is_set() or self.transport.is_closing()

    def _stuck(self) -> None:
        """Ends the connection of a peer that does not read."""
        REFUSED.labels("does-not-read").inc()
        self.abort()
