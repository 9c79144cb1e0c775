"""The priority of a run: all its work waits in its class of the queue, and the class decides who goes first."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from pydantic import ValidationError

from application.engine.ports.precedence import Precedence
from application.engine.ports.queue import WorkItem
from application.runs.start import StartedDifferently
from application.workers.hosting.messages import Return, WorkForAgent, WorkForTool
from domain import invocations, runs
from domain.kernel import Priority
from domain.registry import REGISTRY
from projections.runs import replay
from tests.kit.engine import RETRY, Engine, PlayedWorker
from tests.kit.hosting import KEY, Hosting, hosting, issue_keys
from tests.kit.waiting import TENANT, new_id, request_of, until


def items(engine: Engine) -> list[WorkItem]:
    return [entry.item for entry in engine.queue.entries.values()]


def classes(engine: Engine) -> list[tuple[str, int, Priority]]:
    return [(item.pool, item.dispatch, item.priority) for item in items(engine)]


# --- who goes first -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priorities", "turns", "shares"),
    [
        (["normal"], 100, {"normal": 100}),
        (["high", "low"], 16, {"high": 14, "low": 2}),
        (["normal", "low"], 80, {"normal": 70, "low": 10}),
        (["high", "normal", "low"], 128, {"high": 112, "normal": 14, "low": 2}),
    ],
)
def test_turns_are_divided_whether_they_come_together_or_one_by_one(
    priorities: list[Priority], turns: int, shares: dict[Priority, int]
) -> None:
    assert Precedence().split(turns, priorities) == shares
    precedence, found = Precedence(), dict.fromkeys(priorities, 0)
    for _ in range(turns):
        [priority] = [one for one, share in precedence.split(1, priorities).items() if share]
        found[priority] += 1
        precedence.took(1)
    assert found == shares


def test_the_first_turns_go_to_the_highest_class() -> None:
    assert Precedence().split(7, ["high", "normal", "low"]) == {"high": 7, "normal": 0, "low": 0}


async def test_a_high_run_overtakes_and_runs_of_a_class_keep_their_order(engine: Engine, worker: PlayedWorker) -> None:
    order = ("low", "normal", "low", "high", "normal", "high")
    started = [await engine.start("alpha", priority=priority) for priority in order]
    await engine.settled()
    taken = [(await worker.next("alpha")).given.run_id for _ in order]
    assert taken == [started[place] for place in (3, 5, 1, 4, 0, 2)]


# --- all work of a run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reactions", [True, False])
@pytest.mark.parametrize("priority", ["high", "normal", "low"])
async def test_steps_retries_and_tools_of_a_run_go_to_its_class(reactions: bool, priority: Priority) -> None:
    engine = Engine(reactions=reactions)
    await engine.set_up()
    async with engine.running():
        worker = engine.worker()
        await worker.register("alpha", "beta", tools_={"add": {"max_attempts": 3}})
        steps = (runs.Step(key="a", agent="alpha", retry=RETRY), runs.Step(key="b", agent="beta", after=("a",)))
        await engine.start(plan=runs.Plan(steps=steps), priority=priority)
        await engine.settled()
        assert classes(engine) == [("alpha", 1, priority)]
        alpha = await worker.next("alpha")
        await alpha.fail("transient")
        await engine.advance(RETRY.max_s)
        assert classes(engine) == [("alpha", 2, priority)]
        alpha = await worker.next("alpha")
        await alpha.call("add#1", "add")
        await engine.settled()
        assert ("add", 1, priority) in classes(engine)
        await (await worker.next("add", "tool")).fail("transient")
        await engine.advance(60)
        assert ("add", 2, priority) in classes(engine)
        await (await worker.next("add", "tool")).complete(1)
        await alpha.complete()
        await engine.settled()
        assert classes(engine) == [("beta", 1, priority)]


async def test_the_reconciler_puts_lost_work_back_into_its_class(engine: Engine, worker: PlayedWorker) -> None:
    for priority in ("low", "high", "normal"):
        await engine.start("alpha", priority=priority)
    await engine.settled()
    before = sorted(items(engine), key=lambda item: item.work_id)
    assert sorted(item.priority for item in before) == ["high", "low", "normal"]
    engine.queue.entries.clear()
    await engine.advance(60)
    await engine.reconciler.sweep()
    assert sorted(items(engine), key=lambda item: item.work_id) == before


@pytest.fixture
async def process(engine: Engine) -> AsyncIterator[Hosting]:
    await issue_keys(engine, KEY)
    async with hosting(engine) as found:
        yield found


async def test_work_that_comes_back_from_a_session_keeps_its_class(engine: Engine, process: Hosting) -> None:
    worker = process.connect()
    await worker.hello(["alpha"], ["add"])
    worker.credit(agent=1)
    await engine.start("alpha", priority="high")
    work = await worker.hears(WorkForAgent)
    await worker.done(work, Return, reason="a defect")
    await until(lambda: items(engine), "the work on the queue again")
    assert classes(engine) == [("alpha", 2, "high")]
    request = invocations.RequestInvocation(
        invocation_id=new_id(), run_id=work.claimed.run_id, agent_run_id=work.work_id, key="add#1", tool="add", idempotent=True,
        timeout_s=60, retry=RETRY, priority="high",
    )  # fmt: skip
    await engine.give(request)
    worker.credit(tool=1)
    call = await worker.hears(WorkForTool)
    await worker.done(call, Return, reason="a defect")
    await until(lambda: len(items(engine)) == 2, "the call on the queue again")
    assert ("add", 2, "high") in classes(engine)


# --- starting -------------------------------------------------------------------------------------------------------------


async def test_a_start_that_says_another_priority_is_another_start(engine: Engine, worker: PlayedWorker) -> None:
    request, run_id = request_of(TENANT), new_id()
    for _ in range(2):
        await engine.start("alpha", run_id=run_id, request=request, priority="low")
    with pytest.raises(StartedDifferently):
        await engine.start("alpha", run_id=run_id, request=request)


async def test_the_run_shows_its_priority(engine: Engine, worker: PlayedWorker) -> None:
    for priority in ("high", "normal", "low"):
        run_id = await engine.start("alpha", priority=priority)
        view = replay([event for event in engine.log.events if event.root_id == run_id])
        assert view is not None and view.priority == priority


def test_only_the_three_classes_are_priorities() -> None:
    with pytest.raises(ValidationError):
        runs.StartRun(run_id=UUID(int=1), project_id=UUID(int=2), plan=runs.sequential(("a",)), priority="urgent")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "topic",
    [
        "run.started",
        "run.step_scheduled",
        "agent_run.requested",
        "agent_run.resumed",
        "invocation.requested",
        "invocation.requeued",
    ],
)
def test_events_of_before_are_of_the_class_normal(topic: str) -> None:
    """The stored examples of the first release have no priority."""
    from tests.golden.generate import FOLDER, file_name

    stored = (FOLDER / file_name(topic, 1)).read_bytes()
    assert b"priority" not in stored
    assert REGISTRY.events[topic].model_validate_json(stored).priority == "normal"  # type: ignore[attr-defined]
