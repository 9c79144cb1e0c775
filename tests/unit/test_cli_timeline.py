"""The timeline of a run for people, and the gist of values."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.cli.output import duration, gist, shortened
from api.cli.timeline import Timeline

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
RUN, WRITER, CALL = "run-id", "agent-run-of-the-writer", "the-call"
STEPS = [{"key": "writer", "after": []}, {"key": "critic", "after": ["writer"]}]


class Log:
    """Events as the server sends them."""

    def __init__(self) -> None:
        self.position = 0
        self.timeline = Timeline()

    def __call__(self, type_: str, subject: str, data: dict[str, Any], at_s: float = 0) -> str | None:
        self.position += 1
        time = (START + timedelta(seconds=at_s)).isoformat().replace("+00:00", "Z")
        event = {"type": type_, "subject": subject, "data": data, "time": time, "position": self.position}
        line = self.timeline.feed(event)
        return None if line is None else line.plain()


@pytest.fixture
def log() -> Log:
    log = Log()
    assert log("run.started", RUN, {"plan": {"steps": STEPS}}) == " 0:00.00  run           started: writer, then critic"
    assert log("run.step_scheduled", RUN, {"step": "writer", "agent_run_id": WRITER}) is None
    return log


def test_a_step_from_claim_to_end(log: Log) -> None:
    claimed = log("agent_run.claimed", WRITER, {"attempt": 1, "worker_id": "0000-abcdef12"}, 1)
    assert claimed == " 0:01.00  writer        begins (worker …abcdef12)"
    assert log("agent_run.call_started", WRITER, {"key": "web.search#1", "tool": "web.search", "invocation_id": CALL}, 2) is None
    assert log("invocation.attempt_started", CALL, {"attempt": 1}, 2) == " 0:02.00  writer        calls web.search"
    assert log("invocation.succeeded", CALL, {}, 2.25) == " 0:02.25  writer        web.search answered in 250 ms"
    assert log("agent_run.completed", WRITER, {"step": "writer"}, 63.5) == " 1:03.50  writer        done in 62 s"
    assert log("run.completed", RUN, {"degraded": False, "missing": []}, 64) == " 1:04.00  run           completed"


def test_a_version_that_was_asked_for_is_told(log: Log) -> None:
    for asked, told in ((True, "begins (worker …abcdef12, version 2 asked for)"), (False, "begins (worker …abcdef12)")):
        scheduled = {"step": f"critic-{asked}", "agent_run_id": f"run of {asked}", "agent_version": "2", "version_asked": asked}
        log("run.step_scheduled", RUN, scheduled)
        line = log("agent_run.claimed", f"run of {asked}", {"attempt": 1, "worker_id": "0000-abcdef12"})
        assert line is not None and line.endswith(told)


def test_another_worker_goes_on_with_what_is_recorded(log: Log) -> None:
    log("agent_run.claimed", WRITER, {"attempt": 1, "worker_id": "one"})
    log("agent_run.step_recorded", WRITER, {"key": "parse", "kind": "step"})
    log("agent_run.step_recorded", WRITER, {"key": "send#1", "kind": "send"})
    told = log("agent_run.claimed", WRITER, {"attempt": 2, "worker_id": "two"})
    assert told is not None
    assert "goes on (worker …two, attempt 2, 2 results at hand)" in told


def test_a_lapse_says_what_became_of_the_worker(log: Log) -> None:
    log("agent_run.call_started", WRITER, {"key": "k", "tool": "web.search", "invocation_id": CALL})
    for reason, words in (("lost", "its worker vanished, waits for another"), ("left", "its worker stopped, waits for another")):
        of_agent, of_call = (
            log(kind, subject, {"dispatch": 2, "lapsed": 1, "reason": reason})
            for kind, subject in (("agent_run.resumed", WRITER), ("invocation.requeued", CALL))
        )
        assert of_agent is not None and of_agent.endswith(words) and "web.search" not in of_agent
        assert of_call is not None and of_call.endswith(f"web.search (k): {words}")
    for quiet in (
        {"dispatch": 2},
        {"dispatch": 2, "lapsed": None, "reason": None},
        {"dispatch": 2, "lapsed": 1, "reason": "unsent"},
    ):
        assert log("agent_run.resumed", WRITER, quiet) is None and log("invocation.requeued", CALL, quiet) is None


def test_failures_say_why(log: Log) -> None:
    why = {"type": "ValueError", "message": "no such  page\n  File somewhere", "kind": "transient"}
    log("agent_run.call_started", WRITER, {"key": "k", "tool": "web.search", "invocation_id": CALL})
    retry = log("invocation.retry_scheduled", CALL, {"delay_s": 1.5, "error": why})
    assert retry is not None and retry.endswith("web.search (k) failed, again in 1.5 s: ValueError: no such page File somewhere")
    failed = log("run.failed", RUN, {"step": "writer", "error": {**why, "message": "", "file": "/a/b.py", "line": 7}})
    assert failed is not None and failed.endswith("failed at writer: ValueError (/a/b.py:7)")


def test_a_result_that_changed_code_did_not_use_is_a_warning(log: Log) -> None:
    told = log("agent_run.completed", WRITER, {"step": "writer", "unused_keys": ["s0", "s1"]})
    assert told is not None
    assert told.endswith("2 recorded results were not used, so the agent's code was changed between its attempts: s0, s1")
    many = log("agent_run.completed", WRITER, {"step": "writer", "unused_keys": [f"k{number}" for number in range(30)]})
    assert many is not None and many.endswith("k8, k9 …")
    one = log("agent_run.completed", WRITER, {"step": "writer", "unused_keys": ["s0"]})
    assert one is not None and "1 recorded result was not used" in one


def test_a_call_that_waits_for_a_person_says_what_to_write(log: Log) -> None:
    log("agent_run.call_started", WRITER, {"key": "mail.send#1", "tool": "mail.send", "invocation_id": CALL})
    told = log("invocation.became_ambiguous", CALL, {"attempt": 1, "worker_id": "w"})
    assert told is not None
    first, result, error, nothing = told.splitlines()
    assert first.endswith("mail.send: its worker vanished; whether it took effect is unknown. A person must say it:")
    assert result.endswith("tidelog invocations resolve the-call --result JSON --reason TEXT")
    assert error.endswith("tidelog invocations resolve the-call --error MESSAGE --reason TEXT")
    assert nothing.endswith("tidelog invocations resolve the-call --not-happened --reason TEXT")
    said = {"by": "key:ann", "reason": "It is in\nthe outbox.", "error": None}
    resolved = log("invocation.resolved", CALL, said)
    assert resolved is not None
    assert resolved.endswith("mail.send took effect, resolved by key:ann because: It is in the outbox.")
    failed = log("invocation.resolved", CALL, {**said, "error": {"type": "NotSent", "message": "no trace"}})
    assert failed is not None
    assert failed.endswith("mail.send failed: NotSent: no trace, resolved by key:ann because: It is in the outbox.")


def test_asking_a_reconcile_function_is_told(log: Log) -> None:
    log("agent_run.call_started", WRITER, {"key": "mail.send#1", "tool": "mail.send", "invocation_id": CALL})
    asked = log("invocation.reconcile_requested", CALL, {"reason": "lost", "give_up_s": 600.0})
    assert asked is not None
    assert asked.endswith("mail.send: its worker vanished, so its reconcile function is asked whether it took effect")
    assert log("invocation.reconcile_requested", CALL, {"reason": "lost", "give_up_s": None}) is None, "it goes on"
    error = {"type": "Down", "message": "no route"}
    failed = log("invocation.reconcile_failed", CALL, {"error": error, "delay_s": 2.0})
    assert failed is not None and failed.endswith("mail.send: its reconcile function failed, again in 2.0 s: Down: no route")
    failed = log("invocation.reconcile_failed", CALL, {"error": error, "delay_s": None})
    assert failed is not None and failed.endswith("mail.send: its reconcile function failed: Down: no route")
    said = log("invocation.reconciled", CALL, {"outcome": "not_happened"})
    assert said is not None and said.endswith("mail.send: its reconcile function says: it did not take effect")
    gave_up = log("invocation.became_ambiguous", CALL, {"reason": "the reconcile function does not know"})
    assert gave_up is not None and "mail.send: the reconcile function does not know; whether" in gave_up
    person = log("invocation.not_happened", CALL, {"by": "key:ann", "reason": "no trace"})
    assert person is not None and person.endswith("mail.send did not take effect, says key:ann because: no trace")


def test_a_call_that_goes_on_with_another_tool_is_told(log: Log) -> None:
    log("agent_run.call_started", WRITER, {"key": "mail.send#1", "tool": "mail.send", "invocation_id": CALL})
    told = log("invocation.fell_back", CALL, {"tool": "mail.post", "error": {"type": "Down", "message": "no route"}})
    assert told is not None and told.endswith("mail.send goes on with mail.post: Down: no route")
    assert log("invocation.fell_back", WRITER, {"tool": "x", "error": {"type": "E", "message": "m"}}) is None


def test_a_cancelled_call_is_told(log: Log) -> None:
    log("agent_run.call_started", WRITER, {"key": "mail.send#1", "tool": "mail.send", "invocation_id": CALL})
    asked = log("invocation.cancel_requested", CALL, {"attempt": 1, "reason": None})
    assert asked is not None and asked.endswith("mail.send is cancelled: it is not tried again")
    over = log("invocation.cancelled", CALL, {"reason": None, "effect": "unknown"})
    assert over is not None and over.endswith("mail.send cancelled: its worker vanished, whether it took effect is unknown")
    assert log("invocation.cancelled", CALL, {"reason": None, "effect": None}) is None


def test_tolerated_and_impossible_steps_are_told(log: Log) -> None:
    why = {"type": "E", "message": "m", "kind": "permanent"}
    own = log("run.step_failed", RUN, {"step": "writer", "agent_run_id": WRITER, "error": why, "tolerated": True})
    assert own is not None and own.endswith("writer        the run goes on without it")
    upstream = log("run.step_failed", RUN, {"step": "critic", "agent_run_id": None, "error": why, "tolerated": False})
    assert upstream is not None and upstream.endswith("critic        cannot run: E: m")
    ended = log("run.completed", RUN, {"degraded": True, "missing": ["writer"]})
    assert ended is not None and ended.endswith("completed, degraded: without writer")


def test_messages_and_values_are_shown_by_their_gist(log: Log) -> None:
    sent = log("message.sent", "m", {"sender": "writer", "recipient": "critic", "body": {"draft": ["a", "b"], "round": 1}})
    assert sent is not None and sent.endswith("writer        → critic: draft: [2 items], round: 1")
    value = log("context.value_set", "c", {"agent_run_id": WRITER, "name": "mood", "value": "calm", "value_version": 1})
    assert value is not None and value.endswith("writer        sets mood = calm")


def test_what_this_version_does_not_know_is_passed_over(log: Log) -> None:
    assert log("invocation.succeeded", "a call from before", {}) is None
    assert log("something.new", RUN, {"unheard": "of"}) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0 ms"), (0.25, "250 ms"), (1.04, "1.0 s"), (75, "75 s"), (150, "2 min 30 s"), (7260, "2 h 01 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), ("a\n b", "a b"), ([], "[]"), ([1], "[1 item]"), ({"a": {"b": 1}}, "a: {1 field}"), (1.5, "1.5"),
    ],
)  # fmt: skip
def test_gist(value: object, text: str) -> None:
    assert gist(value) == text


def test_long_text_is_cut_to_its_width() -> None:
    assert shortened("x" * 200, 10) == "x" * 9 + "…"


def test_taking_effects_back(log: Log) -> None:
    error = {"type": "Down", "message": "the bank is closed", "kind": "permanent"}
    assert log("compensation.effect_recorded", "stream", {"number": 1, "tool": "pay"}) is None
    told = [
        log("compensation.started", "stream", {"because": "failed"}),
        log("compensation.effect_compensated", "stream", {"number": 2}),
        log("compensation.effect_not_compensated", "stream", {"number": 1, "error": error}),
        log("compensation.ended", "stream", {"status": "partial", "compensated": 1, "effects": 2}),
    ]
    assert [line and line[10:] for line in told] == [
        "run           its effects are taken back, the last one first",
        "run           effect 2 of ? was taken back",
        "run           effect 1 of pay could not be taken back: Down: the bank is closed",
        "run           1 of 2 effects were taken back",
    ]


def test_a_call_without_a_run_has_lines_of_its_own() -> None:
    log = Log()
    asked = {"agent_run_id": CALL, "key": CALL, "tool": "mail.send", "asked_by": "client"}
    assert log("invocation.requested", CALL, asked) is None
    assert log("invocation.attempt_started", CALL, {"attempt": 1}, 2) == " 0:02.00  client        calls mail.send"
    assert log("invocation.succeeded", CALL, {}, 2.25) == " 0:02.25  client        mail.send answered in 250 ms"
    assert log("invocation.requested", "other", {**asked, "key": "welcome"}) is None
    answered = {"cached_from": CALL}
    assert log("invocation.succeeded", "other", answered) == " 0:00.00  client        mail.send (welcome) answered from the cache"
    assert log("invocation.requested", "of an agent", {**asked, "asked_by": "agent_run"}) is None
    assert log("invocation.attempt_started", "of an agent", {"attempt": 1}) is None


def test_a_compensating_call_is_named_by_the_call_whose_effect_it_takes_back(log: Log) -> None:
    log("agent_run.call_started", WRITER, {"key": "seat.reserve#2", "tool": "seat.reserve", "invocation_id": CALL})
    log("invocation.requested", "undo", {"agent_run_id": "c", "key": CALL, "tool": "seat.undo", "asked_by": "compensation"})
    told = log("invocation.attempt_started", "undo", {"attempt": 1})
    assert told == " 0:00.00  compensation  calls seat.undo (seat.reserve#2)"
