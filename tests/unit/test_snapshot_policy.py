"""Snapshots over ports in memory: when they are taken, how they are used, and how errors with them end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from immutables import Map
from structlog.testing import capture_logs

from application.catalog import CATALOG
from application.engine.background import end
from application.engine.commands import snapshots as policy
from application.engine.commands.loop import CommandLoop
from application.engine.commands.snapshots import Snapshotter
from application.engine.commands.state_models import model_of
from application.engine.ports.snapshots import Snapshot
from domain import context
from domain.kernel import RecordedEvent
from domain.registry import REGISTRY
from tests.kit.memory import MemoryEventStore, MemoryLog, MemorySnapshots
from tests.kit.waiting import TENANT, new_id, request_of, turns, until

EVERY = 5


class CountingSnapshots(MemorySnapshots):
    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.saves: list[int] = []
        self.loads: list[tuple[int | None, int]] = []
        """Returns the version of the snapshot and the number of events after it."""
        self.broken = False

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        if self.broken:
            raise RuntimeError("the disk is full")
        self.saves.append(len(snapshots))
        await super().save(snapshots)

    async def read_stream(self, *arguments: Any, **options: Any) -> tuple[Snapshot | None, list[RecordedEvent]]:
        found, newer = await super().read_stream(*arguments, **options)
        self.loads.append((found and found.version, len(newer)))
        return found, newer


class Process:
    """A command loop with a cache of its own."""

    def __init__(self, log: MemoryLog, snapshots: CountingSnapshots | None, every: int = EVERY) -> None:
        self.snapshotter = Snapshotter(snapshots, REGISTRY, every=every, pause_s=0.001) if snapshots is not None else None
        self.loop = CommandLoop(MemoryEventStore(log), CATALOG, snapshots=self.snapshotter)

    async def put(self, stream: UUID, *values: int) -> None:
        for value in values:
            command = context.SetContextValue(
                context_id=stream, run_id=stream, agent_run_id=stream, name=f"n{value % 3}", value={"n": value}
            )
            await self.loop.execute(request_of(), command)

    async def load(self, stream: UUID) -> Any:
        return await self.loop.load(context.DECIDER, TENANT, stream)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def stored(log: MemoryLog) -> CountingSnapshots:
    return CountingSnapshots(log)


@pytest.fixture
async def writer(log: MemoryLog, stored: CountingSnapshots) -> AsyncIterator[Process]:
    process = Process(log, stored)
    assert process.snapshotter is not None
    task = asyncio.create_task(process.snapshotter.run())
    yield process
    await end(task)


def versions(stored: MemorySnapshots, stream: UUID) -> list[int]:
    return sorted(stored.rows.get(stream, ()))


@pytest.mark.parametrize(("events", "kept"), [(4, []), (5, [5]), (9, [5]), (10, [5, 10]), (16, [10, 15])])
async def test_a_snapshot_is_taken_at_every_nth_event(
    writer: Process, stored: CountingSnapshots, events: int, kept: list[int]
) -> None:
    stream = new_id()
    for value in range(events):
        await writer.put(stream, value)
        await turns(5)
    await until(lambda: versions(stored, stream) == kept)


@pytest.mark.parametrize(("since", "version", "due"), [(3, 4, False), (4, 5, True), (5, 9, False), (4, 7, True), (9, 21, True)])
async def test_an_append_that_goes_over_the_border_takes_one(
    stored: CountingSnapshots, since: int, version: int, due: bool
) -> None:
    stream = new_id()
    snapshotter = Snapshotter(stored, REGISTRY, every=EVERY)
    for one, border in ((stream, (since, version)), (new_id(), (4, 5))):
        state = context.DECIDER.initial()
        snapshotter.offer(context.DECIDER, TENANT, one, since=border[0], state=state, version=border[1], position=30, size=0)
    task = asyncio.create_task(snapshotter.run())
    await until(lambda: stored.saves)
    await end(task)
    assert versions(stored, stream) == ([version] if due else [])


async def test_a_cold_process_reads_the_snapshot_and_what_is_newer(
    writer: Process, log: MemoryLog, stored: CountingSnapshots
) -> None:
    stream = new_id()
    await writer.put(stream, *range(12))
    await until(lambda: versions(stored, stream)[-1:] == [10])
    stored.loads.clear()
    cold, plain = Process(log, stored), Process(log, None)
    loaded, full = await cold.load(stream), await plain.load(stream)
    assert stored.loads == [(10, 2)]
    assert (loaded.state, loaded.version, loaded.position) == (full.state, 12, 12)
    await cold.put(stream, 12)
    assert (await cold.load(stream)).state == (await plain.load(stream)).state
    assert stored.loads == [(10, 2)], "what is cached is refreshed by the newer events"


async def test_a_state_from_a_snapshot_alone_is_known_from_then_on(
    writer: Process, log: MemoryLog, stored: CountingSnapshots
) -> None:
    stream = new_id()
    await writer.put(stream, *range(5))
    await until(lambda: versions(stored, stream) == [5])
    cold = Process(log, stored)
    assert (await cold.load(stream)).version == 5
    before = len(stored.loads)
    assert (await cold.loop.load(context.DECIDER, TENANT, stream, fresh=False)).version == 5
    assert len(stored.loads) == before


async def test_decisions_are_the_same_with_and_without(writer: Process, log: MemoryLog, stored: CountingSnapshots) -> None:
    stream = new_id()
    await writer.put(stream, *range(10))
    await until(lambda: versions(stored, stream)[-1:] == [10])
    cold = Process(log, stored)
    await cold.put(stream, 0, 1, 2)
    values = [REGISTRY.decoded(event) for event in log.events[-3:]]
    assert [(value.name, value.value_version) for value in values] == [("n0", 5), ("n1", 4), ("n2", 4)]


@pytest.mark.parametrize("damage", [b"{", b"{}x", b'{"entries": 5}', b"null", b"\xff"])
async def test_a_snapshot_that_cannot_be_read_is_left_alone(
    writer: Process, log: MemoryLog, stored: CountingSnapshots, damage: bytes
) -> None:
    stream = new_id()
    await writer.put(stream, *range(6))
    await until(lambda: versions(stored, stream) == [5])
    stored.rows[stream][5] = replace(stored.rows[stream][5], state=damage)
    with capture_logs() as logs:
        loaded = await Process(log, stored).load(stream)
    assert loaded.version == 6 and loaded.state == (await Process(log, None).load(stream)).state
    assert [entry["event"] for entry in logs] == ["snapshot_unusable"]


@pytest.mark.parametrize("changed", [{"model": "other rules"}, {"slice_name": "runs"}, {"position": 3}, {"version": 4}])
async def test_a_snapshot_of_something_else_is_not_used(
    writer: Process, log: MemoryLog, stored: CountingSnapshots, changed: dict[str, Any]
) -> None:
    stream = new_id()
    await writer.put(stream, *range(6))
    await until(lambda: versions(stored, stream) == [5])
    poison = context.DECIDER.initial()
    state = model_of(REGISTRY, context.DECIDER).encode(poison)
    stored.rows[stream][5] = replace(stored.rows[stream][5], state=state, **changed)
    loaded = await Process(log, stored).load(stream)
    assert loaded.version == 6 and loaded.state == (await Process(log, None).load(stream)).state


async def test_snapshots_that_cannot_be_stored_harm_nobody(writer: Process, stored: CountingSnapshots) -> None:
    stored.broken = True
    first, second = new_id(), new_id()
    with capture_logs() as logs:
        await writer.put(first, *range(6))
        await until(lambda: [entry for entry in logs if entry["event"] == "snapshots_not_stored"])
    stored.broken = False
    await writer.put(second, *range(6))
    await until(lambda: versions(stored, second) == [5])
    assert versions(stored, first) == []


async def test_what_waits_is_bounded_and_the_newest_state_of_a_stream_counts(stored: CountingSnapshots) -> None:
    snapshotter = Snapshotter(stored, REGISTRY, every=1, max_waiting=3)
    streams = [new_id() for _ in range(5)]
    for version in (1, 2):
        for stream in streams:
            state, since = context.DECIDER.initial(), version - 1
            snapshotter.offer(context.DECIDER, TENANT, stream, since=since, state=state, version=version, position=version, size=0)
    task = asyncio.create_task(snapshotter.run())
    await until(lambda: sum(stored.saves) == 3)
    await turns()
    await end(task)
    assert [versions(stored, stream) for stream in streams] == [[2], [2], [2], [], []]


async def test_they_are_stored_in_batches(stored: CountingSnapshots) -> None:
    snapshotter = Snapshotter(stored, REGISTRY, every=1)
    for _ in range(2 * policy.MAX_BATCH + 1):
        snapshotter.offer(
            context.DECIDER, TENANT, new_id(), since=0, state=context.DECIDER.initial(), version=1, position=1, size=0
        )
    task = asyncio.create_task(snapshotter.run())
    await until(lambda: len(stored.saves) == 3)
    await end(task)
    assert stored.saves == [policy.MAX_BATCH, policy.MAX_BATCH, 1]


async def test_a_state_that_is_too_large_is_left_out(stored: CountingSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    initial = context.DECIDER.initial()
    size = len(model_of(REGISTRY, context.DECIDER).encode(initial))
    for bound, kept in ((size, 1), (size - 1, 0)):
        monkeypatch.setattr(policy, "MAX_STATE_BYTES", bound)
        snapshotter = Snapshotter(stored, REGISTRY, every=1)
        snapshotter.offer(context.DECIDER, TENANT, new_id(), since=0, state=initial, version=1, position=1, size=0)
        stored.saves.clear()
        task = asyncio.create_task(snapshotter.run())
        await until(lambda: stored.saves)
        await end(task)
        assert stored.saves == [kept]


async def test_what_is_loaded_says_where_it_comes_from(writer: Process, log: MemoryLog, stored: CountingSnapshots) -> None:
    stream = new_id()
    await writer.put(stream, *range(6))
    await until(lambda: versions(stored, stream) == [5])
    assert writer.snapshotter is not None
    restored = await writer.snapshotter.load(context.DECIDER, TENANT, stream)
    size = len(stored.rows[stream][5].state)
    assert (restored.version, restored.position, restored.size) == (5, 5, size)
    assert [event.version for event in restored.newer] == [6]
    new = await writer.snapshotter.load(context.DECIDER, TENANT, new_id())
    assert (new.state, new.version, new.position, new.size, new.newer) == (context.DECIDER.initial(), 0, 0, 0, [])


async def test_the_states_that_wait_longest_are_stored_first(stored: CountingSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "MAX_BATCH", 2)
    snapshotter, streams, order = Snapshotter(stored, REGISTRY, every=1), [new_id() for _ in range(5)], list[UUID]()

    async def save(snapshots: Sequence[Snapshot]) -> None:
        order.extend(snapshot.stream_id for snapshot in snapshots)

    monkeypatch.setattr(stored, "save", save)
    for stream in streams:
        state = context.DECIDER.initial()
        snapshotter.offer(context.DECIDER, TENANT, stream, since=0, state=state, version=1, position=1, size=0)
    task = asyncio.create_task(snapshotter.run())
    await until(lambda: len(order) == 5)
    await end(task)
    assert order == streams


async def test_a_store_that_does_not_answer_is_given_up(stored: CountingSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "SAVE_TIMEOUT_S", 0.005)
    calls: list[int] = []

    async def save(snapshots: Sequence[Snapshot]) -> None:
        calls.append(len(snapshots))
        await asyncio.Event().wait()

    monkeypatch.setattr(stored, "save", save)
    snapshotter = Snapshotter(stored, REGISTRY, every=1, pause_s=0.001)
    task = asyncio.create_task(snapshotter.run())
    for version in (1, 2):
        offered(snapshotter, new_id(), version, 0)
        await until(lambda version=version: len(calls) == version)  # type: ignore[misc]
    await end(task)


def offered(snapshotter: Snapshotter, stream: UUID, version: int, size: int, names: int = 1) -> None:
    state = context.Context(Map({f"n{number}": context.ContextEntry(number, 1) for number in range(names)}))
    snapshotter.offer(
        context.DECIDER, TENANT, stream, since=version - 1, state=state, version=version, position=version, size=size
    )  # fmt: skip


def bytes_of(names: int) -> int:
    state = context.Context(Map({f"n{number}": context.ContextEntry(number, 1) for number in range(names)}))
    return len(model_of(REGISTRY, context.DECIDER).encode(state))


@pytest.fixture
async def policed(stored: CountingSnapshots) -> AsyncIterator[Snapshotter]:
    snapshotter = Snapshotter(stored, REGISTRY, every=1, pause_s=0.001)
    task = asyncio.create_task(snapshotter.run())
    yield snapshotter
    await end(task)


async def test_the_next_snapshot_waits_for_as_many_bytes_of_events_as_the_last_one_has(
    policed: Snapshotter, stored: CountingSnapshots
) -> None:
    stream, begin = new_id(), 1_000
    offered(policed, stream, 1, begin)
    await until(lambda: versions(stored, stream) == [1])
    needed = bytes_of(1)
    offered(policed, stream, 2, begin + needed - 1)
    await turns(5)
    assert versions(stored, stream) == [1]
    offered(policed, stream, 3, begin + needed, names=9)
    await until(lambda: versions(stored, stream) == [1, 3])
    offered(policed, stream, 4, begin + needed + bytes_of(9) - 1)
    await turns(5)
    assert versions(stored, stream) == [1, 3], "counted from the last snapshot, and by its bytes"
    offered(policed, stream, 5, begin + needed + bytes_of(9))
    await until(lambda: versions(stored, stream)[-1] == 5)


async def test_a_process_that_has_read_a_snapshot_counts_from_it(stored: CountingSnapshots, policed: Snapshotter) -> None:
    stream = new_id()
    await Process(stored.log, None).put(stream, 0)
    offered(policed, stream, 1, 0, names=5)
    await until(lambda: versions(stored, stream) == [1])
    cold = Snapshotter(stored, REGISTRY, every=1)
    restored = await cold.load(context.DECIDER, TENANT, stream)
    assert restored.size == bytes_of(5)
    task = asyncio.create_task(cold.run())
    offered(cold, stream, 2, restored.size + bytes_of(5) - 1)
    await turns(5)
    assert versions(stored, stream) == [1]
    offered(cold, stream, 3, restored.size + bytes_of(5))
    await until(lambda: versions(stored, stream) == [1, 3])
    await end(task)


async def test_only_so_many_streams_are_remembered(
    policed: Snapshotter, stored: CountingSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "MAX_TAKEN", 2)
    first, second, third = new_id(), new_id(), new_id()
    for stream in (first, second):
        offered(policed, stream, 1, 0)
        await until(lambda stream=stream: versions(stored, stream) == [1])  # type: ignore[misc]
    offered(policed, first, 2, bytes_of(1))
    await until(lambda: versions(stored, first) == [1, 2])
    offered(policed, third, 1, 0)
    await until(lambda: versions(stored, third) == [1])
    for stream in (first, second):  # the second was forgotten, so its next state is due
        offered(policed, stream, 3, bytes_of(1))
    await until(lambda: versions(stored, second) == [1, 3])
    assert versions(stored, first) == [1, 2]
