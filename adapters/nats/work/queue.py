"""The queue that workers pull from (`WorkQueue`): one work-queue stream, a subject per item, a durable consumer per agent or tool.

    tidelog-work.<log id>.<kind>.<tenant id>.<pool>.<work id>.<dispatch>           the dots of a pool's name are dots of the subject
    tidelog-work.<log id>.<class>.<kind>.<tenant id>.<pool>.<work id>.<dispatch>   work of the classes `high` and `low`

An agent or tool without work needs nothing at NATS but a subscription: its consumer is made when it has work (`sleeping.py`).

Work of the class `normal` has the subject that all work had before there were classes, so processes of either release take what the
other one published. The consumers of the other classes are made when they are needed, and the server removes them when nobody has
pulled from them for an hour.

The stream keeps one message for each subject and refuses another one while the first waits. So an item can be published any number
of times. A worker that takes an item must say within `ack_wait_s` seconds that it is alive (`+WPI`), else another worker gets the
item.

All content follows from the log. A stream that was lost is made again, empty, and the reconciler fills it
(`application/engine/reconciler.py`).
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import orjson
import structlog
from pydantic import TypeAdapter, ValidationError

from adapters.nats import names
from adapters.nats.connection import REQUEST_TIMEOUT, NatsConnection
from adapters.nats.jetstream import (
    STORE_REFUSED,
    STREAM_NAME_IN_USE,
    STREAM_NOT_FOUND,
    JetStreamError,
    call,
    parse,
    reconfigure,
    stream_info,
)
from adapters.nats.work.puller import JetStreamPuller
from adapters.nats.work.sleeping import Source
from adapters.nats.work.watch import ClassWatch, Place, subject_of
from application.engine.ports.queue import Queue, WorkItem
from domain.errors import InvalidCommand, Unavailable
from domain.kernel import Name, Priority

log = structlog.get_logger(__name__)

_WINDOW = 256
"""Items in flight at once."""
_STILL_WAITS = "maximum messages per subject exceeded"
PUBLISH_S = REQUEST_TIMEOUT
_SECOND = 1_000_000_000
MAX_CONSUMERS = 1_000_000
"""A bound that is not reached. Without one, NATS 2.15 allows 1,000 consumers, and so as many agents and tools of all tenants."""
INACTIVE_S = 3_600
"""Seconds without a pull after which the server removes the consumer of a class that is not always pulled."""
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class JetStreamWorkQueue:
    """Implements the port `WorkQueue`."""

    def __init__(self, connection: NatsConnection, *, log_id: str, replicas: int = 1, ack_wait_s: float = 10) -> None:
        """`log_id`: whose work it is. `replicas`: how many servers of a cluster keep the queue. `ack_wait_s`: as the port says."""
        self._connection = connection
        self._log_id = names.checked(log_id)
        self.stream = names.work_stream(log_id)
        self._replicas = replicas
        self._in_line = False
        """Whether this process has seen the stream with its present configuration."""
        self._lining = asyncio.Lock()
        self.ack_wait_s = ack_wait_s
        self._window = asyncio.Semaphore(_WINDOW)
        self._watch = ClassWatch(connection, self.stream, names.work_subjects(log_id))

    async def publish(self, items: Sequence[WorkItem]) -> None:
        """See the port. After Unavailable some of the items may be on the queue; publish all of them again.

        Raises:
            InvalidCommand: a kind or pool that cannot be part of a subject.
        """
        messages = [(self._subject(item), self._payload(item)) for item in items]
        try:
            await self._publish_all(messages)
        except Unavailable:  # nobody answers for a stream that is lost; who listens for work hides that nobody does
            await self._create_stream()
            await self._publish_all(messages)

    def address(self, tenant_id: UUID, kind: str, pool: str, *, max_pending: int) -> Queue:
        _check(kind, pool)
        return self._queue(Place(kind, tenant_id, pool), max_pending, "normal")

    def _queue(self, place: Place, max_pending: int, priority: Priority) -> Queue:
        kind, tenant_id, pool = place
        consumer = hashlib.sha256(f"{_of_class(priority)}{kind}/{tenant_id}/{pool}".encode()).hexdigest()[:24]
        return Queue(kind, pool, self.stream, consumer, self._log_id, tenant_id, max_pending)

    async def _make(self, place: Place, max_pending: int, priority: Priority) -> Queue:
        """Makes the consumer of a class of one agent or tool. With another `max_pending` than before it is changed; with other
        `replicas`, the stream.
        """
        await self._ready()
        queue = self._queue(place, max_pending, priority)
        try:
            await self._create_consumer(queue, priority)
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
            await self._create_stream()
            await self._create_consumer(queue, priority)
        return queue

    def puller(self, queue: Queue, changed: Callable[[], None]) -> JetStreamPuller:
        place = Place(queue.kind, queue.tenant_id, queue.pool)
        subject, make = self._filter(place, "normal"), partial(self._make, place, queue.max_pending)
        source = Source(queue, place, subject, self._watch, self._ready, make)
        return JetStreamPuller(self._connection, source, changed)

    async def _publish_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        for start in range(0, len(messages), _WINDOW):
            page = messages[start : start + _WINDOW]
            results = await asyncio.gather(*(self._publish(*message) for message in page), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _publish(self, subject: str, payload: bytes) -> None:
        async with self._window:
            expected = {"Nats-Expected-Stream": self.stream}
            answer = await self._connection.request(subject, payload, headers=expected, timeout=PUBLISH_S)
        try:
            parse("publish work", answer)
        except JetStreamError as error:
            if error.err_code != STORE_REFUSED or error.description != _STILL_WAITS:
                raise

    async def _ready(self) -> None:
        """Makes sure of the stream, once. Raises Unavailable."""
        if not self._in_line:
            async with self._lining:
                if not self._in_line:
                    await self._bring_in_line()

    async def _bring_in_line(self) -> None:
        """Makes the stream, or changes one that was made with other settings. Refused, the stream stays as it is, and works."""
        info = await stream_info(self._connection, self.stream)
        if info is None:
            await self._create_stream()
        try:
            if info is not None and (changed := await self._reconfigure(info["config"])):
                log.info("work_stream_reconfigured", stream=self.stream, changed=changed)
        except JetStreamError as error:
            log.warning("work_stream_not_reconfigured", stream=self.stream, reason=error.message)
            return
        self._in_line = True

    async def _reconfigure(self, actual: dict[str, Any]) -> list[str]:
        wanted = self._configuration()
        try:
            return await reconfigure(self._connection, actual, wanted)
        except JetStreamError:
            # A server before 2.14 does not change how many consumers a stream may have. Nor has it a bound of its own.
            return await reconfigure(self._connection, actual, wanted | {"max_consumers": actual.get("max_consumers", -1)})

    async def _create_stream(self) -> None:
        try:
            await call(self._connection, f"STREAM.CREATE.{self.stream}", self._configuration())
        except JetStreamError as error:
            if error.err_code != STREAM_NAME_IN_USE:
                raise
            return
        log.info("work_stream_created", stream=self.stream)

    def _configuration(self) -> dict[str, Any]:
        return {
            "name": self.stream,
            "description": f"Work of Tidelog's log {self._log_id} for workers; made again from the log when lost",
            "subjects": [f"{names.work_subjects(self._log_id)}.>"],
            "retention": "workqueue",
            "storage": "file",
            "num_replicas": self._replicas,
            "discard": "new",
            "discard_new_per_subject": True,
            "max_msgs_per_subject": 1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_consumers": MAX_CONSUMERS,
        }

    async def _create_consumer(self, queue: Queue, priority: Priority) -> None:
        kind, tenant_id, pool, consumer = queue.kind, queue.tenant_id, queue.pool, queue.consumer
        of_class = _of_class(priority)
        configuration: dict[str, Any] = {
            "durable_name": consumer,
            "name": consumer,
            "description": f"{kind} {pool} of tenant {tenant_id}{of_class and f', {priority}'}",
            "filter_subject": self._filter(Place(kind, tenant_id, pool), priority),
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait_s * _SECOND),
            "max_deliver": -1,
            "max_ack_pending": queue.max_pending,
            "deliver_policy": "all",
            "replay_policy": "instant",
        }
        if of_class:
            configuration["inactive_threshold"] = INACTIVE_S * _SECOND
        # Without an action the server makes the consumer or changes it. The answer comes once the consumer exists.
        await call(
            self._connection,
            f"CONSUMER.CREATE.{self.stream}.{consumer}.{configuration['filter_subject']}",
            {"stream_name": self.stream, "config": configuration},
        )

    def _filter(self, place: Place, priority: Priority) -> str:
        """The subjects of the work of a class for one agent or tool."""
        return f"{self._beginning(priority)}.{subject_of(place)}.*.*"

    def _beginning(self, priority: Priority) -> str:
        """The beginning of the subjects of a class."""
        root = names.work_subjects(self._log_id)
        return root if priority == "normal" else f"{root}.{priority}"

    def _subject(self, item: WorkItem) -> str:
        _check(item.kind, item.pool)
        place = subject_of(Place(item.kind, item.tenant_id, item.pool))
        return f"{self._beginning(item.priority)}.{place}.{item.work_id}.{item.dispatch}"

    def _payload(self, item: WorkItem) -> bytes:
        of_class = {} if item.priority == "normal" else {"priority": item.priority}
        return orjson.dumps(
            {
                "kind": item.kind,
                "pool": item.pool,
                "work_id": item.work_id,
                "dispatch": item.dispatch,
                "tenant_id": item.tenant_id,
                "root_id": item.root_id,
                "log_id": self._log_id,
                **of_class,
            }
        )


def _of_class(priority: Priority) -> str:
    """The beginning of the name of a consumer, before it is hashed."""
    return "" if priority == "normal" else f"{priority}/"


def _check(kind: str, pool: str) -> None:
    try:
        _NAME.validate_python(pool)
    except ValidationError as error:
        raise InvalidCommand(f"not a name of an agent or tool: {pool!r}") from error
    if not re.fullmatch(r"[a-z]+", kind):
        raise InvalidCommand(f"not a kind of work: {kind!r}")
