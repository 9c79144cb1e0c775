"""The events that a process has appended itself for a run that somebody waits for: whole, or the log is asked."""

from collections.abc import Sequence
from uuid import UUID

import pytest

from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading import own_events
from application.engine.reading.own_events import EVENT_BYTES, OwnEvents
from application.runs.await_end import watching_end
from application.views.runs import RunView
from domain.kernel import RecordedEvent
from domain.runs import CancelRun
from projections.replays import RunReplays
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.memory import MemoryEventFeed, MemoryLog
from tests.kit.waiting import TENANT, new_id, until

OTHER = new_id()


class Appending:
    """A log, and the own events of one process that appends to it."""

    def __init__(self, own: OwnEvents | None = None) -> None:
        self.log = MemoryLog()
        self.own = own or OwnEvents()

    def append(self, stream: UUID, *states: bytes, root: UUID | None = None, tenant: UUID = TENANT, told: bool = True) -> None:
        """`told`: whether it was this process that appended."""
        events = tuple(NewEvent("a", 1, state) for state in states)
        version = len(self.log.streams[stream])
        request = one_command(tenant, new_id(), (StreamAppend(stream, root or stream, version, events),), '{"a":1}')
        result = self.log.add(request)
        if told:
            self.own.appended(request, result)

    def whole(self, root: UUID) -> Sequence[RecordedEvent]:
        return self.own.whole(TENANT, root)


def test_events_of_followed_roots_are_those_of_the_log() -> None:
    here, root, part = Appending(), new_id(), new_id()
    with here.own.following(TENANT, root):
        here.append(root, b"1", b"2")
        here.append(new_id(), b"3")
        here.append(part, b"4", root=root)
        here.append(root, b"5")
        assert here.whole(root) == [event for event in here.log.events if event.root_id == root]
        assert [event.state for event in here.whole(root)] == [b"1", b"2", b"4", b"5"]
        assert here.own.bytes == 4 + 4 * EVENT_BYTES
        assert not here.whole(OTHER) and not here.own.whole(OTHER, root), "nobody follows these"
    assert here.own.bytes == 0 and not here.whole(root)


def test_results_may_come_in_another_order_than_positions() -> None:
    here, root = Appending(), new_id()
    first, second = (
        one_command(TENANT, new_id(), (StreamAppend(root, root, version, (NewEvent("a", 1, b"{}"),)),), "{}") for version in (0, 1)
    )
    results = [here.log.add(first), here.log.add(second)]
    with here.own.following(TENANT, root):
        here.own.appended(second, results[1])
        assert not here.whole(root), "the first event is missing"
        here.own.appended(first, results[0])
        assert [event.version for event in here.whole(root)] == [1, 2]


def test_a_gap_in_any_stream_is_seen() -> None:
    here, root, part = Appending(), new_id(), new_id()
    with here.own.following(TENANT, root):
        here.append(root, b"1")
        here.append(part, b"2", root=root, told=False)
        assert here.whole(root), "a stream that is missing as a whole is not seen here"
        here.append(part, b"3", root=root)
        assert not here.whole(root)


def test_who_comes_late_asks_the_log() -> None:
    here, root = Appending(), new_id()
    here.append(root, b"1")
    with here.own.following(TENANT, root):
        assert not here.whole(root)
        here.append(root, b"2")
        assert not here.whole(root)


def test_tenants_are_apart() -> None:
    here, root = Appending(), new_id()
    with here.own.following(TENANT, root):
        here.append(root, b"1", tenant=OTHER)
        assert not here.whole(root) and not here.own.whole(OTHER, root)


def test_events_stay_until_the_last_follower_leaves() -> None:
    here, root = Appending(), new_id()
    with here.own.following(TENANT, root):
        with here.own.following(TENANT, root):
            here.append(root, b"1")
        assert len(here.whole(root)) == 1
        here.append(root, b"2")
        assert len(here.whole(root)) == 2
    assert here.own.bytes == 0


