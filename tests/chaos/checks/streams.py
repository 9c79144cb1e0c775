"""JetStream: the log's stream holds the log, each message follows the message before, and the work queue holds no finished work."""

from collections.abc import AsyncIterator
from uuid import UUID

import orjson

from adapters.nats import LogStream, NatsConnection
from adapters.nats.jetstream import stored_message, stream_info
from adapters.nats.log.wire import MalformedBatch, Span, decode
from adapters.nats.names import work_stream
from tests.chaos.checks.snapshot import Snapshot, Violation

CONNECT_TIMEOUT_S = 10.0


async def check_streams(nats_url: str, snapshot: Snapshot, *, settled: bool, caught_up: bool) -> list[Violation]:
    """`settled`: all work is over. `caught_up`: the stream has had the time to get the whole log.

    Raises domain.errors.Unavailable if NATS is away.
    """
    connection = NatsConnection(nats_url, name="tidelog-checker")
    await connection.start()
    try:
        await connection.ready(CONNECT_TIMEOUT_S)
        found = [violation async for violation in _log_stream(connection, snapshot, caught_up=caught_up)]
        if settled:
            found += [violation async for violation in _work_queue(connection, snapshot)]
        return found
    finally:
        await connection.close()


async def _log_stream(connection: NatsConnection, snapshot: Snapshot, *, caught_up: bool) -> AsyncIterator[Violation]:
    state = await LogStream(connection, snapshot.log_id).current()
    if state is None:
        if caught_up:
            yield Violation("stream-holds-log", "no stream", f"the log is at {snapshot.head}")
        return
    last: int | None = None
    for sequence in range(max(state.first_sequence, 1), state.last_sequence + 1):
        subject = f"{state.name} message {sequence}"
        message = await stored_message(connection, state.name, sequence)
        if message is None:
            yield Violation("stream-without-gap", subject, "it is not there")
            continue
        try:
            span = Span.of(message.headers)
            events = decode(message.data) if message.data else []
        except MalformedBatch as error:
            yield Violation("stream-is-readable", subject, error.message)
            continue
        if last is not None and span.previous != last:
            yield Violation("stream-chain-intact", subject, f"follows position {span.previous}; before it was {last}")
        last = span.last
        stored = snapshot.events[span.first - 1 : span.last]
        if message.data[:1] == b"\x01":  # format 1 does not say what is settled
            stored = [event._replace(settled=0) for event in stored]
        if events and [e for e in events if e.position <= snapshot.head] != stored:
            yield Violation("stream-holds-log", subject, f"positions {span.first} to {span.last} differ from the log")
    if caught_up and last != snapshot.head:
        yield Violation("stream-holds-log", state.name, f"it ends at position {last}, the log at {snapshot.head}")


async def _work_queue(connection: NatsConnection, snapshot: Snapshot) -> AsyncIterator[Violation]:
    open_work = {(row["work_id"], row["dispatch"]) for row in snapshot.tables["open_work"]}
    stream = work_stream(snapshot.log_id)
    info = await stream_info(connection, stream)
    if info is None or not info["state"]["messages"]:
        return
    for sequence in range(info["state"]["first_seq"], info["state"]["last_seq"] + 1):
        message = await stored_message(connection, stream, sequence)
        if message is not None:
            item = orjson.loads(message.data)
            if (UUID(item["work_id"]), item["dispatch"]) not in open_work:
                yield Violation("queue-holds-open-work", f"{stream} message {sequence}", f"it is over: {item}")
