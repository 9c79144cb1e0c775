"""What waits to be sent to a worker, and the frames in which it is sent. Implements the port `Peer` of a hosted session."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog
from starlette.types import Send

from api.http.conventions.websockets import END_S
from api.http.sessions.answers import Answers
from api.http.sessions.limits import CROWDED, MAX_FRAME, MAX_MESSAGE, MAX_MESSAGES, MAX_WAITING
from api.metrics import SESSION_MESSAGES
from application.workers.hosting.messages import Answer, Ending, Refused
from domain.errors import PayloadTooLarge, TidelogError

log = structlog.get_logger(__name__)

CODES: dict[Ending, int] = {
    "left": 1000,
    "stopping": 1001,
    "unavailable": 1013,
    "malformed": 4400,
    "key": 4401,
    "forbidden": 4403,
    "silent": 4408,
    "replaced": 4409,
    "too-much": 4413,
    "no-version": 4426,
}
"""Close codes."""
_SENT = SESSION_MESSAGES.labels("sent")


class Outbox:
    """The messages for one worker. `run` sends them; the owner ends the task."""

    def __init__(self, send: Send, answers: Answers, abort: Callable[[], None], write: Callable[[bytes], bool]) -> None:
        """`abort`: breaks the connection off. `write`: sends a frame at once; False: that cannot be done now."""
        self._send = send
        self._write = write
        self._answers = answers
        self._abort = abort
        self._urgent: deque[bytes] = deque()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._sending = False
        """A frame is on its way, before all that waits."""
        self._ending: Ending | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.sent_at = time.monotonic()
        self.relieved = asyncio.Event()
        """Set while not too much waits."""
        self.relieved.set()
        self.on_relief: Callable[[], None] = lambda: None
        self.on_refusal: Callable[[Exception], None] = lambda error: None
        """Called with the error of each message that is refused."""

    @property
    def is_crowded(self) -> bool:
        return self._bytes > CROWDED

    @property
    def ended(self) -> bool:
        return self._ending is not None

    def put(self, answer: Answer, *, urgent: bool = False, alone: bool = False) -> None:
        if self.ended:
            return None
        if isinstance(answer, Refused):
            self.on_refusal(answer.error)
        data = self._answers.written(answer)
        if len(data) > MAX_MESSAGE:
            log.error("message_too_large", type=type(answer).__name__, bytes=len(data))
            too_large = PayloadTooLarge(f"the answer of {len(data):,} bytes is over the limit of {MAX_MESSAGE:,} bytes")
            if (id := getattr(answer, "id", None)) is None:
                return self.end("unavailable", too_large)
            data = self._answers.written(Refused(id, too_large))
        if not (alone and self._sent_at_once(data)):
            self._add(data, urgent=urgent)
        return None

    def _sent_at_once(self, data: bytes) -> bool:
        """Sends a message without a turn of the loop, if nothing else is to be sent before it."""
        if self._bytes or self._sending or not self._write(b"[%s]" % data):
            return False
        _SENT.inc()
        self.sent_at = time.monotonic()
        return True

    def end(self, ending: Ending, error: TidelogError | None = None) -> None:
        if self.ended:
            return
        if error is not None:
            self._add(self._answers.error(error), urgent=False)
            log.info("session_ended", reason=ending, code=error.code, error=error.message)
        self._ending = ending
        self._filled.set()
        self.relieved.set()
        self._deadline = asyncio.get_running_loop().call_later(END_S, self._abort)

    def _add(self, data: bytes, *, urgent: bool) -> None:
        (self._urgent if urgent else self._waiting).append(data)
        self._bytes += len(data) + 1
        self._filled.set()
        if self._bytes > CROWDED:
            self.relieved.clear()
            if self._bytes > MAX_WAITING:
                log.warning("worker_does_not_read", waiting_bytes=self._bytes)
                self._ending = self._ending or "too-much"
                self._abort()

    async def run(self) -> None:
        """Sends until the end, and closes the connection then. Returns also when the connection is lost."""
        try:
            while True:
                await self._filled.wait()
                while frame := self._frame():
                    if not self._write(frame):
                        self._sending = True
                        await self._send({"type": "websocket.send", "text": frame.decode()})
                        self._sending = False
                    self.sent_at = time.monotonic()
                    if not self.relieved.is_set() and self._bytes <= CROWDED:
                        self.relieved.set()
                        self.on_relief()
                self._filled.clear()
                if self._ending is not None:
                    await self._send({"type": "websocket.close", "code": CODES[self._ending], "reason": self._ending})
                    return
        except (OSError, RuntimeError) as error:  # uvicorn's ways to say that the connection is gone
            log.debug("session_connection_gone", error=repr(error))

    def close(self) -> None:
        """The connection is over."""
        self._ending = self._ending or "left"
        if self._deadline is not None:
            self._deadline.cancel()
        self.relieved.set()

    def _frame(self) -> bytes:
        """The next frame: all that waits, as far as it fits. Empty: nothing waits."""
        parts: list[bytes] = []
        size = 2
        while (queue := self._urgent or self._waiting) and len(parts) < MAX_MESSAGES:
            if parts and size + len(queue[0]) + 1 > MAX_FRAME:
                break
            parts.append(queue.popleft())
            size += len(parts[-1]) + 1
        if not parts:
            return b""
        self._bytes -= size - 2
        _SENT.inc(len(parts))
        return b"[%s]" % b",".join(parts)
