"""The socket of event streams. What is sent to many is a frame that was made once, bytes and all."""

import asyncio
from collections.abc import Callable
from typing import Any

from api.http.conventions.door import ConnectionSlot, Door
from api.http.conventions.websockets import SocketConnection
from api.http.sockets.limits import MAX_FRAME

PING = b"\x89\x00"


def framed(*parts: bytes) -> bytes:
    """A frame of text, as a server sends it: the same bytes for all clients."""
    size = sum(map(len, parts))
    if size < 126:
        head = bytes((0x81, size))
    elif size < 65_536:
        head = b"\x81\x7e" + size.to_bytes(2, "big")
    else:
        head = b"\x81\x7f" + size.to_bytes(8, "big")
    return b"".join((head, *parts))


class Received:
    """What was received, for the one task that takes it. As much of `asyncio.Queue` as uvicorn needs, at a tenth of its size."""

    __slots__ = ("_messages", "_waiter")

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, message: Any) -> None:
        self._messages.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def empty(self) -> bool:
        return not self._messages

    async def get(self) -> Any:
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._messages.pop(0)


_WRITABLE = asyncio.Event()
_WRITABLE.set()


class EventConnection(SocketConnection):
    """Thousands may be open and idle, so each keeps little: no head of its request, and no event that nobody waits for."""

    def __init__(self, door: Door, slot: ConnectionSlot, **uvicorns: Any) -> None:
        super().__init__(door, slot, **uvicorns)
        self.queue = Received()  # type: ignore[assignment]  # in place of uvicorn's
        self.writable = _WRITABLE
        self.conn.max_message_size = MAX_FRAME
        self.relieved: Callable[[], None] | None = None
        """Called when the peer has read enough to be sent more."""
        self.heard = True
        """Whether the peer has said anything since the last look, were it a pong."""

    @property
    def is_open(self) -> bool:
        return self.handshake_complete and not (self.close_sent or self.disconnected or self.transport.is_closing())

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    def forget_request(self) -> None:
        """The connection is accepted. What the request said is not needed any more."""
        self.request = self.response = None  # type: ignore[assignment]  # uvicorn needs them for the answer alone
        self.scope["headers"] = ()
        self.scope["state"]["headers"] = {}

    def pause_writing(self) -> None:
        if self.writable is _WRITABLE:
            self.writable = asyncio.Event()
        super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.relieved is not None:
            self.relieved()

    def write(self, frame: bytes) -> None:
        """Writes a whole frame, unless the connection is about to end. Nothing is compressed or masked, so no protocol object has
        to see it.
        """
        if self.is_open:
            self.transport.write(frame)

    def close(self, code: int, reason: str) -> None:
        """Begins to close the connection, as uvicorn does for `websocket.close`. The task that receives gets a disconnect."""
        if not self.is_open:
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = asyncio.get_running_loop().call_later(self.close_timeout, self.transport.close)
