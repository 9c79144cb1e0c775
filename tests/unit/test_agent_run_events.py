"""Agent runs in full: every field of every event, and the whole state after it."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from immutables import Map

from domain import agent_runs
from domain.agent_runs import (
    AgentRun,
    AgentRunCancelled,
    AgentRunClaimed,
    AgentRunCompleted,
    AgentRunFailed,
    AgentRunRequested,
    AgentRunResumed,
    AgentRunRetryScheduled,
    CallFinished,
    CallStarted,
    CancelAgentRun,
    ClaimAgentRun,
    CompleteAgentRun,
    DeliverMail,
    Entry,
    FailAgentRun,
    FinishCall,
    Mail,
    MailDelivered,
    MailReceived,
    MailRefused,
    ReceiveMail,
    RecordStep,
    RequestAgentRun,
    ResumeAgentRun,
    StartCall,
    StepRecorded,
    TimeOutAgentRun,
    invocation_id_of,
    message_id_of,
    scheduled_by,
)
from domain.errors import InvalidState, NotFound, RecipientOver, RepeatedDifferently, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, Failure, Retry, backoff_s
from domain.kernel import Command, Event, Scheduled, derive_id, replace
from tests.kit import Given, fold, given

RUN = UUID("01900000-0000-7000-8000-0000000000aa")
ID = UUID("01900000-0000-7000-8000-0000000000cc")
MESSAGE = UUID("01900000-0000-7000-8000-0000000000dd")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RETRY = Retry(max_attempts=2, initial_s=8)
REQUEST = RequestAgentRun(agent_run_id=ID, run_id=RUN, step="s", agent="a", agent_version="7", timeout_s=90, retry=RETRY)
REQUESTED = AgentRunRequested(run_id=RUN, step="s", agent="a", agent_version="7", timeout_s=90, retry=RETRY)
CLAIM = ClaimAgentRun(agent_run_id=ID, worker_id="w1", dispatch=1)
CLAIMED = AgentRunClaimed(attempt=1, worker_id="w1", dispatch=1)
CALL = invocation_id_of(ID, "c")
CALLED = CallStarted(attempt=1, key="c", tool="t", invocation_id=CALL)
DELIVERED = MailDelivered(message_id=MESSAGE, sender="b", sent_at=NOW)
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient")
PERMANENT = Failure(type="ValueError", message="no")

requested = given(agent_runs.DECIDER, REQUESTED)
running = given(agent_runs.DECIDER, REQUESTED, CLAIMED)
calling = given(agent_runs.DECIDER, REQUESTED, CLAIMED, CALLED)
completed = given(agent_runs.DECIDER, REQUESTED, CLAIMED, AgentRunCompleted(run_id=RUN, step="s", attempt=1))
waiting = running.after(FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT))

DELAY = backoff_s(RETRY, ID, 1, TRANSIENT)
LATE = Failure(type="StepTimeout", message="the step did not finish within 90 s", kind="timeout")


@pytest.mark.parametrize(
    ("state", "command", "events"),
    [
        (given(agent_runs.DECIDER), REQUEST, [REQUESTED]),
        (requested, CLAIM, [CLAIMED]),
        (
            running,
            RecordStep(agent_run_id=ID, attempt=1, key="k", kind="state_set", result={"a": [1]}),
            [StepRecorded(attempt=1, key="k", kind="state_set", result={"a": [1]})],
        ),
        (running, StartCall(agent_run_id=ID, attempt=1, key="c", tool="t"), [CALLED]),
        *(
            (
                calling,
                FinishCall(agent_run_id=ID, key="c", invocation_id=CALL, succeeded=succeeded),
                [CallFinished(key="c", invocation_id=CALL, succeeded=succeeded)],
            )
            for succeeded in (True, False)
        ),
        (running, DeliverMail(agent_run_id=ID, run_id=RUN, message_id=MESSAGE, sender="b", sent_at=NOW), [DELIVERED]),
        (
            given(agent_runs.DECIDER, REQUESTED, CLAIMED, DELIVERED),
            ReceiveMail(agent_run_id=ID, attempt=1, key="r", message_id=MESSAGE),
            [MailReceived(attempt=1, key="r", message_id=MESSAGE)],
        ),
        (
            running,
            ReceiveMail(agent_run_id=ID, attempt=1, key="r", message_id=None),
            [MailReceived(attempt=1, key="r", message_id=None)],
        ),
        (
            running,
            CompleteAgentRun(agent_run_id=ID, attempt=1, result=[1], unused_keys=("old",)),
            [AgentRunCompleted(run_id=RUN, step="s", attempt=1, result=[1], unused_keys=("old",))],
        ),
        (
            running,
            FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT),
            [AgentRunRetryScheduled(attempt=1, error=TRANSIENT, delay_s=DELAY, dispatch=2)],
        ),
        (
            calling,
            FailAgentRun(agent_run_id=ID, attempt=1, error=PERMANENT),
            [AgentRunFailed(run_id=RUN, step="s", error=PERMANENT, abandoned=(CALL,))],
        ),
        (waiting, ResumeAgentRun(agent_run_id=ID, dispatch=2), [AgentRunResumed(run_id=RUN, agent="a", dispatch=2)]),
        (calling, TimeOutAgentRun(agent_run_id=ID), [AgentRunFailed(run_id=RUN, step="s", error=LATE, abandoned=(CALL,))]),
        (calling, CancelAgentRun(agent_run_id=ID, reason="enough"), [AgentRunCancelled(reason="enough", abandoned=(CALL,))]),
        (calling, StartCall(agent_run_id=ID, attempt=1, key="c", tool="t"), []),
        (completed, CancelAgentRun(agent_run_id=ID), []),
        (
            calling.after(CompleteAgentRun(agent_run_id=ID, attempt=1)),
            FinishCall(agent_run_id=ID, key="c", invocation_id=CALL, succeeded=True),
            [],
        ),
        (running, FinishCall(agent_run_id=ID, key="c", invocation_id=CALL, succeeded=True), []),
        (running, ResumeAgentRun(agent_run_id=ID, dispatch=2), []),
        (given(agent_runs.DECIDER), ResumeAgentRun(agent_run_id=ID, dispatch=1), []),
        (given(agent_runs.DECIDER), TimeOutAgentRun(agent_run_id=ID), []),
    ],
)
def test_what_an_agent_run_is_told_is_in_its_events(state: Given, command: Command, events: list[Event]) -> None:
    state.when(command).then(*events)


def test_workers_that_vanish_without_progress_are_counted_to_ten() -> None:
    lost = requested
    for _ in range(MAX_LOST_CLAIMS - 1):
        lost = lost.after(CLAIM)
    lost.when(CLAIM).then(AgentRunClaimed(attempt=MAX_LOST_CLAIMS, worker_id="w1", dispatch=1))
    why = "10 workers in a row vanished while they ran this agent, without any progress"
    failure = Failure(type="WorkersLost", message=why, kind="lost")
    lost.after(CLAIM).when(CLAIM).then(AgentRunFailed(run_id=RUN, step="s", error=failure))


def test_a_retry_counts_failures_and_not_attempts() -> None:
    """The claim of a vanished worker is no failure."""
    retry = Retry(max_attempts=3, initial_s=8)
    state = given(agent_runs.DECIDER).after(REQUEST.model_copy(update={"retry": retry}), CLAIM, CLAIM)
    state = state.after(FailAgentRun(agent_run_id=ID, attempt=2, error=TRANSIENT), ResumeAgentRun(agent_run_id=ID, dispatch=2))
    state = state.after(ClaimAgentRun(agent_run_id=ID, worker_id="w1", dispatch=2))
    (event,) = state.when(FailAgentRun(agent_run_id=ID, attempt=3, error=TRANSIENT)).events()
    assert event == AgentRunRetryScheduled(attempt=3, error=TRANSIENT, delay_s=backoff_s(retry, ID, 2, TRANSIENT), dispatch=3)
    once = given(agent_runs.DECIDER).after(REQUEST.model_copy(update={"retry": Retry()}), CLAIM)
    once.when(FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT)).then_topics("agent_run.failed")


REPORTS = [
    RecordStep(agent_run_id=ID, attempt=1, key="k"),
    StartCall(agent_run_id=ID, attempt=1, key="c", tool="t"),
    ReceiveMail(agent_run_id=ID, attempt=1, key="r", message_id=None),
    CompleteAgentRun(agent_run_id=ID, attempt=1),
    FailAgentRun(agent_run_id=ID, attempt=1, error=PERMANENT),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_a_worker_reports_to_an_agent_run_that_it_runs(report: Command) -> None:
    given(agent_runs.DECIDER).when(report).refused(NotFound)
    completed.when(report).refused(WorkOver, "completed")
    requested.when(report).refused(StaleAttempt)
    waiting.when(report).refused(StaleAttempt)
    running.after(CLAIM).when(report).refused(StaleAttempt, "attempt 1 lost its lease; 2 is the newest")


def test_the_rest_is_refused_without_a_request() -> None:
    given(agent_runs.DECIDER).when(CancelAgentRun(agent_run_id=ID)).refused(NotFound)
    waiting.when(CLAIM.model_copy(update={"dispatch": 2})).refused(WorkOver, "dispatch 2 is over")


def test_refusals_say_which_field_is_wrong() -> None:
    nothing = ReceiveMail(agent_run_id=ID, attempt=1, key="n", message_id=None)
    repeated = running.after(RecordStep(agent_run_id=ID, attempt=1, key="k", result=1), nothing)
    repeated.when(nothing).then()
    for command, error, pointer in (
        (RecordStep(agent_run_id=ID, attempt=1, key="k", result=2), RepeatedDifferently, "/key"),
        (nothing.model_copy(update={"message_id": MESSAGE}), RepeatedDifferently, "/key"),
        (RecordStep(agent_run_id=ID, attempt=1, key="k", kind="send", result=1), InvalidState, "/key"),
        (ReceiveMail(agent_run_id=ID, attempt=1, key="r", message_id=MESSAGE), InvalidState, "/message_id"),
    ):
        with pytest.raises(error) as refused:
            repeated.when(command).events()
        assert refused.value.pointer == pointer
        assert str(getattr(command, pointer[1:])) in refused.value.message


def test_mail_is_delivered_once_and_refused_by_whoever_is_over() -> None:
    deliver = DeliverMail(agent_run_id=ID, run_id=RUN, message_id=MESSAGE, sender="b", sent_at=NOW)
    running.after(deliver).when(deliver).then()
    running.after(CancelAgentRun(agent_run_id=ID)).when(deliver).then(
        MailRefused(message_id=MESSAGE, reason="the recipient is cancelled")
    )


def test_mail_that_its_sender_delivers_is_refused_by_an_error() -> None:
    deliver = DeliverMail(agent_run_id=ID, run_id=RUN, message_id=MESSAGE, sender="b", sent_at=NOW, by_sender=True)
    running.when(deliver).then(MailDelivered(message_id=MESSAGE, sender="b", sent_at=NOW))
    running.after(deliver, CancelAgentRun(agent_run_id=ID)).when(deliver).then()
    with pytest.raises(RecipientOver, match="the recipient is cancelled") as refused:
        running.after(CancelAgentRun(agent_run_id=ID)).when(deliver).events()
    assert refused.value.pointer == "/to"


def test_the_state_after_each_event() -> None:
    first = fold(agent_runs.DECIDER, [REQUESTED])
    assert first == AgentRun("requested", 1, REQUESTED, dispatch=1)
    claimed = agent_runs.evolve(first, CLAIMED)
    assert claimed == AgentRun("running", 2, REQUESTED, attempt=1, worker_id="w1", dispatch=1, lost_claims=1)
    lost = fold(agent_runs.DECIDER, [REQUESTED, CLAIMED, AgentRunClaimed(attempt=2, worker_id="w2", dispatch=1)])
    assert (lost.version, lost.attempt, lost.worker_id, lost.lost_claims) == (3, 2, "w2", 2)

    def after(event: Event, **changes: object) -> None:
        assert agent_runs.evolve(lost, event) == replace(lost, version=4, **changes)  # type: ignore[arg-type]

    def with_entry(event: Event, key: str, entry: Entry, **changes: object) -> None:
        after(event, journal=Map({key: entry}), changed=Map({4: key}), lost_claims=0, **changes)

    step = StepRecorded(attempt=2, key="k", kind="state_get", result=[1])
    with_entry(step, "k", Entry("state_get", "ok", [1], None, 4))
    with_entry(CALLED, "c", Entry("call", "pending", None, CALL, 4), pending=Map({4: CALL}))
    for succeeded, status in ((True, "ok"), (False, "error")):
        finished = CallFinished(key="c", invocation_id=CALL, succeeded=succeeded)
        with_entry(finished, "c", Entry("call", status, None, CALL, 4))  # type: ignore[arg-type]
    with_entry(MailReceived(attempt=2, key="r", message_id=None), "r", Entry("receive", "ok", None, None, 4))
    after(AgentRunCompleted(run_id=RUN, step="s", attempt=2), status="completed")
    after(DELIVERED, mailbox=Map({MESSAGE: Mail("b", NOW, 4)}), unreceived=Map({4: MESSAGE}), news=4)
    after(MailRefused(message_id=MESSAGE, reason="late"))
    retry = AgentRunRetryScheduled(attempt=2, error=TRANSIENT, delay_s=1, dispatch=2)
    after(retry, status="waiting", failures=1, lost_claims=0)
    after(AgentRunResumed(run_id=RUN, agent="a", dispatch=2), status="requested", dispatch=2)
    given_back = AgentRunResumed(run_id=RUN, agent="a", dispatch=2, lapsed=2, reason="left")
    after(given_back, status="requested", dispatch=2, lost_claims=1)
    after(AgentRunFailed(run_id=RUN, step="s", error=PERMANENT), status="failed")
    after(AgentRunCancelled(), status="cancelled")


def test_entries_are_added_to_what_is_there() -> None:
    other = UUID(int=MESSAGE.int + 1)
    events = [
        REQUESTED,
        CLAIMED,
        StepRecorded(attempt=1, key="k", kind="step", result=1),
        CALLED,
        DELIVERED,
        MailDelivered(message_id=other, sender="c", sent_at=NOW),
        MailReceived(attempt=1, key="r", message_id=MESSAGE),
        CallFinished(key="c", invocation_id=CALL, succeeded=True),
        StepRecorded(attempt=1, key="l", kind="step", result=2),
    ]
    state = fold(agent_runs.DECIDER, events)
    assert dict(state.journal) == {
        "k": Entry("step", "ok", 1, None, 3),
        "c": Entry("call", "ok", None, CALL, 8),
        "r": Entry("receive", "ok", str(MESSAGE), None, 7),
        "l": Entry("step", "ok", 2, None, 9),
    }
    assert dict(state.mailbox) == {MESSAGE: Mail("b", NOW, 5, "r"), other: Mail("c", NOW, 6)}
    assert dict(state.changed) == {3: "k", 7: "r", 8: "c", 9: "l"}, "each key under the version that wrote it last"
    assert dict(state.unreceived) == {6: other}
    assert (dict(state.pending), state.pending_calls) == ({}, ())


def test_only_calls_that_are_under_way_are_pending() -> None:
    later = CallStarted(attempt=1, key="d", tool="t", invocation_id=MESSAGE)
    finished = CallFinished(key="c", invocation_id=CALL, succeeded=False)
    recorded = StepRecorded(attempt=1, key="k", kind="step")
    both = fold(agent_runs.DECIDER, [REQUESTED, CLAIMED, later, CALLED])
    assert both.pending_calls == (MESSAGE, CALL), "in the order in which they were started"
    state = fold(agent_runs.DECIDER, [REQUESTED, CLAIMED, CALLED, later, finished, recorded])
    assert state.pending_calls == (MESSAGE,)
    assert dict(state.changed) == {4: "d", 5: "c", 6: "k"}
    claimed = agent_runs.evolve(state, AgentRunClaimed(attempt=2, worker_id="w2", dispatch=1))
    assert claimed.lost_claims == 0, "an agent run that waits for a tool is not what kills its worker"


def test_timers() -> None:
    assert scheduled_by(REQUESTED, ID) == Scheduled(90, TimeOutAgentRun(agent_run_id=ID))
    assert scheduled_by(REQUESTED.model_copy(update={"timeout_s": None}), ID) is None
    retry = AgentRunRetryScheduled(attempt=1, error=TRANSIENT, delay_s=2.5, dispatch=2)
    assert scheduled_by(retry, ID) == Scheduled(2.5, ResumeAgentRun(agent_run_id=ID, dispatch=2))
    assert scheduled_by(CLAIMED, ID) is None


def test_ids_that_follow_from_keys() -> None:
    assert derive_id(ID, "call:c") == CALL
    assert message_id_of(ID, "c") == derive_id(ID, "message:c")
