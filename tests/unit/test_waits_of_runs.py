"""What an open run waits for: each reason, as the log and the workers of the moment say it."""

from typing import Any
from uuid import UUID

import pytest

from api.cli.stuck import helps, told
from application.engine.ports.sessions import Offered
from application.runs.waits import executions_of, waits_of
from application.views.waits import RunWaits
from domain import runs
from domain.breakers import ForceBreaker, breaker_id_of
from domain.errors import InvalidState, NotFound
from domain.failures import Failure
from domain.invocations import DispatchInvocation, FailInvocation
from domain.plans import Plan
from domain.runs import PauseRun, ResumeRun, child_id_of
from domain.tool_policy import ToolPolicy
from domain.tools import tool_id_of
from tests.kit.engine import RETRY, Engine, PlayedWorker, plan
from tests.kit.memory import MemoryRunReads
from tests.kit.waiting import TENANT, new_id
from tests.unit.test_paused_runs import asked_by_a_session
from tests.unit.test_session_work import session_at


async def waits(engine: Engine, run_id: UUID) -> RunWaits:
    await engine.settled()
    return await waits_of(engine.commands, engine.sessions, MemoryRunReads(engine.log), TENANT, run_id)


async def only(engine: Engine, run_id: UUID) -> tuple[str | None, str, str]:
    """Step, reason and words of the only wait."""
    found = await waits(engine, run_id)
    [wait] = found.data
    assert found.more == 0 and found.run_id == run_id
    return wait.step, wait.waits_for, wait.detail


async def offers(engine: Engine, offered: Offered, worker_id: str = "s1") -> None:
    session = await session_at(engine, worker_id)
    await engine.sessions.offer(session.session_id, offered)


async def test_a_run_that_is_over_waits_for_nothing_and_one_that_is_not_there_is_none(engine: Engine) -> None:
    with pytest.raises(NotFound):
        await waits(engine, new_id())


