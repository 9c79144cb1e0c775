"""The log itself: one total order without gaps, streams without gaps, each command recorded once."""

from collections import defaultdict
from collections.abc import Iterator
from uuid import UUID

from domain.kernel import Metadata, RecordedEvent
from tests.chaos.checks.snapshot import Snapshot, Violation


def check_log(snapshot: Snapshot) -> Iterator[Violation]:
    yield from _positions(snapshot)
    yield from _streams(snapshot)
    yield from _commands(snapshot)
    for recorded, error in snapshot.undecodable:
        yield Violation("event-decodes", f"position {recorded.position}", error)


def _positions(snapshot: Snapshot) -> Iterator[Violation]:
    expected = 1
    latest: RecordedEvent | None = None
    for event in snapshot.events:
        if event.position != expected:
            yield Violation("positions-contiguous", f"position {event.position}", f"expected {expected}")
        expected = event.position + 1
        if latest is not None and event.recorded_at < latest.recorded_at:
            yield Violation("time-never-decreases", f"position {event.position}", f"{event.recorded_at} < {latest.recorded_at}")
        latest = event
    if snapshot.head != expected - 1:
        yield Violation("head-is-last-position", f"head {snapshot.head}", f"the last event is at {expected - 1}")


def _streams(snapshot: Snapshot) -> Iterator[Violation]:
    newest: dict[UUID, RecordedEvent] = {}
    for event in snapshot.events:
        before = newest.get(event.stream_id)
        expected = before.version + 1 if before else 1
        if event.version != expected:
            yield Violation("versions-contiguous", f"stream {event.stream_id}", f"version {event.version}, expected {expected}")
        if before and (before.tenant_id, before.root_id) != (event.tenant_id, event.root_id):
            yield Violation("one-tenant-one-root", f"stream {event.stream_id}", f"changed at version {event.version}")
        newest[event.stream_id] = event


def _commands(snapshot: Snapshot) -> Iterator[Violation]:
    """Each append is one row of `command` and one contiguous piece of the log that carries its id."""
    positions: defaultdict[tuple[UUID, UUID], list[int]] = defaultdict(list)
    for event in snapshot.events:
        command_id = Metadata.model_validate_json(event.metadata).command_id
        positions[event.tenant_id, command_id].append(event.position)
    known = {(row["tenant_id"], row["command_id"]): row for row in snapshot.commands}
    for key, found in positions.items():
        row = known.get(key)
        if row is None:
            yield Violation("command-recorded-once", f"command {key[1]}", f"events at {found}, but no record of the command")
            continue
        expected = list(range(row["last_position"] - row["event_count"] + 1, row["last_position"] + 1))
        if found != expected:
            yield Violation("command-recorded-once", f"command {key[1]}", f"events at {found}, recorded for {expected}")
    # Some decide nothing. A key of release 0.1.0 has a row beside that of its command (migration 0026).
    recorded = {(row["tenant_id"], row["last_position"], row["event_count"]) for key, row in known.items() if key in positions}
    for key in known.keys() - positions.keys():
        row = known[key]
        if row["event_count"] and (row["tenant_id"], row["last_position"], row["event_count"]) not in recorded:
            yield Violation("command-recorded-once", f"command {key[1]}", "recorded, but without events")
