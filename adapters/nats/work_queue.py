"""The queue that workers pull from (`WorkQueue`): one work-queue stream, a subject per item, a durable consumer per agent or tool.

    WORK.<kind>.<tenant id>.<pool>.<work id>.<dispatch>      the dots of a pool's name are dots of the subject

The stream keeps one message per subject and refuses another one while it waits: so an item can be put on it any number of times.
A worker that takes an item has `ack_wait_s` seconds to say that it is alive (`+WPI`), else another one gets it.

All of it follows from the log. If the stream is lost it is made again, empty; `incarnation` tells those who fill it.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import structlog
from pydantic import TypeAdapter, ValidationError

from adapters.nats.connection import NatsConnection, NoResponders
from adapters.nats.jetstream import (
    STORE_REFUSED,
    STREAM_NAME_IN_USE,
    STREAM_NOT_FOUND,
    JetStreamError,
    call,
    parse,
    stream_info,
)
from application.ports import Queue, WorkItem
from domain.errors import InvalidCommand
from domain.kernel import Name

log = structlog.get_logger(__name__)

STREAM = "WORK"
ACK_WAIT_S = 10.0
_WINDOW = 256
"""Items in flight at once."""
_STILL_WAITS = "maximum messages per subject exceeded"
_SECOND = 1_000_000_000
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class JetStreamWorkQueue:
    """Implements `application.ports.WorkQueue`."""

    def __init__(self, connection: NatsConnection, *, replicas: int = 1, ack_wait_s: float = ACK_WAIT_S) -> None:
        """`ack_wait_s`: seconds that a worker may be silent about an item before another one gets it."""
        self._connection = connection
        self._replicas = replicas
        self._ack_wait = ack_wait_s
        self._window = asyncio.Semaphore(_WINDOW)
        self._highest = 0
        self._setbacks = 0

    async def publish(self, items: Sequence[WorkItem]) -> None:
        """As the port says. After Unavailable some of the items may be on the queue; publishing all again is right.

        Raises:
            InvalidCommand: a kind or pool that cannot be part of a subject.
        """
        messages = [(_subject(item), _payload(item)) for item in items]
        try:
            await self._publish_all(messages)
        except NoResponders:
            await self._create_stream()
            await self._publish_all(messages)

    async def ensure(self, tenant_id: UUID, kind: str, pool: str, *, max_pending: int) -> Queue:
        """As the port says; with another `max_pending` than before, the consumer is changed."""
        _check(kind, pool)
        consumer = hashlib.sha256(f"{kind}/{tenant_id}/{pool}".encode()).hexdigest()[:24]
        try:
            await self._create_consumer(consumer, tenant_id, kind, pool, max_pending)
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
            await self._create_stream()
            await self._create_consumer(consumer, tenant_id, kind, pool, max_pending)
        return Queue(kind, pool, STREAM, consumer)

    async def incarnation(self) -> str:
        """Changes when the queue lost what it held: made anew, or set back to an older copy while this process watched.

        Whoever finds another value than before dispatches all open work again. Makes the stream if there is none.
        Raises Unavailable.
        """
        before = self._highest
        info = await stream_info(self._connection, STREAM)
        if info is None:
            await self._create_stream()
            info = await stream_info(self._connection, STREAM) or {}
        last: int = info.get("state", {}).get("last_seq", 0)
        if last < before:
            log.warning("work_queue_set_back", last=last, before=before)
            self._setbacks += 1
            self._highest = last
        self._highest = max(self._highest, last)
        return f"{info.get('created', '')}/{self._setbacks}"

    async def _publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        for start in range(0, len(messages), _WINDOW):
            page = messages[start : start + _WINDOW]
            results = await asyncio.gather(*(self._publish(*message) for message in page), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _publish(self, subject: str, payload: bytes) -> None:
        async with self._window:
            answer = await self._connection.request(subject, payload, headers={"Nats-Expected-Stream": STREAM})
        try:
            self._highest = max(self._highest, parse("publish work", answer)["seq"])
        except JetStreamError as error:
            if error.err_code != STORE_REFUSED or error.description != _STILL_WAITS:
                raise

    async def _create_stream(self) -> None:
        configuration = {
            "name": STREAM,
            "description": "Tidelog's work for workers; made again from the log when lost",
            "subjects": [f"{STREAM}.>"],
            "retention": "workqueue",
            "storage": "file",
            "num_replicas": self._replicas,
            "discard": "new",
            "discard_new_per_subject": True,
            "max_msgs_per_subject": 1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_consumers": -1,
        }
        try:
            await call(self._connection, f"STREAM.CREATE.{STREAM}", configuration)
        except JetStreamError as error:
            if error.err_code != STREAM_NAME_IN_USE:
                raise
            return
        log.info("work_stream_created", stream=STREAM)

    async def _create_consumer(self, consumer: str, tenant_id: UUID, kind: str, pool: str, max_pending: int) -> None:
        configuration: dict[str, Any] = {
            "durable_name": consumer,
            "name": consumer,
            "description": f"{kind} {pool} of tenant {tenant_id}",
            "filter_subject": f"{STREAM}.{kind}.{tenant_id}.{pool}.*.*",
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait * _SECOND),
            "max_deliver": -1,
            "max_ack_pending": max_pending,
            "deliver_policy": "all",
            "replay_policy": "instant",
        }
        # The answer comes once the consumer is there; without an action it is made or brought in line.
        await call(
            self._connection,
            f"CONSUMER.CREATE.{STREAM}.{consumer}.{configuration['filter_subject']}",
            {"stream_name": STREAM, "config": configuration},
        )


def _check(kind: str, pool: str) -> None:
    try:
        _NAME.validate_python(pool)
    except ValidationError as error:
        raise InvalidCommand(f"not a name of an agent or tool: {pool!r}") from error
    if not re.fullmatch(r"[a-z]+", kind):
        raise InvalidCommand(f"not a kind of work: {kind!r}")


def _subject(item: WorkItem) -> str:
    _check(item.kind, item.pool)
    return f"{STREAM}.{item.kind}.{item.tenant_id}.{item.pool}.{item.work_id}.{item.dispatch}"


def _payload(item: WorkItem) -> bytes:
    return orjson.dumps(
        {
            "kind": item.kind,
            "pool": item.pool,
            "work_id": item.work_id,
            "dispatch": item.dispatch,
            "tenant_id": item.tenant_id,
            "root_id": item.root_id,
        }
    )
