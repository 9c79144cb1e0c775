"""How events travel inside a JetStream message: an ordered batch in length-prefixed binary frames, and positions in headers.

The format is binary: `state`, which was hashed, passes byte for byte, and nothing is parsed or escaped. One message carries all
events that waited, because a message costs a client 40 µs and an event in a message 5 µs.

    body  = version (1 byte) count (2) frame*
    frame = position (8) stream version (8) recorded at, µs since 1970 (8) schema version (2)
            length of topic (2), metadata (4), state (4)  tenant (16) stream (16) root (16)
            from version 2 on: settled (8)
            topic metadata state

A release reads several versions, and writes the newest that every live process of the installation reads.

Numbers are big-endian. Headers: `Tidelog-Prev`, `Tidelog-First`, `Tidelog-Last` (positions: of the event before the batch, of its
first and of its last event), `Tidelog-Tail` (name of its last event) and `Tidelog-History` (id of the history in which it was
published). An empty body stands for events that are to be read from the database.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.errors import Unavailable
from domain.kernel import RecordedEvent

MAX_BATCH_EVENTS = 256
MAX_BATCH_BYTES = 900 * 1024
"""Bound of one message's body. A larger event travels alone."""

PREVIOUS, FIRST, LAST, TAIL = "Tidelog-Prev", "Tidelog-First", "Tidelog-Last", "Tidelog-Tail"
HISTORY = "Tidelog-History"

FORMATS = (1, 2)
"""The formats that this release reads and writes, the newest last. In format 1 events have no `settled`: 0 is read."""
_HEAD = struct.Struct(">BH")
_FRAMES = {1: struct.Struct(">QQqHHII16s16s16s"), 2: struct.Struct(">QQqHHII16s16s16sQ")}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class MalformedBatch(Unavailable):
    """The message is not Tidelog's, or has a format that this version cannot read."""


@dataclass(frozen=True, slots=True)
class Span:
    """The headers of a message, which describe its batch. `previous` < `first` <= `last`."""

    previous: int
    first: int
    last: int
    tail: str

    def headers(self) -> dict[str, str]:
        return {PREVIOUS: str(self.previous), FIRST: str(self.first), LAST: str(self.last), TAIL: self.tail}

    @classmethod
    def of(cls, headers: Mapping[str, str] | None) -> "Span":
        """Raises MalformedBatch."""
        try:
            found = headers or {}
            return cls(int(found[PREVIOUS]), int(found[FIRST]), int(found[LAST]), found[TAIL])
        except (KeyError, ValueError) as error:
            raise MalformedBatch(f"a message without the log's headers: {error}") from error


@dataclass(frozen=True, slots=True)
class WireBatch:
    span: Span
    body: bytes


def split(events: Sequence[RecordedEvent], *, after: int, max_payload: int, form: int = FORMATS[-1]) -> Iterator[WireBatch]:
    """Batches of events that follow position `after`, each within the limits.

    `max_payload`: bytes that a message may have; for an event that does not fit even alone the body is empty. `form`: the format.
    """
    frames: list[bytes] = []
    size, start = _HEAD.size, 0
    for index, event in enumerate(events):
        frame = _frame(event, form)
        if frames and (len(frames) == MAX_BATCH_EVENTS or size + len(frame) > MAX_BATCH_BYTES):
            yield _batch(events[start:index], frames, after, max_payload, form)
            after, frames, size, start = events[index - 1].position, [], _HEAD.size, index
        frames.append(frame)
        size += len(frame)
    if frames:
        yield _batch(events[start:], frames, after, max_payload, form)


def _batch(events: Sequence[RecordedEvent], frames: list[bytes], previous: int, max_payload: int, form: int) -> WireBatch:
    body = _HEAD.pack(form, len(frames)) + b"".join(frames)
    span = Span(previous, events[0].position, events[-1].position, events[-1].name)
    return WireBatch(span, body if len(body) <= max_payload else b"")


def _frame(event: RecordedEvent, form: int) -> bytes:
    topic, metadata = event.topic.encode(), event.metadata.encode()
    fixed = _FRAMES[form].pack(
        event.position,
        event.version,
        (event.recorded_at - _EPOCH) // _MICROSECOND,
        event.schema_version,
        len(topic),
        len(metadata),
        len(event.state),
        event.tenant_id.int.to_bytes(16),  # `bytes` of a UUID is a property, and takes twice as long
        event.stream_id.int.to_bytes(16),
        event.root_id.int.to_bytes(16),
        *((event.settled,) if form > 1 else ()),
    )
    return fixed + topic + metadata + event.state


def decode(body: bytes) -> list[RecordedEvent]:
    """The events of a body that is not empty. Raises MalformedBatch."""
    try:
        version, count = _HEAD.unpack_from(body)
        if version not in _FRAMES:
            raise MalformedBatch(f"a batch of format {version}; this version reads {' and '.join(map(str, FORMATS))}")
        events, offset = _frames(body, count, _FRAMES[version])
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise MalformedBatch(f"a damaged batch: {error}") from error
    if offset != len(body):
        raise MalformedBatch(f"a damaged batch: {len(body)} bytes where {offset} were expected")
    return events


def _frames(body: bytes, count: int, frame: struct.Struct) -> tuple[list[RecordedEvent], int]:
    events = []
    ids: dict[bytes, UUID] = {}  # tenants and roots repeat within a batch, and making a UUID costs most
    times: dict[int, datetime] = {}
    unpack, size, unmarked = frame.unpack_from, frame.size, frame is _FRAMES[1]
    offset = _HEAD.size
    for _ in range(count):
        fields = unpack(body, offset)
        position, version, micros, schema, topic_size, metadata_size, state_size, tenant, stream, root = fields[:10]
        topic_at = offset + size
        metadata_at = topic_at + topic_size
        state_at = metadata_at + metadata_size
        offset = state_at + state_size
        for raw in (tenant, stream, root):
            if raw not in ids:
                ids[raw] = UUID(int=int.from_bytes(raw))
        recorded_at = times.get(micros)
        if recorded_at is None:
            recorded_at = times[micros] = _EPOCH + timedelta(microseconds=micros)
        topic, metadata = body[topic_at:metadata_at].decode(), body[metadata_at:state_at].decode()
        settled = 0 if unmarked else fields[10]
        event = position, ids[tenant], ids[stream], version, ids[root], topic, schema, body[state_at:offset], metadata
        events.append(RecordedEvent(*event, recorded_at, settled))
    return events, offset
