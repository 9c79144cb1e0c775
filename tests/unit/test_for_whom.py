"""For whom a caller asks: which texts are taken, and which events say it."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from api.http.conventions.behalf import MAX_LENGTH, NAME, on_behalf_of
from api.http.conventions.idempotency import content_of
from api.http.routes.projects import CreateProjectBody
from application.engine.commands.request import Caller, CommandRequest
from application.engine.ports.sessions import HeldWork, LapsedWork
from application.engine.reading.cloudevents import CloudEventEncoder
from application.invocations import resolve_invocation
from application.lapses import lapsing
from application.routes import ROUTES
from application.runs.start import StartedDifferently
from domain import agent_runs, allowances, approvals, invocations, runs
from domain.agent_runs import ClaimAgentRun, StartWait
from domain.amounts import BudgetLimits
from domain.errors import InvalidCommand, WorkOver
from domain.invocations import ClaimInvocation
from domain.kernel import RecordedEvent, who_asked
from domain.plans import ChildRun, Wait
from domain.registry import REGISTRY
from domain.runs import CancelRun, SetDeadline
from tests.golden.examples import EXAMPLES
from tests.kit.engine import RETRY, Claim, Engine, PlayedWorker, plan
from tests.kit.waiting import TENANT, new_id

# --- the header -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["user:ada", "Ada Lovelace <ada@example.org>", "Ängström, ÅSE", "田中", "x", "ä" * MAX_LENGTH])
def test_printable_text_is_taken_as_it_is(text: str) -> None:
    assert on_behalf_of({NAME: b" \t" + text.encode() + b" "}) == text


def test_without_the_header_a_request_is_for_nobody() -> None:
    assert on_behalf_of({b"idempotency-key": b"x"}) is None


@pytest.mark.parametrize(
    "given",
    [
        b"", b"  ", b"x" * (MAX_LENGTH + 1), "ä".encode("latin-1"), b"a\tb", b"a\x1b[31mb", b"a\x7f", "a\u202eb".encode(),
        "a\u2028b".encode(), "a\u0085b".encode(), "a\xadb".encode(), "a\ufffeb".encode(), "a\u00a0b".encode(), b"a\x00",
    ],
)  # fmt: skip
def test_other_text_is_refused(given: bytes) -> None:
    with pytest.raises(InvalidCommand, match=r"^Tidelog-On-Behalf-Of "):
        on_behalf_of({NAME: given})


def test_the_same_body_for_another_is_another_request() -> None:
    body = CreateProjectBody(name="p")
    said = [
        content_of(body, None),
        content_of(body, "ada"),
        content_of(body, "bob"),
        content_of(CreateProjectBody(name="q"), "ada"),
    ]
    assert len(set(said)) == 4 and content_of(body, "ada") == said[1] and content_of(body) == said[0]


# --- the events -----------------------------------------------------------------------------------------------------------


def for_whom(engine: Engine, root_id: UUID) -> set[tuple[str, str | None]]:
    """Topic and `on_behalf_of` of all events of a run."""
    return {(event.topic, who_asked(event.metadata)[1]) for event in engine.log.events if event.root_id == root_id}


def asks(name: str | None, command_id: UUID | None = None) -> CommandRequest:
    command_id = command_id or new_id()
    return CommandRequest(TENANT, "key:console", command_id, command_id, "test", on_behalf_of=name)


async def lose(engine: Engine, worker: PlayedWorker, pool: str, kind: str = "agent") -> UUID:
    """A session claims the next item of a queue, and is lost."""
    item, session_id = (await worker.take(pool, kind)).item, new_id()
    given: dict[str, Any] = {"worker_id": "lost", "dispatch": item.dispatch, "session_id": session_id}
    if kind == "agent":
        attempt = (await engine.workers.claims.claim(worker.caller, ClaimAgentRun(agent_run_id=item.work_id, **given), "x"))[
            0
        ].attempt
    else:
        claim = ClaimInvocation(invocation_id=item.work_id, **given)
        attempt = (await engine.workers.invocations.claim(worker.caller, claim, "x"))[0].attempt
    held = HeldWork(TENANT, kind, item.work_id, item.root_id, attempt, session_id)
    await engine.commands.execute(*lapsing(LapsedWork(held, "lost")))
    return item.work_id


async def waits_in_vain(engine: Engine, claim: Claim) -> None:
    """For a signal, without a worker meanwhile, until the time-out of the wait wakes the agent."""
    waits, caller = engine.workers.waits, claim.worker.caller
    wait = StartWait(agent_run_id=claim.work_id, attempt=claim.attempt, key="wait", kind="signal", name="go", delay_s=60.0)
    seen = (await waits.start(caller, wait)).versions[claim.work_id]
    await engine.settled()
    left, _ = await waits.suspend(caller, claim.work_id, claim.attempt, seen, ())
    assert left
    await claim.delivery.ack()
    await engine.advance(120)


@pytest.mark.parametrize("reactions", [True, False])
async def test_all_that_comes_of_a_run_is_for_whom_it_was_started(reactions: bool) -> None:
    """Sagas, in the append or later, timers, retries, lapses, calls, mail and values; for one of two runs of the same agents."""
    engine = Engine(reactions=reactions)
    await engine.set_up()
    async with engine.running():
        worker = engine.worker()
        await worker.register("alpha", "beta", "gamma", tools_={"add": {"max_attempts": 3}})
        await _everything(engine, worker)


async def _everything(engine: Engine, worker: PlayedWorker) -> None:
    graph = runs.Plan(
        steps=(
            runs.Step(key="a", agent="alpha", retry=RETRY),
            runs.Step(key="b", agent="beta", after=("a",), timeout_s=60.0, on_failure="continue"),
            runs.Step(key="c", agent="gamma", after=("b", "a")),
        )
    )
    run_id = await engine.start(plan=graph, request=asks("user:ada"))
    other = await engine.start("gamma")
    alpha = await worker.next("alpha")
    await alpha.step("one", 1)
    await alpha.fail("transient")
    await engine.advance(60)
    alpha = await worker.next("alpha")
    await alpha.set("set", "n", 1)
    await alpha.get("get", "n")
    message = await alpha.send("send", "a", "hello")
    await engine.settled()
    await alpha.receive("receive", message)
    await alpha.call("call", "add", a=1)
    call = await worker.next("add", "tool")
    await call.fail("transient")
    await engine.advance(60)
    await lose(engine, worker, "add", "tool")
    await (await worker.next("add", "tool")).complete(2)
    await engine.settled()
    await waits_in_vain(engine, alpha)
    alpha = await worker.next("alpha")
    await alpha.complete("done")
    await lose(engine, worker, "beta")
    await engine.advance(120)
    for _ in (run_id, other):
        await (await worker.next("gamma")).complete("end")
    assert (await engine.run(run_id)).status == "completed"
    assert (await engine.run(other)).status == "completed"
    seen = for_whom(engine, run_id)
    assert {name for _, name in seen} == {"user:ada"}, sorted(topic for topic, name in seen if name is None)
    missing = {
        topic for topic in REGISTRY.events if topic.split(".")[0] in ("run", "agent_run", "invocation", "message", "context")
    }
    missing -= {topic for topic, _ in seen}
    assert missing == {
        "run.retried", "run.deadline_set", "run.priority_changed", "run.queued", "run.begun",
        "agent_run.reopened", "run.paused", "run.pause_lifted", "run.resumed",
        "agent_run.paused", "agent_run.unpaused", "invocation.paused",
        "agent_run.priority_changed", "invocation.priority_changed",
        "run.failed", "run.cancelled", "run.step_started", "run.step_skipped", "run.step_fell_back", "run.part_scheduled",
        "run.part_completed", "run.part_failed", "agent_run.cancelled", "agent_run.mail_refused", "invocation.cancelled",
        "invocation.cancel_requested", "invocation.failed", "invocation.became_ambiguous", "invocation.resolved",
        "invocation.not_happened", "invocation.reconcile_requested", "invocation.reconcile_started",
        "invocation.reconcile_failed", "invocation.reconciled", "invocation.fell_back",
        "invocation.compensation_requested", "invocation.compensation_refused", "invocation.held", "invocation.released",
        "run.tainted", "run.signalled", "run.signal_received", "run.step_taken_over", "run.part_taken_over",
        "agent_run.entry_taken_over", "agent_run.mail_taken_over", "context.value_taken_over",
        "agent_run.portion_granted", "agent_run.portion_settled", "agent_run.progressed",
        "agent_run.call_paid", "agent_run.call_unpaid", "agent_run.call_covered",
    }, "all other events were tried"  # fmt: skip
    assert {name for _, name in for_whom(engine, other)} == {None}
    assert all("on_behalf_of" not in event.metadata for event in engine.log.events if event.root_id == other)


@pytest.mark.parametrize("name", ["user:ada", None])
async def test_what_a_clock_brings_about_is_for_whom_the_run_is(engine: Engine, worker: PlayedWorker, name: str | None) -> None:
    """The end of a wait and the deadline of a child run, and the end of the wall time of another run."""
    body = {"steps": [{"key": "late", "agent": "alpha", "after": []}]}
    child = runs.Step(key="child", run=ChildRun(plan=body))
    steps = (runs.Step(key="pause", wait=Wait(s=60.0)), child.model_copy(update={"after": ("pause",)}))
    waiting = await engine.start(plan=runs.Plan(steps=steps), request=asks(name))
    await engine.advance(120)
    below = runs.child_id_of(waiting, "child", 0)
    await engine.give(SetDeadline(run_id=below, deadline_s=60.0))
    timed = await engine.start("beta", request=asks(name), budget=runs.RunBudget(limits=BudgetLimits(), wall_s=60.0))
    await engine.settled()
    await engine.advance(120)
    said = {event.root_id: for_whom(engine, event.root_id) - {("run.deadline_set", None)} for event in engine.log.events}
    assert {by for run_id in (waiting, below, timed) for _, by in said[run_id]} == {name}
    assert {"run.step_completed", "run.failed"} <= {topic for topic, _ in said[waiting]}
    assert {"allowance.spent", "run.failed"} <= {topic for topic, _ in said[timed]}
    assert ("run.failed", name) in said[below]
    assert (await engine.run(below)).on_behalf_of == (await engine.run(timed)).on_behalf_of == name


def test_every_command_of_a_timer_knows_for_whom() -> None:
    run_id, waiting = new_id(), runs.StepStarted(step="a", form="wait", delay_s=1.0)
    slices = (agent_runs, invocations, runs, approvals, allowances)
    found = [each.scheduled_by(event, run_id) for each in slices for event in (*EXAMPLES, waiting)]
    timed = {type(scheduled.command) for scheduled in found if scheduled is not None}
    assert {runs.EndWait, runs.EndAtDeadline, runs.ExpireSignalWait, allowances.EndTime} < timed
    assert not [command.__name__ for command in timed if ROUTES[command].on_behalf_of is None]


async def test_what_a_person_does_later_is_for_whom_that_person_asks(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", request=asks("user:ada"))
    alpha = await worker.next("alpha")
    called, left = await alpha.call("one", "mail"), await alpha.call("two", "mail")
    assert await lose(engine, worker, "mail", "tool") == called
    for person in ("user:bob", "user:carol"):  # the same again, for another: the first one counts
        resolve = invocations.ResolveInvocation(invocation_id=called, result=1, by="key:ops", reason="seen", on_behalf_of=person)
        await resolve_invocation(engine.commands, engine.workers.results, Caller(TENANT, "key:ops", None, person), resolve)
    await engine.settled()
    await alpha.step("after", 1)
    await engine.commands.execute(asks(None), CancelRun(run_id=run_id, reason="enough"))
    await engine.settled()
    seen = for_whom(engine, run_id)
    assert {topic for topic, name in seen if name == "user:bob"} == {"invocation.resolved", "agent_run.call_finished"}
    assert {topic for topic, name in seen if name is None} == {"run.cancelled", "agent_run.cancelled", "invocation.cancelled"}
    assert ("agent_run.step_recorded", "user:ada") in seen and not [name for _, name in seen if name == "user:carol"]
    assert (await engine.invocation(left)).status == "cancelled"


async def test_a_call_that_a_worker_finds_over_is_cancelled_for_whom_it_was_made(engine: Engine, worker: PlayedWorker) -> None:
    """The run is cancelled for nobody, and the saga has not come to the call yet."""
    run_id = await engine.start("alpha", request=asks("user:ada"))
    alpha = await worker.next("alpha")
    called = await alpha.call("k", "add", a=1)
    delivery = await worker.take("add", "tool")
    late = engine.another(reactions=False)  # its reactions are left to the manager
    for task in engine.tasks:
        task.cancel()
    await late.commands.execute(asks(None), CancelRun(run_id=run_id))
    with pytest.raises(WorkOver):
        await late.worker().claim(delivery)
    [cancelled] = [event for event in engine.log.streams[called] if event.topic == "invocation.cancelled"]
    assert who_asked(cancelled.metadata) == ("key:test", "user:ada")
    engine.tasks.clear()


async def test_a_worker_cannot_say_for_whom_it_works(engine: Engine, worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlayedWorker, "caller", Caller(TENANT, "key:worker", None, "user:mallory"))
    run_id = await engine.start("alpha", request=asks("user:ada"))
    alpha = await worker.next("alpha")
    await alpha.call("k", "add", a=1)
    await (await worker.next("add", "tool")).complete(1)
    await alpha.complete()
    other = await engine.start("alpha")
    await (await worker.next("alpha")).complete()
    assert (await engine.run(run_id)).status == (await engine.run(other)).status == "completed"
    assert {name for _, name in for_whom(engine, run_id)} == {"user:ada"}
    assert {name for _, name in for_whom(engine, other)} == {None}


async def test_a_process_that_reads_a_snapshot_knows_it_too() -> None:
    engine = Engine(snapshot_every=2)
    await engine.set_up()
    async with engine.running():
        worker = engine.worker()
        await worker.register("alpha")
        run_id = await engine.start(plan=plan(), request=asks("user:ada"))
        alpha = await worker.next("alpha")
        for number in range(6):
            await alpha.step(f"s{number}", number)
        await engine.settled()
        assert engine.snapshots.rows
        other = engine.another(snapshot_every=2).worker()
        alpha.worker = other
        await alpha.step("late", 7)
        await alpha.complete()
        assert (await engine.run(run_id)).status == "completed"
    assert {name for _, name in for_whom(engine, run_id)} == {"user:ada"}


async def test_a_start_is_not_repeated_for_another(engine: Engine, worker: PlayedWorker) -> None:
    run_id = new_id()
    await engine.start("alpha", run_id=run_id, request=asks("user:ada", run_id))
    await engine.start("alpha", run_id=run_id, request=asks("user:ada", run_id))
    for name in ("user:bob", None):
        with pytest.raises(StartedDifferently, match="on behalf of another"):
            await engine.start("alpha", run_id=run_id, request=asks(name, run_id))


@pytest.mark.parametrize(("metadata", "shown"), [('{"actor":"a","on_behalf_of":"ada"}', "ada"), ('{"actor":"a"}', None)])
def test_on_the_wire_it_is_an_attribute_of_its_own(metadata: str, shown: str | None) -> None:
    encoder = CloudEventEncoder(REGISTRY.events)
    event = RecordedEvent(7, TENANT, new_id(), 3, new_id(), "run.completed", 1, b"{}", metadata, datetime(2026, 1, 1, tzinfo=UTC))
    assert json.loads(encoder.encode(event)).get("onbehalfof") == shown
