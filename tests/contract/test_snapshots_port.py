"""The contract of the port `Snapshots`, in memory and on PostgreSQL."""

from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from application.engine.ports.log import NewEvent, StreamAppend, StreamEvent, StreamPlace, one_command
from application.engine.ports.snapshots import Snapshot, SnapshotPlace
from domain.kernel import RecordedEvent
from tests.contract.conftest import LogSide

TENANT = uuid7()


async def fill(log: LogSide, stream: UUID, count: int, *, after: int = 0) -> list[RecordedEvent]:
    """Appends each event alone, followed by an event of another stream, so that versions differ from positions."""
    for version in range(after, after + count):
        for one, expected in ((uuid7(), 0), (stream, version)):
            append = StreamAppend(one, one, expected, (NewEvent("thing.happened", 1, b"{}"),))
            await log.store.append(one_command(TENANT, uuid7(), (append,), "{}"))
    return await log.store.read_stream(TENANT, stream)


def of(event: RecordedEvent, **changed: Any) -> Snapshot:
    place = {"tenant_id": TENANT, "stream_id": event.stream_id, "version": event.version, "position": event.position}
    values = {"slice_name": "things", "model": "m1", "state": b'{"n":%d}' % event.version}
    return Snapshot(**place | values | changed)


async def read(log: LogSide, stream: UUID, **asked: Any) -> tuple[Snapshot | None, list[int]]:
    """Returns the snapshot and the versions of the events after the snapshot."""
    values = {"tenant_id": TENANT, "slice_name": "things", "model": "m1"} | asked
    snapshot, events = await log.snapshots.read_stream(values.pop("tenant_id"), stream, **values)
    return snapshot, [event.version for event in events]


async def test_without_a_snapshot_all_events_are_read(log: LogSide) -> None:
    stream = uuid7()
    assert await read(log, stream) == (None, [])
    events = await fill(log, stream, 3)
    assert await log.snapshots.read_stream(TENANT, stream, slice_name="things", model="m1") == (None, events)
    assert await read(log, stream, until_position=events[1].position) == (None, [1, 2])


async def test_the_newest_snapshot_and_the_events_after_it(log: LogSide) -> None:
    stream = uuid7()
    events = await fill(log, stream, 5)
    for version in (2, 4):
        await log.snapshots.save([of(events[version - 1])])
    assert await read(log, stream) == (of(events[3]), [5])
    await fill(log, stream, 1, after=5)
    assert await read(log, stream) == (of(events[3]), [5, 6])
    assert await read(log, stream, limit=1) == (of(events[3]), [5])
    assert await read(log, stream, limit=2) == (of(events[3]), [5, 6])
    assert await read(log, stream, model="other", limit=2) == (None, [1, 2])


async def test_a_snapshot_of_the_last_event_leaves_none_to_read(log: LogSide) -> None:
    stream = uuid7()
    events = await fill(log, stream, 2)
    await log.snapshots.save([of(events[1])])
    assert await read(log, stream) == (of(events[1]), [])


async def test_a_past_state_starts_from_a_snapshot_of_before(log: LogSide) -> None:
    stream = uuid7()
    events = await fill(log, stream, 5)
    await log.snapshots.save([of(events[1])])
    await log.snapshots.save([of(events[3])])
    places = [event.position for event in events]
    assert await read(log, stream, until_position=places[4]) == (of(events[3]), [5])
    assert await read(log, stream, until_position=places[3]) == (of(events[3]), [])
    assert await read(log, stream, until_position=places[3] - 1) == (of(events[1]), [3])
    assert await read(log, stream, until_position=places[1]) == (of(events[1]), [])
    assert await read(log, stream, until_position=places[0]) == (None, [1])
    assert await read(log, stream, until_position=0) == (None, [])


