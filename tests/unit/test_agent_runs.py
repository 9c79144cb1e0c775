"""Rules of agent runs: claims fence, the journal remembers, mail waits, failures are retried or not."""

from datetime import UTC, datetime
from uuid import UUID

from domain import agent_runs
from domain.agent_runs import (
    AgentRunClaimed,
    AgentRunRetryScheduled,
    CancelAgentRun,
    ClaimAgentRun,
    CompleteAgentRun,
    DeliverMail,
    FailAgentRun,
    FinishCall,
    MailRefused,
    ReceiveMail,
    RecordStep,
    RequestAgentRun,
    ResumeAgentRun,
    StartCall,
    TimeOutAgentRun,
    invocation_id_of,
)
from domain.errors import InvalidState, NotFound, RepeatedDifferently, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, Failure, Retry
from tests.kit import given

RUN = UUID("01900000-0000-7000-8000-0000000000aa")
ID = UUID("01900000-0000-7000-8000-0000000000cc")
MESSAGE = UUID("01900000-0000-7000-8000-0000000000dd")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = RequestAgentRun(agent_run_id=ID, run_id=RUN, step="a", agent="a", timeout_s=60, retry=Retry(max_attempts=2))
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient")
PERMANENT = Failure(type="ValueError", message="no")


def claim(worker: str = "w1", dispatch: int = 1) -> ClaimAgentRun:
    return ClaimAgentRun(agent_run_id=ID, worker_id=worker, dispatch=dispatch)


def record(key: str, attempt: int = 1, result: object = 1) -> RecordStep:
    return RecordStep(agent_run_id=ID, attempt=attempt, key=key, result=result)


requested = given(agent_runs.DECIDER).after(REQUEST)
running = requested.after(claim())


def test_a_request_is_recorded_once() -> None:
    given(agent_runs.DECIDER).when(REQUEST).then_topics("agent_run.requested")
    requested.when(REQUEST).then()


def test_a_claim_gets_the_next_attempt_and_fences_the_one_before() -> None:
    requested.when(claim()).then(AgentRunClaimed(attempt=1, worker_id="w1", dispatch=1))
    taken_over = running.after(claim("w2"))
    taken_over.when(record("k", attempt=1)).refused(StaleAttempt)
    taken_over.when(record("k", attempt=2)).then_topics("agent_run.step_recorded")


def test_no_work_is_given_out_that_is_over() -> None:
    given(agent_runs.DECIDER).when(claim()).refused(NotFound)
    running.after(CompleteAgentRun(agent_run_id=ID, attempt=1)).when(claim("w2")).refused(WorkOver, "completed")
    requested.when(claim(dispatch=2)).refused(WorkOver, "dispatch")


def test_an_agent_that_kills_its_workers_fails_in_the_end_unless_it_makes_progress() -> None:
    lost = requested
    for _ in range(MAX_LOST_CLAIMS):
        lost = lost.after(claim())
    events = lost.when(claim()).then_topics("agent_run.failed")
    assert events[0].error.kind == "lost"
    lost.after(record("k", attempt=MAX_LOST_CLAIMS)).when(claim()).then_topics("agent_run.claimed")


def test_an_agent_that_waits_for_a_tool_is_not_what_kills_its_worker() -> None:
    waiting = running.after(StartCall(agent_run_id=ID, attempt=1, key="c", tool="t"))
    for _ in range(MAX_LOST_CLAIMS + 1):
        waiting = waiting.after(claim())
    waiting.when(claim()).then_topics("agent_run.claimed")


def test_the_journal_takes_each_key_once_and_for_one_kind() -> None:
    running.after(record("k")).when(record("k")).then()
    running.after(record("k")).when(record("k", result="other")).refused(RepeatedDifferently, "'k' was recorded before")
    running.after(record("k")).when(StartCall(agent_run_id=ID, attempt=1, key="k", tool="t")).refused(InvalidState, "journal")


def test_a_call_is_pending_until_its_invocation_has_an_outcome() -> None:
    called = running.after(StartCall(agent_run_id=ID, attempt=1, key="c", tool="t"))
    invocation_id = invocation_id_of(ID, "c")
    assert called.state.pending_calls == (invocation_id,)
    finish = FinishCall(agent_run_id=ID, key="c", invocation_id=invocation_id, succeeded=True)
    called.when(finish).then_topics("agent_run.call_finished")
    called.after(finish).when(finish).then()
    assert called.after(finish).state.journal["c"].status == "ok"


def test_mail_waits_for_an_agent_that_has_not_begun() -> None:
    deliver = DeliverMail(agent_run_id=ID, run_id=RUN, message_id=MESSAGE, sender="b", sent_at=NOW)
    early = given(agent_runs.DECIDER).after(deliver)
    early.when(deliver).then()
    later = early.after(REQUEST, claim())
    receive = ReceiveMail(agent_run_id=ID, attempt=1, key="receive#1", message_id=MESSAGE)
    later.when(receive).then_topics("agent_run.mail_received")
    later.after(receive).when(receive).then()
    later.after(receive).when(receive.model_copy(update={"message_id": None})).refused(RepeatedDifferently, "another result")
    later.after(receive).when(receive.model_copy(update={"key": "receive#2"})).refused(InvalidState, "mailbox")


def test_mail_to_an_ended_agent_run_is_refused_visibly() -> None:
    ended = running.after(CompleteAgentRun(agent_run_id=ID, attempt=1))
    deliver = DeliverMail(agent_run_id=ID, run_id=RUN, message_id=MESSAGE, sender="b", sent_at=NOW)
    ended.when(deliver).then(MailRefused(message_id=MESSAGE, reason="the recipient is completed"))


def test_a_transient_failure_is_retried_with_backoff_until_the_attempts_are_used_up() -> None:
    fail = FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT)
    (event,) = running.when(fail).then_topics("agent_run.retry_scheduled")
    assert isinstance(event, AgentRunRetryScheduled)
    assert 0 < event.delay_s <= 0.5
    waiting = running.after(fail)
    waiting.when(claim()).refused(WorkOver)
    waiting.when(ResumeAgentRun(agent_run_id=ID, dispatch=3)).then()
    again = waiting.after(ResumeAgentRun(agent_run_id=ID, dispatch=2), claim(dispatch=2))
    again.when(FailAgentRun(agent_run_id=ID, attempt=2, error=TRANSIENT)).then_topics("agent_run.failed")


def test_a_permanent_failure_is_final() -> None:
    running.when(FailAgentRun(agent_run_id=ID, attempt=1, error=PERMANENT)).then_topics("agent_run.failed")


def test_timeout_and_cancel_end_what_has_not_ended() -> None:
    events = running.when(TimeOutAgentRun(agent_run_id=ID)).then_topics("agent_run.failed")
    assert events[0].error.kind == "timeout"
    called = running.after(StartCall(agent_run_id=ID, attempt=1, key="c", tool="t"))
    (cancelled,) = called.when(CancelAgentRun(agent_run_id=ID)).then_topics("agent_run.cancelled")
    assert cancelled.abandoned == (invocation_id_of(ID, "c"),)
    running.after(CompleteAgentRun(agent_run_id=ID, attempt=1)).when(TimeOutAgentRun(agent_run_id=ID)).then()
