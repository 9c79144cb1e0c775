"""The fan-out: every event as a CloudEvent on a subject of its own, in a JetStream stream for subscribers outside.

    tidelog.<log id>.<tenant id>.<slice>.<event>      as tidelog.7f3a…-5.0192….run.started

The fan-out has a stream of its own, because subscribers outside want wildcards, JSON and one message for each event, and the engine
should not pay for that. The fan-out reads the log as every consumer does, and publishes as the relay does: each message names the
message that it must follow. So two fan-outs at once are harmless, and the stream's last message says where to go on. Nobody waits
for subscribers: the stream keeps what its limits allow.

Each message names the history of the log that it belongs to, so that subscribers learn when theirs has ended.

The last message can age out. So the fan-out regularly writes the last message's place into the stream's metadata. As long as the
stream is at that sequence, the note is as good as the message. A doubt remains only about messages that were published after the
last note by a process that then stayed away for longer than messages live. In that case the fan-out repeats some events rather than
skip any.
"""

import asyncio
import random
import re
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
import structlog

from adapters.nats import names
from adapters.nats.connection import NatsConnection
from adapters.nats.fanout import subscribers
from adapters.nats.jetstream import (
    STREAM_NAME_IN_USE,
    JetStreamError,
    call,
    delete_stream,
    reconfigure,
    stored_message,
    stream_info,
)
from adapters.nats.log.publisher import OrderedPublisher, Outgoing, OutOfStep
from adapters.nats.log.wire import HISTORY
from application.engine.background import end
from application.engine.ports.log import EventFeed, Subscription
from application.engine.reading.cloudevents import CONTENT_TYPE, CloudEventEncoder
from application.engine.reading.histories import HistoryEnded, Parting
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import Unavailable
from domain.kernel import RecordedEvent, timestamp

log = structlog.get_logger(__name__)

READER = "fanout"
NOTE = "tidelog-checkpoint"
"""Key of the stream's metadata: `<sequence>:<position>:<event id> <history>`."""

_SECOND = 1_000_000_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_FIRST_LOOK, _LOOK_EVERY = 10.0, 3600.0
"""Seconds between two checks of the fan-out's stream, doubling from the first."""
_LOOK_BACK = 100
"""At most so many messages of others are skipped to find the fan-out's last message."""
_PAYLOAD_RESERVE = 4 * 1024
"""Bytes of the server's max_payload that are reserved for headers."""


@dataclass(frozen=True, slots=True)
class FanOutSettings:
    """What the stream keeps, on how many servers of a cluster. `tail`: how many of the newest events a new stream begins with."""

    max_age_s: float = 7 * 24 * 3600
    max_bytes: int = 1024 * 1024 * 1024
    replicas: int = 1
    tail: int = 10_000


@dataclass(frozen=True, slots=True)
class _Mark:
    """An event that the stream holds, and where."""

    sequence: int
    position: int
    event: str
    history: str | None = None
    """Id of the history in which it was published. None: before histories had ids."""
    time: str | None = field(default=None, compare=False)
    """When it was recorded, where that is known."""

    def __str__(self) -> str:
        return f"{self.sequence}:{self.position}:{self.event}" + (f" {self.history}" if self.history else "")

    @classmethod
    def parse(cls, text: str) -> "_Mark | None":
        match = re.fullmatch(r"(\d+):(\d+):(\S+)(?: (\S+))?", text)
        return cls(int(match[1]), int(match[2]), match[3], match[4]) if match else None


def subject_of(log_id: str, tenant_id: UUID, topic: str) -> str:
    """Always five tokens, whatever the topic: a message on an unexpected subject would reach those who may not see it."""
    return f"{names.event_subjects(log_id, tenant_id)}.{_tokens(topic)}"


@lru_cache(maxsize=1_000)
def _tokens(topic: str) -> str:
    slice_name, _, happened = topic.partition(".")
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "_", part) or "_" for part in (slice_name, happened))