async def test_an_agent_without_a_worker(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    assert await only(engine, run_id) == ("alpha", "worker", "no worker has agent alpha")
    await offers(engine, Offered(agents={"alpha": "1"}))
    assert await only(engine, run_id) == ("alpha", "free_worker", "1 worker with it: busy")
    alpha = await worker.next("alpha")
    assert await only(engine, run_id) == ("alpha", "agent", "worker worker-1 has it, as attempt 1")
    await alpha.complete()
    found = await waits(engine, run_id)
    assert (found.status, found.data) == ("completed", [])


async def test_a_version_that_no_worker_has(engine: Engine, worker: PlayedWorker) -> None:
    run_id = new_id()
    step = runs.Step(key="a", agent="alpha", agent_version="7")
    start = runs.StartRun(run_id=run_id, project_id=new_id(), plan=Plan(steps=(step,)), versions_asked=("a",))
    await engine.give(start)
    await offers(engine, Offered(agents={"alpha": "1"}))
    assert await only(engine, run_id) == ("a", "version", "no worker has version 7 of agent alpha")
    await offers(engine, Offered(agents={"alpha": "7"}), "s2")
    assert await only(engine, run_id) == ("a", "free_worker", "2 workers with it: busy")


async def test_the_delay_of_a_retry(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(retry=RETRY, timeout_s=500.0))
    await (await worker.next("alpha")).fail("transient")
    found = await waits(engine, run_id)
    [wait] = found.data
    assert (wait.waits_for, wait.detail, wait.kind, wait.name) == (
        "retry", "it failed 1 time, and is tried again", "agent", "alpha",
    )  # fmt: skip
    assert wait.until is not None and 0 < (wait.until - engine.clock.now()).total_seconds() <= RETRY.max_s, "not the time-out"
    await engine.advance(RETRY.max_s)
    await (await worker.next("alpha")).fail("transient")
    [wait] = (await waits(engine, run_id)).data
    assert wait.detail == "it failed 2 times, and is tried again"


async def test_calls(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "mail")
    [wait] = (await waits(engine, run_id)).data
    assert (wait.step, wait.kind, wait.name, wait.id, wait.key) == ("alpha", "tool", "mail", call, "k")
    assert (wait.waits_for, wait.detail) == ("worker", "no worker has tool mail")
    await offers(engine, Offered(tools={"mail": "1"}))
    assert await only(engine, run_id) == ("alpha", "free_worker", "1 worker with it: busy, or its limit is reached")
    breaker_id = breaker_id_of(tool_id_of(TENANT, "mail"))
    forced: dict[str, Any] = {"state": "open", "by": "key:ann", "reason": "down", "at": engine.clock.now()}
    await engine.give(ForceBreaker(breaker_id=breaker_id, tool="mail", **forced))
    assert await only(engine, run_id) == ("alpha", "breaker", "the breaker of mail is open")
    await engine.give(ForceBreaker(breaker_id=breaker_id, tool="mail", **{**forced, "state": "closed"}))
    await worker.next("mail", "tool")
    assert await only(engine, run_id) == ("alpha", "tool", "worker worker-1 calls it, as attempt 1")
    engine.clock.advance(10)
    with pytest.raises(Exception, match="ambiguous"):
        await worker.claim(await worker.take("mail", "tool"))
    assert await only(engine, run_id) == ("alpha", "person", "nobody knows whether attempt 1 took effect")


async def test_calls_that_are_tried_again_or_asked_about(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register(tools_={"book": {"idempotent": False, "reconcile_timeout_s": 5.0}})
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("a", "add", a=1)
    book = await alpha.call("b", "book")
    await (await worker.next("add", "tool")).fail("transient")
    claim = await worker.next("book", "tool")
    unknown = Failure(type="Stopped", message="in the middle", kind="timeout")
    await engine.give(FailInvocation(invocation_id=book, attempt=claim.attempt, error=unknown, effect="unknown"))
    add, booked = (await waits(engine, run_id)).data
    assert (add.waits_for, add.detail) == ("retry", "it failed, and is tried again") and add.until is not None
    assert (booked.waits_for, booked.detail) == ("reconcile", "its reconcile function is asked whether it took effect")


async def test_a_call_that_people_decide_about(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register(tools_={"wire": {"policy": ToolPolicy(approval=True)}})
    run_id = await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "wire")
    held = (await engine.invocation(call)).approval_id
    [wait] = (await waits(engine, run_id)).data
    assert (wait.waits_for, wait.approval_id) == ("approval", held) and held is not None
    assert wait.detail == f"people decide whether it may begin (approval {held})"
    again = DispatchInvocation(invocation_id=call, by="key:ann", reason="now")
    with pytest.raises(InvalidState, match="the call waits for a decision, and for no worker"):
        await engine.give(again)
    await engine.give(PauseRun(run_id=run_id))
    await engine.settled()
    await engine.give(ResumeRun(run_id=run_id))
    assert (await engine.invocation(call)).status == "held", "a pause decides nothing"
    assert (await worker.next("alpha")).attempt == 2


async def test_a_paused_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", "add", a=1)
    await engine.give(PauseRun(run_id=run_id, by="key:ann", reason="look first"))
    found = await waits(engine, run_id)
    own, of_step = found.data
    assert found.status == "paused" and (own.step, own.kind, own.waits_for) == (None, "run", "resume")
    assert (own.detail, own.id) == ("paused by key:ann because: look first", None)
    assert (of_step.waits_for, of_step.detail) == ("resume", "it goes on when the run does")


async def test_clocks_children_and_what_is_with_the_run_above(engine: Engine, worker: PlayedWorker) -> None:
    steps: list[dict[str, Any]] = [
        {"key": "clock", "wait": {"s": 50}}, {"key": "soon", "wait": {"s": 5}},
        {"key": "child", "run": {"plan": {"steps": [{"key": "x", "agent": "alpha"}]}}},
        {"key": "list", "agent": "beta", "each": {"over": "[1, 2]"}},
    ]  # fmt: skip
    run_id = await engine.start(plan=Plan.model_validate({"steps": steps}))
    child = child_id_of(run_id, "child", 0)
    clock, soon, run, *items = (await waits(engine, run_id)).data
    assert clock.until is not None and soon.until is not None and (clock.until - soon.until).total_seconds() == 45
    assert (clock.waits_for, clock.detail) == ("clock", f"it waits for {clock.until.isoformat()}")
    assert (run.step, run.kind, run.id, run.waits_for) == ("child.0", "run", child, "run")
    assert run.detail == f"run {child} has not ended"
    assert [item.step for item in items] == ["list.0", "list.1"]
    await engine.give(PauseRun(run_id=run_id))
    above, of_step = (await waits(engine, child)).data
    assert (above.id, above.detail) == (run_id, f"paused with run {run_id}")
    assert of_step.waits_for == "resume"


async def test_a_call_that_was_asked_for_in_the_pause(engine: Engine, worker: PlayedWorker) -> None:
    """The agent was claimed by a worker that has not heard of the pause: its call is paused where a worker asks for it."""
    run_id = await engine.start("alpha")
    await (await worker.next("alpha")).call("k", "add", a=1)
    await engine.settled()
    delivery = await worker.take("add", "tool")
    await engine.give(PauseRun(run_id=run_id))
    await engine.settled()
    assert await asked_by_a_session(engine, worker, delivery.item) is None
    assert [wait.waits_for for wait in (await waits(engine, run_id)).data] == ["resume", "resume"]


def test_a_run_without_steps_under_way_has_no_executions() -> None:
    assert executions_of(runs.Run()) == ([], [])


RUN, OTHER = "0198c0de-0000-7000-8000-0000000000aa", "0198c0de-0000-7000-8000-0000000000bb"


@pytest.mark.parametrize(
    ("wait", "command"),
    [
        ({"waits_for": "resume", "kind": "run", "id": None}, f"runs resume {RUN}"),
        ({"waits_for": "resume", "kind": "run", "id": OTHER}, f"runs resume {OTHER}"),
        ({"waits_for": "resume", "kind": "agent", "id": OTHER}, f"runs resume {RUN}"),
        ({"waits_for": "worker", "kind": "tool", "name": "mail"}, "tools show mail"),
        ({"waits_for": "worker", "kind": "agent", "name": "critic"}, "worker --agents FOLDER, with critic in it"),
        ({"waits_for": "version", "kind": "agent", "name": "critic"}, "worker --agents FOLDER, with critic in it"),
        ({"waits_for": "free_worker", "kind": "agent", "name": "critic"}, "workers list"),
        ({"waits_for": "retry", "kind": "agent", "step": "s.3", "id": OTHER}, f"runs dispatch {RUN} s.3 --reason …"),
        ({"waits_for": "retry", "kind": "tool", "step": "s", "id": OTHER}, f"runs dispatch {RUN} s --call {OTHER} --reason …"),
        ({"waits_for": "run", "kind": "run", "id": OTHER}, f"runs explain {OTHER}"),
        ({"waits_for": "breaker", "kind": "tool", "name": "mail"}, "tools breaker mail"),
        ({"waits_for": "person", "kind": "tool", "id": OTHER}, f"invocations resolve {OTHER} …"),
        ({"waits_for": "approval", "kind": "tool", "approval_id": OTHER}, f"inbox show {OTHER}"),
        ({"waits_for": "agent", "kind": "agent", "step": "s"}, f"runs dispatch {RUN} s --reason …"),
        ({"waits_for": "unknown", "kind": "run"}, f"runs show {RUN}"),
        ({"waits_for": "clock", "kind": "clock"}, ""),
    ],
)
def test_the_command_that_helps(wait: dict[str, Any], command: str) -> None:
    assert helps(wait, RUN).endswith(command) and bool(helps(wait, RUN)) == bool(command)


def test_a_wait_in_words() -> None:
    wait = {"step": "s", "key": "k", "waits_for": "retry", "detail": "it failed", "until": "2026-11-30T08:00:00Z"}
    assert told(wait) == "s: k: it failed, until 2026-11-30T08:00:00Z"
    assert told({**wait, "waits_for": "clock", "key": None}) == "s: it failed"
    assert told({"step": None, "waits_for": "resume", "detail": "paused"}) == "the run: paused"
