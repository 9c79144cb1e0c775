"""One call of the SQL function `append_events_v3`: from append requests to its parameters, and from its rows to their answers."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, Self
from uuid import UUID

from adapters.postgres.log.arrays import (
    UUID_LENGTH,
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
    length_prefix,
    uuid_element,
)
from application.engine.ports.log import AppendCommand, AppendRequest, AppendResult, CommandRecord, Placed
from domain.errors import AlreadyExists, InvalidCommand, PayloadTooLarge, TidelogError, VersionConflict
from domain.kernel import MAX_EVENT_BYTES

APPEND_SQL = """
    SELECT * FROM append_events_v3(
        %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s
    )
"""

PREPARED = b"append_events"
PREPARE_SQL = """
    PREPARE append_events (
        uuid[], integer[], integer[], integer[], uuid[], text[], uuid[], integer[], integer[],
        integer[], uuid[], bigint[], integer[], integer[], uuid[], uuid[], bigint[], text[], smallint[], bytea[], bigint[]
    ) AS SELECT * FROM append_events_v3(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
    )
"""
_ARRAYS = (
    UuidArray, Int4Array, Int4Array, Int4Array, UuidArray, TextArray, UuidArray, Int4Array, Int4Array, Int4Array, UuidArray,
    Int8Array, Int4Array, Int4Array, UuidArray, UuidArray, Int8Array, TextArray, Int2Array, ByteaArray, Int8Array,
)  # fmt: skip
"""The types of the parameters."""
PARAMETERS = len(_ARRAYS)

MAX_APPEND_BYTES = 16 * 1024 * 1024
"""Largest sum of the sizes of states and metadata in one append."""
MAX_APPEND_EVENTS = 10_000
_MAX_VERSION = 2**53
"""Versions are JSON numbers on the wire, and larger numbers lose digits there."""

# An escaped NUL is valid JSON but not valid jsonb, so no read model could store it. After an even number of backslashes the text
# only talks about the escape and contains none.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


_NO_CONTENT = uuid_element(UUID(int=0))
"""Stands for the content of a command that is not compared."""


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
        tenant_id, commands, streams, events = request
        command_pieces, command_bytes, count = _commands(commands)
        stream_ids, roots, expected, next_versions = [], [], b"", []
        for stream_id, root_id, version in streams:
            if not -1 <= version < _MAX_VERSION:
                raise InvalidCommand(f"{version} is no version that a stream can have")
            element = UUID_LENGTH + stream_id.int.to_bytes(16)
            stream_ids.append(element)
            roots.append(element if root_id is stream_id else UUID_LENGTH + root_id.int.to_bytes(16))
            expected += int8_element(version)
            next_versions.append(version + 1)
        if not events or count != len(events):
            raise ValueError("an append without events, or with events of no command")
        if len(streams) > 1 and len(set(stream_ids)) < len(streams):
            raise ValueError("an append with one stream twice")
        event_pieces, state_bytes, counts = _events(events, stream_ids, roots, next_versions, max_event_bytes)
        size = command_bytes + state_bytes
        if size > MAX_APPEND_BYTES or count > MAX_APPEND_EVENTS:
            limit = f"{MAX_APPEND_EVENTS} events and {MAX_APPEND_BYTES} bytes"
            raise PayloadTooLarge(f"an append of {count} events and {size} bytes; the limit is {limit}")
        stream_pieces = (b"".join(stream_ids), expected, b"".join([int4_element(number) for number in counts]))
        return cls(request, size, (uuid_element(tenant_id), *command_pieces, *stream_pieces, *event_pieces))


# Identifiers are encoded in the loops themselves: a call for each would take twice as long.
def _commands(commands: Sequence[AppendCommand]) -> tuple[tuple[bytes, ...], int, int]:
    """The pieces of the commands, the bytes of their metadata on all their events, and the number of their events."""
    ids = []
    metadatas, contents, counts = b"", b"", b""
    size = total = 0
    for command_id, text, count, content in commands:
        metadata = _text(text, "metadata")
        length = len(metadata)
        total += count
        size += length * count
        ids.append(UUID_LENGTH + command_id.int.to_bytes(16))
        metadatas += length_prefix(length) + metadata
        contents += _NO_CONTENT if content is None else UUID_LENGTH + content.int.to_bytes(16)
        counts += int4_element(count)
    if len(commands) > 1 and len(set(ids)) < len(commands):
        raise ValueError("an append with one command twice")
    return (b"".join(ids), metadatas, contents, counts), size, total


def _events(
    events: Sequence[Placed], stream_ids: list[bytes], root_ids: list[bytes], next_versions: list[int], max_event_bytes: int
) -> tuple[tuple[bytes, ...], int, list[int]]:
    """The pieces of the events, the bytes of their states, and how many events each stream gets."""
    streams, roots, versions, topics, schema_versions, states, settled = b"", b"", b"", b"", b"", b"", b""
    size, counts = 0, [0] * len(stream_ids)
    for place, (topic, schema_version, state), mask in events:
        length = len(state)
        if length > max_event_bytes:
            raise PayloadTooLarge(f"{topic}: an event of {length} bytes; the limit is {max_event_bytes}")
        if b"\\u0000" in state and _ESCAPED_NUL.search(state):
            raise InvalidCommand(f"{topic}: text must not contain a NUL character")
        size += length
        streams += stream_ids[place]
        roots += root_ids[place]
        versions += int8_element(next_versions[place] + counts[place])
        counts[place] += 1
        topics += _topic_element(topic)
        schema_versions += int2_element(schema_version)
        states += length_prefix(length) + state
        settled += int8_element(mask)
    return (streams, roots, versions, topics, schema_versions, states, settled), size, counts


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
    """The parameters of APPEND_SQL, for a cursor."""
    return tuple(array(value) for array, value in zip(_ARRAYS, encoded_parameters(batch), strict=True))


def encoded_parameters(batch: Sequence[EncodedAppend]) -> tuple[bytes, ...]:
    """The parameters of PREPARE_SQL in binary form."""
    requests = len(batch)
    pieces = zip(*[append.pieces for append in batch], strict=True)
    tenants, command_ids, metadatas, contents, counts, ids, expected, stream_counts, event_streams, *rest = pieces
    roots, versions, topics, schema_versions, states, settled = rest
    commands = streams = events = 0
    request_counts, request_ends, command_requests, command_ends, stream_requests, event_commands = [], [], [], [], [], []
    for number, append in enumerate(batch, 1):
        _, its_commands, its_streams, its_events = append.request
        place = int4_element(number)
        command_requests.append(place * len(its_commands))
        stream_requests.append(place * len(its_streams))
        for command in its_commands:
            commands += 1
            events += command.event_count
            event_commands.append(int4_element(commands) * command.event_count)
            command_ends.append(int4_element(events))
        streams += len(its_streams)
        request_counts.append(int4_element(len(its_events)))
        request_ends.append(int4_element(events))
    return (
        UuidArray.encoded(tenants, requests),
        Int4Array.encoded(request_counts, requests),
        Int4Array.encoded(request_ends, requests),
        Int4Array.encoded(command_requests, commands),
        UuidArray.encoded(command_ids, commands),
        TextArray.encoded(metadatas, commands),
        UuidArray.encoded(contents, commands),
        Int4Array.encoded(counts, commands),
        Int4Array.encoded(command_ends, commands),
        Int4Array.encoded(stream_requests, streams),
        UuidArray.encoded(ids, streams),
        Int8Array.encoded(expected, streams),
        Int4Array.encoded(stream_counts, streams),
        Int4Array.encoded(event_commands, events),
        UuidArray.encoded(event_streams, events),
        UuidArray.encoded(roots, events),
        Int8Array.encoded(versions, events),
        TextArray.encoded(topics, events),
        Int2Array.encoded(schema_versions, events),
        ByteaArray.encoded(states, events),
        Int8Array.encoded(settled, events),
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
        return AlreadyExists(f"the id {refused.stream_id} is taken by something else")  # of another tenant: a secret
    return VersionConflict(refused.stream_id, refused.expected_version, row.current_version)