async def test_only_a_snapshot_of_the_same_rules_fits(log: LogSide) -> None:
    stream = uuid7()
    events = await fill(log, stream, 3)
    await log.snapshots.save([of(events[0])])
    await log.snapshots.save([of(events[1], model="m2")])
    assert await read(log, stream) == (of(events[0]), [2, 3])
    assert await read(log, stream, model="m2") == (of(events[1], model="m2"), [3])
    assert await read(log, stream, slice_name="others") == (None, [1, 2, 3])
    assert await read(log, stream, model="") == (None, [1, 2, 3])


async def test_another_tenant_gets_neither_snapshot_nor_events(log: LogSide) -> None:
    stream = uuid7()
    events = await fill(log, stream, 2)
    await log.snapshots.save([of(events[0])])
    assert await read(log, stream, tenant_id=uuid7()) == (None, [])


async def test_a_snapshot_that_does_not_fit_the_log_is_left_alone(log: LogSide) -> None:
    """The last event of a snapshot must be in the log at its place. After a restore a snapshot may be ahead of the stream, or
    belong
    to another history."""
    stream = uuid7()
    events = await fill(log, stream, 3)
    await log.snapshots.save([of(events[1], position=events[1].position + 1)])
    assert await read(log, stream) == (None, [1, 2, 3])
    await log.snapshots.save([of(events[2], version=4, position=events[2].position)])
    assert await read(log, stream) == (None, [1, 2, 3])


async def test_a_later_snapshot_of_a_version_replaces_the_one_before(log: LogSide) -> None:
    stream = uuid7()
    events = await fill(log, stream, 2)
    await log.snapshots.save([of(events[0], state=b'"damaged"')])
    await log.snapshots.save([of(events[0])])
    assert await read(log, stream) == (of(events[0]), [2])


async def test_the_newest_two_of_a_stream_are_kept(log: LogSide) -> None:
    stream, other = uuid7(), uuid7()
    events, others = await fill(log, stream, 6), await fill(log, other, 1)
    await log.snapshots.save([of(others[0])])
    for event in events[:4]:
        await log.snapshots.save([of(event)])
    places = [event.position for event in events]
    assert await read(log, stream, until_position=places[2]) == (of(events[2]), [])
    assert await read(log, stream, until_position=places[1]) == (None, [1, 2])
    assert await read(log, other) == (of(others[0]), []), "of each stream by itself"
    await log.snapshots.save([of(events[0])])  # an old snapshot: not one of the newest two
    assert await read(log, stream, until_position=places[0]) == (None, [1])


async def test_several_streams_are_saved_at_once(log: LogSide) -> None:
    streams = [uuid7() for _ in range(3)]
    newest = [(await fill(log, stream, 2))[-1] for stream in streams]
    await log.snapshots.save([of(event) for event in newest])
    await log.snapshots.save([])
    assert [await read(log, stream) for stream in streams] == [(of(event), []) for event in newest]


async def test_several_streams_are_read_at_once_each_with_its_snapshot(log: LogSide) -> None:
    snapped, bare, empty, other_model = (uuid7() for _ in range(4))
    events = {stream: await fill(log, stream, 4) for stream in (snapped, bare, other_model)}
    await log.snapshots.save([of(events[snapped][1]), of(events[other_model][1], model="m0")])
    await log.snapshots.save([of(events[snapped][2]), of(events[bare][1], position=1)])
    streams = (bare, snapped, empty, other_model, snapped)
    found = await log.snapshots.read_streams([SnapshotPlace(TENANT, stream, "things", "m1") for stream in streams])
    newest = (of(events[snapped][2]), events[snapped][3:])
    assert found == [(None, events[bare]), newest, (None, []), (None, events[other_model]), newest]
    places = [
        SnapshotPlace(uuid7(), snapped, "things", "m1"), SnapshotPlace(TENANT, snapped, "beings", "m1"),
        SnapshotPlace(TENANT, other_model, "things", "m0"),
    ]  # fmt: skip
    found = await log.snapshots.read_streams(places)
    assert found == [(None, []), (None, events[snapped]), (of(events[other_model][1], model="m0"), events[other_model][2:])]


