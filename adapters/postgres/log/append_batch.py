"""One call of the SQL function `append_events_v2`: from append requests to its parameters, and from its rows to their answers."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Self
from uuid import UUID

from adapters.postgres.log.arrays import (
    ByteaArray,
    EncodedArray,
    Int2Array,
    Int4Array,
    Int8Array,
    TextArray,
    UuidArray,
    bytes_element,
    int2_element,
    int4_element,
    int8_element,
    uuid_element,
)
from application.engine.ports.log import AppendRequest, AppendResult
from domain.errors import Forbidden, InvalidCommand, PayloadTooLarge, TidelogError, VersionConflict
from domain.kernel import MAX_EVENT_BYTES

APPEND_SQL = "SELECT * FROM append_events_v2(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"

MAX_APPEND_BYTES = 16 * 1024 * 1024
"""Largest sum of the sizes of states and metadata in one append."""
MAX_APPEND_EVENTS = 10_000
_MAX_VERSION = 2**53
"""Versions are JSON numbers on the wire, and larger numbers lose digits there."""

# An escaped NUL is valid JSON but not valid jsonb, so no read model could store it. After an even number of backslashes the text
# only talks about the escape and contains none.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(slots=True)
class EncodedAppend:
    """An append request, checked and encoded: one piece for each array parameter."""

    request: AppendRequest
    size: int
    event_count: int
    stream_count: int
    pieces: tuple[bytes, ...]

    @classmethod
    def of(cls, request: AppendRequest, max_event_bytes: int = MAX_EVENT_BYTES) -> Self:
        """Checks and encodes.

        Raises:
            PayloadTooLarge, InvalidCommand: the append must not reach the database.
            ValueError: a stream stands twice in the append, or has no events. That is a defect of the caller.
        """
        metadata = _text(request.metadata, "metadata")
        ids, expected, streams, roots, versions, topics, schema_versions, states = b"", b"", b"", b"", b"", b"", b"", b""
        size = event_count = 0
        for stream in request.streams:
            if not stream.events:
                raise ValueError(f"an append without events for stream {stream.stream_id}")
            if not -1 <= stream.expected_version < _MAX_VERSION:
                raise InvalidCommand(f"{stream.expected_version} is no version that a stream can have")
            count = len(stream.events)
            event_count += count
            stream_id = uuid_element(stream.stream_id)
            ids += stream_id
            expected += int8_element(stream.expected_version)
            streams += stream_id * count
            roots += uuid_element(stream.root_id) * count
            for version, event in enumerate(stream.events, stream.expected_version + 1):
                state = event.state
                if len(state) > max_event_bytes:
                    raise PayloadTooLarge(f"{event.topic}: an event of {len(state)} bytes; the limit is {max_event_bytes}")
                if b"\\u0000" in state and _ESCAPED_NUL.search(state):
                    raise InvalidCommand(f"{event.topic}: text must not contain a NUL character")
                size += len(state) + len(metadata)
                versions += int8_element(version)
                topics += _topic_element(event.topic)
                schema_versions += int2_element(event.schema_version)
                states += bytes_element(state)
        stream_count = len(request.streams)
        if not event_count or (stream_count > 1 and len({stream.stream_id for stream in request.streams}) < stream_count):
            raise ValueError("an append without events, or with one stream twice")
        if size > MAX_APPEND_BYTES or event_count > MAX_APPEND_EVENTS:
            raise PayloadTooLarge(
                f"an append of {event_count} events and {size} bytes; the limit is {MAX_APPEND_EVENTS} events "
                f"and {MAX_APPEND_BYTES} bytes"
            )
        pieces = (
            uuid_element(request.tenant_id),
            uuid_element(request.command_id),
            bytes_element(metadata),
            int4_element(event_count),
            ids,
            expected,
            streams,
            roots,
            versions,
            topics,
            schema_versions,
            states,
        )
        return cls(request, size, event_count, stream_count, pieces)


@lru_cache(maxsize=1_000)
def _topic_element(topic: str) -> bytes:
    return bytes_element(_text(topic, "topic"))


def _text(value: str, what: str) -> bytes:
    if "\x00" in value:
        raise InvalidCommand(f"{what} must not contain a NUL character")
    if len(value) > MAX_EVENT_BYTES:
        raise PayloadTooLarge(f"{what} of {len(value)} characters; the limit is {MAX_EVENT_BYTES}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidCommand(f"{what} is not valid Unicode text: {error.reason}") from error


def parameters(batch: Sequence[EncodedAppend]) -> tuple[EncodedArray, ...]:
    """The parameters of APPEND_SQL."""
    requests = len(batch)
    tenants, commands, metadatas, counts, ids, expected, event_streams, roots, versions, topics, schema_versions, states = zip(
        *[append.pieces for append in batch], strict=True
    )
    streams = events = 0
    stream_requests, event_requests, ends = [], [], []
    for number, append in enumerate(batch, 1):
        request = int4_element(number)
        streams += append.stream_count
        events += append.event_count
        stream_requests.append(request * append.stream_count)
        event_requests.append(request * append.event_count)
        ends.append(int4_element(events))
    return (
        UuidArray.of(tenants, requests),
        UuidArray.of(commands, requests),
        TextArray.of(metadatas, requests),
        Int4Array.of(counts, requests),
        Int4Array.of(ends, requests),
        Int4Array.of(stream_requests, streams),
        UuidArray.of(ids, streams),
        Int8Array.of(expected, streams),
        Int4Array.of(event_requests, events),
        UuidArray.of(event_streams, events),
        UuidArray.of(roots, events),
        Int8Array.of(versions, events),
        TextArray.of(topics, events),
        Int2Array.of(schema_versions, events),
        ByteaArray.of(states, events),
    )


Row = tuple[int, str, int | None, int | None, datetime | None, UUID | None, int | None]


def answers(batch: Sequence[EncodedAppend], rows: Sequence[Any]) -> Iterator[tuple[int, AppendResult | TidelogError]]:
    """For each append of the batch its place and its answer."""
    if rows[0][0] == 0:
        _, _, last, count, recorded_at, _, _ = rows[0]
        position = last - count
        for place, append in enumerate(batch):
            position += append.event_count
            yield place, AppendResult(position, append.event_count, recorded_at, False)
        return
    for row in rows:
        yield row[0] - 1, _answer(batch[row[0] - 1].request, row)


def _answer(request: AppendRequest, row: Row) -> AppendResult | TidelogError:
    _, outcome, position, count, recorded_at, stream_id, current = row
    if position is not None and count is not None and recorded_at is not None:
        return AppendResult(position, count, recorded_at, outcome == "duplicate")
    refused = next(stream for stream in request.streams if stream.stream_id == stream_id)
    if current is None:
        return Forbidden(f"stream {refused.stream_id} belongs to another tenant")
    return VersionConflict(refused.stream_id, refused.expected_version, current)
