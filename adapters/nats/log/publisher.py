"""A pipelined publisher that keeps an order: each message names the message that it must follow, so a lost message stops all after
it.

The sequence alone does not name a message. While our message for a sequence is under way, another relay's message may take its
place, with a batch that was cut elsewhere, and our next message would follow that. So as long as the message before is not
acknowledged, its id must be the last one, too. (The id alone would not do either: after a restart the server remembers only ids of
the duplicate window.)

The client's own `publish_async` never resolves if the server answers with an error.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.nats.connection import NatsConnection, unavailable
from adapters.nats.jetstream import OUT_OF_STEP, JetStreamError, parse
from adapters.nats.log.wire import HISTORY, WireBatch
from domain.errors import Unavailable

WINDOW_MESSAGES = 512
WINDOW_BYTES = 8 * 1024 * 1024
"""Messages in flight. The bound is below the client's own buffer, so that publishing never blocks there."""

ACK_TIMEOUT = 5.0
"""The publisher gives up after so many seconds without an acknowledgement while some are due."""


class OutOfStep(Unavailable):
    """The stream's last message is not the expected one. Read the tail again."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for a stream."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    last: int
    """The position up to which the stream has all events once it has this message."""
    mark: str
    """Names the content, as a part of the message's id: other content at the same place must have another id."""


class OrderedPublisher:
    """Appends messages to one stream, from one known tail on. After the first failure it cannot be used any more."""

    def __init__(
        self,
        client: Client,
        log_id: str,
        history: str,
        stream: str,
        subject: str,
        sequence: int,
        on_stored: Callable[[int], None],
    ) -> None:
        self._client = client
        self._on_stored = on_stored
        self._subject = subject
        self._stream = stream
        self._log_id = log_id
        self._history = history
        self._sequence = sequence
        self._last_id = ""
        self._inbox = client.new_inbox()
        self._due: deque[tuple[int, Outgoing]] = deque()
        self._due_bytes = 0
        self._room = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._answered_at = 0.0
        """When the last acknowledgement came, or the first message since then was sent."""
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        connection: NatsConnection,
        *,
        log_id: str,
        history: str,
        stream: str,
        subject: str,
        sequence: int,
        on_stored: Callable[[int], None],
    ) -> AsyncIterator["OrderedPublisher"]:
        """`subject`: subject of batches. `sequence`: sequence of the stream's last message. `history`: id of the history of the
        events.

        `on_stored` is called with the position up to which the stream has all events.
        """
        client = connection.client
        publisher = cls(client, log_id, history, stream, subject, sequence, on_stored)
        with unavailable("subscribe"):
            subscription = await client.subscribe(f"{publisher._inbox}.*", cb=publisher._on_answer)
        try:
            with connection.on_loss(lambda: publisher._fail(Unavailable("the connection to NATS was lost"))):
                yield publisher
        finally:
            publisher._fail(Unavailable("closed"))
            with contextlib.suppress(Unavailable), unavailable("unsubscribe"):
                await subscription.unsubscribe()

    async def send(self, batch: WireBatch) -> None:
        """Publishes a batch of the log, see `publish`."""
        span = batch.span
        await self.publish(Outgoing(self._subject, span.headers(), batch.body, span.last, f"{span.previous}:{span.last}"))

    async def publish(self, message: Outgoing) -> None:
        """Returns when the message is sent. Waits while the window is full. Raises Unavailable, OutOfStep."""
        while self._due and (len(self._due) >= WINDOW_MESSAGES or self._due_bytes + len(message.body) > WINDOW_BYTES):
            self._room.clear()
            await self._room.wait()
            self._check()
        self._check()
        headers = {**message.headers, HISTORY: self._history}
        headers["Nats-Expected-Stream"] = self._stream
        headers["Nats-Expected-Last-Sequence"] = str(self._sequence)
        if self._due:
            headers["Nats-Expected-Last-Msg-Id"] = self._last_id
        self._sequence += 1
        # The id names place and content, so that only an exact repetition has the same id.
        self._last_id = f"{self._log_id}:{self._sequence}:{message.mark}"
        headers["Nats-Msg-Id"] = self._last_id
        if not self._due:
            self._answered_at = self._loop.time()
        self._due.append((self._sequence, message))
        self._due_bytes += len(message.body)
        if self._timer is None:
            self._timer = self._loop.call_later(ACK_TIMEOUT, self._look)
        with unavailable("publish"):
            await self._client.publish(message.subject, message.body, reply=f"{self._inbox}.{self._sequence}", headers=headers)

    async def failed(self) -> None:
        """Never returns. Raises the error that ended publishing."""
        await asyncio.shield(self._failure)

    def _check(self) -> None:
        if self._failure.done():
            self._failure.result()

    async def _on_answer(self, message: Msg) -> None:
        try:
            answer = parse("publish", message)
            sequence, due = self._due[0] if self._due else (None, None)
            if due is None or answer.get("seq") != sequence or answer.get("stream") != self._stream:
                raise OutOfStep(f"acknowledged {answer.get('stream')}:{answer.get('seq')}, expected {self._stream}:{sequence}")
        except JetStreamError as error:
            moved_on = error.err_code in OUT_OF_STEP
            self._fail(OutOfStep(error.message) if moved_on else error)
            return
        except Unavailable as error:
            self._fail(error)
            return
        self._due.popleft()
        self._due_bytes -= len(due.body)
        self._on_stored(due.last)
        self._room.set()
        self._answered_at = self._loop.time()

    def _look(self) -> None:
        """Gives up when an acknowledgement is overdue. One timer stands beside all messages: one for each would cost more."""
        self._timer = None
        if not self._due:
            return
        left = self._answered_at + ACK_TIMEOUT - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._fail(Unavailable(f"no acknowledgement within {ACK_TIMEOUT:g} s"))

    def _fail(self, error: Unavailable) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # senders and waiters see the error; asyncio need not warn
        self._room.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