async def test_what_changed_is_read_with_all_that_it_builds_on(log: LogSide) -> None:
    stream = uuid7()
    events = await fill(log, stream, 7)
    for version, since in ((2, 0), (3, 2), (5, 3)):
        await log.snapshots.save([of(events[version - 1], since=since)])
    whole, changes = b'{"n":2}', (b'{"n":3}', b'{"n":5}')
    chain = of(events[4], state=whole, changes=changes)
    assert await read(log, stream) == (chain, [6, 7])
    assert await read(log, stream, limit=1) == (chain, [6])
    place = SnapshotPlace(TENANT, stream, "things", "m1")
    other = SnapshotPlace(TENANT, uuid7(), "things", "m1")
    [(one, newer), nothing] = await log.snapshots.read_streams([place, other])
    assert (one, [event.version for event in newer], nothing) == (chain, [6, 7], (None, []))
    places = [event.position for event in events]
    assert await read(log, stream, until_position=places[3]) == (of(events[2], state=whole, changes=changes[:1]), [4])
    assert await read(log, stream, until_position=places[1]) == (of(events[1]), [])


async def test_changes_on_two_ways_are_each_read_by_its_own(log: LogSide) -> None:
    """Two processes store what changed since the same snapshot."""
    stream = uuid7()
    events = await fill(log, stream, 6)
    for version, since in ((2, 0), (4, 2), (5, 2)):
        await log.snapshots.save([of(events[version - 1], since=since)])
    assert await read(log, stream) == (of(events[4], state=b'{"n":2}', changes=(b'{"n":5}',)), [6])
    await log.snapshots.save([of(events[5], since=4)])
    assert await read(log, stream) == (of(events[5], state=b'{"n":2}', changes=(b'{"n":4}', b'{"n":6}')), [])


@pytest.mark.parametrize("since", [1, 3, 4, 9])
async def test_changes_without_what_they_build_on_do_not_count(log: LogSide, since: int) -> None:
    stream = uuid7()
    events = await fill(log, stream, 5)
    await log.snapshots.save([of(events[1])])
    await log.snapshots.save([of(events[2], since=2, model="other")])
    await log.snapshots.save([of(events[3], since=since)])
    assert await read(log, stream) == (None, [1, 2, 3, 4, 5])
    [(found, newer)] = await log.snapshots.read_streams([SnapshotPlace(TENANT, stream, "things", "m1")])
    assert found is None and [event.version for event in newer] == [1, 2, 3, 4, 5]
    await log.snapshots.save([of(events[4])])
    assert await read(log, stream) == (of(events[4]), [])


async def test_two_whole_states_are_kept_with_the_changes_after_them(log: LogSide) -> None:
    stream = uuid7()
    events = await fill(log, stream, 7)
    for version, since in ((1, 0), (2, 1), (3, 0), (4, 3), (5, 0), (6, 5)):
        await log.snapshots.save([of(events[version - 1], since=since)])
    places = [event.position for event in events]
    assert await read(log, stream) == (of(events[5], state=b'{"n":5}', changes=(b'{"n":6}',)), [7])
    assert await read(log, stream, until_position=places[3]) == (of(events[3], state=b'{"n":3}', changes=(b'{"n":4}',)), [])
    assert await read(log, stream, until_position=places[1]) == (None, [1, 2])


async def test_a_long_stream_is_read_in_pages_with_what_a_state_needs(log: LogSide) -> None:
    stream = uuid7()
    events = await fill(log, stream, 4)
    needed = [StreamEvent(one.version, one.position, one.root_id, one.topic, one.schema_version, one.state) for one in events]
    assert await log.store.read_page(StreamPlace(TENANT, stream), 3) == needed[:3]
    assert await log.store.read_page(StreamPlace(TENANT, stream, 3), 3) == needed[3:]
    assert await log.store.read_page(StreamPlace(TENANT, stream, 4), 3) == []
    assert await log.store.read_page(StreamPlace(uuid7(), stream), 3) == []