class FanOut:
    def __init__(
        self,
        connection: NatsConnection,
        subscription: Subscription,
        feed: EventFeed,
        encoder: CloudEventEncoder,
        *,
        histories: HistoryKeeper,
        log_id: str,
        settings: FanOutSettings | None = None,
    ) -> None:
        self._histories = histories
        self._connection = connection
        self._subscription = subscription
        self._feed = feed
        self._encoder = encoder
        self._log_id = names.checked(log_id)
        self._settings = settings or FanOutSettings()
        self.stream = names.events_stream(log_id)
        self.position = 0
        """The position up to which the stream has all events, as far as this process knows."""
        self.published_at: datetime | None = None
        """When the stream last acknowledged a message of this process."""

    async def run(self) -> None:
        """Publishes for ever; outages of NATS and of the database are waited out. Ends only by being cancelled."""
        pause, told = _FIRST_PAUSE, ""
        while True:
            before = self.published_at
            try:
                await self._session()
            except OutOfStep as error:
                log.info("fanout_resync", reason=error.message)
            except HistoryEnded as error:
                log.info("fanout_resync", reason=str(error))
            except Unavailable as error:
                repeated, told = error.message == told, error.message
                (log.debug if repeated else log.warning)("fanout_interrupted", reason=error.message, position=self.position)
            # A fan-out that never gets a message through stands by: another one is faster.
            pause = _FIRST_PAUSE if self.published_at != before else min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _session(self) -> None:
        """Publishes until the first doubt about the stream. Raises Unavailable then."""
        history = (await self._histories.fresh()).histories.current.history_id
        changes = self._histories.changes
        sequence, position = await self._recover()
        self._histories.check_unchanged(changes)  # events of the next history must not be published under the id of this one
        self.position = position
        log.info("fanout_active", stream=self.stream, sequence=sequence, position=position)
        async with OrderedPublisher.open(
            self._connection,
            log_id=self._log_id,
            history=history,
            stream=self.stream,
            subject="",  # the subject of batches; each event has its own subject
            sequence=sequence,
            on_stored=self._stored,
        ) as publisher:
            parts = (self._publish(publisher, position), publisher.failed(), self._keep_watch())
            tasks = [asyncio.ensure_future(part) for part in parts]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end(*tasks)
            for task in done:
                task.result()

    async def _publish(self, publisher: OrderedPublisher, position: int) -> None:
        max_body = self._connection.client.max_payload - _PAYLOAD_RESERVE
        head, proven = await self._feed.head(), False
        # Closed here, so that its consumer ends now and not at the next garbage collection.
        async with aclosing(self._subscription.batches(after=position, name=READER)) as batches:
            async for events in batches:
                # The log's stream may still be from before a restore. Events at or after the present head of the log are not.
                if not proven:
                    await self._prove(events[-1])
                    proven = events[-1].position >= head
                for event in events:
                    await publisher.publish(_message(self._encoder, self._log_id, event, max_body))

    async def copied(self) -> int | None:
        """As `LogStream.copied`."""
        info = await stream_info(self._connection, self.stream)
        if info is None or info["state"]["last_seq"] == 0:
            return 0
        last = await self._newest(info) or _note_of(info)
        return None if last is None else last.position

    def _stored(self, position: int) -> None:
        self.position, self.published_at = position, datetime.now(UTC)

    # --- where to go on ---

    async def _recover(self) -> tuple[int, int]:
        """The sequence that the next message follows, and the position of the last event in the stream."""
        info = await stream_info(self._connection, self.stream)
        if info is None:
            await self._create()
            return 0, await self._base()
        sequence: int = info["state"]["last_seq"]
        note = _note_of(info)
        last = await self._newest(info) or note
        if last is not None and not await self._is_in_log(last):
            reason = f"the fan-out has {last.event} at {last.position}, the log does not"
            await self._histories.lost(
                last.position, last.history, "fanout", reason
            )  # before the stream is deleted: it is the witness
            log.warning("fanout_stream_renewed", reason=reason)
            kept = await subscribers.consumers(self._connection, self.stream)
            await delete_stream(self._connection, self.stream)
            await self._create()
            for consumer in kept:  # tenants cannot make theirs
                await subscribers.make(self._connection, self._log_id, consumer)
            return 0, await self._base()
        await self._reconfigure(info)
        if last is None:
            if sequence:
                log.warning("fanout_checkpoint_lost", stream=self.stream, sequence=sequence)
            return sequence, await self._base()
        if last is note and note.sequence != sequence:
            log.warning("fanout_checkpoint_old", stream=self.stream, sequence=sequence, noted=str(note))
            return sequence, max(last.position, await self._base())
        return sequence, last.position

    async def _newest(self, info: dict[str, Any]) -> _Mark | None:
        """The last message of a fan-out that is still there. Others may have published into the stream, if they had the right."""
        last, first = info["state"]["last_seq"], info["state"]["first_seq"]
        return await self._ours(max(first, last - _LOOK_BACK, 1), last)

    async def _ours(self, first: int, last: int) -> _Mark | None:
        """The last message of a fan-out between two sequences."""
        for sequence in range(last, first - 1, -1):
            message = await stored_message(self._connection, self.stream, sequence)
            if message is None or not message.headers.get("Nats-Msg-Id", "").startswith(f"{self._log_id}:"):
                continue
            try:
                event = orjson.loads(message.data)
                history = message.headers.get(HISTORY)
                return _Mark(sequence, int(event["position"]), str(event["id"]), history, str(event["time"]))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                continue
        return None

    async def _is_in_log(self, mark: _Mark) -> bool:
        """A stream may hold a history that the log lost: a database restored from a backup, a failover that cut its end off."""
        events = await self._feed.read(after=mark.position - 1, limit=1)
        if not events or (events[0].position, events[0].name) != (mark.position, mark.event):
            return False
        return mark.time in (None, timestamp(events[0].recorded_at))  # see `is_in_log` of the log's stream

    async def parting(self) -> Parting | None:
        """See the function of this name for the log's stream."""
        info = await stream_info(self._connection, self.stream)
        last = await self._newest(info) if info is not None else None
        if info is None or last is None or await self._is_in_log(last):
            return None
        low, high, same = max(1, info["state"]["first_seq"]), last.sequence, None
        while low < high:
            middle = (low + high) // 2
            mark = await self._ours(low, middle)
            if mark is not None and not await self._is_in_log(mark):
                high = mark.sequence
            else:
                low, same = middle + 1, mark or same
        return None if same is None else Parting(same.position, last.history)

    async def _prove(self, event: RecordedEvent) -> None:
        if not await self._is_in_log(_Mark(0, event.position, event.name, time=timestamp(event.recorded_at))):
            raise OutOfStep(f"read {event.name} at {event.position}, which is not in the log")

    async def _base(self) -> int:
        return max(0, await self._feed.head() - self._settings.tail)

    # --- the stream ---

    async def _create(self) -> None:
        """Raises JetStreamError, for example if another stream has taken the subjects."""
        try:
            await call(self._connection, f"STREAM.CREATE.{self.stream}", self._configuration())
        except JetStreamError as error:
            if error.err_code != STREAM_NAME_IN_USE:  # another fan-out in the same moment
                raise
        log.info("fanout_stream_created", stream=self.stream)

    async def _reconfigure(self, info: dict[str, Any]) -> None:
        if changed := await reconfigure(self._connection, info["config"], self._configuration()):
            log.info("fanout_stream_reconfigured", stream=self.stream, changed=changed)

    async def _keep_watch(self) -> None:
        """Notes the last message, long before it ages out. Also checks that nobody deleted the stream or restored the log."""
        pause = _FIRST_LOOK
        while True:
            info = await stream_info(self._connection, self.stream)
            if info is None:
                raise OutOfStep(f"the stream {self.stream} is gone")
            last = await self._newest(info)
            if last is not None and not await self._is_in_log(last):
                raise OutOfStep(f"the log does not hold {last.event} at {last.position}")
            # Messages of others after the fan-out's last message would make the note wrong: then no note is written.
            if last is not None and last.sequence == info["state"]["last_seq"] and last != _note_of(info):
                metadata = {**(info["config"].get("metadata") or {}), NOTE: str(last)}
                await call(self._connection, f"STREAM.UPDATE.{self.stream}", info["config"] | {"metadata": metadata})
            await asyncio.sleep(min(pause, self._settings.max_age_s / 4))
            pause = min(pause * 2, _LOOK_EVERY)

    def _configuration(self) -> dict[str, Any]:
        return {
            "name": self.stream,
            "description": f"Events of Tidelog's log {self._log_id} for subscribers outside; made again when lost",
            "subjects": [f"{names.event_subjects(self._log_id)}.*.*"],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": self._settings.replicas,
            "max_age": int(self._settings.max_age_s * _SECOND),
            "max_bytes": self._settings.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_consumers": -1,
            "duplicate_window": int(min(30.0, self._settings.max_age_s) * _SECOND),  # the sequence check is what counts
            "deny_delete": True,
            "deny_purge": True,
        }


def _note_of(info: dict[str, Any]) -> _Mark | None:
    return _Mark.parse((info["config"].get("metadata") or {}).get(NOTE, ""))


def _message(encoder: CloudEventEncoder, log_id: str, event: RecordedEvent, max_body: int) -> Outgoing:
    body = encoder.encode(event)
    if len(body) > max_body:
        body = encoder.encode(event, by_reference=True)
    return Outgoing(
        subject=subject_of(log_id, event.tenant_id, event.topic),
        headers={"Content-Type": CONTENT_TYPE},
        body=body,
        last=event.position,
        mark=f"{event.position}:{event.name}",
    )
