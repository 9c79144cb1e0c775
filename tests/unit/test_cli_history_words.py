"""The words of a run's history for events that change nothing in the run's document."""

from datetime import UTC, datetime
from typing import Any

import pytest

from api.cli.history import RunHistory
from api.cli.output import EVENT_WIDTH
from api.cli.quiet_events import QUIET
from api.cli.timeline import Timeline
from domain.registry import REGISTRY
from tests.unit.test_cli_history import EVENTS, as_sent

CALL, UNDO, AGENT, CHAIN = "seat-call", "undo-call", "agent-run", "chain-stream"
DOWN = {"type": "Down", "message": "no route", "kind": "transient"}
SAID = {"by": "key:ann", "reason": "sent by hand"}
DEMAND = {
    "requirements": [{"roles": ["admin"], "approvers": 2}, {"roles": [], "approvers": 1}], "four_eyes": True,
    "because": [
        {"policy": "p", "expression": "arguments.n > 1", "saw": {"arguments.n": 2}},
        {"policy": None, "expression": None, "saw": {}, "error": "no key"},
    ],
}  # fmt: skip
TOLD: list[tuple[str, str, dict[str, Any], str]] = [
    ("agent_run.requested", AGENT, {}, "seller: waits for a worker"),
    ("agent_run.resumed", AGENT, {}, "seller: waits for a worker again"),
    ("agent_run.resumed", AGENT, {"reason": "lost"}, "seller: its worker vanished, waits for another"),
    ("agent_run.paused", AGENT, {"number": 1}, "seller: is paused with the run"),
    ("agent_run.priority_changed", AGENT, {"number": 1}, "seller: has the new priority of the run"),
    ("run.priority_changed", "run", {"priority": "high", "before": "low", "cause": {"by": "key:ann", "reason": "they wait"}},
     "run: priority high instead of low by key:ann because: they wait"),
    ("agent_run.unpaused", AGENT, {"number": 1}, "seller: goes on with the run"),
    ("run.paused", "run", {"cause": {"by": "key:ann", "reason": "look first", "on_behalf_of": "ada"}},
     "run: paused by key:ann for ada because: look first"),
    ("run.paused", "run", {"cause": {"parent_id": "0198"}}, "run: paused with run 0198"),
    ("run.pause_lifted", "run", {"cause": {"by": "key:ann"}, "left": {"parent_id": "0198", "by": "key:ben"}},
     "run: one pause was ended by key:ann; it is still paused with run 0198 by key:ben"),
    ("run.resumed", "run", {"cause": {"by": "key:ann", "reason": "fine"}}, "run: resumed by key:ann because: fine"),
    ("agent_run.resumed", AGENT, {"reason": "person", "by": "key:ann", "because": "it hangs"},
     "seller: dispatched again by key:ann because: it hangs, waits for another"),
    ("run.step_skipped", "run", {"step": "seller", "reason": "person", "person": SAID},
     "seller: skipped: by key:ann because: sent by hand"),
    ("run.step_completed", "run", {"step": "seller", "agent_run_id": None, "person": SAID},
     "seller: its result was given by key:ann because: sent by hand"),
    ("run.step_failed", "run", {"step": "seller", "agent_run_id": None, "person": SAID, "error": DOWN},
     "seller: was said to have failed by key:ann because: sent by hand: Down: no route"),
    ("run.part_completed", "run", {"step": "map", "part": 3, "execution_id": "a", "person": SAID},
     "map.3: its result was given by key:ann because: sent by hand"),
    ("run.part_failed", "run", {"step": "map", "part": 3, "execution_id": "a", "person": SAID, "error": DOWN},
     "map.3: was ended by key:ann because: sent by hand"),
    ("agent_run.reopened", AGENT, {}, "seller: goes on: it waits for a worker"),
    ("agent_run.step_recorded", AGENT, {"key": "send#1", "kind": "send"}, "seller: recorded send#1"),
    ("agent_run.call_finished", AGENT, {"invocation_id": CALL, "succeeded": True}, "seller: has the outcome of seat#2"),
    ("agent_run.call_finished", AGENT, {"invocation_id": "0000-01234567", "succeeded": False},
     "seller: has the outcome of call …01234567, a failure"),
    ("agent_run.mail_delivered", AGENT, {"sender": "critic"}, "seller: has a message of critic"),
    ("agent_run.mail_refused", AGENT, {"reason": "it is over"}, "seller: does not take a message: it is over"),
    ("agent_run.mail_received", AGENT, {"message_id": "m"}, "seller: read a message"),
    ("run.part_scheduled", "run", {"step": "map", "part": 3, "agent_run_id": "a", "agent": "critic"}, "map.3: waits for critic"),
    ("invocation.requested", CALL, {}, "seller: seat#2 is asked for"),
    ("invocation.requeued", CALL, {}, "seller: seat#2 waits for a worker again"),
    ("invocation.priority_changed", CALL, {"number": 1}, "seller: seat#2 has the new priority of the run"),
    ("invocation.paused", CALL, {"dispatch": 1}, "seller: seat#2 is paused with the run"),
    ("invocation.requeued", CALL, {"reason": "person", "by": "key:ann", "because": "it hangs"},
     "seller: seat#2: dispatched again by key:ann because: it hangs, waits for another"),
    ("invocation.reconcile_requested", CALL, {"reason": "lost"}, "seller: seat#2 is in doubt: whether it took effect is found out"),
    ("invocation.reconcile_started", CALL, {}, "seller: seat#2 is in doubt: its reconcile function is called"),
    ("invocation.reconciled", CALL, {"outcome": "succeeded"}, "seller: seat#2: its reconcile function says: it took effect"),
    ("invocation.fell_back", CALL, {"tool": "seat.post", "error": DOWN}, "seller: seat#2 goes on with seat.post: Down: no route"),
    ("invocation.cancelled", CALL, {}, "seller: seat#2 cancelled"),
    ("invocation.compensation_requested", CALL, {"compensation": {"tool": "undo"}},
     "run: undo is to take back the effect of seat#2"),
    ("invocation.compensation_refused", CALL, {"error": DOWN}, "run: the effect of seat#2 cannot be taken back: Down: no route"),
    ("invocation.attempt_started", UNDO, {"attempt": 1}, "compensation: calls undo (seat#2)"),
    ("compensation.call_expected", "c", {"invocation_id": CALL}, "run: seat#2 may have an effect that can be taken back"),
    ("compensation.effect_recorded", "c", {"number": 1, "tool": "seat", "key": "seat#2", "compensated_by": "undo"},
     "run: effect 1 of seat (seat#2) can be taken back by undo"),
    ("compensation.effect_recorded", "c", {"number": 2, "tool": "pay", "key": "k", "compensated_by": "undo", "unknown": True},
     "run: effect 2 of pay (k) can be taken back by undo; nobody knows whether the call had it"),
    ("compensation.effect_ruled_out", "c", {"invocation_id": CALL}, "run: seat#2 had no effect that could be taken back"),
    ("compensation.started", "c", {}, "run: its effects are taken back, the last one first"),
    ("compensation.effect_started", "c", {"number": 2}, "run: effect 2 of pay is being taken back"),
    ("compensation.effect_started", "c", {"number": 2, "round": 2}, "run: effect 2 of pay is being taken back, time 2"),
    ("compensation.effect_compensated", "c", {"number": 2}, "run: effect 2 of pay was taken back"),
    ("compensation.effect_skipped", "c", {"number": 1, "invocation_id": CALL, **SAID},
     "run: effect 1 of seat stays, says key:ann because: sent by hand"),
    ("compensation.effect_skipped", "c", {"number": None, "invocation_id": CALL, **SAID},
     "run: seat#2 is not waited for, says key:ann because: sent by hand"),
    ("compensation.resumed", "c", {"because": "person", **SAID},
     "run: taking effects back goes on, says key:ann because: sent by hand"),
    ("compensation.resumed", "c", {"because": "late_effect"}, "run: a call took effect late: its effect is taken back, too"),
    ("invocation.held", CALL, {"why": "approval", "approval_id": "a1", "demand": DEMAND},
     "seller: seat#2 waits for an approval by 2 of admin and 1 of owner, admin, operator, four eyes (policy p: arguments.n > 1; it "
     "saw arguments.n = 2; the tool: every call; it could not be evaluated: no key): tidelog inbox show a1"),
    ("invocation.held", CALL, {"why": "budget", "approval_id": "a1", "demand": {}}, "seller: seat#2 waits for a budget"),
    ("invocation.released", CALL, {"arguments": None}, "seller: seat#2 may begin"),
    ("invocation.released", CALL, {"arguments": {"n": 1}}, "seller: seat#2 may begin, with other arguments: n: 1"),
    ("approval.decided", "a1", {"invocation_id": CALL, "decision": "approve", "outcome": None, "by": "key:ann", "reason": None},
     "seller: seat#2 approved by key:ann; others must approve, too"),
    ("approval.decided", "a1", {"invocation_id": CALL, "decision": "deny", "outcome": "denied", **SAID},
     "seller: seat#2 denied by key:ann because: sent by hand"),
    ("approval.expired", "a1", {"invocation_id": CALL, "outcome": "denied"},
     "seller: nobody decided on seat#2 in time: denied"),
    ("run.tainted", "run", {"invocation_id": CALL, "key": "k"},
     "run: seat#2 gave untrusted output: everything in the run may come from it now"),
    ("run.tainted", "run", {"invocation_id": "else", "key": "k"},
     "run: k gave untrusted output: everything in the run may come from it now"),
    ("agent_run.suspended", AGENT, {}, "seller: only waits, and has left its worker"),
    ("agent_run.wait_started", AGENT, {"kind": "sleep", "delay_s": 90.0}, "seller: sleeps for 90 s"),
    ("agent_run.wait_started", AGENT, {"kind": "sleep", "until": "2026-12-01T08:00:00Z"},
     "seller: sleeps until 2026-12-01T08:00:00Z"),
    ("agent_run.wait_started", AGENT, {"kind": "signal", "name": "go", "delay_s": 5.0},
     "seller: waits for the signal go for at most 5 s"),
    ("agent_run.wait_started", AGENT, {"kind": "child", "name": "critic", "delay_s": None}, "seller: waits for a run of critic"),
    ("agent_run.wait_finished", AGENT, {"key": "sleep#1", "result": None, "error": None}, "seller: goes on after sleep#1"),
    ("agent_run.wait_finished", AGENT, {"key": "signal:go#1", "result": {"n": 1}}, "seller: goes on after signal:go#1 with n: 1"),
    ("agent_run.wait_finished", AGENT, {"key": "c", "error": DOWN}, "seller: waits no more as c: Down: no route"),
    ("agent_run.entry_taken_over", AGENT, {"key": "parse"}, "seller: takes over parse"),
    ("agent_run.mail_taken_over", AGENT, {"sender": "buyer"}, "seller: takes over a message of buyer"),
    ("context.value_taken_over", "x", {"name": "plan", "value": {"n": 1}}, "run: takes over plan = n: 1"),
    ("run.signalled", "run", {"name": "go", "received_by": {}}, "run: got the signal go, which nobody waits for yet"),
    ("run.signalled", "run", {"name": "go", "step": "s", "received_by": {"key": "k"}}, "run: got the signal go to s"),
    ("chain.started", CHAIN, {"tool": "trip.plan"}, "chain: trip.plan begins"),
    ("chain.step_requested", CHAIN, {"step": "find", "tool": "seat.find"}, "chain: trip.plan calls seat.find at find"),
    ("chain.step_skipped", CHAIN, {"step": "pay", "condition": "price > 0"}, "chain: trip.plan leaves out pay: price > 0 is false"),
    ("chain.step_finished", CHAIN, {"step": "find"}, "chain: trip.plan is done with find"),
    ("chain.completed", CHAIN, {}, "chain: trip.plan completed"),
    ("chain.failed", CHAIN, {"step": "find", "error": DOWN}, "chain: trip.plan failed at find: Down: no route"),
    ("chain.failed", CHAIN, {"step": None, "error": DOWN}, "chain: trip.plan failed: Down: no route"),
    ("chain.cancelled", CHAIN, {"reason": "enough"}, "chain: trip.plan cancelled: enough"),
    ("chain.cancelled", CHAIN, {}, "chain: trip.plan cancelled"),
]  # fmt: skip


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    timeline = Timeline(more=QUIET)
    for type_, subject, data in (
        ("run.step_scheduled", "run", {"step": "seller", "agent_run_id": AGENT}),
        ("agent_run.call_started", AGENT, {"key": "seat#2", "tool": "seat", "invocation_id": CALL}),
        ("invocation.requested", UNDO, {"tool": "undo", "key": CALL, "agent_run_id": "c", "asked_by": "compensation"}),
    ):
        timeline.feed(_event(type_, subject, data))
    return timeline


