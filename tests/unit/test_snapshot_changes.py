"""Snapshots of what changed: a long stream costs each event the same, and every chain of them can be read or is left alone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from application.catalog import CATALOG
from application.engine.background import end
from application.engine.commands import snapshots as policy
from application.engine.commands.snapshots import Snapshotter
from application.engine.commands.state_models import model_of
from application.engine.commands.states import States
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.ports.snapshots import Snapshot
from domain import agent_runs
from domain.kernel import Event
from domain.registry import REGISTRY
from tests.kit import fold
from tests.kit.memory import MemoryEventStore, MemoryLog, MemorySnapshots
from tests.kit.waiting import TENANT, new_id, turns, until

EVERY = 10
RUN = UUID("01900000-0000-7000-8000-000000000001")


class NotedSnapshots(MemorySnapshots):
    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.saved: list[Snapshot] = []
        self.broken = False

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        if self.broken:
            raise RuntimeError("the disk is full")
        self.saved += snapshots
        await super().save(snapshots)


def step(number: int) -> Event:
    return agent_runs.StepRecorded(attempt=1, key=f"k{number:05}", kind="step", result="x" * 50)


def overwritten(number: int) -> Event:
    return agent_runs.CallStarted(attempt=1, key=f"k{number % 40}", tool="t", invocation_id=RUN)


class Writer:
    """One process that appends to one stream, and gives its snapshots time."""

    def __init__(self, log: MemoryLog, stored: NotedSnapshots) -> None:
        self.log, self.stored, self.stream = log, stored, new_id()
        self.snapshotter = Snapshotter(stored, REGISTRY, every=EVERY, pause_s=0.001)
        self.states = States(MemoryEventStore(log), CATALOG, self.snapshotter)
        self._version = 0

    async def write(self, number: int, event: Callable[[int], Event] = step) -> None:
        for _ in range(number):
            new = event(self._version)
            append = StreamAppend(self.stream, RUN, self._version, (NewEvent(new.TOPIC, 1, REGISTRY.encode(new)),))
            await MemoryEventStore(self.log).append(one_command(TENANT, new_id(), (append,), "{}"))
            self._version += 1
            await self.states.read(agent_runs.DECIDER, TENANT, self.stream)
            if self._version % EVERY == 0:
                await turns(5)

    async def cold(self) -> tuple[agent_runs.AgentRun, int, int]:
        """The state as a process loads it that has just started, the version of its snapshot, and the number of events after it."""
        restored = await Snapshotter(self.stored, REGISTRY, every=EVERY).load(agent_runs.DECIDER, TENANT, self.stream)
        state = restored.state
        for event in restored.newer:
            state = agent_runs.DECIDER.evolve(state, REGISTRY.decoded(event))
        return state, restored.version, len(restored.newer)

    def folded(self) -> agent_runs.AgentRun:
        state: agent_runs.AgentRun = fold(agent_runs.DECIDER, [REGISTRY.decoded(event) for event in self.log.streams[self.stream]])
        return state


@pytest.fixture
def stored() -> NotedSnapshots:
    return NotedSnapshots(MemoryLog())


@pytest.fixture
async def writer(stored: NotedSnapshots) -> AsyncIterator[Writer]:
    one = Writer(stored.log, stored)
    task = asyncio.create_task(one.snapshotter.run())
    yield one
    await end(task)


async def test_snapshots_cost_an_event_the_same_at_the_beginning_and_at_the_end(writer: Writer, stored: NotedSnapshots) -> None:
    """With whole states the bytes come in lumps, the largest of which is as large as all events."""
    events = 2_000
    await writer.write(events)
    tenths = [0] * 10
    for snapshot in stored.saved:
        tenths[(snapshot.version - 1) * 10 // events] += len(snapshot.state)
    assert max(tenths) <= 1.6 * min(tenths), tenths
    assert sum(tenths) <= 1.1 * len(model_of(REGISTRY, agent_runs.DECIDER).encode(writer.folded()))
    state, version, newer = await writer.cold()
    assert state == writer.folded()
    assert newer == events - version <= events / policy.GROWN + EVERY


async def test_entries_that_are_written_again_lead_to_whole_states(writer: Writer, stored: NotedSnapshots) -> None:
    await writer.write(40)
    await writer.write(1_000, overwritten)
    whole = [snapshot for snapshot in stored.saved if not snapshot.since]
    changes = [snapshot for snapshot in stored.saved if snapshot.since]
    assert len(whole) >= 2 and len(changes) > len(whole)
    chain = stored.rows[writer.stream]
    assert sum(len(snapshot.state) for snapshot in chain.values()) <= 2 * (policy.WORN + 1) * len(whole[-1].state)
    assert (await writer.cold())[0] == writer.folded()


async def test_a_chain_is_not_longer_than_a_load_can_take(
    writer: Writer, stored: NotedSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "MAX_CHANGES", 2)
    await writer.write(300)
    chains = "".join("c" if snapshot.since else "w" for snapshot in stored.saved)
    assert "ccc" not in chains and "cc" in chains
    assert (await writer.cold())[0] == writer.folded()


async def test_a_process_that_has_just_loaded_goes_on_with_the_chain(writer: Writer, stored: NotedSnapshots) -> None:
    await writer.write(100)
    last = stored.saved[-1]
    other = Writer(stored.log, stored)
    other.stream, other._version = writer.stream, 100
    task = asyncio.create_task(other.snapshotter.run())
    await other.write(30)
    await end(task)
    assert stored.saved[stored.saved.index(last) + 1].since == last.version
    assert (await other.cold())[0] == other.folded()


async def test_nothing_builds_on_a_snapshot_that_was_not_stored(writer: Writer, stored: NotedSnapshots) -> None:
    await writer.write(100)
    before, stored.broken = len(stored.saved), True
    with capture_logs() as logs:
        await writer.write(30)
        await until(lambda: [entry for entry in logs if entry["event"] == "snapshots_not_stored"])
    stored.broken = False
    await asyncio.sleep(0.002)
    await writer.write(30)
    await until(lambda: len(stored.saved) > before)
    assert not stored.saved[before].since
    assert (await writer.cold())[0] == writer.folded()


@pytest.mark.parametrize("damage", [
    b"{", b"", b'{"fields":[],"removed":{}}\n', b'{"fields":["no"],"removed":{}}\n{}',
    b'{"fields":["changed"],"removed":{"changed":["x"]}}\n{"changed":{}}', b'{"fields":[],"removed":{"status":[1]}}\n{}',
])  # fmt: skip
async def test_a_change_that_cannot_be_read_is_left_alone(writer: Writer, stored: NotedSnapshots, damage: bytes) -> None:
    await writer.write(100)
    chain = stored.rows[writer.stream]
    broken = max(version for version, snapshot in chain.items() if snapshot.since)
    chain[broken] = replace(chain[broken], state=damage)
    with capture_logs() as logs:
        state, version, newer = await writer.cold()
    assert (state, version, newer) == (writer.folded(), 0, 100)
    assert [entry["event"] for entry in logs] == ["snapshot_unusable"]


async def test_a_new_history_begins_with_a_whole_state(writer: Writer, stored: NotedSnapshots) -> None:
    await writer.write(100)
    before = len(stored.saved)
    writer.states.forget()
    stored.rows.clear()
    await writer.write(20)
    assert len(stored.saved) > before and not stored.saved[before].since


async def test_only_so_many_states_are_held(stored: NotedSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose state was let go gets a whole snapshot, and only when its events have become as many again."""
    one, other = Writer(stored.log, stored), Writer(stored.log, stored)
    other.snapshotter, other.states = one.snapshotter, one.states
    task = asyncio.create_task(one.snapshotter.run())
    await one.write(100)
    monkeypatch.setattr(policy, "MAX_HELD_BYTES", 0)
    await other.write(10)
    assert one.snapshotter._held == 0
    before = len(stored.saved)
    await one.write(60)
    assert len(stored.saved) == before
    await one.write(140)
    await end(task)
    [whole] = stored.saved[before:]
    assert not whole.since


def test_what_changed_is_as_large_as_the_change() -> None:
    model = model_of(REGISTRY, agent_runs.DECIDER)
    before = fold(agent_runs.DECIDER, [step(number) for number in range(1_000)])
    after = agent_runs.DECIDER.evolve(before, step(1_000))
    change = model.change(before, after)
    assert (change.fields, change.size) == (["version", "journal", "changed"], 2)
    assert len(model.encode_change(change, after)) < 400
    same = model.change(after, after)
    assert (same.fields, same.size) == ([], 0)
    assert model.decode(model.encode(after), [model.encode_change(same, after)]) == after


def test_a_key_that_is_gone_is_gone() -> None:
    model = model_of(REGISTRY, agent_runs.DECIDER)
    call = agent_runs.CallStarted(attempt=1, key="k", tool="t", invocation_id=RUN)
    before = fold(agent_runs.DECIDER, [call])
    after = agent_runs.DECIDER.evolve(before, agent_runs.CallFinished(key="k", invocation_id=RUN, succeeded=True))
    change = model.change(before, after)
    assert change.removed == {"pending": [1], "changed": [1]}
    assert model.decode(model.encode(before), [model.encode_change(change, after)]) == after
