"""One call of the SQL function `append_events_v3`: from append requests to its parameters, and from its rows to their answers."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, Self
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
from application.engine.ports.log import AppendRequest, AppendResult, CommandRecord
from domain.errors import Forbidden, InvalidCommand, PayloadTooLarge, TidelogError, VersionConflict
from domain.kernel import MAX_EVENT_BYTES

APPEND_SQL = """
    SELECT * FROM append_events_v3(
        %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s
    )
"""

MAX_APPEND_BYTES = 16 * 1024 * 1024
"""Largest sum of the sizes of states and metadata in one append."""
MAX_APPEND_EVENTS = 10_000
_MAX_VERSION = 2**53
"""Versions are JSON numbers on the wire, and larger numbers lose digits there."""

# An escaped NUL is valid JSON but not valid jsonb, so no read model could store it. After an even number of backslashes the text
# only talks about the escape and contains none.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


NO_CONTENT = UUID(int=0)
"""Stands for a command whose content is not compared."""


@dataclass(slots=True)
class EncodedAppend:
    """An append request, checked and encoded: one piece for each array parameter."""

    request: AppendRequest
    size: int
    pieces: tuple[bytes, ...]

    @classmethod
    def of(cls, request: AppendRequest, max_event_bytes: int = MAX_EVENT_BYTES) -> Self:
        """Checks and encodes.

        Raises:
            PayloadTooLarge, InvalidCommand: the append must not reach the database.
            ValueError: an append without events, with events of no command, or with one stream or one command twice. That is a
                defect of the caller.
        """
        _check_form(request)
        next_versions = [stream.expected_version + 1 for stream in request.streams]
        stream_ids = [uuid_element(stream.stream_id) for stream in request.streams]
        root_ids = [uuid_element(stream.root_id) for stream in request.streams]
        streams, roots, versions, topics, schema_versions, states, settled = b"", b"", b"", b"", b"", b"", b""
        size = 0
        for place, event, mask in request.events:
            state = event.state
            if len(state) > max_event_bytes:
                raise PayloadTooLarge(f"{event.topic}: an event of {len(state)} bytes; the limit is {max_event_bytes}")
            if b"\\u0000" in state and _ESCAPED_NUL.search(state):
                raise InvalidCommand(f"{event.topic}: text must not contain a NUL character")
            size += len(state)
            streams += stream_ids[place]
            roots += root_ids[place]
            versions += int8_element(next_versions[place])
            next_versions[place] += 1
            topics += _topic_element(event.topic)
            schema_versions += int2_element(event.schema_version)
            states += bytes_element(state)
            settled += int8_element(mask)
        commands, metadatas, contents, counts = b"", b"", b"", b""
        for command in request.commands:
            metadata = _text(command.metadata, "metadata")
            size += len(metadata) * command.event_count
            commands += uuid_element(command.command_id)
            metadatas += bytes_element(metadata)
            contents += uuid_element(command.content or NO_CONTENT)
            counts += int4_element(command.event_count)
        if size > MAX_APPEND_BYTES or len(request.events) > MAX_APPEND_EVENTS:
            raise PayloadTooLarge(
                f"an append of {len(request.events)} events and {size} bytes; the limit is {MAX_APPEND_EVENTS} events "
                f"and {MAX_APPEND_BYTES} bytes"
            )
        begun = [stream.expected_version for stream in request.streams]
        expected = b"".join(map(int8_element, begun))
        stream_counts = [following - version - 1 for following, version in zip(next_versions, begun, strict=True)]
        pieces = (
            *(uuid_element(request.tenant_id), commands, metadatas, contents, counts),
            *(b"".join(stream_ids), expected, b"".join(map(int4_element, stream_counts))),
            *(streams, roots, versions, topics, schema_versions, states, settled),
        )
        return cls(request, size, pieces)


def _check_form(request: AppendRequest) -> None:
    """Raises ValueError, and InvalidCommand for a version that no stream can have."""
    streams, commands = request.streams, request.commands
    if not request.events or sum(command.event_count for command in commands) != len(request.events):
        raise ValueError("an append without events, or with events of no command")
    if len(streams) > 1 and len({stream.stream_id for stream in streams}) < len(streams):
        raise ValueError("an append with one stream twice")
    if len(commands) > 1 and len({command.command_id for command in commands}) < len(commands):
        raise ValueError("an append with one command twice")
    for stream in streams:
        if not -1 <= stream.expected_version < _MAX_VERSION:
            raise InvalidCommand(f"{stream.expected_version} is no version that a stream can have")


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
    pieces = zip(*[append.pieces for append in batch], strict=True)
    tenants, command_ids, metadatas, contents, counts, ids, expected, stream_counts, event_streams, *rest = pieces
    roots, versions, topics, schema_versions, states, settled = rest
    commands = streams = events = 0
    request_counts, request_ends, command_requests, command_ends, stream_requests, event_commands = [], [], [], [], [], []
    for number, append in enumerate(batch, 1):
        request, place = append.request, int4_element(number)
        command_requests.append(place * len(request.commands))
        stream_requests.append(place * len(request.streams))
        for command in request.commands:
            commands += 1
            events += command.event_count
            event_commands.append(int4_element(commands) * command.event_count)
            command_ends.append(int4_element(events))
        streams += len(request.streams)
        request_counts.append(int4_element(len(request.events)))
        request_ends.append(int4_element(events))
    return (
        UuidArray.of(tenants, requests),
        Int4Array.of(request_counts, requests),
        Int4Array.of(request_ends, requests),
        Int4Array.of(command_requests, commands),
        UuidArray.of(command_ids, commands),
        TextArray.of(metadatas, commands),
        UuidArray.of(contents, commands),
        Int4Array.of(counts, commands),
        Int4Array.of(command_ends, commands),
        Int4Array.of(stream_requests, streams),
        UuidArray.of(ids, streams),
        Int8Array.of(expected, streams),
        Int4Array.of(stream_counts, streams),
        Int4Array.of(event_commands, events),
        UuidArray.of(event_streams, events),
        UuidArray.of(roots, events),
        Int8Array.of(versions, events),
        TextArray.of(topics, events),
        Int2Array.of(schema_versions, events),
        ByteaArray.of(states, events),
        Int8Array.of(settled, events),
    )


class Row(NamedTuple):
    """A row of the function's answer."""

    request: int
    """1-based place of the request. 0: all requests were accepted."""
    outcome: str
    command: int | None
    """1-based place of the command among all commands of the call."""
    last_position: int
    event_count: int
    recorded_at: datetime
    content: UUID | None
    stream_id: UUID | None
    current_version: int | None


