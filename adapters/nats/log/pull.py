"""Reads a stream's messages in order from one sequence on: an ephemeral consumer without acknowledgements, and a pull loop of our
own.

The client's `fetch` is several times slower, and its ordered consumer loses messages silently. At most two pulls are outstanding,
and a pull is sent only if the buffer has room for its messages. That bounds the buffer, however slow the reader is. Heartbeats of
the server tell silence from death.
"""

import asyncio
import contextlib
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator

import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.nats.connection import NatsConnection, unavailable
from adapters.nats.jetstream import API, call
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

PULL_MESSAGES = 128
PULL_BYTES = 2 * 1024 * 1024
BUFFER_BYTES = 4 * 1024 * 1024
PULL_EXPIRES = 30.0
HEARTBEAT = 5.0
SILENCE_LIMIT = 2 * HEARTBEAT + 1
"""After so many seconds without a heartbeat the consumer counts as gone."""
INACTIVE_THRESHOLD = 60.0
"""The server deletes a consumer that nobody has pulled from for so many seconds."""

_SECOND = 1_000_000_000

# Ordinary ends of a pull: it brought all its messages, or its time is over.
_ORDINARY_ENDS = ("Message Size Exceeds MaxBytes", "Batch Completed", "Request Timeout", "No Messages")


class ConsumerLost(Unavailable):
    """The server's consumer is gone, or may have lost messages. Make a new one."""


class Puller:
    """The messages of one consumer, buffered. After ConsumerLost it cannot be used any more."""

    def __init__(self, client: Client, stream: str, consumer: str) -> None:
        self._client = client
        self._next = f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._pulls = 0
        self._wanted = 0
        self._buffer: deque[Msg] = deque()
        self._buffered_bytes = 0
        self._changed = asyncio.Event()
        self._heard_at = 0.0
        self._failure: Unavailable | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, connection: NatsConnection, *, stream: str, sequence: int, name: str) -> AsyncIterator["Puller"]:
        """Reads from `sequence` on, which may be one after the stream's last. `name` is for people who list consumers."""
        client = connection.client
        consumer = f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:40]}-{secrets.token_hex(6)}"
        puller = cls(client, stream, consumer)
        with connection.on_loss(lambda: puller._fail(ConsumerLost("the connection to NATS was lost"))):
            with unavailable("subscribe"):
                subscription = await client.subscribe(f"{puller._inbox}.*", cb=puller._on_message)
            try:
                await _create_consumer(connection, stream, consumer, sequence)
                yield puller
            finally:
                with contextlib.suppress(Unavailable), unavailable("leave"):
                    await subscription.unsubscribe()
                    # Without waiting for the answer: the server deletes the consumer after INACTIVE_THRESHOLD anyway.
                    await client.publish(f"{API}.CONSUMER.DELETE.{stream}.{consumer}")

    async def take(self, *, max_bytes: int, timeout: float) -> list[Msg]:
        """Buffered messages, at least one, up to about `max_bytes`. An empty list if none came within `timeout` seconds.

        Raises ConsumerLost. Messages that were buffered before are then not given out.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            if self._failure is not None:
                raise self._failure
            if self._buffer:
                return self._drain(max_bytes)
            await self._pull()
            now = loop.time()
            if now >= deadline:
                return []
            if now - self._heard_at > SILENCE_LIMIT:
                raise ConsumerLost(f"not even a heartbeat for {SILENCE_LIMIT:g} s")
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, self._heard_at + SILENCE_LIMIT + 0.01)):
                    await self._changed.wait()

    def interrupt(self, reason: str) -> None:
        """Makes every `take`, now and later, raise ConsumerLost."""
        self._fail(ConsumerLost(reason))

    async def pull_ahead(self) -> None:
        """Pulls more messages before the reader works on those it has."""
        if self._failure is None:
            await self._pull()

    def _drain(self, max_bytes: int) -> list[Msg]:
        messages: list[Msg] = []
        while self._buffer and max_bytes > 0:
            message = self._buffer.popleft()
            self._buffered_bytes -= len(message.data)
            max_bytes -= len(message.data) + 64
            messages.append(message)
        return messages

    async def _pull(self) -> None:
        """Keeps the number of messages that are buffered or under way below that of two pulls."""
        while self._buffered_bytes < BUFFER_BYTES and self._wanted + len(self._buffer) <= PULL_MESSAGES:
            if self._wanted <= 0:
                self._heard_at = asyncio.get_running_loop().time()  # no heartbeat was due until now
            self._pulls += 1
            self._wanted += PULL_MESSAGES
            request = {
                "batch": PULL_MESSAGES,
                "max_bytes": PULL_BYTES,
                "expires": int(PULL_EXPIRES * _SECOND),
                "idle_heartbeat": int(HEARTBEAT * _SECOND),
            }
            with unavailable("pull"):
                await self._client.publish(self._next, orjson.dumps(request), reply=f"{self._inbox}.{self._pulls}")

    async def _on_message(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        status = message.headers.get("Status") if message.headers else None
        if status is None:
            self._wanted -= 1
            self._buffer.append(message)
            self._buffered_bytes += len(message.data)
        elif status != "100":
            self._on_end(status, message.headers or {})
        self._changed.set()

    def _on_end(self, status: str, headers: dict[str, str]) -> None:
        """Notes that a pull is over. The headers say how many messages it did not bring; without that the count would drift."""
        description = headers.get("Description", "")
        owed = headers.get("Nats-Pending-Messages")
        if owed is not None and description in _ORDINARY_ENDS:
            self._wanted -= int(owed)
        elif description != "Batch Completed":
            self._fail(ConsumerLost(f"the pull ended with {status} {description}"))

    def _fail(self, error: Unavailable) -> None:
        self._failure = self._failure or error
        self._changed.set()


async def _create_consumer(connection: NatsConnection, stream: str, consumer: str, sequence: int) -> None:
    await call(
        connection,
        f"CONSUMER.CREATE.{stream}.{consumer}",
        {
            "stream_name": stream,
            "action": "create",
            "config": {
                "name": consumer,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": max(1, sequence),
                "ack_policy": "none",
                "replay_policy": "instant",
                "max_deliver": -1,
                "inactive_threshold": int(INACTIVE_THRESHOLD * _SECOND),
                "num_replicas": 1,
                "mem_storage": True,
            },
        },
    )