@pytest.mark.parametrize(("most", "most_of_root"), [(10_000, 2 * EVENT_BYTES + 10), (2 * EVENT_BYTES + 10, 10_000)])
def test_a_root_beyond_the_bounds_is_not_followed_any_more(most: int, most_of_root: int) -> None:
    here, root = Appending(OwnEvents(most, most_of_root)), new_id()
    with here.own.following(TENANT, root):
        here.append(root, b"12345", b"67890")
        assert len(here.whole(root)) == 2 and here.own.bytes == 2 * EVENT_BYTES + 10, "just fits"
        here.append(root, b"")
        assert not here.whole(root) and here.own.bytes == 0
        here.append(root, b"")
        assert not here.whole(root) and here.own.bytes == 0
    assert here.own.bytes == 0


def test_nothing_is_left_of_a_log_that_is_gone() -> None:
    here, root = Appending(), new_id()
    with here.own.following(TENANT, root):
        here.append(root, b"1")
        here.own.forget()
        assert not here.whole(root) and here.own.bytes == 0
        here.append(root, b"2")
        assert not here.whole(root)
    with here.own.following(TENANT, fresh := new_id()):
        here.append(fresh, b"1")
        assert here.whole(fresh)


# --- the end of a run -----------------------------------------------------------------------------------------------------


class CountedFeed(MemoryEventFeed):
    statements = 0

    async def read_roots(self, roots: Sequence[tuple[UUID, UUID, int]], *, limit: int) -> list[RecordedEvent]:
        self.statements += 1
        return await super().read_roots(roots, limit=limit)


async def at_end(
    engine: Engine, carried_out: "Sequence[PlayedWorker]", *, cancelled_by: Engine | None = None
) -> tuple[RunView, int]:
    """Starts a run of one agent, which calls a tool, and waits for its end. The worker takes the agent, the last one the tool.

    Returns the run as the waiter gets it, and the number of statements.
    """
    feed = CountedFeed(engine.log)
    replays = RunReplays(feed)
    await engine.live.begun(15)
    run_id = new_id()
    async with watching_end(engine.live, replays, TENANT, run_id) as end:
        await engine.start("alpha", run_id=run_id)
        alpha = await carried_out[0].next("alpha")
        await alpha.call("a", "add", a=1)
        if cancelled_by is None:
            tool = await carried_out[-1].next("add", "tool")
            await tool.complete(2)
            await alpha.complete("done")
        else:
            await cancelled_by.give(CancelRun(run_id=run_id))
        view = await end.view(15, may_be_over=False)
    assert view is not None
    await engine.settled()
    statements = feed.statements
    now = await replays.now(TENANT, run_id)
    await replays.close()
    assert now is not None
    if cancelled_by is None:
        assert view == now.view, "the same as from the log"
    assert engine.live.own.bytes == 0
    return view, statements


async def test_the_end_of_a_run_that_this_process_carried_through_costs_no_statement(engine: Engine, worker: PlayedWorker) -> None:
    view, statements = await at_end(engine, [worker])
    assert view.status == "completed" and view.steps[0].calls[0].status == "succeeded" and view.result == "done"
    assert statements == 0


async def test_what_another_process_did_for_a_run_is_read_from_the_log(engine: Engine, worker: PlayedWorker) -> None:
    elsewhere = engine.another().worker()
    elsewhere.queues = worker.queues
    view, statements = await at_end(engine, [worker, elsewhere])
    assert view.status == "completed" and view.steps[0].calls[0].status == "succeeded"
    assert statements == 1


async def test_a_run_that_has_ended_with_open_parts_is_read_from_the_log(engine: Engine, worker: PlayedWorker) -> None:
    view, statements = await at_end(engine, [worker], cancelled_by=engine.another())
    assert view.status == "cancelled"
    assert statements == 1


async def test_long_runs_are_read_from_the_log(engine: Engine, worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.live, "own", OwnEvents(max_root_bytes=3 * own_events.EVENT_BYTES))
    view, statements = await at_end(engine, [worker])
    assert view.status == "completed" and statements == 1


async def test_a_new_history_of_the_log_drops_what_was_kept(engine: Engine, worker: PlayedWorker) -> None:
    await engine.live.begun(15)
    run_id = new_id()
    async with watching_end(engine.live, RunReplays(engine.feed), TENANT, run_id):
        await engine.start("alpha", run_id=run_id)
        await engine.settled()
        assert engine.live.own.bytes > 0
        await engine.histories.restored("a test", engine.log.head)
        await until(lambda: engine.live.own.bytes == 0, "nothing is kept of the old history")
        assert not engine.live.own.whole(TENANT, run_id)
