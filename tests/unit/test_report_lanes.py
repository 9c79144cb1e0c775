"""Reports of a session: in order for one piece of work, side by side for several, by tasks that are used again."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from application.engine.ports import log_context
from application.engine.ports.log_context import about, with_ids
from application.workers.hosting import lanes as laning
from application.workers.hosting.lanes import Lanes
from application.workers.hosting.messages import AnyReport, Record
from tests.kit.waiting import new_id, turns, until


def report(work: UUID, number: int) -> Record:
    return Record(t="record", id=number, work=work, attempt=1, token="t", key=f"k{number}")


def ids() -> dict[str, Any]:
    return dict(with_ids(None, "", {}))


class Handled:
    """Answers one report at a time, or as many as `together` says, once `go` is set."""

    def __init__(self, together: int = 1) -> None:
        self.together = together
        self.go = asyncio.Event()
        self.go.set()
        self.seen: list[list[int]] = []
        self.tasks: set[Any] = set()
        self.about: list[dict[str, Any]] = []
        self.under_way = 0

    async def __call__(self, reports: Sequence[AnyReport]) -> int:
        self.tasks.add(asyncio.current_task())
        self.about.append(ids())
        about(work=reports[0].work)
        self.under_way += 1
        await self.go.wait()
        self.under_way -= 1
        taken = reports[: self.together]
        self.seen.append([one.id for one in taken])
        return len(taken)


async def idle(lanes: Lanes) -> None:
    await until(lanes.idle.is_set, "no open reports")
    await turns()
    assert lanes.open == lanes.bytes == 0


@pytest.mark.parametrize(("together", "seen"), [(1, [[1], [2], [3]]), (2, [[1, 2], [3]])])
async def test_reports_of_one_work_are_answered_in_order(together: int, seen: list[list[int]]) -> None:
    handled, work = Handled(together), new_id()
    lanes = Lanes(handled)
    for number in (1, 2, 3):
        lanes.put(report(work, number), 10)
    assert (lanes.open, lanes.bytes, lanes.waits(work), lanes.idle.is_set()) == (3, 30, True, False)
    await idle(lanes)
    assert handled.seen == seen and len(handled.tasks) == 1 and not lanes.waits(work)
    await lanes.close(1)


async def test_reports_of_different_work_are_answered_side_by_side() -> None:
    handled = Handled()
    handled.go.clear()
    lanes = Lanes(handled)
    for number in range(5):
        lanes.put(report(new_id(), number + 1), 10)
    await until(lambda: handled.under_way == 5, "five under way")
    handled.go.set()
    await idle(lanes)
    assert len(handled.tasks) == 5
    await lanes.close(1)


async def test_a_task_goes_on_with_other_work_and_knows_nothing_of_the_work_before() -> None:
    handled = Handled()
    lanes = Lanes(handled)
    for number in range(20):
        lanes.put(report(new_id(), number + 1), 10)
        await idle(lanes)
    assert len(handled.tasks) == 1 and handled.about == [{}] * 20
    await lanes.close(1)


async def test_few_tasks_wait_for_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laning, "MOST_IDLE", 2)
    handled = Handled()
    handled.go.clear()
    lanes = Lanes(handled)
    for number in range(5):
        lanes.put(report(new_id(), number + 1), 10)
    await until(lambda: handled.under_way == 5, "five under way")
    handled.go.set()
    await idle(lanes)
    assert sum(not task.done() for task in handled.tasks) == 2
    await lanes.close(1)
    assert all(task.done() for task in handled.tasks)


async def test_at_the_end_what_is_under_way_is_answered_and_what_waits_behind_it_is_not() -> None:
    handled, work = Handled(), new_id()
    lanes = Lanes(handled)
    lanes.put(report(new_id(), 1), 10)
    await idle(lanes)
    handled.go.clear()
    for number in (2, 3):
        lanes.put(report(work, number), 10)
    await until(lambda: handled.under_way == 1, "one under way")
    closing = asyncio.create_task(lanes.close(15))
    await turns()
    assert not closing.done()
    handled.go.set()
    await closing
    assert handled.seen == [[1], [2]] and lanes.open == lanes.bytes == 0 and lanes.idle.is_set()
    assert all(task.done() for task in handled.tasks)


async def test_the_end_waits_no_longer_than_its_grace() -> None:
    handled = Handled()
    handled.go.clear()
    lanes = Lanes(handled)
    lanes.put(report(new_id(), 1), 10)
    await until(lambda: handled.under_way == 1, "one under way")
    await lanes.close(0.01)
    assert handled.seen == [] and all(task.cancelled() for task in handled.tasks)


def test_ids_stand_on_lines_and_do_not_replace_what_the_line_says() -> None:
    token = log_context._ABOUT.set({})
    try:
        one, other = new_id(), new_id()
        about(run_id=one)
        assert with_ids(None, "", {"event": "e"}) == {"event": "e", "run_id": str(one)}
        assert with_ids(None, "", {"run_id": "own"}) == {"run_id": "own"}
        about(agent_run_id=other)
        assert ids() == {"agent_run_id": str(other)}
        about()
        assert ids() == {}
    finally:
        log_context._ABOUT.reset(token)
