"""The checker itself: it reports nothing for a right log, and each kind of damage by its rule."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from domain.kernel import Metadata, RecordedEvent
from tests.chaos.checker import check_snapshot
from tests.chaos.checks.snapshot import Snapshot, read_snapshot
from tests.chaos.witness import Line, check_witness
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, empty_work_queue, eventually, fresh_database, issue_key, new_id, running

Damage = Callable[[Snapshot], Snapshot]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole(services: Any) -> Snapshot:
    """The state after runs that use all features: steps, calls of both kinds, mail, shared values, a retry, cancellations."""
    await empty_work_queue(services.nats_url)
    async with fresh_database(services) as database_url, running(database_url, services.nats_url) as system:
        await issue_key(system)
        await _live_through(system)
        await system.settled()

        async def clean() -> bool:
            return not await check_snapshot(await read_snapshot(database_url), services.nats_url)

        await eventually(clean, "a state without violations")
        return await read_snapshot(database_url)


async def _live_through(system: System) -> None:
    worker = system.worker()
    await worker.register("alpha", "beta", tools=["add", {"name": "mail", "idempotent": False}])
    run_id = await system.start("alpha", "beta")
    alpha = await worker.next("alpha")
    await alpha.ok("record", key="first", result="one")
    await alpha.call("sum", "add", a=1)
    call = await worker.next("add", "tool")
    await call.fail("transient")
    await (await worker.next("add", "tool")).complete(3)
    await alpha.call("post", "mail")
    await (await worker.next("mail", "tool")).complete("sent")
    await alpha.ok("send", key="say", to="beta", body="hello")
    await alpha.ok("set", key="keep", name="found", value=1)
    await alpha.complete("done")
    beta = await worker.next("beta")
    [mail] = beta.body["mailbox"]
    await beta.ok("receive", key="hear", message_id=mail["message_id"])
    await beta.complete("heard")
    await system.ended(run_id)
    cancelled = await system.start("alpha")
    answer = await system.http.post(f"/v1/runs/{cancelled}/cancel", json={})
    assert answer.status_code == 202
    await system.settled()
    left = await worker.take("alpha")  # work that was queued before the cancellation
    assert await worker.try_claim(left.work_id) is None
    await left.ack()
    await _live_through_a_resolution(system, worker)
    await _live_through_a_cancelled_call(system, worker)


async def _live_through_a_resolution(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call("post", "mail")
    await (await worker.next("mail", "tool")).lose()
    resolved = await system.http.post(f"/v1/invocations/{invocation_id}/resolve", json={"result": "sent", "reason": "seen"})
    assert resolved.status_code == 200
    await system.until_topic(run_id, "agent_run.call_finished")
    await alpha.complete("done")
    await system.ended(run_id)


async def _live_through_a_cancelled_call(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("sum", "add", a=1)
    call = await worker.next("add", "tool")
    assert (await system.http.post(f"/v1/runs/{run_id}/cancel", json={})).status_code == 202
    await system.until_topic(run_id, "invocation.cancel_requested")
    await call.fail("transient")
    await system.settled()


def _event(snapshot: Snapshot, topic: str) -> RecordedEvent:
    return next(event for event in snapshot.events if event.topic == topic)


def _again(topic: str, **changes: Any) -> Damage:
    """Adds another event of the topic at the end of its stream and of the log, recorded as a command of its own."""

    def damage(snapshot: Snapshot) -> Snapshot:
        event = _event(snapshot, topic)
        versions = [e.version for e in snapshot.events if e.stream_id == event.stream_id]
        command_id = new_id()
        metadata = event.metadata.replace(str(_command_of(event)), str(command_id))
        copy = event._replace(
            position=snapshot.head + 1, version=max(versions) + 1, metadata=metadata,
            recorded_at=snapshot.events[-1].recorded_at, **changes,
        )  # fmt: skip
        row = {
            "tenant_id": event.tenant_id, "command_id": command_id, "last_position": snapshot.head + 1, "event_count": 1,
            "recorded_at": copy.recorded_at,
        }  # fmt: skip
        return _with(snapshot, events=[*snapshot.events, copy], commands=[*snapshot.commands, row], head=snapshot.head + 1)

    return damage


def _command_of(event: RecordedEvent) -> UUID:
    return Metadata.model_validate_json(event.metadata).command_id


def _without(topic: str) -> Damage:
    return lambda s: _with(s, events=[event for event in s.events if event is not _event(s, topic)])


def _with(snapshot: Snapshot, **changes: Any) -> Snapshot:
    return replace(snapshot, **changes, facts=[], undecodable=[])


def _row(table: str, **changes: Any) -> Damage:
    """Changes values of the first row of a table."""

    def damage(snapshot: Snapshot) -> Snapshot:
        [first, *others] = snapshot.tables[table]
        return _with(snapshot, tables={**snapshot.tables, table: [{**first, **changes}, *others]})

    return damage


def _no_row(table: str) -> Damage:
    return lambda s: _with(s, tables={**s.tables, table: s.tables[table][1:]})


def _surplus(table: str, key: str) -> Damage:
    return lambda s: _with(s, tables={**s.tables, table: [*s.tables[table], {key: new_id(), "stream_id": new_id()}]})


def _behind(snapshot: Snapshot) -> Snapshot:
    return _with(snapshot, checkpoints={**snapshot.checkpoints, "runs": snapshot.head - 1})


def _parked(snapshot: Snapshot) -> Snapshot:
    return _with(snapshot, parked=[{"consumer": "sagas", "position": 3, "topic": "run.started", "error": "broken"}])


def _miscounted(snapshot: Snapshot) -> Snapshot:
    [first, *others] = snapshot.commands
    return _with(snapshot, commands=[{**first, "event_count": first["event_count"] + 1}, *others])


def _unreadable(snapshot: Snapshot) -> Snapshot:
    return _with(snapshot, events=[*snapshot.events[:-1], snapshot.events[-1]._replace(state=b"[]")])


def _tried_again(snapshot: Snapshot) -> Snapshot:
    """A call that was cancelled in the middle of its attempt is claimed once more before it ends."""
    asked = _event(snapshot, "invocation.cancel_requested")
    end = next(e for e in snapshot.events if e.stream_id == asked.stream_id and e.version == asked.version + 1)
    again = end._replace(topic="invocation.attempt_started", state=b'{"attempt":2,"worker_id":"w","dispatch":1}')
    return _with(snapshot, events=[again if event is end else event for event in snapshot.events])


DAMAGES: list[tuple[str, Damage, str]] = [
    ("an event is missing", _without("agent_run.step_recorded"), "positions-contiguous"),
    ("a version is missing", _without("agent_run.step_recorded"), "versions-contiguous"),
    ("the head is ahead", lambda s: _with(s, head=s.head + 1), "head-is-last-position"),
    ("a command is not known", lambda s: _with(s, commands=s.commands[1:]), "command-recorded-once"),
    ("a command has another number of events", _miscounted, "command-recorded-once"),
    ("an event cannot be decoded", _unreadable, "event-decodes"),
    ("a key is recorded twice", _again("agent_run.step_recorded"), "journal-key-recorded-once"),
    ("a step is recorded after the end", _again("agent_run.step_recorded"), "nothing-after-the-end"),
    ("a call is finished twice", _again("agent_run.call_finished"), "call-finished-once"),
    ("a run ends twice", _again("run.completed"), "ends-once"),
    ("a step ends twice", _again("run.step_completed"), "step-ends-once"),
    ("a step is scheduled twice", _again("run.step_scheduled"), "step-scheduled-once"),
    ("an attempt has a number twice", _again("invocation.attempt_started"), "claims-numbered"),
    ("an invocation ends twice", _again("invocation.succeeded"), "ends-once"),
    ("a resolved invocation ends twice", _again("invocation.resolved"), "ends-once"),
    ("a resolved invocation has no outcome", _without("invocation.resolved"), "call-finished-as-invocation"),
    ("an invocation is cancelled twice", _again("invocation.cancel_requested"), "cancelled-once"),
    ("a cancelled invocation is tried again", _tried_again, "nothing-again-after-a-cancel"),
    ("an invocation has another status", _row("invocation", status="requested"), "row-equals-events"),
    ("a message is sent twice", _again("message.sent"), "message-sent-once"),
    ("a message is delivered twice", _again("agent_run.mail_delivered"), "mail-delivered-once"),
    ("mail is received twice", _again("agent_run.mail_received"), "mail-received-once"),
    ("a value is written without a record", _again("context.value_set"), "writes-in-journal"),
    ("a run has not ended", _without("run.completed"), "run-has-ended"),
    ("a row of a run has another status", _row("run", status="failed"), "row-equals-replay"),
    ("a run has no row", _no_row("run"), "row-equals-replay"),
    ("a message was never delivered", _row("message", delivered_at=None), "row-equals-events"),
    ("an agent has another version", _row("agent", revision=7), "row-equals-events"),
    ("a tool is not there", _no_row("tool"), "row-is-there"),
    ("a project has another name", _row("project", name="other"), "row-equals-events"),
    ("a key is not there", _no_row("api_key"), "row-is-there"),
    ("work is open that is over", _surplus("open_work", "work_id"), "row-has-events"),
    ("a timer is there that nobody set", _surplus("timer", "timer_id"), "row-has-events"),
    ("a timer fired without effect", _without("invocation.requeued"), "timer-fires"),
    ("a consumer is behind", _behind, "checkpoint-at-head"),
    ("an event is parked", _parked, "nothing-parked"),
]


@pytest.mark.parametrize(("damage", "rule"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
async def test_damage_is_found_by_its_rule(whole: Snapshot, damage: Damage, rule: str) -> None:
    assert rule in {violation.rule for violation in await check_snapshot(damage(whole))}


async def test_a_tool_that_may_not_be_repeated_is_started_once(whole: Snapshot) -> None:
    requested = next(e for e in whole.events if e.topic == "invocation.requested" and b'"tool":"mail"' in e.state)
    started = next(e for e in whole.events if e.topic == "invocation.attempt_started" and e.stream_id == requested.stream_id)
    second = started._replace(position=whole.head + 1, version=9, state=started.state.replace(b'"attempt":1', b'"attempt":2'))
    found = await check_snapshot(_with(whole, events=[*whole.events, second]))
    assert "one-attempt-unless-idempotent" in {violation.rule for violation in found}


async def test_runs_must_be_there_and_end_as_expected(whole: Snapshot) -> None:
    run = _event(whole, "run.completed").stream_id
    found = await check_snapshot(whole, expected={run: "cancelled", new_id(): "completed"})
    assert {violation.rule for violation in found} == {"run-ended-as-expected", "run-is-there"}


async def test_what_is_under_way_is_no_violation_of_a_running_system(whole: Snapshot) -> None:
    """Any beginning of a log, up to the end of a command, is right as long as no work has to be finished."""
    for end in sorted(row["last_position"] for row in whole.commands):
        commands = [row for row in whole.commands if row["last_position"] <= end]
        nothing: dict[str, Any] = {"checkpoints": {}, "tables": {name: [] for name in whole.tables}}
        early = _with(whole, events=whole.events[:end], head=end, commands=commands, **nothing)
        assert await check_snapshot(early, settled=False) == [], f"after {end} events"


def test_executions_are_compared_with_records(whole: Snapshot) -> None:
    step = _event(whole, "agent_run.step_recorded")
    at = step.recorded_at.timestamp()

    def rules(*lines: Line) -> set[str]:
        return {v.rule for v in check_witness(list(lines), whole) if str(step.stream_id) in v.subject}

    def line(word: str = "one", attempt: int = 1, at: float = at - 0.001) -> Line:
        return Line("step", str(step.stream_id), "first", attempt, word, at, 1)

    assert rules(line()) == set()
    assert "recorded-as-executed" in rules(line(word="other"))
    assert "executed-once-for-each-attempt" in rules(line(), line())
    assert "finished-work-not-repeated" in rules(line(), line(attempt=2))
    assert "finished-work-not-repeated" in rules(line(), line(attempt=0, at=at + 1))
    unknown = Line("tool", str(new_id()), "mail", 1, "one", at, 1)
    assert [v.rule for v in check_witness([unknown], _with(whole, events=[]))] == ["executed-as-recorded"]


async def test_what_callers_were_told_is_in_the_log(whole: Snapshot) -> None:
    told = {row["command_id"]: row["last_position"] for row in whole.commands}
    first, second = list(told)[:2]
    assert await check_snapshot(whole, told=told, asked=told) == []
    for wrong in ({new_id(): 1}, {first: told[first] + 1}):
        assert [v.rule for v in await check_snapshot(whole, told=wrong)] == ["acknowledged-is-recorded"]
    assert [v.rule for v in await check_snapshot(whole, asked=told.keys() - {second})] == ["recorded-was-asked-for"]
