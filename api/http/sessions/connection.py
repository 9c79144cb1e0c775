"""The socket of a session: takes frames, and writes them, without a turn of the event loop where that can be done."""

from collections.abc import Callable
from typing import Any

from websockets.exceptions import InvalidState

from api.http.conventions.door import ConnectionSlot, Door
from api.http.conventions.websockets import SocketConnection


class SessionConnection(SocketConnection):
    def __init__(self, door: Door, slot: ConnectionSlot, **uvicorns: Any) -> None:
        super().__init__(door, slot, **uvicorns)
        self.on_frame: Callable[[str], bool] | None = None
        """Takes a frame of text in the moment in which it comes. False: the frame waits for `receive`."""

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

    def write(self, frame: bytes) -> bool:
        """Writes a frame of text. False: not now, for the connection is not open, or the peer does not read fast enough."""
        if self.is_blocked() or self.disconnected or not self.handshake_complete or self.close_sent:
            return False
        try:
            self.conn.send_text(frame)
        except InvalidState:  # the peer is closing the connection
            return False
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True