def _event(type_: str, subject: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"type": type_, "subject": subject, "data": data, "position": 1, "time": datetime.now(UTC).isoformat()}


@pytest.mark.parametrize(("type_", "subject", "data", "words"), TOLD, ids=[f"{n} {told[0]}" for n, told in enumerate(TOLD)])
def test_every_quiet_event_has_words(timeline: Timeline, type_: str, subject: str, data: dict[str, Any], words: str) -> None:
    line = timeline.feed(_event(type_, subject, data))
    assert line is not None and line.sentence == words


def test_no_quiet_event_is_left_out_here() -> None:
    assert {told[0] for told in TOLD} >= set(QUIET)


def test_a_moment_without_changes_says_what_happened() -> None:
    history, call = RunHistory(), EVENTS[3].stream_id
    started = [history.feed(as_sent(event)) for event in EVENTS[:4]]
    assert [moment.told for moment in started] == [""] * 4, "the changes say it"
    effect = {"number": 1, "invocation_id": str(call), "key": "search", "tool": "web.search", "compensated_by": "undo"}
    event = as_sent(EVENTS[3]) | {"type": "compensation.effect_recorded", "data": effect, "subject": str(EVENTS[0].root_id)}
    event["dataschema"] = "x/v1"
    moment = history.feed(event)
    assert moment.changes == () and moment.told == "run: effect 1 of web.search (search) can be taken back by undo"
    assert moment.document()["told"] == moment.told


def test_a_fallback_says_why_beside_its_change() -> None:
    history, call = RunHistory(), str(EVENTS[3].stream_id)
    for event in EVENTS[:4]:
        history.feed(as_sent(event))
    call = str(as_sent(EVENTS[3])["data"]["invocation_id"])
    running = as_sent(EVENTS[3]) | {"subject": call, "type": "invocation.attempt_started", "dataschema": "x/v1"}
    history.feed(running | {"data": {"attempt": 1, "worker_id": "w", "dispatch": 1}})
    fell = {"run_id": call, "from_tool": "web.search", "tool": "web.guess", "version": "1", "number": 1, "attempt": 1,
            "error": DOWN, "dispatch": 2}  # fmt: skip
    moment = history.feed(running | {"type": "invocation.fell_back", "data": fell})
    assert "writer.search" in {change.path for change in moment.changes}
    assert moment.told == "writer: web.search (search) goes on with web.guess: Down: no route"


def test_the_column_of_events_fits_the_longest_name() -> None:
    assert max(len(topic) for topic in REGISTRY.events) == EVENT_WIDTH