def answers(batch: Sequence[EncodedAppend], rows: Sequence[Row]) -> Iterator[tuple[int, AppendResult | TidelogError]]:
    """For each append of the batch its place and its answer."""
    if rows[0].request == 0:
        position = rows[0].last_position - rows[0].event_count
        for place, append in enumerate(batch):
            count = len(append.request.events)
            position += count
            yield place, AppendResult(position, count, rows[0].recorded_at)
        return
    commands = [command.command_id for append in batch for command in append.request.commands]
    known: dict[int, dict[int, Row]] = {}
    for row in rows:
        if row.command is not None:
            known.setdefault(row.request, {})[row.command] = row
        elif row.outcome == "accepted":
            yield row.request - 1, AppendResult(row.last_position, row.event_count, row.recorded_at)
        else:
            yield row.request - 1, _refusal(batch[row.request - 1].request, row)
    for request, found in known.items():
        records = {commands[place - 1]: CommandRecord._make(found[place][3:7]) for place in sorted(found)}
        first = next(iter(records.values()))
        yield request - 1, AppendResult(first.last_position, first.event_count, first.recorded_at, records)


def _refusal(request: AppendRequest, row: Row) -> TidelogError:
    refused = next(stream for stream in request.streams if stream.stream_id == row.stream_id)
    if row.current_version is None:
        return Forbidden(f"stream {refused.stream_id} belongs to another tenant")
    return VersionConflict(refused.stream_id, refused.expected_version, row.current_version)
